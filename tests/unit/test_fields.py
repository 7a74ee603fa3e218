"""Fields and how their values are written."""

from __future__ import annotations

import pytest

from rule_cache.fields import (
    FRAG_ANY,
    FRAG_LATER,
    CtState,
    Field,
    Format,
    Value,
    format_match,
    format_value,
    to_bytes,
    to_int,
)

_MAC = bytes.fromhex("fa163e00000a")
_IP6 = bytes.fromhex("fd000000000000000000000000000001")


def test_each_field_has_a_text_name_of_its_own() -> None:
    assert len({field.text for field in Field}) == len(Field)


def test_addresses_have_the_width_of_their_kind() -> None:
    for field in Field:
        if field.form is Format.MAC:
            assert field.width == 6, field
        if field.form is Format.IP:
            assert field.width in (4, 16), field
            assert (field.width == 16) == ("ipv6" in field.text or "nd_" in field.text), field


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        (Field.IN_PORT, 7, "7"),
        (Field.REG5, 0x1F, "0x1f"),
        (Field.REG5, b"\0\0\0\x1f", "0x1f"),
        (Field.TUN_ID, 16_777_215, "0xffffff"),
        (Field.ETH_DST, _MAC, "fa:16:3e:00:00:0a"),
        (Field.ETH_DST, 0x0180C2000000, "01:80:c2:00:00:00"),
        (Field.IPV4_DST, b"\x0a\0\0\x01", "10.0.0.1"),
        (Field.IPV4_DST, 0, "0.0.0.0"),
        (Field.IPV6_SRC, _IP6, "fd00::1"),
        (Field.TCP_DST, 443, "443"),
        (Field.TCP_DST, b"\x01\xbb", "443"),
    ],
)
def test_a_value_is_written_as_ovs_writes_it(field: Field, value: Value, text: str) -> None:
    assert format_value(field, value) == text


@pytest.mark.parametrize(
    ("field", "value", "mask", "text"),
    [
        (Field.REG6, 5, None, "reg6=0x5"),
        (Field.TUN_ID, 5, 0xFF, "tun_id=0x5/0xff"),
        (Field.IPV4_DST, b"\x0a\0\0\0", b"\xff\xff\xff\0", "nw_dst=10.0.0.0/255.255.255.0"),
        (Field.IPV6_DST, _IP6[:1] + bytes(15), b"\xff" + bytes(15), "ipv6_dst=fd00::/ff00::"),
        (Field.VLAN_TCI, 0x1000, 0x1000, "vlan_tci=0x1000/0x1000"),
        (
            Field.CT_STATE,
            CtState.TRK,
            CtState.TRK | CtState.INV,
            "ct_state=-inv+trk",
        ),
        (
            Field.CT_STATE,
            CtState.TRK | CtState.RPL,
            CtState.TRK | CtState.RPL | CtState.INV,
            "ct_state=+rpl-inv+trk",
        ),
        (Field.CT_STATE, 0, CtState.TRK, "ct_state=-trk"),
        (
            Field.CT_STATE,
            CtState.NEW | CtState.TRK,
            None,
            "ct_state=+new-est-rel-rpl-inv+trk",
        ),
        (Field.IP_FRAG, FRAG_ANY | FRAG_LATER, FRAG_ANY | FRAG_LATER, "ip_frag=later"),
        (Field.IP_FRAG, FRAG_ANY, None, "ip_frag=first"),
        (Field.IP_FRAG, 0, None, "ip_frag=no"),
        (Field.IP_FRAG, 0, FRAG_LATER, "ip_frag=not_later"),
    ],
)
def test_a_match_is_written_as_ovs_writes_it(
    field: Field, value: Value, mask: Value | None, text: str
) -> None:
    assert format_match(field, value, mask) == text


def test_bytes_and_numbers_are_the_same_value() -> None:
    assert to_bytes(Field.TCP_DST, 443) == b"\x01\xbb"
    assert to_bytes(Field.TCP_DST, b"\x01\xbb") == b"\x01\xbb"
    assert to_bytes(Field.TUN_ID, 1) == bytes(7) + b"\x01"
    assert to_int(b"\x01\xbb") == to_int(443) == 443


@pytest.mark.parametrize(("field", "value"), [(Field.TCP_DST, 65536), (Field.IP_PROTO, -1)])
def test_a_number_too_big_for_its_field_is_refused(field: Field, value: int) -> None:
    with pytest.raises(OverflowError):
        to_bytes(field, value)

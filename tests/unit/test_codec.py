"""Records go to bytes and back unchanged, and nothing else gets in."""

from __future__ import annotations

import msgpack
import msgspec
import pytest

from ondemand.addresses import Prefix
from ondemand.codec import (
    MAX_PAYLOAD_BYTES,
    RecordError,
    check_record,
    decode_record,
    encode_record,
)
from ondemand.records import (
    ANY,
    ANY_PROTOCOL,
    AddressPair,
    Claim,
    Direction,
    Group,
    HostGroup,
    MacPointer,
    Neighbor,
    Port,
    Record,
    Route,
    Router,
    SecurityRule,
    Subnet,
)

MAC = bytes.fromhex("fa163e000001")
V4 = bytes((10, 0, 0, 7))
V6 = bytes.fromhex("fd000000000000000000000000000007")
NET4 = Prefix(bytes((10, 0, 0, 0)), 24)
NET6 = Prefix(bytes.fromhex("fd00") + bytes(14), 64)

#: One of each type, with the slice that it belongs into.
SAMPLES: list[tuple[str, Record]] = [
    (
        "host/h",
        Port(
            "p",
            MAC,
            "v",
            "s",
            (V4, V6),
            ("g1", "g2"),
            (AddressPair(NET4, MAC),),
            port_security=True,
        ),
    ),
    ("hostgroup/r", Port("p", MAC, "v", "s", (), port_security=False)),
    ("nbr/v/10.0.0.0", Neighbor(V4, MAC, "s", "p", V6, ("g",))),
    ("nbr/v/fd00::", Neighbor(V6, MAC, "s", "p", V4)),
    ("nbr/v/mac-7", MacPointer(MAC, "s", "p", V4)),
    ("vpc/v", Subnet("s", 7, (NET4, NET6), (V4, V6), MAC)),
    ("vpc/v", Subnet("s", 1, (NET6,))),
    ("vpc/v", Router("r", ("s", "t"))),
    ("vpc/v", Route("r", Prefix(bytes(4), 0), V4)),
    ("vpc/v", Claim(NET6, MAC, "s", "p", V4, ("g",))),
    ("sg/g", Group("g", "with a näme")),
    ("sg/g", SecurityRule("r", Direction.INGRESS, 4)),
    ("sg/g", SecurityRule("r", Direction.EGRESS, 6, 58, 128, 0, NET6)),
    ("sg/g", SecurityRule("r", Direction.INGRESS, 4, 132, 0, 65535, None, "g2")),
    ("host/h", HostGroup("rack", V4)),
    ("host/h", HostGroup("rack")),
]


def refusal(slice_name: str, record: Record, key: str | None = None) -> str:
    payload = encode_record(record)
    with pytest.raises(RecordError) as caught:
        decode_record(slice_name, "x" if key is None else key, payload)
    assert caught.value.slice_name == slice_name
    assert slice_name in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize(("slice_name", "record"), SAMPLES)
def test_each_type_comes_back_as_it_went(slice_name, record):
    assert decode_record(slice_name, record.key, encode_record(record)) == record


@pytest.mark.parametrize(("slice_name", "record"), SAMPLES)
def test_a_record_is_a_msgpack_array_that_starts_with_its_type(slice_name, record):
    unpacked = msgpack.unpackb(encode_record(record))
    assert isinstance(unpacked, list)
    assert unpacked[0] == type(record).__struct_config__.tag


@pytest.mark.parametrize(("slice_name", "record"), SAMPLES)
def test_a_newer_writer_may_add_a_field_and_an_older_one_leave_one_out(slice_name, record):
    array = msgpack.unpackb(encode_record(record))
    longer = msgpack.packb([*array, "a field of the next release"])
    assert decode_record(slice_name, record.key, longer) == record
    fields = msgspec.structs.fields(type(record))
    required = sum(field.required for field in fields)
    shortest = msgpack.packb(array[: 1 + required])
    found = decode_record(slice_name, record.key, shortest)
    assert [getattr(found, field.name) for field in fields[:required]] == [
        getattr(record, field.name) for field in fields[:required]
    ]


@pytest.mark.parametrize(("slice_name", "record"), SAMPLES)
def test_a_payload_that_is_cut_anywhere_is_refused(slice_name, record):
    payload = encode_record(record)
    for length in range(len(payload)):
        with pytest.raises(RecordError, match="not decodable"):
            decode_record(slice_name, record.key, payload[:length])


@pytest.mark.parametrize(("slice_name", "record"), SAMPLES)
def test_a_record_under_another_key_or_in_another_slice_is_refused(slice_name, record):
    assert record.key in refusal(slice_name, record, record.key + "x")
    elsewhere = "sg/g" if not slice_name.startswith("sg/") else "host/h"
    assert "does not belong" in refusal(elsewhere, record, record.key)


P, N, S, R = SAMPLES[0][1], SAMPLES[2][1], SAMPLES[5][1], SAMPLES[11][1]
CLAIM, ROUTE, POINTER = SAMPLES[9][1], SAMPLES[8][1], SAMPLES[4][1]


def but(record: Record, **changes: object) -> Record:
    return msgspec.structs.replace(record, **changes)


def rule(protocol: int, low: int = ANY, high: int = ANY, **more: object) -> Record:
    return but(R, protocol=protocol, port_min=low, port_max=high, **more)


@pytest.mark.parametrize(
    ("slice_name", "record", "reason"),
    [
        ("host/h", but(P, mac=MAC[:5]), "5 bytes"),
        ("host/h", but(P, mac=b"\x01" + MAC[1:]), "multicast"),
        ("host/h", but(P, mac=bytes(6)), "00:00:00:00:00:00"),
        ("host/h", but(P, fixed_ips=(V4, b"12345")), "5 bytes"),
        ("host/h", but(P, pairs=(AddressPair(Prefix(V4, 24), MAC),)), "bits set"),
        ("host/h", but(P, pairs=(AddressPair(NET4, b""),)), "0 bytes"),
        ("host/h", but(P, vpc="v/w"), "no identifier"),
        ("host/h", but(P, subnet=""), "no identifier"),
        ("host/h", but(P, groups=("g", "a/b")), "no identifier"),
        ("host/h", but(P, id="x" * 65), "no identifier"),
        ("host/h", HostGroup("a/b"), "no identifier"),
        ("host/h", HostGroup("rack", b"12345"), "tunnel address"),
        ("nbr/v/x", but(N, ip=b""), "0 bytes"),
        ("nbr/v/x", but(N, mac=b"\xff" * 6), "multicast"),
        ("nbr/v/x", but(N, host=bytes(5)), "tunnel address"),
        ("nbr/v/x", but(N, port="-"), "no identifier"),
        ("nbr/v/mac-1", but(POINTER, mac=b"123"), "3 bytes"),
        ("nbr/v/mac-1", but(POINTER, host=b""), "tunnel address"),
        ("nbr/v/mac-1", but(POINTER, subnet="s/t"), "no identifier"),
        ("vpc/v", but(CLAIM, prefix=Prefix(V4, 33)), "0..32"),
        ("vpc/v", but(CLAIM, prefix=Prefix(V6, -1)), "0..128"),
        ("vpc/v", but(CLAIM, prefix=Prefix(b"abc", 8)), "3 bytes"),
        ("vpc/v", but(CLAIM, mac=b""), "0 bytes"),
        ("vpc/v", but(CLAIM, host=b""), "tunnel address"),
        ("vpc/v", but(CLAIM, groups=("",)), "no identifier"),
        ("vpc/v", but(ROUTE, prefix=Prefix(V4, 8)), "bits set"),
        ("vpc/v", but(ROUTE, nexthop=b"1"), "next hop"),
        ("vpc/v", but(ROUTE, nexthop=V6), "different families"),
        ("vpc/v", but(ROUTE, router="a b"), "no identifier"),
        ("vpc/v", Router("r", ("s", "")), "no identifier"),
        ("vpc/v", but(S, vni=0), "VNI 0"),
        ("vpc/v", but(S, vni=1 << 24), "VNI 16777216"),
        ("vpc/v", but(S, prefixes=()), "at least one"),
        ("vpc/v", but(S, prefixes=(NET4, NET4)), "one prefix of each family"),
        ("vpc/v", but(S, prefixes=(Prefix(V4, 24),), gateways=()), "bits set"),
        ("vpc/v", but(S, gateways=(bytes((10, 0, 1, 1)),)), "outside"),
        ("vpc/v", but(S, gateways=(b"",)), "outside"),
        ("vpc/v", but(S, gateways=(V4, V4)), "one gateway of each family"),
        ("vpc/v", but(S, gateway_mac=b""), "gateway: a MAC of 0 bytes"),
        ("vpc/v", but(S, id="/"), "no identifier"),
        ("sg/g", Group("a/b"), "no identifier"),
        ("sg/g", but(R, id=""), "no identifier"),
        ("sg/g", but(R, remote_group="a/b"), "no identifier"),
        ("sg/g", but(R, family=5), "neither 4 nor 6"),
        ("sg/g", rule(256), "0..255"),
        ("sg/g", rule(-2), "0..255"),
        ("sg/g", rule(6, 2, 1), "port range"),
        ("sg/g", rule(6, 1, 65536), "port range"),
        ("sg/g", rule(17, ANY, 5), "port range"),
        ("sg/g", rule(1, 256, ANY), "ICMP type"),
        ("sg/g", rule(1, ANY, 0), "a code only with a type"),
        ("sg/g", rule(58, 1, 256, family=6), "ICMP type"),
        ("sg/g", rule(47, 1, 1), "only go with"),
        ("sg/g", rule(ANY_PROTOCOL, 1, 1), "only go with"),
        ("sg/g", but(R, remote_prefix=NET4, remote_group="g"), "exclude each other"),
        ("sg/g", but(R, remote_prefix=NET6), "not of family 4"),
        ("sg/g", but(R, remote_prefix=Prefix(V4, 24)), "bits set"),
    ],
)
def test_fields_that_make_no_sense_are_refused(slice_name, record, reason):
    assert reason in refusal(slice_name, record)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        msgpack.packb(None),
        msgpack.packb([]),
        msgpack.packb(["what"]),
        msgpack.packb([7, "g"]),
        msgpack.packb(["group", b"g"]),
        msgpack.packb(["router", "r", "s"]),
        msgpack.packb({"group": "g"}),
        msgpack.packb(["group", "g"]) + b"\0",
        msgpack.packb(["nbr", "10.0.0.7", MAC, "s", "p", V4]),
        msgpack.packb(["subnet", "s", True, [[V4, 32]]]),
        msgpack.packb(["rule", "r", 2, 4]),
        msgpack.packb(["group", msgpack.ExtType(1, b"x")]),
        b"\x92\xa5group\xa1\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000,
        b"\xc6\xff\xff\xff\xff",
    ],
)
def test_what_is_no_record_is_refused(payload):
    for slice_name in ("sg/g", "vpc/v", "nbr/v/x"):
        with pytest.raises(RecordError, match="not decodable"):
            decode_record(slice_name, "group", payload)


def test_an_oversized_payload_is_not_even_unpacked():
    payload = msgpack.packb(["group", "g", "x" * MAX_PAYLOAD_BYTES])
    with pytest.raises(RecordError, match=f"at most {MAX_PAYLOAD_BYTES}"):
        decode_record("sg/g", "group", payload)


@pytest.mark.parametrize(("family", "protocol"), [(4, 58), (6, 1)])
def test_an_icmp_type_belongs_to_the_icmp_of_the_rule_s_family(family, protocol):
    rule = SecurityRule("r", Direction.INGRESS, family, protocol, 8, 0)
    assert "type and code with ICMP of the rule's family" in str(check_record(rule))

import ipaddress

import msgspec
import pytest

from ondemand.addresses import (
    AddressError,
    Prefix,
    format_ip,
    format_mac,
    link_local_of,
    parse_ip,
    parse_mac,
    parse_prefix,
    solicited_node,
)


@pytest.mark.parametrize("text", ["fa:16:3e:00:0a:ff", "FA:16:3E:00:0A:FF", "fa-16-3e-00-0A-ff"])
def test_mac_is_read_in_either_case_and_with_either_separator(text):
    assert parse_mac(text) == b"\xfa\x16\x3e\x00\x0a\xff"


def test_mac_is_written_in_lower_case_with_colons():
    assert format_mac(b"\xfa\x16\x3e\x00\x0a\xff") == "fa:16:3e:00:0a:ff"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fa:16:3e:00:0a",
        "fa:16:3e:00:0a:ff:01",
        "fa:16:3e:00:0a:f",
        "fa:16:3e:00:0a:fg",
        "fa:16:3e-00-0a:ff",
        "fa163e000aff",
        " fa:16:3e:00:0a:ff",
        "fa:16:3e:00:0a:ff\n",
        "fa:16:3e:00:0a:\u0661\u0661",
    ],
)
def test_what_is_no_mac_is_refused_by_name(text):
    with pytest.raises(AddressError) as caught:
        parse_mac(text)
    assert str(caught.value).startswith(repr(text))
    assert "not a MAC" in str(caught.value)


@pytest.mark.parametrize("mac", [b"", b"\x01" * 5, b"\x01" * 7])
def test_a_mac_has_six_bytes(mac):
    with pytest.raises(AddressError, match=f"6 bytes, not {len(mac)}"):
        format_mac(mac)
    with pytest.raises(AddressError, match=f"6 bytes, not {len(mac)}"):
        link_local_of(mac)


@pytest.mark.parametrize(
    ("text", "ip"),
    [
        ("0.0.0.0", bytes(4)),
        ("10.0.1.7", b"\x0a\x00\x01\x07"),
        ("255.255.255.255", b"\xff" * 4),
        ("::", bytes(16)),
        ("::1", bytes(15) + b"\x01"),
        ("fd00::", b"\xfd" + bytes(15)),
        ("2001:db8::1:0:0:1", bytes.fromhex("20010db8000000000001000000000001")),
        ("2001:db8:0:1:1:1:1:1", bytes.fromhex("20010db8000000010001000100010001")),
        ("2001:0:0:1::1", bytes.fromhex("20010000000000010000000000000001")),
        ("1:2:3:4:5:6:7:8", bytes.fromhex("00010002000300040005000600070008")),
        ("1:2:3:4:5:6::", bytes.fromhex("00010002000300040005000600000000")),
        ("::ffff:192.0.2.1", bytes(10) + b"\xff\xff\xc0\x00\x02\x01"),
        ("::fffe:c000:201", bytes(10) + b"\xff\xfe\xc0\x00\x02\x01"),
    ],
)
def test_ip_text_in_its_canonical_form_goes_both_ways(text, ip):
    assert parse_ip(text) == ip
    assert format_ip(ip) == text


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("2001:DB8::1", "2001:db8::1"),  # RFC 5952 section 4.3
        ("2001:0db8::0001", "2001:db8::1"),  # section 4.1
        ("2001:db8:0:0:0:0:2:1", "2001:db8::2:1"),  # section 4.2.1
        ("2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),  # section 4.2.2
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),  # section 4.2.3, the longest
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),  # section 4.2.3, the first of equals
        ("::FFFF:c000:201", "::ffff:192.0.2.1"),  # section 5
    ],
)
def test_ipv6_is_written_as_rfc_5952_recommends(text, canonical):
    assert format_ip(parse_ip(text)) == canonical


def test_ipv6_text_agrees_with_the_standard_library_but_for_mapped_addresses():
    for pattern in range(256):
        ip = b"".join(b"\x0b\xa0" if pattern >> bit & 1 else bytes(2) for bit in range(8))
        assert format_ip(ip) == ipaddress.IPv6Address(ip).compressed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0",
        "10.0.0.256",
        "10.0.0.01",
        "10.0.0.1/32",
        "10.0.0.1 ",
        "0x0a000001",
        "167772161",
        "\u0661\u0660.0.0.1",
        ":",
        ":::",
        "fd00::1::2",
        "fd00:12345::1",
        "fe80::1%eth0",
        "fe80::1%",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "[fd00::1]",
        "localhost",
    ],
)
def test_what_is_no_ip_address_is_refused_by_name(text):
    with pytest.raises(AddressError) as caught:
        parse_ip(text)
    assert str(caught.value).startswith(repr(text))
    assert "not an IP address" in str(caught.value)


def test_a_refused_text_is_refused_again():
    for _ in range(2):
        with pytest.raises(AddressError):
            parse_ip("10.0.0.300")


@pytest.mark.parametrize("ip", [b"", bytes(3), bytes(5), bytes(15), bytes(17)])
def test_an_ip_address_has_4_or_16_bytes(ip):
    with pytest.raises(AddressError, match=f"4 or 16 bytes, not {len(ip)}"):
        format_ip(ip)


def test_a_long_offender_is_cut_in_the_message():
    with pytest.raises(AddressError) as caught:
        parse_ip("1" * 100_000)
    assert len(str(caught.value)) < 200
    assert caught.value.offender == "1" * 100_000
    assert str(caught.value).startswith("'1111")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("text", "network", "length"),
    [
        ("0.0.0.0/0", bytes(4), 0),
        ("10.0.0.0/8", b"\x0a\0\0\0", 8),
        ("10.0.0.128/25", b"\x0a\0\0\x80", 25),
        ("10.0.0.1/32", b"\x0a\0\0\x01", 32),
        ("::/0", bytes(16), 0),
        ("fd00::/64", b"\xfd" + bytes(15), 64),
        ("fd00::1/128", b"\xfd" + bytes(14) + b"\x01", 128),
    ],
)
def test_prefix_text_goes_both_ways(text, network, length):
    prefix = parse_prefix(text)
    assert prefix == Prefix(network, length)
    assert str(prefix) == text
    assert hash(prefix) == hash(Prefix(network, length))


@pytest.mark.parametrize(
    ("text", "prefix"), [("10.0.0.1", "10.0.0.1/32"), ("fd00::1", "fd00::1/128")]
)
def test_a_bare_address_is_the_prefix_of_that_host(text, prefix):
    assert str(parse_prefix(text)) == prefix


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not an IP prefix"),
        ("/24", "not an IP prefix"),
        ("10.0.0/24", "not an IP prefix"),
        ("fe80::%eth0/64", "not an IP prefix"),
        ("10.0.0.0/33", "0..32"),
        ("10.0.0.0/-1", "0..32"),
        ("10.0.0.0/+8", "0..32"),
        ("10.0.0.0/", "0..32"),
        ("10.0.0.0/08", "0..32"),
        ("10.0.0.0/8 ", "0..32"),
        ("10.0.0.0/8/8", "0..32"),
        ("10.0.0.0/\u0668", "0..32"),
        ("10.0.0.0/255.0.0.0", "0..32"),
        ("fd00::/129", "0..128"),
        ("fd00::/9999", "0..128"),
        ("10.0.0.5/24", "did you mean 10.0.0.0/24?"),
        ("10.0.0.1/0", "did you mean 0.0.0.0/0?"),
        ("fd00::1/64", "did you mean fd00::/64?"),
    ],
)
def test_what_is_no_prefix_is_refused_by_name(text, says):
    with pytest.raises(AddressError) as caught:
        parse_prefix(text)
    assert str(caught.value).startswith(repr(text))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("prefix", "inside", "outside"),
    [
        ("10.0.0.128/25", ["10.0.0.128", "10.0.0.255"], ["10.0.0.127", "10.0.1.128", "::"]),
        ("10.0.0.1/32", ["10.0.0.1"], ["10.0.0.0", "10.0.0.2"]),
        ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::", "fd00::1"]),
        ("fd00::/63", ["fd00::", "fd00:0:0:1:ffff::"], ["fd00:0:0:2::", "0.0.0.0"]),
        ("::/0", ["::", "ffff::"], ["0.0.0.0"]),
    ],
)
def test_a_prefix_contains_its_own_addresses_only(prefix, inside, outside):
    parsed = parse_prefix(prefix)
    assert all(parsed.contains(parse_ip(ip)) for ip in inside)
    assert not any(parsed.contains(parse_ip(ip)) for ip in outside)


def test_a_prefix_is_a_value_that_cannot_be_changed():
    prefix = parse_prefix("10.0.0.0/8")
    with pytest.raises(AttributeError):
        prefix.length = 9
    assert msgspec.convert(msgspec.to_builtins(prefix, builtin_types=(bytes,)), Prefix) == prefix


@pytest.mark.parametrize(
    ("mac", "link_local"),
    [
        ("fa:16:3e:00:00:01", "fe80::f816:3eff:fe00:1"),
        ("00:00:5e:00:53:01", "fe80::200:5eff:fe00:5301"),
        ("02:00:00:00:00:00", "fe80::ff:fe00:0"),
    ],
)
def test_link_local_address_of_a_mac(mac, link_local):
    assert format_ip(link_local_of(parse_mac(mac))) == link_local


def test_solicited_node_group_keeps_the_last_24_bits():
    assert format_ip(solicited_node(parse_ip("4037::01:800:200e:8c6c"))) == "ff02::1:ff0e:8c6c"
    assert format_ip(solicited_node(parse_ip("fd00::"))) == "ff02::1:ff00:0"


def test_solicited_node_group_is_for_ipv6_only():
    with pytest.raises(AddressError, match="16 bytes, not 4"):
        solicited_node(parse_ip("10.0.0.1"))

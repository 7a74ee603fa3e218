"""Frames of every kind, good (tests.support.frame_samples) and broken."""

from __future__ import annotations

import struct

import pytest

from ondemand.addresses import parse_mac
from ondemand.frames import (
    ABSENT,
    MAX_EXTENSION_HEADERS,
    Fragment,
    Frame,
    Kind,
    Malformed,
    Reason,
    parse,
)
from tests.support.frame_builder import (
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    IP4_A,
    IP4_B,
    IP6_A,
    IP6_B,
    MAC_A,
    build_arp,
    build_ethernet,
    build_icmp4,
    build_icmp6,
    build_ipv4_raw,
    build_ipv6_raw,
    build_na,
    build_ns,
    build_sctp4,
    build_tcp4,
    build_tcp6,
    build_udp4,
    build_udp6,
    padded,
)
from tests.support.frame_samples import SAMPLES, A, B
from tests.support.packet_parts import (
    HOP_BY_HOP,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
    Extension,
    authentication_header,
    destination_options,
    fragment_header,
    hop_by_hop,
    icmp6_message,
    icmp_message,
    nd_option,
    sctp_packet,
    tcp_segment,
    udp_datagram,
)

GRE = 47
TCP4 = tcp_segment(IP4_A, IP4_B, 40000, 80)
TCP6 = tcp_segment(IP6_A, IP6_B, 40000, 80)
UDP4 = udp_datagram(IP4_A, IP4_B, 40000, 53, payload=bytes(40))
UDP6 = udp_datagram(IP6_A, IP6_B, 40000, 53, payload=bytes(40))
ND_MESSAGES = {133: 4, 134: 12, 135: 20, 136: 20, 137: 36}  # type -> bytes behind the checksum


def patched(frame: bytes, at: int, replacement: bytes) -> bytes:
    return frame[:at] + replacement + frame[at + len(replacement) :]


def nd(icmp_type: int, rest: bytes, **changes: int) -> bytes:
    """A message of neighbor discovery for fd00::, with what ``rest`` says behind its fixed part."""
    body = bytes(4) + b"\xfd" + bytes(ND_MESSAGES[icmp_type])
    return build_icmp6(
        icmp_type=icmp_type,
        icmp_code=changes.get("code", 0),
        body=body[: ND_MESSAGES[icmp_type]] + rest,
        ttl=changes.get("ttl", 255),
    )


BROKEN: dict[str, tuple[bytes, Reason]] = {
    "nothing": (b"", Reason.ETHERNET_SHORT),
    "802.3 length": (build_ethernet(46, bytes(46)), Reason.NOT_ETHERNET_II),
    "802.3 length, at most": (build_ethernet(0x05FF, bytes(46)), Reason.NOT_ETHERNET_II),
    "802.3 length behind a tag": (build_ethernet(46, bytes(46), vlan=3), Reason.NOT_ETHERNET_II),
    "tag cut": (build_tcp4(vlan=3)[:17], Reason.VLAN_SHORT),
    "two 802.1q tags": (
        build_ethernet(0x8100, struct.pack(">HH", 5, ETH_IPV4), vlan=3),
        Reason.VLAN_STACKED,
    ),
    "802.1ad tag behind 802.1q": (
        build_ethernet(0x88A8, struct.pack(">HH", 5, ETH_IPV4), vlan=3),
        Reason.VLAN_STACKED,
    ),
    "arp cut": (build_arp()[:-1], Reason.ARP_SHORT),
    "arp for token ring": (patched(build_arp(), 14, b"\0\6"), Reason.ARP_NOT_ETHERNET_IPV4),
    "arp for ipv6": (patched(build_arp(), 16, b"\x86\xdd"), Reason.ARP_NOT_ETHERNET_IPV4),
    "arp with long macs": (patched(build_arp(), 18, b"\x08"), Reason.ARP_NOT_ETHERNET_IPV4),
    "arp with long ips": (patched(build_arp(), 19, b"\x10"), Reason.ARP_NOT_ETHERNET_IPV4),
    "ipv4 header cut": (build_ethernet(ETH_IPV4, b"\x45" + bytes(18)), Reason.IP_SHORT),
    "ipv4 of version 6": (patched(build_tcp4(), 14, b"\x65"), Reason.IP_VERSION),
    "ipv4 header of 16": (patched(build_tcp4(), 14, b"\x44"), Reason.IPV4_HEADER_LENGTH),
    "ipv4 header longer than the packet": (
        patched(build_udp4(), 14, b"\x4f"),
        Reason.IPV4_HEADER_LENGTH,
    ),
    "ipv4 total length 0": (patched(build_tcp4(), 16, b"\0\0"), Reason.IPV4_HEADER_LENGTH),
    "ipv4 total length 19": (patched(build_tcp4(), 16, b"\0\x13"), Reason.IPV4_HEADER_LENGTH),
    "ipv4 total length one too many": (patched(build_tcp4(), 16, b"\0\x29"), Reason.IP_LENGTH),
    "ipv6 header cut": (build_ethernet(ETH_IPV6, b"\x60" + bytes(38)), Reason.IP_SHORT),
    "ipv6 of version 4": (patched(build_tcp6(), 14, b"\x45"), Reason.IP_VERSION),
    "ipv6 payload one too many": (patched(build_tcp6(), 18, b"\0\x15"), Reason.IP_LENGTH),
    "jumbogram": (
        patched(build_tcp6(extensions=[hop_by_hop()]), 18, b"\0\0"),
        Reason.EXTENSION_SHORT,
    ),
    "tcp behind the padding": (padded(build_ipv4_raw(TCP, TCP4[:19])), Reason.TCP_SHORT),
    "udp behind the padding": (padded(build_ipv4_raw(UDP, UDP4[:7])), Reason.UDP_SHORT),
    "sctp cut": (build_ipv4_raw(SCTP, sctp_packet(1, 2)[:11]), Reason.SCTP_SHORT),
    "icmp cut": (build_ipv4_raw(ICMP, icmp_message(8, 0)[:7]), Reason.ICMP_SHORT),
    "icmpv6 cut": (build_ipv6_raw(ICMPV6, bytes(7)), Reason.ICMP_SHORT),
    "icmpv6 empty": (build_ipv6_raw(ICMPV6, b""), Reason.ICMP_SHORT),
    "tcp data offset 4": (patched(build_tcp4(), 46, b"\x40"), Reason.TCP_DATA_OFFSET),
    "tcp data offset 0": (patched(build_tcp6(), 66, b"\0"), Reason.TCP_DATA_OFFSET),
    "tcp options behind the end": (patched(build_tcp4(), 46, b"\x60"), Reason.TCP_DATA_OFFSET),
    "tcp options in the padding": (
        padded(patched(build_tcp4(), 46, b"\x60")),
        Reason.TCP_DATA_OFFSET,
    ),
    "udp length 7": (patched(build_udp4(), 38, b"\0\7"), Reason.UDP_LENGTH),
    "udp length 0": (patched(build_udp6(), 58, b"\0\0"), Reason.UDP_LENGTH),
    "udp length one too many": (patched(build_udp4(), 38, b"\0\x09"), Reason.UDP_LENGTH),
    "first fragment, empty": (
        build_ipv4_raw(GRE, b"", more_fragments=True),
        Reason.FRAGMENT_LENGTH,
    ),
    "last fragment, empty": (
        build_ipv4_raw(UDP, b"", fragment_offset=800),
        Reason.FRAGMENT_LENGTH,
    ),
    "first fragment of 25": (
        build_ipv4_raw(UDP, UDP4[:25], more_fragments=True),
        Reason.FRAGMENT_LENGTH,
    ),
    "ping of death": (
        build_ipv4_raw(ICMP, bytes(4), fragment_offset=65512),
        Reason.FRAGMENT_LENGTH,
    ),
    "tiny first tcp fragment": (
        build_ipv4_raw(TCP, TCP4[:16], more_fragments=True),
        Reason.TINY_FRAGMENT,
    ),
    "first tcp fragment that ends in the options": (
        build_ipv4_raw(
            TCP,
            tcp_segment(IP4_A, IP4_B, 1, 2, options=bytes(20))[:24],
            more_fragments=True,
        ),
        Reason.TINY_FRAGMENT,
    ),
    "tiny first sctp fragment": (
        build_ipv4_raw(SCTP, sctp_packet(1, 2)[:8], more_fragments=True),
        Reason.TINY_FRAGMENT,
    ),
    "second fragment over the tcp flags": (
        build_ipv4_raw(TCP, TCP4[8:], fragment_offset=8),
        Reason.TINY_FRAGMENT,
    ),
    "second fragment over the tcp checksum": (
        build_ipv4_raw(TCP, TCP4[16:], fragment_offset=16),
        Reason.TINY_FRAGMENT,
    ),
    "second fragment over the sctp header": (
        build_ipv6_raw(SCTP, bytes(4), extensions=[fragment_header(offset=8)]),
        Reason.TINY_FRAGMENT,
    ),
    "first fragment with udp length 0": (
        build_ipv4_raw(UDP, patched(UDP4[:24], 4, b"\0\0"), more_fragments=True),
        Reason.UDP_LENGTH,
    ),
    "first ipv6 fragment, empty": (
        build_ipv6_raw(TCP, b"", extensions=[fragment_header(more_fragments=True)]),
        Reason.FRAGMENT_LENGTH,
    ),
    "ipv6 fragment of 12": (
        build_ipv6_raw(UDP, UDP6[:12], extensions=[fragment_header(more_fragments=True)]),
        Reason.FRAGMENT_LENGTH,
    ),
    "ipv6 ping of death": (
        build_ipv6_raw(UDP, bytes(16), extensions=[hop_by_hop(), fragment_header(offset=65512)]),
        Reason.FRAGMENT_LENGTH,
    ),
    "tiny first ipv6 fragment": (
        build_ipv6_raw(TCP, TCP6[:16], extensions=[fragment_header(more_fragments=True)]),
        Reason.TINY_FRAGMENT,
    ),
    "first fragment that ends inside its chain": (
        build_ipv6_raw(
            60,
            bytes((TCP, 7)) + bytes(6),
            extensions=[fragment_header(more_fragments=True)],
        ),
        Reason.TINY_FRAGMENT,
    ),
    "first fragment that ends between its headers": (
        build_ipv6_raw(
            TCP,
            b"",
            extensions=[fragment_header(more_fragments=True), destination_options()],
        ),
        Reason.TINY_FRAGMENT,
    ),
    "first fragment with an extension header announced": (
        build_ipv6_raw(
            60,
            b"",
            extensions=[fragment_header(more_fragments=True), destination_options()],
        ),
        Reason.TINY_FRAGMENT,
    ),
    "two fragment headers": (
        build_tcp6(extensions=[fragment_header(), fragment_header()]),
        Reason.EXTENSION_ORDER,
    ),
    "hop-by-hop options in second place": (
        build_tcp6(extensions=[destination_options(), hop_by_hop()]),
        Reason.EXTENSION_ORDER,
    ),
    "hop-by-hop options twice": (
        build_tcp6(extensions=[hop_by_hop(), hop_by_hop()]),
        Reason.EXTENSION_ORDER,
    ),
    "one extension header too many": (
        build_tcp6(extensions=[destination_options()] * (MAX_EXTENSION_HEADERS + 1)),
        Reason.EXTENSION_COUNT,
    ),
    "extension header cut": (build_ipv6_raw(HOP_BY_HOP, bytes(7)), Reason.EXTENSION_SHORT),
    "extension header missing": (build_ipv6_raw(HOP_BY_HOP, b""), Reason.EXTENSION_SHORT),
    "extension header longer than the packet": (
        build_ipv6_raw(HOP_BY_HOP, bytes((TCP, 3)) + bytes(6) + TCP6),
        Reason.EXTENSION_SHORT,
    ),
    "fragment header cut": (build_ipv6_raw(44, bytes(7)), Reason.EXTENSION_SHORT),
    "ah of 8": (
        build_tcp6(extensions=[Extension(51, bytes(7))]),
        Reason.EXTENSION_SHORT,
    ),
    "ah longer than the packet": (
        build_ipv6_raw(UDP, b"", extensions=[Extension(51, b"\x02" + bytes(10))]),
        Reason.EXTENSION_SHORT,
    ),
    "tcp missing behind ah": (
        build_ipv6_raw(TCP, b"", extensions=[authentication_header()]),
        Reason.TCP_SHORT,
    ),
    "nd from behind a router": (build_ns(ttl=254), Reason.ND_HOP_LIMIT),
    "na from behind a router": (build_na(ttl=64), Reason.ND_HOP_LIMIT),
    "nd in an atomic fragment": (
        build_icmp6(
            icmp_type=135, body=bytes(4) + B * 2 + bytes(4), ttl=255, extensions=[fragment_header()]
        ),
        Reason.ND_FRAGMENTED,
    ),
    "nd in a first fragment": (
        build_ipv6_raw(
            ICMPV6,
            icmp6_message(IP6_A, IP6_B, 136, 0, bytes(36)),
            ttl=255,
            extensions=[fragment_header(more_fragments=True)],
        ),
        Reason.ND_FRAGMENTED,
    ),
    "ns for a group": (build_ns(target="ff02::1"), Reason.ND_ADDRESS),
    "na for a group": (build_na(target="ff02::1", src=IP6_A), Reason.ND_ADDRESS),
    "na to all, yet solicited": (build_na(dst="ff02::1", solicited=True), Reason.ND_ADDRESS),
    "address detection sent to one node": (
        build_ns(src="::", link_layer=None, dst=IP6_B),
        Reason.ND_ADDRESS,
    ),
    "address detection sent to all nodes": (
        build_ns(src="::", link_layer=None, dst="ff02::1"),
        Reason.ND_ADDRESS,
    ),
    "address detection with a link-layer address": (build_ns(src="::"), Reason.ND_OPTION),
    "router solicitation of nobody with a link-layer address": (
        build_icmp6(icmp_type=133, body=bytes(4) + nd_option(1, A), src="::", ttl=255),
        Reason.ND_OPTION,
    ),
    "ns with a long link-layer address": (nd(135, nd_option(1, bytes(8))), Reason.ND_OPTION),
    "ns with two link-layer addresses": (
        nd(135, nd_option(1, A) + nd_option(1, A)),
        Reason.ND_OPTION,
    ),
}
for _type, _size in ND_MESSAGES.items():
    BROKEN |= {
        f"nd {_type} with code 1": (nd(_type, b"", code=1), Reason.ND_CODE),
        f"nd {_type} with hop limit 1": (nd(_type, b"", ttl=1), Reason.ND_HOP_LIMIT),
        f"nd {_type} with an option of length 0": (nd(_type, b"\x0e\0" * 4), Reason.ND_OPTION),
        f"nd {_type} with an option cut": (nd(_type, b"\x0e\2" + bytes(6)), Reason.ND_OPTION),
        f"nd {_type} with an odd byte": (nd(_type, b"\x0e"), Reason.ND_OPTION),
    }
    if _size > 4:
        BROKEN[f"nd {_type} cut"] = (
            build_icmp6(icmp_type=_type, body=bytes(_size - 1), ttl=255),
            Reason.ND_LENGTH,
        )


@pytest.mark.parametrize(("data", "frame"), SAMPLES.values(), ids=SAMPLES)
def test_a_good_frame_parses_to_its_fields(data, frame):
    parsed = parse(data)
    assert parsed == frame
    assert isinstance(parsed.kind, Kind)
    assert isinstance(parsed.fragment, Fragment)


@pytest.mark.parametrize(("data", "frame"), SAMPLES.values(), ids=SAMPLES)
def test_padding_changes_nothing(data, frame):
    assert parse(padded(data)) == frame
    assert parse(data + b"\xff" * 64) == frame


@pytest.mark.parametrize(("data", "frame"), SAMPLES.values(), ids=SAMPLES)
def test_a_frame_cut_anywhere_is_malformed(data, frame):
    assert parse(data) == frame
    # Some samples are 64 KiB long; what can be cut wrongly lies in front.
    for size in [*range(min(len(data), 300)), *range(max(300, len(data) - 300), len(data))]:
        with pytest.raises(Malformed):
            parse(data[:size])


@pytest.mark.parametrize(("data", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_frame_is_malformed_for_the_right_reason(data, reason):
    with pytest.raises(Malformed) as caught:
        parse(data)
    assert caught.value.reason is reason
    assert str(caught.value) == reason.value


def test_every_reason_is_shown_by_a_broken_frame():
    assert {reason for _, reason in BROKEN.values()} == set(Reason)


@pytest.mark.parametrize("size", range(14))
def test_less_than_an_ethernet_header(size):
    with pytest.raises(Malformed) as caught:
        parse(build_tcp4()[:size])
    assert caught.value.reason is Reason.ETHERNET_SHORT


@pytest.mark.parametrize("vlan", [None, 3])
@pytest.mark.parametrize("eth_type", [0x0600, 0x8035, 0x8847, 0x88CC, 0x9100, 0xFFFF])
def test_another_ethertype_is_kept_as_other(eth_type, vlan):
    tag = ABSENT if vlan is None else vlan
    data = build_ethernet(eth_type, b"whatever it is", vlan=vlan)
    header = 14 if vlan is None else 18
    for size in range(header, len(data) + 1):
        assert parse(data[:size]) == Frame(Kind.OTHER, B, A, tag, eth_type)


def test_a_service_tag_alone_is_another_ethertype():
    assert parse(build_ethernet(0x88A8, bytes(40))).kind is Kind.OTHER


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (TCP4, Reason.TCP_SHORT),
        (tcp_segment(IP4_A, IP4_B, 1, 2, options=bytes(12)), Reason.TCP_DATA_OFFSET),
    ],
)
def test_tcp_cut_inside_a_sound_ip_packet(header, reason):
    for size in range(20, len(header)):
        with pytest.raises(Malformed) as caught:
            parse(padded(build_ipv4_raw(TCP, header[:size])))
        assert caught.value.reason is reason
    for size in range(20):
        with pytest.raises(Malformed) as caught:
            parse(padded(build_ipv4_raw(TCP, header[:size])))
        assert caught.value.reason is Reason.TCP_SHORT


def test_every_cut_of_an_extension_chain_inside_a_sound_ip_packet():
    whole = build_tcp6(
        extensions=[hop_by_hop(16), fragment_header(), authentication_header()], payload=b""
    )
    body = whole[54:]
    for size in range(len(body)):
        data = padded(build_ipv6_raw(HOP_BY_HOP, body[:size]))
        with pytest.raises(Malformed) as caught:
            parse(data)
        assert caught.value.reason in (Reason.EXTENSION_SHORT, Reason.TCP_SHORT)


def test_every_cut_of_a_first_fragment_is_a_tiny_fragment():
    body = bytes((60, 0, 0, 1)) + bytes(4) + bytes((TCP, 1)) + bytes(14) + TCP6
    whole = len(body) // 8 * 8  # 8 + 16 + 20 bytes: up to 40 the TCP header is not there
    for size in range(16, whole + 1, 8):
        with pytest.raises(Malformed) as caught:
            parse(build_ipv6_raw(44, body[:size]))
        assert caught.value.reason is Reason.TINY_FRAGMENT
    assert parse(build_ipv6_raw(44, body + bytes(4))).tp_dst == 80


@pytest.mark.parametrize("flag", [0x80, 0x40])
def test_the_other_ipv4_flags_do_not_make_a_fragment(flag):
    frame = parse(patched(build_udp4(), 20, bytes((flag,))))
    assert frame.fragment is Fragment.NOT_FRAGMENT
    assert (frame.tp_src, frame.tp_dst) == (40000, 53)


@pytest.mark.parametrize("build", [build_tcp4, build_udp4, build_icmp4, build_sctp4])
def test_the_address_fields_are_the_bytes_of_the_frame(build):
    data = build(src="192.0.2.1", dst="198.51.100.255", eth_src="02:00:00:00:00:01")
    frame = parse(data)
    assert (frame.src, frame.dst) == (data[26:30], data[30:34])
    assert (frame.eth_dst, frame.eth_src) == (data[:6], data[6:12])
    assert all(type(field) is bytes for field in (frame.src, frame.dst, frame.eth_src))


@pytest.mark.parametrize("code", range(1, 256, 51))
def test_icmp_code_and_type_are_unsigned(code):
    frame = parse(build_icmp4(icmp_type=255, icmp_code=code))
    assert (frame.tp_src, frame.tp_dst) == (255, code)


def test_unknown_options_are_passed_over():
    frame = parse(nd(135, nd_option(14, bytes(6)) + nd_option(1, parse_mac(MAC_A))))
    assert frame.detail is not None
    assert frame.detail.link_layer == A


def test_the_link_layer_option_of_the_other_message_is_passed_over():
    assert parse(nd(135, nd_option(2, A))).detail.link_layer is None
    assert parse(nd(136, nd_option(1, A))).detail.link_layer is None


def test_a_frame_is_a_value_that_cannot_be_changed():
    frame = parse(build_tcp4())
    with pytest.raises(AttributeError):
        frame.tp_dst = 22
    assert hash(frame) == hash(parse(build_tcp4()))


@pytest.mark.parametrize("eth_type", [ETH_ARP, ETH_IPV4, ETH_IPV6])
def test_an_ethertype_without_its_packet(eth_type):
    for vlan in (None, 1):
        with pytest.raises(Malformed) as caught:
            parse(build_ethernet(eth_type, b"", vlan=vlan))
        assert caught.value.reason in (Reason.ARP_SHORT, Reason.IP_SHORT)

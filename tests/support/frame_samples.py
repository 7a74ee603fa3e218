"""Good frames of every kind, each with the whole Frame that it has to parse to."""

from __future__ import annotations

from ondemand.addresses import parse_ip, parse_mac
from ondemand.frames import (
    ABSENT,
    MAX_EXTENSION_HEADERS,
    Arp,
    Fragment,
    Frame,
    Kind,
    NeighborDiscovery,
)
from tests.support.frame_builder import (
    IP4_A,
    IP4_B,
    IP6_A,
    IP6_B,
    MAC_A,
    MAC_B,
    MAC_BROADCAST,
    MAC_ZERO,
    build_arp,
    build_icmp4,
    build_icmp6,
    build_ipv4_raw,
    build_ipv6_raw,
    build_na,
    build_ns,
    build_sctp4,
    build_sctp6,
    build_tcp4,
    build_tcp6,
    build_udp4,
    build_udp6,
)
from tests.support.packet_parts import (
    FRAGMENT,
    ICMP,
    ICMPV6,
    NO_NEXT_HEADER,
    SCTP,
    TCP,
    UDP,
    Extension,
    authentication_header,
    destination_options,
    fragment_header,
    hop_by_hop,
    icmp_message,
    nd_option,
    routing_header,
    tcp_segment,
    udp_datagram,
)

A, B, BROADCAST = parse_mac(MAC_A), parse_mac(MAC_B), parse_mac(MAC_BROADCAST)
A4, B4 = parse_ip(IP4_A), parse_ip(IP4_B)
A6, B6 = parse_ip(IP6_A), parse_ip(IP6_B)
B6_GROUP, B6_GROUP_MAC = parse_ip("ff02::1:ff00:11"), parse_mac("33:33:ff:00:00:11")
NOT_FRAGMENT, FIRST, LATER = Fragment.NOT_FRAGMENT, Fragment.FIRST, Fragment.LATER
ESP, GRE, AH = 50, 47, 51

TCP4 = tcp_segment(IP4_A, IP4_B, 40000, 80)
TCP6 = tcp_segment(IP6_A, IP6_B, 40000, 80)
UDP4 = udp_datagram(IP4_A, IP4_B, 40000, 53, payload=bytes(40))
UDP6 = udp_datagram(IP6_A, IP6_B, 40000, 53, payload=bytes(40))


def frame4(
    proto: int,
    tp_src: int,
    tp_dst: int,
    fragment: Fragment = NOT_FRAGMENT,
    *,
    ttl: int = 64,
    vlan: int = ABSENT,
) -> Frame:
    return Frame(Kind.IPV4, B, A, vlan, 0x0800, A4, B4, proto, tp_src, tp_dst, fragment, ttl, None)


def frame6(
    proto: int,
    tp_src: int,
    tp_dst: int,
    fragment: Fragment = NOT_FRAGMENT,
    *,
    ttl: int = 64,
    vlan: int = ABSENT,
) -> Frame:
    return Frame(Kind.IPV6, B, A, vlan, 0x86DD, A6, B6, proto, tp_src, tp_dst, fragment, ttl, None)


#: What the frame is -> its bytes, without padding, and what it parses to.
SAMPLES: dict[str, tuple[bytes, Frame]] = {
    "tcp4": (build_tcp4(), frame4(TCP, 40000, 80)),
    "tcp4 with payload": (build_tcp4(payload=b"GET /"), frame4(TCP, 40000, 80)),
    "tcp4 with options": (build_tcp4(options=b"\x02\x04\x05\xb4"), frame4(TCP, 40000, 80)),
    "tcp4 with longest options": (build_tcp4(options=b"\1" * 40), frame4(TCP, 40000, 80)),
    "tcp4 without flags": (build_tcp4(flags=0), frame4(TCP, 40000, 80)),
    "tcp4 tagged": (build_tcp4(vlan=4094), frame4(TCP, 40000, 80, vlan=4094)),
    "tcp4 priority-tagged": (build_tcp4(vlan=0), frame4(TCP, 40000, 80, vlan=0)),
    "tcp4 ttl 1": (build_tcp4(ttl=1), frame4(TCP, 40000, 80, ttl=1)),
    "udp4": (build_udp4(tp_src=65535, tp_dst=0), frame4(UDP, 65535, 0)),
    "udp4 with payload": (build_udp4(payload=b"abc"), frame4(UDP, 40000, 53)),
    "udp4 shorter than its ip payload": (
        build_ipv4_raw(UDP, udp_datagram(IP4_A, IP4_B, 1, 2) + b"surplus"),
        frame4(UDP, 1, 2),
    ),
    "sctp4": (build_sctp4(), frame4(SCTP, 40000, 3868)),
    "sctp4 with a chunk": (build_sctp4(chunks=b"\x0b\0\0\4"), frame4(SCTP, 40000, 3868)),
    "icmp4 echo": (build_icmp4(), frame4(ICMP, 8, 0)),
    "icmp4 unreachable": (
        build_icmp4(icmp_type=3, icmp_code=4, body=bytes(4) + build_udp4()[14:]),
        frame4(ICMP, 3, 4),
    ),
    "gre4": (build_ipv4_raw(GRE, bytes(8)), frame4(GRE, ABSENT, ABSENT)),
    "gre4 empty": (build_ipv4_raw(GRE, b""), frame4(GRE, ABSENT, ABSENT)),
    "ah4 is a protocol of its own": (
        build_ipv4_raw(AH, bytes((TCP, 4)) + bytes(22) + TCP4),
        frame4(AH, ABSENT, ABSENT),
    ),
    "icmpv6 in ipv4 has no type": (
        build_ipv4_raw(ICMPV6, icmp_message(135, 0)),
        frame4(ICMPV6, ABSENT, ABSENT),
    ),
    "ipv4 with options": (
        build_ipv4_raw(TCP, TCP4, options=b"\x94\4\0\0"),
        frame4(TCP, 40000, 80),
    ),
    "ipv4 with longest options": (
        build_ipv4_raw(TCP, TCP4, options=b"\1" * 40, vlan=7),
        frame4(TCP, 40000, 80, vlan=7),
    ),
    "udp4 first fragment": (
        build_ipv4_raw(UDP, UDP4[:24], more_fragments=True),
        frame4(UDP, 40000, 53, FIRST),
    ),
    "udp4 middle fragment": (
        build_ipv4_raw(UDP, UDP4[24:32], fragment_offset=24, more_fragments=True),
        frame4(UDP, ABSENT, ABSENT, LATER),
    ),
    "udp4 last fragment": (
        build_ipv4_raw(UDP, UDP4[32:47], fragment_offset=32),
        frame4(UDP, ABSENT, ABSENT, LATER),
    ),
    "udp4 second fragment at 8": (
        build_ipv4_raw(UDP, UDP4[8:], fragment_offset=8),
        frame4(UDP, ABSENT, ABSENT, LATER),
    ),
    "tcp4 second fragment at 24": (
        build_ipv4_raw(TCP, b"x", fragment_offset=24),
        frame4(TCP, ABSENT, ABSENT, LATER),
    ),
    "gre4 first fragment": (
        build_ipv4_raw(GRE, bytes(8), more_fragments=True),
        frame4(GRE, ABSENT, ABSENT, FIRST),
    ),
    "gre4 second fragment at 8": (
        build_ipv4_raw(GRE, b"x", fragment_offset=8),
        frame4(GRE, ABSENT, ABSENT, LATER),
    ),
    "ipv4 fragment up to the last byte": (
        build_ipv4_raw(UDP, bytes(65535 - 20 - 65512), fragment_offset=65512),
        frame4(UDP, ABSENT, ABSENT, LATER),
    ),
    "tcp6": (build_tcp6(), frame6(TCP, 40000, 80)),
    "tcp6 tagged": (build_tcp6(vlan=7), frame6(TCP, 40000, 80, vlan=7)),
    "tcp6 hop limit 0": (build_tcp6(ttl=0), frame6(TCP, 40000, 80, ttl=0)),
    "udp6": (build_udp6(payload=b"abc"), frame6(UDP, 40000, 53)),
    "sctp6": (build_sctp6(), frame6(SCTP, 40000, 3868)),
    "icmp6 echo": (build_icmp6(), frame6(ICMPV6, 128, 0)),
    "icmp6 too big": (
        build_icmp6(icmp_type=2, body=b"\0\0\5\0" + build_udp6()[14:]),
        frame6(ICMPV6, 2, 0),
    ),
    "icmp in ipv6 has no type": (
        build_ipv6_raw(ICMP, icmp_message(8, 0)),
        frame6(ICMP, ABSENT, ABSENT),
    ),
    "esp6": (build_ipv6_raw(ESP, bytes(16)), frame6(ESP, ABSENT, ABSENT)),
    "esp6 behind options": (
        build_ipv6_raw(ESP, bytes(16), extensions=[destination_options()]),
        frame6(ESP, ABSENT, ABSENT),
    ),
    "ipv6 without next header": (
        build_ipv6_raw(NO_NEXT_HEADER, b""),
        frame6(NO_NEXT_HEADER, ABSENT, ABSENT),
    ),
    "ipv6 without next header but with bytes": (
        build_ipv6_raw(NO_NEXT_HEADER, b"ignored"),
        frame6(NO_NEXT_HEADER, ABSENT, ABSENT),
    ),
    "tcp6 behind each extension header": (
        build_tcp6(
            extensions=[
                hop_by_hop(),
                destination_options(16),
                routing_header(),
                fragment_header(),
                authentication_header(),
                destination_options(2048),
            ]
        ),
        frame6(TCP, 40000, 80),
    ),
    "tcp6 behind as many headers as may be": (
        build_tcp6(extensions=[destination_options()] * MAX_EXTENSION_HEADERS),
        frame6(TCP, 40000, 80),
    ),
    "tcp6 behind the shortest ah": (
        build_tcp6(extensions=[authentication_header(icv=b"")]),
        frame6(TCP, 40000, 80),
    ),
    "tcp6 atomic fragment": (
        build_tcp6(extensions=[fragment_header()]),
        frame6(TCP, 40000, 80),
    ),
    "tcp6 atomic fragment with reserved bits": (
        build_tcp6(extensions=[Extension(FRAGMENT, b"\xff\0\6" + bytes(4))]),
        frame6(TCP, 40000, 80),
    ),
    "udp6 first fragment": (
        build_ipv6_raw(UDP, UDP6[:24], extensions=[fragment_header(more_fragments=True)]),
        frame6(UDP, 40000, 53, FIRST),
    ),
    "udp6 first fragment with headers on both sides": (
        build_ipv6_raw(
            UDP,
            UDP6[:24],
            extensions=[
                hop_by_hop(),
                fragment_header(more_fragments=True),
                destination_options(),
            ],
        ),
        frame6(UDP, 40000, 53, FIRST),
    ),
    "udp6 later fragment": (
        build_ipv6_raw(UDP, UDP6[24:], extensions=[fragment_header(offset=24)]),
        frame6(UDP, ABSENT, ABSENT, LATER),
    ),
    "icmp6 later fragment": (
        build_ipv6_raw(ICMPV6, bytes(24), extensions=[fragment_header(offset=24)]),
        frame6(ICMPV6, ABSENT, ABSENT, LATER),
    ),
    "later fragment whose next header is an extension": (
        build_ipv6_raw(
            TCP, TCP6, extensions=[fragment_header(offset=800), destination_options()]
        ),
        frame6(60, ABSENT, ABSENT, LATER),
    ),
    "ipv6 fragment up to the last byte": (
        build_ipv6_raw(
            UDP, bytes(15), extensions=[hop_by_hop(), fragment_header(offset=65512)]
        ),
        frame6(UDP, ABSENT, ABSENT, LATER),
    ),
    "router solicitation": (
        build_icmp6(icmp_type=133, body=bytes(4) + nd_option(1, A), ttl=255),
        frame6(ICMPV6, 133, 0, ttl=255),
    ),
    "router advertisement": (
        build_icmp6(icmp_type=134, body=bytes(12) + nd_option(3, bytes(30)), ttl=255),
        frame6(ICMPV6, 134, 0, ttl=255),
    ),
    "redirect": (
        build_icmp6(icmp_type=137, body=bytes(36) + nd_option(2, A), ttl=255),
        frame6(ICMPV6, 137, 0, ttl=255),
    ),
    "arp request": (
        build_arp(),
        Frame(
            Kind.ARP, BROADCAST, A, ABSENT, 0x0806, A4, B4, 1, detail=Arp(A, parse_mac(MAC_ZERO))
        ),
    ),
    "arp reply, tagged": (
        build_arp(opcode=2, sha=MAC_B, spa=IP4_B, tha=MAC_A, tpa=IP4_A, eth_dst=MAC_A, vlan=9),
        Frame(Kind.ARP, A, B, 9, 0x0806, B4, A4, 2, detail=Arp(B, A)),
    ),
    "arp whose sender is not the frame's": (
        build_arp(eth_src=MAC_B, opcode=0x1234),
        Frame(
            Kind.ARP, BROADCAST, B, ABSENT, 0x0806, A4, B4, 0x1234, detail=Arp(A, bytes(6))
        ),
    ),
    "neighbor solicitation": (
        build_ns(),
        Frame(
            Kind.IPV6, B6_GROUP_MAC, A, ABSENT, 0x86DD, A6, B6_GROUP, ICMPV6, 135, 0,
            NOT_FRAGMENT, 255, NeighborDiscovery(B6, A),
        ),
    ),
    "neighbor solicitation to the neighbor itself, without option": (
        build_ns(dst=IP6_B, link_layer=None, vlan=3),
        Frame(
            Kind.IPV6, B, A, 3, 0x86DD, A6, B6, ICMPV6, 135, 0,
            NOT_FRAGMENT, 255, NeighborDiscovery(B6, None),
        ),
    ),
    "duplicate address detection": (
        build_ns(src="::", link_layer=None),
        Frame(
            Kind.IPV6, B6_GROUP_MAC, A, ABSENT, 0x86DD, bytes(16), B6_GROUP, ICMPV6, 135, 0,
            NOT_FRAGMENT, 255, NeighborDiscovery(B6, None),
        ),
    ),
    "neighbor advertisement": (
        build_na(),
        Frame(
            Kind.IPV6, B, A, ABSENT, 0x86DD, A6, B6, ICMPV6, 136, 0,
            NOT_FRAGMENT, 255, NeighborDiscovery(A6, A),
        ),
    ),
    "neighbor advertisement to all": (
        build_na(dst="ff02::1", solicited=False, link_layer=None),
        Frame(
            Kind.IPV6, parse_mac("33:33:00:00:00:01"), A, ABSENT, 0x86DD, A6, parse_ip("ff02::1"),
            ICMPV6, 136, 0, NOT_FRAGMENT, 255, NeighborDiscovery(A6, None),
        ),
    ),
}  # fmt: skip

"""Good frames of every kind, from which hostile ones are made."""

from __future__ import annotations

from collections.abc import Iterator

from ondemand.addresses import link_local_of
from tests.support.frame_builder import (
    MAC_A,
    MAC_BROADCAST,
    build_arp,
    build_ethernet,
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
from tests.support.frame_samples import SAMPLES
from tests.support.packet_parts import (
    TCP,
    authentication_header,
    destination_options,
    fragment_header,
    hop_by_hop,
    mac_bytes,
    nd_option,
    routing_header,
    tcp_segment,
    udp_datagram,
)
from tests.support.vm_frames import VmFrames
from tests.support.world_builder import CloudBuilder

ETH_RARP, ETH_LLDP, ETH_MPLS, ETH_SERVICE_VLAN = 0x8035, 0x88CC, 0x8847, 0x88A8
#: RFC 2131 section 2: op, htype, hlen, hops and the rest of a BOOTP header, then the magic cookie.
DHCP = bytes((2, 1, 6, 0)) + bytes(232) + bytes.fromhex("63825363350105ff")
#: A DHCPv6 reply (RFC 8415 section 8): type 7, transaction id.
DHCPV6 = bytes.fromhex("07000001")
#: Loose source route by way of 10.0.0.1 (RFC 791 section 3.1).
SOURCE_ROUTE = bytes((131, 7, 4, 10, 0, 0, 1))
#: LLC and SNAP headers with an ethertype behind them (RFC 1042).
SNAP_IPV4 = bytes.fromhex("aaaa030000000800")


def good_frames() -> list[bytes]:
    """Small ones, of every kind that the builders make."""
    frames = [frame for frame, _ in SAMPLES.values() if len(frame) < 2000]
    frames += _more()
    return frames


def _more() -> Iterator[bytes]:
    yield build_udp4(tp_src=67, tp_dst=68, payload=DHCP)
    yield build_udp4(
        src="0.0.0.0", dst="255.255.255.255", tp_src=68, tp_dst=67, payload=DHCP,
        eth_dst=MAC_BROADCAST,
    )  # fmt: skip
    yield build_udp6(tp_src=547, tp_dst=546, payload=DHCPV6)
    yield build_udp6(src="fe80::1", dst="ff02::1:2", tp_src=546, tp_dst=547, payload=DHCPV6)
    rarp = build_arp(opcode=3)[14:]
    yield build_ethernet(ETH_RARP, rarp, eth_dst=MAC_BROADCAST)
    yield build_ethernet(ETH_LLDP, bytes(46))
    yield build_ethernet(ETH_MPLS, bytes(46))
    yield build_ethernet(ETH_SERVICE_VLAN, bytes((0, 5, 8, 0)) + build_tcp4()[14:])
    inner = build_tcp4()[14:]
    yield build_ethernet(len(SNAP_IPV4) + len(inner), SNAP_IPV4 + inner)
    yield build_ipv4_raw(TCP, tcp_segment("10.0.0.10", "10.0.0.11", 1, 80), options=SOURCE_ROUTE)
    yield build_icmp4(icmp_type=5, icmp_code=1, body=bytes((10, 0, 0, 1)) + build_udp4()[14:42])
    yield build_icmp6(icmp_type=143, body=bytes(4), src="fe80::1", dst="ff02::16", ttl=1)
    yield build_icmp6(icmp_type=130, body=bytes(20), src="fe80::1", dst="ff02::1", ttl=1)
    yield build_icmp6(
        icmp_type=134,
        body=bytes(12) + nd_option(1, mac_bytes(MAC_A)) + nd_option(3, bytes(30)),
        src=link_local_of(mac_bytes(MAC_A)),
        dst="ff02::1",
        ttl=255,
    )
    data = udp_datagram("fd00::10", "fd00::11", 1, 53, payload=bytes(32))
    chain = [hop_by_hop(), routing_header(), destination_options(16), authentication_header()]
    yield build_ipv6_raw(17, data, extensions=chain)
    yield build_ipv6_raw(
        17, data[:24], extensions=[hop_by_hop(), fragment_header(more_fragments=True)]
    )
    yield build_ipv6_raw(17, data[24:], extensions=[fragment_header(offset=24)])
    yield build_ipv6_raw(17, data, extensions=[fragment_header()])
    yield build_na(dst="ff02::1", solicited=False)
    yield build_ns(src="::", link_layer=None)
    yield build_sctp4(chunks=bytes(20))
    yield build_sctp6(chunks=bytes(20))
    yield build_tcp6(options=b"\1" * 40, payload=bytes(100))


def large_frames() -> list[bytes]:
    """As large as a frame can be in a packet-in, and with as many parts as it can have."""
    most = 65000
    options = nd_option(14, bytes(6)) * ((most - 64) // 8)
    return [
        build_udp4(payload=bytes(8000)),
        build_tcp4(payload=bytes(most)),
        build_udp6(payload=bytes(most)),
        build_icmp6(icmp_type=135, body=bytes(4) + bytes(15) + b"\1" + options, ttl=255),
        build_ipv6_raw(59, b"", extensions=[destination_options(2048)] * 8),
        build_ipv6_raw(59, b"", extensions=[destination_options(8)] * 64),
        build_ipv4_raw(47, bytes(most)),
        build_ethernet(ETH_LLDP, bytes(most)),
    ]


def cloud_frames(cloud: CloudBuilder, pairs: list[tuple[str, str]]) -> list[bytes]:
    """Frames between ports of a cloud, of both families: those that get far into the engine."""
    found: list[bytes] = []
    for family in (4, 6):
        vm = VmFrames(cloud, family)
        for src, dst in pairs:
            found += [
                vm.tcp(src, dst),
                vm.tcp_reply(dst, src),
                vm.udp(src, dst),
                vm.udp(src, dst, 68 if family == 4 else 546, tp_src=67 if family == 4 else 547),
                vm.sctp(src, dst),
                vm.gre(src, dst),
                vm.ping(src, dst),
                vm.pong(dst, src),
                vm.ping_gateway(src),
                vm.unreachable(dst, src, vm.udp(src, dst)),
                vm.who_has(src, dst),
                vm.who_has(src, vm.gateway(src)),
                vm.duplicate_test(src, vm.ip(src)),
                *vm.fragments(src, dst),
            ]
    return found

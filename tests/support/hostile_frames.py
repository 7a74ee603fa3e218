"""What a hostile VM, or a hostile host of the underlay, sends: by name, each with a mark of its own."""

from __future__ import annotations

from dataclasses import dataclass

from ondemand.addresses import link_local_of
from tests.support.frame_builder import (
    build_arp,
    build_ethernet,
    build_icmp6,
    build_ipv4_raw,
    build_ipv6_raw,
    build_na,
    build_ns,
    build_tcp4,
    build_udp4,
    build_udp6,
)
from tests.support.packet_parts import (
    destination_options,
    fragment_header,
    hop_by_hop,
    icmp6_message,
    mac_bytes,
    nd_option,
    tcp_segment,
    udp_datagram,
)

MARK = b"hostile!"
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
BROADCAST = "ff:ff:ff:ff:ff:ff"
#: What policy lets in everywhere, and what nowhere.
OPEN, CLOSED = 53, 54


@dataclass(frozen=True, slots=True)
class End:
    """A VM as frames name it."""

    mac: str
    ip4: str
    ip6: str


NOBODY = End("02:00:00:00:00:66", "10.0.1.66", "fd00:1::66")


def good(src: End, dst: End, mark: bytes) -> list[bytes]:
    """Frames that have to arrive: UDP of both families to the open port."""
    ends = {"eth_src": src.mac, "eth_dst": dst.mac, "tp_dst": OPEN, "payload": mark}
    return [
        build_udp4(src=src.ip4, dst=dst.ip4, **ends),  # type: ignore[arg-type]
        build_udp6(src=src.ip6, dst=dst.ip6, **ends),  # type: ignore[arg-type]
    ]


def from_vm(src: End, dst: End, gateway: End) -> dict[str, list[bytes]]:
    """What ``dst`` must never see of ``src``, a port with port security."""
    ends = {"eth_src": src.mac, "eth_dst": dst.mac}
    at4, at6 = {"src": src.ip4, "dst": dst.ip4, **ends}, {"src": src.ip6, "dst": dst.ip6, **ends}
    link = {**at6, "src": link_local_of(mac_bytes(src.mac)), "ttl": 255}
    udp4 = udp_datagram(src.ip4, dst.ip4, 1, CLOSED, payload=MARK)
    udp6 = udp_datagram(src.ip6, dst.ip6, 1, CLOSED, payload=MARK)
    ra = bytes(12) + nd_option(1, mac_bytes(src.mac))
    ra_bytes = icmp6_message(str(src.ip6), dst.ip6, 134, 0, ra)
    options = [destination_options()]
    sealed = {"payload": MARK, "tp_dst": OPEN}
    return {
        "spoofed MAC": [
            build_udp4(**{**at4, **sealed, "eth_src": NOBODY.mac}),
            build_udp6(**{**at6, **sealed, "eth_src": gateway.mac}),
        ],
        "spoofed address": [
            build_udp4(**{**at4, **sealed, "src": NOBODY.ip4}),
            build_udp4(**{**at4, **sealed, "src": gateway.ip4}),
            build_udp6(**{**at6, **sealed, "src": NOBODY.ip6}),
            build_udp6(**{**at6, **sealed, "src": "fe80::1"}),
        ],
        "ARP in another's name": [
            build_arp(opcode=2, sha=src.mac, spa=gateway.ip4, tha=dst.mac, tpa=dst.ip4, eth_dst=dst.mac),
            build_arp(opcode=2, sha=gateway.mac, spa=gateway.ip4, tha=dst.mac, tpa=dst.ip4,
                      eth_src=src.mac, eth_dst=BROADCAST),
            build_arp(opcode=1, sha=src.mac, spa=dst.ip4, tpa=dst.ip4),
            build_ethernet(0x8035, build_arp(opcode=3)[14:], eth_src=src.mac, eth_dst=BROADCAST),
        ],
        "neighbor advertisement": [
            build_na(target=gateway.ip6, dst=dst.ip6, link_layer=src.mac, eth_src=src.mac, eth_dst=dst.mac),
            build_na(target=gateway.ip6, dst=ALL_NODES, link_layer=src.mac, solicited=False,
                     eth_src=src.mac, eth_dst=ALL_NODES_MAC),
        ],
        "neighbor solicitation": [
            build_ns(target=dst.ip6, src=src.ip6, link_layer=src.mac, dst=dst.ip6, eth_src=src.mac,
                     eth_dst=dst.mac),
        ],
        "router advertisement": [
            build_icmp6(icmp_type=134, body=ra, **link),
            build_icmp6(icmp_type=134, body=ra, **{**link, "dst": ALL_NODES, "eth_dst": ALL_NODES_MAC}),
            build_icmp6(icmp_type=134, body=ra, **link, extensions=options),
            build_ipv6_raw(58, ra_bytes, **link, extensions=[hop_by_hop(), fragment_header()]),
            build_ipv6_raw(58, ra_bytes[:8], **link, extensions=[fragment_header(more_fragments=True)]),
            build_ipv6_raw(58, ra_bytes[8:], **link, extensions=[fragment_header(offset=8)]),
        ],
        "redirect": [build_icmp6(icmp_type=137, body=bytes(36) + nd_option(2, mac_bytes(src.mac)), **link)],
        "multicast listener": [
            build_icmp6(icmp_type=kind, body=bytes(20), **{**link, "dst": group, "ttl": 1})
            for kind in (130, 131, 132, 143) for group in (ALL_NODES, dst.ip6)
        ],
        "DHCP server": [
            build_udp4(**at4, tp_src=67, tp_dst=68, payload=MARK),
            build_udp4(**{**at4, "dst": "255.255.255.255", "eth_dst": BROADCAST}, tp_src=67, tp_dst=68),
            build_udp6(**at6, tp_src=547, tp_dst=546, payload=MARK),
            build_udp6(**at6, tp_src=547, tp_dst=546, payload=MARK, extensions=options),
        ],
        "tagged": [
            *(build_udp4(**at4, **sealed, vlan=vlan) for vlan in (0, 7, 4095)),
            build_udp6(**at6, **sealed, vlan=7),
            build_ethernet(0x88A8, b"\0\7\x08\0" + build_udp4(**at4, **sealed)[14:], **ends),
        ],
        "hidden behind extension headers": [
            build_ipv6_raw(17, udp6, **at6, extensions=options),
            build_ipv6_raw(17, udp6, **at6, extensions=[hop_by_hop(), destination_options(64)]),
            build_ipv6_raw(17, udp6, **at6, extensions=options * 9),
            build_ipv6_raw(17, udp6, **at6, extensions=[fragment_header()]),
            build_ipv6_raw(17, udp6[:8], **at6, extensions=[fragment_header(more_fragments=True)]),
            build_ipv6_raw(17, udp6[8:], **at6, extensions=[fragment_header(offset=8)]),
        ],
        "oversized": [build_udp4(**at4, tp_dst=OPEN, payload=MARK * size) for size in (250, 1100, 8000)],
        "cut short": [
            *(build_udp4(**at4, **sealed)[:size] for size in (14, 20, 33, 37, 41, 45)),
            build_ipv4_raw(6, tcp_segment(src.ip4, dst.ip4, 1, OPEN)[:12], **at4),
            build_ipv4_raw(132, bytes(8), **at4),
            build_ipv6_raw(6, bytes(12), **at6),
        ],
        # The switch cannot see IP options; what carries them is judged as it would be without.
        "source route": [
            build_ipv4_raw(17, udp4, **at4, options=bytes((131, 7, 4, 10, 0, 1, 1))),
            build_ipv4_raw(17, udp4, **at4, options=bytes((137, 7, 4, 10, 0, 1, 1))),
        ],
        "to everybody": [
            build_udp4(**{**at4, "dst": group, "eth_dst": mac}, **sealed)
            for group, mac in (("255.255.255.255", BROADCAST), ("10.0.1.255", BROADCAST),
                               ("224.0.0.5", "01:00:5e:00:00:05"), (dst.ip4, BROADCAST))
        ] + [build_udp6(**{**at6, "dst": ALL_NODES, "eth_dst": ALL_NODES_MAC}, **sealed)],
        "another ethertype": [
            build_ethernet(kind, MARK * 6, **ends) for kind in (0x88CC, 0x8847, 0x0700, 0x0004)
        ],
        "closed": [build_udp4(**at4, tp_dst=CLOSED, payload=MARK), build_tcp4(**at4, tp_dst=CLOSED)],
    }  # fmt: skip


def from_underlay(
    src: End, dst: End, vni: int, other_vni: int
) -> dict[str, list[tuple[int, bytes]]]:
    """(VNI, frame) that no VM may see, though ``src`` may send to ``dst`` in ``vni``."""
    lawful = good(src, dst, MARK)
    unlawful = from_vm(src, dst, NOBODY)
    stranger = good(src, NOBODY, MARK)
    inner = [
        *unlawful["router advertisement"][:4],
        *unlawful["neighbor advertisement"],
        *unlawful["neighbor solicitation"],
        *unlawful["ARP in another's name"],
        *unlawful["redirect"],
    ]
    return {
        "VNI of nobody": [(number, frame) for number in (0, 7, 0xFFFFFF) for frame in lawful],
        "MAC of nobody": [(vni, frame) for frame in stranger],
        "VNI of another network": [(other_vni, frame) for frame in stranger],
        "inner ND, RA and ARP": [(vni, frame) for frame in inner],
        "inner tag": [(vni, frame) for frame in unlawful["tagged"]],
        "cut short inside": [(vni, frame) for frame in unlawful["cut short"]],
        "to everybody inside": [(vni, frame) for frame in unlawful["to everybody"]],
        "closed inside": [(vni, frame) for frame in unlawful["closed"]],
    }

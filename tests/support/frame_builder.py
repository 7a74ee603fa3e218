"""Whole Ethernet frames for tests, with every length and checksum right.

Each ``build_*`` returns a frame. ``build_ipv4_raw`` and ``build_ipv6_raw`` take what
``packet_parts`` makes, for IP options, fragments and extension headers. Addresses are text or bytes.
Lengths and offsets are bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ondemand.addresses import solicited_node
from tests.support.packet_parts import (
    ICMP,
    ICMPV6,
    SCTP,
    SYN,
    TCP,
    UDP,
    Address,
    Extension,
    icmp6_message,
    icmp_message,
    ip_bytes,
    mac_bytes,
    nd_option,
    sctp_packet,
    tcp_segment,
    udp_datagram,
    with_checksum,
)

MAC_A = "fa:16:3e:00:00:0a"
MAC_B = "fa:16:3e:00:00:0b"
MAC_ZERO = "00:00:00:00:00:00"
MAC_BROADCAST = "ff:ff:ff:ff:ff:ff"
IP4_A, IP4_B = "10.0.0.10", "10.0.0.11"
IP6_A, IP6_B = "fd00::10", "fd00::11"

ETH_IPV4, ETH_ARP, ETH_VLAN, ETH_IPV6 = 0x0800, 0x0806, 0x8100, 0x86DD


def build_ethernet(
    eth_type: int,
    payload: bytes,
    *,
    eth_src: Address = MAC_A,
    eth_dst: Address = MAC_B,
    vlan: int | None = None,
) -> bytes:
    """A frame without padding; ``vlan`` adds an 802.1Q tag with that id."""
    tag = b"" if vlan is None else struct.pack(">HH", ETH_VLAN, vlan)
    return mac_bytes(eth_dst) + mac_bytes(eth_src) + tag + struct.pack(">H", eth_type) + payload


def padded(frame: bytes) -> bytes:
    """``frame`` with zeros up to the 60 bytes that Ethernet sends at least (FCS not counted)."""
    return frame.ljust(60, b"\0")


def build_ipv4_raw(
    proto: int,
    payload: bytes,
    *,
    src: Address = IP4_A,
    dst: Address = IP4_B,
    ttl: int = 64,
    options: bytes = b"",
    identification: int = 1,
    fragment_offset: int = 0,
    more_fragments: bool = False,
    eth_src: Address = MAC_A,
    eth_dst: Address = MAC_B,
    vlan: int | None = None,
) -> bytes:
    """IPv4 with ``payload`` as it is; ``options`` are filled up to a multiple of 4."""
    options += bytes(-len(options) % 4)
    header_bytes = 20 + len(options)
    header = struct.pack(
        ">BBHHHBBH4s4s",
        0x40 | header_bytes // 4,
        0,
        header_bytes + len(payload),
        identification,
        more_fragments << 13 | fragment_offset // 8,
        ttl,
        proto,
        0,
        ip_bytes(src),
        ip_bytes(dst),
    )
    header = with_checksum(header + options, at=10)
    return build_ethernet(ETH_IPV4, header + payload, eth_src=eth_src, eth_dst=eth_dst, vlan=vlan)


def build_ipv6_raw(
    proto: int,
    payload: bytes,
    *,
    src: Address = IP6_A,
    dst: Address = IP6_B,
    ttl: int = 64,
    extensions: Sequence[Extension] = (),
    eth_src: Address = MAC_A,
    eth_dst: Address = MAC_B,
    vlan: int | None = None,
) -> bytes:
    """IPv6 with ``payload`` as it is, behind the extension headers in the order given."""
    body = payload
    following = proto
    for extension in reversed(extensions):
        body = bytes((following,)) + extension.rest + body
        following = extension.number
    header = (
        struct.pack(">IHBB", 6 << 28, len(body), following, ttl) + ip_bytes(src) + ip_bytes(dst)
    )
    return build_ethernet(ETH_IPV6, header + body, eth_src=eth_src, eth_dst=eth_dst, vlan=vlan)


def build_arp(
    *,
    opcode: int = 1,
    sha: Address = MAC_A,
    spa: Address = IP4_A,
    tha: Address = MAC_ZERO,
    tpa: Address = IP4_B,
    eth_src: Address | None = None,
    eth_dst: Address = MAC_BROADCAST,
    vlan: int | None = None,
) -> bytes:
    """An ARP request, or what ``opcode`` says; ``eth_src`` is ``sha`` unless it is given."""
    packet = struct.pack(">HHBBH", 1, ETH_IPV4, 6, 4, opcode)
    packet += mac_bytes(sha) + ip_bytes(spa) + mac_bytes(tha) + ip_bytes(tpa)
    return build_ethernet(
        ETH_ARP, packet, eth_src=sha if eth_src is None else eth_src, eth_dst=eth_dst, vlan=vlan
    )


def build_tcp4(
    *,
    src: Address = IP4_A,
    dst: Address = IP4_B,
    tp_src: int = 40000,
    tp_dst: int = 80,
    flags: int = SYN,
    options: bytes = b"",
    payload: bytes = b"",
    ttl: int = 64,
    eth_src: Address = MAC_A,
    eth_dst: Address = MAC_B,
    vlan: int | None = None,
) -> bytes:
    segment = tcp_segment(src, dst, tp_src, tp_dst, flags=flags, options=options, payload=payload)
    return build_ipv4_raw(
        TCP, segment, src=src, dst=dst, ttl=ttl, eth_src=eth_src, eth_dst=eth_dst, vlan=vlan
    )


def build_tcp6(
    *,
    src: Address = IP6_A,
    dst: Address = IP6_B,
    tp_src: int = 40000,
    tp_dst: int = 80,
    flags: int = SYN,
    options: bytes = b"",
    payload: bytes = b"",
    ttl: int = 64,
    extensions: Sequence[Extension] = (),
    eth_src: Address = MAC_A,
    eth_dst: Address = MAC_B,
    vlan: int | None = None,
) -> bytes:
    segment = tcp_segment(src, dst, tp_src, tp_dst, flags=flags, options=options, payload=payload)
    return build_ipv6_raw(
        TCP,
        segment,
        src=src,
        dst=dst,
        ttl=ttl,
        extensions=extensions,
        eth_src=eth_src,
        eth_dst=eth_dst,
        vlan=vlan,
    )


def build_udp4(
    *,
    src: Address = IP4_A,
    dst: Address = IP4_B,
    tp_src: int = 40000,
    tp_dst: int = 53,
    payload: bytes = b"",
    ttl: int = 64,
    eth_src: Address = MAC_A,
    eth_dst: Address = MAC_B,
    vlan: int | None = None,
) -> bytes:
    datagram = udp_datagram(src, dst, tp_src, tp_dst, payload=payload)
    return build_ipv4_raw(
        UDP, datagram, src=src, dst=dst, ttl=ttl, eth_src=eth_src, eth_dst=eth_dst, vlan=vlan
    )


def build_udp6(
    *,
    src: Address = IP6_A,
    dst: Address = IP6_B,
    tp_src: int = 40000,
    tp_dst: int = 53,
    payload: bytes = b"",
    ttl: int = 64,
    extensions: Sequence[Extension] = (),
    eth_src: Address = MAC_A,
    eth_dst: Address = MAC_B,
    vlan: int | None = None,
) -> bytes:
    datagram = udp_datagram(src, dst, tp_src, tp_dst, payload=payload)
    return build_ipv6_raw(
        UDP,
        datagram,
        src=src,
        dst=dst,
        ttl=ttl,
        extensions=extensions,
        eth_src=eth_src,
        eth_dst=eth_dst,
        vlan=vlan,
    )


def build_sctp4(
    *,
    src: Address = IP4_A,
    dst: Address = IP4_B,
    tp_src: int = 40000,
    tp_dst: int = 3868,
    chunks: bytes = b"",
    ttl: int = 64,
    eth_src: Address = MAC_A,
    eth_dst: Address = MAC_B,
    vlan: int | None = None,
) -> bytes:
    packet = sctp_packet(tp_src, tp_dst, chunks=chunks)
    return build_ipv4_raw(
        SCTP, packet, src=src, dst=dst, ttl=ttl, eth_src=eth_src, eth_dst=eth_dst, vlan=vlan
    )


def build_sctp6(
    *,
    src: Address = IP6_A,
    dst: Address = IP6_B,
    tp_src: int = 40000,
    tp_dst: int = 3868,
    chunks: bytes = b"",
    ttl: int = 64,
    eth_src: Address = MAC_A,
    eth_dst: Address = MAC_B,
    vlan: int | None = None,
) -> bytes:
    packet = sctp_packet(tp_src, tp_dst, chunks=chunks)
    return build_ipv6_raw(
        SCTP, packet, src=src, dst=dst, ttl=ttl, eth_src=eth_src, eth_dst=eth_dst, vlan=vlan
    )


def build_icmp4(
    *,
    icmp_type: int = 8,
    icmp_code: int = 0,
    body: bytes = bytes(4),
    src: Address = IP4_A,
    dst: Address = IP4_B,
    ttl: int = 64,
    eth_src: Address = MAC_A,
    eth_dst: Address = MAC_B,
    vlan: int | None = None,
) -> bytes:
    """An echo request, or another message: ``body`` is what follows its checksum."""
    message = icmp_message(icmp_type, icmp_code, body)
    return build_ipv4_raw(
        ICMP, message, src=src, dst=dst, ttl=ttl, eth_src=eth_src, eth_dst=eth_dst, vlan=vlan
    )


def build_icmp6(
    *,
    icmp_type: int = 128,
    icmp_code: int = 0,
    body: bytes = bytes(4),
    src: Address = IP6_A,
    dst: Address = IP6_B,
    ttl: int = 64,
    extensions: Sequence[Extension] = (),
    eth_src: Address = MAC_A,
    eth_dst: Address = MAC_B,
    vlan: int | None = None,
) -> bytes:
    """An echo request, or another message: ``body`` is what follows its checksum."""
    message = icmp6_message(src, dst, icmp_type, icmp_code, body)
    return build_ipv6_raw(
        ICMPV6,
        message,
        src=src,
        dst=dst,
        ttl=ttl,
        extensions=extensions,
        eth_src=eth_src,
        eth_dst=eth_dst,
        vlan=vlan,
    )


def build_ns(
    *,
    target: Address = IP6_B,
    src: Address = IP6_A,
    link_layer: Address | None = MAC_A,
    dst: Address | None = None,
    eth_src: Address = MAC_A,
    eth_dst: Address | None = None,
    ttl: int = 255,
    vlan: int | None = None,
) -> bytes:
    """A neighbor solicitation, to the solicited-node group of ``target`` unless ``dst`` is given.

    Duplicate address detection: ``src="::", link_layer=None``.
    """
    dst = solicited_node(ip_bytes(target)) if dst is None else dst
    body = (
        bytes(4)
        + ip_bytes(target)
        + (b"" if link_layer is None else nd_option(1, mac_bytes(link_layer)))
    )
    return build_icmp6(
        icmp_type=135,
        body=body,
        src=src,
        dst=dst,
        ttl=ttl,
        eth_src=eth_src,
        eth_dst=_mac_for(dst) if eth_dst is None else eth_dst,
        vlan=vlan,
    )


def build_na(
    *,
    target: Address = IP6_A,
    src: Address | None = None,
    dst: Address = IP6_B,
    link_layer: Address | None = MAC_A,
    solicited: bool = True,
    override: bool = True,
    eth_src: Address = MAC_A,
    eth_dst: Address | None = None,
    ttl: int = 255,
    vlan: int | None = None,
) -> bytes:
    """A neighbor advertisement, from ``target`` itself unless ``src`` is given."""
    flags = solicited << 30 | override << 29
    option = b"" if link_layer is None else nd_option(2, mac_bytes(link_layer))
    return build_icmp6(
        icmp_type=136,
        body=struct.pack(">I", flags) + ip_bytes(target) + option,
        src=target if src is None else src,
        dst=dst,
        ttl=ttl,
        eth_src=eth_src,
        eth_dst=_mac_for(dst) if eth_dst is None else eth_dst,
        vlan=vlan,
    )


def _mac_for(dst: Address) -> bytes:
    """The Ethernet multicast address of an IPv6 group (RFC 2464 section 7), else MAC_B."""
    ip = ip_bytes(dst)
    return b"\x33\x33" + ip[12:] if ip[0] == 0xFF else mac_bytes(MAC_B)

"""What a switch port received, from bytes to the fields that a decision reads.

``parse`` looks at headers only and makes one object for a packet of the common kind. A frame that
does not hold what its headers say raises ``Malformed`` with a reason from a closed set, and nothing
else: it is counted and never becomes a rule. The agent asks the switch for whole packets, so a
length field that points behind the buffer is malformed; Ethernet padding behind the packet is not.

Checksums are not verified: a VM's driver may leave them to the NIC, and what the switch hands over
then carries none yet.
"""

from __future__ import annotations

import enum
import struct

import msgspec

from ondemand.malformed import Malformed, Reason
from ondemand.neighbor_discovery import (
    MESSAGE_TYPES,
    NeighborDiscovery,
    parse_neighbor_discovery,
)

__all__ = [
    "ABSENT",
    "ETH_ARP",
    "ETH_IPV4",
    "ETH_IPV6",
    "ICMP",
    "ICMPV6",
    "MAX_EXTENSION_HEADERS",
    "NO_NEXT_HEADER",
    "SCTP",
    "TCP",
    "UDP",
    "Arp",
    "Fragment",
    "Frame",
    "Kind",
    "Malformed",
    "NeighborDiscovery",
    "Reason",
    "parse",
]

#: IP protocol numbers (IANA).
ICMP, TCP, UDP, ICMPV6, NO_NEXT_HEADER, SCTP = 1, 6, 17, 58, 59, 132
#: Ethertypes (IANA).
ETH_IPV4, ETH_ARP, ETH_VLAN, ETH_IPV6, ETH_SERVICE_VLAN = 0x0800, 0x0806, 0x8100, 0x86DD, 0x88A8
#: A field of Frame that the packet does not have.
ABSENT = -1

#: Most IPv6 extension headers in a packet; RFC 8883 knows such limits, real traffic has two or three.
MAX_EXTENSION_HEADERS = 8

# IPv6 extension headers that say where the next one begins (RFC 8200 section 4, RFC 4302).
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AH, _DESTINATION = 0, 43, 44, 51, 60
_EXTENSIONS = frozenset({_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AH, _DESTINATION})

#: The least that a packet of the protocol holds, bytes.
_HEADER_BYTES = {ICMP: 8, TCP: 20, UDP: 8, ICMPV6: 8, SCTP: 12}
_MAX_PACKET_BYTES = 65535

_read_ethernet = struct.Struct(">6s6sH").unpack_from
_read_tag = struct.Struct(">HH").unpack_from
_read_arp = struct.Struct(">HHBBH6s4s6s4s").unpack_from
# Version and IHL, total length, flags and fragment offset, TTL, protocol, addresses (RFC 791).
_read_ipv4 = struct.Struct(">BxHxxHBBxx4s4s").unpack_from
# Version (and class), payload length, next header, hop limit, addresses (RFC 8200 section 3).
_read_ipv6 = struct.Struct(">BxxxHBB16s16s").unpack_from
_read_ports = struct.Struct(">HH").unpack_from


class Kind(enum.IntEnum):
    """What the frame carries. OTHER: an ethertype that the agent does not forward."""

    OTHER = 0
    ARP = 1
    IPV4 = 2
    IPV6 = 3


class Fragment(enum.IntEnum):
    """Part of a fragmented packet? An IPv6 atomic fragment (RFC 6946) is the whole packet."""

    NOT_FRAGMENT = 0
    FIRST = 1
    LATER = 2


# Until Python 3.12 a member costs 90 ns when it is read through its class.
_OTHER, _ARP, _IPV4, _IPV6 = Kind.OTHER, Kind.ARP, Kind.IPV4, Kind.IPV6
_NOT_FRAGMENT, _FIRST, _LATER = Fragment.NOT_FRAGMENT, Fragment.FIRST, Fragment.LATER


class Arp(msgspec.Struct, frozen=True, gc=False):
    """The hardware addresses of an ARP packet (RFC 826), 6 bytes each."""

    sha: bytes
    tha: bytes


class Frame(msgspec.Struct, frozen=True, gc=False):
    """The header fields of a frame. A number that the packet lacks is ABSENT, an address ``b""``.

    ``vlan`` is the VLAN id of its 802.1Q tag, 0 for a priority tag, ABSENT when untagged, and
    ``eth_type`` what follows the tag. ``src``, ``dst`` and ``proto`` are IP addresses and the final
    IP protocol number, or sender, target and opcode of ARP. ``tp_src`` and ``tp_dst`` are ports, or
    ICMP type and code; a later fragment has neither, and in IPv6 its ``proto`` is the next header
    that its fragment header names (OVS matches it as nw_proto 44). ``ttl`` is IPv6's hop limit too.
    """

    kind: Kind
    eth_dst: bytes
    eth_src: bytes
    vlan: int
    eth_type: int
    src: bytes = b""
    dst: bytes = b""
    proto: int = ABSENT
    tp_src: int = ABSENT
    tp_dst: int = ABSENT
    fragment: Fragment = _NOT_FRAGMENT
    ttl: int = ABSENT
    detail: Arp | NeighborDiscovery | None = None


def parse(data: bytes) -> Frame:
    """The headers of the Ethernet frame ``data`` (without preamble and FCS).

    Raises:
        Malformed: and no other exception, whatever the bytes are.
    """
    size = len(data)
    if size < 14:
        raise Malformed(Reason.ETHERNET_SHORT)
    eth_dst: bytes
    eth_src: bytes
    eth_type: int
    eth_dst, eth_src, eth_type = _read_ethernet(data)
    start = 14
    vlan = ABSENT
    if eth_type == ETH_VLAN:
        if size < 18:
            raise Malformed(Reason.VLAN_SHORT)
        tag, eth_type = _read_tag(data, 14)
        vlan = tag & 0x0FFF
        start = 18
        if eth_type in (ETH_VLAN, ETH_SERVICE_VLAN):
            raise Malformed(Reason.VLAN_STACKED)
    if eth_type == ETH_IPV4:
        return _parse_ipv4(data, eth_dst, eth_src, vlan, start)
    if eth_type == ETH_IPV6:
        return _parse_ipv6(data, eth_dst, eth_src, vlan, start)
    if eth_type == ETH_ARP:
        return _parse_arp(data, eth_dst, eth_src, vlan, start)
    if eth_type < 0x0600:  # a length (IEEE 802.3 clause 3.2.6)
        raise Malformed(Reason.NOT_ETHERNET_II)
    return Frame(_OTHER, eth_dst, eth_src, vlan, eth_type)


def _parse_arp(data: bytes, eth_dst: bytes, eth_src: bytes, vlan: int, start: int) -> Frame:
    if len(data) < start + 28:
        raise Malformed(Reason.ARP_SHORT)
    hardware, protocol, hlen, plen, opcode, sha, spa, tha, tpa = _read_arp(data, start)
    if (hardware, protocol, hlen, plen) != (1, ETH_IPV4, 6, 4):
        raise Malformed(Reason.ARP_NOT_ETHERNET_IPV4)
    return Frame(
        _ARP, eth_dst, eth_src, vlan, ETH_ARP, spa, tpa, proto=opcode, detail=Arp(sha, tha)
    )


def _parse_ipv4(data: bytes, eth_dst: bytes, eth_src: bytes, vlan: int, start: int) -> Frame:
    size = len(data)
    at = start + 20
    if size < at:
        raise Malformed(Reason.IP_SHORT)
    first, total, offset, ttl, proto, src, dst = _read_ipv4(data, start)
    end = start + total
    if first != 0x45:
        if first >> 4 != 4:
            raise Malformed(Reason.IP_VERSION)
        at = start + (first & 0x0F) * 4
        if at < start + 20:
            raise Malformed(Reason.IPV4_HEADER_LENGTH)
    if end > size:
        raise Malformed(Reason.IP_LENGTH)
    if at > end:
        raise Malformed(Reason.IPV4_HEADER_LENGTH)
    fragment = _NOT_FRAGMENT
    if offset & 0x3FFF:
        fragment = _check_fragment(
            proto, (offset & 0x1FFF) * 8, offset & 0x2000, at - start, end - at
        )
    if fragment is _LATER:
        tp_src, tp_dst = ABSENT, ABSENT
    elif proto == ICMP:
        tp_src, tp_dst = _parse_icmp(data, at, end, fragment)
    else:
        tp_src, tp_dst = _parse_transport(data, proto, at, end, fragment)
    return Frame(
        _IPV4, eth_dst, eth_src, vlan, ETH_IPV4, src, dst, proto, tp_src, tp_dst, fragment, ttl
    )


def _parse_ipv6(data: bytes, eth_dst: bytes, eth_src: bytes, vlan: int, start: int) -> Frame:
    size = len(data)
    at = start + 40
    if size < at:
        raise Malformed(Reason.IP_SHORT)
    first, length, proto, ttl, src, dst = _read_ipv6(data, start)
    if first >> 4 != 6:
        raise Malformed(Reason.IP_VERSION)
    end = at + length
    if end > size:
        raise Malformed(Reason.IP_LENGTH)
    fragment = _NOT_FRAGMENT
    fragment_header = False
    if proto in _EXTENSIONS:
        proto, at, fragment, fragment_header = _skip_extensions(data, proto, at, end)
    if fragment is _LATER:
        tp_src, tp_dst = ABSENT, ABSENT
    elif proto == ICMPV6:
        tp_src, tp_dst = _parse_icmp(data, at, end, fragment)
    else:
        tp_src, tp_dst = _parse_transport(data, proto, at, end, fragment)
    detail = None
    if proto == ICMPV6 and tp_src in MESSAGE_TYPES:
        if fragment_header:  # RFC 6980 section 5, atomic fragments included
            raise Malformed(Reason.ND_FRAGMENTED)
        detail = parse_neighbor_discovery(data[at:end], src, dst, ttl)
    return Frame(
        _IPV6,
        eth_dst,
        eth_src,
        vlan,
        ETH_IPV6,
        src,
        dst,
        proto,
        tp_src,
        tp_dst,
        fragment,
        ttl,
        detail,
    )


def _skip_extensions(data: bytes, proto: int, at: int, end: int) -> tuple[int, int, Fragment, bool]:
    """Final protocol, where it begins, which fragment, and whether there was a fragment header."""
    payload = at
    fragment = _NOT_FRAGMENT
    fragment_header = False
    for index in range(MAX_EXTENSION_HEADERS):
        if at + 8 > end:
            raise _cut(fragment, Reason.EXTENSION_SHORT)
        following = data[at]
        if proto == _FRAGMENT:
            if fragment_header:
                raise Malformed(Reason.EXTENSION_ORDER)
            fragment_header = True
            offset = data[at + 2] << 8 | data[at + 3]
            at += 8
            if offset & 0xFFF9:  # two reserved bits are to be ignored (RFC 8200 section 4.5)
                fragment = _check_fragment(
                    following, offset & 0xFFF8, offset & 1, at - 8 - payload, end - at
                )
                if fragment is _LATER:
                    return following, at, fragment, True
        elif proto == _AH:
            if not data[at + 1]:  # its fixed fields are 12 bytes (RFC 4302 section 2)
                raise Malformed(Reason.EXTENSION_SHORT)
            at += (data[at + 1] + 2) * 4
        elif proto == _HOP_BY_HOP and index:  # only right behind the IPv6 header (section 4.1)
            raise Malformed(Reason.EXTENSION_ORDER)
        else:
            at += (data[at + 1] + 1) * 8
        if at > end:
            raise _cut(fragment, Reason.EXTENSION_SHORT)
        proto = following
        if proto not in _EXTENSIONS:
            return proto, at, fragment, fragment_header
    raise Malformed(Reason.EXTENSION_COUNT)


def _check_fragment(proto: int, offset: int, more: int, before: int, length: int) -> Fragment:
    """FIRST or LATER; lengths and ``offset`` are bytes, ``before`` is what precedes the data of the
    reassembled packet.
    """
    if not length or (more and length % 8) or before + offset + length > _MAX_PACKET_BYTES:
        raise Malformed(Reason.FRAGMENT_LENGTH)
    if not offset:
        return _FIRST
    if offset < _HEADER_BYTES.get(proto, 0):
        # It would overwrite the header that the first fragment was judged by (RFC 1858 section 4,
        # RFC 3128).
        raise Malformed(Reason.TINY_FRAGMENT)
    return _LATER


def _cut(fragment: Fragment, reason: Reason) -> Malformed:
    """A header ends early: a first fragment has to hold them all (RFC 1858, RFC 7112)."""
    return Malformed(Reason.TINY_FRAGMENT if fragment is _FIRST else reason)


def _parse_icmp(data: bytes, at: int, end: int, fragment: Fragment) -> tuple[int, int]:
    """Type and code; every message defined for ICMP and ICMPv6 has 8 bytes at least."""
    if at + 8 > end:
        raise _cut(fragment, Reason.ICMP_SHORT)
    return data[at], data[at + 1]


def _parse_transport(
    data: bytes, proto: int, at: int, end: int, fragment: Fragment
) -> tuple[int, int]:
    """Source and destination port, ABSENT twice for a protocol that has none."""
    if proto == TCP:
        if at + 20 > end:
            raise _cut(fragment, Reason.TCP_SHORT)
        header = (data[at + 12] >> 4) * 4
        if header < 20:
            raise Malformed(Reason.TCP_DATA_OFFSET)
        if at + header > end:
            raise _cut(fragment, Reason.TCP_DATA_OFFSET)
    elif proto == UDP:
        if at + 8 > end:
            raise _cut(fragment, Reason.UDP_SHORT)
        length = data[at + 4] << 8 | data[at + 5]
        # Less than the IP payload is legal (RFC 9868); a first fragment holds a part of it.
        if length < 8 or (at + length > end and fragment is _NOT_FRAGMENT):
            raise Malformed(Reason.UDP_LENGTH)
    elif proto == SCTP:
        if at + 12 > end:
            raise _cut(fragment, Reason.SCTP_SHORT)
    else:
        return ABSENT, ABSENT
    ports: tuple[int, int] = _read_ports(data, at)
    return ports

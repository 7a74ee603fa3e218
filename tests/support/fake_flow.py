"""From frames to the fields that a switch matches, as Open vSwitch 3.1 does it (vlan-limit 1).

It is tolerant where the agent's own parser is strict: a header that is cut short leaves its fields at
zero, and the frame goes on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from rule_cache.fields import FRAG_ANY, FRAG_LATER, Field

#: A field that is absent counts as zero, as in the switch. Addresses are numbers too.
Fields = dict[Field, int]

ETH_IPV4, ETH_ARP, ETH_VLAN, ETH_IPV6, ETH_SERVICE_VLAN = 0x0800, 0x0806, 0x8100, 0x86DD, 0x88A8
ICMP, TCP, UDP, FRAGMENT, ICMPV6, SCTP = 1, 6, 17, 44, 58, 132
#: dl_type of a frame with a length instead of an ethertype (ovs-fields(7)).
NOT_ETHERNET_II: Final = 0x05FF
_HOP_BY_HOP, _ROUTING, _AH, _DESTINATION = 0, 43, 51, 60
_SOLICITATION, _ADVERTISEMENT = 135, 136
#: Options with an address, RFC 4861 section 4.6.1.
LINK_LAYER: Final = {1: Field.ND_SLL, 2: Field.ND_TLL}

_PORT_FIELDS: Final = {
    TCP: (20, Field.TCP_SRC, Field.TCP_DST),
    UDP: (8, Field.UDP_SRC, Field.UDP_DST),
    SCTP: (12, Field.SCTP_SRC, Field.SCTP_DST),
}


@dataclass(slots=True)
class Headers:
    """Where the headers of a frame are (byte offsets, 0: there is none) and the fields in them.

    ``l4`` and ``end`` bound what the IP packet carries, also when it is too short for a header;
    ``has_l4`` says that it is not, and that the packet is no later fragment.
    """

    fields: Fields = field(default_factory=dict)
    l3: int = 0
    l4: int = 0
    end: int = 0
    has_l4: bool = False
    #: First option of a neighbor discovery message, of whatever type and length.
    nd_option: int = 0
    #: The IPv6 fragment header.
    fragment: int = 0


def number(frame: bytes | bytearray, at: int, size: int) -> int:
    return int.from_bytes(frame[at : at + size], "big")


def extract(frame: bytes) -> Headers:
    headers = Headers(end=len(frame))
    fields = headers.fields
    if len(frame) < 14:
        return headers
    fields[Field.ETH_DST] = number(frame, 0, 6)
    fields[Field.ETH_SRC] = number(frame, 6, 6)
    at = 12
    if number(frame, at, 2) in {ETH_VLAN, ETH_SERVICE_VLAN} and len(frame) >= 18:
        fields[Field.VLAN_TCI] = number(frame, 14, 2) | 0x1000
        at = 16
    eth_type = number(frame, at, 2)
    headers.l3 = at + 2
    if eth_type < 0x0600:
        llc = frame[headers.l3 : headers.l3 + 8]
        snap = len(llc) == 8 and llc[:6] == b"\xaa\xaa\x03\0\0\0" and number(llc, 6, 2) >= 0x0600
        eth_type = number(llc, 6, 2) if snap else NOT_ETHERNET_II
        headers.l3 += 8 if snap else 0
    fields[Field.ETH_TYPE] = eth_type
    if eth_type == ETH_IPV4:
        _ipv4(frame, headers)
    elif eth_type == ETH_IPV6:
        _ipv6(frame, headers)
    elif eth_type == ETH_ARP:
        _arp(frame, headers)
    return headers


def _arp(frame: bytes, headers: Headers) -> None:
    at = headers.l3
    if len(frame) < at + 28 or frame[at : at + 6] != b"\0\x01\x08\0\x06\x04" or frame[at + 6]:
        return
    headers.fields |= {
        Field.ARP_OP: number(frame, at + 6, 2),
        Field.ARP_SHA: number(frame, at + 8, 6),
        Field.ARP_SPA: number(frame, at + 14, 4),
        Field.ARP_THA: number(frame, at + 18, 6),
        Field.ARP_TPA: number(frame, at + 24, 4),
    }


def _ipv4(frame: bytes, headers: Headers) -> None:
    at = headers.l3
    size = len(frame) - at
    if size < 20:
        return
    header_bytes = (frame[at] & 0x0F) * 4
    total = number(frame, at + 2, 2)
    # ipv4_sanity_check: up to 65,535 bytes of padding are allowed behind the packet.
    if header_bytes < 20 or not header_bytes <= total <= size or size - total > 0xFFFF:
        return
    offset = number(frame, at + 6, 2)
    fragment = 0
    if offset & 0x3FFF:
        fragment = FRAG_ANY | (FRAG_LATER if offset & 0x1FFF else 0)
    headers.fields |= {
        Field.IPV4_SRC: number(frame, at + 12, 4),
        Field.IPV4_DST: number(frame, at + 16, 4),
        Field.IP_TTL: frame[at + 8],
        Field.IP_FRAG: fragment,
    }
    headers.l4, headers.end = at + header_bytes, at + total
    _transport(frame, headers, frame[at + 9])


def _ipv6(frame: bytes, headers: Headers) -> None:
    at = headers.l3
    if len(frame) < at + 40:
        return
    length = number(frame, at + 4, 2)
    end = at + 40 + length
    if end > len(frame) or len(frame) - end > 0xFFFF:
        return
    headers.fields |= {
        Field.IPV6_SRC: number(frame, at + 8, 16),
        Field.IPV6_DST: number(frame, at + 24, 16),
    }
    headers.end = end
    proto, ttl = frame[at + 6], frame[at + 7]
    at += 40
    fragment = 0
    while proto in {_HOP_BY_HOP, _ROUTING, FRAGMENT, _AH, _DESTINATION}:
        if end - at < 8:
            return
        following = frame[at]
        if proto == FRAGMENT:
            headers.fragment = at
            offset = number(frame, at + 2, 2)
            at += 8
            if offset:
                fragment = FRAG_ANY | (FRAG_LATER if offset & 0xFFF8 else 0)
            if fragment & FRAG_LATER:
                break
        elif proto == _AH:
            at += (frame[at + 1] + 2) * 4
        else:
            at += (frame[at + 1] + 1) * 8
        if at > end:
            return
        proto = following
    headers.fields |= {Field.IP_TTL: ttl, Field.IP_FRAG: fragment}
    headers.l4 = at
    _transport(frame, headers, proto)


def _transport(frame: bytes, headers: Headers, proto: int) -> None:
    fields, at = headers.fields, headers.l4
    fields[Field.IP_PROTO] = proto
    size = headers.end - at
    if fields[Field.IP_FRAG] & FRAG_LATER:
        return
    if proto in _PORT_FIELDS:
        least, src, dst = _PORT_FIELDS[proto]
        if size >= least:
            headers.has_l4 = True
            fields[src], fields[dst] = struct.unpack_from(">HH", frame, at)
    elif proto == ICMP and Field.IPV4_SRC in fields and size >= 8:
        headers.has_l4 = True
        fields[Field.ICMP_TYPE], fields[Field.ICMP_CODE] = frame[at], frame[at + 1]
    elif proto == ICMPV6 and Field.IPV6_SRC in fields and size >= 8:
        headers.has_l4 = True
        fields[Field.ICMPV6_TYPE], fields[Field.ICMPV6_CODE] = frame[at], frame[at + 1]
        if frame[at] in {_SOLICITATION, _ADVERTISEMENT} and not frame[at + 1]:
            _neighbor_discovery(frame, headers)


def _neighbor_discovery(frame: bytes, headers: Headers) -> None:
    fields, at = headers.fields, headers.l4
    fields[Field.ND_RESERVED] = number(frame, at + 4, 4)
    fields[Field.ND_OPTIONS_TYPE] = 0
    if headers.end - at < 24:
        return
    found: Fields = {
        Field.ND_TARGET: number(frame, at + 8, 16),
        Field.ND_SLL: 0,
        Field.ND_TLL: 0,
    }
    for option in nd_options(frame, at + 24, headers.end):
        kind = frame[option]
        target = LINK_LAYER.get(kind)
        if target is None or frame[option + 1] != 1:
            continue
        if found[target]:  # the same option twice: nothing of the message counts
            return
        found[target] = number(frame, option + 2, 6)
        found.setdefault(Field.ND_OPTIONS_TYPE, kind)
    headers.nd_option = at + 24 if headers.end - at >= 32 else 0
    fields |= found


def nd_options(data: bytes | bytearray, at: int, end: int) -> Iterator[int]:
    """Where the options of a neighbor discovery message begin, up to the first bad length."""
    while end - at >= 8:
        length = data[at + 1] * 8
        if not length or length > end - at:
            return
        yield at
        at += length

"""From changed fields back to the frame, with its checksums as right, or as wrong, as they were."""

from __future__ import annotations

import struct

from rule_cache.fields import Field
from tests.support.fake_flow import (
    ICMP,
    ICMPV6,
    LINK_LAYER,
    TCP,
    UDP,
    Fields,
    Headers,
    extract,
    nd_options,
    number,
)
from tests.support.packet_parts import with_checksum


def rewrite(frame: bytes, changes: Fields) -> bytes:
    """``frame`` with header fields changed; fields that it does not have are left out."""
    if not changes:
        return frame
    headers = extract(frame)
    writer = _Writer(frame, headers)
    for target, value in changes.items():
        place = _place_of(target, headers)
        if place is not None:
            writer.write(place, value.to_bytes(target.width, "big"), target)
    if headers.nd_option:
        # The address goes into the option that is there after the type of the first was changed.
        for option in nd_options(writer.data, headers.nd_option, headers.end):
            target_or_none = LINK_LAYER.get(writer.data[option])
            if target_or_none is not None and writer.data[option + 1] == 1:
                if target_or_none in changes:
                    address = changes[target_or_none].to_bytes(6, "big")
                    writer.write(option + 2, address, target_or_none)
                break
    if not changes.keys().isdisjoint({Field.ND_RESERVED, Field.ND_OPTIONS_TYPE}):
        writer.renew_icmpv6_checksum()
    return bytes(writer.data)


def _place_of(target: Field, headers: Headers) -> int | None:
    """The byte at which a field stands; None when the frame has no such header."""
    l3, l4 = headers.l3, headers.l4
    fields = headers.fields
    places: dict[Field, int] = {Field.ETH_DST: 0, Field.ETH_SRC: 6}
    if Field.IPV4_SRC in fields:
        places |= {Field.IP_TTL: l3 + 8, Field.IPV4_SRC: l3 + 12, Field.IPV4_DST: l3 + 16}
    if Field.IPV6_SRC in fields:
        places |= {Field.IP_TTL: l3 + 7, Field.IPV6_SRC: l3 + 8, Field.IPV6_DST: l3 + 24}
    if Field.ARP_OP in fields:
        places |= {
            Field.ARP_OP: l3 + 6,
            Field.ARP_SHA: l3 + 8,
            Field.ARP_SPA: l3 + 14,
            Field.ARP_THA: l3 + 18,
            Field.ARP_TPA: l3 + 24,
        }
    if headers.has_l4:
        for first, second, step in (
            (Field.TCP_SRC, Field.TCP_DST, 2),
            (Field.UDP_SRC, Field.UDP_DST, 2),
            (Field.ICMP_TYPE, Field.ICMP_CODE, 1),
            (Field.ICMPV6_TYPE, Field.ICMPV6_CODE, 1),
        ):
            if first in fields:
                places |= {first: l4, second: l4 + step}
    if Field.ND_RESERVED in fields:
        places[Field.ND_RESERVED] = l4 + 4
    if Field.ND_TARGET in fields:
        places[Field.ND_TARGET] = l4 + 8
    if headers.nd_option:
        places[Field.ND_OPTIONS_TYPE] = headers.nd_option
    return places.get(target)


class _Writer:
    """Changes bytes of a frame together with the checksums that cover them (RFC 1624)."""

    def __init__(self, frame: bytes, headers: Headers) -> None:
        self.data = bytearray(frame)
        self._headers = headers

    def write(self, at: int, new: bytes, target: Field) -> None:
        first, last = at & ~1, (at + len(new) + 1) & ~1
        before = bytes(self.data[first:last])
        self.data[at : at + len(new)] = new
        after = bytes(self.data[first:last])
        for place in self._checksums(target):
            self._update(place, before, after)

    def renew_icmpv6_checksum(self) -> None:
        """Make it right even if it was not: so OVS does when it writes these fields (observed)."""
        headers = self._headers
        if Field.ND_RESERVED not in headers.fields:
            return
        start, l3 = headers.l4, headers.l3
        message = (
            bytes(self.data[start : start + 2]) + bytes(2) + self.data[start + 4 : headers.end]
        )
        pseudo = self.data[l3 + 8 : l3 + 40] + struct.pack(">II", len(message), ICMPV6)
        self.data[start : headers.end] = with_checksum(message, at=2, pseudo=bytes(pseudo))

    def _checksums(self, target: Field) -> list[int]:
        fields, l3, l4 = self._headers.fields, self._headers.l3, self._headers.l4
        found = []
        if Field.IPV4_SRC in fields and target in {Field.IPV4_SRC, Field.IPV4_DST, Field.IP_TTL}:
            found.append(l3 + 10)
        if not self._headers.has_l4 or target in {Field.ETH_SRC, Field.ETH_DST, Field.IP_TTL}:
            return found
        proto = fields[Field.IP_PROTO]
        if proto == TCP:
            found.append(l4 + 16)
        elif proto == UDP and self.data[l4 + 6 : l4 + 8] != b"\0\0":
            found.append(l4 + 6)
        elif proto == ICMPV6 or (proto == ICMP and target in {Field.ICMP_TYPE, Field.ICMP_CODE}):
            found.append(l4 + 2)
        return found

    def _update(self, place: int, before: bytes, after: bytes) -> None:
        total = ~number(self.data, place, 2) & 0xFFFF
        for at in range(0, len(before), 2):
            total += (~number(before, at, 2) & 0xFFFF) + number(after, at, 2)
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        total ^= 0xFFFF
        is_udp = self._headers.fields.get(Field.IP_PROTO) == UDP and place == self._headers.l4 + 6
        if is_udp and not total:
            total = 0xFFFF
        self.data[place : place + 2] = total.to_bytes(2, "big")

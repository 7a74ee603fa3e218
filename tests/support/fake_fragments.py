"""Fragments at ``ct()``: held until the datagram is whole, then all released (ipf of Open vSwitch).

They stay fragments; only what connection tracking sees is the datagram in one piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rule_cache.fields import FRAG_ANY, Field
from tests.support.fake_flow import Headers, extract, number
from tests.support.packet_parts import with_checksum

#: A fragment that is not the last must be at least so long, from its IP header on (bytes).
MIN_FRAGMENT: Final = {4: 1200, 6: 1280}
#: An incomplete datagram is given up after so many seconds.
REASSEMBLY_S: Final = 15.0

#: Zone, table of the rule, family, source, destination, protocol, identification.
_AUTHENTICATION = 51
_Key = tuple[int, int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Fragment:
    frame: bytes
    offset: int
    data: bytes
    is_last: bool


@dataclass(frozen=True, slots=True)
class Datagram:
    """``fragments`` in order of their offset, and ``whole``, a frame that carries all of it."""

    fragments: tuple[bytes, ...]
    whole: bytes


def is_fragment(headers: Headers) -> bool:
    return bool(headers.fields.get(Field.IP_FRAG, 0) & FRAG_ANY)


class Reassembly:
    """Fragments that wait, per zone and place in the pipeline."""

    def __init__(self) -> None:
        self._waiting: dict[_Key, list[_Fragment]] = {}
        self._since_s: dict[_Key, float] = {}

    def offer(self, zone: int, table: int, frame: bytes, now_s: float) -> Datagram | None:
        """The datagram that this fragment completes; None while others are missing."""
        headers = extract(frame)
        key, fragment = _read(zone, table, frame, headers)
        parts = self._waiting.setdefault(key, [])
        self._since_s.setdefault(key, now_s)
        if fragment.offset not in [part.offset for part in parts]:
            parts.append(fragment)
        parts.sort(key=lambda part: part.offset)
        data = b""
        for part in parts:
            if part.offset != len(data):
                return None
            data += part.data
        if not parts[-1].is_last:
            return None
        del self._waiting[key], self._since_s[key]
        return Datagram(tuple(part.frame for part in parts), _whole(parts[0].frame, data))

    def take_expired(self, now_s: float) -> list[bytes]:
        """Fragments whose datagram was not complete in time; they wait no longer."""
        expired = [key for key, since in self._since_s.items() if now_s - since >= REASSEMBLY_S]
        frames = []
        for key in expired:
            frames += [part.frame for part in self._waiting[key]]
            del self._waiting[key], self._since_s[key]
        return frames

    def clear(self) -> None:
        self._waiting.clear()
        self._since_s.clear()


def is_too_short(frame: bytes, headers: Headers) -> bool:
    """Such a fragment is invalid to connection tracking and is not held."""
    v4 = Field.IPV4_SRC in headers.fields
    _, fragment = _read(0, 0, frame, headers)
    return not fragment.is_last and headers.end - headers.l3 < MIN_FRAGMENT[4 if v4 else 6]


def _read(zone: int, table: int, frame: bytes, headers: Headers) -> tuple[_Key, _Fragment]:
    fields, l3 = headers.fields, headers.l3
    data = frame[headers.l4 : headers.end]
    if Field.IPV4_SRC in fields:
        word = number(frame, l3 + 6, 2)
        addresses = fields[Field.IPV4_SRC], fields[Field.IPV4_DST]
        key = (zone, table, 4, *addresses, frame[l3 + 9], number(frame, l3 + 4, 2))
        return key, _Fragment(frame, (word & 0x1FFF) * 8, data, is_last=not word & 0x2000)
    at = headers.fragment
    word = number(frame, at + 2, 2)
    addresses = fields[Field.IPV6_SRC], fields[Field.IPV6_DST]
    key = (zone, table, 6, *addresses, frame[at], number(frame, at + 4, 4))
    # What stands between the fragment header and the transport is part of the fragment's data.
    data = frame[at + 8 : headers.end]
    return key, _Fragment(frame, word & 0xFFF8, data, is_last=not word & 1)


def _whole(first: bytes, data: bytes) -> bytes:
    """The first fragment's headers, in front of all the data, without the marks of a fragment."""
    headers = extract(first)
    l3 = headers.l3
    if Field.IPV4_SRC in headers.fields:
        header = bytearray(first[l3 : headers.l4])
        header[2:4] = (len(header) + len(data)).to_bytes(2, "big")
        header[6:8] = b"\0\0"
        header[10:12] = b"\0\0"
        return first[:l3] + with_checksum(bytes(header), at=10) + data
    at = headers.fragment
    front = bytearray(first[:at])
    # The header before the fragment header names what followed it.
    previous = l3 + 6
    place = l3 + 40
    while place != at:
        # RFC 4302 section 2.2: an authentication header counts in units of 4 bytes, and without 2.
        is_authentication = first[previous] == _AUTHENTICATION
        previous = place
        length = first[place + 1]
        place += (length + 2) * 4 if is_authentication else (length + 1) * 8
    front[previous] = first[at]
    front[l3 + 4 : l3 + 6] = (at - l3 - 40 + len(data)).to_bytes(2, "big")
    return bytes(front) + data

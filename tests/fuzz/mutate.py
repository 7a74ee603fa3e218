"""Hostile frames from good ones: deterministic for a seed, aware of where headers are."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tests.fuzz.layout import Layout, layout_of
from tests.support.packet_parts import (
    Extension,
    authentication_header,
    destination_options,
    fragment_header,
    hop_by_hop,
    routing_header,
)

#: Bounds of fields, and what lies beside them.
WORDS = (0, 1, 5, 7, 8, 9, 11, 12, 19, 20, 21, 39, 40, 41, 59, 60, 1280, 1500, 32767, 65528, 65535)
OCTETS = (0, 1, 2, 4, 5, 6, 8, 15, 16, 17, 43, 44, 47, 50, 51, 58, 59, 60, 0x45, 0x4F, 0x60, 127,
          128, 132, 133, 134, 135, 136, 137, 143, 254, 255)  # fmt: skip
ETHERTYPES = (
    0x0800,
    0x0806,
    0x86DD,
    0x8100,
    0x88A8,
    0x8035,
    0x8847,
    0x88CC,
    0x0000,
    0x05DC,
    0x0600,
)
MAX_FRAME = 65535

Change = Callable[["Mutator", bytearray], None]


class Mutator:
    """Endless hostile frames. The same seed and the same good frames give the same ones."""

    def __init__(self, seed: int, good: Sequence[bytes]) -> None:
        self.random = random.Random(seed)
        self.good = list(good)

    def frame(self) -> bytes:
        chance = self.random.random
        data = bytearray(self.good[int(chance() * len(self.good))])
        for _ in range(1 + int(chance() ** 2 * 5)):
            _CHANGES[int(chance() * len(_CHANGES))](self, data)
        if chance() < 0.3:
            repair(data)
        return bytes(data[:MAX_FRAME])

    def below(self, bound: int) -> int:
        return int(self.random.random() * bound) if bound > 0 else 0

    def pick(self, values: Sequence[int]) -> int:
        return values[self.below(len(values))]

    def place(self, data: bytearray) -> int:
        """An offset, in the headers most of the time."""
        return self.below(min(len(data), 96) if self.random.random() < 0.9 else len(data))


def repair(data: bytearray) -> None:
    """Make the lengths of IP and UDP true again, so that what lies behind them is looked at."""
    place = layout_of(data)
    payload = len(data) - place.l3
    if place.family == 4 and payload >= 20:
        data[place.l3 + 2 : place.l3 + 4] = min(payload, 65535).to_bytes(2, "big")
    elif place.family == 6 and payload >= 40:
        data[place.l3 + 4 : place.l3 + 6] = min(payload - 40, 65535).to_bytes(2, "big")
    is_whole = payload >= 20 and bool(place.next_headers) and len(data) >= place.l4 + 8
    if is_whole and data[place.next_headers[-1]] == 17:
        data[place.l4 + 4 : place.l4 + 6] = min(len(data) - place.l4, 65535).to_bytes(2, "big")


# -- changes anywhere ------------------------------------------------------------------------------


def _flip_bit(chance: Mutator, data: bytearray) -> None:
    if data:
        data[chance.place(data)] ^= 1 << chance.below(8)


def _set_octet(chance: Mutator, data: bytearray) -> None:
    if data:
        data[chance.place(data)] = chance.pick(OCTETS)


def _set_word(chance: Mutator, data: bytearray) -> None:
    if len(data) > 2:
        at = chance.place(data) & ~1
        data[at : at + 2] = chance.pick(WORDS).to_bytes(2, "big")


def _cut(chance: Mutator, data: bytearray) -> None:
    del data[chance.place(data) :]


def _cut_tail(chance: Mutator, data: bytearray) -> None:
    del data[max(0, len(data) - 1 - chance.below(24)) :]


def _continue(chance: Mutator, data: bytearray) -> None:
    data += chance.random.randbytes(1 + chance.below(40))


def _leave_out(chance: Mutator, data: bytearray) -> None:
    at = chance.place(data)
    del data[at : at + 1 + chance.below(16)]


def _repeat(chance: Mutator, data: bytearray) -> None:
    at = chance.place(data)
    piece = data[at : at + 1 + chance.below(40)]
    data[at:at] = piece * (1 + chance.below(4))


def _splice(chance: Mutator, data: bytearray) -> None:
    """The head of this frame and the tail of another, cut at a header most of the time."""
    other = chance.good[chance.below(len(chance.good))]
    if chance.random.random() < 0.7:
        mine, its = layout_of(data), layout_of(other)
        data[mine.l4 :] = other[its.l4 if chance.below(2) else its.l3 :]
    else:
        data[chance.place(data) :] = other[chance.below(len(other)) :]


def _swell(chance: Mutator, data: bytearray) -> None:
    """Rarely, for it is slow: as much behind the headers as a frame can hold."""
    if chance.random.random() < 0.01:
        data += bytes(MAX_FRAME - len(data) - chance.below(3))
        repair(data)


# -- changes of a field ----------------------------------------------------------------------------


def _set_ethertype(chance: Mutator, data: bytearray) -> None:
    at = layout_of(data).ethertype
    data[at : at + 2] = chance.pick(ETHERTYPES).to_bytes(2, "big")


def _tag(chance: Mutator, data: bytearray) -> None:
    tag = (0x8100 if chance.below(3) else 0x88A8) << 16 | chance.pick(WORDS)
    data[12:12] = tag.to_bytes(4, "big")


def _set_length(chance: Mutator, data: bytearray) -> None:
    """Of the IP packet, the UDP datagram, or the IPv4 or TCP header."""
    place = layout_of(data)
    which = chance.below(4)
    if which == 0 or not place.family:
        at = place.l3 + (2 if place.family == 4 else 4)
        wanted = len(data) - place.l3 + chance.below(9) - 4
        value = chance.pick(WORDS) if chance.below(2) else max(0, wanted) & 0xFFFF
        data[at : at + 2] = value.to_bytes(2, "big")
    elif which == 1:
        data[place.l4 + 4 : place.l4 + 6] = chance.pick(WORDS).to_bytes(2, "big")
    elif which == 2 and place.l3 < len(data):
        data[place.l3] = data[place.l3] & 0xF0 | chance.below(16)
    elif place.l4 + 12 < len(data):
        data[place.l4 + 12] = chance.below(16) << 4


def _set_protocol(chance: Mutator, data: bytearray) -> None:
    places = [at for at in layout_of(data).next_headers if at < len(data)]
    if places:
        data[chance.pick(places)] = chance.pick(OCTETS)


def _set_type(chance: Mutator, data: bytearray) -> None:
    """ICMP type and code, or the upper halves of ports; the hop limit that neighbors need."""
    place = layout_of(data)
    if place.l4 + 1 < len(data) and place.l4 > place.l3:
        data[place.l4 + chance.below(2)] = chance.pick(OCTETS)
        if place.family == 6:
            data[place.l3 + 7] = chance.pick((255, 255, 254, 64))


def _set_fragment(chance: Mutator, data: bytearray) -> None:
    place = layout_of(data)
    offset = chance.pick((0, 8, 16, 24, 64, 1480, 65512, 65528))
    more = chance.below(2)
    if place.family == 4:
        data[place.l3 + 6 : place.l3 + 8] = (offset // 8 | more << 13).to_bytes(2, "big")
    elif place.family == 6:
        header = fragment_header(offset=offset, more_fragments=bool(more))
        _insert(data, place, [header])


def _add_extensions(chance: Mutator, data: bytearray) -> None:
    place = layout_of(data)
    if place.family == 6:
        chain = [_EXTENSIONS[chance.below(len(_EXTENSIONS))] for _ in range(1 + chance.below(10))]
        _insert(data, place, chain)


_EXTENSIONS = (
    hop_by_hop(), destination_options(), destination_options(24), routing_header(),
    authentication_header(), authentication_header(b""), fragment_header(), fragment_header(offset=8),
    Extension(43, bytes((0, 0, 1)) + bytes(4)), Extension(51, bytes(7)), Extension(60, b"\xff" + bytes(6)),
    Extension(50, bytes(7)), Extension(135, bytes(7)),
)  # fmt: skip


def _insert(data: bytearray, place: Layout, chain: Sequence[Extension]) -> None:
    """Put extension headers right behind the IPv6 header."""
    following, body = data[place.l3 + 6], b""
    for extension in reversed(chain):
        body = bytes((following,)) + extension.rest + body
        following = extension.number
    data[place.l3 + 6] = following
    data[place.l3 + 40 : place.l3 + 40] = body
    repair(data)


def _set_option(chance: Mutator, data: bytearray) -> None:
    """Type or length of an option of neighbor discovery."""
    place = layout_of(data)
    at = place.l4 + chance.pick((8, 16, 24, 32, 40)) + chance.below(2)
    if at < len(data):
        data[at] = chance.pick((0, 1, 1, 2, 2, 3, 14, 255))


def _swap_ends(chance: Mutator, data: bytearray) -> None:
    place = layout_of(data)
    at, size = (place.l3 + 12, 4) if place.family == 4 else (place.l3 + 8, 16)
    if place.family:
        data[at : at + 2 * size] = data[at + size : at + 2 * size] + data[at : at + size]
    if chance.below(2):
        data[0:12] = data[6:12] + data[0:6]


def _take_addresses(chance: Mutator, data: bytearray) -> None:
    """MACs, or MACs and IP addresses, of another frame: spoofing."""
    other = chance.good[chance.below(len(chance.good))]
    first = chance.pick((0, 6))
    data[first:12] = other[first:12]
    mine, its = layout_of(data), layout_of(other)
    if mine.family == its.family and chance.below(2):
        at, size = (12, 8) if mine.family == 4 else (8, 32)
        data[mine.l3 + at : mine.l3 + at + size] = other[its.l3 + at : its.l3 + at + size]


_CHANGES: tuple[Change, ...] = (
    _flip_bit, _flip_bit, _set_octet, _set_octet, _set_word, _cut, _cut_tail, _continue, _leave_out,
    _repeat, _splice, _swell, _set_ethertype, _tag, _set_length, _set_length, _set_protocol, _set_type,
    _set_fragment, _add_extensions, _set_option, _swap_ends, _take_addresses,
)  # fmt: skip

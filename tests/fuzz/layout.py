"""Where the headers of a frame are, told without any check: for changes that aim at a field."""

from __future__ import annotations

from dataclasses import dataclass

_EXTENSIONS = frozenset((0, 43, 44, 51, 60))


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte offsets; a frame may end before any of them.

    ``next_headers`` are where IP says what follows: the protocol, and that of each IPv6 extension.
    """

    ethertype: int
    l3: int
    l4: int
    family: int
    next_headers: tuple[int, ...]


def layout_of(frame: bytes | bytearray) -> Layout:
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    ethertype, l3 = frame[at : at + 2], at + 2
    if ethertype == b"\x08\x00" and len(frame) > l3:
        return Layout(at, l3, l3 + (frame[l3] & 15) * 4, 4, (l3 + 9,))
    if ethertype == b"\x86\xdd" and len(frame) >= l3 + 40:
        places, following = [l3 + 6], l3 + 40
        while frame[places[-1]] in _EXTENSIONS and following + 8 <= len(frame) and len(places) < 12:
            kind, size = frame[places[-1]], frame[following + 1]
            places.append(following)
            following += 8 if kind == 44 else (size + 2) * 4 if kind == 51 else (size + 1) * 8
        return Layout(at, l3, following, 6, tuple(places))
    return Layout(at, l3, l3, 0, ())

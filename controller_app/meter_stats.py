"""The switch's meters: which there are, and what each has let through and dropped.

Wire formats: OpenFlow 1.3.5 sections 7.3.5.10 (statistics) and 7.3.5.11 (configuration).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from controller_app.decode import MalformedMessage
from controller_app.flow_mod import VERSION

_MULTIPART_REQUEST: Final = 18
_STATISTICS, _CONFIGURATION = 9, 10
_ALL_METERS: Final = 0xFFFFFFFF
_MORE: Final = 0x0001
_BODY: Final = 16

# Header, type, flags; meter and padding.
_pack_request = struct.Struct(">BBHIHH4xI4x").pack
_read_multipart = struct.Struct(">HH").unpack_from
# Length, flags, meter.
_read_configuration = struct.Struct(">HHI").unpack_from
# Meter, length, flows, packets, bytes.
_read_statistics = struct.Struct(">IH6xIQQ").unpack_from
_STATISTICS_BYTES: Final = 40
_BAND_BYTES: Final = 16
_read_band = struct.Struct(">Q").unpack_from


@dataclass(frozen=True, slots=True)
class Metered:
    """What came to a meter, and what of it was dropped: packets since the meter was made."""

    packets: int
    dropped: int


def meters_request(xid: int) -> bytes:
    """Ask which meters there are."""
    return _pack_request(VERSION, _MULTIPART_REQUEST, 24, xid, _CONFIGURATION, 0, _ALL_METERS)


def meter_stats_request(xid: int) -> bytes:
    """Ask what each meter has seen."""
    return _pack_request(VERSION, _MULTIPART_REQUEST, 24, xid, _STATISTICS, 0, _ALL_METERS)


def meters_reply(message: bytes) -> tuple[list[int], bool]:
    """The meters that a reply tells of, and whether more replies follow.

    Raises:
        MalformedMessage: it breaks the format.
    """
    more = _more(message, _CONFIGURATION)
    entries = _entries(message, lambda at: _read_configuration(message, at)[0], 8)
    return [_read_configuration(message, at)[2] for at in entries], more


def meter_stats_reply(message: bytes) -> tuple[dict[int, Metered], bool]:
    """What the meters that a reply tells of have seen, and whether more replies follow.

    Raises:
        MalformedMessage: it breaks the format.
    """
    more = _more(message, _STATISTICS)
    found = {}
    for at in _entries(message, lambda at: _read_statistics(message, at)[1], _STATISTICS_BYTES):
        meter, length, _, packets, _ = _read_statistics(message, at)
        bands = range(at + _STATISTICS_BYTES, at + length - _BAND_BYTES + 1, _BAND_BYTES)
        found[meter] = Metered(packets, sum(_read_band(message, band)[0] for band in bands))
    return found, more


def _more(message: bytes, kind: int) -> bool:
    if len(message) < _BODY:
        raise MalformedMessage(f"a multipart reply of {len(message)} bytes")
    found, flags = _read_multipart(message, 8)
    if found != kind:
        raise MalformedMessage(f"a multipart reply of type {found} instead of {kind}")
    return bool(flags & _MORE)


def _entries(message: bytes, length_at: Callable[[int], int], least: int) -> Iterator[int]:
    """Where the entries begin, each with its own length, none shorter than ``least``."""
    at = _BODY
    while at < len(message):
        if len(message) - at < least:
            raise MalformedMessage("a meter that ends behind its message")
        length = length_at(at)
        if length < least or at + length > len(message):
            raise MalformedMessage(f"a meter of {length} bytes")
        yield at
        at += length

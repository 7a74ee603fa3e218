"""Ask Open vSwitch for its rules, and walk through the answer.

The answer to one request is many messages, each but the last with the flag "more", and each with some
hundreds of entries. Walking costs one ``struct`` call per entry, so that a caller can leave out the rules
of others by their cookie; ``rule_reader`` makes a rule of an entry.

Wire formats: OpenFlow 1.3.5 sections 7.3.5 (multipart) and 7.3.5.2 (flow statistics).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from controller_app.decode import MalformedMessage
from controller_app.flow_mod import ANY, VERSION

_MULTIPART_REQUEST: Final = 18
MULTIPART_REPLY: Final = 19
#: The first two bytes of a message, version and type, as ``decode.split`` gives them.
MULTIPART_REPLY_HEAD: Final = VERSION << 8 | MULTIPART_REPLY

#: An entry up to its match, and the least that an entry has: with an empty match.
BEFORE_MATCH_BYTES: Final = 48
LEAST_ENTRY_BYTES: Final = BEFORE_MATCH_BYTES + 8

_FLOW: Final = 1
_MORE: Final = 0x0001
_ALL_TABLES: Final = 0xFF
_MULTIPART_BYTES: Final = 16

# Header, type and flags; table, port, group, cookie and mask; a match of type OXM without fields.
_pack_request = struct.Struct(">BBHIHH4xB3xII4xQQHH4x").pack
# Xid, type, flags.
_read_multipart = struct.Struct(">4xIHH").unpack_from
# Length, table, cookie.
_read_entry = struct.Struct(">HB21xQ").unpack_from


def flow_stats_request(xid: int, cookie: int, cookie_mask: int, table: int = _ALL_TABLES) -> bytes:
    """Ask for the rules of a table, or of all, whose cookie equals ``cookie`` where the mask has ones.

    ``xid`` has 32 bits, the others 64. A rule that is added while the switch answers may be missing.
    """
    return _pack_request(
        VERSION,
        _MULTIPART_REQUEST,
        56,
        xid,
        _FLOW,
        0,
        table,
        ANY,
        ANY,
        cookie,
        cookie_mask,
        1,
        4,
    )


def flow_stats_reply(buf: bytes, start: int, end: int) -> tuple[int, bool] | None:
    """Xid of the multipart reply at ``buf[start:end]``, and whether more messages of it follow.

    None when it answers another question than ``flow_stats_request``.

    Raises:
        MalformedMessage: it is too short.
    """
    if end - start < _MULTIPART_BYTES or end > len(buf):
        raise MalformedMessage(f"a multipart reply of {end - start} bytes")
    xid, kind, flags = _read_multipart(buf, start)
    return (xid, flags & _MORE != 0) if kind == _FLOW else None


def flow_entries(buf: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The entries of the reply at ``buf[start:end]``: cookie, table, where it starts, where it ends.

    Raises:
        MalformedMessage: after the good ones, at an entry that is shorter than an entry can be, not
            padded to 8 bytes, or longer than what is left of its message.
    """
    at = start + _MULTIPART_BYTES
    if end > len(buf):
        raise MalformedMessage(f"flow statistics of {end - start} bytes, cut to {len(buf) - start}")
    while at + LEAST_ENTRY_BYTES <= end:
        length, table, cookie = _read_entry(buf, at)
        entry_end = at + length
        if length < LEAST_ENTRY_BYTES or length & 7 or entry_end > end:
            raise MalformedMessage(
                f"flow statistics with an entry of {length} bytes, {end - at} are left"
            )
        yield cookie, table, at, entry_end
        at = entry_end
    if at != end:
        raise MalformedMessage(f"flow statistics with {end - at} bytes behind their last entry")

"""Flow statistics as bytes: what a switch would answer that keeps each flow-mod as it came."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tests.support.packet_in_bytes import message

MULTIPART_REPLY = 19
#: Length of an entry up to its match, and of a flow-mod.
BEFORE_MATCH = 48
#: Bytes of an entry that say nothing of the rule: duration, cookie, counters. The timeouts do.
MOVING = (*range(4, 12), *range(24, 48))


def entry_of(flow_mod: bytes, *, age_s: int = 7, packets: int = 3) -> bytes:
    """The entry of the rule that a flow-mod adds, from "match" on the very same bytes."""
    cookie, table, idle, hard, priority, flags = struct.unpack_from(">8xQ8xBxHHH12xH", flow_mod, 0)
    rest = flow_mod[BEFORE_MATCH:]
    head = struct.pack(
        *(">HBxIIHHHH4xQQQ", BEFORE_MATCH + len(rest), table, age_s, 500, priority),
        *(idle, hard, flags, cookie, packets, packets * 60),
    )
    return head + rest


def reply(entries: Sequence[bytes], *, more: bool = False, xid: int = 1, kind: int = 1) -> bytes:
    """One multipart reply."""
    return message(
        MULTIPART_REPLY, struct.pack(">HH4x", kind, int(more)) + b"".join(entries), xid=xid
    )


def oxms_of(entry: bytes) -> list[bytes]:
    """The matched fields, each with its header."""
    (length,) = struct.unpack_from(">H", entry, BEFORE_MATCH + 2)
    at, end = BEFORE_MATCH + 4, BEFORE_MATCH + length
    found = []
    while at < end:
        size = 4 + entry[at + 3]
        found.append(entry[at : at + size])
        at += size
    return found


def with_oxms(entry: bytes, oxms: Sequence[bytes]) -> bytes:
    """The same entry with another match."""
    (old,) = struct.unpack_from(">H", entry, BEFORE_MATCH + 2)
    instructions = entry[BEFORE_MATCH + (old + 7 & ~7) :]
    fields = b"".join(oxms)
    length = 4 + len(fields)
    match = struct.pack(">HH", 1, length) + fields + bytes(-length % 8)
    size = BEFORE_MATCH + len(match) + len(instructions)
    return size.to_bytes(2, "big") + entry[2:BEFORE_MATCH] + match + instructions

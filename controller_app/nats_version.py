"""Which version a slice has, in a message of its own, so that who holds that version needs no more.

A reader that holds a version asks for this message (``S.ver.<slice>``, some 20 bytes) instead of the last
commit, which may be the whole slice. It believes one thing only: *equal to what I hold* means that there is
no newer commit. Whatever else stands there, or nothing, or what cannot be read, it looks at the last commit.

What the publisher does, so that this is true:

1. It reads the slice, and when something is to be written, then this message. When both name the same
   version, the slice was at that version when this message was read. Otherwise it reads the slice again.
   So it always knows a last commit that is no older than what it read here. (What it wrote here itself,
   before it read the slice, counts as read.)
2. It writes here the version that its commit will have, and the server takes that only if nobody wrote
   here since it was read. Who comes second reads all again.
3. Then it writes the commit, which the server takes only if it follows the last one.

Why nothing newer than V can be there while V stands here and somebody holds V, so that a commit V was stored:
the commit after V is of a publisher that wrote here after V was stored. For V to stand here, somebody wrote
V after that, who had read here later still, and so looked at the slice when it was at V already; but he
writes more than what he saw. Without step 1 that would fail: one who saw the slice long ago and read here
late could write V again after a newer commit.

Who dies between 2 and 3 leaves a number that no commit has: readers look at the last commit until the next
change of the slice. Nobody may take it back: the commit may still be on its way. For the same reason a
commit that folds (it changes no version) writes nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """The slice's name is in it, so that a message that stands elsewhere is known as foreign."""

    slice: str
    version: Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]


@dataclass(frozen=True, slots=True)
class Announced:
    """What was read.

    Attributes:
        sequence: of the message; 0 when there is none.
        version: 0 when there is none that can be read.
    """

    sequence: int
    version: int


#: Of a slice that was never written.
NEVER: Final = Announced(0, 0)

_messages = msgspec.msgpack.Decoder(_Message)
_encoder = msgspec.msgpack.Encoder()


def encode_version(name: str, version: int) -> bytes:
    return _encoder.encode(_Message(name, version))


def decode_version(name: str, data: bytes) -> int:
    """The version of the slice ``name``; 0 when these bytes do not tell it."""
    try:
        message = _messages.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 0
    return message.version if message.slice == name else 0

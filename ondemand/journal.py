"""Holdings as a journal: the bytes of what a slice cache has written down, and how to read them back.

A journal is a header and batches (see ``holdings``), each of which is one *frame*::

    4 bytes  length of the body          big-endian
    4 bytes  CRC-32 of the body
    4 bytes  CRC-32 of the 8 bytes before
    body     msgpack

A process that is killed leaves the bytes that it handed to write(2), so only the last frame can be
incomplete; it counts as never written. Anything else that does not fit is damage, which makes the
whole journal unusable. The length has a checksum of its own, or damage to it would look like a last
frame that is incomplete.

Bodies are arrays whose first item is a small number for the type. A field may be added at the end,
with a default, and a type with a new number needs a new ``FORMAT``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

import msgspec

from ondemand.holdings import Holdings, Identity, Write

#: The first item of the header, so that no other file is taken for a journal.
MAGIC = "ondemand holdings"
#: A change that an older release would misread gets a new number.
FORMAT = 1

_FRAME = struct.Struct(">III")
_HEAD = struct.Struct(">II")
_CRC = struct.Struct(">I")


class HoldingsError(Exception):
    """A journal cannot be used. The message names the file, the reason and the mend."""


class _Header(msgspec.Struct, frozen=True, gc=False, array_like=True):
    magic: str
    format: int
    host: str
    source: str


_ENCODER = msgspec.msgpack.Encoder()
_HEADER_DECODER = msgspec.msgpack.Decoder(_Header)
_BATCH_DECODER = msgspec.msgpack.Decoder(list[Write])


def _frame(body: bytes) -> bytes:
    head = _HEAD.pack(len(body), zlib.crc32(body))
    return b"".join((head, _CRC.pack(zlib.crc32(head)), body))


def encode_header(identity: Identity) -> bytes:
    """The frame that a journal begins with."""
    return _frame(_ENCODER.encode(_Header(MAGIC, FORMAT, identity.host, identity.source)))


def encode_batch(writes: Sequence[Write]) -> bytes:
    """The frame of one batch."""
    return _frame(_ENCODER.encode(writes))


def read_frames(data: bytes, name: str) -> Iterator[tuple[memoryview, int]]:
    """Bodies of the frames, each with the offset behind it, up to an incomplete last one.

    HoldingsError, which calls the journal ``name``, at the first frame that is damaged.
    """
    view = memoryview(data)
    at, end = 0, len(data)
    while end - at >= _FRAME.size:
        length, body_crc, head_crc = _FRAME.unpack_from(view, at)
        if zlib.crc32(view[at : at + _HEAD.size]) != head_crc:
            raise _unusable(name, f"it is damaged at byte {at}")
        start = at + _FRAME.size
        if end - start < length:
            return
        body = view[start : start + length]
        if zlib.crc32(body) != body_crc:
            raise _unusable(name, f"it is damaged between bytes {start} and {start + length}")
        at = start + length
        yield body, at


def read_batch(body: memoryview, name: str) -> list[Write]:
    """The batch in a frame's body."""
    try:
        return _BATCH_DECODER.decode(body)
    except msgspec.DecodeError as error:
        raise _unusable(name, f"it has a batch that cannot be read ({error})") from error


def read_header(body: memoryview, name: str) -> Identity:
    """Whose journal it is, from the body of its first frame."""
    try:
        header = _HEADER_DECODER.decode(body)
    except msgspec.DecodeError as error:
        raise _unusable(name, "it is no journal of holdings") from error
    if header.magic != MAGIC:
        raise _unusable(name, "it is no journal of holdings")
    if header.format != FORMAT:
        raise _unusable(name, f"it is of format {header.format}, and this release reads {FORMAT}")
    return Identity(header.host, header.source)


def replay(data: bytes, name: str) -> tuple[Holdings, int]:
    """The state that a journal leads to, and the bytes of it that are whole frames.

    HoldingsError, which calls the journal ``name``, when it is damaged or is none.
    """
    frames = read_frames(data, name)
    first = next(frames, None)
    if first is None:
        raise _unusable(name, "it has no header")
    body, end = first
    holdings = Holdings(read_header(body, name))
    for body, end in frames:  # noqa: B007 - the last offset is the answer
        holdings.apply(read_batch(body, name))
    return holdings, end


def check_identity(found: Identity, host: str, source: str | None, name: str) -> None:
    """HoldingsError unless the holdings are of this host and of this store.

    ``source`` None: the store does not answer, so which one it is must be compared when it does. A
    store without an identity cannot be told from another, so nothing is taken over from it.
    """
    if found.host != host:
        raise _unusable(name, f"it is of host {found.host!r}, and this one is {host!r}")
    if not found.source or (source is not None and found.source != source):
        raise _unusable(name, "it is of another slice store")


def _unusable(name: str, reason: str) -> HoldingsError:
    return HoldingsError(
        f"saved holdings {name} are not used: {reason}; slices are read anew, nothing else is needed"
    )


__all__ = [
    "HoldingsError",
    "check_identity",
    "encode_batch",
    "encode_header",
    "read_batch",
    "read_frames",
    "read_header",
    "replay",
]

"""The message of the push: all that a host holds, whole slices or the records it uses of a shard.

A msgpack array of entries (slice, version, records), where ``records`` is a msgpack map of its own, so
that who sends joins pieces that were encoded once, and who receives leaves a slice alone that it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgpack
import msgspec

#: Of the gRPC method; its request is the number of the host as text.
METHOD: Final = "/ondemand.Push/Follow"
SERVICE: Final = "ondemand.Push"
CALL: Final = "Follow"

_entries = msgspec.msgpack.Decoder(list[tuple[str, int, bytes]])
_records = msgspec.msgpack.Decoder(dict[str, bytes])
_encoder = msgspec.msgpack.Encoder()


def encode_entry(name: str, version: int, records: Mapping[str, bytes]) -> bytes:
    return _encoder.encode((name, version, _encoder.encode(records)))


def join_entries(entries: Sequence[bytes]) -> bytes:
    head: bytes = msgpack.Packer().pack_array_header(len(entries))
    return b"".join((head, *entries))


def decode_entries(message: bytes) -> list[tuple[str, int, bytes]]:
    return _entries.decode(message)


def decode_records(data: bytes) -> dict[str, bytes]:
    return _records.decode(data)

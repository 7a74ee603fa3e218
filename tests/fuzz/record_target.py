"""Slice records: any payload gives a record that is sound, or RecordError."""

from __future__ import annotations

import re
from typing import Any

import msgpack

from ondemand.codec import RecordError, decode_record, encode_record
from tests.fuzz.kept import Kept, load
from tests.fuzz.mutate import Mutator
from tests.fuzz.target import without_values
from tests.support.office_cloud import office

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 4, 6, 32, 33, 128, 129, 255, 256, 65535, 65536, -(2**63), 2**64 - 1,
    1.5, float("nan"), float("inf"), "", "a", "a/b", "ip", "\0", "é" * 40, "x" * 70, b"", bytes(4),
    bytes(6), bytes(16), b"\xff" * 4, b"\xff" * 6, b"\xff" * 16, bytes(5), (), ((),), ("a",), (bytes(4), 33),
    (bytes(4), -1), (bytes(3), 8), (b"\x0a\0\0\1", 8), {}, (bytes(4), 2**40), (bytes(16), 128),
)  # fmt: skip


class RecordTarget:
    name = "record"

    def __init__(self, seed: int) -> None:
        cloud = office()
        self._places = [
            (name, record.key, encode_record(record))
            for name, records in cloud.slices().items()
            for record in records.values()
        ]
        self._places += [
            (one.facts["slice"], one.facts["key"], one.data) for one in load(self.name)
        ]
        self._mutator = Mutator(seed, [payload for _, _, payload in self._places])

    def make(self) -> Kept:
        chance = self._mutator
        slice_name, key, payload = self._places[chance.below(len(self._places))]
        if chance.below(8) == 0:
            slice_name = self._places[chance.below(len(self._places))][0]
        if chance.below(2):
            payload = self._change_values(payload)
        data = bytearray(payload)
        for _ in range(chance.below(3)):
            self._change_bytes(data)
        return Kept(self.name, "", bytes(data), {"slice": slice_name, "key": key})

    def _change_values(self, payload: bytes) -> bytes:
        """Other values, of any type, at any depth."""
        chance = self._mutator
        try:
            items = msgpack.unpackb(payload, strict_map_key=False)
        except (ValueError, msgpack.UnpackException):
            return payload
        for _ in range(1 + chance.below(3)):
            inner = items
            while isinstance(inner, list) and inner:
                at = chance.below(len(inner))
                if isinstance(inner[at], list) and chance.below(2):
                    inner = inner[at]
                    continue
                which = chance.below(8)
                if which == 0:
                    del inner[at]
                elif which == 1:
                    inner.append(inner[at])
                else:
                    inner[at] = _VALUES[chance.below(len(_VALUES))]
                break
        try:
            packed: bytes = msgpack.packb(items)
        except ValueError:  # as deep as it is only readable
            return payload
        return packed

    def _change_bytes(self, data: bytearray) -> None:
        chance = self._mutator
        at = chance.below(len(data) + 1)
        which = chance.below(6)
        if which == 0 and data:
            data[at % len(data)] ^= 1 << chance.below(8)
        elif which == 1 and data:
            data[at % len(data)] = chance.below(256)
        elif which == 2:
            del data[at:]
        elif which == 3:
            data[at:at] = chance.random.randbytes(1 + chance.below(6))
        elif which == 4:
            data[at:at] = b"\x91" * (1 << chance.below(12))
        else:
            other = chance.good[chance.below(len(chance.good))]
            data[at:] = other[chance.below(len(other)) :]

    def run(self, given: Kept) -> str:
        slice_name, key = given.facts["slice"], given.facts["key"]
        try:
            record = decode_record(slice_name, key, given.data)
        except RecordError as error:
            if (error.slice_name, error.key) != (slice_name, key):
                raise AssertionError(f"an error that names another record: {error}") from error
            return "refused: " + _words(error.reason)
        assert record.key == key
        again = encode_record(record)
        assert decode_record(slice_name, key, again) == record
        return f"accepted: {type(record).__name__}"

    def replay(self, given: Kept) -> str:
        return self.run(given)


def _words(reason: str) -> str:
    """Without the place in the record, what was got there, and addresses."""
    reason = re.sub(r"( of at least.*)?(, got .*)?( - at .*)?$", "", reason)
    reason = re.sub(r"\b[0-9a-f]*[:.]{1,2}[0-9a-f:./]+|(?<=gateway )[0-9a-f]+", "#", reason)
    return without_values(reason)

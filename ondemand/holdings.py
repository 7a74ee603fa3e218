"""What a slice cache holds, as values to write down and the state that they lead to.

A *batch* takes the holdings from one moment, at which the cache was consistent, to a later one. How
batches become bytes is in ``journal``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Whose holdings they are, and of which store.

    Versions mean something only in the store that gave them (``SliceSource.identity``). ``source`` is
    "" while no store has answered.
    """

    host: str
    source: str


class WholeHeld(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A slice is held whole, with these payloads by key; what was held of it before is replaced."""

    slice: str
    version: int
    records: dict[str, bytes]


class PartHeld(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=2):
    """A slice is held in part from now on; what was held of it before is forgotten."""

    slice: str
    version: int


class RecordHeld(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=3):
    """A record was entered or changed at ``version``. ``payload`` None: it is known to be absent."""

    slice: str
    key: str
    version: int
    payload: bytes | None


class RecordDropped(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=4):
    """A record of a slice held in part is held no more: whether it exists is not known now."""

    slice: str
    key: str


class VersionMoved(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=5):
    """The version from which the delta brings everything held of a slice up to date."""

    slice: str
    version: int


class SliceDropped(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=6):
    """Nothing of a slice is held any more."""

    slice: str


class SourceChanged(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=7):
    """The store is another one from now on: no version from before means anything."""

    source: str


Write = (
    WholeHeld | PartHeld | RecordHeld | RecordDropped | VersionMoved | SliceDropped | SourceChanged
)


@dataclass(slots=True)
class WriteLog:
    """Where a cache leaves what has to be written down; nothing is collected while it is off."""

    is_on: bool
    writes: list[Write] = field(default_factory=list)

    def take(self) -> list[Write]:
        """One batch: call it only between changes."""
        if not self.writes:
            return []
        taken, self.writes = self.writes, []
        return taken

    def stop(self) -> None:
        self.is_on = False
        self.writes.clear()


@dataclass(slots=True)
class SavedSlice:
    """A slice as saved: by key, the version at which each record was read, and its payload.

    A payload of None is a known absence; a slice held whole has none.
    """

    is_whole: bool
    version: int
    records: dict[str, tuple[int, bytes | None]] = field(default_factory=dict)


@dataclass(slots=True)
class Holdings:
    """The state that a journal leads to."""

    identity: Identity
    slices: dict[str, SavedSlice] = field(default_factory=dict)

    def apply(self, writes: Iterable[Write]) -> None:
        """Go on by one batch. What is said of a slice that is not held means nothing."""
        slices = self.slices
        for write in writes:
            match write:
                case RecordHeld():
                    saved = slices.get(write.slice)
                    if saved is None:
                        continue
                    if write.payload is None and saved.is_whole:
                        saved.records.pop(write.key, None)
                    else:
                        saved.records[write.key] = (write.version, write.payload)
                case VersionMoved():
                    if write.slice in slices:
                        slices[write.slice].version = write.version
                case RecordDropped():
                    if write.slice in slices:
                        slices[write.slice].records.pop(write.key, None)
                case PartHeld():
                    slices[write.slice] = SavedSlice(is_whole=False, version=write.version)
                case WholeHeld():
                    version = write.version
                    records: dict[str, tuple[int, bytes | None]] = {
                        key: (version, payload) for key, payload in write.records.items()
                    }
                    slices[write.slice] = SavedSlice(
                        is_whole=True, version=version, records=records
                    )
                case SliceDropped():
                    slices.pop(write.slice, None)
                case SourceChanged():
                    self.identity = Identity(self.identity.host, write.source)
                    slices.clear()

    def as_writes(self) -> Iterator[list[Write]]:
        """The shortest batches that lead here, one for each slice."""
        for name, saved in self.slices.items():
            if saved.is_whole:
                payloads = {
                    key: payload
                    for key, (_, payload) in saved.records.items()
                    if payload is not None
                }
                yield [WholeHeld(name, saved.version, payloads)]
            else:
                batch: list[Write] = [PartHeld(name, saved.version)]
                batch += [
                    RecordHeld(name, key, version, payload)
                    for key, (version, payload) in saved.records.items()
                ]
                yield batch


__all__ = [
    "Holdings",
    "Identity",
    "PartHeld",
    "RecordDropped",
    "RecordHeld",
    "SavedSlice",
    "SliceDropped",
    "SourceChanged",
    "VersionMoved",
    "WholeHeld",
    "Write",
    "WriteLog",
]

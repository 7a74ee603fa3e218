"""A source of slices in memory, without threads: what was published, its versions and its changes.

It keeps the promises of ``ondemand.slices``: a version for each change, deltas that list only the last
change of a key, ``TooOld`` for what it was told to forget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ondemand.codec import encode_record
from ondemand.records import Record
from ondemand.slices import Change, Delta, Lookup, Snapshot, TooOld


@dataclass(slots=True)
class _Stored:
    version: int = 0
    records: dict[str, bytes] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    #: Deltas are known from this version on.
    oldest: int = 0


class SliceStore:
    """Slices by name. A slice that was never written has version 0 and no records."""

    def __init__(self) -> None:
        self._slices: dict[str, _Stored] = {}

    @property
    def names(self) -> list[str]:
        return sorted(self._slices)

    def version(self, name: str) -> int:
        return self._stored(name).version

    def records(self, name: str) -> Mapping[str, bytes]:
        return dict(self._stored(name).records)

    def put(self, name: str, record: Record) -> Delta:
        """Write one record; the delta that a watch would deliver."""
        return self.write(name, {record.key: encode_record(record)})

    def remove(self, name: str, key: str) -> Delta:
        """Remove one record, be it there or not; the delta that a watch would deliver."""
        return self.write(name, {key: None})

    def write(self, name: str, changes: Mapping[str, bytes | None]) -> Delta:
        """Write (payload) or remove (None) records, one version each."""
        stored = self._slices.setdefault(name, _Stored())
        since = stored.version
        for key, payload in changes.items():
            stored.version += 1
            stored.changes.append(Change(stored.version, stored.version - 1, key, payload))
            if payload is None:
                stored.records.pop(key, None)
            else:
                stored.records[key] = payload
        return Delta(name, since, stored.version, tuple(stored.changes[since:]))

    def get(self, name: str, key: str) -> Lookup:
        stored = self._stored(name)
        return Lookup(name, key, stored.version, stored.records.get(key))

    def snapshot(self, name: str) -> Snapshot:
        stored = self._stored(name)
        return Snapshot(name, stored.version, dict(stored.records))

    def delta(self, name: str, since: int) -> Delta | TooOld:
        stored = self._stored(name)
        if since < stored.oldest:
            return TooOld(name, since, stored.oldest)
        last = {change.key: change for change in stored.changes if change.version > since}
        changes: list[Change] = []
        previous = since
        for change in sorted(last.values(), key=lambda change: change.version):
            changes.append(replace(change, previous=previous))
            previous = change.version
        return Delta(name, since, stored.version, tuple(changes))

    def heal(self, name: str, since: int) -> Delta | Snapshot:
        """What an agent gets that saw a gap: the delta, or the snapshot where that is too old."""
        event = self.delta(name, since)
        return self.snapshot(name) if isinstance(event, TooOld) else event

    def forget_changes(self, name: str) -> None:
        """Let deltas from before now be too old."""
        stored = self._slices.setdefault(name, _Stored())
        stored.oldest = stored.version

    def _stored(self, name: str) -> _Stored:
        return self._slices.get(name, _Stored())

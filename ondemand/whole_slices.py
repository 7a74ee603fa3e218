"""Slices held whole: the host's own, and the VPCs and security groups of its ports."""

from __future__ import annotations

from collections.abc import Iterator

from ondemand.applied import Applied, RecordChange
from ondemand.holdings import (
    RecordHeld,
    SavedSlice,
    SliceDropped,
    VersionMoved,
    WholeHeld,
    WriteLog,
)
from ondemand.messages import Heal
from ondemand.records import Record
from ondemand.slices import Delta, Snapshot


class WholeSlice:
    """All records of a slice at one version."""

    __slots__ = ("is_saved", "loaded", "records", "version")

    def __init__(self) -> None:
        self.loaded = False
        self.version = 0
        self.records: dict[str, Record] = {}
        #: Whether the saved holdings have it, with the payloads as they came, bad ones too.
        self.is_saved = False


class WholeSlices:
    """The slices that are, or are to be, held whole."""

    def __init__(self, log: WriteLog) -> None:
        self._log = log
        self._slices: dict[str, WholeSlice] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._slices

    def __iter__(self) -> Iterator[str]:
        return iter(self._slices)

    def get(self, name: str) -> WholeSlice | None:
        return self._slices.get(name)

    def hold(self, name: str) -> bool:
        """Begin to hold a slice; True when it was not held yet."""
        if name in self._slices:
            return False
        self._slices[name] = WholeSlice()
        return True

    def release(self, name: str) -> None:
        whole = self._slices.pop(name, None)
        if whole is not None and whole.is_saved:
            self._log.writes.append(SliceDropped(name))

    def snapshot(self, event: Snapshot, applied: Applied, *, anew: bool) -> None:
        """Take a snapshot; an older one only when it is ``anew``, of another store."""
        whole = self._slices[event.slice]
        if whole.loaded and event.version < whole.version and not anew:
            return
        fresh: dict[str, Record] = {}
        for key, payload in event.records.items():
            record = applied.decode(event.slice, key, payload)
            if record is not None:
                fresh[key] = record
        old = whole.records
        for key in old.keys() | fresh.keys():
            before, after = old.get(key), fresh.get(key)
            if before != after:
                applied.changes.append(RecordChange(event.slice, key, before, after))
        applied.changes.sort(key=lambda change: change.key)
        whole.records, whole.version, whole.loaded = fresh, event.version, True
        if self._log.is_on:
            whole.is_saved = True
            self._log.writes.append(WholeHeld(event.slice, event.version, dict(event.records)))

    def delta(self, event: Delta, applied: Applied) -> None:
        whole = self._slices[event.slice]
        if not whole.loaded:
            return
        before = whole.version
        self._enter(whole, event, applied)
        if whole.is_saved and whole.version != before:
            self._log.writes.append(VersionMoved(event.slice, whole.version))

    def _enter(self, whole: WholeSlice, event: Delta, applied: Applied) -> None:
        for change in event.changes:
            if change.version <= whole.version:
                continue
            if change.previous > whole.version:
                applied.heal = Heal(event.slice, whole.version)
                return
            old = whole.records.get(change.key)
            new = applied.decode(event.slice, change.key, change.payload)
            if new is None:
                whole.records.pop(change.key, None)
            else:
                whole.records[change.key] = new
            whole.version = change.version
            if old != new:
                applied.changes.append(RecordChange(event.slice, change.key, old, new))
            if whole.is_saved:
                self._log.writes.append(
                    RecordHeld(event.slice, change.key, change.version, change.payload)
                )
        if event.since > whole.version:
            applied.heal = Heal(event.slice, whole.version)
        else:
            whole.version = max(whole.version, event.version)

    def restore(self, name: str, saved: SavedSlice, applied: Applied) -> bool:
        """Hold a slice as it was saved; False when a record is bad.

        Then the slice is to be read anew, so that the reason is told as for any bad record.
        """
        whole = WholeSlice()
        for key, (_, payload) in saved.records.items():
            record = applied.decode(name, key, payload)
            if record is not None:
                whole.records[key] = record
        if applied.errors:
            return False
        whole.version, whole.loaded, whole.is_saved = saved.version, True, self._log.is_on
        self._slices[name] = whole
        return True

    def unsave_all(self) -> None:
        """The saved holdings have none of it any more."""
        for whole in self._slices.values():
            whole.is_saved = False


__all__ = ["WholeSlice", "WholeSlices"]

"""What one publish does to the tables of the SQLite store."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from controller_app.sqlite_queries import read_snapshot
from ondemand.publishing import Payloads, SliceCounts, difference

_PUT = """
INSERT INTO record (slice, key, version, payload) VALUES (?, ?, ?, ?)
ON CONFLICT (slice, key) DO UPDATE SET version = excluded.version, payload = excluded.payload
"""


class Transaction:
    """An open transaction. All slices that it touches get one ``changed`` number."""

    def __init__(self, db: sqlite3.Connection, tombstones: int) -> None:
        self.db = db
        self._tombstones = tombstones
        self._changed: int = db.execute(
            "SELECT coalesce(max(changed), 0) + 1 FROM slice"
        ).fetchone()[0]

    def live_slices(self) -> set[str]:
        rows = self.db.execute(
            "SELECT name FROM slice WHERE EXISTS"
            " (SELECT 1 FROM record WHERE record.slice = slice.id AND payload IS NOT NULL)"
        )
        return {row[0] for row in rows}

    def replace(self, name: str, records: Payloads) -> SliceCounts:
        current = read_snapshot(self.db, name).records
        found = difference(current, records)
        changes: list[tuple[str, bytes | None]] = []
        changes += [(key, records[key]) for key in found.added]
        changes += [(key, records[key]) for key in found.changed]
        changes += [(key, None) for key in found.removed]
        return SliceCounts(
            version=self.apply(name, changes),
            added=len(found.added),
            changed=len(found.changed),
            removed=len(found.removed),
            unchanged=found.unchanged,
        )

    def apply(self, name: str, changes: Sequence[tuple[str, bytes | None]]) -> int:
        """Write changes that are known to differ from what is there; the new version."""
        row = self.db.execute("SELECT id, version FROM slice WHERE name = ?", (name,)).fetchone()
        if not changes:
            return row[1] if row else 0
        identity, version = row or self._new_slice(name)
        rows = [
            (identity, key, version + number, payload)
            for number, (key, payload) in enumerate(changes, start=1)
        ]
        self.db.executemany(_PUT, rows)
        version += len(rows)
        self.db.execute(
            "UPDATE slice SET version = ?, changed = ? WHERE id = ?",
            (version, self._changed, identity),
        )
        if any(payload is None for _, payload in changes):
            self._prune(identity)
        return int(version)

    def _new_slice(self, name: str) -> tuple[int, int]:
        """A slice starts at the clock's milliseconds, not at 0: if the file was lost and made anew,
        its versions are above all that readers saved from the old one, so they see that they are
        behind instead of taking an equal number for the same state.
        """
        version = time.time_ns() // 1_000_000
        cursor = self.db.execute(
            "INSERT INTO slice (name, version, oldest, changed) VALUES (?, ?, ?, ?)",
            (name, version, version, self._changed),
        )
        identity = cursor.lastrowid
        if identity is None:
            raise sqlite3.InternalError("no row id after an INSERT")
        return identity, version

    def _prune(self, identity: int) -> None:
        """Forget the oldest tombstones beyond the bound; older readers then need the snapshot."""
        row = self.db.execute(
            "SELECT version FROM record WHERE slice = ? AND payload IS NULL"
            " ORDER BY version DESC LIMIT 1 OFFSET ?",
            (identity, self._tombstones),
        ).fetchone()
        if row is not None:
            self.db.execute(
                "DELETE FROM record WHERE slice = ? AND payload IS NULL AND version <= ?",
                (identity, row[0]),
            )
            self.db.execute("UPDATE slice SET oldest = ? WHERE id = ?", (row[0], identity))

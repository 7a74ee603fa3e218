"""Reading a slice of the SQLite store. Each answer is one statement, so it is of one version."""

from __future__ import annotations

import sqlite3

from ondemand.slices import Change, Delta, Lookup, Snapshot, TooOld

_GET = """
SELECT slice.version, record.payload
FROM slice LEFT JOIN record ON record.slice = slice.id AND record.key = ?
WHERE slice.name = ?
"""
_SNAPSHOT = """
SELECT slice.version, record.key, record.payload
FROM slice LEFT JOIN record ON record.slice = slice.id AND record.payload IS NOT NULL
WHERE slice.name = ?
"""
_DELTA = """
SELECT slice.version, slice.oldest, record.version, record.key, record.payload
FROM slice LEFT JOIN record ON record.slice = slice.id AND record.version > ?
WHERE slice.name = ? ORDER BY record.version
"""
_CHANGED = "SELECT name, changed FROM slice WHERE changed > ? ORDER BY changed, id"


def read_record(db: sqlite3.Connection, name: str, key: str) -> Lookup:
    """One record or its absence."""
    row = db.execute(_GET, (key, name)).fetchone()
    return Lookup(name, key, 0, None) if row is None else Lookup(name, key, row[0], row[1])


def read_identity(db: sqlite3.Connection) -> str:
    """The store's random id; "" for a store that has none yet."""
    row = db.execute("SELECT value FROM meta WHERE name = 'store'").fetchone()
    return "" if row is None else str(row[0])


def read_version(db: sqlite3.Connection, name: str) -> int:
    """The version of a slice; 0 for one that was never written."""
    row = db.execute("SELECT version FROM slice WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(row[0])


def read_snapshot(db: sqlite3.Connection, name: str) -> Snapshot:
    """All live records of a slice; version 0 for one that was never written."""
    rows = db.execute(_SNAPSHOT, (name,)).fetchall()
    if not rows:
        return Snapshot(name, 0, {})
    return Snapshot(name, rows[0][0], {key: payload for _, key, payload in rows if key is not None})


def read_delta(db: sqlite3.Connection, name: str, since: int) -> Delta | TooOld:
    """What changed after ``since``.

    Version 0 is the empty slice, so the answer to it never needs a tombstone and is never too old.
    A version above the slice's own is of another file and is too old as well.
    """
    rows = db.execute(_DELTA, (since, name)).fetchall()
    if not rows:
        return Delta(name, 0, 0, ()) if since == 0 else TooOld(name, since, 0)
    version, oldest = rows[0][:2]
    if since > version or 0 < since < oldest:
        return TooOld(name, since, oldest)
    changes = []
    previous = since
    for _, _, changed_at, key, payload in rows:
        if key is None or (since == 0 and payload is None):
            continue
        changes.append(Change(changed_at, previous, key, payload))
        previous = changed_at
    return Delta(name, since, version, tuple(changes))


def read_changed(db: sqlite3.Connection, after: int) -> list[tuple[str, int]]:
    """Slices that a transaction numbered above ``after`` touched, with that number, oldest first."""
    return db.execute(_CHANGED, (after,)).fetchall()


def read_last_transaction(db: sqlite3.Connection) -> int:
    """The number of the last transaction that changed a slice."""
    return int(db.execute("SELECT coalesce(max(changed), 0) FROM slice").fetchone()[0])


def read_data_version(db: sqlite3.Connection) -> int:
    """A number that differs after another connection changed the file (PRAGMA data_version)."""
    return int(db.execute("PRAGMA data_version").fetchone()[0])

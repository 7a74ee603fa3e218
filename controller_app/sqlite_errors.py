"""What SQLite says, as a SourceError that names the file and the mend."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ondemand.slices import SourceError


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without the extended part; 0 where the module itself complains."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def store_error(path: Path, error: sqlite3.Error) -> SourceError:
    """What SQLite said about the file at ``path``, in one sentence."""
    if path.is_dir():
        return SourceError(f"slice store {path} is a folder: give the path of a file")
    reason = {
        sqlite3.SQLITE_BUSY: (
            "is locked by another process: wait for it to end, or see who holds it with"
            f" 'fuser {path}'"
        ),
        sqlite3.SQLITE_READONLY: (
            "is not writable: give this user write access to the file and to its folder"
        ),
        sqlite3.SQLITE_CANTOPEN: (
            "cannot be opened: give this user access to the file, and write access to its folder"
            f" for {path.name}-wal and {path.name}-shm"
        ),
        sqlite3.SQLITE_NOTADB: "is not an SQLite file: give another path, or move it away",
        sqlite3.SQLITE_CORRUPT: (
            f"is damaged: move it away together with {path.name}-wal and {path.name}-shm, and"
            " publish again"
        ),
        sqlite3.SQLITE_FULL: "cannot grow: the disk is full",
    }.get(primary_code(error), f"failed: {error}")
    return SourceError(f"slice store {path} {reason}")

"""The SQLite file behind the embedded slice store: its format and its connections."""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from controller_app.sqlite_errors import primary_code, store_error
from controller_app.sqlite_queries import read_identity
from ondemand.slices import SourceError

#: Marks the file as ours, so that the database of another program is never touched ("ODSL").
APPLICATION_ID = 0x4F44534C
#: Kept in SQLite's user_version. A change that an older release would misread gets a new number.
FORMAT = 1

# Slices have small integer ids, so that a record costs little more than its key and payload. A record
# with payload NULL is a tombstone. ``changed`` numbers the transactions, so that a watch finds the
# slices that changed since it last looked without asking for each one.
_SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE slice (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    oldest INTEGER NOT NULL,
    changed INTEGER NOT NULL
);
CREATE INDEX slice_changed ON slice (changed);
CREATE TABLE record (
    slice INTEGER NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    payload BLOB,
    PRIMARY KEY (slice, key)
) WITHOUT ROWID;
CREATE INDEX record_version ON record (slice, version);
CREATE INDEX tombstone ON record (slice, version) WHERE payload IS NULL;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""

#: Another writer may have been faster.
_IDENTIFY = "INSERT OR IGNORE INTO meta VALUES ('store', ?)"

_RETRY_S = 0.01
_WRITER_CACHE_KIB = 65_536


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store behaves. Times in seconds.

    ``write_timeout_s``: how long a writer waits for another one. ``read_timeout_s``: a reader waits
    for nobody, unless a program holds the whole file. ``poll_interval_s``: how often a watch looks
    for changes; one look costs about 10 us and the
    waking of a thread. ``tombstones_per_slice``: removals that are remembered,
    so that a reader which was away gets the delta and not the snapshot. ``retry_min_s`` and
    ``retry_max_s``: the pause between attempts to reopen a file that was lost.
    """

    write_timeout_s: float = 5.0
    read_timeout_s: float = 1.0
    poll_interval_s: float = 0.005
    tombstones_per_slice: int = 10_000
    retry_min_s: float = 0.05
    retry_max_s: float = 2.0


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Which file stands at the path (device and inode), and its state (size and time of change).

    An inode is not reused while a connection holds it open, so another inode is another file.
    """

    device: int
    inode: int
    size: int
    modified_ns: int

    def is_same_file(self, other: FileStamp) -> bool:
        return self.inode == other.inode and self.device == other.device


@dataclass(frozen=True, slots=True)
class Handle:
    """An open connection, used by one thread at a time, and the file that it is connected to.

    ``born`` is when the store was created, in milliseconds of the clock: above every version that an
    earlier store at this path gave out (see ``sqlite_transaction``).
    """

    db: sqlite3.Connection
    stamp: FileStamp
    store_id: str
    born: int


class StoreFile:
    """Opens the file and lends connections for reading. Safe to use from several threads."""

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self.path = path
        self.options = options
        self._idle: deque[Handle] = deque()
        self._closed = False
        self._stamp: FileStamp | None = None
        self._stamped_s = 0.0

    def stamp(self) -> FileStamp:
        """What stands at the path now; SourceError when nothing does."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - Path.stat is three times slower
        except FileNotFoundError:
            folder = self.path.parent
            mkdir = "" if folder.is_dir() else f"mkdir -p {folder} && "
            raise SourceError(
                f"slice store {self.path} does not exist: create it with"
                f" '{mkdir}ondemand slices publish STATE.yaml --store {self.path}'"
            ) from None
        except OSError as error:
            raise SourceError(f"slice store {self.path} cannot be reached: {error}") from error
        return FileStamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def check_open(self) -> None:
        """Raise SourceError after ``close``."""
        if self._closed:
            raise SourceError(f"slice store {self.path} was closed by this program")

    def is_current(self, handle: Handle) -> bool:
        """Whether the connection's file is the one that stands at the path."""
        try:
            return handle.stamp.is_same_file(self.stamp())
        except SourceError:
            return False

    def acquire(self, *, max_age_s: float = 0.0) -> Handle:
        """A connection for reading: an idle one, or a new one.

        That it is of the file which stands at the path is looked at, or was ``max_age_s`` ago. A look
        gives up the interpreter's lock, and the watch's thread may be slow to give it back.
        """
        self.check_open()
        now_s = time.monotonic()
        if self._stamp is None or now_s - self._stamped_s >= max_age_s:
            self._stamp, self._stamped_s = self.stamp(), now_s
        stamp = self._stamp
        while True:
            try:
                handle = self._idle.pop()
            except IndexError:
                return self.open_reader(self.options.read_timeout_s)
            if handle.stamp.is_same_file(stamp):
                return handle
            handle.db.close()

    def release(self, handle: Handle) -> None:
        """Give back a connection that did what was asked of it."""
        self._idle.append(handle)
        if self._closed:
            self.drop_idle()

    def failed(self, handle: Handle, error: sqlite3.Error) -> SourceError:
        """Close a connection that gave ``error``; the exception to raise for it."""
        handle.db.close()
        return self.explain(error)

    def drop_idle(self) -> None:
        """Close all idle connections, which keep a deleted file and its side files open."""
        self._stamp = None
        while self._idle:
            try:
                self._idle.pop().db.close()
            except IndexError:
                return

    def close(self) -> None:
        self._closed = True
        self.drop_idle()

    def open_reader(self, timeout_s: float) -> Handle:
        """A new connection that can neither write nor create."""
        stamp = self.stamp()
        db = self._connect("ro", timeout_s)
        try:
            return self._checked_reader(db, stamp)
        except sqlite3.Error as error:
            db.close()
            raise self.explain(error) from error
        except SourceError:
            db.close()
            raise

    def _checked_reader(self, db: sqlite3.Connection, stamp: FileStamp) -> Handle:
        if not self._is_ours(db):
            raise SourceError(
                f"slice store {self.path} is empty: fill it with"
                f" 'ondemand slices publish STATE.yaml --store {self.path}'"
            )
        handle = _handle(db, stamp)
        if not stamp.is_same_file(self.stamp()):
            raise SourceError(f"slice store {self.path} was replaced just now: try again")
        return handle

    def open_writer(self) -> Handle:
        """A new connection that can write; the file is created when there is none."""
        if not self.path.parent.is_dir():
            raise SourceError(
                f"slice store {self.path} cannot be created: the folder {self.path.parent} does"
                f" not exist; make it with 'mkdir -p {self.path.parent}'"
            )
        db = self._connect("rwc", self.options.write_timeout_s)
        try:
            if not self._is_ours(db):
                self._create(db)
            elif not read_identity(db):
                db.execute(_IDENTIFY, (uuid.uuid4().hex,))
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
            return _handle(db, self.stamp())
        except sqlite3.Error as error:
            db.close()
            raise self.explain(error) from error
        except SourceError:
            db.close()
            raise

    def _connect(self, mode: str, timeout_s: float) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        try:
            return sqlite3.connect(
                uri, uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self.explain(error) from error

    def _is_ours(self, db: sqlite3.Connection) -> bool:
        """True for a slice store that this release reads, False for a database without tables."""
        application = db.execute("PRAGMA application_id").fetchone()[0]
        if application != APPLICATION_ID:
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables:
                # Another writer may have created the store between the two looks.
                application = db.execute("PRAGMA application_id").fetchone()[0]
        if application != APPLICATION_ID:
            if application or tables:
                raise SourceError(
                    f"{self.path} is an SQLite database of another program, no slice store:"
                    " give another path"
                )
            return False
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            raise SourceError(
                f"slice store {self.path} is of format {version}, written by a newer release, and"
                f" this one reads up to {FORMAT}: upgrade this program, or publish into a new file"
            )
        return True

    def _create(self, db: sqlite3.Connection) -> None:
        self._use_wal(db)
        db.execute("BEGIN IMMEDIATE")
        if not self._is_ours(db):  # another writer may have been faster
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            born = time.time_ns() // 1_000_000
            db.execute(_IDENTIFY, (uuid.uuid4().hex,))
            db.execute("INSERT INTO meta VALUES ('born', ?)", (str(born),))
        db.execute("COMMIT")

    def _use_wal(self, db: sqlite3.Connection) -> None:
        """Switch to WAL. SQLite does not wait here when another writer does the same just now."""
        deadline = time.monotonic() + self.options.write_timeout_s
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_S)

    def explain(self, error: sqlite3.Error) -> SourceError:
        """What SQLite said, as one sentence that names the file and the mend."""
        if self._closed and isinstance(error, sqlite3.ProgrammingError):
            return SourceError(f"slice store {self.path} was closed by this program")
        return store_error(self.path, error)


def _handle(db: sqlite3.Connection, stamp: FileStamp) -> Handle:
    meta = dict(db.execute("SELECT name, value FROM meta").fetchall())
    return Handle(db, stamp, meta.get("store", ""), int(meta.get("born", "0")))

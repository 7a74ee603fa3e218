"""The embedded source of slices: one SQLite file in WAL mode, which any number of processes share.

Readers never wait for the writer, and a publish is one transaction: a reader sees all of it or
nothing. ``docs/slice-store.md`` tells the design.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from controller_app.sqlite_file import FORMAT, Handle, StoreFile, StoreOptions
from controller_app.sqlite_queries import (
    read_delta,
    read_identity,
    read_record,
    read_snapshot,
    read_version,
)
from controller_app.sqlite_transaction import Transaction
from controller_app.sqlite_watch import SqliteWatch
from ondemand.publishing import (
    Payloads,
    Progress,
    PublishConflictError,
    PublishResult,
    SliceCounts,
)
from ondemand.slices import Deliver, Delta, Lookup, Snapshot, SourceError, TooOld, kind_of

_SUMMARY = """
SELECT slice.name, slice.version, count(record.payload), coalesce(sum(length(record.payload)), 0)
FROM slice LEFT JOIN record ON record.slice = slice.id
GROUP BY slice.id ORDER BY slice.name
"""
#: A slice that is merely looked at counts too, so progress is told by records, not by writes.
_PROGRESS_EVERY = 10_000
_CHECKPOINT_TIMEOUT_MS = 200


@dataclass(frozen=True, slots=True)
class SliceSummary:
    """One slice as a listing shows it: its version, its live records and their payload bytes."""

    name: str
    version: int
    records: int
    payload_bytes: int


class SqliteStore:
    """A ``SliceSource`` and, with ``writer`` set, its ``Publisher``.

    Nothing is opened before it is used, so a file that is not there yet is an error of the call, not
    of the constructor, and a watch waits for it. A reader never creates the file. All methods may be
    called from any thread.
    """

    #: The format that this release writes, and the newest that it reads.
    format = FORMAT
    is_local = True

    def __init__(
        self, path: str | Path, *, writer: bool = False, options: StoreOptions | None = None
    ) -> None:
        self._options = options or StoreOptions()
        self._file = StoreFile(Path(path), self._options)
        self._may_write = writer
        self._write_lock = threading.Lock()
        self._writer: Handle | None = None
        self._watches: set[SqliteWatch] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def place(self) -> str:
        """What people call it by: its path."""
        return str(self._file.path)

    def is_there(self) -> bool:
        """Whether there is something to read from, sound or not."""
        return self._file.path.exists()

    def check(self) -> None:
        """Raise the SourceError that reading would raise now."""
        self._file.release(self._file.acquire())

    # Reading

    def identity(self) -> str:
        """As ``SliceSource.identity``: the id in the file, whatever its path."""
        with self._reading() as db:
            return read_identity(db)

    def get(self, name: str, key: str) -> Lookup:
        handle = self._file.acquire()
        try:
            lookup = read_record(handle.db, name, key)
        except sqlite3.Error as error:
            raise self._file.failed(handle, error) from error
        self._file.release(handle)
        return lookup

    def get_many(self, places: Sequence[tuple[str, str]]) -> list[Lookup]:
        """As ``SliceSource.get_many``, all as of one moment.

        Whether the file was replaced is looked at as often as the watch does, not each time.
        """
        with self._reading(max_age_s=self._options.poll_interval_s) as db:
            db.execute("BEGIN")
            try:
                return [read_record(db, name, key) for name, key in places]
            finally:
                db.execute("COMMIT")

    def snapshot(self, name: str) -> Snapshot:
        with self._reading() as db:
            return read_snapshot(db, name)

    def delta(self, name: str, since: int) -> Delta | TooOld:
        with self._reading() as db:
            return read_delta(db, name, since)

    def watch(self, deliver: Deliver, identity: str | None = None) -> SqliteWatch:
        """As ``SliceSource.watch``. A file that cannot be read is told as a SourceState, not raised."""
        watch = SqliteWatch(self._file, deliver, identity=identity, on_close=self._watches.discard)
        self._watches.add(watch)
        watch.start()
        return watch

    def summaries(self) -> list[SliceSummary]:
        """All slices that were ever written, by name."""
        with self._reading() as db:
            return [SliceSummary(*row) for row in db.execute(_SUMMARY)]

    @contextlib.contextmanager
    def _reading(self, max_age_s: float = 0.0) -> Iterator[sqlite3.Connection]:
        handle = self._file.acquire(max_age_s=max_age_s)
        try:
            yield handle.db
        except sqlite3.Error as error:
            raise self._file.failed(handle, error) from error
        except BaseException:
            handle.db.close()
            raise
        self._file.release(handle)

    # Writing

    def publish(
        self,
        desired: Mapping[str, Payloads],
        *,
        replace_all: bool,
        expected: Mapping[str, int] | None = None,
        progress: Progress | None = None,
    ) -> PublishResult:
        """As ``Publisher.publish``, in one transaction."""
        for name in desired:
            kind_of(name)
        total = sum(map(len, desired.values()))
        done = told = 0
        counts: dict[str, SliceCounts] = {}
        with self._transaction() as transaction:
            for name, version in (expected or {}).items():
                found = read_version(transaction.db, name)
                if found != version:
                    raise PublishConflictError(name, version, found)
            for name, records in desired.items():
                counts[name] = transaction.replace(name, records)
                done += len(records)
                if progress is not None and done - told >= _PROGRESS_EVERY:
                    progress(done, total)
                    told = done
            if replace_all:
                for name in sorted(transaction.live_slices() - desired.keys()):
                    counts[name] = transaction.replace(name, {})
        result = PublishResult(counts)
        if result.written:
            self._checkpoint()
        if progress is not None:
            progress(total, total)
        return result

    def write(self, name: str, changes: Mapping[str, bytes | None]) -> int:
        """As ``Publisher.write``. What is there already is not written again."""
        kind_of(name)
        with self._transaction() as transaction:
            return transaction.apply(
                name,
                [
                    (key, payload)
                    for key, payload in changes.items()
                    if read_record(transaction.db, name, key).payload != payload
                ],
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        if not self._may_write:
            raise SourceError(f"slice store {self.path} was opened for reading only")
        with self._write_lock:
            handle = self._open_writer()
            try:
                handle.db.execute("BEGIN IMMEDIATE")
                yield Transaction(handle.db, self._options.tombstones_per_slice)
                handle.db.execute("COMMIT")
            except sqlite3.Error as error:
                self._writer = None
                raise self._file.failed(handle, error) from error
            except BaseException:
                # Also on Ctrl-C: the transaction must not stay open for the next caller.
                handle.db.execute("ROLLBACK")
                raise

    def _open_writer(self) -> Handle:
        self._file.check_open()
        handle = self._writer
        if handle is not None:
            if self._file.is_current(handle):
                return handle
            handle.db.close()
        self._writer = None
        self._writer = self._file.open_writer()
        return self._writer

    def _checkpoint(self) -> None:
        """Move what was published from the side file into the file, so that it can be copied alone.

        A reader that is in the way postpones this to the next publish; nothing depends on it.
        """
        with self._write_lock:
            if self._writer is None:
                return
            db = self._writer.db
            try:
                db.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_TIMEOUT_MS}")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                db.execute(f"PRAGMA busy_timeout = {int(self._options.write_timeout_s * 1000)}")
            except sqlite3.Error as error:
                handle, self._writer = self._writer, None
                raise self._file.failed(handle, error) from error

    def close(self) -> None:
        """End all watches and close all connections; every later call raises SourceError."""
        for watch in tuple(self._watches):
            watch.close()
        self._file.close()
        with self._write_lock:
            if self._writer is not None:
                self._writer.db.close()
                self._writer = None

"""Live changes of the SQLite store: one thread that looks whether the file changed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable

from controller_app.sqlite_file import FileStamp, Handle, StoreFile
from controller_app.sqlite_queries import (
    read_changed,
    read_data_version,
    read_delta,
    read_last_transaction,
    read_snapshot,
)
from ondemand.slices import Deliver, Delta, Snapshot, SourceError, SourceEvent, SourceState, TooOld

#: The held version of a slice whose reader must get the snapshot, because the file is another one.
_UNKNOWN = -1


class SqliteWatch:
    """A subscription (see ``slices.Watch``). Everything but the queue belongs to its thread.

    An idle look is one ``stat`` and one ``PRAGMA data_version``; SQLite has no push between
    processes.
    """

    def __init__(
        self,
        file: StoreFile,
        deliver: Deliver,
        *,
        identity: str | None,
        on_close: Callable[[SqliteWatch], object],
    ) -> None:
        self._file = file
        self._deliver = deliver
        self._on_close = on_close
        self._thread = threading.Thread(target=self._run, name="sqlite-watch", daemon=True)
        self._wake = threading.Event()
        self._closing = False
        self._lock = threading.Lock()
        self._commands: list[tuple[str, int | None]] = []
        # Of the thread:
        self._held: dict[str, int] = {}
        #: The store that gave the versions which the reader follows from, None when it did not say.
        self._store_of_reader = identity
        self._handle: Handle | None = None
        self._last_file: tuple[FileStamp, str] | None = None
        self._data_version: int | None = None
        self._seen = 0
        self._error: str | None = None
        self._behind: set[str] = set()

    def start(self) -> None:
        self._thread.start()

    def follow(self, name: str, since: int) -> None:
        self._command(name, since)

    def forget(self, name: str) -> None:
        self._command(name, None)

    def _command(self, name: str, since: int | None) -> None:
        with self._lock:
            self._commands.append((name, since))
        self._wake.set()

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._on_close(self)

    def _run(self) -> None:
        options = self._file.options
        retry = options.retry_min_s
        try:
            while not self._closing:
                pause = options.poll_interval_s
                try:
                    self._look()
                    retry = options.retry_min_s
                except SourceError as error:
                    self._lost(error)
                    pause, retry = retry, min(retry * 2, options.retry_max_s)
                self._wake.wait(pause)
                self._wake.clear()
        finally:
            self._disconnect()

    def _lost(self, error: SourceError) -> None:
        self._disconnect()
        # Connections lent for reading hold the old file open, and with it the side files by whose
        # names a new file would go.
        self._file.drop_idle()
        if self._error != str(error):
            self._error = str(error)
            self._tell(SourceState(self._error))

    def _disconnect(self) -> None:
        if self._handle is not None:
            self._handle.db.close()
            self._handle = None

    def _look(self) -> None:
        stamp = self._file.stamp()
        if self._handle is not None and self._handle.stamp != stamp:
            # Another file, or somebody wrote to this one past SQLite, or a checkpoint moved records
            # into it: only a new connection checks what is there.
            same = self._handle.stamp.is_same_file(stamp)
            self._disconnect()
            if not same:
                self._file.drop_idle()
        if self._handle is None:
            self._connect()
        handle = self._handle
        if handle is None:
            return
        try:
            self._catch_up(handle)
        except sqlite3.Error as error:
            raise self._file.explain(error) from error

    def _connect(self) -> None:
        # A short wait, so that close() is short.
        self._handle = self._file.open_reader(min(self._file.options.read_timeout_s, 0.5))
        self._data_version = None
        stamp, store_id = self._handle.stamp, self._handle.store_id
        known, self._last_file = self._last_file, (stamp, store_id)
        if known is not None and not (known[0].is_same_file(stamp) and known[1] == store_id):
            self._distrust()
        if self._error is not None:
            self._error = None
            self._tell(SourceState(None))

    def _distrust(self) -> None:
        """The file went back in time or is another one: versions held mean nothing any more."""
        self._seen = 0
        self._held = dict.fromkeys(self._held, _UNKNOWN)
        self._behind = set(self._held)

    def _catch_up(self, handle: Handle) -> None:
        db = handle.db
        # Read first: a change that comes after it makes the next look see another number.
        data_version = read_data_version(db)
        self._take_commands(handle)
        if data_version != self._data_version:
            last = read_last_transaction(db)
            if last < self._seen:
                self._distrust()
            for name, changed in read_changed(db, self._seen):
                if name in self._held:
                    self._behind.add(name)
                self._seen = max(self._seen, changed)
            self._data_version = data_version
        # A slice leaves the set only when it was delivered: an error in between loses nothing.
        for name in sorted(self._behind):
            self._bring(handle, name)
            self._behind.discard(name)

    def _take_commands(self, handle: Handle) -> None:
        with self._lock:
            commands, self._commands = self._commands, []
        for name, since in commands:
            if since is None:
                self._held.pop(name, None)
                self._behind.discard(name)
            else:
                is_other = self._store_of_reader not in (None, handle.store_id)
                self._held[name] = _UNKNOWN if is_other else since
                self._behind.add(name)

    def _bring(self, handle: Handle, name: str) -> None:
        held = self._held[name]
        event: Delta | TooOld | Snapshot = TooOld(name, held, 0)
        if held != _UNKNOWN:
            event = read_delta(handle.db, name, held)
        if isinstance(event, TooOld):
            snapshot = read_snapshot(handle.db, name)
            # Of a slice that this store never had, version 0 would look older than what is held.
            version = snapshot.version or handle.born
            # A version that this store has not reached is of another one.
            store = handle.store_id if held == _UNKNOWN or held > version else None
            event = Snapshot(name, version, snapshot.records, store)
            if store is not None:
                self._store_of_reader = store
        if event.version == held:
            return
        self._held[name] = event.version
        self._tell(event)

    def _tell(self, event: SourceEvent) -> None:
        if not self._closing:
            self._deliver(event)

"""Slices followed live, with what was there before, so that a change can be told in words.

It follows through the contract of ``ondemand.slices`` alone, as an agent does, so it sees what agents
see and when they see it.
"""

from __future__ import annotations

import enum
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from controller_app.source_factory import SliceStore
from ondemand.publishing import difference
from ondemand.slices import Delta, Snapshot, SourceError, SourceEvent, SourceState

#: Seconds between two looks for slices that are new; and at most this part of the time goes into looking,
#: because a listing reads the whole store where that is a server.
LOOK_EVERY_S: Final = 1.0
_LOOK_SHARE: Final = 0.05

#: Seconds after which a wait ends to see whether it is time to end.
_TICK_S: Final = 0.5


class Mark(enum.Enum):
    """What happened to a record."""

    ADDED = "+"
    CHANGED = "~"
    REMOVED = "-"
    #: It was written; whether it was there before is not known any more.
    WRITTEN = "="


@dataclass(frozen=True, slots=True)
class RecordChanged:
    """A change of one record. ``was`` and ``payload``: None for none, or for one that is not known."""

    slice: str
    version: int
    key: str
    mark: Mark
    was: bytes | None
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class SourceLost:
    """The source does not answer; the error says why."""

    error: str


@dataclass(frozen=True, slots=True)
class SourceBack:
    """The source answers again; what was missed comes next."""


@dataclass(frozen=True, slots=True)
class OtherStore:
    """The slice is of another store from now on, or the store went back in time."""

    slice: str
    identity: str


@dataclass(frozen=True, slots=True)
class HistoryLost:
    """What changed in a slice after ``since`` is not known any more; all its records come next."""

    slice: str
    since: int


SeenEvent = RecordChanged | SourceLost | SourceBack | OtherStore | HistoryLost


@dataclass(frozen=True, slots=True)
class _NewNames:
    names: Sequence[str]


@dataclass(slots=True)
class _Held:
    version: int
    records: dict[str, bytes]


class SliceFollower:
    """A context in which slices are followed.

    Attributes:
        slices: how many are followed.
        records: how many they have.
    """

    def __init__(
        self, store: SliceStore, names: Sequence[str], *, since: int | None = None
    ) -> None:
        """Nothing is asked of the store before the context is entered.

        Args:
            store: open for reading.
            names: slices to follow, also such as are not there yet; none: all, also those to come.
            since: tell first what changed after this version, in slices that have a later one.
        """
        self._store = store
        self._names = names
        self._since = since
        self._events: queue.SimpleQueue[SourceEvent | _NewNames] = queue.SimpleQueue()
        self._held: dict[str, _Held] = {}
        self._untold: deque[SeenEvent] = deque()
        self._finder: _NameFinder | None = None

    def __enter__(self) -> Self:
        """Read what is there and begin to follow; SourceError when the source does not answer."""
        store = self._store
        names = self._names or [one.name for one in store.summaries()]
        self._watch = store.watch(self._events.put, store.identity())
        try:
            for name in dict.fromkeys(names):
                self._begin(name)
        except BaseException:
            self._watch.close()
            raise
        if not self._names:
            self._finder = _NameFinder(store, self._held, self._events.put)
        return self

    def __exit__(self, *_: object) -> None:
        if self._finder is not None:
            self._finder.close()
        self._watch.close()

    @property
    def slices(self) -> int:
        return len(self._held)

    @property
    def records(self) -> int:
        return sum(len(held.records) for held in self._held.values())

    def events(
        self, *, for_s: float | None = None, is_wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[SeenEvent]:
        """What happens, as it comes.

        Args:
            for_s: it ends after so many seconds; None: never.
            is_wanted: asked twice a second; it ends when the answer is no.
        """
        deadline_s = None if for_s is None else time.monotonic() + for_s
        while is_wanted():
            while self._untold:
                yield self._untold.popleft()
            wait_s = _TICK_S
            if deadline_s is not None:
                wait_s = min(wait_s, deadline_s - time.monotonic())
                if wait_s <= 0:
                    return
            try:
                event = self._events.get(timeout=wait_s)
            except queue.Empty:
                continue
            self._untold += self._seen(event)

    def _begin(self, name: str) -> None:
        snapshot = self._store.snapshot(name)
        self._held[name] = _Held(snapshot.version, dict(snapshot.records))
        if self._since is not None and self._since < snapshot.version:
            self._untold += self._history(snapshot, self._since)
        self._watch.follow(name, snapshot.version)

    def _history(self, snapshot: Snapshot, since: int) -> Iterator[SeenEvent]:
        """What came after ``since`` and is in the snapshot; what comes later is told by the watch."""
        name = snapshot.slice
        written = Mark.WRITTEN if since else Mark.ADDED
        delta = self._store.delta(name, since)
        if not isinstance(delta, Delta):
            if since:
                yield HistoryLost(name, since)
            for key, payload in sorted(snapshot.records.items()):
                yield RecordChanged(name, snapshot.version, key, written, None, payload)
            return
        for change in delta.changes:
            if change.version <= snapshot.version and (since or change.payload is not None):
                mark = Mark.REMOVED if change.payload is None else written
                yield RecordChanged(name, change.version, change.key, mark, None, change.payload)

    def _seen(self, event: SourceEvent | _NewNames) -> Iterator[SeenEvent]:
        match event:
            case Delta():
                yield from self._delta(event)
            case Snapshot():
                yield from self._snapshot(event)
            case SourceState():
                yield SourceBack() if event.error is None else SourceLost(event.error)
            case _NewNames():
                for name in event.names:
                    self._held[name] = _Held(0, {})
                    self._watch.follow(name, 0)

    def _delta(self, delta: Delta) -> Iterator[SeenEvent]:
        held = self._held[delta.slice]
        for change in delta.changes:
            if change.version <= held.version:
                continue
            held.version = change.version
            was = held.records.pop(change.key, None)
            if change.payload is None:
                mark = Mark.REMOVED
            else:
                held.records[change.key] = change.payload
                mark = Mark.ADDED if was is None else Mark.CHANGED
            if was is not None or change.payload is not None:
                yield RecordChanged(
                    delta.slice, change.version, change.key, mark, was, change.payload
                )
        held.version = max(held.version, delta.version)

    def _snapshot(self, snapshot: Snapshot) -> Iterator[SeenEvent]:
        name, version, records = snapshot.slice, snapshot.version, snapshot.records
        held = self._held[name].records
        self._held[name] = _Held(version, dict(records))
        if snapshot.store is not None:
            yield OtherStore(name, snapshot.store)
        keys = difference(held, records)
        for mark, changed in (
            (Mark.ADDED, keys.added),
            (Mark.CHANGED, keys.changed),
            (Mark.REMOVED, keys.removed),
        ):
            for key in changed:
                yield RecordChanged(name, version, key, mark, held.get(key), records.get(key))


class _NameFinder:
    """Looks for slices that are new, on a thread of its own: a listing may take long."""

    def __init__(
        self,
        store: SliceStore,
        known: Mapping[str, object],
        tell: Callable[[_NewNames], object],
    ) -> None:
        self._store = store
        self._known = set(known)
        self._tell = tell
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slice-names", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        pause_s = LOOK_EVERY_S
        while not self._closing.wait(pause_s):
            start_s = time.monotonic()
            try:
                names = [one.name for one in self._store.summaries()]
            except SourceError:
                continue  # the watch tells that it is lost
            fresh = [name for name in names if name not in self._known]
            if fresh:
                self._known.update(fresh)
                self._tell(_NewNames(fresh))
            pause_s = max(LOOK_EVERY_S, (time.monotonic() - start_s) / _LOOK_SHARE)


__all__ = [
    "HistoryLost",
    "Mark",
    "OtherStore",
    "RecordChanged",
    "SeenEvent",
    "SliceFollower",
    "SourceBack",
    "SourceLost",
]

"""A source of slices for a real agent: a store in memory that any thread may ask, and write to."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from ondemand.slices import Deliver, Delta, Lookup, Snapshot, TooOld
from tests.support.slice_store import SliceStore


class FaultSource:
    """Keeps the ``SliceSource`` protocol; changes are delivered by the thread that writes them.

    Attributes:
        store: what it holds.
        asked: keys of the records that were asked for one by one.
    """

    is_local = True

    def __init__(self, store: SliceStore) -> None:
        self.store = store
        self.asked: list[str] = []
        self._lock = threading.RLock()
        self._watches: list[_Watch] = []

    def identity(self) -> str:
        return "memory"

    def get(self, name: str, key: str) -> Lookup:
        with self._lock:
            self.asked.append(key)
            return self.store.get(name, key)

    def get_many(self, places: Sequence[tuple[str, str]]) -> list[Lookup]:
        return [self.get(name, key) for name, key in places]

    def snapshot(self, name: str) -> Snapshot:
        with self._lock:
            return self.store.snapshot(name)

    def delta(self, name: str, since: int) -> Delta | TooOld:
        with self._lock:
            return self.store.delta(name, since)

    def watch(self, deliver: Deliver, identity: str | None = None) -> _Watch:
        """The store is always the same, whatever ``identity`` the versions are from."""
        with self._lock:
            watch = _Watch(self, deliver)
            self._watches.append(watch)
            return watch

    def write(self, name: str, wanted: Mapping[str, bytes]) -> None:
        """Make a slice hold exactly these records, and tell who follows it."""
        with self._lock:
            have = self.store.records(name)
            changed: dict[str, bytes | None] = {key: None for key in have if key not in wanted}
            changed |= {key: new for key, new in wanted.items() if have.get(key) != new}
            if changed:
                self.store.write(name, changed)
                for watch in self._watches:
                    watch.catch_up(name)

    def close(self) -> None:
        """Nothing is held."""


class _Watch:
    def __init__(self, source: FaultSource, deliver: Deliver) -> None:
        self._source = source
        self._deliver = deliver
        self._follows: dict[str, int] = {}

    def follow(self, name: str, since: int) -> None:
        with self._source._lock:
            self._follows[name] = since
            self.catch_up(name)

    def forget(self, name: str) -> None:
        with self._source._lock:
            self._follows.pop(name, None)

    def catch_up(self, name: str) -> None:
        since = self._follows.get(name)
        if since is None:
            return
        event = self._source.store.heal(name, since)
        if event.version > since:
            self._follows[name] = event.version
            self._deliver(event)

    def close(self) -> None:
        with self._source._lock:
            self._follows.clear()
            if self in self._source._watches:
                self._source._watches.remove(self)

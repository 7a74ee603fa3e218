"""What one host hears of a store of slices: answers to its requests, and changes of what it follows.

As a real link: requests wait while the source is away, except fetches, whose packets would not wait
that long. Nothing here has a thread; whoever takes from ``inbox`` decides when, how often and in which
order something arrives.
"""

from __future__ import annotations

from collections import deque

from ondemand.messages import Fetch, Follow, Forget, Heal, SourceRequest
from ondemand.slices import Delta, Lookup, Snapshot, SourceEvent, SourceState
from tests.support.slice_store import SliceStore

Arrival = SourceEvent | Lookup


class SliceFeed:
    """One host's link to the store.

    Attributes:
        inbox: what is on its way to the host, the oldest first.
        asked: every request so far.
        error: why the source does not answer; None while it does.
    """

    def __init__(self, store: SliceStore) -> None:
        self.inbox: deque[Arrival] = deque()
        self.asked: list[SourceRequest] = []
        self.error: str | None = None
        self._store = store
        #: Version up to which changes of a followed slice have been sent.
        self._follows: dict[str, int] = {}
        self._kept: list[SourceRequest] = []

    @property
    def follows(self) -> list[str]:
        return sorted(self._follows)

    def fetches(self, key: str | None = None) -> list[Fetch]:
        """The fetches so far, of one record or of all."""
        found = [request for request in self.asked if isinstance(request, Fetch)]
        return [fetch for fetch in found if key in (None, fetch.key)]

    def ask(self, request: SourceRequest) -> None:
        """The host wants something."""
        self.asked.append(request)
        if self.error is None:
            self._answer(request)
        elif not isinstance(request, Fetch):
            self._kept.append(request)

    def published(self, name: str) -> None:
        """Something changed in a slice."""
        if self.error is None and name in self._follows:
            self._catch_up(name)

    def lose(self, error: str) -> None:
        """The source goes away."""
        self.error = error
        self.inbox.append(SourceState(error))

    def come_back(self) -> None:
        """The source is back; what was missed is told now."""
        self.error = None
        self.inbox.append(SourceState(None))
        kept, self._kept = self._kept, []
        for request in kept:
            self._answer(request)
        for name in self._follows:
            self._catch_up(name)

    def remind(self) -> None:
        """Let the host find out what it has missed: the newest delta of each slice it follows.

        Of a slice without a change since then nothing can have been missed.
        """
        for name, version in self._follows.items():
            self.inbox.append(Delta(name, version, version, ()))

    def _answer(self, request: SourceRequest) -> None:
        store = self._store
        match request:
            case Fetch(slice=name, key=key):
                self.inbox.append(store.get(name, key))
            case Follow(slice=name, since=None):
                snapshot = store.snapshot(name)
                self.inbox.append(snapshot)
                self._follows[name] = snapshot.version
            case Follow(slice=name, since=since):
                self._follows[name] = since or 0
                self._catch_up(name)
            case Heal(slice=name, since=since):
                self.inbox.append(store.heal(name, since))
            case Forget(slice=name):
                self._follows.pop(name, None)

    def _catch_up(self, name: str) -> None:
        since = self._follows[name]
        event = self._store.heal(name, since)
        if event.version > since or isinstance(event, Snapshot):
            self._follows[name] = event.version
            self.inbox.append(event)

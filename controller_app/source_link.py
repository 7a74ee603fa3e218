"""Carries the engine's requests to a slice source and the answers back, on a thread of its own.

Requests are kept until they are answered: while the source is away they wait, in order, and are tried
again with growing pauses. So a follow is never lost, and the engine knows nothing of retries.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ondemand.messages import Fetch, Follow, Forget, SourceRequest
from ondemand.slices import Delta, Lookup, SliceSource, Snapshot, SourceError, SourceState, TooOld

LOG = logging.getLogger(__name__)

#: Seconds between attempts while the source does not answer: the first pause and the longest.
RETRY_MIN_S: Final = 0.05
RETRY_MAX_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class StoreIs:
    """The source answers for the first time; this is the identity of its store."""

    identity: str


Answer = Lookup | Snapshot | Delta | SourceState | StoreIs


class SourceLink:
    """One per agent. ``deliver`` is called from the link's and the source's threads."""

    def __init__(
        self,
        source: SliceSource,
        deliver: Callable[[Answer], None],
        *,
        identity: str | None = None,
    ) -> None:
        """``identity``: of the store which gave the versions that are followed from; None: unknown."""
        self._source = source
        self._deliver = deliver
        self._requests: queue.SimpleQueue[SourceRequest | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._error: str | None = None
        self._identity = identity
        self._watch = source.watch(deliver, identity)
        self._thread = threading.Thread(target=self._run, name="slice-source", daemon=True)
        self._thread.start()

    @property
    def is_local(self) -> bool:
        """Whether ``fetch`` may be called by the engine's own thread."""
        return self._source.is_local

    def fetch(self, requests: Sequence[Fetch]) -> list[Lookup]:
        """Records, now; none when the source cannot answer, which is told as a SourceState."""
        try:
            return self._source.get_many([(r.slice, r.key) for r in requests])
        except SourceError as error:
            if self._error is None:
                # Until one of them is answered nobody asks again; then the source is back.
                self._requests.put(requests[0])
            self._lost(error)
            return []

    def ask(self, request: SourceRequest) -> None:
        """Have a request answered by and by."""
        self._requests.put(request)

    def close(self) -> None:
        """Deliver nothing more; the source itself stays open."""
        self._closing.set()
        self._requests.put(None)
        self._watch.close()
        self._thread.join()

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            pause_s = RETRY_MIN_S
            while not self._closing.is_set():
                try:
                    self._identify()
                    self._answer(request)
                except SourceError as error:
                    self._lost(error)
                    self._closing.wait(pause_s)
                    pause_s = min(pause_s * 2, RETRY_MAX_S)
                else:
                    self._back()
                    break

    def _identify(self) -> None:
        """Before the first answer, know whose it is."""
        if self._identity is None:
            self._identity = self._source.identity()
            self._deliver(StoreIs(self._identity))

    def _answer(self, request: SourceRequest) -> None:
        if isinstance(request, Fetch):
            self._deliver(self._source.get(request.slice, request.key))
        elif isinstance(request, Forget):
            self._watch.forget(request.slice)
        elif isinstance(request, Follow):
            since = request.since
            if since is None:
                snapshot = self._source.snapshot(request.slice)
                self._deliver(snapshot)
                since = snapshot.version
            self._watch.follow(request.slice, since)
        else:
            delta = self._source.delta(request.slice, request.since)
            if isinstance(delta, TooOld):
                snapshot = self._source.snapshot(request.slice)
                if snapshot.version < request.since:
                    # The store went back in time, or is another one.
                    snapshot = replace(snapshot, store=self._source.identity())
                self._deliver(snapshot)
            else:
                self._deliver(delta)

    def _lost(self, error: SourceError) -> None:
        if self._error != str(error):
            self._error = str(error)
            self._deliver(SourceState(self._error))

    def _back(self) -> None:
        if self._error is not None:
            self._error = None
            self._deliver(SourceState(None))

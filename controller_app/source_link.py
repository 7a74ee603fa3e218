"""Carries the engine's requests to a slice source and the answers back, on a thread of its own.

Requests are kept until they are answered: while the source is away they wait, in order, and are tried
again with growing pauses. So a follow is never lost, and the engine knows nothing of retries. Those for
a slice that cannot be read while others can are put aside, and hold up nobody else. Records that wait one
behind the other are asked for together.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller_app.log_limit import Warner
from controller_app.requests_aside import RequestsAside
from controller_app.source_log import SliceLog
from ondemand.messages import Fetch, Follow, Forget, SourceRequest
from ondemand.slices import (
    Delta,
    Lookup,
    SliceRefusedError,
    SliceSource,
    Snapshot,
    SourceError,
    SourceState,
    TooOld,
)

LOG = logging.getLogger(__name__)

#: Seconds between attempts while the source does not answer: the first pause and the longest.
RETRY_MIN_S: Final = 0.05
RETRY_MAX_S: Final = 2.0
#: As many records are asked for together; more would keep the first one waiting for the last.
FETCHES_TOGETHER: Final = 32


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
        warn: Callable[[str], None] | None = None,
        aside: RequestsAside | None = None,
    ) -> None:
        """Begin to watch.

        Args:
            source: is asked; it may be asked by others as well.
            deliver: takes the answers.
            identity: of the store which gave the versions that are followed from; None: unknown.
            warn: takes sentences for the log, from the link's thread; None: a ``Warner``.
            aside: where requests for slices wait that cannot be read; None: an empty one as usual.
        """
        self._source = source
        self._deliver = deliver
        self._requests: queue.SimpleQueue[SourceRequest | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._error: str | None = None
        self._identity = identity
        # These are of the link's thread.
        self._left: SourceRequest | None = None
        self._aside = RequestsAside() if aside is None else aside
        self._slice_log = SliceLog(Warner(LOG) if warn is None else warn)
        self._watch = source.watch(deliver, identity)
        self._thread = threading.Thread(target=self._run, name="slice-source", daemon=True)
        self._thread.start()

    @property
    def is_local(self) -> bool:
        """Whether ``fetch`` may be called by the engine's own thread."""
        return self._source.is_local

    def fetch(self, requests: Sequence[Fetch]) -> list[Lookup]:
        """Records, now, in any order. Those are left out that the source cannot give: when it gives
        none, that is told as a SourceState, and a slice that cannot be read is asked for by and by.
        """
        found: list[Lookup] = []
        try:
            try:
                return self._get_many(requests)
            except SliceRefusedError:
                for name in dict.fromkeys(request.slice for request in requests):
                    found += self._get_slice([one for one in requests if one.slice == name])
        except SourceError as error:
            was_there = self._error is None
            self._lost(error)
            if was_there:
                # Until one of them is answered nobody asks again; then the source is back.
                self._requests.put(requests[0])
        return found

    def _get_slice(self, requests: Sequence[Fetch]) -> list[Lookup]:
        try:
            return self._get_many(requests)
        except SliceRefusedError:
            # The link's thread finds out why, and puts them aside.
            for request in requests:
                self._requests.put(request)
            return []

    def _get_many(self, requests: Sequence[Fetch]) -> list[Lookup]:
        return self._source.get_many([(one.slice, one.key) for one in requests])

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
        while not self._closing.is_set():
            # One of each in turn, so that neither keeps the other waiting.
            name = self._aside.due(time.monotonic())
            if name is not None:
                self._try_again(name)
            request, self._left = self._left, None
            if request is None:
                try:
                    request = self._requests.get(timeout=self._aside.wait_s(time.monotonic()))
                except queue.Empty:
                    continue
            if request is None:
                return
            requests = self._with_fetches_behind(request)
            if not self._answer_together(requests):
                for one in requests:
                    self._take(one)

    def _with_fetches_behind(self, request: SourceRequest) -> list[SourceRequest]:
        """A request, and when it is a fetch, those that wait behind it with nothing else between."""
        requests = [request]
        while isinstance(requests[-1], Fetch) and len(requests) < FETCHES_TOGETHER:
            try:
                behind = self._requests.get_nowait()
            except queue.Empty:
                break
            if not isinstance(behind, Fetch):
                # None wakes up who is to end, and that he sees without it.
                self._left = behind
                break
            requests.append(behind)
        return requests

    def _answer_together(self, requests: Sequence[SourceRequest]) -> bool:
        """Answer several fetches, unless something is the matter, which each of them finds alone."""
        fetches = [one for one in requests if isinstance(one, Fetch)]
        if len(fetches) < 2 or any(map(self._aside.goes_behind, fetches)):
            return False
        try:
            self._identify()
            found = self._get_many(fetches)
        except SourceError:
            return False
        for lookup in found:
            self._deliver(lookup)
        self._back()
        return True

    def _take(self, request: SourceRequest) -> None:
        name = request.slice
        if isinstance(request, Forget):
            self._aside.drop(name)
            self._slice_log.forget(name)
        if self._aside.goes_behind(request):
            self._put_aside(request)
            if self._error is not None and name in self._aside:
                # A fetch found the source lost, and this request is to tell when it is back.
                self._try_again(name)
            return
        refusal = self._settle(request)
        if refusal is not None:
            self._put_aside(request)
            self._slice_log.refused(name, str(refusal))

    def _put_aside(self, request: SourceRequest) -> None:
        for name in self._aside.put(request, time.monotonic()):
            self._slice_log.forget(name)

    def _try_again(self, name: str) -> None:
        """Try the first request for a slice that is aside."""
        refusal = self._settle(self._aside.first(name))
        if self._closing.is_set():
            return
        now_s = time.monotonic()
        if refusal is None:
            self._aside.answered(name, now_s)
            self._slice_log.answered(name, now_s)
        else:
            self._aside.refused(name, now_s)
            self._slice_log.refused(name, str(refusal))

    def _settle(self, request: SourceRequest) -> SliceRefusedError | None:
        """Answer a request, however long the source is lost; why not, if only its slice is the matter."""
        pause_s = RETRY_MIN_S
        while not self._closing.is_set():
            try:
                self._identify()
                refusal = self._answer_unless_refused(request)
            except SourceError as error:
                self._lost(error)
                self._closing.wait(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
            else:
                self._back()
                return refusal
        return None

    def _answer_unless_refused(self, request: SourceRequest) -> SliceRefusedError | None:
        try:
            self._answer(request)
        except SliceRefusedError as error:
            # What may not even be asked which store it is, is lost as a whole: then this raises.
            self._source.identity()
            return error
        return None

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

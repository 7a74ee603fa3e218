"""Live changes from NATS: plain subscriptions, and a look into the stream where something is missing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from controller_app.nats_commit import (
    Commit,
    CommitError,
    StoreInfo,
    decode_commit,
    delta,
    snapshot,
    state_of,
)
from controller_app.nats_faults import NotPermittedError
from controller_app.nats_link import NatsLink
from controller_app.nats_messages import SliceDamagedError
from controller_app.nats_reader import NatsReader
from ondemand.slices import Deliver, Delta, Snapshot, SourceError, SourceEvent, SourceState

LOG = logging.getLogger(__name__)

#: The held version of a slice whose reader must get the snapshot, because the store is another one.
_UNKNOWN = -1


class NatsWatch:
    """A subscription (see ``slices.Watch``). Everything but the four public methods is of the loop."""

    def __init__(
        self,
        link: NatsLink,
        reader: NatsReader,
        deliver: Deliver,
        *,
        identity: str | None,
        on_close: Callable[[NatsWatch], object],
    ) -> None:
        self._link = link
        self._reader = reader
        self._deliver = deliver
        self._on_close = on_close
        self._closing = False
        self._held: dict[str, int] = {}
        self._subscriptions: dict[str, Subscription] = {}
        #: Slices of which something is missing; what comes of them is looked up, not taken as it is.
        self._behind: set[str] = set()
        #: Counts what was asked of a slice, so that an answer to an older question is seen as such.
        self._asked: dict[str, int] = {}
        #: The store that gave the versions which the reader follows from, None when it did not say.
        self._store_of_reader = identity
        self._store: StoreInfo | None = None
        self._store_subscription: Subscription | None = None
        self._verified = 0
        self._clients = 0
        self._must_verify = True
        self._reading: set[str] = set()
        #: Slices whose history has two ends; only the leader of the stream knows which one counts.
        self._forked: set[str] = set()
        #: Slices that cannot be read while others can, and why; each audit tries them again.
        self._unreadable: dict[str, str] = {}
        self._error: str | None = None
        self._audited: list[str] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # For other threads

    def start(self) -> None:
        self._link.call(self._start)

    def follow(self, name: str, since: int) -> None:
        self._link.post(lambda: self._follow(name, since))

    def forget(self, name: str) -> None:
        self._link.post(lambda: self._forget(name))

    def close(self) -> None:
        if self._link.is_own_thread():
            self._stop()
        elif not self._closing:
            try:
                self._link.call(self._close)
            except SourceError:
                self._closing = True  # the link was closed, and with it this
        self._on_close(self)

    # On the loop

    async def _start(self) -> None:
        self._link.on_change.add(self._changed)
        self._link.on_missed.add(self._missed)
        self._task = asyncio.create_task(self._run())

    async def _close(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._link.on_change.discard(self._changed)
        self._link.on_missed.discard(self._missed)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        for one in self._subscriptions.values():
            self._unsubscribe(one)
        self._subscriptions.clear()
        if self._store_subscription is not None:
            self._unsubscribe(self._store_subscription)
        self._wake.set()

    def _follow(self, name: str, since: int) -> None:
        is_other = (
            self._store is not None
            and self._store_of_reader is not None
            and self._store_of_reader != self._store.identity
        )
        self._held[name] = _UNKNOWN if is_other else since
        self._asked[name] = self._asked.get(name, 0) + 1
        self._behind.add(name)
        self._wake.set()

    def _forget(self, name: str) -> None:
        self._held.pop(name, None)
        self._behind.discard(name)
        self._asked.pop(name, None)
        self._forked.discard(name)
        self._unreadable.pop(name, None)
        subscription = self._subscriptions.pop(name, None)
        if subscription is not None:
            self._unsubscribe(subscription)

    def _unsubscribe(self, subscription: Subscription) -> None:
        self._link.spawn(self._link.unsubscribe(subscription))

    def _changed(self) -> None:
        """The connection came or went."""
        if not self._link.is_connected:
            self._lost(self._link.lost_error())
        self._wake.set()

    def _missed(self, subject: str) -> None:
        """A message was dropped because too many waited."""
        subjects = self._reader.subjects
        self._behind.update(name for name in self._held if subjects.live(name) == subject)
        self._must_verify = self._must_verify or subject == subjects.live_store
        self._wake.set()

    def _audit(self) -> None:
        """Nothing stays wrong for ever, whatever was lost on the way: look at one slice after another."""
        self._must_verify = True
        self._behind.update(self._unreadable)
        if not self._audited:
            self._audited = list(self._held)
        if self._audited:
            name = self._audited.pop()
            if name in self._held:
                self._behind.add(name)

    async def _run(self) -> None:
        options = self._link.options
        pause = options.retry_min_s
        # Hosts that started together must not look together ever after.
        audit = asyncio.get_running_loop().time() + options.audit_s * random.random()
        while not self._closing:
            self._wake.clear()
            now = asyncio.get_running_loop().time()
            if now >= audit:
                audit = now + options.audit_s
                self._audit()
            try:
                await self._verify()
                await self._reader.in_parallel(self._bring_if_readable, sorted(self._behind))
                pause = options.retry_min_s
            except SourceError as error:
                self._lost(error)
                await self._sleep(pause)
                pause = min(pause * 2, options.retry_max_s)
                continue
            if not self._behind and not self._must_verify:
                await self._sleep(max(0.0, audit - asyncio.get_running_loop().time()))

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    def _lost(self, error: SourceError) -> None:
        if self._error is None:
            self._error = str(error)
            self._tell(SourceState(self._error))

    async def _verify(self) -> None:
        """See whether the store is the one that it was; after a new connection all must be looked up."""
        link = self._link
        await link.ready()
        generation = link.generation
        if self._clients != link.clients:
            self._clients = link.clients
            self._subscriptions.clear()
            self._store_subscription = None
        if not self._must_verify and self._verified == generation:
            return
        if self._store_subscription is None:
            subject = self._reader.subjects.live_store
            self._store_subscription = await link.subscribe(subject, self._store_changed)
            await link.flush_for(subject)
        self._must_verify = True
        store = await self._reader.store()
        self._must_verify = False
        known = self._store_of_reader if self._store is None else self._store.identity
        self._store = store
        if known is not None and known != store.identity:
            self._held = dict.fromkeys(self._held, _UNKNOWN)
        if (known is not None and known != store.identity) or self._verified != generation:
            self._behind.update(self._held)
        self._verified = generation
        if self._error is not None and link.is_connected:
            self._error = None
            self._tell(SourceState(None))

    async def _store_changed(self, _: Msg) -> None:
        self._must_verify = True
        self._wake.set()

    async def _bring_if_readable(self, name: str) -> None:
        """As ``_bring``; what is wrong with one slice keeps nobody from the others."""
        try:
            await self._bring(name)
        except (NotPermittedError, SliceDamagedError) as error:
            self._behind.discard(name)
            if name in self._held and self._unreadable.get(name) != str(error):
                self._unreadable[name] = str(error)
                LOG.warning("%s", error)
        else:
            self._unreadable.pop(name, None)

    async def _bring(self, name: str) -> None:
        """Look up what a slice has that the reader has not, and deliver it."""
        held = self._held.get(name)
        if held is None:
            self._behind.discard(name)
            return
        asked = self._asked[name]
        if self._link.is_let_fall(self._reader.subjects.live(name)) and name in self._subscriptions:
            self._unsubscribe(self._subscriptions.pop(name))
        if name not in self._subscriptions:
            await self._subscribe(name)
        self._behind.discard(name)
        self._reading.add(name)
        is_done = False
        try:
            event = await self._event(name, held)
            is_done = True
        finally:
            self._reading.discard(name)
            if not is_done and name in self._held:
                self._behind.add(name)
        # Otherwise it was followed or forgotten anew, or the store is another one.
        if self._asked.get(name) == asked and self._held.get(name) == held:
            self._bring_to(name, event)

    async def _subscribe(self, name: str) -> None:
        async def receive(message: Msg) -> None:
            if _is_fork(message):
                self._forked.add(name)
                self._distrust(name)
            else:
                self._receive(name, message.data)

        subject = self._reader.subjects.live(name)
        subscription = await self._link.subscribe(subject, receive)
        try:
            # Only now is it certain that what is written after the look into the stream arrives.
            await self._link.flush_for(subject)
        except SourceError:
            self._unsubscribe(subscription)
            raise
        if self._closing or name not in self._held or name in self._subscriptions:
            self._unsubscribe(subscription)
        else:
            self._subscriptions[name] = subscription

    async def _event(self, name: str, held: int) -> Delta | Snapshot:
        is_fresh = name in self._forked
        if held != _UNKNOWN:
            found = await self._reader.delta(name, held)
            if isinstance(found, Delta):
                return found
            is_fresh = held > found.oldest
        # A replica that lags behind must not look like a store that went back in time.
        found_now = await self._reader.snapshot(name, is_fresh=is_fresh)
        store = self._store
        if store is None:
            raise self._link.lost_error()
        # Of a slice that this store never had, version 0 would look older than what is held.
        version = found_now.version or store.born
        # A version that this store has not reached is of another one.
        is_other = held == _UNKNOWN or held > version
        return Snapshot(name, version, found_now.records, store.identity if is_other else None)

    def _distrust(self, name: str) -> None:
        """What is held of a slice may be of a history that is no more."""
        if name in self._held:
            self._held[name] = _UNKNOWN
            self._behind.add(name)
            self._wake.set()

    def _receive(self, name: str, data: bytes) -> None:
        """A commit arrived. What does not follow what is held is looked up, and never guessed."""
        held = self._held.get(name)
        if held is None or self._closing:
            return
        event = None
        if held != _UNKNOWN and name not in self._behind and name not in self._reading:
            try:
                event = _event_of(name, held, decode_commit(name, data))
            except CommitError:
                event = None
        if event is None:
            self._behind.add(name)
            self._wake.set()
        else:
            self._bring_to(name, event)

    def _bring_to(self, name: str, event: Delta | Snapshot) -> None:
        if event.version == self._held[name]:
            return
        self._held[name] = event.version
        self._forked.discard(name)
        if isinstance(event, Snapshot) and event.store is not None:
            self._store_of_reader = event.store
        self._tell(event)

    def _tell(self, event: SourceEvent) -> None:
        if not self._closing:
            self._deliver(event)


def _is_fork(message: Msg) -> bool:
    """Whether a commit was stored that does not follow the one which it says it follows.

    nats-server 2.9 lets two through that come at the same time, when the stream has replicas.
    """
    headers = message.headers or {}
    meant = headers.get("Nats-Expected-Last-Subject-Sequence")
    return meant is not None and headers.get("Nats-Last-Sequence", meant) != meant


def _event_of(name: str, held: int, commit: Commit) -> Delta | Snapshot | None:
    """What a commit means to who holds version ``held``; None when it does not say."""
    if commit.version < held or not commit.tells_since(held):
        return None
    found = delta(name, held, commit, commit.records)
    if isinstance(found, Delta):
        return found
    if not commit.is_whole:
        return None
    return snapshot(state_of(name, 0, commit, {}))

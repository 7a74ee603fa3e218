"""A simulated host that follows the slice source: the agent's reader, watch and cache.

``controller_app.source_link`` does the same with a thread of its own: identify the store, take each
slice, follow it; what fails is tried again with growing pauses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from controller_app.nats_options import NatsAddress, NatsOptions
from controller_app.nats_reader import NatsReader
from controller_app.source_link import RETRY_MAX_S, RETRY_MIN_S
from ondemand.holdings import Identity
from ondemand.records import neighbor_key
from ondemand.slices import Delta, Lookup, SourceError, SourceEvent, SourceState, TooOld
from scale.following_watch import FollowingWatch
from scale.host import Host, Told
from scale.loop_link import LoopLink
from scale.region import Region, host_id, neighbor_ip, shard_slice

T = TypeVar("T")


class PullHost(Host):
    """See ``Host``."""

    def __init__(
        self, number: int, region: Region, told: Told, address: NatsAddress, options: NatsOptions
    ) -> None:
        super().__init__(number, region, told, saving=True)
        self._address = address
        self._options = options
        self._link: LoopLink | None = None
        self._reader: NatsReader | None = None
        self._watch: FollowingWatch | None = None
        self._healing: set[asyncio.Task[None]] = set()

    async def start(self, *, saved: bool) -> None:
        """Connect, hold everything and follow it; with ``saved`` from the versions of before."""
        self.served_s = self.follows_s = 0.0
        link = self._link = LoopLink(self._address, self._options)
        reader = self._reader = NatsReader(link)
        self.cache = self._new_cache()
        holdings, self.holdings = self.holdings, None
        identity = None
        restored = []
        if saved and holdings is not None:
            restored = self.cache.restore(holdings).slices
            identity = holdings.identity.source or None
            self.holdings = holdings
        watch = self._watch = FollowingWatch(link, reader, self._deliver, identity)
        watch.start()
        for one in restored:
            watch.follow(one.slice, one.version)
        if identity is None:
            store = await self._persistently(reader.store)
            identity = store.identity
        await self._read_missing(reader, watch)
        self.served_s = time.monotonic()
        if self.holdings is not None:
            self.holdings.identity = Identity(host_id(self.number), identity)
        await watch.follows_all.wait()
        self.follows_s = time.monotonic()

    async def _read_missing(self, reader: NatsReader, watch: FollowingWatch) -> None:
        for name in self.region.whole_slices(self.number):
            if self.cache.hold(name):
                snapshot = await self._persistently(partial(reader.snapshot, name))
                self.enter_event(snapshot)
                watch.follow(name, snapshot.version)
        for shard, numbers in self.region.held_neighbors(self.number).items():
            name = shard_slice(shard)
            if name in self.cache.versions():
                continue
            for lookup in await self._persistently(partial(self._lookups, reader, name, numbers)):
                if self.enter_lookup(lookup):
                    watch.follow(lookup.slice, lookup.version)

    @staticmethod
    async def _lookups(reader: NatsReader, name: str, numbers: tuple[int, ...]) -> list[Lookup]:
        places = [(name, neighbor_key(neighbor_ip(number))) for number in numbers]
        return await reader.get_many(places)

    async def _persistently(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        pause_s = RETRY_MIN_S
        while True:
            try:
                return await make()
            except SourceError:
                self.retries += 1
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)

    def _deliver(self, event: SourceEvent) -> None:
        if isinstance(event, SourceState):
            return
        heal = self.enter_event(event).heal
        if heal is not None:
            self.heals += 1
            task = asyncio.create_task(self._heal(heal.slice, heal.since))
            self._healing.add(task)
            task.add_done_callback(self._healing.discard)

    async def _heal(self, name: str, since: int) -> None:
        reader = self._reader
        if reader is None:
            return
        found: Delta | TooOld = await self._persistently(lambda: reader.delta(name, since))
        if isinstance(found, Delta):
            self.enter_event(found)
        else:
            self.enter_event(await self._persistently(lambda: reader.snapshot(name)))

    async def stop(self) -> None:
        """As a process that ends: the connection goes, what was saved stays."""
        for task in self._healing:
            task.cancel()
        if self._watch is not None:
            self._watch.close()
        if self._link is not None:
            await self._link.end()
        self._link = self._reader = self._watch = None

    @property
    def received(self) -> tuple[int, int]:
        """Messages and bytes over the connection that it has now."""
        return (0, 0) if self._link is None else self._link.received

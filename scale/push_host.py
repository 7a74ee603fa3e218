"""A simulated host that is sent its full goal state over a gRPC stream of its own.

What it has at the version that comes is passed over unread; all else is decoded and entered into the
agent's slice cache, as with the slice source.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import grpc
import grpc.aio

from ondemand.slices import Lookup, SliceKind, Snapshot, kind_of
from scale.host import Host, Told
from scale.push_wire import METHOD, decode_entries, decode_records
from scale.region import Region

_RETRY_S: Final = 0.2
_OPTIONS: Final = (
    # One TCP connection for each host, which gRPC would share between them otherwise.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
)


class PushHost(Host):
    """See ``Host``. ``saved`` of ``start`` means nothing: the push has no versions of the host's."""

    def __init__(self, number: int, region: Region, told: Told, target: str) -> None:
        super().__init__(number, region, told, saving=False)
        self._target = target
        self._channel: Any = None
        self._task: asyncio.Task[None] | None = None
        self._serving = asyncio.Event()
        self._messages = 0
        self._bytes = 0

    async def start(self, *, saved: bool) -> None:  # noqa: ARG002
        """Connect and wait for the first full goal state."""
        self.served_s = self.follows_s = 0.0
        self.cache = self._new_cache()
        self._serving = asyncio.Event()
        self._channel = grpc.aio.insecure_channel(self._target, options=_OPTIONS)
        self._task = asyncio.create_task(self._receive())
        await self._serving.wait()

    async def _receive(self) -> None:
        follow = self._channel.unary_stream(METHOD)
        while True:
            try:
                async for message in follow(str(self.number).encode()):
                    self._messages += 1
                    self._bytes += len(message)
                    self._enter(message)
                    if not self.served_s:
                        self.served_s = self.follows_s = time.monotonic()
                        self._serving.set()
            except grpc.aio.AioRpcError:
                self.retries += 1
            await asyncio.sleep(_RETRY_S)

    def _enter(self, message: bytes) -> None:
        for name, version, data in decode_entries(message):
            if self.cache.version(name) == version:
                continue
            is_part = kind_of(name) is SliceKind.NEIGHBORS
            records = decode_records(data)
            if is_part and not self.cache.is_held(name):
                for key, payload in records.items():
                    self.enter_lookup(Lookup(name, key, version, payload))
                continue
            if not is_part:
                self.cache.hold(name)
            self.enter_event(Snapshot(name, version, records))

    async def stop(self) -> None:
        """As a process that ends."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()
        self._task = self._channel = None

    @property
    def received(self) -> tuple[int, int]:
        """Messages and bytes since it was made."""
        return self._messages, self._bytes

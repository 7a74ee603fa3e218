"""A connection of the slice source on a loop that many share.

An agent has one connection, and a thread for it. Thousands of simulated hosts in a process share one
loop; all else of the source (reader, watch, commits) is the agent's own code.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import nats.errors

from controller_app.nats_link import NatsLink
from controller_app.nats_options import NatsAddress, NatsOptions

T = TypeVar("T")


class LoopLink(NatsLink):
    """Made, used and ended on the running loop."""

    def __init__(self, address: NatsAddress, options: NatsOptions) -> None:
        super().__init__(address, options)
        self._shared = asyncio.get_running_loop()

    def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What a coroutine returns that waits for nothing, as the beginning of a watch."""
        coroutine = make()
        try:
            coroutine.send(None)
        except StopIteration as end:
            value: T = end.value
            return value
        coroutine.close()
        raise RuntimeError("a call that waits would stop all hosts of this loop")

    def post(self, callback: Callable[[], object]) -> None:
        self._shared.call_soon(callback)

    def is_own_thread(self) -> bool:
        return True

    async def end(self) -> None:
        """Close the connection. What is under way on it ends with it."""
        self.on_change.clear()
        self.close()
        client, self._client = self._client, None
        if self._connecting is not None:
            self._connecting.cancel()
        if client is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await client.close()

    @property
    def received(self) -> tuple[int, int]:
        """Messages, and bytes of their payloads, that this connection has received."""
        if self._client is None:
            return 0, 0
        stats = self._client.stats
        return int(stats["in_msgs"]), int(stats["in_bytes"])

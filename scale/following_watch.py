"""The agent's watch, which also says when it follows everything that it was told to."""

from __future__ import annotations

import asyncio

from controller_app.nats_link import NatsLink
from controller_app.nats_reader import NatsReader
from controller_app.nats_watch import NatsWatch
from ondemand.slices import Deliver


class FollowingWatch(NatsWatch):
    """``follows_all`` is set while no slice is behind and no look into the stream is under way."""

    def __init__(
        self, link: NatsLink, reader: NatsReader, deliver: Deliver, identity: str | None
    ) -> None:
        super().__init__(link, reader, deliver, identity=identity, on_close=lambda _: None)
        self.follows_all = asyncio.Event()
        #: Calls of ``follow`` that the loop has not come to yet.
        self._to_come = 0

    def follow(self, name: str, since: int) -> None:
        self.follows_all.clear()
        self._to_come += 1
        super().follow(name, since)

    def _follow(self, name: str, since: int) -> None:
        self._to_come -= 1
        super()._follow(name, since)

    async def _bring(self, name: str) -> None:
        await super()._bring(name)
        if not self._behind and not self._reading and not self._to_come:
            self.follows_all.set()

"""The process that pushes: it keeps a stream to each host and sends it all it holds after a change.

``python -m scale.pusher`` takes its orders from standard input, see ``pipe``. Built as a push is that
means well: entries are encoded once and shared, only hosts that hold the changed slice are sent
anything, and a host that is slow is sent the newest state once, not every state between.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import grpc.aio

from ondemand.records import neighbor_key
from ondemand.slices import SliceKind, kind_of
from scale.goal import slices_of
from scale.machine import raise_file_limit
from scale.pipe import OrderReader, region_of, tell
from scale.push_wire import CALL, SERVICE, encode_entry, join_entries
from scale.region import Region, neighbor_ip, shard_slice

_FIRST_VERSION: Final = 1


class Pusher:
    """The goal state, and the hosts that are connected."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._slices = {
            name: dict(records) for name, records in slices_of(region, in_use_only=True)
        }
        self._versions = dict.fromkeys(self._slices, _FIRST_VERSION)
        self._shared: dict[str, bytes] = {}
        self._own: dict[int, bytes] = {}
        self._shards = {shard_slice(shard): shard for shard in region.followers_of}
        self._waiting: dict[int, asyncio.Event] = {}
        self.messages = 0
        self.bytes = 0

    def change(self, name: str, key: str, payload: bytes, hosts: list[int]) -> int:
        """Enter a change and wake the streams of the hosts that it interests; its version."""
        self._slices[name][key] = payload
        self._versions[name] += 1
        self._shared.pop(name, None)
        if not self._region.everything and kind_of(name) is SliceKind.NEIGHBORS:
            for host in hosts:
                self._own.pop(host, None)
        for host in hosts:
            waiting = self._waiting.get(host)
            if waiting is not None:
                waiting.set()
        return self._versions[name]

    def _entry(self, name: str) -> bytes:
        found = self._shared.get(name)
        if found is None:
            found = encode_entry(name, self._versions[name], self._slices[name])
            self._shared[name] = found
        return found

    def _state(self, host: int) -> bytes:
        """All that a host holds."""
        region = self._region
        entries = [self._entry(name) for name in region.whole_slices(host)]
        held = region.held_neighbors(host)
        if region.everything:
            entries += [self._entry(shard_slice(shard)) for shard in held]
            return join_entries(entries)
        own = self._own.get(host)
        if own is None:
            own = self._own[host] = b"".join(
                self._part(shard_slice(shard), numbers) for shard, numbers in held.items()
            )
        # The own part is one piece of several entries.
        return join_entries([*entries, *[b""] * len(held)]) + own

    def _part(self, name: str, numbers: tuple[int, ...]) -> bytes:
        records = self._slices[name]
        keys = [neighbor_key(neighbor_ip(number)) for number in numbers]
        return encode_entry(name, self._versions[name], {key: records[key] for key in keys})

    async def follow(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        """The stream of one host."""
        host = int(request)
        mine = self._waiting[host] = asyncio.Event()
        mine.set()
        try:
            while True:
                await mine.wait()
                mine.clear()
                state = self._state(host)
                self.messages += 1
                self.bytes += len(state)
                yield state
        finally:
            if self._waiting.get(host) is mine:
                del self._waiting[host]

    def truth(self) -> dict[str, dict[str, bytes]]:
        return self._slices


async def serve(orders: OrderReader) -> None:
    """Until standard input ends."""
    first = await orders.next()
    if first is None:
        return
    pusher = Pusher(region_of(first["region"]))
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    handler = grpc.unary_stream_rpc_method_handler(pusher.follow)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {CALL: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.collect()
    gc.freeze()
    tell({"port": port, "pid": os.getpid()})
    while (order := await orders.next()) is not None:
        if order["do"] == "change":
            payload = bytes.fromhex(order["payload"])
            version = pusher.change(order["slice"], order["key"], payload, order["hosts"])
            tell({"version": version})
        elif order["do"] == "counters":
            tell({"messages": pusher.messages, "bytes": pusher.bytes})
        elif order["do"] == "truth":
            tell(
                {
                    "slices": {
                        n: {k: p.hex() for k, p in r.items()} for n, r in pusher.truth().items()
                    }
                }
            )
    await server.stop(None)


def main() -> int:
    raise_file_limit()
    asyncio.run(_main())
    return 0


async def _main() -> None:
    await serve(await OrderReader.of_stdin())


if __name__ == "__main__":
    sys.exit(main())

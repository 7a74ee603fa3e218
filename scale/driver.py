"""A process of simulated hosts on one event loop.

``python -m scale.driver`` takes orders from its parent (``crowd``): which hosts to start or stop, which
changes to wait for, and to compare what is held with what should be.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from controller_app.nats_options import NatsAddress, NatsOptions
from controller_app.nats_reader import NatsReader
from ondemand.codec import decode_record
from ondemand.records import Record
from scale.loop_link import LoopLink
from scale.machine import raise_file_limit
from scale.pipe import Message, OrderReader, region_of, tell
from scale.pull_host import PullHost
from scale.region import Region, shard_slice

#: Hosts that begin at the same moment. The loop is what all of them share here, as hosts do not: with
#: thousands at once their time-outs would tell of it, and not of the server.
AT_ONCE: Final = 64
_PROGRESS_S: Final = 0.5


class Driver:
    """The hosts of one process."""

    def __init__(self, order: Message) -> None:
        self._order = order
        self.region: Region = region_of(order["region"])
        self._make = self._maker(order)
        self._hosts = {number: self._make(number) for number in order["hosts"]}
        #: Of each (slice, version), which hosts entered it, how many changes it was, and when.
        self._entered: dict[tuple[str, int], dict[int, tuple[int, float]]] = {}
        #: Changes that came out of a version which the host had entered already.
        self._twice = 0
        self._expected: tuple[tuple[str, int], int] | None = None
        self._arrived = asyncio.Event()

    def _maker(self, order: Message) -> Callable[[int], Any]:
        if order["kind"] == "push":
            # gRPC is an extra, and only the push needs it.
            from scale.push_host import PushHost  # noqa: PLC0415

            return lambda number: PushHost(number, self.region, self._told, order["target"])
        address, options = self._source()
        return lambda number: PullHost(number, self.region, self._told, address, options)

    def _source(self) -> tuple[NatsAddress, NatsOptions]:
        options = NatsOptions(timeout_s=self._order["timeout_s"], audit_s=self._order["audit_s"])
        return NatsAddress((self._order["target"],)), options

    def _told(self, host: int, name: str, version: int, changes: int, now_s: float) -> None:
        place = (name, version)
        entered = self._entered.setdefault(place, {})
        if host in entered:
            self._twice += changes
            return
        entered[host] = (changes, now_s)
        if self._expected == (place, len(entered)):
            self._arrived.set()

    async def start(self, numbers: Sequence[int], *, saved: bool) -> Message:
        """Start hosts; when each served and followed, in the order of ``numbers``."""
        gate = asyncio.Semaphore(AT_ONCE)
        done = 0
        for entered in self._entered.values():
            for number in numbers:
                # Its cache is a new one.
                entered.pop(number, None)

        async def start(number: int) -> None:
            nonlocal done
            async with gate:
                await self._hosts[number].start(saved=saved)
                done += 1

        tasks = [asyncio.create_task(start(number)) for number in numbers]
        while tasks:
            _, pending = await asyncio.wait(tasks, timeout=_PROGRESS_S)
            if not pending:
                break
            tell({"progress": done})
        for task in tasks:
            task.result()
        if len(numbers) == len(self._hosts):
            gc.collect()
            gc.freeze()
        return {
            "served": [self._hosts[number].served_s for number in numbers],
            "follows": [self._hosts[number].follows_s for number in numbers],
        }

    async def stop(self, numbers: Sequence[int]) -> Message:
        gate = asyncio.Semaphore(AT_ONCE)

        async def stop(number: int) -> None:
            async with gate:
                await self._hosts[number].stop()

        await asyncio.gather(*map(stop, numbers))
        return {}

    async def wait(self, name: str, version: int, count: int, timeout_s: float) -> Message:
        """Wait until so many hosts entered a version; who did, how many changes it was, and when."""
        place = (name, version)
        self._arrived.clear()
        self._expected = (place, count)
        if len(self._entered.get(place, ())) < count:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), timeout_s)
        self._expected = None
        entered = self._entered.get(place, {})
        return {"entered": [(host, *what) for host, what in entered.items()]}

    async def check(self, order: Message) -> Message:
        """Compare all hosts with the store, or with the goal state that is given."""
        names = {name for number in self._hosts for name in self.region.whole_slices(number)}
        for number in self._hosts:
            names.update(map(shard_slice, self.region.held_neighbors(number)))
        if "slices" in order:
            payloads = {
                name: {key: bytes.fromhex(text) for key, text in order["slices"][name].items()}
                for name in names
            }
        else:
            payloads = await self._stored(names)
        truth: dict[str, dict[str, Record]] = {
            name: {key: decode_record(name, key, data) for key, data in records.items()}
            for name, records in payloads.items()
        }
        different = [text for host in self._hosts.values() for text in host.differences(truth)]
        return {"different": len(different), "first": different[:3]}

    async def _stored(self, names: set[str]) -> dict[str, dict[str, bytes]]:
        link = LoopLink(*self._source())
        reader = NatsReader(link)
        found: dict[str, dict[str, bytes]] = {}

        async def read(name: str) -> None:
            found[name] = dict((await reader.snapshot(name)).records)

        await reader.in_parallel(read, sorted(names))
        await link.end()
        return found

    def state(self) -> Message:
        hosts = self._hosts.values()
        received = [host.received for host in hosts]
        return {
            "heals": sum(host.heals for host in hosts),
            "retries": sum(host.retries for host in hosts),
            "twice": self._twice,
            "messages": sum(messages for messages, _ in received),
            "bytes": sum(size for _, size in received),
        }

    async def obey(self, order: Message) -> Message:
        match order["do"]:
            case "start":
                return await self.start(order["hosts"], saved=order["saved"])
            case "stop":
                return await self.stop(order["hosts"])
            case "wait":
                return await self.wait(
                    order["slice"], order["version"], order["count"], order["timeout_s"]
                )
            case "check":
                return await self.check(order)
            case "state":
                return self.state()
        raise ValueError(f"an order that no driver knows: {order['do']!r}")


async def drive(orders: OrderReader) -> None:
    """Until the parent closes our standard input."""
    first = await orders.next()
    if first is None:
        return
    driver = Driver(first)
    tell({"pid": os.getpid()})
    while (order := await orders.next()) is not None:
        tell(await driver.obey(order))


async def _main() -> None:
    await drive(await OrderReader.of_stdin())


def main() -> int:
    raise_file_limit()
    # Hosts are a hundred thousand long-lived objects; looking through them again and again would be
    # a cost of the simulation only.
    gc.set_threshold(50_000, 50, 1000)
    asyncio.run(_main())
    # Tasks of thousands of connections are not worth an orderly end.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())

"""What a record, a connection and a subscription take: on the wire, in an agent, in nats-server.

``python -m scale.memory`` measures each by making many and dividing. Resident memory comes in whole
pages and a Go program keeps what it freed for a while, so figures of the server are rough.
"""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click

from controller_app.cli_support import CommandError, errors_to_exit
from mininet_topos.errors import LabError
from mininet_topos.lab_run import LabRun
from ondemand.slice_cache import SliceCache
from ondemand.slices import Lookup, Snapshot, group_slice, host_slice
from scale.bare import BareCrowd
from scale.contest import goal_slices
from scale.goal import Payloads
from scale.machine import raise_file_limit, rss_bytes
from scale.origin import NatsOrigin
from scale.region import COMMON, Region, host_id, shard_slice
from scale.tables import text_table

_CACHE_BYTES: Final = 1 << 32
#: Records that are held in a cache to see what one takes.
_HELD: Final = 20_000
#: Subscriptions of a connection beside the first one.
_MORE: Final = 20
#: What the server has freed it gives back by and by.
_SETTLE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes of one thing, as the mean over ``count`` of them."""

    where: str
    what: str
    bytes: float
    count: int


def wire(slices: dict[str, Payloads]) -> list[Measured]:
    """Keys and payloads of records."""
    kinds = {
        "neighbor": [name for name in slices if name.startswith("nbr/")],
        "security rule": [group_slice(COMMON)],
        "port": [host_slice(host_id(0))],
    }
    found = []
    for what, names in kinds.items():
        sizes = [len(k) + len(p) for name in names for k, p in slices[name].items()]
        found.append(Measured("on the wire", what, sum(sizes) / len(sizes), len(sizes)))
    return found


def agent(region: Region) -> list[Measured]:
    """Records in the slice cache of an agent, with all objects around them (tracemalloc)."""
    slices = goal_slices(region)
    shards = {shard_slice(shard): slices[shard_slice(shard)] for shard in range(region.all_shards)}
    lookups = [
        Lookup(name, key, 1, payload)
        for name, records in shards.items()
        for key, payload in records.items()
    ][:_HELD]

    def neighbors() -> SliceCache:
        cache = SliceCache(_CACHE_BYTES)
        for lookup in lookups:
            cache.put(lookup)
        return cache

    def whole(name: str) -> Callable[[], SliceCache]:
        def make() -> SliceCache:
            cache = SliceCache(_CACHE_BYTES)
            cache.hold(name)
            cache.apply(Snapshot(name, 1, slices[name]))
            return cache

        return make

    rules, ports = group_slice(COMMON), host_slice(host_id(0))
    return [
        _traced("neighbor, held in part", neighbors, len(lookups)),
        _traced("security rule", whole(rules), len(slices[rules])),
        _traced("port", whole(ports), len(slices[ports])),
    ]


def _traced(what: str, make: Callable[[], SliceCache], count: int) -> Measured:
    gc.collect()
    tracemalloc.start()
    kept = make()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return Measured("in the agent's cache", what, size / count, count)


def server_records(run: LabRun, neighbors: int) -> list[Measured]:
    """Neighbors in nats-server: resident memory, and bytes on disk."""
    region = Region(hosts=1, neighbors=neighbors)
    with ExitStack() as stack:
        origin = NatsOrigin(run, "nats-records")
        stack.callback(origin.close)
        empty = _settled(origin)
        slices = goal_slices(region)
        origin.publish_all(slices, None)
        written = _settled(origin)
        # The server keeps blocks of the stream that were read, for some seconds.
        origin.store.summaries()
        read = rss_bytes(origin.pid)
        disk = sum(path.stat().st_size for path in _files(origin.store_folder))
    return [
        Measured("in nats-server", "neighbor, written", (written - empty) / neighbors, neighbors),
        Measured("in nats-server", "neighbor, just read", (read - empty) / neighbors, neighbors),
        Measured("in nats-server", "slice, written", (written - empty) / len(slices), len(slices)),
        Measured("on the disk of nats-server", "neighbor", disk / neighbors, neighbors),
    ]


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def server_connections(run: LabRun, count: int) -> list[Measured]:
    """Connections and subscriptions in nats-server, by bare sockets."""
    seen: dict[str, float] = {}
    plans = {
        "one": ["ondemand.live.sg.all"],
        "shared": [f"ondemand.live.sg.{number}" for number in range(_MORE + 1)],
        "own": [f"ondemand.live.host.{{}}-{number}" for number in range(_MORE + 1)],
    }
    for name, subjects in plans.items():
        with ExitStack() as stack:
            origin = NatsOrigin(run, f"nats-{name}")
            stack.callback(origin.close)
            empty = _settled(origin)
            crowd = BareCrowd(run, origin.target, count, subjects)
            stack.callback(crowd.close)
            seen[name] = (_settled(origin) - empty) / count
    where = "in nats-server"
    return [
        Measured(where, "connection, one subscription", seen["one"], count),
        Measured(
            where,
            "subscription that all have",
            (seen["shared"] - seen["one"]) / _MORE,
            count * _MORE,
        ),
        Measured(
            where, "subscription of one alone", (seen["own"] - seen["one"]) / _MORE, count * _MORE
        ),
    ]


def _settled(origin: NatsOrigin) -> int:
    time.sleep(_SETTLE_S)
    return rss_bytes(origin.pid)


@click.command()
@click.option("--neighbors", type=click.IntRange(1000), default=1_000_000, show_default=True)
@click.option("--connections", type=click.IntRange(10), default=3_000, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False))
def command(*, neighbors: int, connections: int, json_file: Path | None) -> None:
    """Measure bytes per record, connection and subscription."""
    raise_file_limit()
    small = Region(hosts=1, neighbors=_HELD, rules=1000)
    try:
        with errors_to_exit(), LabRun() as run:
            found = wire(goal_slices(small)) + agent(small)
            found += server_records(run, neighbors)
            found += server_connections(run, connections)
    except LabError as error:
        raise CommandError(str(error)) from error
    rows = [(one.where, one.what, f"{one.bytes:,.0f}", f"{one.count:,}") for one in found]
    for line in text_table(("where", "one", "bytes", "mean of"), rows, left=2):
        click.echo(line)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")


if __name__ == "__main__":
    command()

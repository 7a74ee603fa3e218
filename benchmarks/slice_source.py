"""What questions to a slice source take: an SQLite file and a NATS server, by the same calls.

Both are asked through the contract that the agent uses (``ondemand.slices.SliceSource``) and the one that
publishers use, the server over loopback by a connection of its own. They take turns. No root, no switch.

    python -m benchmarks.slice_source [--source sqlite|nats|both] [--neighbors N] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.machine import describe_machine, machine_line
from benchmarks.summary import Spread, table
from controller_app.source_factory import SliceStore, open_store
from mininet_topos.errors import LabError
from mininet_topos.nats_server import NatsServer
from ondemand.addresses import parse_prefix
from ondemand.goal_state import encode_slices
from ondemand.publishing import Payloads
from ondemand.records import neighbor_key
from ondemand.slices import Delta, Snapshot, SourceEvent
from ondemand.synthetic import neighbor_slices, synthetic_neighbors

VPC: Final = "bench"
PREFIX: Final = "10.64.0.0/12"
#: RFC 2544 reserves 198.18.0.0/15 for benchmarks.
HOSTS: Final = tuple(bytes((198, 18, 0, number)) for number in range(1, 51))
SHARDS_ASKED: Final = 50
#: Records of the slices that are written to; and changes of a delta.
SMALL, LARGE, CHANGED = 3, 1_000, 10
WAIT_S: Final = 60.0

#: Seconds of one try, by what was asked.
Taken = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Parameters:
    """Neighbors in the store, and how often each question is asked."""

    neighbors: int
    asked: int


class Followed:
    """Counts what a watch delivers."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._records = 0
        self._versions: dict[str, int] = {}

    def deliver(self, event: SourceEvent) -> None:
        with self._news:
            if isinstance(event, Snapshot):
                self._records += len(event.records)
            elif isinstance(event, Delta):
                self._records += len(event.changes)
            else:
                return
            self._versions[event.slice] = event.version
            self._news.notify()

    def wait_for_records(self, count: int) -> None:
        self._wait(lambda: self._records >= count)

    def wait_for_version(self, name: str, version: int) -> None:
        self._wait(lambda: self._versions.get(name, 0) >= version)

    def _wait(self, reached: Callable[[], bool]) -> None:
        with self._news:
            if not self._news.wait_for(reached, WAIT_S):
                raise LabError(f"what was published did not arrive in {WAIT_S:g} s")


def measure(place: str, parameters: Parameters) -> Taken:
    """All questions to one empty store, once or as often as the parameters say."""
    taken: Taken = {}
    payloads = neighbors(parameters.neighbors)
    names = sorted(payloads)
    with ExitStack() as stack:
        writer = open_store(place, writer=True)
        stack.callback(writer.close)
        for what in ("publish all neighbors", "the same again, nothing changed"):
            taken[what] = [timed(lambda: writer.publish(payloads, replace_all=False))]
        for size in (SMALL, LARGE):
            writer.publish({group(size): rows(size, 0)}, replace_all=False)
        reader = open_store(place)
        stack.callback(reader.close)
        reader.get(names[0], next(iter(payloads[names[0]])))
        ask(reader, writer, payloads, parameters.asked, taken)
        reader = open_store(place)
        stack.callback(reader.close)
        seen = Followed()
        watch = reader.watch(seen.deliver)
        start_s = time.perf_counter()
        for name in names:
            watch.follow(name, 0)
        seen.wait_for_records(parameters.neighbors)
        taken[f"follow all {len(names):,} slices from nothing"] = [time.perf_counter() - start_s]
        watch.close()
    return taken


def ask(
    reader: SliceStore,
    writer: SliceStore,
    payloads: Mapping[str, Payloads],
    count: int,
    taken: Taken,
) -> None:
    """The questions of an agent, and the writes of a publisher."""
    names = sorted(payloads)
    keys = {name: next(iter(payloads[name])) for name in names}
    some = names[:: max(1, len(names) // SHARDS_ASKED)][:SHARDS_ASKED]
    per_shard = len(payloads[names[0]])
    turns = [names[number % len(names)] for number in range(count)]
    taken[f"get, from a shard of {per_shard} records"] = [
        timed(partial(reader.get, name, keys[name])) for name in turns
    ]
    taken[f"get_many, from {len(some)} shards"] = [
        timed(lambda: reader.get_many([(name, keys[name]) for name in some]))
        for _ in range(max(1, count // 10))
    ]
    taken[f"snapshot of {LARGE:,} records"] = [
        timed(lambda: reader.snapshot(group(LARGE))) for _ in range(count)
    ]
    version = reader.snapshot(group(LARGE)).version
    taken["delta, nothing changed"] = [
        timed(lambda: reader.delta(group(LARGE), version)) for _ in range(count)
    ]
    writer.write(group(LARGE), rows(CHANGED, 1))
    taken[f"delta of {CHANGED} changes"] = [
        timed(lambda: reader.delta(group(LARGE), version)) for _ in range(count)
    ]
    for size in (SMALL, LARGE):
        taken[f"write one record, in a slice of {size:,}"] = [
            timed(partial(writer.write, group(size), rows(1, turn))) for turn in range(2, 2 + count)
        ]
    seen = Followed()
    watch = reader.watch(seen.deliver)
    before = reader.snapshot(group(SMALL)).version
    watch.follow(group(SMALL), before)
    arrivals = []
    for turn in range(count):
        start_s = time.perf_counter()
        made = writer.write(group(SMALL), rows(1, count + 2 + turn))
        seen.wait_for_version(group(SMALL), made)
        arrivals.append(time.perf_counter() - start_s)
    taken["a change, from write to a watch elsewhere"] = arrivals
    watch.close()


def timed(call: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s


def neighbors(count: int) -> dict[str, dict[str, bytes]]:
    """Payloads of ``count`` neighbors, by slice and key."""
    made = synthetic_neighbors(
        subnet="far", prefix=parse_prefix(PREFIX), count=count, hosts=HOSTS, groups=("members",)
    )
    return encode_slices(neighbor_slices(VPC, made))


def group(size: int) -> str:
    """The slice that is written to."""
    return f"nbr/written/10.0.{size % 250}.0"


def rows(count: int, turn: int) -> dict[str, bytes]:
    """Payloads as large as a neighbor's, another one each turn."""
    keys = [neighbor_key(bytes((10, 0, number >> 8, number & 255))) for number in range(count)]
    return {key: f"{turn:010}".encode().ljust(70, b".") for key in keys}


def places(kinds: tuple[str, ...], folder: Path, stack: ExitStack) -> Iterator[tuple[str, str]]:
    """Each kind with a store of its own that is empty."""
    for kind in kinds:
        if kind == "sqlite":
            yield "SQLite file", str(folder / "slices.db")
        else:
            server = NatsServer(folder)
            server.start()
            stack.callback(server.stop)
            yield "NATS server", server.url


def milliseconds(spread: Spread, values: list[float]) -> str:
    shown = Spread(spread.median * 1e3, spread.low * 1e3, spread.high * 1e3)
    return shown.text(2) if len(values) > 1 else f"{shown.median:,.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slice_source", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--source", choices=("sqlite", "nats", "both"), default="both")
    parser.add_argument("--neighbors", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="100,000 neighbors, fewer questions")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if not 1_000 <= options.neighbors <= 1_000_000:
        parser.error("--neighbors is 1,000 to 1,000,000")
    count = min(options.neighbors, 100_000) if options.quick else options.neighbors
    parameters = Parameters(count, 50 if options.quick else 300)
    kinds = ("sqlite", "nats") if options.source == "both" else (options.source,)
    machine = describe_machine()
    print(machine_line(machine))
    results: dict[str, Taken] = {}
    with tempfile.TemporaryDirectory(prefix="ondemand-bench-") as folder, ExitStack() as stack:
        for title, place in places(kinds, Path(folder), stack):
            print(f"{title}, {parameters.neighbors:,} neighbors", file=sys.stderr)
            results[title] = measure(place, parameters)
    found = {
        title: {what: Spread.of(values) for what, values in taken.items()}
        for title, taken in results.items()
    }
    lines = [
        [what, *(milliseconds(taken[what], results[title][what]) for title, taken in found.items())]
        for what in next(iter(found.values()))
    ]
    print(table(["ms, median (least-greatest)", *found], lines))
    if options.json is not None:
        content = {
            "benchmark": "slice_source",
            "machine": machine,
            "parameters": {"neighbors": parameters.neighbors, "asked": parameters.asked},
            "seconds": {
                title: {what: spread.as_json() for what, spread in taken.items()}
                for title, taken in found.items()
            },
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The benchmarks that there are. One line here adds one to ``ondemand bench`` and to the suite.

Nothing is imported but what finds a name; a benchmark's own module is loaded when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ondemand.goal_problems import did_you_mean

#: Arguments of one run.
Arguments = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark as the suite sees it.

    Attributes:
        name: as it is asked for.
        stem: its module in this package, a command with ``--json FILE``.
        summary: one line for a list.
        needs_root: it makes network namespaces.
        full, quick: what the suite runs, each with its arguments; usually one run. The module's result
            goes to the view of that name (``suite_views``), or is shown as plain tables without one.
    """

    name: str
    stem: str
    summary: str
    needs_root: bool = False
    full: tuple[Arguments, ...] = ((),)
    quick: tuple[Arguments, ...] = (("--quick",),)

    @property
    def module(self) -> str:
        return f"benchmarks.{self.stem}"

    def runs(self, *, quick: bool) -> tuple[Arguments, ...]:
        return self.quick if quick else self.full


#: In the order in which the suite runs them.
BENCHMARKS: Final = (
    Benchmark(
        "setup",
        "setup_rate",
        "New flows that a controller sets up: latency and rate.",
        full=(("--matrix", "--repetitions", "2"),),
    ),
    Benchmark(
        "first-packet",
        "first_packet",
        "First packets from VM to VM.",
        needs_root=True,
        full=(("--window", "1,64"),),
    ),
    Benchmark(
        "tcp-crr",
        "tcp_crr",
        "TCP connections a second and throughput, from VM to VM.",
        needs_root=True,
        full=(("--rounds", "2"),),
    ),
    Benchmark(
        "cold-start",
        "cold_start",
        "From the start of a host to its first packet, and to full service.",
        needs_root=True,
        full=(("--source", "sqlite"),),
        quick=(("--quick", "--source", "sqlite"),),
    ),
    Benchmark(
        "change",
        "change",
        "From publishing a change to its effect.",
        needs_root=True,
        full=(("--repetitions", "10"),),
    ),
    Benchmark(
        "provision",
        "provision",
        "From a port that appears to its first packet.",
        needs_root=True,
        full=(("--neighbors", "1000,1000000", "--ports", "1,50", "--repetitions", "5"),),
    ),
    Benchmark("memory", "agent_memory", "What an agent takes: neighbors, rules, parked packets."),
    Benchmark(
        "traffic",
        "traffic",
        "An hour of a host's traffic: packet-ins and rules by idle timeout.",
        full=(("--idle", "5,30,120,300"),),
    ),
    Benchmark("record-decode", "record_decode", "Decoding and checking a record, by library."),
    Benchmark("slice-source", "slice_source", "Questions to an SQLite file and a NATS server."),
)


class UnknownBenchmarkError(ValueError):
    """There is no benchmark of a name; the message says which there are."""


def find(name: str, known: Sequence[Benchmark] = BENCHMARKS) -> Benchmark:
    """By name, or by the name of its module.

    Raises:
        UnknownBenchmarkError: there is none.
    """
    for one in known:
        if name in (one.name, one.stem):
            return one
    names = [one.name for one in known]
    hint = did_you_mean(name, [*names, *(one.stem for one in known)])
    raise UnknownBenchmarkError(
        f"there is no benchmark {name!r}{hint or '; there are ' + ', '.join(names)}"
    )


__all__ = ["BENCHMARKS", "Arguments", "Benchmark", "UnknownBenchmarkError", "find"]

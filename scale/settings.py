"""What the experiment is asked to do, and at which sizes it does so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scale.region import Region

STEPS: Final = ("restart", "rolling", "idle", "slices", "push", "bare", "hosts", "goal-sizes")
#: Host counts between the first and the largest: three to a power of ten, about.
_COUNTS: Final = tuple(base * 10**power for power in range(2, 7) for base in (1, 3))
_QUICK_COUNTS: Final = (30, 100)
#: Bytes of goal state of one host.
_GOALS: Final = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_QUICK_GOALS: Final = (1_000, 30_000, 1_000_000)
#: Bytes of goal state that all hosts of one size hold together, and how many hosts there are then.
_GOAL_TOTAL: Final = 30_000_000
_QUICK_GOAL_TOTAL: Final = 3_000_000
_GOAL_HOSTS: Final = (3, 50)
#: Of a neighbor: its key, its record.
_NEIGHBOR_BYTES: Final = 76


@dataclass(frozen=True, slots=True)
class Settings:
    """See the options of the command.

    Attributes:
        hosts: the largest number of hosts.
        at: the numbers of hosts that are measured; () for the usual ones up to ``hosts``.
        ports_per_host, neighbors, rules, seed: of the region.
        quick: the short form.
        without: names of ``STEPS`` that are left out.
        drivers: processes of simulated hosts.
        budget_s: no further size is begun that would end later than this, as the last one tells.
        audit_s: how often a host looks whether it missed something.
        earlier: JSON files of earlier runs, whose figures are shown together with those of this one.
        json_file, plot_file: where results go.
    """

    hosts: int = 10_000
    at: tuple[int, ...] = ()
    ports_per_host: int = 20
    neighbors: int = 1_000_000
    rules: int = 100
    seed: int = 1
    quick: bool = False
    without: frozenset[str] = frozenset()
    drivers: int = 2
    budget_s: float = 900.0
    audit_s: float = 10.0
    earlier: tuple[Path, ...] = ()
    json_file: Path | None = None
    plot_file: Path | None = None

    def host_counts(self) -> tuple[int, ...]:
        """The numbers of hosts that are to be measured, growing."""
        if self.at:
            return tuple(sorted(set(self.at)))
        counts = (*_QUICK_COUNTS, *_COUNTS) if self.quick else _COUNTS
        return tuple(sorted({*(count for count in counts if count < self.hosts), self.hosts}))

    def goal_sizes(self) -> tuple[int, ...]:
        return _QUICK_GOALS if self.quick else _GOALS

    def region(self, hosts: int) -> Region:
        return Region(
            hosts=hosts,
            ports_per_host=self.ports_per_host,
            neighbors=self.neighbors,
            rules=self.rules,
            seed=self.seed,
        )

    def goal_region(self, goal_bytes: int, *, everything: bool) -> Region:
        """Few hosts with few rules, in a VPC with as many neighbors as make up a goal state."""
        total = _QUICK_GOAL_TOTAL if self.quick else _GOAL_TOTAL
        low, high = _GOAL_HOSTS
        return Region(
            hosts=max(low, min(high, total // goal_bytes)),
            ports_per_host=2,
            neighbors=max(4, goal_bytes // _NEIGHBOR_BYTES - 8),
            rules=2,
            everything=everything,
            seed=self.seed,
        )


def hosts_that_fit(
    counts: tuple[int, ...], *, drivers: int, file_limit: int, free_bytes: int, host_bytes: int
) -> tuple[tuple[int, ...], str]:
    """The numbers of hosts that this machine can hold, and why no more; "" when all fit.

    A host is an open file in the server and one in a driver, and takes ``host_bytes`` of memory.
    """
    spare = 256
    by_files = min(file_limit - spare, (file_limit - spare) * drivers)
    by_memory = free_bytes // host_bytes
    fitting = tuple(count for count in counts if count <= min(by_files, by_memory))
    if len(fitting) == len(counts):
        return fitting, ""
    if by_files <= by_memory:
        return fitting, f"a process may open {file_limit:,} files (ulimit -n)"
    return fitting, f"{free_bytes / 1e9:.1f} GB of memory are free"


__all__ = ["STEPS", "Settings", "hosts_that_fit"]

"""The cells of ``setup_rate``: how many security rules, how many neighbors, what rules match.

One cell, the largest, is measured with all contenders. The others differ from it in one number, so that a
line through them shows what that number does.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import vpc
from benchmarks.answer_check import AnswerCheck
from benchmarks.flow_plan import FlowPlan, make_plan
from benchmarks.vpc import VpcSize

#: Local ports. With so many, the agent's default limits per port are not reached.
PORTS: Final = 16
#: Flows to new destinations in one run: what the agent's default limits hold (64 MiB of neighbor
#: records, 200,000 rules), so that nothing is evicted.
NEW_FLOWS: Final = 75_000
KNOWN_FLOWS: Final = 150_000
#: With fewer neighbors, new destinations are used up before a rate can be told.
LEAST_NEW: Final = 20_000

NEW, KNOWN = "new", "known"


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """With 0 rules there is no policy, so that nothing is matched but the destination."""

    rules: int
    neighbors: int
    match: str

    @property
    def size(self) -> VpcSize:
        return VpcSize(PORTS, self.rules, self.neighbors)

    @property
    def expect(self) -> str:
        """What the agent's answers must be (``controllers.Contender``)."""
        return self.match if self.rules else "location"

    @property
    def plans(self) -> tuple[str, ...]:
        """Which flows can be measured. Without policy a known destination is not asked for again."""
        if not self.rules:
            return (NEW,)
        return (NEW, KNOWN) if self.neighbors >= LEAST_NEW else (KNOWN,)

    def __str__(self) -> str:
        words = f", match = {self.match}" if self.rules else ", no policy"
        return f"{self.rules:,} rules, {self.neighbors:,} neighbors{words}"


def main_cell(rules: Sequence[int], neighbors: Sequence[int], matches: Sequence[str]) -> Cell:
    """The largest, with the first match."""
    return Cell(max(rules), max(neighbors), matches[0])


def other_cells(
    rules: Sequence[int], neighbors: Sequence[int], matches: Sequence[str], *, product: bool
) -> list[Cell]:
    """All but the main one: those on the lines through it, or with ``product`` all there are."""
    most_rules, most_neighbors = max(rules), max(neighbors)
    cells = {
        Cell(r, n, match if r else matches[0])
        for r in rules
        for n in neighbors
        for match in matches
        if product or r == most_rules or n == most_neighbors
    }
    return sorted(cells - {main_cell(rules, neighbors, matches)})


@dataclass(frozen=True, slots=True)
class Planned:
    """Flows, the file that tells the fake switch of them, and what looks at samples of answers."""

    plan: FlowPlan
    file: Path
    check: AnswerCheck


class Stores:
    """Slice stores and flow plans of cells, each made once and kept until the end of the run."""

    def __init__(self, place: Path, *, flows: int, working_set: int, seed: int) -> None:
        self._place = place
        self._flows = flows
        self._working_set = working_set
        self._seed = seed
        self._first: dict[int, Path] = {}
        self._stores: dict[VpcSize, Path] = {}
        self._plans: dict[tuple[int, int, str], Planned] = {}

    def store(self, size: VpcSize) -> Path:
        path = self._stores.get(size)
        if path is None:
            path = self._place / f"{size.neighbors}-{size.rules}.db"
            first = self._first.get(size.neighbors)
            if first is None:
                vpc.publish(path, size)
                self._first[size.neighbors] = path
            else:
                shutil.copyfile(first, path)
                vpc.publish_rules(path, size)
            self._stores[size] = path
        return path

    def planned(self, size: VpcSize, name: str) -> Planned:
        """``name``: NEW, each flow to another destination; KNOWN, a few destinations over and over."""
        key = (size.neighbors, size.target_ports, name)
        found = self._plans.get(key)
        if found is None:
            found = self._plans[key] = self._make(size, name)
        return found

    def _make(self, size: VpcSize, name: str) -> Planned:
        if name == NEW:
            destinations = flows = min(self._flows, NEW_FLOWS, size.neighbors)
        else:
            destinations = min(self._working_set, size.neighbors)
            flows = min(2 * self._flows, KNOWN_FLOWS, destinations * size.target_ports)
        plan = make_plan(
            self.store(size), size, destinations=destinations, flows=flows, seed=self._seed
        )
        file = self._place / f"{size.neighbors}-{size.target_ports}-{name}.plan"
        plan.write(file)
        return Planned(plan, file, AnswerCheck(plan))


__all__ = [
    "KNOWN",
    "KNOWN_FLOWS",
    "LEAST_NEW",
    "NEW",
    "NEW_FLOWS",
    "PORTS",
    "Cell",
    "Planned",
    "Stores",
    "main_cell",
    "other_cells",
]

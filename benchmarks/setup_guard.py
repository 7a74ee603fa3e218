"""Whether new flows are still set up so many times as fast as by a stock os-ken app, in ten seconds.

Both take turns on one core with 64 packet-ins outstanding; what is compared with the bound is the median
of their ratios, which hardly depends on the machine or on what else it does.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import controllers
from benchmarks.controllers import Contender, Cores
from benchmarks.setup_cells import KNOWN, PORTS, Cell, Stores
from benchmarks.setup_contenders import AGENT_KNOWN, STOCK
from benchmarks.summary import Spread, ratio
from benchmarks.switch_run import Phase, SwitchRun, run_switch

#: Half of what was measured (12 to 15 on two shared cores), so that a busy machine does not fail it; far above
#: what os-ken's own dispatch reaches with the same agent.
BOUND: Final = 6.0
ROUNDS: Final = 3
COMMAND: Final = "python -m benchmarks.setup_rate --guard"
_CELL: Final = Cell(1_000, 2_000, "service")
_WINDOW: Final = 64
_SECONDS: Final = 0.6
_WORKING_SET: Final = 500
_WARM_UP: Final = 1_000
#: More than the agent gets through in its time.
_FLOWS: Final = 100_000


@dataclass(frozen=True, slots=True)
class GuardResult:
    """Flows a second of each round, ours and theirs, and why nothing may be compared, if so."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    faults: tuple[str, ...]
    bound: float

    @property
    def times(self) -> Spread:
        return ratio(self.ours, self.theirs)

    @property
    def is_kept(self) -> bool:
        return not self.faults and self.times.median >= self.bound

    def __str__(self) -> str:
        if self.faults:
            return f"the guard has nothing to compare: {'; '.join(self.faults)}"
        ours, theirs = Spread.of(self.ours), Spread.of(self.theirs)
        words = (
            f"agent {ours.text()} flows/s, stock os-ken app {theirs.text()} flows/s, {_WINDOW} "
            f"outstanding: {self.times.text(1)} times as fast, the bound is {self.bound:g}"
        )
        if self.is_kept:
            return words
        return (
            f"{words}. Setting up new flows has become slower: run '{COMMAND}' again on an idle "
            "machine, then 'python -m benchmarks.setup_rate' before and after the change"
        )


def guard(bound: float = BOUND, rounds: int = ROUNDS) -> GuardResult:
    """Measure.

    Raises:
        BuildError, RunError: the fake switch cannot be built, or a controller does not run.
    """
    cores = Cores.of_this_machine()
    runs: dict[str, list[SwitchRun]] = {AGENT_KNOWN: [], STOCK: []}
    with tempfile.TemporaryDirectory(prefix="ondemand-guard-") as directory:
        place = Path(directory)
        stores = Stores(place, flows=_FLOWS // 2, working_set=_WORKING_SET, seed=1)
        planned = stores.planned(_CELL.size, KNOWN)
        agent = controllers.agent(stores.store(_CELL.size), PORTS, _CELL.match)
        pair = (
            Contender(AGENT_KNOWN, KNOWN, _CELL.expect, agent),
            Contender(STOCK, KNOWN, "exact", controllers.stock_app),
        )
        phases = [
            Phase("warm-up", 16, _WARM_UP, _SECONDS),
            Phase("guard", _WINDOW, _FLOWS - _WARM_UP, _SECONDS),
        ]
        for number in range(rounds):
            for one in pair:
                here = place / f"{number}-{pair.index(one)}"
                here.mkdir()
                runs[one.name].append(
                    run_switch(one, planned.file, phases, cores, here, len(planned.plan.flows))
                )
    rates = {
        name: tuple(run.phases["guard"].rate_per_s for run in done) for name, done in runs.items()
    }
    faults = {
        f"{name}: {fault}" for name, done in runs.items() for run in done for fault in run.faults
    }
    return GuardResult(rates[AGENT_KNOWN], rates[STOCK], tuple(sorted(faults)), bound)


__all__ = ["BOUND", "COMMAND", "ROUNDS", "GuardResult", "guard"]

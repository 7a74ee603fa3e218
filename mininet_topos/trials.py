"""Runs trials on a lab and collects what came of their promises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from mininet_topos.errors import LabError
from mininet_topos.parallel import side_by_side
from mininet_topos.promises import LabT, Outcome, Promise, Seen, Trial
from ondemand.slices import SourceError


@dataclass(frozen=True, slots=True)
class Phase(Generic[LabT]):
    """Trials that belong together; ``workers`` of them run side by side.

    Those that measure time, or count rules, want to be alone: 1.
    """

    title: str
    trials: tuple[Trial[LabT], ...]
    workers: int = 1

    @property
    def promises(self) -> list[Promise]:
        return [promise for one in self.trials for promise in one.promises]


def run_phase(phase: Phase[LabT], lab: LabT, tell: Callable[[Outcome], None]) -> list[Outcome]:
    """Run the trials of a phase; outcomes in the order of the promises.

    ``tell`` gets each as soon as it is known, from one thread at a time.
    """
    lock = threading.Lock()

    def run(trial: Trial[LabT]) -> list[Outcome]:
        found = run_trial(trial, lab)
        with lock:
            for outcome in found:
                tell(outcome)
        return found

    results = side_by_side(run, phase.trials, workers=phase.workers)
    return [outcome for found in results for outcome in found]


def run_trial(trial: Trial[LabT], lab: LabT) -> list[Outcome]:
    """Run one; a failure of the lab or the store counts as not held, never as held."""
    start_s = time.monotonic()
    try:
        seen: Sequence[Seen] = trial.look(lab)
    except (LabError, SourceError) as error:
        seen = [Seen(ok=False, text=f"could not be looked at: {error}")] * len(trial.promises)
    seconds = time.monotonic() - start_s
    return [
        Outcome(promise, one, seconds) for promise, one in zip(trial.promises, seen, strict=True)
    ]

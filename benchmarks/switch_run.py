"""One run of the fake switch against one controller, and what came of it."""

from __future__ import annotations

import array
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.controllers import Contender, Cores, free_port, pinned, running
from benchmarks.machine import rss_mib
from benchmarks.native_build import build
from ondemand.pipeline import Table

#: Seconds for which the fake switch may run beyond its phases.
_ALLOWANCE_S: Final = 40.0
#: What must not have happened, and how it is told.
_FAULTS: Final = {
    "wrong_rules": "rules with other values than the store's",
    "unknown_rules": "rules for what was not asked",
    "early": "packet-outs before their rules",
    "bad_frames": "packet-outs with another frame",
    "repeated": "second packet-outs for one flow",
    "errors": "error messages",
}


@dataclass(frozen=True, slots=True)
class Phase:
    """Offer flows with at most ``window`` unanswered, until ``flows`` or ``seconds`` are over."""

    name: str
    window: int
    flows: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.name}:{self.window}:{self.flows}:{self.seconds:g}"


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """What a phase measured. Latencies are from offering the packet-in to reading its packet-out."""

    name: str
    window: int
    offered: int
    answered: int
    rate_per_s: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    controller_cpu_us_per_flow: float
    #: Share of the time for which the fake switch was busy; spinning while it waits does not count.
    switch_busy: float


@dataclass(frozen=True, slots=True)
class SwitchRun:
    """All phases of one controller process, and whether its answers were right."""

    phases: dict[str, PhaseResult]
    counts: dict[str, int]
    controller_rss_mib: float
    #: Why nothing of this may be compared; empty when all answers were right.
    faults: list[str] = field(default_factory=list)


class RunError(Exception):
    """The fake switch could not do its work; the message has both sides' words."""


def run_switch(
    contender: Contender, plan: Path, phases: list[Phase], cores: Cores, place: Path, flows: int
) -> SwitchRun:
    """Start the controller, drive it through the phases, end it.

    Args:
        contender: the controller.
        plan: file of the flow plan.
        phases: at least one.
        cores: the first for the controller, the second for the fake switch.
        place: an empty directory for logs, samples (``samples``) and latencies.
        flows: of the plan; they tell how sparse the samples must be.

    Raises:
        RunError: no connection, no handshake, or a broken message.
    """
    port = free_port()
    latencies = place / "latencies"
    log = place / "controller.log"
    with running(pinned(contender.command(port, place), cores.first), log) as controller:
        argv = [
            *(str(build("fake_switch")), "--connect", str(port), "--plan", str(plan)),
            *("--expect", contender.expect, "--table-size", str(contender.table_size), "--spin"),
            *("--controller-pid", str(controller.pid), "--latencies", str(latencies)),
            *("--samples", str(place / "samples"), "--sample-every", str(max(1, flows // 200))),
        ]
        if contender.expect == "location":
            argv += ["--table", str(int(Table.LOCATION))]
        for phase in phases:
            argv += ["--phase", str(phase)]
        try:
            result = subprocess.run(
                pinned(argv, cores.second),
                capture_output=True,
                text=True,
                timeout=sum(phase.seconds for phase in phases) + _ALLOWANCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RunError(f"{contender.name}: the fake switch did not end") from None
        memory = rss_mib(controller.pid)
    if result.returncode:
        said = log.read_text(errors="replace").strip()[-2000:]
        raise RunError(
            f"{contender.name}: {result.stderr.strip()}" + (f"\nit said:\n{said}" if said else "")
        )
    return _result(json.loads(result.stdout), latencies, memory)


def _result(said: dict[str, Any], latencies: Path, memory: float) -> SwitchRun:
    nanoseconds = array.array("I")
    nanoseconds.frombytes(latencies.read_bytes())
    phases = {
        phase["name"]: _phase(
            phase, nanoseconds[phase["first"] : phase["first"] + phase["offered"]]
        )
        for phase in said["phases"]
    }
    counts: dict[str, int] = said["counts"]
    faults = [f"{counts[name]} {words}" for name, words in _FAULTS.items() if counts[name]]
    faults += [
        f"{phase.name}: {phase.answered} of {phase.offered} flows answered"
        for phase in phases.values()
        if phase.answered < phase.offered or not phase.offered
    ]
    return SwitchRun(phases, counts, round(memory, 1), faults)


def _phase(said: dict[str, Any], latencies: array.array[int]) -> PhaseResult:
    ordered = sorted(value for value in latencies if value)
    answered, elapsed = said["answered"], max(1, said["elapsed_ns"])
    return PhaseResult(
        name=said["name"],
        window=said["window"],
        offered=said["offered"],
        answered=answered,
        rate_per_s=round(answered * 1e9 / elapsed, 1),
        p50_us=percentile_us(ordered, 0.50),
        p90_us=percentile_us(ordered, 0.90),
        p99_us=percentile_us(ordered, 0.99),
        p999_us=percentile_us(ordered, 0.999),
        max_us=percentile_us(ordered, 1.0),
        controller_cpu_us_per_flow=round(said["controller_cpu_ns"] / max(1, answered) / 1000, 1),
        switch_busy=round(said["switch_cpu_ns"] / elapsed, 3),
    )


def percentile_us(ordered_ns: list[int], share: float) -> float:
    """The smallest value that ``share`` of the sorted values do not exceed, in microseconds."""
    if not ordered_ns:
        return 0.0
    place = max(0, -(-int(len(ordered_ns) * share * 1000) // 1000) - 1)
    return round(ordered_ns[min(place, len(ordered_ns) - 1)] / 1000, 1)

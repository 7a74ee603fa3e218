"""One performance on a lab: build it, look at everything promised, report, and take it away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from mininet_topos.agent_lab import AgentLab
from mininet_topos.errors import LabUnavailableError
from mininet_topos.lab_source import SourceKind, require_source
from mininet_topos.promises import Outcome, Seen, Trial, check
from mininet_topos.report import Report, check_place
from mininet_topos.requirements import PROGRAMS, missing_requirements
from mininet_topos.screen import LabScreen
from mininet_topos.sweep import sweep
from mininet_topos.trials import Phase, run_phase

AgentLabT = TypeVar("AgentLabT", bound=AgentLab)


@dataclass(frozen=True, slots=True)
class Performance(Generic[AgentLabT]):
    """What is shown.

    Attributes:
        headline: one sentence about what is built.
        lab: makes the lab, given whom to tell what is being done; the lab is not entered yet.
        phases: all that is looked at, in order.
        explain: a port and a flow, as ``ondemand explain`` takes them, for whoever looks around.
        facts: what was built, for the JSON document; hosts and VMs are added.
        note: what a reader of the table must know besides, a clause; "" for nothing.
    """

    headline: str
    lab: Callable[[Callable[[str], None]], AgentLabT]
    phases: Sequence[Phase[AgentLabT]]
    explain: tuple[str, str]
    facts: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def conduct(
    make: Callable[[LabScreen], Performance[AgentLabT]],
    *,
    name: str,
    json_file: Path | None,
    keep: bool,
    source: SourceKind = "sqlite",
) -> int:
    """Show a performance; ``make`` gets the screen that it may tell of progress.

    Args:
        make: makes what is shown.
        name: what errors call it, such as ``the demo``.
        json_file: where the report goes as JSON.
        keep: leave the lab running until Enter is pressed.
        source: what the agents read.

    Returns:
        0 if every promise held, else 1.

    Raises:
        LabError: the lab cannot be built, or the JSON file not be written.
        SourceError: the slice store cannot be used.
    """
    check_machine(name)
    require_source(source)
    if json_file is not None:
        check_place(json_file)
    sweep()
    with LabScreen() as screen:
        shown = make(screen)
        promises = [promise for phase in shown.phases for promise in phase.promises]
        screen.expect(len(promises))
        screen.say(shown.headline)
        lab = shown.lab(screen.step)
        lab.source_kind = source
        with lab:
            outcomes: list[Outcome] = []
            for phase in shown.phases:
                screen.step(phase.title)
                outcomes += run_phase(phase, lab, screen.outcome)
            report = Report(
                promises=promises,
                outcomes=outcomes,
                measurements=lab.measurements,
                seconds=screen.seconds,
                facts={
                    "hosts": len(lab.agents),
                    "vms": len(lab.vms),
                    "source": source,
                    **shown.facts,
                },
            )
            screen.close()
            _show(report, screen, lab, shown.note)
            if json_file is not None:
                report.write(json_file)
            if keep:
                _wait(screen, lab, shown.explain)
    return report.exit_code


def check_machine(name: str) -> None:
    """Raise ``LabUnavailableError`` with one sentence: what is missing, and the mend."""
    missing = missing_requirements()
    if not missing:
        return
    if os.geteuid() != 0:
        raise LabUnavailableError(f"{name} makes network namespaces and needs root: use sudo")
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    if lacking:
        packages = sorted({PROGRAMS[program] for program in lacking})
        raise LabUnavailableError(
            f"{name} needs programs that are not here ({', '.join(lacking)}): run 'make setup', "
            f"or apt-get install {' '.join(packages)}"
        )
    raise LabUnavailableError(f"{name} cannot run here: {'; '.join(missing)}")


def log_phase() -> Phase[AgentLabT]:
    """Whether the agents logged an error; the last phase of every performance."""
    trials: tuple[Trial[AgentLabT], ...] = (check("Agents", "their logs", "no error", _logs_seen),)
    return Phase("the agents' logs", trials)


def _logs_seen(lab: AgentLab) -> Seen:
    said = [
        f"h{host}: {error.splitlines()[-1]}"
        for host, agent in lab.agents.items()
        for error in agent.errors()
    ]
    return Seen(not said, "; ".join(said[:3]) if said else f"{len(lab.agents)} agents, no error")


def _show(report: Report, screen: LabScreen, lab: AgentLab, note: str) -> None:
    screen.table(report)
    if note:
        screen.say(f"Note: {note}.")
    screen.say(report.summary)
    if report.exit_code != 0:
        run = lab.fabric.run
        run.keep_directory = True
        screen.say(f"logs of switches and agents are kept in {run.directory}")


def _wait(screen: LabScreen, lab: AgentLab, explain: tuple[str, str]) -> None:
    screen.say()
    screen.say("The lab stays until you press Enter. A shell in it, as root:")
    for name, vm in lab.vms.items():
        place = f"VM {name} on {vm.host.label}, {vm.ips[0]}"
        screen.say(f"  mnexec -a {vm.pid} bash   # {place}")
    screen.say("Its rules, and why a packet goes where it goes:")
    for host in lab.fabric.hosts:
        socket = host.directory / "br-int.mgmt"
        screen.say(f"  ovs-ofctl -O OpenFlow13 dump-flows unix:{socket}   # {host.label}")
    port, flow = explain
    source = lab.source
    screen.say(f"  {source.prefix}ondemand explain --store {source.place} --port {port} '{flow}'")
    screen.say(f"  {source.prefix}ondemand slices watch --store {source.place}   # its changes")
    for number, agent in lab.agents.items():
        entered = f"mnexec -a {lab.host(number).pid} ondemand"
        screen.say(f"  {entered} slices verify --config {agent.config_file}   # what it holds")
    try:
        input()
    except EOFError:
        return

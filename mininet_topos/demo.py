"""The demo: three compute hosts on real Open vSwitch, and what must hold on them.

What is built stands in ``demo_state``, what is looked at in ``demo_reach``, ``demo_deny``,
``demo_change``, ``demo_on_demand``, ``demo_latency`` and ``demo_fleet``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mininet_topos.demo_change import change_experiments
from mininet_topos.demo_deny import deny_experiments
from mininet_topos.demo_fleet import fleet_experiments
from mininet_topos.demo_lab import DemoLab
from mininet_topos.demo_latency import latency_experiments
from mininet_topos.demo_model import Experiment, Outcome, Seen, check
from mininet_topos.demo_on_demand import first_experiments, idle_experiments, later_experiments
from mininet_topos.demo_reach import reach_experiments
from mininet_topos.demo_report import Report, check_place
from mininet_topos.demo_run import Phase, run_phase
from mininet_topos.demo_screen import DemoScreen
from mininet_topos.demo_state import HTTP, VMS
from mininet_topos.errors import LabUnavailableError
from mininet_topos.requirements import PROGRAMS, missing_requirements
from mininet_topos.sweep import sweep
from ondemand.publishing import Progress

#: Most of these wait: denied connections for their timeout, others for ping's intervals.
_WORKERS: Final = 6

_HEADLINE: Final = "Three compute hosts, each with its own Open vSwitch and agent; VXLAN between them; on each four VMs."


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """``neighbors``: synthetic ones, 0 for none; ``keep``: leave the lab running until Enter."""

    neighbors: int = 0
    json_file: Path | None = None
    keep: bool = False


def phases(neighbors: int, published: Progress) -> list[Phase[DemoLab]]:
    """All that the demo looks at, in order; ``published`` is told how publishing neighbors goes."""
    found = [
        Phase("before and at the first traffic", tuple(first_experiments())),
        Phase(
            "what must get through, and what must not",
            (*reach_experiments(), *deny_experiments()),
            workers=_WORKERS,
        ),
        Phase("rules and traffic compared", tuple(later_experiments())),
        Phase("changes under live traffic", tuple(change_experiments())),
        Phase("first and later packets", tuple(latency_experiments())),
        Phase("waiting until all is idle", tuple(idle_experiments())),
    ]
    if neighbors:
        experiments = tuple(fleet_experiments(neighbors, published))
        found.append(Phase(f"a VPC with {neighbors:,} neighbors more", experiments))
    found.append(Phase("the agents' logs", tuple(_log_experiments())))
    return found


def run_demo(options: DemoOptions) -> int:
    """Build the lab, look at everything, report, and take the lab away.

    Returns:
        0 if every promise held, else 1.

    Raises:
        LabError: the lab cannot be built, or the JSON file not be written.
        SourceError: the slice store cannot be used.
    """
    _check_machine()
    if options.json_file is not None:
        check_place(options.json_file)
    sweep()
    with DemoScreen() as screen:
        plan = phases(options.neighbors, screen.published)
        promises = [promise for phase in plan for promise in phase.promises]
        screen.expect(len(promises))
        screen.say(_HEADLINE)
        lab = DemoLab(with_fleet=options.neighbors > 0, progress=screen.step)
        with lab:
            outcomes: list[Outcome] = []
            for phase in plan:
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
                    "neighbors": options.neighbors,
                },
            )
            screen.close()
            _show(report, screen, lab)
            if options.json_file is not None:
                report.write(options.json_file)
            if options.keep:
                _wait(screen, lab)
    return report.exit_code


def _check_machine() -> None:
    """Raise ``LabUnavailableError`` with one sentence: what is missing, and the mend."""
    missing = missing_requirements()
    if not missing:
        return
    if os.geteuid() != 0:
        raise LabUnavailableError("the demo makes network namespaces and needs root: use sudo")
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    if lacking:
        packages = sorted({PROGRAMS[program] for program in lacking})
        raise LabUnavailableError(
            f"the demo needs programs that are not here ({', '.join(lacking)}): run 'make setup', "
            f"or apt-get install {' '.join(packages)}"
        )
    raise LabUnavailableError(f"the demo cannot run here: {'; '.join(missing)}")


def _show(report: Report, screen: DemoScreen, lab: DemoLab) -> None:
    screen.table(report)
    screen.say(report.summary)
    if report.exit_code != 0:
        run = lab.fabric.run
        run.keep_directory = True
        screen.say(f"logs of switches and agents are kept in {run.directory}")


def _wait(screen: DemoScreen, lab: DemoLab) -> None:
    screen.say()
    screen.say("The lab stays until you press Enter. A shell in it, as root:")
    for vm in VMS:
        node = lab.vms[vm.name]
        screen.say(f"  mnexec -a {node.pid} bash   # VM {vm.name} on h{vm.host}, {vm.ips[0]}")
    screen.say("Its rules, and why a packet goes where it goes:")
    for host in lab.fabric.hosts:
        socket = host.directory / "br-int.mgmt"
        screen.say(f"  ovs-ofctl -O OpenFlow13 dump-flows unix:{socket}   # {host.label}")
    flow = f"tcp,nw_dst={VMS[0].ips[0]},tp_dst={HTTP}"
    screen.say(f"  ondemand explain --store {lab.store_file} --port {VMS[1].name} '{flow}'")
    try:
        input()
    except EOFError:
        return


def _log_experiments() -> Sequence[Experiment[DemoLab]]:
    return [check("Agents", "their logs", "no error", _logs_seen)]


def _logs_seen(lab: DemoLab) -> Seen:
    said = [
        f"h{host}: {error.splitlines()[-1]}"
        for host, agent in lab.agents.items()
        for error in agent.errors()
    ]
    return Seen(not said, "; ".join(said[:3]) if said else f"{len(lab.agents)} agents, no error")

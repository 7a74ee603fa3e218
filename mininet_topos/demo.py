"""The demo: three compute hosts on real Open vSwitch, and what must hold on them.

What is built stands in ``demo_state``, what is looked at in ``demo_reach``, ``demo_deny``,
``demo_change``, ``demo_on_demand``, ``demo_latency`` and ``demo_fleet``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mininet_topos.conduct import Performance, conduct, log_phase
from mininet_topos.demo_change import change_trials
from mininet_topos.demo_deny import deny_trials
from mininet_topos.demo_fleet import fleet_trials
from mininet_topos.demo_lab import DemoLab
from mininet_topos.demo_latency import latency_trials
from mininet_topos.demo_on_demand import first_trials, idle_trials, later_trials
from mininet_topos.demo_reach import reach_trials
from mininet_topos.demo_state import HTTP, VMS
from mininet_topos.lab_source import SourceKind
from mininet_topos.screen import LabScreen
from mininet_topos.trials import Phase
from ondemand.publishing import Progress

#: Most of these wait: denied connections for their timeout, others for ping's intervals.
_WORKERS: Final = 6

_HEADLINE: Final = "Three compute hosts, each with its own Open vSwitch and agent; VXLAN between them; on each four VMs."


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What of the demo can be chosen.

    Attributes:
        neighbors: synthetic ones, 0 for none.
        json_file: where the report goes as JSON.
        keep: leave the lab running until Enter.
        source: what the agents read.
    """

    neighbors: int = 0
    json_file: Path | None = None
    keep: bool = False
    source: SourceKind = "sqlite"


def phases(neighbors: int, published: Progress) -> list[Phase[DemoLab]]:
    """All that the demo looks at, in order; ``published`` is told how publishing neighbors goes."""
    found = [
        Phase("before and at the first traffic", tuple(first_trials())),
        Phase(
            "what must get through, and what must not",
            (*reach_trials(), *deny_trials()),
            workers=_WORKERS,
        ),
        Phase("rules and traffic compared", tuple(later_trials())),
        Phase("changes under live traffic", tuple(change_trials())),
        Phase("first and later packets", tuple(latency_trials())),
        Phase("waiting until all is idle", tuple(idle_trials())),
    ]
    if neighbors:
        trials = tuple(fleet_trials(neighbors, published))
        found.append(Phase(f"a VPC with {neighbors:,} neighbors more", trials))
    found.append(log_phase())
    return found


def run_demo(options: DemoOptions) -> int:
    """Run the demo; see ``conduct`` for what it returns and raises."""

    def lab(progress: Callable[[str], None]) -> DemoLab:
        return DemoLab(with_fleet=options.neighbors > 0, progress=progress)

    def make(screen: LabScreen) -> Performance[DemoLab]:
        return Performance(
            headline=_HEADLINE,
            lab=lab,
            phases=phases(options.neighbors, screen.published),
            explain=(VMS[1].name, f"tcp,nw_dst={VMS[0].ips[0]},tp_dst={HTTP}"),
            facts={"neighbors": options.neighbors},
        )

    return conduct(
        make,
        name="the demo",
        json_file=options.json_file,
        keep=options.keep,
        source=options.source,
    )

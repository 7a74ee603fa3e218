"""Who is compared in ``setup_rate``, and what each has to do in a run."""

from __future__ import annotations

from typing import Final

from benchmarks import controllers
from benchmarks.controllers import Contender
from benchmarks.flow_plan import FlowPlan
from benchmarks.setup_cells import KNOWN, NEW, PORTS, Cell, Stores
from benchmarks.switch_run import Phase

#: Rules in the fake switch's table when they leave: more than any window needs.
LEAVING_TABLE: Final = 10_000

NULL, AGENT_NEW, AGENT_KNOWN, AGENT_LEAVING, DISPATCH, STOCK, C_CONTROLLER = (
    "null responder (C)",
    "agent, new destinations",
    "agent, known destinations",
    "agent, known, rules leaving",
    "same agent on os-ken's dispatch",
    "stock os-ken app",
    "ovs-testcontroller (C)",
)
LATENCY, FULL = "latency", "window-1000"
#: Outstanding packet-ins between one and a full window.
WINDOWS: Final = (2, 4, 8, 16, 32, 64, 128, 256, 512)
QUICK_WINDOWS: Final = (32,)
#: Which of ours is compared with which of theirs.
PAIRS: Final = (
    *((ours, theirs) for ours in (AGENT_NEW, AGENT_KNOWN) for theirs in (STOCK, C_CONTROLLER)),
    (AGENT_KNOWN, DISPATCH),
    *((AGENT_LEAVING, theirs) for theirs in (STOCK, C_CONTROLLER)),
)
#: From this share of the null responder's rate on, the instrument may be what is measured.
INSTRUMENT_SHARE: Final = 0.9


def of_main_cell(cell: Cell, stores: Stores, *, quick: bool) -> list[Contender]:
    """All of them."""
    null_plan = stores.planned(cell.size, NEW).file
    found = [
        Contender(
            *(NULL, NEW, "service", controllers.null_responder(PORTS, null_plan)), thinks=False
        )
    ]
    store = stores.store(cell.size)
    found.append(_agent(AGENT_NEW, NEW, cell, stores))
    if cell.rules:
        found.append(_agent(AGENT_KNOWN, KNOWN, cell, stores))
    if cell.rules and not quick:
        found.append(_agent(AGENT_LEAVING, KNOWN, cell, stores, LEAVING_TABLE))
    dispatched = controllers.agent(store, PORTS, cell.match, dispatch="stock")
    found.append(Contender(DISPATCH, KNOWN if cell.rules else NEW, cell.expect, dispatched))
    found.append(Contender(STOCK, NEW, "exact", controllers.stock_app))
    if controllers.has_ovs_testcontroller():
        found.append(Contender(C_CONTROLLER, NEW, "exact", controllers.ovs_testcontroller))
    return found


def of_other_cell(cell: Cell, stores: Stores) -> list[Contender]:
    """The agent alone: the others have no policy and no neighbors."""
    names = {NEW: AGENT_NEW, KNOWN: AGENT_KNOWN}
    return [_agent(names[plan], plan, cell, stores) for plan in cell.plans]


def _agent(name: str, plan: str, cell: Cell, stores: Stores, table_size: int = 0) -> Contender:
    command = controllers.agent(stores.store(cell.size), PORTS, cell.match)
    return Contender(name, plan, cell.expect, command, table_size)


def phases_of(
    plan: FlowPlan, windows: tuple[int, ...], *, seconds: float, working_set: int
) -> list[Phase]:
    """Warm-up (each known destination at least once), one outstanding, wider windows, a full one."""
    flows = len(plan.flows)
    warm_up = 2 * working_set if len(plan.neighbors) < flows else 2_000
    left = flows - min(warm_up, flows // 4)
    phases = [
        Phase("warm-up", 16, flows - left, min(5.0, seconds)),
        Phase(LATENCY, 1, min(5_000, left // 4), seconds),
    ]
    each = left // (2 * max(1, len(windows)))
    phases += [Phase(f"window-{window}", window, each, seconds * 0.25) for window in windows]
    # The rest, however many the others left.
    phases.append(Phase(FULL, 1000, flows, seconds))
    return phases


__all__ = [
    "AGENT_KNOWN",
    "AGENT_LEAVING",
    "AGENT_NEW",
    "C_CONTROLLER",
    "DISPATCH",
    "FULL",
    "INSTRUMENT_SHARE",
    "LATENCY",
    "NULL",
    "PAIRS",
    "QUICK_WINDOWS",
    "STOCK",
    "WINDOWS",
    "of_main_cell",
    "of_other_cell",
    "phases_of",
]

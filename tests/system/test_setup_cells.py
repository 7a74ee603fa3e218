"""The setup benchmark's agents answer rightly without policy and on os-ken's own dispatch."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import controllers
from benchmarks.controllers import Contender, Cores
from benchmarks.flow_plan import make_plan
from benchmarks.setup_cells import NEW, PORTS, Cell, Stores
from benchmarks.switch_run import Phase, run_switch

PHASES = [Phase("one", 1, 20, 10.0), Phase("many", 50, 200, 10.0)]


@pytest.mark.parametrize("dispatch", ["hot", "stock"])
@pytest.mark.parametrize(
    ("cell", "verdicts"),
    [
        (Cell(8, 300, "service"), 220),
        (Cell(8, 300, "connection"), 220),
        (Cell(0, 300, "service"), 0),
    ],
)
def test_answers_are_right_in_every_kind_of_cell(
    cell: Cell, verdicts: int, dispatch: str, tmp_path: Path
) -> None:
    stores = Stores(tmp_path, flows=300, working_set=20, seed=1)
    planned = stores.planned(cell.size, NEW)
    command = controllers.agent(stores.store(cell.size), PORTS, cell.match, dispatch=dispatch)
    agent = Contender("agent", NEW, cell.expect, command)
    here = tmp_path / "run"
    here.mkdir()

    run = run_switch(agent, planned.file, PHASES, Cores(None, None), here, 220)

    assert run.faults == []
    assert run.counts["verdicts"] == verdicts
    assert run.counts["locations"] == run.counts["packet_outs"] == 220
    assert planned.check.check(here / "samples", cell.expect) == verdicts + 220


def test_a_store_with_other_rules_has_the_same_neighbors(tmp_path: Path) -> None:
    stores = Stores(tmp_path, flows=300, working_set=20, seed=1)
    many, few = Cell(8, 300, "service").size, Cell(0, 300, "service").size
    first = make_plan(stores.store(many), many, destinations=300, flows=300)
    second = make_plan(stores.store(few), few, destinations=300, flows=300)

    assert first == second
    assert stores.store(many) != stores.store(few)

"""The memory benchmark loads agents as it says, and its lines are of what it measured. No bound on memory here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import agent_memory
from benchmarks.agent_memory import HELD, IN_STORE, PARKED, RULE, SLICE
from benchmarks.flow_plan import make_plan
from benchmarks.parked_run import fill
from benchmarks.switch_run import RunError
from benchmarks.vpc import VpcSize, publish
from tests.support.tools import require


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    require("cc")


def test_each_kind_has_its_line(tmp_path: Path) -> None:
    result_file = tmp_path / "result.json"

    code = agent_memory.main(
        [
            *("--neighbors", "3000,200", "--in-use", "100,600", "--flows", "1,8"),
            *("--parked", "50,1500", "--repetitions", "2", "--json", str(result_file)),
        ]
    )

    assert code == 0
    result = json.loads(result_file.read_text())
    loads = [(one["neighbors_in_store"], one["neighbors_in_use"]) for one in result["samples"]]
    assert loads == [(3000, 100), (200, 100), (3000, 600)]
    assert [one["slices"] for one in result["the_same"]] == [1, 1]
    assert result["samples"][0]["slices"] > 5
    assert [one["rules"] for one in result["by_flows"]] == [100 * 2, 100 * 9]
    assert [one["packets"] for one in result["parked"]] == [50, 1500]
    slopes = {one["what"]: one for one in result["slopes"]}
    assert set(slopes) == {IN_STORE, SLICE, HELD, RULE, PARKED}
    for one in slopes.values():
        assert one["points"] == 4
        assert one["error_bytes"] >= 0
        assert one["residual_mib"] >= 0
    # A frame alone has 74 bytes.
    assert slopes[PARKED]["each_bytes"] > 74
    assert slopes[RULE]["each_bytes"] > 0


def test_packets_that_do_not_come_to_wait_are_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = VpcSize(ports=agent_memory.PORTS, rules=8, neighbors=300)
    store = tmp_path / "store.db"
    publish(store, size)
    # Fewer than are waited for.
    make_plan(store, size, destinations=20, flows=20).write(tmp_path / "plan")
    monkeypatch.setattr("benchmarks.parked_run.FILL_S", 4.0)

    with pytest.raises(RunError, match="20 packets wait in the agent instead of 30"):
        fill(store, tmp_path / "plan", tmp_path, ports=size.ports, packets=30)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--in-use", "400"],
        ["--parked", "400"],
        ["--flows", "51"],
        ["--repetitions", "0"],
        ["--neighbors", "300,nine"],
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        agent_memory.main(["--neighbors", "300", "--in-use", "20", *arguments])
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err

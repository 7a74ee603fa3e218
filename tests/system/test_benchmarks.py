"""The benchmarks run and check their answers. Nothing here says how fast anything is."""

from __future__ import annotations

import array
import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import controllers, first_packet, setup_rate, vpc
from benchmarks.answer_check import AnswerCheck, AnswerError
from benchmarks.controllers import Contender, Cores
from benchmarks.flow_plan import FlowPlan, make_plan
from benchmarks.switch_run import Phase, run_switch
from benchmarks.vpc import VpcSize
from ondemand.records import Neighbor
from tests.support.tools import require

SIZE = VpcSize(ports=setup_rate.PORTS, rules=8, neighbors=300)
PHASES = [Phase("one", 1, 20, 10.0), Phase("many", 50, 200, 10.0)]


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    require("cc", "ovs-ofctl", "ovs-testcontroller")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "slices.db"
    vpc.publish(path, SIZE)
    return path


@pytest.fixture
def plan(store: Path) -> FlowPlan:
    return make_plan(store, SIZE, destinations=300, flows=300)


def test_setup_rate_writes_a_result_with_verified_answers(tmp_path: Path):
    result_file = tmp_path / "result.json"

    code = setup_rate.main(
        [
            *("--quick", "--rules", "8", "--neighbors", "300", "--working-set", "20"),
            *("--flows", "300", "--seconds", "5", "--repetitions", "1"),
            *("--json", str(result_file)),
        ]
    )

    assert code == 0
    result = json.loads(result_file.read_text())
    assert result["benchmark"] == "setup_rate"
    assert {"cpu", "kernel", "python", "open_vswitch", "packages"} <= result["machine"].keys()
    assert result["parameters"]["rules"] == 8
    by_name = {one["name"]: one for one in result["contenders"]}
    assert list(by_name) == [
        setup_rate.NULL,
        setup_rate.AGENT_NEW,
        setup_rate.AGENT_KNOWN,
        setup_rate.DISPATCH,
        setup_rate.STOCK,
        setup_rate.C_CONTROLLER,
    ]
    for name, one in by_name.items():
        assert one["faults"] == [], name
        [run] = one["runs"]
        for phase in run["phases"].values():
            assert phase["answered"] == phase["offered"] > 0, (name, phase)
        assert {"rate_per_s", "p50_us", "p99_us"} <= one["summary"]["latency"].keys()
        if name != setup_rate.NULL:
            assert one["samples_verified"] >= 100, name
    # Each new destination is a verdict and a location, a known one a verdict alone.
    new = by_name[setup_rate.AGENT_NEW]["runs"][0]["counts"]
    assert new["verdicts"] == new["locations"] == new["packet_outs"] == 300
    known = by_name[setup_rate.AGENT_KNOWN]["runs"][0]["counts"]
    assert known["verdicts"] == known["packet_outs"] == 600
    assert known["locations"] == 20
    pairs = {(pair["ours"], pair["theirs"]) for pair in result["ratios"]}
    assert (setup_rate.AGENT_NEW, setup_rate.C_CONTROLLER) in pairs
    assert (setup_rate.AGENT_KNOWN, setup_rate.DISPATCH) in pairs


def test_setup_rate_with_whole_connections_matches_the_source_port(store: Path, tmp_path: Path):
    plan = make_plan(store, SIZE, destinations=20, flows=300)
    plan.write(tmp_path / "plan")
    agent = Contender("agent", "", "connection", controllers.agent(store, SIZE.ports, "connection"))

    run = run_switch(agent, tmp_path / "plan", PHASES, Cores(None, None), tmp_path, 220)

    assert run.faults == []
    assert run.counts["verdicts"] == 220
    assert AnswerCheck(plan).check(tmp_path / "samples", "connection") == 220 + 20


def test_rules_that_leave_are_reported_and_those_in_use_stay(store: Path, tmp_path: Path):
    plan = make_plan(store, SIZE, destinations=20, flows=300)
    plan.write(tmp_path / "plan")
    agent = Contender(
        "agent", "", "service", controllers.agent(store, SIZE.ports, "service"), table_size=150
    )

    run = run_switch(agent, tmp_path / "plan", PHASES, Cores(None, None), tmp_path, 220)

    assert run.faults == []
    assert run.counts["removed"] == run.counts["verdicts"] + run.counts["locations"] - 150
    assert run.counts["locations"] == 20


def test_an_agent_that_matches_more_than_was_asked_for_is_found_out(store: Path, tmp_path: Path):
    make_plan(store, SIZE, destinations=20, flows=300).write(tmp_path / "plan")
    agent = Contender("agent", "", "service", controllers.agent(store, SIZE.ports, "connection"))

    run = run_switch(agent, tmp_path / "plan", PHASES[:1], Cores(None, None), tmp_path, 20)

    assert any("other values than the store's" in fault for fault in run.faults)
    assert any("0 of 20 flows answered" in fault for fault in run.faults)


def test_a_store_that_moved_its_neighbors_is_found_out(store: Path, plan: FlowPlan, tmp_path: Path):
    moved = tuple(
        Neighbor(n.ip, n.mac, n.subnet, n.port, bytes((198, 18, 9, 9)), n.groups)
        for n in plan.neighbors
    )
    wrong = FlowPlan(plan.ports, moved, plan.flows)
    wrong.write(tmp_path / "plan")
    agent = Contender("agent", "", "service", controllers.agent(store, SIZE.ports, "service"))

    run = run_switch(agent, tmp_path / "plan", PHASES[:1], Cores(None, None), tmp_path, 20)

    assert run.counts["wrong_rules"] == 20
    assert run.phases["one"].answered == 0
    with pytest.raises(AnswerError, match=r"198\.18\.9\.9"):
        AnswerCheck(wrong).check(tmp_path / "samples", "service")
    assert AnswerCheck(plan).check(tmp_path / "samples", "service") == 40


def test_latencies_are_those_of_answered_flows(store: Path, plan: FlowPlan, tmp_path: Path):
    plan.write(tmp_path / "plan")
    null = Contender(
        "null", "", "service", controllers.null_responder(SIZE.ports, tmp_path / "plan")
    )

    run = run_switch(null, tmp_path / "plan", PHASES, Cores(None, None), tmp_path, 220)

    assert run.faults == []
    nanoseconds = array.array("I")
    nanoseconds.frombytes((tmp_path / "latencies").read_bytes())
    assert len(nanoseconds) == 220
    assert min(nanoseconds) > 0
    assert run.phases["many"].max_us == round(max(nanoseconds[20:]) / 1000, 1)


def test_broken_plan_gives_one_sentence(tmp_path: Path):
    (tmp_path / "plan").write_bytes(b"PLN1" + bytes(4))
    from benchmarks.native_build import build

    result = subprocess.run(
        [str(build("fake_switch")), "--connect", "1", "--plan", str(tmp_path / "plan")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert result.returncode == 1
    assert result.stderr == "the plan is cut short\n"


def test_first_packet_goes_through_agents_preloaded_rules_and_the_stock_app(
    lab_machine: None, tmp_path: Path
):
    result_file = tmp_path / "result.json"

    code = first_packet.main(
        [
            *("--rounds", "1", "--flows", "10", "--rules", "20", "--window", "1,4"),
            *("--json", str(result_file)),
        ]
    )

    assert code == 0
    result = json.loads(result_file.read_text())
    assert result["faults"] == []
    # Two windows, warm-up and one round, two paths, a rule where a flow leaves and one where it arrives.
    assert result["verdict_rules"] == 2 * 2 * 2 * 2 * 10
    # The crowd, and a few flows of each window and path; 2 rules each.
    assert result["crowd_rules"] == 2 * (100 + 2 * 2 * 2)
    seen = {(one["who"], one["path"]) for one in result["results"]}
    assert seen == {
        (who, path)
        for who in (
            first_packet.ON_DEMAND,
            first_packet.NO_POLICY,
            first_packet.PRELOADED,
            first_packet.STOCK,
            first_packet.C_CONTROLLER,
        )
        for path in ("local", "remote")
    }
    for one in result["results"]:
        assert len(one["first"]["all_us"]) == len(one["second"]["all_us"]) == 10
        assert len(one["later"]["all_us"]) == 20
    assert len(result["ratios"]) == 10
    assert {(one["who"], one["path"], one["window"]) for one in result["windows"]} == {
        (who, path, window) for who, path in seen for window in (1, 4)
    }
    for one in (*result["windows"], *result["crowded"]):
        assert one["lost"] == 0
        assert ("rate_per_s" in one) == (one["window"] > 1)
    assert all(mib > 10 for mib in result["agent_rss_mib"])

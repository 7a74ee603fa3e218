"""The scale experiment for real, small: a server, hosts on the slice source, hosts that are pushed to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner

from mininet_topos.lab_run import DIRECTORY_PREFIX
from mininet_topos.owner import Owner
from mininet_topos.processes import pids_of_run
from tests.support.nats_server import needs_nats_server

pytest.importorskip("grpc", reason="grpcio is not there: pip install 'ondemand-ovs[scale]'")

from scale.cli_fanout import command

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--neighbors", "3000", "--rules", "20", "--ports-per-host", "2")
COMMAND = (sys.executable, "-W", "ignore", "-c", "from scale.cli_fanout import command; command()")

pytestmark = needs_nats_server


def runs_of(pid):
    """Ids of the runs that a process has made and not taken away; others may have runs beside it."""
    places = Path(tempfile.gettempdir()).glob(f"{DIRECTORY_PREFIX}*")
    owners = {path.name.removeprefix(DIRECTORY_PREFIX): Owner.read(path) for path in places}
    return {run for run, owner in owners.items() if owner is not None and owner.pid == pid}


def test_changes_restarts_and_pushes_at_40_hosts(tmp_path):
    out, plot = tmp_path / "out.json", tmp_path / "out.svg"
    wanted = ["--at", "10,40", *SMALL, "--without", "goal-sizes", "--without", "idle"]
    done = CliRunner().invoke(command, [*wanted, "--json", str(out), "--plot", str(plot)])
    assert done.exit_code == 0, done.output
    assert "5 of 5 checks held" in done.output

    found = json.loads(out.read_text())
    assert (found["held"], found["experiment"], found["hosts"]) == (True, "fanout", 40)
    by_hosts = {(one["contender"], one["hosts"]): one for one in found["by_hosts"]}
    assert set(by_hosts) == {(c, n) for c in ("slice source", "push") for n in (10, 40)}
    steps = {"cold", "group", "port", "move", "restart", "rolling"}
    for one in by_hosts.values():
        assert set(one["steps"]) == steps
        assert one["expected"] == one["entered"] > 0
        assert one["different"] == one["twice"] == 0
        assert one["steps"]["cold"]["times"]["count"] == one["hosts"]
        assert one["steps"]["group"]["times"]["count"] == one["hosts"] * 5
        assert one["steps"]["port"]["times"]["count"] == 10
        assert one["steps"]["rolling"]["times"]["count"] == one["hosts"]
        assert all(step["bytes"] > 0 and step["origin_rss"] > 0 for step in one["steps"].values())
    # A push sends all that a host holds for one changed rule; a slice source that rule.
    pull, push = by_hosts["slice source", 40], by_hosts["push", 40]
    assert push["steps"]["group"]["bytes"] > 40 * push["goal_bytes"] * 0.9
    assert pull["steps"]["group"]["bytes"] < push["steps"]["group"]["bytes"]
    assert pull["bare"]["times"]["count"] == 40 * 5
    drawn = [one for one in found["growth"] if one["figure"] == "group change, bytes"]
    assert all(one["fit"] and one["extrapolated"][-1][0] == 1_000_000 for one in drawn)
    assert ET.fromstring(plot.read_text()).tag.endswith("svg")
    assert not runs_of(os.getpid())


def test_interrupted_it_leaves_nothing_behind():
    child = subprocess.Popen(
        [*COMMAND, "--at", "200", *SMALL, "--without", "goal-sizes"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with child:
        assert any("slice source: 200 hosts" in line for line in child.stdout)
        started = runs_of(child.pid)
        deadline = time.monotonic() + 10
        while not any(len(pids_of_run(run)) >= 3 for run in started):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        assert child.wait(20) != 0
    assert started
    assert not runs_of(child.pid)
    assert not any(pids_of_run(run) for run in started)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--at", "5", "--neighbors", "99999999"], "neighbors: 99,999,999 is not in"),
        (["--at", "5", "--json", "/nowhere/x.json"], "there is no directory /nowhere"),
        (["--at", "none"], "numbers above 0"),
    ],
)
def test_what_cannot_be_is_exit_2_and_one_sentence(arguments, said):
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    assert said in done.output

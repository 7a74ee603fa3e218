"""The demo as a whole: every promise of it, on real Open vSwitch with real agents."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from mininet_topos.demo import DemoOptions, run_demo
from mininet_topos.lab_run import DIRECTORY_PREFIX
from mininet_topos.processes import pids_of_run

ROOT = Path(__file__).resolve().parents[2]
NEIGHBORS = 10_000

#: Written out, so that a check cannot vanish from the demo unnoticed.
CHECKS = {
    "On demand": {
        "before any traffic",
        "after the first traffic",
        "a host that took no part in it",
        "after all traffic",
        "after 6 s of idleness",
    },
    "Reachable": {
        "ping, same host",
        "ping, over VXLAN",
        "ping, routed, same host",
        "ping, routed, over VXLAN",
        "TCP, same host",
        "TCP, over VXLAN",
        "TCP, routed, same host",
        "TCP, routed, over VXLAN",
        "ping the gateway",
        "TCP to a group that lets another in",
        "UDP of 4000 bytes, in fragments",
    },
    "Denied": {
        "a port that no rule allows",
        "such a port, over VXLAN",
        "a VM outside the remote group",
        "an address that nobody holds",
        "a spoofed source address",
        "a spoofed source MAC",
    },
    "Stateful": {"the reply", "the reverse connection"},
    "Changes under live traffic": {
        "a rule is removed, its connection lives",
        "the allowed connection beside it",
        "a new connection to that port",
        "the rule comes back",
        "a port is unplugged",
        "the port is plugged in again",
    },
    "Latency": {"first packets to addresses never used"},
    "A large VPC": {"the first traffic again", "a packet to one of the neighbors"},
    "Agents": {"their logs"},
}


@pytest.fixture(scope="module")
def demo(lab_machine, tmp_path_factory):
    """The demo's exit code and JSON document."""
    path = tmp_path_factory.mktemp("demo") / "demo.json"
    code = run_demo(DemoOptions(neighbors=NEIGHBORS, json_file=path))
    return code, json.loads(path.read_text())


def test_every_promise_held(demo):
    code, document = demo
    broken = {one["name"]: one["seen"] for one in document["checks"] if not one["ok"]}
    assert broken == {}
    assert code == 0
    assert document["held"] is True


def test_no_promise_is_missing(demo):
    _, document = demo
    found: dict[str, set[str]] = {}
    for one in document["checks"]:
        found.setdefault(one["theme"], set()).add(one["name"])
    assert found == CHECKS
    assert document["hosts"] == 3
    assert document["vms"] == 12
    assert document["neighbors"] == NEIGHBORS


def test_latency_and_memory_are_measured(demo):
    _, document = demo
    figures = {one["name"]: one["values"] for one in document["measurements"]}
    for path in ("same host", "over VXLAN"):
        values = figures[f"ping {path}, median"]
        assert set(values) == {"first packet", "later packets"}
        assert min(values.values()) > 0
    held = figures["neighbors that the agent holds"]
    assert set(held) == {"h1", "h2", "h3"}
    assert max(held.values()) < NEIGHBORS / 10
    for when in ("before", f"with {NEIGHBORS:,} neighbors more"):
        assert min(figures[f"agent memory {when}"].values()) > 0


def test_ctrl_c_ends_all_of_it(lab_machine):
    """Also while hosts, agents and VMs are being started."""
    with tempfile.TemporaryDirectory(prefix="od-", dir="/tmp") as place:
        demo = subprocess.Popen(
            [sys.executable, "-c", "import mininet_topos.cli_demo as d; d.command()"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": place},
        )
        with demo:
            assert demo.stdout is not None
            assert any("starting 12 VMs" in line for line in demo.stdout)
            time.sleep(0.5)
            (run,) = Path(place).iterdir()
            run_id = run.name.removeprefix(DIRECTORY_PREFIX)
            assert pids_of_run(run_id)
            demo.send_signal(signal.SIGINT)
            assert demo.wait(30) != 0
        assert list(Path(place).iterdir()) == []
        assert pids_of_run(run_id) == []

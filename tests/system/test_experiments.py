"""The short form of each experiment, through the command: every promise, exit code and JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from mininet_topos.experiment_registry import EXPERIMENTS
from mininet_topos.lab_run import DIRECTORY_PREFIX
from mininet_topos.processes import pids_of_run

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "import mininet_topos.cli_experiment as e; e.command()"]

#: Written out, so that a promise cannot vanish from an experiment unnoticed.
PROMISES = {
    "policy-cut": {
        "Streams": {"all that are allowed"},
        "A rule is removed": {
            "streams that the port received",
            "streams that the port began",
            "TCP that is still allowed",
            "UDP that is still allowed",
            "a new connection there",
        },
        "The rule comes back": {
            "the next datagram",
            "the very TCP connections",
            "all other streams",
        },
        "A group leaves the port": {
            "streams that only it allowed",
            "streams that others allow",
            "the group is back",
        },
        "A member leaves a group of 2,000": {
            "its streams",
            "streams of the other members",
            "what the agents did",
            "connections of everybody else",
        },
    },
    "migrate": {
        "Streams": {"all"},
        "Move to h2": {
            "Move to h2: TCP, once it is there",
            "Move to h2: UDP",
            "Move to h2: a third host's location rules",
            "Move to h2: that host's agent",
            "Move to h2: gratuitous ARP and RARP",
        },
        "An address that nobody had": {
            "before it is published",
            "from when it is published",
        },
    },
    "ovs-restart": {
        "Streams": {"all"},
        "ovs-vswitchd is killed and started": {
            "a new flow, with no manual step",
            "UDP streams",
            "the very TCP connections",
        },
        "ovsdb-server is restarted": {
            "all streams",
            "the rules in the switch",
            "a port plugged in after it",
        },
    },
    "source-outage": {
        "Streams": {"all"},
        "The store is moved away": {
            "all streams",
            "the agents' status",
            "a new flow between neighbors known",
            "a flow to a neighbor never asked for",
            "why it is not",
            "its next packets",
        },
        "Garbage takes its place": {
            "garbage: all streams",
            "garbage: a new flow between neighbors known",
            "garbage: a neighbor never asked for",
            "garbage: why it is not",
            "garbage: its next packets",
        },
        "The store is back": {
            "the neighbor asked for last",
            "the same behind the router",
            "those asked for before",
            "a port that is published then",
            "all streams meanwhile",
        },
        "The agent is killed while the store is away": {
            "streams without agent and store",
            "agent and store are back",
        },
    },
    "restart": {
        "Streams": {"all"},
        "Rules": {"made by traffic"},
        "The agent is killed and started again": {
            "streams while no agent runs",
            "streams, from before the kill to after",
            "streams that a rule or a group had allowed",
            "UDP to who has moved",
            "rules that are true",
            "rules that are not",
            "a new flow",
            "all rules",
            "connection tracking",
        },
        "A second agent takes over": {
            "take-over: all streams",
            "take-over: all rules",
            "take-over: new flows",
            "take-over: they are judged",
            "take-over: connection tracking",
            "take-over: the first agent",
        },
    },
    "flood": {
        "Streams": {"all"},
        **{
            scan: {
                f"{scan}: first packets of others",
                f"{scan}: new flows of others",
                f"{scan}: streams of others",
                f"{scan}: the scanner's own connection",
                f"{scan}: frames of the scanner",
            }
            for scan in ("ARP scan", "Address scan", "Port scan")
        },
        "Afterwards": {"rules in the switch", "the agent's memory", "the counters"},
    },
}

#: Those that measure milliseconds, or how soon an agent that has just started serves.
MEASURING = {"flood", "restart"}


def test_each_experiment_is_run_here():
    assert set(PROMISES) == set(EXPERIMENTS)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.alone] if name in MEASURING else [])
        for name in PROMISES
    ],
)
def test_every_promise_holds(name, lab_machine, tmp_path):
    path = tmp_path / "seen.json"
    done = subprocess.run(
        [*COMMAND, name, "--quick", "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    document = json.loads(path.read_text())
    broken = {one["name"]: one["seen"] for one in document["checks"] if not one["ok"]}
    assert broken == {}
    assert done.returncode == 0, done.stderr
    assert (document["held"], document["experiment"], document["quick"]) == (True, name, True)
    found: dict[str, set[str]] = {}
    for one in document["checks"]:
        found.setdefault(one["theme"], set()).add(one["name"])
    assert found == PROMISES[name] | {"Agents": {"their logs"}}
    assert f"{len(document['checks'])} of {len(document['checks'])} checks held" in done.stdout


def test_ctrl_c_ends_all_of_it(lab_machine):
    """Also while streams run."""
    with tempfile.TemporaryDirectory(prefix="od-", dir="/tmp") as place:
        experiment = subprocess.Popen(
            [*COMMAND, "ovs-restart", "--quick"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": place},
        )
        with experiment:
            assert experiment.stdout is not None
            assert any("streams begin" in line for line in experiment.stdout)
            time.sleep(1.0)
            (run,) = Path(place).iterdir()
            run_id = run.name.removeprefix(DIRECTORY_PREFIX)
            assert pids_of_run(run_id)
            experiment.send_signal(signal.SIGINT)
            assert experiment.wait(30) != 0
        assert list(Path(place).iterdir()) == []
        assert pids_of_run(run_id) == []

"""``slices verify`` and ``slices watch`` beside agents that run, and the demo on a NATS server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import controller_app
from mininet_topos.demo import DemoOptions, run_demo
from mininet_topos.demo_lab import DemoLab
from mininet_topos.demo_on_demand import first_traffic
from mininet_topos.demo_state import ADMIN_RULES, VM
from mininet_topos.lab_run import DIRECTORY_PREFIX
from mininet_topos.lab_source import NatsSource, SourceKind
from mininet_topos.processes import pids_of_run
from tests.support.nats_server import needs_nats_server

CHECKOUT = Path(controller_app.__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "controller_app.cli", "slices"]
DEMO = [sys.executable, "-c", "import mininet_topos.cli_demo as d; d.command()"]
ENVIRONMENT = {"PYTHONPATH": str(CHECKOUT)}
PATIENCE_S = 20.0

KINDS = ["sqlite", pytest.param("nats", marks=needs_nats_server)]


@pytest.fixture(scope="module", params=KINDS)
def lab(request: pytest.FixtureRequest, lab_machine: None) -> Iterator[DemoLab]:
    kind: SourceKind = request.param
    made = DemoLab(with_fleet=False, progress=lambda _: None)
    made.source_kind = kind
    with made:
        first_traffic(made)
        yield made


def verify(lab: DemoLab, number: int, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and answer, asked in the host's own namespace as its operator would."""
    config = str(lab.agents[number].config_file)
    done = lab.host(number).execute(
        [*COMMAND, "verify", "--config", config, "--json", *arguments],
        timeout_s=PATIENCE_S,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def test_agents_that_run_hold_what_the_source_has(lab: DemoLab) -> None:
    for number in lab.agents:
        code, found = verify(lab, number)
        assert (code, found["differences"], found["moving"]) == (0, {}, [])
        assert found["host"] == f"h{number}"
    assert found["records"] > 5
    _, first = verify(lab, 1)
    assert first["records"] > found["records"], "h1 had traffic"


def test_a_change_just_published_is_no_difference(lab: DemoLab) -> None:
    lab.publish_without(ADMIN_RULES)
    lab.publish_without(())
    lab.publish_without(ADMIN_RULES)
    try:
        for number in lab.agents:
            code, found = verify(lab, number)
            assert (code, found["differences"]) == (0, {})
    finally:
        lab.publish_without(())


def test_an_agent_that_does_not_go_on_is_behind(lab: DemoLab) -> None:
    agent = lab.agents[2].process
    assert verify(lab, 2, "--wait", "10")[0] == 0
    agent.send_signal(signal.SIGSTOP)
    try:
        lab.publish_without(ADMIN_RULES)
        code, found = verify(lab, 2, "--wait", "0.5")
        assert code == 1
        assert set(found["differences"]) == {"sg/web"}
        one = found["differences"]["sg/web"]
        assert set(one["gone"]) == {f"rule/{name}" for name in ADMIN_RULES}
        assert one["held_version"] < one["source_version"]
    finally:
        agent.send_signal(signal.SIGCONT)
        lab.publish_without(())
    code, found = verify(lab, 2, "--wait", "10")
    assert (code, found["differences"]) == (0, {})


def test_watch_tells_what_agents_hear(lab: DemoLab) -> None:
    source = lab.source
    command = [*source.prefix.split(), *COMMAND, "watch", "--store", source.place, "--json"]
    command += ["--for", str(PATIENCE_S)]
    watching = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **ENVIRONMENT}
    )
    with watching:
        assert watching.stdout is not None
        begin = json.loads(watching.stdout.readline())
        assert (begin["event"], begin["store"]) == ("following", source.place)
        lab.publish_without(ADMIN_RULES)
        told = [json.loads(watching.stdout.readline()) for _ in ADMIN_RULES]
        lab.publish_without(())
        back = [json.loads(watching.stdout.readline()) for _ in ADMIN_RULES]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(PATIENCE_S) == 0
    for seen, change in ((told, "removed"), (back, "added")):
        assert {(one["slice"], one["key"], one["change"]) for one in seen} == {
            ("sg/web", f"rule/{name}", change) for name in ADMIN_RULES
        }


def test_explain_reaches_the_source_as_the_lab_says(lab: DemoLab) -> None:
    """The line that ``--keep`` prints."""
    source = lab.source
    words = [*("explain", "--store", source.place, "--port", "client-2"), "--json"]
    flow = f"tcp,nw_dst={VM['web-1'].ips[0]},tp_dst=80"
    done = subprocess.run(
        [*source.prefix.split(), *COMMAND[:-1], *words, flow],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        env={**os.environ, **ENVIRONMENT},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_only_the_thread_that_connects_is_in_the_servers_namespace(lab: DemoLab) -> None:
    own = Path("/proc/thread-self/ns/net").readlink()
    threads = [path.readlink() for path in Path("/proc/self/task").glob("*/ns/net")]
    others = {namespace for namespace in threads if namespace != own}
    if isinstance(lab.source, NatsSource):
        assert others == {Path(f"/proc/{lab.source.node.pid}/ns/net").readlink()}
    else:
        assert others == set()
    assert "mgmt0" not in {path.name for path in Path("/sys/class/net").iterdir()}


@needs_nats_server
def test_every_promise_of_the_demo_holds_on_nats(lab_machine: None, tmp_path: Path) -> None:
    path = tmp_path / "demo.json"
    code = run_demo(DemoOptions(neighbors=10_000, json_file=path, source="nats"))
    document = json.loads(path.read_text())
    broken = {one["name"]: one["seen"] for one in document["checks"] if not one["ok"]}
    assert (broken, code, document["source"]) == ({}, 0, "nats")


@needs_nats_server
def test_ctrl_c_ends_the_server_too(lab_machine: None) -> None:
    with tempfile.TemporaryDirectory(prefix="od-", dir="/tmp") as place:
        demo = subprocess.Popen(
            [*DEMO, "--source", "nats"],
            cwd=CHECKOUT,
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
            programs = {
                Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids_of_run(run_id)
            }
            assert "nats-server" in programs
            demo.send_signal(signal.SIGINT)
            assert demo.wait(30) != 0
        assert list(Path(place).iterdir()) == []
        assert pids_of_run(run_id) == []


def test_without_the_program_the_demo_says_how_to_get_it(
    lab_machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from mininet_topos import nats_server
    from mininet_topos.cli_demo import command

    monkeypatch.setattr(nats_server, "find_nats_server", lambda: None)
    result = CliRunner().invoke(command, ["--source", "nats"])
    assert result.exit_code == 2
    assert "nats-server is not installed: run 'make setup', or apt-get install" in result.output

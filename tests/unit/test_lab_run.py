"""What a run owns is closed; processes are found by the run's mark; bad names are refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mininet_topos.errors import CommandError, CommandTimeoutError, LabConfigError, LabError
from mininet_topos.fabric import Fabric
from mininet_topos.lab_run import LabRun
from mininet_topos.node import check_interface_name, interface_addresses
from mininet_topos.owner import Owner
from mininet_topos.processes import (
    RUN_VARIABLE,
    Background,
    end_processes_of_run,
    pids_of_run,
    run_command,
    start_ticks,
    wait_until_path_exists,
)
from mininet_topos.sweep import sweep
from mininet_topos.vm import VmSpec


class Recorder:
    def __init__(self, name: str, log: list[str], *, error: Exception | None = None) -> None:
        self.name, self.log, self.error = name, log, error

    def begin_close(self) -> None:
        self.log.append(f"begin {self.name}")

    def close(self) -> None:
        self.log.append(f"close {self.name}")
        if self.error is not None:
            raise self.error


def test_the_last_owned_is_closed_first_and_once():
    log: list[str] = []
    with LabRun() as run:
        run.own(Recorder("a", log))
        gone = Recorder("gone", log)
        run.own(gone)
        run.own(Recorder("b", log))
        run.disown(gone)
        assert run.directory.is_dir()
        assert run.directory.name == f"ondemand-{run.id}"
    run.close()
    assert log == ["begin b", "begin a", "close b", "close a"]
    assert not run.directory.exists()


def test_one_that_cannot_be_closed_does_not_keep_the_others():
    log: list[str] = []
    run = LabRun()
    run.own(Recorder("a", log))
    run.own(Recorder("b", log, error=LabError("stuck")))
    with pytest.raises(ExceptionGroup) as caught:
        run.close()
    assert [str(error) for error in caught.value.exceptions] == ["stuck"]
    assert log[-1] == "close a"
    assert not run.directory.exists()


def test_a_run_that_is_closed_takes_nothing_and_closes_what_it_is_given():
    run = LabRun()
    run.close()
    log: list[str] = []
    with pytest.raises(LabError, match="being closed"):
        run.own(Recorder("late", log))
    assert log == ["close late"]


def test_logs_are_kept_on_demand(tmp_path, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="odt") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        with LabRun(keep_directory=True) as run:
            (run.directory / "x.log").write_text("said")
        assert (run.directory / "x.log").read_text() == "said"


def test_a_directory_too_long_for_sockets_is_refused_and_removed(tmp_path, monkeypatch):
    place = tmp_path / ("x" * 60)
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with pytest.raises(LabConfigError, match="TMPDIR"):
        LabRun()
    assert list(place.iterdir()) == []


def test_sigterm_leaves_the_context_and_a_second_one_waits_for_the_closing():
    log: list[str] = []

    class Impatient(Recorder):
        def close(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            super().close()

    former = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        run = LabRun()
        run.own(Recorder("a", log))
        with pytest.raises(SystemExit) as caught, run:
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.code == 128 + signal.SIGTERM
        assert log == ["begin a", "close a"]
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

        got: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
        with LabRun() as run:
            run.own(Impatient("b", log))
        assert log[-1] == "close b"
        assert got == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, former)


def test_a_label_is_free_again_and_gets_a_directory_of_its_own():
    with LabRun() as run:
        first = run.claim_label("h1")
        with pytest.raises(LabConfigError, match="'h1' is taken"):
            run.claim_label("h1")
        run.release_label("h1")
        second = run.claim_label("h1")
        assert first != second
        assert first.is_dir()
        assert second.is_dir()


# Processes ----------------------------------------------------------------------------------------


def test_a_command_gives_its_outputs_and_its_failure():
    result = run_command(["sh", "-c", "cat; echo err >&2"], stdin_text="in")
    assert (result.returncode, result.stdout, result.stderr) == (0, "in", "err\n")
    with pytest.raises(CommandError, match=r"h1: 'sh -c exit 3' failed \(3\)") as caught:
        run_command(["sh", "-c", "exit 3"], where="h1")
    assert caught.value.returncode == 3
    assert run_command(["sh", "-c", "exit 3"], check=False).returncode == 3
    with pytest.raises(CommandError, match="no-such-program is not installed"):
        run_command(["no-such-program"])


def test_a_command_over_its_time_is_killed_with_its_children():
    begin = time.monotonic()
    mark = f"t{os.getpid()}"
    with pytest.raises(CommandTimeoutError, match=r"within 0\.2 s"):
        run_command(
            ["sh", "-c", "sleep 100 & sleep 100"],
            timeout_s=0.2,
            env={**os.environ, RUN_VARIABLE: mark},
        )
    assert time.monotonic() - begin < 50
    assert pids_of_run(mark) == []


def test_a_background_process_is_ended_by_term_or_by_kill(tmp_path):
    log = tmp_path / "log"
    gentle = Background("gentle", ["sh", "-c", "echo hello; sleep 100"], log=log)
    stubborn = Background(
        "stubborn",
        ["sh", "-c", "trap '' TERM; echo set; while :; do sleep 0.05; done"],
        log=tmp_path / "other",
    )
    while "set" not in stubborn.output() or "hello" not in gentle.output():
        time.sleep(0.01)
    assert gentle.running
    gentle.stop()
    gentle.stop()
    assert gentle.returncode == -signal.SIGTERM
    assert gentle.output() == "hello\n"
    assert gentle.output_tail(max_bytes=3) == "lo\n"
    stubborn.stop(grace_s=0.2)
    assert stubborn.returncode == -signal.SIGKILL
    assert start_ticks(stubborn.pid) is None


def test_output_is_what_this_process_wrote_not_an_earlier_one_of_its_name(tmp_path):
    for word in ("first", "second"):
        process = Background("again", ["echo", word], log=tmp_path / "again")
        assert process.wait(10)
        assert process.output() == process.output_tail() == f"{word}\n"
    assert (tmp_path / "again").read_text() == "first\nsecond\n"


def test_waiting_for_a_file_ends_with_the_process_or_the_time(tmp_path):
    dead = Background("d", ["sh", "-c", "echo no luck; exit 4"], log=tmp_path / "d")
    with pytest.raises(CommandError, match=r"failed \(4\): no luck"):
        wait_until_path_exists(tmp_path / "never", dead, timeout_s=10)
    slow = Background("s", ["sleep", "100"], log=tmp_path / "s")
    with pytest.raises(CommandTimeoutError, match="never did not appear"):
        wait_until_path_exists(tmp_path / "never", slow, timeout_s=0.1)
    slow.kill()


def test_only_processes_of_the_run_are_ended(tmp_path):
    mine, other = f"m{os.getpid()}", f"m{os.getpid()}x"
    processes = {}
    for mark in (mine, other):
        env = {**os.environ, RUN_VARIABLE: mark}
        processes[mark] = Background("x", ["sleep", "100"], log=tmp_path / mark, env=env)
    # Until exec, a child still has its parent's environment.
    while not (pids_of_run(mine) and pids_of_run(other)):
        time.sleep(0.01)
    assert pids_of_run(mine) == [processes[mine].pid]
    assert end_processes_of_run(mine) == 1
    assert processes[mine].wait(5)
    assert processes[other].running
    processes[other].kill()


# Owners and sweeping ------------------------------------------------------------------------------


def dead_owner() -> Owner:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return replace(Owner.this_process(), pid=process.pid)


def test_an_owner_is_dead_only_when_that_is_certain():
    here = Owner.this_process()
    assert not here.is_dead
    assert replace(here, start_ticks=here.start_ticks + 1).is_dead, "the pid was given away again"
    assert replace(here, boot_id="another").is_dead
    assert dead_owner().is_dead
    assert not replace(dead_owner(), pid_namespace="pid:[1]").is_dead, "it cannot be looked up here"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": "x"}', "\x00", '{"pid": 1}'])
def test_an_owner_file_not_in_our_form_is_no_owner(tmp_path, text):
    (tmp_path / "owner.json").write_text(text)
    assert Owner.read(tmp_path) is None


def test_sweep_takes_only_directories_of_dead_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = ("ondemand-dead", "ondemand-live", "ondemand-none", "another-dead", "kept")
    for name in names:
        (tmp_path / name).mkdir()
    dead_owner().write(tmp_path / "ondemand-dead")
    dead_owner().write(tmp_path / "another-dead")
    dead_owner().write(tmp_path / "kept")
    Owner.this_process().write(tmp_path / "ondemand-live")
    (tmp_path / "ondemand-link").symlink_to(tmp_path / "kept")
    (tmp_path / "ondemand-file").write_text(json.dumps({}))
    assert sweep().run_ids == ("dead",)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*names, "ondemand-link", "ondemand-file"} - {"ondemand-dead"}
    assert (tmp_path / "kept/owner.json").exists()


# Values that cannot be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mac": "02:00:00:00:00"}, "unicast MAC"),
        ({"mac": "01:00:00:00:00:01"}, "unicast MAC"),
        ({"mac": "02:00:00:00:00:0g"}, "unicast MAC"),
        ({"addresses": ("10.0.0.1",)}, "10.0.0.1/24"),
        ({"addresses": ("10.0.0.1/33",)}, "10.0.0.1/33"),
        ({"gateways": ("10.0.0.254", "10.0.0.253")}, "more than one gateway"),
        ({"gateways": ("router",)}, "'router' is not an address"),
        ({"mtu": 1279}, "1279"),
    ],
)
def test_a_vm_that_cannot_be_is_refused(change, match):
    good = {"name": "vm1", "mac": "02:00:00:00:00:01", "addresses": ("10.0.0.1/24", "fd00::1/64")}
    VmSpec(**good)
    with pytest.raises(LabConfigError, match=match):
        VmSpec(**{**good, **change})


def test_interface_names_and_addresses_are_checked():
    check_interface_name("tap-12345678901")
    for bad in ("tap-123456789012", "", "a b", "a/b", "a:b"):
        with pytest.raises(LabConfigError, match="interface name"):
            check_interface_name(bad)
    first, second = interface_addresses(["10.0.0.1/24", "fd00::1/64"])
    assert (first.version, second.version) == (4, 6)


@pytest.mark.parametrize(
    ("hosts", "network", "match"),
    [
        (0, "192.0.2.0/24", "0 compute hosts"),
        (3, "192.0.2.0/30", "3 compute hosts"),
        (1, "fd00::/64", "fd00::/64"),
        (1, "192.0.2.1/24", "192.0.2.1/24"),
    ],
)
def test_a_fabric_that_cannot_be_is_refused_before_anything_is_made(hosts, network, match):
    before = set(Path(tempfile.gettempdir()).glob("ondemand-*"))
    with pytest.raises(LabConfigError, match=match):
        Fabric(hosts=hosts, network=network)
    assert set(Path(tempfile.gettempdir()).glob("ondemand-*")) <= before

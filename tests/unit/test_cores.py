from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mininet_topos.cores import Cores

CORES = os.sched_getaffinity(0)
GROUPS = Path("/sys/fs/cgroup/cpu")


@pytest.fixture
def sleeper() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "60"], start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def group_of(pid: int | str) -> str:
    """The cpu group of version 1; empty where there is none."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            return path
    return ""


def test_what_is_started_shares_all_cores_but_one(sleeper) -> None:
    before = group_of("self")
    with Cores() as cores:
        one = sleeper()
        rest = CORES - {min(CORES)} if len(CORES) > 1 else CORES
        assert os.sched_getaffinity(one.pid) == rest
        cores.give_one(one.pid)
        assert os.sched_getaffinity(one.pid) == {min(CORES)}
        inside = group_of(one.pid)
        assert group_of("self") == inside
        one.kill()
        one.wait()
    assert os.sched_getaffinity(0) == CORES
    assert group_of("self") == before
    if inside != before:
        assert not (GROUPS / inside.lstrip("/")).exists()


def test_who_runs_when_idle_may_do_so_on_any_core(sleeper) -> None:
    with Cores() as cores:
        one = sleeper()
        cores.run_when_idle(one.pid)
        assert os.sched_getscheduler(one.pid) == os.SCHED_IDLE
        assert os.sched_getaffinity(one.pid) == CORES
        one.kill()
        one.wait()


def test_all_is_as_before_after_an_error() -> None:
    before = group_of("self")
    with pytest.raises(ZeroDivisionError), Cores():
        sys.exit(1 // 0)
    assert os.sched_getaffinity(0) == CORES
    assert group_of("self") == before

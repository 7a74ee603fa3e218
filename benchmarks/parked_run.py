"""Packets that wait in an agent for records that do not come, and the memory that they take."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.controllers import free_port, running
from benchmarks.machine import rss_mib
from benchmarks.native_build import build
from benchmarks.switch_run import RunError

#: Seconds until all must wait, and in which nothing more may come before the memory is read.
FILL_S: Final = 20.0
QUIET_S: Final = 0.5
_POLL_S: Final = 0.05


def fill(store: Path, plan: Path, place: Path, *, ports: int, packets: int) -> float:
    """Resident memory, MiB, of an agent in which so many of a plan's packets wait, each for a record of its own.

    Args:
        store: the agent's, of ``benchmarks.vpc``.
        plan: flows, one for each neighbor, and one more.
        place: an empty directory for logs and status.
        ports: that are plugged in.
        packets: how many.

    Raises:
        RunError: not all of them came to wait.
    """
    port = free_port()
    status = place / "status.json"
    argv = [
        *(sys.executable, "-m", "benchmarks.parked_process", "--port", str(port)),
        *("--store", str(store), "--ports", str(ports), "--room", str(packets)),
        *("--status", str(status)),
    ]
    switch_argv = [
        *(str(build("fake_switch")), "--connect", str(port), "--plan", str(plan)),
        *("--expect", "service", "--latencies", str(place / "latencies")),
    ]
    # One more, for which there is no room: the fake switch gives up some seconds after its last packet, and an
    # agent may need longer for the others.
    switch_argv += ["--phase", f"all:{packets}:{packets}:10", "--phase", "more:1:1:10"]
    log = place / "controller.log"
    with running(argv, log) as agent, (place / "switch.log").open("wb") as output:
        switch = subprocess.Popen(switch_argv, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait(status, switch, packets)
            time.sleep(QUIET_S)
            memory = rss_mib(agent.pid)
            parked = _parked(status)
        finally:
            switch.kill()
            switch.wait()
    if parked != packets:
        raise RunError(f"{parked} packets wait instead of {packets}")
    return round(memory, 2)


def _wait(status: Path, switch: subprocess.Popen[bytes], packets: int) -> None:
    end_s = time.monotonic() + FILL_S
    while (parked := _parked(status)) < packets:
        if switch.poll() is not None or time.monotonic() > end_s:
            raise RunError(f"{parked} packets wait in the agent instead of {packets}")
        time.sleep(_POLL_S)


def _parked(status: Path) -> int:
    try:
        found: dict[str, Any] = json.loads(status.read_text())
    except FileNotFoundError:
        return 0
    return int(found["parked"])

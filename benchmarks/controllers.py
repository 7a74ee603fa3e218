"""The controllers that are compared, each as a process of its own on one core."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.native_build import build

_END_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Contender:
    """A controller and the job that it gets.

    Attributes:
        name: as the table shows it.
        plan: which of the run's flow plans.
        expect: what its answers must be: "service", "connection", "location" or "exact"
            (``native/fake_switch.c``).
        command: from a free TCP port and a directory for its files to its command line.
        table_size: rules that the fake switch holds before it reports the oldest as removed; 0: all.
        thinks: its rules are meant for a switch, so that a sample of them is decoded and looked at.
    """

    name: str
    plan: str
    expect: str
    command: Callable[[int, Path], list[str]]
    table_size: int = 0
    thinks: bool = True


@dataclass(frozen=True, slots=True)
class Cores:
    """Two cores for two things that take turns: controller and instrument. None: not pinned."""

    first: int | None
    second: int | None

    @classmethod
    def of_this_machine(cls) -> Cores:
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[1]) if len(usable) > 1 else cls(None, None)


def pinned(argv: list[str], core: int | None) -> list[str]:
    """The command on one core (taskset(1))."""
    return argv if core is None else ["taskset", "--cpu-list", str(core), *argv]


def pin(pid: int, core: int | None) -> None:
    """Put a running process on one core, with all threads that it has and will have."""
    if core is not None:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def null_responder(ports: int, plan: Path) -> Callable[[int, Path], list[str]]:
    """Answers without thinking: what the instrument and the loopback allow."""
    program = str(build("null_controller"))
    return lambda port, _: [program, str(port), str(ports), str(plan)]


def agent(
    store: Path, ports: int, match: str, *, whole: bool = False, dispatch: str = "hot"
) -> Callable[[int, Path], list[str]]:
    """The agent without OVSDB.

    ``whole``: with all modules in memory that OVSDB takes. ``dispatch``: "hot" or "stock", who hands it
    the messages of the switch (``agent_process``).
    """
    return lambda port, place: [
        *(sys.executable, "-m", "benchmarks.agent_process"),
        *("--port", str(port), "--store", str(store), "--ports", str(ports), "--match", match),
        *("--status", str(place / "status.json"), "--dispatch", dispatch),
        *(["--whole"] if whole else []),
    ]


def stock_app(port: int, _place: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.stock_app", "--port", str(port)]


def ovs_testcontroller(port: int, place: Path) -> list[str]:
    """Open vSwitch's learning switch in C, in the foreground, with its exact rules."""
    return [
        *("ovs-testcontroller", "--protocols=OpenFlow13", f"--unixctl={place / 'control'}"),
        *("--verbose=console:off", "--verbose=syslog:off", f"ptcp:{port}:127.0.0.1"),
    ]


def has_ovs_testcontroller() -> bool:
    return shutil.which("ovs-testcontroller") is not None


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def running(argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with the context, its output in ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[1],
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

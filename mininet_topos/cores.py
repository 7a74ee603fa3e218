"""Cores and scheduling of a lab whose machine has fewer cores than a compute host.

There the switch has cores that no VM runs on, and a VM that floods burns its own virtual CPU. Here all
share a few cores, so the flood would be seen to harm others by taking their processor time, which says
nothing about the switch. So the switch that is looked at gets a core, all else the others, and who floods
runs only when nobody else wants to (SCHED_IDLE, sched(7)).

SCHED_IDLE and nice values compare processes of one scheduling group only, and Linux makes a group of each
session (sched(7), "The autogroup feature"). A lab starts each process in a session of its own. So the lab's
processes are put into one group, where the machine lets them be (cgroups(7), the cpu controller).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

#: Where a version 1 hierarchy with the cpu controller is mounted, if it is.
_CPU_V1: Final = Path("/sys/fs/cgroup/cpu")
_PROCESSES: Final = "cgroup.procs"
_LEAST: Final = 19
#: Processes that have been ended leave their group a moment later.
_REMOVE_TRIES: Final = 20


class Cores:
    """A context: what is started in it runs on all cores but one, in one scheduling group.

    On a machine with one core everything shares it.
    """

    def __init__(self) -> None:
        self._before: set[int] = set()
        self._group: Path | None = None
        self._left: Path | None = None

    def __enter__(self) -> Self:
        self._before = os.sched_getaffinity(0)
        if len(self._before) > 1:
            os.sched_setaffinity(0, self._before - {min(self._before)})
        self._join()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.sched_setaffinity(0, self._before)
        self._leave()

    def give_one(self, thread: int) -> None:
        """Let a thread have the core that nothing else runs on (a pid stands for its main thread)."""
        os.sched_setaffinity(thread, {min(self._before)})

    def run_when_idle(self, pid: int) -> None:
        """Let a process run only when no other wants to, on whatever core.

        Where there is no group it runs a little in any case.
        """
        os.sched_setaffinity(pid, self._before)
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        if self._group is None:
            # Not there without autogroups, and then not needed.
            with suppress(OSError):
                Path(f"/proc/{pid}/autogroup").write_text(str(_LEAST))

    def _join(self) -> None:
        group = _CPU_V1 / f"ondemand-{os.getpid()}"
        try:
            left = _CPU_V1 / _own_group().lstrip("/")
            group.mkdir()
        except OSError:
            return
        try:
            (group / _PROCESSES).write_text(str(os.getpid()))
        except OSError:
            with suppress(OSError):
                group.rmdir()
            return
        self._group, self._left = group, left

    def _leave(self) -> None:
        group, self._group = self._group, None
        if group is None or self._left is None:
            return
        with suppress(OSError):
            (self._left / _PROCESSES).write_text(str(os.getpid()))
        for _ in range(_REMOVE_TRIES):
            try:
                group.rmdir()
            except OSError:
                time.sleep(0.05)
            else:
                return


def _own_group() -> str:
    """This process's group in the version 1 hierarchy of the cpu controller; OSError: there is none."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            return path
    raise FileNotFoundError("no cpu controller")


__all__ = ["Cores"]

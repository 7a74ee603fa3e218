"""Who owns a run's directory, and whether that owner is still alive."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from mininet_topos.errors import LabError
from mininet_topos.processes import start_ticks

#: Name of the file in a run's directory.
OWNER_FILE: Final = "owner.json"

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that made a run, named so that no other process is taken for it.

    A pid alone is not enough: it is given away again, after a reboot too, and a container that
    shares the temporary directory counts its pids for itself.
    """

    pid: int
    start_ticks: int
    boot_id: str
    pid_namespace: str

    @classmethod
    def this_process(cls) -> Self:
        pid = os.getpid()
        ticks = start_ticks(pid)
        if ticks is None:
            raise LabError(f"/proc/{pid}/stat cannot be read: mount proc on /proc")
        return cls(pid, ticks, _boot_id(), _pid_namespace())

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """The owner written in a run's directory; None when there is none, or not in our form."""
        try:
            fields = json.loads((directory / OWNER_FILE).read_text())
            return cls(
                int(fields["pid"]),
                int(fields["start_ticks"]),
                str(fields["boot_id"]),
                str(fields["pid_namespace"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, directory: Path) -> None:
        (directory / OWNER_FILE).write_text(json.dumps(asdict(self)))

    @property
    def is_dead(self) -> bool:
        """True only when it is certain: an owner in another pid namespace counts as alive."""
        if self.boot_id != _boot_id():
            return True
        if self.pid_namespace != _pid_namespace():
            return False
        return start_ticks(self.pid) != self.start_ticks


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())

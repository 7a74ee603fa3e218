"""Remove what dead runs of the lab left behind (killed by SIGKILL, or by a power cut).

Only a directory that a run made and whose owner is certainly dead is touched, and only processes
that carry that run's id are ended. Namespaces and interfaces go with their last process.

``python -m mininet_topos.sweep`` does it from the command line.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mininet_topos.lab_run import DIRECTORY_PREFIX
from mininet_topos.owner import Owner
from mininet_topos.processes import end_processes_of_run


@dataclass(frozen=True, slots=True)
class Swept:
    """What was removed: the ids of the dead runs, and how many of their processes were ended."""

    run_ids: tuple[str, ...]
    processes: int


def sweep() -> Swept:
    """Remove the leftovers of all dead runs below the temporary directory."""
    run_ids: list[str] = []
    processes = 0
    for directory in sorted(Path(tempfile.gettempdir()).glob(f"{DIRECTORY_PREFIX}*")):
        owner = Owner.read(directory) if _is_ours(directory) else None
        if owner is None or not owner.is_dead:
            continue
        run_id = directory.name.removeprefix(DIRECTORY_PREFIX)
        processes += end_processes_of_run(run_id)
        shutil.rmtree(directory, ignore_errors=True)
        run_ids.append(run_id)
    return Swept(tuple(run_ids), processes)


def _is_ours(directory: Path) -> bool:
    """No link, and made by this user: another user's directory could name any run."""
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return False  # another run ended meanwhile
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def main() -> int:
    swept = sweep()
    sys.stdout.write(f"removed {len(swept.run_ids)} dead runs, ended {swept.processes} processes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

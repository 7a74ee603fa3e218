"""What a check of ``ondemand doctor`` says, and the machine that it asks."""

from __future__ import annotations

import enum
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: ovs-vswitchd, ethtool and their like live here, which an ordinary user's PATH leaves out.
_SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
#: Seconds that a program may take to say its version or its state.
RUN_TIMEOUT_S: Final = 5.0


class Status(enum.Enum):
    """WARN: works, or may work, but not as it should. FAIL: the agent or the demo will not run."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, what was found, and the mend ("" when there is nothing to do)."""

    name: str
    status: Status
    found: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """What a program said: both its outputs together, without blanks around them."""

    code: int
    text: str


class Machine:
    """The machine as it is. Tests put another in its place."""

    python: tuple[int, ...] = sys.version_info[:3]

    def which(self, program: str) -> str | None:
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))
        return shutil.which(program, path=path)

    def run(self, *command: str) -> Output | None:
        """What a program says; None when it is not installed or does not end in time."""
        program = self.which(command[0])
        if program is None:
            return None
        try:
            done = subprocess.run(
                [program, *command[1:]],
                capture_output=True,
                timeout=RUN_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return Output(done.returncode, (done.stdout + done.stderr).decode(errors="replace").strip())

    def package_version(self, name: str) -> str | None:
        """The version of an installed Python package."""
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    def has_path(self, path: str) -> bool:
        """Whether it is there, as far as this user can see."""
        return os.access(path, os.F_OK)

    def addresses(self) -> frozenset[str]:
        """The addresses of all interfaces, as text; none where they cannot be read."""
        said = self.run("ip", "-o", "addr", "show")
        if said is None or said.code != 0:
            return frozenset()
        return frozenset(re.findall(r"^\d+: \S+ +inet6? ([0-9a-f.:]+)", said.text, re.MULTILINE))

    def capabilities(self) -> int:
        """Effective capabilities as bits (capabilities(7)); 0 where they cannot be read."""
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return 0
        found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
        return int(found[1], 16) if found else 0


def version_of(text: str) -> tuple[int, ...]:
    """The first dotted number in a text; () when it has none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))

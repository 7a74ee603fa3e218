"""What a result was measured on, so that two results can be told apart."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def describe_machine() -> dict[str, Any]:
    """CPU, kernel and versions, for the ``machine`` part of a result file."""
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mib": _memory_mib(),
        "kernel": platform.release(),
        "system": _system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "open_vswitch": _ovs_version(),
        "packages": {name: _package(name) for name in ("os-ken", "msgspec", "msgpack")},
        "load_1min": round(os.getloadavg()[0], 2),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machine_line(machine: dict[str, Any]) -> str:
    """The same in one line, for the head of a table."""
    return (
        f"{machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}, "
        f"{machine['python']}, Open vSwitch {machine['open_vswitch']}, "
        f"os-ken {machine['packages']['os-ken']}, load {machine['load_1min']}"
    )


def rss_mib(pid: int, *, peak: bool = False) -> float:
    """Resident memory of a process in MiB (VmRSS or VmHWM, proc(5)); 0 when it is gone."""
    field = "VmHWM" if peak else "VmRSS"
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _ovs_version() -> str:
    if shutil.which("ovs-vswitchd") is None:
        return "not installed"
    said = subprocess.run(
        ["ovs-vswitchd", "--version"], capture_output=True, text=True, timeout=10, check=False
    ).stdout
    found = re.search(r"(\d+(?:\.\d+)+)", said)
    return found[1] if found else "unknown"


def _package(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"

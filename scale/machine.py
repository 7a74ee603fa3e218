"""Memory, CPU time and limits of processes, from /proc (proc(5)) and getrlimit(2)."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path


def rss_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it is gone."""
    return _status(pid, "VmRSS") * 1024


def _status(pid: int, field: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) if found else 0


def cpu_s(pid: int) -> float:
    """User and system time of a process in seconds, in steps of a clock tick; 0 when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def available_bytes() -> int:
    """Memory that can be used without swapping."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def raise_file_limit() -> int:
    """Let this process open as many files as it may; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def cpus() -> int:
    return len(os.sched_getaffinity(0))

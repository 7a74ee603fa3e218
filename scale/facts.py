"""What the experiment hands over for machines, beside its promises."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from mininet_topos.errors import LabConfigError
from scale.growth import FIT, REGION_HOSTS, curves
from scale.machine import cpus
from scale.measure import Result
from scale.origin import nats_server_program
from scale.settings import Settings
from scale.verdict import Results


class _Document(msgspec.Struct):
    by_hosts: list[Result]
    by_goal_size: list[Result]


def facts(settings: Settings, results: Results, left_out: str) -> dict[str, Any]:
    """All settings, figures and curves, and the machine, as plain JSON."""
    drawn = [
        {
            "contender": curve.contender,
            "figure": curve.figure.name,
            "unit": curve.figure.unit,
            "measured": [list(point) for point in curve.points],
            "extrapolated": [list(p) for p in curve.beyond([settings.hosts, REGION_HOSTS])],
            "fit": None
            if curve.line is None
            else {"base": curve.line.base, "slope": curve.line.slope, "r2": curve.line.r2},
        }
        for curve in curves(results.by_hosts)
    ]
    return {
        "experiment": "fanout",
        "quick": settings.quick,
        "hosts": max((one.hosts for one in results.by_hosts), default=0),
        "asked": {
            "hosts": settings.hosts,
            "ports_per_host": settings.ports_per_host,
            "neighbors": settings.neighbors,
            "rules": settings.rules,
            "seed": settings.seed,
            "drivers": settings.drivers,
            "audit_s": settings.audit_s,
            "without": sorted(settings.without),
        },
        "left_out": left_out,
        "machine": _machine(),
        "fit": FIT,
        "by_hosts": [one.as_json() for one in results.by_hosts],
        "by_goal_size": [one.as_json() for one in results.by_goal],
        "growth": drawn,
    }


def read_results(path: Path) -> Results:
    """The results in a JSON file of an earlier run.

    Raises:
        LabConfigError: it is none.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Document)
    except (OSError, msgspec.MsgspecError) as error:
        raise LabConfigError(f"{path} holds no results of this experiment: {error}") from error
    return Results(found.by_hosts, found.by_goal_size)


def _machine() -> dict[str, Any]:
    said = subprocess.run(
        [nats_server_program(), "--version"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return {
        "cpus": cpus(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nats_server": (said.stdout or said.stderr).strip(),
        "packages": {name: _version(name) for name in ("nats-py", "grpcio", "msgspec")},
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"

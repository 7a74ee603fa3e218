"""What a machine must have before a lab can be built on it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from mininet_topos.errors import CommandError, LabUnavailableError
from mininet_topos.processes import run_command

#: Program -> the Debian package that brings it.
PROGRAMS: Final = {
    "ovs-vswitchd": "openvswitch-switch",
    "ovsdb-server": "openvswitch-common",
    "ovs-vsctl": "openvswitch-switch",
    "ovs-ofctl": "openvswitch-common",
    "ovs-appctl": "openvswitch-common",
    "ovsdb-tool": "openvswitch-common",
    "mnexec": "mininet",
    "ip": "iproute2",
    "ethtool": "ethtool",
    "ping": "iputils-ping",
    "bash": "bash",
}

_SCHEMA_DIRECTORIES: Final = ("/usr/share/openvswitch", "/usr/local/share/openvswitch")


def missing_requirements() -> list[str]:
    """One sentence for each thing that is missing, with its mend; empty when a lab can be built."""
    if os.geteuid() != 0:
        return ["a lab makes network namespaces, which only root may: run it with sudo"]
    missing = [
        f"the program {program} is not installed: apt-get install {package}"
        for program, package in PROGRAMS.items()
        if shutil.which(program) is None
    ]
    if missing:
        return missing
    if schema_path() is None:
        missing.append("vswitch.ovsschema was not found: apt-get install openvswitch-switch")
    try:
        run_command(["mnexec", "-n", "ip", "link", "set", "lo", "up"])
    except CommandError as error:
        missing.append(
            f"a network namespace cannot be made here ({error.output}): "
            "a container needs --privileged, or CAP_SYS_ADMIN and CAP_NET_ADMIN"
        )
    return missing


def require_lab() -> None:
    """Raise ``LabUnavailableError`` with all that is missing, or return."""
    missing = missing_requirements()
    if missing:
        raise LabUnavailableError("; ".join(missing))


def schema_path() -> Path | None:
    """The schema of the Open_vSwitch database, as the Debian package installs it."""
    directories = [os.environ.get("OVS_PKGDATADIR", ""), *_SCHEMA_DIRECTORIES]
    candidates = (Path(place) / "vswitch.ovsschema" for place in directories if place)
    return next((path for path in candidates if path.is_file()), None)

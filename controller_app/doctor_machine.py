"""Checks of the machine: Python and its packages, privileges, programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from controller_app.doctor_check import Check, Machine, Status, dotted, version_of

OLDEST_PYTHON: Final = (3, 11)
#: What an agent needs: distribution -> the oldest release that the code is written for, as in pyproject.toml.
PACKAGES: Final = {
    "os-ken": (4, 0),
    "ovsdbapp": (2, 9),
    "ovs": (3, 3),
    "cachetools": (5, 5),
    "msgpack": (1, 0, 8),
    "msgspec": (0, 19),
    "click": (8, 1),
    "rich": (13, 7),
    "PyYAML": (6, 0, 1),
    "nats-py": (2, 16),
}
#: The release of Open vSwitch that the tests run with on the oldest distribution.
OLDEST_OVS: Final = (3, 1)

#: capabilities(7).
_CAP_NET_ADMIN: Final = 12
_CAP_SYS_ADMIN: Final = 21
#: Program of the demo -> Debian package.
_DEMO_PROGRAMS: Final = {
    "mnexec": "mininet",
    "ip": "iproute2",
    "ethtool": "ethtool",
    "ovs-vsctl": "openvswitch-switch",
    "ovs-appctl": "openvswitch-common",
    "ovsdb-tool": "openvswitch-common",
}


def machine_checks(machine: Machine) -> Iterator[Check]:
    yield _python(machine)
    yield _packages(machine)
    yield _privileges(machine)
    for program, package in (
        ("ovs-vswitchd", "openvswitch-switch"),
        ("ovsdb-server", "openvswitch-common"),
    ):
        yield _ovs_program(machine, program, package)


def demo_checks(machine: Machine) -> Iterator[Check]:
    """What only the demo needs; an agent runs without."""
    missing = {name: pkg for name, pkg in _DEMO_PROGRAMS.items() if machine.which(name) is None}
    ping = machine.run("ping", "-V")
    if ping is None or "iputils" not in ping.text:
        missing["ping (of iputils)"] = "iputils-ping"
    if missing:
        yield Check(
            "demo programs",
            Status.WARN,
            f"missing: {', '.join(missing)}",
            f"for ondemand demo: apt-get install {' '.join(dict.fromkeys(missing.values()))}",
        )
    else:
        found = ", ".join([*_DEMO_PROGRAMS, "ping"])
        yield Check("demo programs", Status.OK, found)
    mininet = machine.package_version("mininet")
    if mininet is None:
        mend = "for ondemand demo: make setup, or pip install mininet setuptools"
        yield Check("demo library", Status.WARN, "the Python package mininet is missing", mend)
    else:
        yield Check("demo library", Status.OK, f"mininet {mininet}")
    if not machine.capabilities() >> _CAP_SYS_ADMIN & 1:
        yield Check(
            "demo namespaces",
            Status.WARN,
            "no CAP_SYS_ADMIN, so no network namespaces can be made",
            "for ondemand demo: run it with sudo, in a container with --privileged",
        )


def _python(machine: Machine) -> Check:
    found = dotted(machine.python)
    if machine.python < OLDEST_PYTHON:
        oldest = dotted(OLDEST_PYTHON)
        return Check("python", Status.FAIL, found, f"install Python {oldest} or newer")
    return Check("python", Status.OK, found)


def _packages(machine: Machine) -> Check:
    versions = {name: machine.package_version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    old = [
        f"{name} {version} (needs {dotted(PACKAGES[name])})"
        for name, version in versions.items()
        if version is not None and _release(version) < PACKAGES[name]
    ]
    mend = "make setup, or pip install -c constraints.txt ."
    if missing:
        return Check("packages", Status.FAIL, f"missing: {', '.join(missing)}", mend)
    if old:
        return Check("packages", Status.WARN, f"too old: {', '.join(old)}", mend)
    return Check("packages", Status.OK, ", ".join(f"{n} {v}" for n, v in versions.items()))


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version without what follows them (2.3.0.dev6 is 2.3.0)."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _privileges(machine: Machine) -> Check:
    if machine.capabilities() >> _CAP_NET_ADMIN & 1:
        return Check("privileges", Status.OK, "CAP_NET_ADMIN")
    return Check(
        "privileges",
        Status.WARN,
        "no CAP_NET_ADMIN: what only root may read is not checked",
        "the agent needs to reach the sockets of Open vSwitch: run it as root, or as a member of the"
        " group that owns them",
    )


def _ovs_program(machine: Machine, program: str, package: str) -> Check:
    said = machine.run(program, "--version")
    if said is None:
        return Check(program, Status.FAIL, "not installed", f"apt-get install {package}")
    version = version_of(said.text)
    if version < OLDEST_OVS:
        return Check(
            program,
            Status.WARN,
            dotted(version) or said.text[:80],
            f"older than {dotted(OLDEST_OVS)}, with which this was tested",
        )
    return Check(program, Status.OK, dotted(version))

"""Checks of the datapath: the rules in it, its meters, and what its conntrack can do.

What needs root (the management socket of the bridge, the control socket of ovs-vswitchd) is left out
without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from controller_app.doctor_check import Check, Machine, Status
from controller_app.doctor_sockets import Sockets
from controller_app.ovsdb_config import BridgeConfig
from rule_cache.cookie import MAGIC_MASK, MAGIC_VALUE

#: What the pipeline needs of a datapath, by the names of ovs-appctl dpif/show-dp-features.
NEEDED_FEATURES: Final = (
    "Recirc",
    "CT state",
    "CT zone",
    "CT mark",
    "CT orig tuple",
    "CT orig tuple for IPv6",
)
#: Bytes below which userspace conntrack takes a fragment that is not the last for invalid.
_SMALLEST_FRAGMENT: Final = (1200, 1280)


def datapath_checks(machine: Machine, config: BridgeConfig) -> Iterator[Check]:
    """Of a bridge that works."""
    sockets = Sockets(machine, config)
    yield _rules(sockets, config.bridge)
    yield _meters(sockets)
    yield _features(sockets)


def conntrack_checks(machine: Machine, config: BridgeConfig, datapath: str) -> Iterator[Check]:
    """What conntrack of a datapath type cannot do, so that nobody has to find out."""
    yield from _conntrack(Sockets(machine, config), datapath)


def _rules(sockets: Sockets, bridge: str) -> Check:
    said = sockets.ofctl("dump-aggregate", f"cookie={MAGIC_VALUE:#x}/{MAGIC_MASK:#x}")
    count = re.search(r"flow_count=(\d+)", said or "")
    if count is None:
        return _not_asked("rules", f"the tables of bridge {bridge}")
    if int(count[1]):
        return Check("rules", Status.OK, f"{count[1]} of an agent are in the switch")
    return Check("rules", Status.OK, "none of an agent is in the switch")


def _meters(sockets: Sockets) -> Check:
    said = sockets.ofctl("meter-features")
    most = re.search(r"max_meter:(\d+)", said or "")
    if most is None:
        return _not_asked("meters", "the meters of the bridge")
    if int(most[1]):
        return Check("meters", Status.OK, f"up to {most[1]}, one for each local port")
    return Check(
        "meters",
        Status.FAIL,
        "this datapath has none",
        "set [limits] meter_rate = 0; then only the agent bounds what one port asks of it",
    )


def _features(sockets: Sockets) -> Check:
    said = sockets.features()
    if said is None:
        return _not_asked("datapath features", "ovs-vswitchd")
    features = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    missing = [name for name in NEEDED_FEATURES if features.get(name) != "Yes"]
    if missing:
        return Check(
            "datapath features",
            Status.FAIL,
            f"missing: {', '.join(missing)}",
            "load a newer openvswitch module, or use datapath_type netdev",
        )
    return Check("datapath features", Status.OK, ", ".join(NEEDED_FEATURES))


def _conntrack(sockets: Sockets, datapath: str) -> Iterator[Check]:
    if datapath == "system":
        yield Check(
            "conntrack",
            Status.OK,
            "of the kernel. SCTP and protocols without ports are judged packet by packet all the"
            " same, as on userspace",
        )
        return
    yield Check(
        "conntrack",
        Status.OK,
        "of userspace. It reads no SCTP ports, and knows one connection per address pair of protocols"
        " without ports: these are judged packet by packet, without connection state",
    )
    v4, v6 = _SMALLEST_FRAGMENT
    said = sockets.appctl("dpctl/ipf-get-status", "netdev@ovs-netdev") or ""
    told = [re.search(rf"min v{family} frag size: (\d+)", said) for family in (4, 6)]
    if told[0] is not None and told[1] is not None:
        v4, v6 = int(told[0][1]), int(told[1][1])
    yield Check(
        "fragments",
        Status.OK,
        f"userspace conntrack takes fragments under {v4} bytes (IPv4) and {v6} bytes (IPv6) that are"
        " not the last for invalid; ovs-appctl dpctl/ipf-set-min-frag changes it",
    )


def _not_asked(name: str, what: str) -> Check:
    return Check(name, Status.WARN, f"{what} could not be asked", "run doctor as root to see")

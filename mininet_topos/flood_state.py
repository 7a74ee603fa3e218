"""The goal state, the streams and the scans of ``flood``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from mininet_topos.experiment_flows import both_protocols
from mininet_topos.experiment_state import OPEN, Goal, Station, allow
from mininet_topos.goal_parts import front_and_back
from mininet_topos.load import FlowSpec
from ondemand.addresses import format_mac
from ondemand.goal_topology import gateway_mac_of

_TCP, _UDP, _OWN = 80, 5000, 81

#: UDP ports that answer at ``server`` and ``afar``; each is a flow of its own.
FRESH_FIRST: Final = 20_000
FRESH_COUNT: Final = 12_000
_FRESH: Final = f"{FRESH_FIRST}-{FRESH_FIRST + FRESH_COUNT - 1}"

GOAL: Final = Goal(
    stations=(
        Station("server", 1, 11, "front", ("service",), tcp=(_TCP, _OWN), udp=(_UDP,)),
        Station("asker", 1, 21),
        Station("scanner", 1, 31),
        Station("target", 1, 41, "front", ("closed",)),
        Station("afar", 2, 12, "front", ("service",), tcp=(_TCP,), udp=(_UDP,)),
    ),
    groups={
        "open": OPEN,
        "service": [
            *allow("in", "ingress", (f"{_TCP}-{_OWN}", _UDP)),
            *allow("fresh", "ingress", ("90", _FRESH)),
        ],
        "closed": allow("few", "ingress", ("80-89", "50-99")),
    },
)


@dataclass(frozen=True, slots=True)
class Scan:
    """What the scanner sends; ``what`` is how the table calls it."""

    what: str
    kind: Literal["arp", "ip", "ports"]
    to: str
    mac: str = ""


SCANS: Final = (
    Scan("ARP scan", "arp", "10.0.0.0/16"),
    Scan(
        "Address scan", "ip", "10.0.0.0/8", format_mac(gateway_mac_of(front_and_back()[0]["vni"]))
    ),
    Scan("Port scan", "ports", f"{GOAL.station('target').ips[0]}/32", GOAL.station("target").mac),
)


def flow_specs() -> list[FlowSpec]:
    """Streams of who asks, to both servers, and one of the scanner's own."""
    asker, scanner = GOAL.station("asker"), GOAL.station("scanner")
    server, afar = GOAL.station("server"), GOAL.station("afar")
    return [
        *both_protocols("victim local", asker, server, 0, (_TCP, _UDP)),
        *both_protocols("victim VXLAN", asker, afar, 0, (_TCP, _UDP)),
        FlowSpec("own TCP", scanner.name, server.name, "tcp", server.ips[0], _OWN),
    ]

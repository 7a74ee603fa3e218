"""The goal state and the streams of ``policy-cut``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mininet_topos.experiment_flows import both_protocols
from mininet_topos.experiment_state import OPEN, Goal, Station, allow
from mininet_topos.load import FlowSpec

MEMBERS: Final = 2000

#: What a rule allows, by the word that flows to it have in their names: TCP port, UDP port.
RECEIVED: Final = {
    "kept": (80, 5000),
    "rule": (81, 5001),
    "group": (82, 5002),
    "member": (83, 5003),
}
BEGUN: Final = {"kept": (8000, 6000), "rule": (8001, 6001)}

WEB_GROUPS: Final = ("service", "extra", "database")
_CLIENTS: Final = (("near", "local"), ("far", "VXLAN"))

_STATIONS: Final = (
    Station(
        *("web", 1, 11, "front", WEB_GROUPS),
        tcp=tuple(tcp for tcp, _ in RECEIVED.values()),
        udp=tuple(udp for _, udp in RECEIVED.values()),
    ),
    *(
        Station(
            *(name, host, number, "front", ("open", "crowd")),
            tcp=tuple(tcp for tcp, _ in BEGUN.values()),
            udp=tuple(udp for _, udp in BEGUN.values()),
        )
        for name, host, number in (("near", 1, 21), ("far", 2, 22), ("leaver", 2, 23))
    ),
)


GOAL: Final = Goal(
    stations=_STATIONS,
    groups={
        "open": OPEN,
        "crowd": (),
        "service": [
            *allow("in-kept", "ingress", RECEIVED["kept"]),
            *allow("in-gone", "ingress", RECEIVED["rule"]),
            *allow("out-kept", "egress", BEGUN["kept"]),
            *allow("out-gone", "egress", BEGUN["rule"]),
        ],
        "extra": allow("extra", "ingress", RECEIVED["group"]),
        "database": allow("member", "ingress", RECEIVED["member"], remote_group="crowd"),
    },
    members=MEMBERS,
    member_groups=("crowd",),
)

#: Ids of the rules that go and come back.
GONE_RULES: Final = frozenset(
    str(rule["id"])
    for rule in GOAL.groups["service"]
    if str(rule["id"]).startswith(("in-gone", "out-gone"))
)


def flow_specs(*, quick: bool) -> list[FlowSpec]:
    """All streams; local ones over IPv4 and those over VXLAN over IPv6 when it has to be quick."""
    return list(_flow_specs(quick=quick))


def _flow_specs(*, quick: bool) -> Iterator[FlowSpec]:
    web = GOAL.station("web")
    for number, (client, place) in enumerate(_CLIENTS):
        families = (number,) if quick else (0, 1)
        end = GOAL.station(client)
        for family in families:
            for what, ports in RECEIVED.items():
                yield from both_protocols(f"{what} received {place}", end, web, family, ports)
            for what, ports in BEGUN.items():
                yield from both_protocols(f"{what} begun {place}", web, end, family, ports)
    for family in (1,) if quick else (0, 1):
        yield from both_protocols(
            "leaver received VXLAN", GOAL.station("leaver"), web, family, RECEIVED["member"]
        )

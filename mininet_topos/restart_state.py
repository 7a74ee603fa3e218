"""The goal state and the streams of ``restart``, and what of it changes while no agent runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mininet_topos.experiment_flows import both_protocols
from mininet_topos.experiment_state import OPEN, Goal, Station, allow
from mininet_topos.load import FlowSpec
from ondemand.pipeline import Pipeline, Table

#: What a rule allows, by the word that flows to it have in their names: TCP port, UDP port.
PORTS: Final = {"kept": (80, 5000), "rule": (81, 5001), "group": (82, 5002)}
#: Ports of the stream that is looked at closely; both are allowed as "kept" is.
FAST_UDP: Final = (5003, 5004)

#: UDP ports of ``web`` where nobody listens, but each of which is a rule; and how many there are.
FILLED_FIRST: Final = 10_000
FILLED_MOST: Final = 25_000
#: UDP ports of ``web`` that answer, each once.
FRESH_FIRST: Final = 40_000
FRESH_MOST: Final = 8_000

GOAL: Final = Goal(
    stations=(
        Station(
            *("web", 1, 11, "front", ("service", "extra")),
            tcp=tuple(tcp for tcp, _ in PORTS.values()),
            udp=(*(udp for _, udp in PORTS.values()), *FAST_UDP),
        ),
        Station("near", 1, 21),
        Station("fast", 1, 23),
        Station("fresh", 1, 24),
        Station("filler", 1, 25),
        Station("tracer", 1, 26),
        Station("far", 2, 22),
        Station("mover", 2, 31, tcp=(80,), udp=(5000,)),
    ),
    groups={
        "open": OPEN,
        "service": [
            *allow("kept", "ingress", PORTS["kept"]),
            *allow("gone", "ingress", PORTS["rule"]),
            *allow("fast", "ingress", ("90", f"{FAST_UDP[0]}-{FAST_UDP[-1]}")),
            *allow("many", "ingress", ("91", f"{FILLED_FIRST}-{FRESH_FIRST + FRESH_MOST - 1}")),
        ],
        "extra": allow("extra", "ingress", PORTS["group"]),
    },
)

_GONE_RULES: Final = frozenset(
    str(rule["id"]) for rule in GOAL.groups["service"] if str(rule["id"]).startswith("gone")
)

#: What is true after the agent's death: a rule less, a group less, a neighbor elsewhere.
CHANGED: Final = GOAL.without(_GONE_RULES).with_groups("web", ("service",)).moved("mover", 3)

#: Verdicts of who is asked; who asks may still ask anybody.
_INGRESS: Final = f"table={Pipeline().number(Table.INGRESS_VERDICT)}"
_UNTRUE_VERDICT: Final = re.compile(
    rf"\bct_tp_dst=(?:{'|'.join(str(port) for word in ('rule', 'group') for port in PORTS[word])})\b"
)
_OF_MOVER: Final = tuple(f"={ip} " for ip in GOAL.station("mover").ips)


def flow_specs() -> list[FlowSpec]:
    """Streams to the web server that stay and that are cut, and those to who moves."""
    web, mover = GOAL.station("web"), GOAL.station("mover")
    found: list[FlowSpec] = []
    for family, client, place in ((0, "near", "local"), (1, "far", "VXLAN")):
        for word, ports in PORTS.items():
            found += both_protocols(f"{word} {place}", GOAL.station(client), web, family, ports)
    for family in (0, 1):
        found += both_protocols("moved", GOAL.station("tracer"), mover, family, (80, 5000))
    fast = GOAL.station("fast").name
    return found + [
        FlowSpec(f"fast {number} UDP", fast, web.name, "udp", web.ips[0], port)
        for number, port in enumerate(FAST_UDP, 1)
    ]


def untrue(rules: Iterable[str], tunnel: str) -> list[str]:
    """Those dumped rules that must not be there after the change.

    Args:
        rules: from dump-flows; no drop rules among them.
        tunnel: address of the host that the mover has left.
    """
    return [
        rule
        for rule in rules
        if (_UNTRUE_VERDICT.search(rule) and rule.split(", ")[1] == _INGRESS)
        or (f"set_field:{tunnel}->tun_dst" in rule and _is_of_mover(rule))
    ]


def _is_of_mover(rule: str) -> bool:
    match = rule.partition(" actions=")[0] + " "
    return any(ip in match for ip in _OF_MOVER)

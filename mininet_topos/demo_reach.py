"""What must get through: ping and TCP on every kind of path, the gateway, and big datagrams."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from mininet_topos.attempts import family_of, ping_seen, tcp_seen
from mininet_topos.demo_lab import DemoLab
from mininet_topos.demo_state import ECHO_UDP, HTTP, SQL, VM
from mininet_topos.goal_parts import GATEWAYS
from mininet_topos.promises import Seen, Trial, all_of, check
from mininet_topos.traffic_node import PingResult

THEME: Final = "Reachable"

_PATHS: Final = (
    ("same host", "client-1", "web-1"),
    ("over VXLAN", "client-1", "web-2"),
    ("routed, same host", "batch-1", "web-1"),
    ("routed, over VXLAN", "batch-1", "web-3"),
)

#: Bytes; three fragments at the VMs' MTU of 1450.
_BIG: Final = 4000


def reach_trials() -> Iterator[Trial[DemoLab]]:
    for place, source, target in _PATHS:
        yield check(
            THEME,
            f"ping, {place}",
            "IPv4 and IPv6 answered",
            partial(ping_both, source=source, target=target),
        )
        yield check(
            THEME,
            f"TCP, {place}",
            "IPv4 and IPv6, data comes back",
            partial(tcp_both, source=source, target=target, port=HTTP),
        )
    yield check(THEME, "ping the gateway", "IPv4 and IPv6 answered", _gateways)
    yield check(
        THEME,
        "TCP to a group that lets another in",
        "a member of web reaches db",
        lambda lab: tcp_both(lab, "web-1", "db-2", SQL),
    )
    yield check(
        THEME, f"UDP of {_BIG} bytes, in fragments", "answered once rules are there", _fragments
    )


def ping_both(lab: DemoLab, source: str, target: str) -> Seen:
    return all_of(*(ping_seen(family_of(ip), lab.ping(source, ip)) for ip in VM[target].ips))


def tcp_both(lab: DemoLab, source: str, target: str, port: int) -> Seen:
    return all_of(*(tcp_seen(family_of(ip), lab.tcp(source, ip, port)) for ip in VM[target].ips))


def _gateways(lab: DemoLab) -> Seen:
    """Each subnet's gateway, asked by a VM in it."""
    askers = (("client-2", GATEWAYS["front"]), ("batch-2", GATEWAYS["back"]))
    seen = []
    for family, name in enumerate(("IPv4", "IPv6")):
        found = [lab.ping(source, addresses[family]) for source, addresses in askers]
        received, sent = sum(one.received for one in found), sum(one.sent for one in found)
        seen.append(ping_seen(name, PingResult(sent, received, ())))
    return all_of(*seen)


def _fragments(lab: DemoLab) -> Seen:
    """The first datagram of a flow is lost at each host whose rules it has to ask for, because a
    fragment that the agent sends back cannot join the others; after that all must pass.
    """
    seen = []
    for address in VM["web-2"].ips:
        lab.udp("client-3", address, ECHO_UDP, count=3, size=_BIG)
        result = lab.udp("client-3", address, ECHO_UDP, count=5, size=_BIG)
        seen.append(ping_seen(family_of(address), result))
    return all_of(*seen)

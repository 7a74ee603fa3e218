"""What happens at a ``FaultSite`` while its connection is broken: a few acts, each from a known start.

The cloud is the office with one more rule of group "web", which lets the members of "client" in. Ports
a, a2 and b are plugged, d comes and goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ondemand.addresses import parse_ip
from tests.support.cloud_edit import add_rule, change_port, remove_rule, rules_of, set_rules
from tests.support.fault_site import FaultSite
from tests.support.office_cloud import office
from tests.support.world_builder import ELSEWHERE, THERE, CloudBuilder, allow

#: The ports that are plugged all the time, and the one that is not.
STAYING: Final = {"a": 10, "a2": 11, "b": 12}
GUEST: Final = ("d", 13)


def story_cloud() -> CloudBuilder:
    cloud = office()
    for family in (4, 6):
        add_rule(
            cloud,
            "web",
            allow("ingress", "tcp", 8080, family=family, group="client", rule_id=f"in-{family}"),
        )
    return cloud


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that happens, and whether it takes a right away from the connections of port b."""

    name: str
    narrows: bool = False


ACTS: Final = (
    Act("connect"),
    Act("restart"),
    Act("traffic"),
    Act("narrow", narrows=True),
    Act("widen"),
    Act("plug"),
    Act("unplug"),
)


class Story:
    """Prepares an act, and plays it."""

    def __init__(self, site: FaultSite) -> None:
        self.site = site
        self._rules = rules_of(site.cloud, "web")
        self._tp_src = 1024
        self._round = 1
        for port, ofport in STAYING.items():
            site.plug(port, ofport)
        site.settle()

    def start_over(self) -> None:
        """Another agent, no fault, and no rule of traffic's."""
        site = self.site
        site.proxy.begin()
        site.remove_spare_meters()
        self.play(Act("restart"))
        self._widen()
        if GUEST[0] in site.plugged:
            site.unplug(GUEST[0])
        site.settle()
        site.expire(*(entry.cookie for entry in list(site.engine.installer.ledger)))
        site.settle()

    def prepare(self, act: Act) -> None:
        """Bring about the state in which the act begins."""
        site = self.site
        if act.name == "widen":
            self._narrow()
        else:
            self._widen()
        guest, ofport = GUEST
        if act.name == "unplug" and guest not in site.plugged:
            site.plug(guest, ofport)
        if act.name != "unplug" and guest in site.plugged:
            site.unplug(guest)
        site.settle()
        self.traffic()
        if act.name == "unplug":
            site.send(guest, site.frames().who_has(guest, parse_ip("10.0.2.15")))
        site.settle()

    def play(self, act: Act) -> None:
        """The act, up to the point where everybody has been told."""
        site = self.site
        if act.name == "connect":
            site.reconnect()
        elif act.name == "restart":
            self._round = self._round % 255 + 1
            site.end_agent()
            site.start_agent(round_number=self._round)
            site.reconnect()
        elif act.name == "traffic":
            site.expire(*(entry.cookie for entry in list(site.engine.installer.ledger)))
            self.traffic()
        elif act.name == "narrow":
            self._narrow()
        elif act.name == "widen":
            self._widen()
        elif act.name == "plug":
            site.plug(*GUEST)
        elif act.name == "unplug":
            site.unplug(GUEST[0])
        else:
            raise ValueError(f"no act {act.name!r}")

    def traffic(self) -> None:
        """New connections each time, for a known one meets no verdict."""
        site = self.site
        four, six = site.frames(4), site.frames(6)
        self._tp_src += 1
        end: dict[str, Any] = {"tp_src": self._tp_src}
        site.send(
            "a",
            four.who_has("a", "b"),
            four.who_has("a", "a2"),
            four.tcp("a", "b", 80, **end),
            four.tcp("a", "b", 443, **end),
            four.tcp("a", "b", 22, **end),
            four.udp("a", "c", **end),
            four.udp("a", "x", **end),
            six.udp("a", "c", **end),
            four.ping_gateway("a"),
        )
        site.send("a2", six.tcp("a2", "b", 80, **end), four.tcp("a2", "b", 8080, **end))

    def _narrow(self) -> None:
        """Port 80 of b is closed, c moves away, x is no client any more."""
        cloud = self.site.cloud
        if any(rule.id == "tcp-80-4" for rule in rules_of(cloud, "web")):
            remove_rule(cloud, "web", "tcp-80-4")
        change_port(cloud, "c", host=ELSEWHERE)
        change_port(cloud, "x", groups=("web",))
        self.site.publish()

    def _widen(self) -> None:
        cloud = self.site.cloud
        set_rules(cloud, "web", *self._rules)
        change_port(cloud, "c", host=THERE)
        change_port(cloud, "x", groups=("client",))
        self.site.publish()

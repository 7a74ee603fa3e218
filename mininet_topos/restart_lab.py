"""What ``restart`` does to its lab and looks up in it: rules by traffic, new flows at a pace, counts."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import Final

from mininet_topos.experiment_lab import ExperimentLab, is_on_demand
from mininet_topos.probe import Pulses, fill, pulse
from mininet_topos.processes import Background
from mininet_topos.promises import Measurement
from mininet_topos.restart_state import FILLED_FIRST, FILLED_MOST, FRESH_FIRST, FRESH_MOST, GOAL

#: Seconds that the agent may take to judge each rule that it found.
_ADOPTED_S_A_RULE: Final = 1 / 10_000
_PULSE_S: Final = 0.02
#: Datagrams a second that make rules: below what is taken for a flood (flood_rate).
_FILL_RATE: Final = 2500


@dataclass(frozen=True, slots=True)
class Form:
    """The long or the short form.

    Attributes:
        ports: how many are filled; each is two rules.
        down_s: seconds without an agent.
        after_s: seconds for which streams are watched after all rules are judged.
        served_s: seconds from the start of the agent's process until a new flow is served.
        start_s: seconds that the agent may take besides judging rules, to judge them all.
    """

    ports: int
    down_s: float
    after_s: float
    served_s: float
    start_s: float

    @property
    def rules(self) -> int:
        return 2 * self.ports

    @property
    def adopted_s(self) -> float:
        return self.start_s + self.rules * _ADOPTED_S_A_RULE


FULL: Final = Form(FILLED_MOST, down_s=2.0, after_s=3.0, served_s=1.0, start_s=2.0)
#: With more time, for machines that run other tests as well.
QUICK: Final = Form(2000, down_s=0.7, after_s=1.0, served_s=3.0, start_s=4.0)


def fill_rules(lab: ExperimentLab, form: Form) -> None:
    """A datagram to each port that is allowed: two rules each, at who asks and at who is asked."""
    address = GOAL.station("web").ips[0]
    fill(lab.vms["filler"], address, first=FILLED_FIRST, count=form.ports, rate=_FILL_RATE)
    time.sleep(0.5)


def allowing_rules(lab: ExperimentLab) -> frozenset[str]:
    """What traffic asked for and allows; drop rules leave by themselves."""
    return frozenset(
        rule for rule in lab.rules(1) if is_on_demand(rule) and not rule.endswith("actions=drop")
    )


def connections_of(lab: ExperimentLab) -> dict[str, int]:
    """How many connections the switch tracks of ports whose connections do not end meanwhile.

    As their zones' limits tell (ovs-vswitchd(8)): a few numbers, which cost the switch nothing.
    """
    zones = {lab.zone(name): name for name in ("near", "fast", "filler", "tracer")}
    text = lab.host(1).appctl("dpctl/ct-get-limits")
    return {
        zones[int(zone)]: int(count)
        for zone, count in re.findall(r"zone=(\d+),limit=\d+,count=(\d+)", text)
        if int(zone) in zones
    }


def begin_flows(lab: ExperimentLab, form: Form, number: int) -> Background:
    """New flows, until some time after the adoption should be over."""
    count = FRESH_MOST // 2
    wanted = int((form.adopted_s + form.after_s + 1.0) / _PULSE_S)
    return pulse(
        lab.vms["fresh"],
        GOAL.station("web").ips[0],
        first=FRESH_FIRST + number * count,
        count=min(count, wanted),
        interval_s=_PULSE_S,
    )


def tell_times(
    lab: ExperimentLab, what: str, start_s: float, adopted_s: float | None, fresh: Pulses
) -> None:
    """Put how soon an agent served into the report's figures."""
    end_s = adopted_s or time.monotonic()
    good_s = fresh.served_for_good_s(start_s)
    lab.measurements.append(
        Measurement(
            f"{what}, from the start of the process",
            "s",
            {
                "first new flow served": (fresh.first_served_s(start_s) or end_s) - start_s,
                "all new flows served from": (good_s or end_s) - start_s,
                "adopted": end_s - start_s,
                "load of the machine (1 min)": os.getloadavg()[0],
            },
        )
    )

"""``ovs-restart``: the switch dies and comes back empty, then its database server is restarted.

With ovs-vswitchd go all rules and all connection tracking. Nobody lifts a finger: the switch connects
to the agent again, which programs the ports, and traffic asks for the rest.

When ovsdb-server goes, ovs-vswitchd loses its lock on the database for a second, and until it has that
back its main thread does nothing, which includes moving the packets of the userspace datapath's ports
(bridge.c, bridge_run). So a bridge that no agent serves stands beside, and its streams tell which pause
is the switch's own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from mininet_topos.conduct import Performance, log_phase
from mininet_topos.experiment_flows import begin, both_protocols, from_each
from mininet_topos.experiment_lab import ExperimentLab
from mininet_topos.experiment_state import OPEN, Goal, Station, allow
from mininet_topos.flow_seen import (
    RTO_MIN_S,
    back_seen,
    lives_seen,
    ms,
    of,
    within_seen,
)
from mininet_topos.load import FlowSeen, FlowSpec
from mininet_topos.promises import Measurement, Promise, Seen, Trial, all_of, check
from mininet_topos.trials import Phase

_HEADLINE: Final = "Two compute hosts; the Open vSwitch of one of them is killed and started."
_QUICK_NOTE: Final = (
    "in the short form the switch is away for a shorter time; what is promised is the same as in the full"
    " form"
)

_TCP, _FRESH = 80, 81
_UDP: Final = 5000
#: A learning switch that no agent serves.
_BARE: Final = "br-bare"

#: Seconds from starting ovs-vswitchd until a new flow is served, its own start included.
SERVED_S: Final = 5.0
#: Seconds in which the agent must serve a port that was plugged in after ovsdb-server was restarted.
#: Clients of OVSDB try again after 1, 2, 4, 8 s.
PLUGGED_S: Final = 10.0

_GOAL: Final = Goal(
    stations=(
        Station("web", 1, 11, "front", ("service",), tcp=(_TCP, _FRESH), udp=(_UDP,)),
        Station("near", 1, 21),
        Station("far", 2, 22),
        Station("late", 1, 41, is_plugged=False),
        Station("bare-1", 1, 71, is_plugged=False, tcp=(_TCP,), udp=(_UDP,)),
        Station("bare-2", 1, 72, is_plugged=False),
    ),
    absent=frozenset({"bare-1", "bare-2"}),
    groups={
        "open": OPEN,
        "service": allow("in", "ingress", (f"{_TCP}-{_FRESH}", _UDP)),
    },
)


def performance(*, quick: bool) -> Performance[ExperimentLab]:
    return Performance(
        headline=_HEADLINE,
        lab=lambda progress: ExperimentLab(_GOAL, hosts=2, progress=progress),
        phases=(
            Phase("streams begin", (check("Streams", "all", "live", _begin),)),
            Phase("ovs-vswitchd is killed", (_vswitchd(down_s=0.5 if quick else 3.0),)),
            Phase("ovsdb-server is restarted", (_ovsdb(watched_s=1.5 if quick else 5.0),)),
            log_phase(),
        ),
        explain=("far", f"tcp,nw_dst={_GOAL.station('web').ips[0]},tp_dst={_TCP}"),
        note=_QUICK_NOTE if quick else "",
    )


def flow_specs() -> list[FlowSpec]:
    """From both hosts to the web server, and two beside the agent."""
    clients = [_GOAL.station(name) for name in ("near", "far")]
    bare = [_GOAL.station(f"bare-{number}") for number in (1, 2)]
    return [
        *from_each(clients, _GOAL.station("web"), (_TCP, _UDP)),
        *both_protocols("bare", bare[1], bare[0], 0, (_TCP, _UDP)),
    ]


def _begin(lab: ExperimentLab) -> Seen:
    lab.host(1).vsctl(
        *("add-br", _BARE, "--", "set", "Bridge", _BARE),
        *("datapath_type=netdev", "fail_mode=standalone"),
        *("--", "add-port", _BARE, lab.vms["bare-1"].tap),
        *("--", "add-port", _BARE, lab.vms["bare-2"].tap),
    )
    return begin(lab, flow_specs())


def _vswitchd(*, down_s: float) -> Trial[ExperimentLab]:
    theme = "ovs-vswitchd is killed and started"

    def look(lab: ExperimentLab) -> Sequence[Seen]:
        host, web = lab.host(1), _GOAL.station("web")
        host.kill_vswitchd()
        killed_s = time.monotonic()
        time.sleep(down_s)
        start_s = time.monotonic()
        host.start_vswitchd()
        started_s = time.monotonic()
        lab.loads.mark()
        fresh_s = lab.until_connected("far", web.ips[0], _FRESH, timeout_s=4 * SERVED_S)
        outage_s = time.monotonic() - killed_s
        seen = lab.loads.wait(
            lambda flows: all(one.echoed for one in flows), timeout_s=SERVED_S + 2 * outage_s
        )
        lab.measurements.append(
            Measurement(
                "ovs-vswitchd",
                "ms",
                {"killed for": 1000 * (start_s - killed_s), "start": 1000 * (started_s - start_s)},
            )
        )
        return (
            within_seen("TCP connected", None if fresh_s is None else fresh_s - start_s, SERVED_S),
            back_seen(of(seen, protocol="udp"), start_s, SERVED_S),
            all_of(
                lives_seen(of(seen, protocol="tcp")),
                back_seen(of(seen, protocol="tcp"), start_s, SERVED_S + 2 * outage_s),
            ),
        )

    return Trial(
        (
            Promise(theme, "a new flow, with no manual step", f"served within {SERVED_S:g} s"),
            Promise(theme, "UDP streams", f"go on within {SERVED_S:g} s"),
            Promise(theme, "the very TCP connections", "go on when TCP tries again, none is reset"),
        ),
        look,
    )


def _ovsdb(*, watched_s: float) -> Trial[ExperimentLab]:
    theme = "ovsdb-server is restarted"

    def look(lab: ExperimentLab) -> Sequence[Seen]:
        host, late = lab.host(1), _GOAL.station("late")
        before = lab.rules(1)
        lab.loads.mark()
        host.restart_ovsdb()
        seen = lab.loads.watch(watched_s)
        bare = of(seen, "bare")
        after = lab.rules(1)
        changed = len(before ^ after)
        plug_s = time.monotonic()
        lab.vms["late"].plug("late")
        served = lab.agents[1].wait_for_ports({"web", "near", "late"}, timeout_s=2 * PLUGGED_S)
        served_s = time.monotonic() - plug_s
        reached = lab.vms["far"].ping(late.ips[0], count=2)
        return (
            beside_seen([one for one in seen if one not in bare], bare),
            Seen(changed == 0 and bool(before), f"{len(before)} rules, {changed} changed"),
            all_of(
                Seen(served and served_s <= PLUGGED_S, f"served after {ms(served_s)}"),
                Seen(reached.all_answered, f"ping {reached.received} of {reached.sent}"),
            ),
        )

    return Trial(
        (
            Promise(
                theme,
                "all streams",
                f"no reset, no longer pause than without an agent (and {RTO_MIN_S * 1000:.0f} ms)",
            ),
            Promise(theme, "the rules in the switch", "none comes or goes"),
            Promise(theme, "a port plugged in after it", f"served within {PLUGGED_S:g} s"),
        ),
        look,
    )


def beside_seen(flows: Sequence[FlowSeen], bare: Sequence[FlowSeen]) -> Seen:
    """Whether flows stood still no longer than those of the same switch that no agent serves."""
    if not flows or not bare:
        return Seen(ok=False, text="no flow was looked at")
    pause_s, own_s = (max(one.longest_gap_s for one in them) for them in (flows, bare))
    dead = [one.spec.name for one in flows if not one.echoed or not one.is_alive]
    text = f"{len(flows)} flows, longest pause {ms(pause_s)}, without an agent {ms(own_s)}"
    return Seen(
        not dead and pause_s <= own_s + RTO_MIN_S, text + "".join(f"; not: {d}" for d in dead)
    )

"""``migrate``: a VM moves to another compute host while TCP goes on, and a newcomer is found at once.

The VM ``mover`` goes from h1 to h2 as in live migration: its namespace, with all connections in it,
stays; the host's end of its veth moves to h2, the goal state is published with the new binding, and
then the VM announces itself as hypervisors do.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Final

from mininet_topos.conduct import Performance, log_phase
from mininet_topos.experiment_flows import begin, from_each
from mininet_topos.experiment_lab import ExperimentLab, is_on_demand
from mininet_topos.experiment_state import OPEN, Goal, Station, allow
from mininet_topos.flow_seen import (
    NO_PAUSE,
    PASSES_S,
    back_seen,
    first_retry_seen,
    goes_on_seen,
    no_loss_seen,
    of,
    within_seen,
)
from mininet_topos.load import FlowSpec
from mininet_topos.parallel import side_by_side
from mininet_topos.promises import Measurement, Promise, Seen, Trial, all_of, check
from mininet_topos.trials import Phase
from mininet_topos.vm import VM_INTERFACE
from ondemand.pipeline import Pipeline, Table

_HEADLINE: Final = (
    "Three compute hosts; a VM with live connections moves from one to another, and back."
)
_QUICK_HEADLINE: Final = (
    "Three compute hosts; a VM with live connections moves from one to another."
)
_QUICK_NOTE: Final = (
    "in the short form the VM does not move back; what is promised is the same as in the full form"
)

_TCP: Final = 80
_UDP: Final = 5000
_OUT: Final = 8000

#: Seconds from publishing a record until its address is reached; unknown addresses are dropped for 10.
NEWCOMER_S: Final = 1.0
_DENY_S: Final = 10

#: A veth that changes hands loses its carrier for a moment, and then the kernel forgets its neighbors
#: (ip-sysctl, since Linux 5.16 and 5.17); a guest that is migrated sees no such thing.
_KEEP_NEIGHBORS: Final = {
    f"ipv4/conf/{VM_INTERFACE}/arp_evict_nocarrier": "0",
    f"ipv6/conf/{VM_INTERFACE}/ndisc_evict_nocarrier": "0",
}

_GOAL: Final = Goal(
    stations=(
        Station("mover", 1, 31, "front", ("service",), tcp=(_TCP,), udp=(_UDP,)),
        Station("near", 1, 21),
        Station("far", 2, 22),
        Station("peer", 3, 23, tcp=(_OUT,), udp=(_UDP,)),
        Station("routed", 3, 24, "back"),
        Station("late", 2, 41, is_plugged=False),
    ),
    groups={
        "open": OPEN,
        "service": [
            *allow("in", "ingress", (_TCP, _UDP)),
            *allow("out", "egress", (_OUT, _UDP)),
        ],
    },
    absent=frozenset({"late"}),
)

_LOCATION: Final = f"table={Pipeline().number(Table.LOCATION)},"


def performance(*, quick: bool) -> Performance[ExperimentLab]:
    moves = ((2, "Move to h2"),) if quick else ((2, "Move to h2"), (1, "Move back to h1"))
    again_s = 8.0 if quick else 15.0
    return Performance(
        headline=_QUICK_HEADLINE if quick else _HEADLINE,
        lab=lambda progress: ExperimentLab(_GOAL, hosts=3, progress=progress),
        phases=(
            Phase("streams begin", (check("Streams", "all", "live", _begin),)),
            *(
                Phase(f"the VM moves to h{host}", (_move(host, theme, again_s),))
                for host, theme in moves
            ),
            Phase("an address that nobody had", (_newcomer(),)),
            log_phase(),
        ),
        explain=("peer", f"tcp,nw_dst={_GOAL.station('mover').ips[0]},tp_dst={_TCP}"),
        note=_QUICK_NOTE if quick else "",
    )


def flow_specs() -> list[FlowSpec]:
    """To the mover from all three hosts, and from it."""
    mover, peer = _GOAL.station("mover"), _GOAL.station("peer")
    clients = [_GOAL.station("near"), _GOAL.station("far"), peer]
    return [
        *from_each(clients, mover, (_TCP, _UDP)),
        *from_each([mover], peer, (_OUT, _UDP)),
    ]


# The trials ---------------------------------------------------------------------------------------


def _begin(lab: ExperimentLab) -> Seen:
    lab.vms["mover"].write_sysctls(_KEEP_NEIGHBORS)
    return begin(lab, flow_specs())


def _move(number: int, theme: str, again_s: float) -> Trial[ExperimentLab]:
    def look(lab: ExperimentLab) -> Sequence[Seen]:
        mover, target = lab.vms["mover"], lab.host(number)
        origin_ip = mover.host.tunnel_ip
        before, asked = _locations(lab), lab.counts("packet_in")[3]
        start_s = time.monotonic()
        mover.move(target)
        lab.publish_goal(lab.goal.moved("mover", number))
        mover.plug("mover")
        ready_s = time.monotonic()
        lab.loads.mark()
        seen = lab.loads.wait(lambda flows: all(one.echoed for one in flows), timeout_s=again_s)
        # What TCP sends again after the first answer counts too.
        seen = lab.loads.watch(0.5)
        tcp, udp = of(seen, protocol="tcp"), of(seen, protocol="udp")
        after = _locations(lab)
        asked = lab.counts("packet_in")[3] - asked
        lab.measurements.append(
            Measurement(
                f"{theme}: from ready to the first answer",
                "ms",
                {
                    "UDP": 1000 * max((one.first_s or ready_s) - ready_s for one in udp),
                    "TCP": 1000 * max((one.first_s or ready_s) - ready_s for one in tcp),
                    "the move itself": 1000 * (ready_s - start_s),
                },
            )
        )
        return (
            first_retry_seen(tcp),
            back_seen(udp, ready_s, PASSES_S),
            rewritten_seen(before, after, (origin_ip, target.tunnel_ip)),
            Seen(asked == 0, f"{asked} packet-ins"),
            _announced(lab),
        )

    return Trial(
        (
            Promise(
                theme, f"{theme}: TCP, once it is there", "one retransmission at each end, at most"
            ),
            Promise(theme, f"{theme}: UDP", f"passes within {PASSES_S:g} s"),
            Promise(
                theme, f"{theme}: a third host's location rules", "the same match, a new tunnel"
            ),
            Promise(theme, f"{theme}: that host's agent", "is asked nothing"),
            Promise(theme, f"{theme}: gratuitous ARP and RARP", f"change nothing: {NO_PAUSE}"),
        ),
        look,
    )


def _announced(lab: ExperimentLab) -> Seen:
    """Whether the VM's announcement leaves streams and rules as they were; a drop may come."""
    hosts = list(lab.agents)
    before = {host: lab.rules(host) for host in hosts}
    lab.loads.mark()
    lab.vms["mover"].announce(VM_INTERFACE, _GOAL.station("mover").ips[0])
    seen = lab.loads.watch(0.7)
    new = [
        rule
        for host in hosts
        for rule in lab.rules(host) - before[host]
        if not (is_on_demand(rule) and rule.endswith("actions=drop"))
    ]
    return all_of(
        goes_on_seen(of(seen, protocol="tcp")),
        no_loss_seen(of(seen, protocol="udp")),
        Seen(not new, f"{len(new)} rules but drops"),
    )


def _newcomer() -> Trial[ExperimentLab]:
    theme = "An address that nobody had"
    askers = ("peer", "routed")

    def look(lab: ExperimentLab) -> Sequence[Seen]:
        late = lab.vms["late"]
        address = _GOAL.station("late").ips[0]
        late.plug("late")
        for name in askers:
            lab.hasten_arp(name)
            lab.vms[name].ping(_GOAL.station(name).placed.spec.gateways[0])
        lost = side_by_side(lambda name: lab.vms[name].ping(address, timeout_s=0.3), askers)
        drops = [
            rule
            for rule in lab.rules(3)
            if f"={address}" in rule and rule.endswith("actions=drop") and "hard_timeout" in rule
        ]
        published_s = lab.publish_goal(lab.goal.known("late"))
        times_s = side_by_side(
            lambda name: lab.until_ping(name, address, timeout_s=2 * _DENY_S), askers
        )
        found = [None if one is None else one - published_s for one in times_s]
        return (
            Seen(
                not any(one.received for one in lost) and len(drops) == len(askers),
                f"{sum(one.received for one in lost)} of {len(askers)} answered, {len(drops)} drop rules",
            ),
            all_of(
                within_seen("ARP and ping, same subnet", found[0], NEWCOMER_S),
                within_seen("ping, routed", found[1], NEWCOMER_S),
            ),
        )

    return Trial(
        (
            Promise(theme, "before it is published", f"dropped in the switch, for {_DENY_S} s"),
            Promise(theme, "from when it is published", f"reached within {NEWCOMER_S:g} s"),
        ),
        look,
    )


# Location rules -----------------------------------------------------------------------------------


def _locations(lab: ExperimentLab) -> dict[str, str]:
    mac = f"dl_dst={_GOAL.station('mover').mac}"
    rules = (rule for rule in lab.rules(3) if _LOCATION in rule and mac in rule)
    return dict(match_and_actions(rule) for rule in rules)


def match_and_actions(rule: str) -> tuple[str, str]:
    """Of a dumped rule: priority and match, and actions."""
    found = re.search(r"(priority=\S+) actions=(.*)$", rule)
    return (found[1], found[2]) if found else (rule, "")


def rewritten_seen(
    before: Mapping[str, str], after: Mapping[str, str], tunnels: tuple[str, str]
) -> Seen:
    """Whether rules (actions by match) are the same but for the tunnel address they lead to."""
    tunnel = re.compile(r"\b(?:tun_dst|NXM_NX_TUN_IPV4_DST\[\])")
    led = [
        actions for actions in before.values() if tunnels[0] in actions and tunnel.search(actions)
    ]
    leads = [
        actions for actions in after.values() if tunnels[1] in actions and tunnel.search(actions)
    ]
    same = before.keys() == after.keys()
    ok = bool(before) and same and len(led) == len(before) and len(leads) == len(after)
    text = f"{len(led)} to {tunnels[0]}, then {len(leads)} to {tunnels[1]}"
    return Seen(ok, f"{text}{'' if same else ', of other matches'}")

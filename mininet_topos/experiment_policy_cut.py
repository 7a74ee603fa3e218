"""``policy-cut``: policy narrows under live streams, and widens again.

The port ``web`` on host h1 has streams of its own and streams that others began, to a VM on the same
host and to one over VXLAN. What each change must cut stands beside what it must leave alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mininet_topos.agent_lab import is_of_zone
from mininet_topos.attempts import denied_seen, family_of
from mininet_topos.conduct import Performance, log_phase
from mininet_topos.experiment_flows import begin
from mininet_topos.experiment_lab import ExperimentLab, Tracked, is_on_demand
from mininet_topos.flow_seen import (
    CUT_S,
    NO_LOSS,
    NO_PAUSE,
    PASSES_S,
    back_seen,
    cut_seen,
    goes_on_seen,
    lives_seen,
    no_loss_seen,
    of,
)
from mininet_topos.load import FlowSeen
from mininet_topos.parallel import side_by_side
from mininet_topos.policy_cut_state import (
    GOAL,
    GONE_RULES,
    MEMBERS,
    RECEIVED,
    WEB_GROUPS,
    flow_specs,
)
from mininet_topos.promises import Measurement, Promise, Seen, Trial, all_of, check
from mininet_topos.trials import Phase

_HEADLINE: Final = (
    f"Two compute hosts; a web server whose rules change under its streams; a group of {MEMBERS:,}."
)
_QUICK_NOTE: Final = (
    "the short form has fewer streams and looks for a shorter time; what is promised is the same"
    " as in the full form"
)


@dataclass(frozen=True, slots=True)
class _Times:
    """Seconds that streams are watched after a change, and that TCP may take to try again.

    TCP tries at growing intervals: the next try is at most about as far away as the cut is.
    """

    watched_s: float
    again_s: float


def performance(*, quick: bool) -> Performance[ExperimentLab]:
    times = _Times(1.2, 6.0) if quick else _Times(3.0, 12.0)
    return Performance(
        headline=_HEADLINE,
        lab=lambda progress: ExperimentLab(GOAL, hosts=2, progress=progress),
        phases=(
            Phase("streams begin", (_begin(quick=quick),)),
            Phase("a rule is removed", (_rule_goes(times),)),
            Phase("the rule comes back", (_rule_comes(times),)),
            Phase("a group leaves the port", (_group_leaves(times),)),
            Phase("a member leaves a remote group", (_member_leaves(times),)),
            log_phase(),
        ),
        explain=("near", f"tcp,nw_dst={GOAL.station('web').ips[0]},tp_dst={RECEIVED['rule'][0]}"),
        facts={"members": MEMBERS},
        note=_QUICK_NOTE if quick else "",
    )


# The trials ---------------------------------------------------------------------------------------


def _begin(*, quick: bool) -> Trial[ExperimentLab]:
    def look(lab: ExperimentLab) -> Seen:
        return begin(lab, flow_specs(quick=quick), interval_s=0.02 if quick else 0.04)

    return check("Streams", "all that are allowed", "live, in both directions", look)


def _rule_goes(times: _Times) -> Trial[ExperimentLab]:
    theme = "A rule is removed"

    def look(lab: ExperimentLab) -> Sequence[Seen]:
        packet_ins = lab.counts("packet_in").total()
        lab.loads.mark()
        published_s = lab.publish_goal(GOAL.without(GONE_RULES))
        seen = lab.loads.watch(times.watched_s)
        packet_ins = lab.counts("packet_in").total() - packet_ins
        lab.measurements.append(
            Measurement(
                f"packet-ins when a rule is removed from a port with {len(seen)} streams",
                "packet-ins",
                {"in all": packet_ins},
            )
        )
        kept = [one for one in seen if one.spec.name.split()[0] != "rule"]
        return (
            cut_seen(of(seen, "rule", "received"), published_s),
            cut_seen(of(seen, "rule", "begun"), published_s),
            goes_on_seen(of(kept, protocol="tcp")),
            no_loss_seen(of(kept, protocol="udp")),
            all_of(*_denied(lab, "near", "far", port=RECEIVED["rule"][0])),
        )

    return Trial(
        (
            Promise(theme, "streams that the port received", f"cut within {CUT_S:g} s"),
            Promise(theme, "streams that the port began", f"cut within {CUT_S:g} s, as well"),
            Promise(theme, "TCP that is still allowed", NO_PAUSE),
            Promise(theme, "UDP that is still allowed", NO_LOSS),
            Promise(theme, "a new connection there", "dropped, though a server listens"),
        ),
        look,
    )


def _rule_comes(times: _Times) -> Trial[ExperimentLab]:
    theme = "The rule comes back"

    def look(lab: ExperimentLab) -> Sequence[Seen]:
        lab.loads.mark()
        published_s = lab.publish_goal(GOAL)
        seen = lab.loads.wait(_all_echoed, timeout_s=times.again_s)
        gone = of(seen, "rule")
        kept = [one for one in seen if one not in gone]
        return (
            back_seen(of(gone, protocol="udp"), published_s, PASSES_S),
            lives_seen(of(gone, protocol="tcp")),
            all_of(goes_on_seen(of(kept, protocol="tcp")), no_loss_seen(of(kept, protocol="udp"))),
        )

    return Trial(
        (
            Promise(theme, "the next datagram", f"passes within {PASSES_S:g} s"),
            Promise(theme, "the very TCP connections", "go on when TCP tries again"),
            Promise(theme, "all other streams", NO_PAUSE),
        ),
        look,
    )


def _group_leaves(times: _Times) -> Trial[ExperimentLab]:
    theme = "A group leaves the port"

    def look(lab: ExperimentLab) -> Sequence[Seen]:
        lab.loads.mark()
        fewer = tuple(group for group in WEB_GROUPS if group != "extra")
        published_s = lab.publish_goal(GOAL.with_groups("web", fewer))
        seen = lab.loads.watch(times.watched_s)
        kept = [one for one in seen if one.spec.name.split()[0] != "group"]
        found = [
            cut_seen(of(seen, "group"), published_s),
            all_of(goes_on_seen(of(kept, protocol="tcp")), no_loss_seen(of(kept, protocol="udp"))),
        ]
        lab.loads.mark()
        published_s = lab.publish_goal(GOAL)
        seen = lab.loads.wait(_all_echoed, timeout_s=times.again_s)
        again = of(seen, "group")
        found.append(
            all_of(
                back_seen(of(again, protocol="udp"), published_s, PASSES_S),
                lives_seen(of(again, protocol="tcp")),
            )
        )
        return found

    return Trial(
        (
            Promise(theme, "streams that only it allowed", f"cut within {CUT_S:g} s"),
            Promise(theme, "streams that others allow", NO_PAUSE),
            Promise(theme, "the group is back", f"datagrams within {PASSES_S:g} s, then TCP"),
        ),
        look,
    )


def _member_leaves(times: _Times) -> Trial[ExperimentLab]:
    theme = f"A member leaves a group of {MEMBERS:,}"

    def look(lab: ExperimentLab) -> Sequence[Seen]:
        packet_ins = lab.counts("packet_in")
        rules = {host: lab.rules(host) for host in lab.agents}
        marks = {host: lab.marks(host) for host in lab.agents}
        lab.loads.mark()
        published_s = lab.publish_goal(GOAL.with_groups("leaver", ("open",)))
        seen = lab.loads.watch(times.watched_s)
        left = of(seen, "leaver")
        others = [one for one in seen if one not in left]
        asked = (lab.counts("packet_in") - packet_ins).total()
        written = [
            rule
            for host in lab.agents
            for rule in lab.rules(host) ^ rules[host]
            if is_on_demand(rule) and not _is_about_leaver(lab, host, rule)
        ]
        stamped = _stamped(lab, marks)
        lab.publish_goal(GOAL)
        return (
            cut_seen(left, published_s),
            all_of(
                goes_on_seen(of(others, protocol="tcp")), no_loss_seen(of(others, protocol="udp"))
            ),
            Seen(
                asked <= 2 * len(left) * len(lab.agents) and not written,
                f"{asked} packet-ins, {len(written)} other rules written"
                + "".join(f"; {rule}" for rule in written[:1]),
            ),
            Seen(
                not stamped.total(),
                f"{stamped.total()} of {len(others)} streams' connections"
                + "".join(f", {count} of port {name}" for name, count in stamped.items()),
            ),
        )

    return Trial(
        (
            Promise(theme, "its streams", f"cut within {CUT_S:g} s"),
            Promise(theme, "streams of the other members", NO_PAUSE),
            Promise(
                theme,
                "what the agents did",
                "a packet-in for its flows, each host and direction at most; no other rule",
            ),
            Promise(theme, "connections of everybody else", "not judged again"),
        ),
        look,
    )


def _is_about_leaver(lab: ExperimentLab, host: int, rule: str) -> bool:
    """Whether a rule names the member that left, or belongs to its port."""
    vm = lab.vms["leaver"]
    if lab.host(host) is vm.host and is_of_zone(rule, lab.zone("leaver")):
        return True
    return any(re.search(rf"={re.escape(ip)}(?![0-9a-f.:])", rule) for ip in vm.ips)


def _stamped(lab: ExperimentLab, before: Mapping[int, Mapping[Tracked, int]]) -> Counter[str]:
    """How many connections were judged again, so that their marks moved, by the port they are of.

    Without those of the member that left: all of its own port, and elsewhere those with it.
    """
    ports = {(vm.host.label, lab.zone(name)): name for name, vm in lab.vms.items()}
    with_it = [f"={ip}," for ip in GOAL.station("leaver").ips]
    found: Counter[str] = Counter()
    for host, marks in before.items():
        after = lab.marks(host)
        for tracked, mark in marks.items():
            port = ports.get((lab.host(host).label, tracked.zone), "nobody")
            if port != "leaver" and not any(text in tracked.original for text in with_it):
                found[port] += after.get(tracked, mark) != mark
    return +found


def _all_echoed(flows: Sequence[FlowSeen]) -> bool:
    return all(one.echoed for one in flows)


def _denied(lab: ExperimentLab, *clients: str, port: int) -> list[Seen]:
    addresses = GOAL.station("web").ips

    def look(tried: tuple[str, str]) -> Seen:
        client, address = tried
        (own,) = lab.vms["web"].tcp_attempts(address, port)
        (attempt,) = lab.vms[client].tcp_attempts(address, port)
        return denied_seen(own, attempt, f"{client} {family_of(address)}")

    return side_by_side(look, [(client, address) for client in clients for address in addresses])

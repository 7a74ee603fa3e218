"""``restart``: the agent is killed under load and started again, then replaced by a second one.

Tens of thousands of on-demand rules are in the switch, traffic goes on. While no agent runs, a rule is
removed, a group leaves a port, and a neighbor moves to another host. The next agent reads back what
the switch holds, keeps what is true, mends what is not, and serves new flows meanwhile.

The switch forwards nothing while it writes a dump of all its rules. So rules are dumped before the
streams are watched and after it; in between, the switch only counts them. And its thread that forwards
comes before all others, as on a compute host, where it has a core.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Final

from mininet_topos.conduct import Performance, log_phase
from mininet_topos.experiment_flows import begin
from mininet_topos.experiment_lab import ExperimentLab
from mininet_topos.flow_seen import (
    NO_LOSS,
    NO_PAUSE,
    back_seen,
    cut_seen,
    lives_seen,
    ms,
    of,
    within_seen,
)
from mininet_topos.probe import Pulses, pulses, reflect
from mininet_topos.promises import Measurement, Promise, Seen, Trial, all_of, check
from mininet_topos.restart_lab import (
    FULL,
    QUICK,
    Form,
    allowing_rules,
    begin_flows,
    connections_of,
    fill_rules,
    tell_times,
)
from mininet_topos.restart_seen import (
    ANEW,
    is_of,
    kept_seen,
    none_untrue_seen,
    not_flushed_seen,
    unharmed_seen,
)
from mininet_topos.restart_state import (
    CHANGED,
    FRESH_FIRST,
    FRESH_MOST,
    GOAL,
    flow_specs,
    untrue,
)
from mininet_topos.trials import Phase

_HEADLINE: Final = (
    "Three compute hosts; the agent of one is killed and started under load, then replaced."
)

#: Seconds from when all rules are judged until the last packet of a connection that is no longer allowed: before
#: that, a rule that is no longer true could let it pass anew.
CUT_S: Final = 0.5

_QUICK_NOTE: Final = (
    f"the short form has {QUICK.rules:,} rules instead of {FULL.rules:,}, and its promises are wider than"
    f" those of the full form: the first new flow within {QUICK.served_s:g} s instead of"
    f" {FULL.served_s:g} s, and {QUICK.start_s:g} s instead of {FULL.start_s:g} s for a start besides the time"
    " for each rule"
)

#: A second between two datagrams of each of the two streams that are looked at closely.
_FAST_S: Final = 0.001
_FILL_TRIES: Final = 4

#: Seconds after a dump until TCP has made up for what the switch lost meanwhile.
_AFTER_DUMP_S: Final = 1.0

#: Nothing idles out while it is looked at.
_SETTINGS: Final = {
    "rules": {"verdict_idle_s": 300, "location_idle_s": 300, "responder_idle_s": 300},
    "limits": {"max_rules_per_port": 60_000},
}


def performance(*, quick: bool) -> Performance[ExperimentLab]:
    form = QUICK if quick else FULL
    return Performance(
        headline=_HEADLINE,
        lab=lambda progress: ExperimentLab(GOAL, hosts=3, progress=progress, settings=_SETTINGS),
        phases=(
            Phase("streams begin", (check("Streams", "all", "live", _begin),)),
            Phase(f"{form.rules:,} rules are made by traffic", (_filled(form),)),
            Phase("the agent is killed, the goal state changes", (_killed(form),)),
            Phase("a second agent takes over", (_replaced(form),)),
            log_phase(),
        ),
        explain=("near", f"tcp,nw_dst={GOAL.station('web').ips[0]},tp_dst=80"),
        facts={"rules": form.rules},
        note=_QUICK_NOTE if quick else "",
    )


def _begin(lab: ExperimentLab) -> Seen:
    lab.prefer_switches()
    reflect(lab.vms["web"], first=FRESH_FIRST, count=FRESH_MOST)
    # An ARP question without an answer is repeated only a second later, which is not what is looked at.
    lab.vms["fresh"].ping(GOAL.station("web").ips[0])
    return begin(lab, flow_specs(), intervals={"fast": _FAST_S})


def _filled(form: Form) -> Trial[ExperimentLab]:
    def look(lab: ExperimentLab) -> Seen:
        start_s, found = time.monotonic(), 0
        for _ in range(_FILL_TRIES):
            fill_rules(lab, form)
            found = lab.host(1).rule_count()
            if found >= form.rules:
                break
        seconds = time.monotonic() - start_s
        return Seen(found >= form.rules, f"{found:,} rules in the switch, after {ms(seconds)}")

    return check("Rules", "made by traffic", f"{form.rules:,} of them", look)


# The trials ---------------------------------------------------------------------------------------


def _killed(form: Form) -> Trial[ExperimentLab]:
    theme = "The agent is killed and started again"

    def look(lab: ExperimentLab) -> Sequence[Seen]:
        agent, tunnel = lab.agents[1], lab.host(2).tunnel_ip
        before = allowing_rules(lab)
        time.sleep(_AFTER_DUMP_S)
        lab.loads.mark()
        time.sleep(1.0)
        connections = connections_of(lab)
        agent.process.kill()
        killed_s = time.monotonic()
        time.sleep(0.3)
        lab.vms["mover"].move(lab.host(3))
        lab.publish_goal(CHANGED)
        lab.vms["mover"].plug("mover")
        time.sleep(form.down_s)
        down = lab.loads.seen()
        # Who moves leaves the bridge of "far" and joins another, and these lose a packet now and then.
        lab.loads.mark("tracer", "far")
        process = begin_flows(lab, form, 0)
        time.sleep(0.3)
        start_s = time.monotonic()
        lab.start_agent(1)
        adopted_s = agent.wait_adopted(timeout_s=4 * form.adopted_s)
        time.sleep(form.after_s)
        seen = lab.loads.seen()
        connections_after = connections_of(lab)
        fresh = pulses(process, timeout_s=4 * form.adopted_s)
        after = allowing_rules(lab)
        cut = [*of(seen, "rule"), *of(seen, "group")]
        judged_s = math.inf if adopted_s is None else adopted_s - start_s
        tell_times(lab, "after the kill", start_s, adopted_s, fresh)
        lab.measurements.append(Measurement("without an agent", "s", {"for": start_s - killed_s}))
        return (
            all_of(
                unharmed_seen([*of(down, "local"), *of(down, "fast")]),
                lives_seen(of(down, "VXLAN")),
            ),
            unharmed_seen([*of(seen, "kept"), *of(seen, "fast")]),
            all_of(
                cut_seen(cut, start_s, bound_s=judged_s + CUT_S, since="the agent was started"),
                Seen(judged_s < math.inf, f"all judged after {ms(judged_s)}"),
            ),
            back_seen(of(seen, "moved", protocol="udp"), start_s, judged_s + CUT_S),
            kept_seen(before, after, set(untrue(before, tunnel))),
            none_untrue_seen(before, after, tunnel),
            _served(fresh, start_s, form),
            _adopted(adopted_s, start_s, form),
            not_flushed_seen(connections, connections_after),
        )

    return Trial(
        (
            Promise(
                theme, "streams while no agent runs", f"all live; on the host {NO_PAUSE}; {NO_LOSS}"
            ),
            Promise(theme, "streams, from before the kill to after", f"{NO_PAUSE}; {NO_LOSS}"),
            Promise(
                theme,
                "streams that a rule or a group had allowed",
                f"cut {CUT_S:g} s after all rules are judged",
            ),
            Promise(theme, "UDP to who has moved", f"passes {CUT_S:g} s after that"),
            Promise(
                theme,
                "rules that are true",
                f"stay, with their cookies, but {ANEW} that new flows share",
            ),
            Promise(theme, "rules that are not", "go"),
            Promise(theme, "a new flow", f"served within {form.served_s:g} s of the start"),
            Promise(theme, "all rules", f"judged within {form.adopted_s:g} s of the start"),
            Promise(theme, "connection tracking", "not flushed"),
        ),
        look,
    )


def _replaced(form: Form) -> Trial[ExperimentLab]:
    theme = "A second agent takes over"

    def look(lab: ExperimentLab) -> Sequence[Seen]:
        agent = lab.agents[1]
        # By now the first connections could be forgotten, as those are that go on no further.
        fill_rules(lab, form)
        before = allowing_rules(lab)
        time.sleep(_AFTER_DUMP_S)
        lab.loads.mark()
        connections = connections_of(lab)
        process = begin_flows(lab, form, 1)
        time.sleep(1.0)
        start_s = time.monotonic()
        first = agent.replace()
        adopted_s = agent.wait_adopted(timeout_s=4 * form.adopted_s)
        time.sleep(form.after_s)
        seen = lab.loads.seen()
        connections_after = connections_of(lab)
        fresh = pulses(process, timeout_s=4 * form.adopted_s)
        after = allowing_rules(lab)
        ended = first.wait(1.0)
        gap_s = fresh.longest_gap_s(start_s, (adopted_s or time.monotonic()))
        tell_times(lab, "after the take-over", start_s, adopted_s, fresh)
        return (
            unharmed_seen(
                [one for one in seen if not is_of(one, "rule") and not is_of(one, "group")]
            ),
            kept_seen(before, after, set()),
            Seen(gap_s <= form.served_s, f"at most {ms(gap_s)} without one"),
            _adopted(adopted_s, start_s, form),
            not_flushed_seen(connections, connections_after),
            Seen(
                ended and first.returncode == 2,
                f"exit code {first.returncode}" if ended else "it still runs",
            ),
        )

    return Trial(
        (
            Promise(theme, "take-over: all streams", f"{NO_PAUSE}; {NO_LOSS}"),
            Promise(
                theme,
                "take-over: all rules",
                f"stay, with their cookies, but {ANEW} that new flows share",
            ),
            Promise(
                theme, "take-over: new flows", f"no {form.served_s:g} s without one that is served"
            ),
            Promise(theme, "take-over: they are judged", f"within {form.adopted_s:g} s"),
            Promise(theme, "take-over: connection tracking", "not flushed"),
            Promise(theme, "take-over: the first agent", "ends with exit code 2"),
        ),
        look,
    )


# What is looked at more than once -----------------------------------------------------------------


def _served(fresh: Pulses, start_s: float, form: Form) -> Seen:
    first_s = fresh.first_served_s(start_s)
    return within_seen("the first", None if first_s is None else first_s - start_s, form.served_s)


def _adopted(adopted_s: float | None, start_s: float, form: Form) -> Seen:
    seconds = None if adopted_s is None else adopted_s - start_s
    return within_seen("the last", seconds, form.adopted_s)

"""``source-outage``: the slice store cannot be read, and is back later.

What is installed stays, what is cached is served; what was never asked for is not guessed at, but
dropped in the switch for a short time, and served as soon as the store is back. And when the agent
itself dies meanwhile, the switch goes on without it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from mininet_topos.conduct import Performance, log_phase
from mininet_topos.experiment_flows import begin, from_each
from mininet_topos.experiment_lab import ExperimentLab
from mininet_topos.experiment_state import OPEN, Goal, Station, allow
from mininet_topos.flow_seen import (
    NO_LOSS,
    NO_PAUSE,
    goes_on_seen,
    no_loss_seen,
    of,
    within_seen,
)
from mininet_topos.load import FlowSpec
from mininet_topos.parallel import side_by_side
from mininet_topos.promises import Promise, Seen, Trial, all_of, check
from mininet_topos.trials import Phase

_HEADLINE: Final = (
    "Two compute hosts; the slice store is moved away, replaced by garbage, brought back."
)
_QUICK_NOTE: Final = (
    "in the short form the store is away for a shorter time; what is promised is the same as in the full"
    " form"
)

_TCP: Final = 80
#: Services that nobody has used before, one for each time that a new flow is begun.
_FRESH: Final = (81, 82, 83)
_UDP: Final = 5000

#: Counts packets that could not be judged because the source did not answer.
_COUNTER: Final = "source_unreachable"

#: Seconds for which the switch drops what could not be judged, by default; and the bound for healing.
_DENY_S: Final = 10.0
HEALED_S: Final = _DENY_S / 2

#: Seconds from publishing a port until it is reached.
FOLLOWED_S: Final = 1.0

_GOAL: Final = Goal(
    stations=(
        Station("web", 1, 11, "front", ("service",), tcp=(_TCP, *_FRESH), udp=(_UDP,)),
        Station("near", 1, 21),
        Station("far", 2, 22),
        *(Station(f"lone-{n}", 2, 50 + n) for n in (1, 2)),
        *(Station(f"afar-{n}", 2, 60 + n, "back") for n in (1, 2)),
        Station("new", 2, 41, is_plugged=False),
    ),
    absent=frozenset({"new"}),
    groups={
        "open": OPEN,
        "service": allow("in", "ingress", (f"{_TCP}-{_FRESH[-1]}", _UDP)),
    },
)


def performance(*, quick: bool) -> Performance[ExperimentLab]:
    watched_s = 0.8 if quick else 5.0
    return Performance(
        headline=_HEADLINE,
        lab=lambda progress: ExperimentLab(_GOAL, hosts=2, progress=progress),
        phases=(
            Phase("streams begin", (check("Streams", "all", "live", _begin),)),
            Phase("the store is moved away", (_away(watched_s),)),
            Phase("garbage takes its place", (_garbage(watched_s),)),
            Phase("the store is back", (_back(),)),
            Phase("it goes again, and then the agent", (_killed(watched_s),)),
            log_phase(),
        ),
        explain=("near", f"icmp,nw_dst={_GOAL.station('lone-1').ips[0]}"),
        note=_QUICK_NOTE if quick else "",
    )


def flow_specs() -> list[FlowSpec]:
    """From both hosts to the web server, over both families."""
    clients = [_GOAL.station(name) for name in ("near", "far")]
    return list(from_each(clients, _GOAL.station("web"), (_TCP, _UDP)))


def _begin(lab: ExperimentLab) -> Seen:
    lab.hasten_arp("near")
    lab.vms["near"].ping(_GOAL.station("near").placed.spec.gateways[0])
    return begin(lab, flow_specs())


# The trials ---------------------------------------------------------------------------------------


def _away(watched_s: float) -> Trial[ExperimentLab]:
    theme = "The store is moved away"

    def look(lab: ExperimentLab) -> Sequence[Seen]:
        lab.loads.mark()
        lab.take_store_away()
        time.sleep(watched_s)
        told = [agent.status.get("source_error") for agent in lab.agents.values()]
        return (
            _unharmed(lab),
            Seen(all(told), f"{sum(map(bool, told))} of {len(told)} agents tell of it"),
            _known(lab, _FRESH[0]),
            *_strangers(lab, "1"),
        )

    return Trial(
        (
            Promise(theme, "all streams", f"{NO_PAUSE}; {NO_LOSS}"),
            Promise(theme, "the agents' status", "says that the source is away"),
            Promise(theme, "a new flow between neighbors known", "is served"),
            Promise(theme, "a flow to a neighbor never asked for", "is not served"),
            Promise(theme, "why it is not", f"is counted as {_COUNTER}"),
            Promise(theme, "its next packets", f"dropped in the switch, for {_DENY_S:g} s at most"),
        ),
        look,
    )


def _garbage(watched_s: float) -> Trial[ExperimentLab]:
    theme = "Garbage takes its place"

    def look(lab: ExperimentLab) -> Sequence[Seen]:
        lab.loads.mark()
        lab.put_garbage()
        time.sleep(watched_s)
        return _unharmed(lab), _known(lab, _FRESH[1]), *_strangers(lab, "2")

    return Trial(
        (
            Promise(theme, "garbage: all streams", f"{NO_PAUSE}; {NO_LOSS}"),
            Promise(theme, "garbage: a new flow between neighbors known", "is served"),
            Promise(theme, "garbage: a neighbor never asked for", "is not served"),
            Promise(theme, "garbage: why it is not", f"is counted as {_COUNTER}"),
            Promise(
                theme,
                "garbage: its next packets",
                f"dropped in the switch, for {_DENY_S:g} s at most",
            ),
        ),
        look,
    )


def _back() -> Trial[ExperimentLab]:
    theme = "The store is back"

    def look(lab: ExperimentLab) -> Sequence[Seen]:
        lab.loads.mark()
        back_s = lab.bring_store_back()
        names = ("lone-2", "afar-2", "lone-1", "afar-1")
        times_s = side_by_side(
            lambda name: lab.until_ping("near", _GOAL.station(name).ips[0], timeout_s=2 * _DENY_S),
            names,
        )
        found = {
            name: None if one is None else one - back_s
            for name, one in zip(names, times_s, strict=True)
        }
        return (
            within_seen("same subnet", found["lone-2"], HEALED_S),
            within_seen("routed", found["afar-2"], HEALED_S),
            all_of(
                within_seen("same subnet", found["lone-1"], HEALED_S),
                within_seen("routed", found["afar-1"], HEALED_S),
            ),
            within_seen("ping", _follows(lab), FOLLOWED_S),
            _unharmed(lab),
        )

    return Trial(
        (
            Promise(theme, "the neighbor asked for last", f"reached within {HEALED_S:g} s"),
            Promise(theme, "the same behind the router", f"reached within {HEALED_S:g} s"),
            Promise(theme, "those asked for before", f"reached within {HEALED_S:g} s"),
            Promise(theme, "a port that is published then", f"reached within {FOLLOWED_S:g} s"),
            Promise(theme, "all streams meanwhile", f"{NO_PAUSE}; {NO_LOSS}"),
        ),
        look,
    )


def _killed(watched_s: float) -> Trial[ExperimentLab]:
    theme = "The agent is killed while the store is away"

    def look(lab: ExperimentLab) -> Sequence[Seen]:
        web = _GOAL.station("web")
        lab.take_store_away()
        time.sleep(0.5)
        lab.loads.mark()
        lab.agents[1].process.kill()
        time.sleep(2 * watched_s)
        unharmed = _unharmed(lab)
        lab.bring_store_back()
        start_s = time.monotonic()
        lab.start_agent(1)
        connected_s = lab.until_connected("far", web.ips[0], _FRESH[2], timeout_s=30.0)
        lab.agents[1].wait_connected()
        return (
            unharmed,
            within_seen("new flow", None if connected_s is None else connected_s - start_s, 30.0),
        )

    return Trial(
        (
            Promise(theme, "streams without agent and store", f"{NO_PAUSE}; {NO_LOSS}"),
            Promise(theme, "agent and store are back", "new flows are served"),
        ),
        look,
    )


# What is looked at more than once -----------------------------------------------------------------


def _unharmed(lab: ExperimentLab) -> Seen:
    seen = lab.loads.seen()
    return all_of(goes_on_seen(of(seen, protocol="tcp")), no_loss_seen(of(seen, protocol="udp")))


def _follows(lab: ExperimentLab) -> float | None:
    """Seconds from publishing a port that is plugged in until it is reached; None: never."""
    lab.vms["new"].plug("new")
    published_s = lab.publish_goal(lab.goal.known("new"))
    reached_s = lab.until_ping("near", _GOAL.station("new").ips[0], timeout_s=2 * _DENY_S)
    return None if reached_s is None else reached_s - published_s


def _known(lab: ExperimentLab, port: int) -> Seen:
    """A flow that no rule knows, though both ends know each other."""
    found = []
    for client in ("near", "far"):
        for address in _GOAL.station("web").ips:
            (attempt,) = lab.vms[client].tcp_attempts(address, port, echo=True)
            said = "connected" if attempt.connected else attempt.error
            found.append(Seen(attempt.connected, f"{client} {said}"))
    return all_of(*found)


def _strangers(lab: ExperimentLab, number: str) -> tuple[Seen, Seen, Seen]:
    """Ping a VM that nobody asked for in the same subnet, and one behind the router."""
    addresses = [_GOAL.station(f"{kind}-{number}").ips[0] for kind in ("lone", "afar")]
    before = lab.counts(_COUNTER)[1]
    results = side_by_side(lambda ip: lab.vms["near"].ping(ip, timeout_s=0.3), addresses)
    time.sleep(0.2)
    rules = lab.rules(1)
    counted = lab.counts(_COUNTER)[1] - before
    # After the first packets were given up, which takes as long as they wait for their record.
    dropped = [
        ip
        for ip in addresses
        if any(
            f"={ip}" in rule and "hard_timeout" in rule and rule.endswith("actions=drop")
            for rule in rules
        )
    ]
    received = sum(one.received for one in results)
    return (
        Seen(received == 0, f"{received} of {len(results)} answered"),
        Seen(counted >= len(addresses), f"{counted} counted for {len(addresses)} flows"),
        Seen(len(dropped) == len(addresses), f"drop rules for {len(dropped)} of {len(addresses)}"),
    )

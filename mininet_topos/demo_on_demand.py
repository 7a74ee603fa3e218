"""When rules come and go: none before traffic, those that traffic asked for, none when it ends."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from mininet_topos.demo_lab import IDLE_S, DemoLab
from mininet_topos.demo_rules import OnDemandRule, Use, peers_asked_for, peers_of, rules_per_table
from mininet_topos.demo_state import HTTP, VM
from mininet_topos.parallel import side_by_side
from mininet_topos.promises import Promise, Seen, Trial, check

THEME: Final = "On demand"

#: A little traffic, none of it with host h3: to one VM on the same host and two on another.
FIRST_USES: Final[Sequence[Use]] = (
    ("client-1", VM["web-1"].ips[0]),
    ("client-1", VM["web-2"].ips[0]),
    ("batch-1", VM["web-2"].ips[1]),
)
#: The host that takes no part in it.
QUIET_HOST: Final = 3

#: Seconds after the idle timeout within which OVS and the agent must have noticed.
_IDLE_ALLOWANCE_S: Final = 12.0
_POLL_S: Final = 0.25


def first_trials() -> Iterator[Trial[DemoLab]]:
    """Before and at the first traffic; one after the other."""
    yield check(THEME, "before any traffic", "no on-demand rule on any host", _none_yet)
    yield Trial(
        (
            Promise(THEME, "after the first traffic", "rules for exactly the addresses used"),
            Promise(THEME, "a host that took no part in it", "still holds none"),
        ),
        _after_first_traffic,
    )


def later_trials() -> Iterator[Trial[DemoLab]]:
    """After all traffic."""
    yield check(
        THEME,
        "after all traffic",
        "no rule for an address not used",
        lambda lab: only_used(lab.uses, lab.rules()),
    )


def idle_trials() -> Iterator[Trial[DemoLab]]:
    yield check(THEME, f"after {IDLE_S} s of idleness", "all of them are gone", _gone)


def first_traffic(lab: DemoLab) -> None:
    """Make the first traffic, with neighbor caches empty as in VMs that have just booted."""
    side_by_side(
        lambda name: lab.vms[name].ip("neigh flush dev eth0"),
        sorted({"web-1", "web-2"} | {source for source, _ in FIRST_USES}),
    )

    def use(pair: Use) -> None:
        lab.ping(*pair)
        lab.tcp(*pair, HTTP)

    side_by_side(use, FIRST_USES)


def exactly_used(uses: Collection[Use], rules: Mapping[int, Sequence[OnDemandRule]]) -> Seen:
    """Whether the rules of the hosts name all addresses that were used with them, and no other."""
    asked = peers_asked_for(uses)
    words, ok = [], True
    for host, found in sorted(rules.items()):
        named = peers_of(found)
        strange, missing = named - asked[host], asked[host] - named
        ok = ok and not strange and not missing
        words.append(
            f"h{host}: {len(found)} rules, {len(named)} addresses{_list('not used', strange)}"
            f"{_list('without a rule', missing)}"
        )
    return Seen(ok, "; ".join(words))


def only_used(uses: Collection[Use], rules: Mapping[int, Sequence[OnDemandRule]]) -> Seen:
    """Whether the rules of the hosts name no address but those used with them."""
    asked = peers_asked_for(uses)
    strange = {f"h{host} {ip}" for host in rules for ip in peers_of(rules[host]) - asked[host]}
    total = sum(map(len, rules.values()))
    return Seen(not strange and total > 0, f"{total} rules{_list('not used', strange)}")


def _none_yet(lab: DemoLab) -> Seen:
    counts = {host: len(rules) for host, rules in lab.rules().items()}
    text = ", ".join(f"h{host}: {count}" for host, count in counts.items())
    return Seen(not any(counts.values()), f"{text} rules")


def _after_first_traffic(lab: DemoLab) -> Sequence[Seen]:
    first_traffic(lab)
    rules = lab.rules()
    lab.first_counts = rules_per_table(rules)
    quiet = len(rules.pop(QUIET_HOST))
    return exactly_used(lab.uses, rules), Seen(quiet == 0, f"h{QUIET_HOST}: {quiet} rules")


def _gone(lab: DemoLab) -> Seen:
    deadline_s = lab.last_traffic_s + IDLE_S + _IDLE_ALLOWANCE_S
    # Looking at rules costs the switch time, and none can be gone before.
    time.sleep(max(0.0, lab.last_traffic_s + IDLE_S - time.monotonic()))
    while (left := sum(map(len, lab.rules().values()))) or any(_ledgers(lab)):
        if time.monotonic() > deadline_s:
            booked = sum(_ledgers(lab))
            return Seen(
                ok=False, text=f"{left} rules in the switches, {booked} in the agents' books"
            )
        time.sleep(_POLL_S)
    return Seen(ok=True, text=f"none after {time.monotonic() - lab.last_traffic_s:.1f} s")


def _ledgers(lab: DemoLab) -> list[int]:
    """How many on-demand rules each agent believes to be in its switch."""
    return [int(agent.status["on_demand_rules"]) for agent in lab.agents.values()]


def _list(what: str, addresses: Collection[str]) -> str:
    return f", {what}: {' '.join(sorted(addresses))}" if addresses else ""

"""``--neighbors``: the VPC is filled, and the tables do not grow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Final

from mininet_topos.demo_lab import DemoLab
from mininet_topos.demo_on_demand import first_traffic
from mininet_topos.demo_rules import peers_of, rules_per_table
from mininet_topos.demo_state import FLEET_PREFIX, fleet_address
from mininet_topos.promises import Measurement, Promise, Seen, Trial
from ondemand.publishing import Progress

THEME: Final = "A large VPC"

RuleCounts = Mapping[int, Mapping[int, int]]


def fleet_trials(count: int, progress: Progress) -> Iterator[Trial[DemoLab]]:
    """Publish ``count`` neighbors and make the first traffic again; ``progress`` is told of it."""

    def look(lab: DemoLab) -> Sequence[Seen]:
        before = _memory(lab)
        lab.publish_fleet(count, progress)
        first_traffic(lab)
        same = same_counts(lab.first_counts, rules_per_table(lab.rules()))
        number = count // 2
        lab.ping("client-1", fleet_address(number), count=1)
        named = fleet_peers(lab)
        after = _memory(lab)
        lab.measurements += [
            Measurement("agent memory before", "MiB", before),
            Measurement(f"agent memory with {count:,} neighbors more", "MiB", after),
            Measurement("neighbors that the agent holds", "records", _neighbors_held(lab)),
        ]
        return same, one_of(count, fleet_address(number), named)

    yield Trial(
        (
            Promise(
                THEME, "the first traffic again", f"as many rules as without {count:,} neighbors"
            ),
            Promise(THEME, "a packet to one of the neighbors", "rules for that one only"),
        ),
        look,
    )


def same_counts(before: RuleCounts, after: RuleCounts) -> Seen:
    """Whether each table of each host has as many on-demand rules as before."""
    text = ", ".join(
        f"h{host}: {sum(before[host].values())} then {sum(after[host].values())}"
        for host in sorted(before)
    )
    return Seen(before == after and any(map(len, before.values())), text)


def one_of(count: int, asked: str, named: Sequence[str]) -> Seen:
    """``named``: the addresses of the fleet that rules name."""
    return Seen(list(named) == [asked], f"rules name {len(named)} of {count:,}")


def fleet_peers(lab: DemoLab) -> list[str]:
    """The addresses of synthetic neighbors that rules of any host name, each once."""
    prefix = ip_network(str(FLEET_PREFIX))
    peers = {peer for rules in lab.rules().values() for peer in peers_of(rules)}
    return sorted(peer for peer in peers if ip_address(peer) in prefix)


def _memory(lab: DemoLab) -> dict[str, float]:
    return {f"h{host}": agent.memory_mib() for host, agent in lab.agents.items()}


def _neighbors_held(lab: DemoLab) -> dict[str, float]:
    return {f"h{host}": agent.status["neighbors_held"] for host, agent in lab.agents.items()}

"""On-demand rules as a switch shows them, and which of them traffic can have asked for."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from mininet_topos.demo_state import VM, VMS
from ondemand.pipeline import ON_DEMAND, Pipeline

_TABLES: Final = {Pipeline().number(table) for table in ON_DEMAND}

#: Every field by which an on-demand rule names the address at the other end (ovs-fields(7)).
_PEER: Final = re.compile(
    r"(?<![a-z_])(?:ct_nw_src|ct_nw_dst|ct_ipv6_src|ct_ipv6_dst|nw_src|nw_dst|ipv6_src|ipv6_dst"
    r"|arp_tpa|nd_target)=([0-9a-f.:]+)"
)

#: Which VM sent to which address.
Use = tuple[str, str]


@dataclass(frozen=True, slots=True)
class OnDemandRule:
    """A rule that traffic asked for; ``peers`` are the addresses in its match."""

    table: int
    peers: frozenset[str]
    text: str


def on_demand_rules(lines: Iterable[str]) -> list[OnDemandRule]:
    """Those among the lines of ``ovs-ofctl dump-flows`` that leave again: they have a timeout."""
    found = []
    for line in lines:
        head = line.partition(" actions=")[0]
        table = re.search(r"\btable=(\d+)", head)
        number = int(table[1]) if table else 0
        if number in _TABLES and re.search(r"\b(idle|hard)_timeout=", head):
            peers = frozenset(str(ipaddress.ip_address(ip)) for ip in _PEER.findall(head))
            found.append(OnDemandRule(number, peers, line))
    return found


def peers_of(rules: Iterable[OnDemandRule]) -> frozenset[str]:
    """All addresses that the rules name."""
    return frozenset(peer for rule in rules for peer in rule.peers)


def rules_per_table(
    rules: Mapping[int, Iterable[OnDemandRule]],
) -> dict[int, dict[int, int]]:
    """For each host the number of rules in each table that has any."""
    return {host: Counter(rule.table for rule in found) for host, found in rules.items()}


def peers_asked_for(uses: Iterable[Use]) -> Mapping[int, frozenset[str]]:
    """The addresses that rules may name on each host (by its number), given what was sent.

    The sender's host knows the destination, and the gateway if it lies in another subnet; the
    receiver's host the same of the way back.
    """
    asked: dict[int, set[str]] = {vm.host: set() for vm in VMS}
    holders = {ip: vm for vm in VMS for ip in (*vm.ips, *vm.fresh_ips)}
    for name, address in uses:
        source, target = VM[name], holders.get(address)
        family = 0 if ipaddress.ip_address(address).version == 4 else 1
        own = source.ips[family]
        is_routed = target is None or target.subnet != source.subnet
        asked[source.host].add(address)
        if is_routed:
            asked[source.host].add(source.gateways[family])
        if target is not None:
            asked[target.host].add(own)
            if is_routed:
                asked[target.host].add(target.gateways[family])
    return {host: frozenset(addresses) for host, addresses in asked.items()}

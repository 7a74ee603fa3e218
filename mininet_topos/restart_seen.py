"""How ``restart`` judges: rules that stay and rules that go, connections, streams. The bounds stand here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mininet_topos.flow_seen import goes_on_seen, no_loss_seen, of
from mininet_topos.load import FlowSeen
from mininet_topos.promises import Seen, all_of
from mininet_topos.restart_state import untrue

#: Rules that new flows need and share with others, such as the web server's location: what a new flow
#: asks for before it has been judged is sent anew.
ANEW: Final = 6


def kept_seen(before: frozenset[str], after: frozenset[str], untrue_rules: set[str]) -> Seen:
    """Whether each rule that is true is there as it was: cookie, match, timeouts and actions.

    A few may have been sent anew, with another cookie.
    """
    true = before - untrue_rules
    changed = true - after
    there = set(map(_without_cookie, after))
    lost = [rule for rule in changed if _without_cookie(rule) not in there]
    anew = len(changed) - len(lost)
    text = f"{len(true) - len(changed):,} of {len(true):,}, {anew} sent anew"
    if lost:
        text += f"; {len(lost)} are gone, such as {min(lost)}"
    return Seen(bool(true) and not lost and anew <= ANEW, text)


def _without_cookie(rule: str) -> str:
    return rule.partition(", ")[2]


def none_untrue_seen(before: frozenset[str], after: frozenset[str], tunnel: str) -> Seen:
    were, are = untrue(before, tunnel), untrue(after, tunnel)
    return Seen(bool(were) and not are, f"{len(are)} left of {len(were)}")


def not_flushed_seen(before: dict[str, int], after: dict[str, int]) -> Seen:
    fewer = [name for name, count in before.items() if after.get(name, 0) < count]
    text = f"{sum(before.values()):,} connections of {len(before)} ports"
    said = "; fewer: " + ", ".join(f"{n} {before[n]:,} -> {after.get(n, 0):,}" for n in fewer)
    return Seen(bool(before) and not fewer, text + (said if fewer else ""))


def unharmed_seen(flows: Sequence[FlowSeen]) -> Seen:
    return all_of(goes_on_seen(of(flows, protocol="tcp")), no_loss_seen(of(flows, protocol="udp")))


def is_of(flow: FlowSeen, word: str) -> bool:
    return word in flow.spec.name.split()

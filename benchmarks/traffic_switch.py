"""A model of the switch's on-demand rules: which there are, since when, and when each of them ages out.

It holds what the engine sends and nothing else. A rule with an idle timeout goes when no packet has used it for
so long, one with a hard timeout when it has been there for so long (OpenFlow 1.3.5, section 5.5), and the
switch tells. Open vSwitch looks at its rules' statistics about once a second; here a rule ages to the moment.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection
from typing import Final

from ondemand.messages import Effects, FlowRemoved
from ondemand.pipeline import ON_DEMAND, Pipeline
from rule_cache.rule import Rule, RuleKey

#: OFPRR_IDLE_TIMEOUT and OFPRR_HARD_TIMEOUT.
IDLE, HARD = 0, 1
#: Rules of these shapes mean that connections are judged again, or that a port is in quarantine: neither
#: has a place in this model.
_EPOCHS: Final = ("judged_", "not_judged_")
_QUARANTINE: Final = "quarantine"


class SwitchModelError(Exception):
    """What happened has no place in the model; the message says which parameter to change."""


class HeldRule:
    """A rule in the switch. ``used_s``: when a packet used it last, or when it came."""

    __slots__ = ("cookie", "rule", "since_s", "used_s")

    def __init__(self, cookie: int, rule: Rule, now_s: float) -> None:
        self.cookie = cookie
        self.rule = rule
        self.since_s = now_s
        self.used_s = now_s

    @property
    def ends_s(self) -> float:
        """When it goes, if no packet uses it before."""
        rule = self.rule
        if rule.hard_timeout:
            return self.since_s + rule.hard_timeout
        return self.used_s + rule.idle_timeout


class SwitchModel:
    """On-demand rules by match. Time never goes back."""

    def __init__(self, pipeline: Pipeline) -> None:
        #: By what the switch tells rules apart.
        self.rules: dict[RuleKey, HeldRule] = {}
        #: Rules that stay, by cookie.
        self.static: dict[int, Rule] = {}
        #: The most that there were at once.
        self.peak = 0
        #: Rules that went, by reason of flow-removed.
        self.removed: Counter[int] = Counter()
        #: From now on no epoch moves and no port goes.
        self.is_settled = False
        self._tables = frozenset(pipeline.number(table) for table in ON_DEMAND)
        self._keys: dict[int, RuleKey] = {}
        #: (when to look, turn, rule): each rule is in it once. A rule that is used meanwhile is put back.
        self._ends: list[tuple[float, int, HeldRule]] = []
        self._turn = 0
        #: Rule-seconds of rules that have gone, by table.
        self._alive_s: dict[int, float] = dict.fromkeys(self._tables, 0.0)

    def use(self, key: RuleKey, now_s: float) -> HeldRule | None:
        """A packet looks for the rule with this match."""
        held = self.rules.get(key)
        if held is not None:
            held.used_s = now_s
        return held

    def apply(self, effects: Effects, now_s: float) -> None:
        """Take what the engine sends.

        Raises:
            SwitchModelError: it is none of what traffic alone makes an engine send.
        """
        for cookie in (*effects.deletes, *effects.late_deletes):
            self._delete(cookie, now_s)
        for cookie, rule in (*effects.adds, *effects.after_barrier):
            name = rule.shape.name
            if name.startswith(_QUARANTINE):
                raise SwitchModelError(
                    "a port was put in quarantine, which this model lacks: lower scan_rate"
                )
            if self.is_settled and name.startswith(_EPOCHS):
                raise SwitchModelError(
                    "connections are to be judged again, which this model lacks: let neighbor records"
                    " stay in the cache (neighbor_idle_s = 0, a larger neighbor_cache_bytes)"
                )
            if rule.shape.table in self._tables and (rule.idle_timeout or rule.hard_timeout):
                self._add(cookie, rule, now_s)
            else:
                self.static[cookie] = rule
        self.peak = max(self.peak, len(self.rules))

    def age(self, now_s: float) -> list[FlowRemoved]:
        """Let rules go whose time is over at ``now_s``: what the switch tells of it."""
        told: list[FlowRemoved] = []
        ends = self._ends
        while ends and ends[0][0] <= now_s:
            _, _, held = heapq.heappop(ends)
            key = self._keys.get(held.cookie)
            if key is None:
                continue  # deleted or replaced meanwhile
            ends_s = held.ends_s
            if ends_s > now_s:
                self._look_at(ends_s, held)
                continue
            reason = HARD if held.rule.hard_timeout else IDLE
            self.removed[reason] += 1
            self._take_out(key, held, ends_s)
            told.append(FlowRemoved(held.cookie, held.rule.shape.table, reason))
        return told

    def alive_s(self, now_s: float, tables: Collection[int] | None = None) -> float:
        """Rule-seconds up to now, of some tables or of all."""
        wanted = self._tables if tables is None else tables
        total = sum(self._alive_s[table] for table in wanted)
        return total + sum(
            now_s - held.since_s for held in self.rules.values() if held.rule.shape.table in wanted
        )

    def _add(self, cookie: int, rule: Rule, now_s: float) -> None:
        key = rule.key
        old = self.rules.get(key)
        if old is not None:
            self._take_out(key, old, now_s)
        held = HeldRule(cookie, rule, now_s)
        self.rules[key] = held
        self._keys[cookie] = key
        self._look_at(held.ends_s, held)

    def _delete(self, cookie: int, now_s: float) -> None:
        self.static.pop(cookie, None)
        key = self._keys.get(cookie)
        if key is not None:
            self._take_out(key, self.rules[key], now_s)

    def _take_out(self, key: RuleKey, held: HeldRule, now_s: float) -> None:
        del self.rules[key], self._keys[held.cookie]
        self._alive_s[held.rule.shape.table] += now_s - held.since_s

    def _look_at(self, when_s: float, held: HeldRule) -> None:
        self._turn += 1
        heapq.heappush(self._ends, (when_s, self._turn, held))


__all__ = ["HARD", "IDLE", "HeldRule", "SwitchModel", "SwitchModelError"]

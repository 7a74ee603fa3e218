"""The fewest packet-ins that any cache of the same rules can have: what it would be to know the future.

The bound is for caches on demand: a rule comes when a packet needs it, never before, and whoever decides may only
let it go. (One that might also guess would have no packet-in at all and hardly a rule.) So each packet that needs
rules either finds all of them or is a packet-in that brings what is missing.

Let a packet need rules R at time t. It finds them if and only if each of them was kept since it was needed last,
at times t_r. Keeping them costs the sum of the gaps t - t_r, in rule-seconds, and no other packet shares in that:
a gap of a rule ends at one packet. So each packet has a price of its own for one packet-in saved, and packets are
independent of each other: within a budget of rule-seconds the most are saved by taking the cheapest first. A
packet one of whose rules was never needed before has no price; its packet-in is *compulsory*.

An online idle timeout T, where each packet needs one rule, saves the very packets with a gap below T, and pays T
rule-seconds more for each rule that ages out: it cannot know that nobody will come. That is the whole distance to
the optimum, in rules; the other way round, with as many rules the optimum keeps longer gaps.

The rules of a budget are a mean over time, not a bound at each moment.
"""

from __future__ import annotations

import bisect
import itertools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rule_cache.rule import RuleKey

#: Points of the frontier that are told.
POINTS: Final = 41


@dataclass(frozen=True, slots=True)
class Point:
    """The best with so many rules.

    ``longest_price_s``: of the packets that are saved, the price of the dearest.
    """

    longest_price_s: float
    rules: float
    packet_ins: int


class PriceList:
    """Collects what each packet would cost to save. Packets come in order of time."""

    def __init__(self) -> None:
        self.prices = array("d")
        self.compulsory = 0
        self._needed_s: dict[RuleKey, float] = {}

    def needs(self, now_s: float, keys: Sequence[RuleKey]) -> None:
        """A packet needs these rules, each of them once."""
        price, known = 0.0, True
        for key in keys:
            before_s = self._needed_s.get(key)
            if before_s is None:
                known = False
            else:
                price += now_s - before_s
            self._needed_s[key] = now_s
        if known:
            self.prices.append(price)
        else:
            self.compulsory += 1

    @property
    def rules(self) -> int:
        """Different ones that were needed."""
        return len(self._needed_s)


class Optimum:
    """What is best over a time of ``duration_s``."""

    def __init__(self, prices: Sequence[float], compulsory: int, duration_s: float) -> None:
        self._prices = sorted(prices)
        self._paid_s = [0.0, *itertools.accumulate(self._prices)]
        self._duration_s = duration_s
        self.compulsory = compulsory
        self.requests = compulsory + len(self._prices)

    def packet_ins(self, rules: float) -> int:
        """The fewest with so many rules on average."""
        budget_s = rules * self._duration_s
        # Sums of floats: a budget that is one of them must not fall short of it by their rounding.
        saved = bisect.bisect_right(self._paid_s, budget_s * (1 + 1e-9) + 1e-9) - 1
        return self.requests - saved

    def rules(self, packet_ins: int) -> float | None:
        """The fewest on average with so many packet-ins; None: so few cannot be."""
        if packet_ins < self.compulsory:
            return None
        return self._paid_s[max(0, self.requests - packet_ins)] / self._duration_s

    def frontier(self, points: int = POINTS) -> list[Point]:
        """From no rule kept to all, closer together where packet-ins are fewest."""
        count = len(self._prices)
        saves = sorted({round(count * (1 - (1 - n / (points - 1)) ** 3)) for n in range(points)})
        return [
            Point(
                longest_price_s=self._prices[saved - 1] if saved else 0.0,
                rules=self._paid_s[saved] / self._duration_s,
                packet_ins=self.requests - saved,
            )
            for saved in saves
        ]


__all__ = ["Optimum", "Point", "PriceList"]

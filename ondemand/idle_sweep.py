"""Neighbor records that nothing has used for a while leave the cache, and so does what is followed.

A record is used when a packet asks for it, and as long as a rule that rests on it is installed: such a
record stays, because its change has to reach the rule. The cache notes on each record when a packet
asked, by a clock that stands still between two ticks, so that the way of a packet pays for one write.

Every quarter of the idle time a pass looks at all records, some at each tick, and what it finds idle
leaves together: connections that rest on these records have to be judged again (``Rejudge.unwatched``),
and one move of an epoch does for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ondemand.part_slices import Held
from ondemand.slice_cache import SliceCache
from rule_cache.tags import Tag

#: Passes in one idle time. A record whose rule has gone since the last pass was used up to then, so a
#: record stays for this part longer.
PASSES: Final = 4
#: Records that are looked at in one step, up to the end of a shard: a fraction of a millisecond.
STEP_RECORDS: Final = 256
#: Records that leave in one step.
MAX_LEAVING: Final = 2_000
#: Seconds between two steps, and after one in which records left.
STEP_S: Final = 0.05
LEFT_S: Final = 1.0


class IdleSweep:
    """One per engine. ``is_in_use`` says whether an installed rule carries a tag."""

    def __init__(
        self, cache: SliceCache, is_in_use: Callable[[Tag], bool], *, idle_s: float
    ) -> None:
        """``idle_s``: seconds without use after which a record may leave; 0: it never does."""
        self._cache = cache
        self._is_in_use = is_in_use
        self._idle_s = idle_s
        #: What was used before this moment counts as used then: it is since when all rules are known.
        self._since_s: float | None = None
        self._next_s = 0.0
        self._next_pass_s = 0.0
        #: Shards that this pass has still to look at, and tags of records that it found idle.
        self._names: list[str] = []
        self._idle: list[Tag] = []

    def pause(self) -> None:
        """It is not known which rules there are: nothing leaves, and all idle times begin anew."""
        self._since_s = None
        self._names, self._idle = [], []

    def work(self, now_s: float) -> list[Held]:
        """Go on a little: the records that have just left the cache."""
        if not self._idle_s or now_s < self._next_s:
            return []
        if self._since_s is None:
            self._since_s = now_s
            self._next_pass_s = now_s + self._idle_s * (1 + 1 / PASSES)
        self._next_s = now_s + STEP_S
        if not self._names and not self._idle:
            if now_s < self._next_pass_s:
                self._next_s = min(self._next_pass_s, now_s + LEFT_S)
                return []
            self._next_pass_s = now_s + self._idle_s / PASSES
            self._names = self._cache.part_names()
        self._look(now_s)
        if self._names and len(self._idle) < MAX_LEAVING:
            return []
        leaving, self._idle = self._idle[:MAX_LEAVING], self._idle[MAX_LEAVING:]
        limit_s = self._limit_s(now_s)
        left = [
            held
            for tag in leaving
            if (held := self._cache.drop_record(tag, lambda one: self._is_idle(one, limit_s)))
        ]
        if left:
            self._next_s = now_s + LEFT_S
        return left

    def _look(self, now_s: float) -> None:
        limit_s = self._limit_s(now_s)
        looked = 0
        while self._names and looked < STEP_RECORDS:
            for held in self._cache.held_of(self._names.pop()):
                looked += 1
                if held.used_s <= limit_s:
                    if self._is_in_use(held.tag):
                        held.used_s = now_s
                    else:
                        self._idle.append(held.tag)

    def _limit_s(self, now_s: float) -> float:
        """What was used last at this moment or before is idle."""
        return now_s - self._idle_s * (1 + 1 / PASSES)

    def _is_idle(self, held: Held, limit_s: float) -> bool:
        """Whether a record that was found idle still is."""
        return held.used_s <= limit_s and not self._is_in_use(held.tag)


__all__ = ["IdleSweep"]

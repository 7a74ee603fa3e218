"""What all simulated hosts have: the slice cache, what was applied and when, and what was saved.

A host is an agent without switch and packets: what it gets it decodes, enters into the agent's slice
cache, and would judge its rules by.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from ondemand.applied import Applied
from ondemand.holdings import Holdings, Identity
from ondemand.records import Record, neighbor_key
from ondemand.slice_cache import SliceCache
from ondemand.slices import Delta, Lookup, Snapshot
from scale.region import VPC, Region, host_id, neighbor_ip, shard_slice

#: More than any simulated host comes to hold.
_CACHE_BYTES: Final = 1 << 32

#: Told (host, slice, version, changes, moment in monotonic seconds) of each event that was entered.
Told = Callable[[int, str, int, int, float], None]


class Host:
    """One per simulated host; its slices outlive ``stop`` and ``start`` as saved holdings."""

    def __init__(self, number: int, region: Region, told: Told, *, saving: bool) -> None:
        self.number = number
        self.region = region
        self._told = told
        self._saving = saving
        self.cache = self._new_cache()
        self.holdings: Holdings | None = None
        #: Events with a gap before them, which had to be healed, and attempts that failed.
        self.heals = 0
        self.retries = 0
        #: When all records were here, and when all slices were followed as well (monotonic seconds).
        self.served_s = 0.0
        self.follows_s = 0.0

    def _new_cache(self) -> SliceCache:
        return SliceCache(_CACHE_BYTES, saving=self._saving)

    def enter_event(self, event: Delta | Snapshot) -> Applied:
        applied = self.cache.apply(event)
        self._written()
        self._told(self.number, event.slice, event.version, len(applied.changes), time.monotonic())
        return applied

    def enter_lookup(self, lookup: Lookup) -> bool:
        """Whether its slice must be followed from now on."""
        _, is_fresh = self.cache.put(lookup)
        self._written()
        return is_fresh

    def _written(self) -> None:
        if not self._saving:
            return
        if self.holdings is None:
            self.holdings = Holdings(Identity(host_id(self.number), ""))
        self.holdings.apply(self.cache.take_writes())

    @property
    def serves(self) -> bool:
        """Whether all is here that the host's packets need."""
        cache = self.cache
        if any(cache.whole(name) is None for name in self.region.whole_slices(self.number)):
            return False
        return all(
            cache.neighbor(VPC, neighbor_ip(number)) is not None
            for numbers in self.region.held_neighbors(self.number).values()
            for number in numbers
        )

    def differences(self, truth: Mapping[str, Mapping[str, Record]]) -> list[str]:
        """What this host holds otherwise than the goal state has it, each in a few words."""
        found = [
            f"{host_id(self.number)}: {name}"
            for name in self.region.whole_slices(self.number)
            if self.cache.whole(name) != truth[name]
        ]
        for shard, numbers in self.region.held_neighbors(self.number).items():
            records = truth[shard_slice(shard)]
            for number in numbers:
                ip = neighbor_ip(number)
                held = self.cache.neighbor(VPC, ip)
                if held is None or held.record != records.get(neighbor_key(ip)):
                    found.append(f"{host_id(self.number)}: neighbor {number}")
        return found


__all__ = ["Host", "Told"]

"""Packets that wait for a record: bounded for each port and in all, each with a deadline."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ondemand.messages import PacketIn
from ondemand.verdict import Need


@dataclass(slots=True)
class _Parked:
    packet: PacketIn
    zone: int
    deadline_s: float


class WaitingRoom:
    """Who waits for what. One request to the source serves all packets that need the record."""

    def __init__(self, *, max_parked: int, max_per_port: int, park_s: float) -> None:
        self._max = max_parked
        self._max_per_port = max_per_port
        self._park_s = park_s
        self._by_need: dict[Need, list[_Parked]] = {}
        #: When the source was asked last, for each need that somebody waits for.
        self._asked_s: dict[Need, float] = {}
        self._per_zone: Counter[int] = Counter()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def waits_for(self, need: Need) -> bool:
        """Whether a packet waits for this record."""
        return need in self._by_need

    def first_zone(self, need: Need) -> int:
        """The zone of the port whose packet waits for this record longest; 0: none does."""
        parked = self._by_need.get(need)
        return parked[0].zone if parked else 0

    def must_ask(self, need: Need, now_s: float) -> bool:
        """Whether the source is to be asked for a record now; if so, that counts as done.

        Once for all that wait for it, but again when no answer came in the time that a packet waits:
        a source that was away has forgotten the question.
        """
        asked_s = self._asked_s.get(need)
        if asked_s is not None and now_s - asked_s < self._park_s:
            return False
        self._asked_s[need] = now_s
        return True

    def ask_again(self, now_s: float) -> list[Need]:
        """All that somebody waits for, to be asked for now: the source is back."""
        self._asked_s = dict.fromkeys(self._asked_s, now_s)
        return list(self._asked_s)

    def park(self, need: Need, packet: PacketIn, zone: int, now_s: float) -> bool:
        """Let a packet wait; False when there is no room for it."""
        if self._count >= self._max or self._per_zone[zone] >= self._max_per_port:
            return False
        self._by_need.setdefault(need, []).append(_Parked(packet, zone, now_s + self._park_s))
        self._per_zone[zone] += 1
        self._count += 1
        return True

    def release(self, need: Need) -> list[PacketIn]:
        """The packets that waited for this record, in the order they came."""
        parked = self._by_need.pop(need, [])
        self._asked_s.pop(need, None)
        self._leave(parked)
        return [item.packet for item in parked]

    def expire(self, now_s: float) -> dict[Need, list[int]]:
        """Drop the packets whose deadline has passed: zones of their ports, by what they needed."""
        expired: dict[Need, list[int]] = {}
        for need, parked in list(self._by_need.items()):
            late = [item for item in parked if item.deadline_s <= now_s]
            if late:
                expired[need] = [item.zone for item in late]
                self._leave(late)
                self._keep(need, [item for item in parked if item.deadline_s > now_s])
        return expired

    def drop_zone(self, zone: int) -> int:
        """Drop what a port has waiting, because it is gone; how many packets that were."""
        dropped = 0
        for need, parked in list(self._by_need.items()):
            gone = [item for item in parked if item.zone == zone]
            dropped += len(gone)
            self._leave(gone)
            self._keep(need, [item for item in parked if item.zone != zone])
        return dropped

    def _keep(self, need: Need, parked: list[_Parked]) -> None:
        if parked:
            self._by_need[need] = parked
        else:
            del self._by_need[need]
            self._asked_s.pop(need, None)

    def _leave(self, parked: list[_Parked]) -> None:
        self._count -= len(parked)
        for item in parked:
            self._per_zone[item.zone] -= 1
            if not self._per_zone[item.zone]:
                del self._per_zone[item.zone]

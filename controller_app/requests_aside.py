"""Requests for slices that cannot be read while others can, and when each slice is tried again.

Pure: ``now_s`` is monotonic seconds, and nothing here asks a source.
"""

from __future__ import annotations

from typing import Final

from ondemand.messages import Fetch, Follow, Heal, SourceRequest

#: Seconds until a slice is tried again: the first pause, which doubles, and the longest.
FIRST_S: Final = 2.0
LONGEST_S: Final = 10.0
#: Seconds between two tries, of whatever slices, so that many of them do not take up the source.
GAP_S: Final = 0.1
#: Records asked for in all: as many as packets may wait by default. Beyond that the one that was asked
#: for longest ago goes; while a packet waits for it, the engine asks again.
MAX_FETCHES: Final = 4096

_NEVER_S: Final = float("inf")


class _Waiting:
    """What waits for one slice, in order, the first to be tried next."""

    __slots__ = ("due_s", "pause_s", "requests")

    def __init__(self, due_s: float, pause_s: float) -> None:
        self.requests: dict[SourceRequest, None] = {}
        self.due_s = due_s
        self.pause_s = pause_s


class RequestsAside:
    """A queue for each slice that was refused. A queue is never empty: its slice leaves with it."""

    def __init__(
        self,
        *,
        first_s: float = FIRST_S,
        longest_s: float = LONGEST_S,
        gap_s: float = GAP_S,
        max_fetches: int = MAX_FETCHES,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._gap_s = gap_s
        self._max_fetches = max_fetches
        self._slices: dict[str, _Waiting] = {}
        #: Those of all slices, the one asked for longest ago first.
        self._fetches: dict[Fetch, None] = {}
        #: Before this time no slice is to be tried.
        self._next_s = _NEVER_S

    def __contains__(self, name: object) -> bool:
        return name in self._slices

    def __len__(self) -> int:
        return sum(len(waiting.requests) for waiting in self._slices.values())

    def goes_behind(self, request: SourceRequest) -> bool:
        """Whether a request has to wait for others of its slice.

        To follow from a known version reads nothing, so that goes on at once, lest changes be missed
        for as long as a record cannot be read.
        """
        waiting = self._slices.get(request.slice)
        if waiting is None:
            return False
        if isinstance(request, Follow) and request.since is not None:
            return any(isinstance(one, Follow) for one in waiting.requests)
        return True

    def put(self, request: SourceRequest, now_s: float) -> list[str]:
        """Add a request behind those of its slice, unless it is there.

        Returns:
            Slices for which nothing waits any more, because their requests had to make room.
        """
        waiting = self._slices.get(request.slice)
        if waiting is None:
            waiting = _Waiting(now_s + self._first_s, self._first_s)
            self._slices[request.slice] = waiting
            self._next_s = min(self._next_s, waiting.due_s)
        if isinstance(request, Heal) and not _is_oldest(waiting, request):
            return []
        waiting.requests.setdefault(request)
        if not isinstance(request, Fetch):
            return []
        self._fetches.pop(request, None)
        self._fetches[request] = None
        if len(self._fetches) <= self._max_fetches:
            return []
        oldest = next(iter(self._fetches))
        self._remove(oldest)
        return [] if oldest.slice in self._slices else [oldest.slice]

    def due(self, now_s: float) -> str | None:
        """The slice to be tried now, None when none is; ``first`` says with what."""
        if now_s < self._next_s or not self._slices:
            return None
        name = min(self._slices, key=lambda one: self._slices[one].due_s)
        self._next_s = self._slices[name].due_s
        return name if self._next_s <= now_s else None

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until ``due`` is to be asked again; None: nothing waits."""
        return max(0.0, self._next_s - now_s) if self._slices else None

    def first(self, name: str) -> SourceRequest:
        """The first request for a slice that is aside."""
        return next(iter(self._slices[name].requests))

    def refused(self, name: str, now_s: float) -> None:
        """A slice that is aside was tried in vain."""
        waiting = self._slices[name]
        waiting.pause_s = min(2 * waiting.pause_s, self._longest_s)
        waiting.due_s = now_s + waiting.pause_s
        self._next_s = now_s + self._gap_s

    def answered(self, name: str, now_s: float) -> None:
        """The first request for a slice was answered; what waits behind it is due at once."""
        waiting = self._slices[name]
        waiting.pause_s = self._first_s
        waiting.due_s = self._next_s = now_s
        self._remove(next(iter(waiting.requests)))

    def drop(self, name: str) -> None:
        """Nothing of a slice is wanted any more."""
        waiting = self._slices.pop(name, None)
        for request in waiting.requests if waiting is not None else ():
            if isinstance(request, Fetch):
                del self._fetches[request]

    def _remove(self, request: SourceRequest) -> None:
        requests = self._slices[request.slice].requests
        del requests[request]
        if isinstance(request, Fetch):
            del self._fetches[request]
        if not requests:
            del self._slices[request.slice]


def _is_oldest(waiting: _Waiting, request: Heal) -> bool:
    """Whether no other request brings what this one would; one that would bring less is taken out."""
    for other in waiting.requests:
        if isinstance(other, Heal):
            if other.since <= request.since:
                return False
            del waiting.requests[other]
            break
    return True


__all__ = ["FIRST_S", "GAP_S", "LONGEST_S", "MAX_FETCHES", "RequestsAside"]

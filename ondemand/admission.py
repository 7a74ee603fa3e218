"""Admission: how many packet-ins of one port the agent handles, a second line behind the meter."""

from __future__ import annotations


class TokenBucket:
    """``rate`` tokens a second, at most ``burst`` of them saved up."""

    __slots__ = ("_burst", "_filled_s", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._filled_s = now_s

    def take(self, now_s: float, cost: float = 1.0) -> bool:
        """Take ``cost`` tokens; False, and none is taken, when there are not so many."""
        if self._tokens >= cost:
            # Refilling only when needed keeps the common case to a comparison and a subtraction.
            self._tokens -= cost
            return True
        tokens = self._tokens + (now_s - self._filled_s) * self._rate
        self._filled_s = now_s
        self._tokens = min(tokens, self._burst)
        if self._tokens >= cost:
            self._tokens -= cost
            return True
        return False

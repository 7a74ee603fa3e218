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

    def take(self, now_s: float) -> bool:
        """Take one token; False when there is none."""
        if self._tokens >= 1.0:
            # Refilling only when empty keeps the common case to a comparison and a subtraction.
            self._tokens -= 1.0
            return True
        tokens = self._tokens + (now_s - self._filled_s) * self._rate
        self._filled_s = now_s
        self._tokens = min(tokens, self._burst)
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return True
        return False

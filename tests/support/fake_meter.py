"""A meter as a token bucket, by packets."""

from __future__ import annotations


class FakeMeter:
    """``rate`` packets a second pass, ``burst`` at once. It begins full."""

    def __init__(self, rate: int, burst: int, now_s: float) -> None:
        self.rate = rate
        self.burst = burst
        self.seen = 0
        self.exceeded = 0
        self._tokens = float(burst)
        self._at_s = now_s

    def count(self, now_s: float) -> bool:
        """One packet comes: does it pass?"""
        self.seen += 1
        self._tokens = min(self.burst, self._tokens + (now_s - self._at_s) * self.rate)
        self._at_s = now_s
        if self._tokens < 1:
            self.exceeded += 1
            return False
        self._tokens -= 1
        return True

"""Warnings that repeat: each sentence a few times a minute, then only how often it was left out.

What a VM sends can cause warnings, so their number is bounded whatever happens: per sentence, and in
how many different sentences are kept apart.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

#: Lines per minute of one sentence.
PER_MINUTE: Final = 5
#: Different sentences per minute; what comes beyond them is only counted.
SENTENCES: Final = 200

_MINUTE_S: Final = 60.0


class _Minute:
    """What happened to one sentence in the minute that began at ``began_s``."""

    __slots__ = ("began_s", "said", "suppressed")

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.said = 0
        self.suppressed = 0


class RepeatLimit:
    """Says which lines to write. ``now_s`` is monotonic seconds and never goes back."""

    def __init__(self, *, per_minute: int = PER_MINUTE, sentences: int = SENTENCES) -> None:
        self._per_minute = per_minute
        self._most = sentences
        # In order of their beginning, so that those at their end stand in front.
        self._minutes: dict[str, _Minute] = {}
        self._others = _Minute(0.0)

    def lines(self, sentence: str, now_s: float) -> list[str]:
        """The lines to write when ``sentence`` comes up; first those about minutes at their end."""
        lines = self.ended(now_s)
        minute = self._minutes.get(sentence)
        if minute is None:
            if len(self._minutes) >= self._most:
                if not self._others.suppressed:
                    self._others.began_s = now_s
                self._others.suppressed += 1
                return lines
            minute = self._minutes[sentence] = _Minute(now_s)
        if minute.said < self._per_minute:
            minute.said += 1
            lines.append(sentence)
        else:
            minute.suppressed += 1
        return lines

    def ended(self, now_s: float) -> list[str]:
        """How often sentences were left out whose minute is over."""
        lines = []
        while self._minutes:
            sentence, minute = next(iter(self._minutes.items()))
            if now_s - minute.began_s < _MINUTE_S:
                break
            del self._minutes[sentence]
            if minute.suppressed:
                lines.append(f"suppressed {minute.suppressed} more of: {sentence}")
        if self._others.suppressed and now_s - self._others.began_s >= _MINUTE_S:
            lines.append(f"suppressed {self._others.suppressed} more warnings of other kinds")
            self._others.suppressed = 0
        return lines

    def rest(self) -> list[str]:
        """What ``ended`` would say at the end of all time; nothing is counted any more after it."""
        return self.ended(float("inf"))


class Warner:
    """Call it with a sentence to log it as a warning, within a RepeatLimit. Thread-safe."""

    def __init__(
        self,
        logger: logging.Logger,
        limit: RepeatLimit | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._limit = limit or RepeatLimit()
        self._clock = clock
        self._lock = threading.Lock()

    def __call__(self, sentence: str) -> None:
        with self._lock:
            self._write(self._limit.lines(sentence, self._clock()))

    def flush(self) -> None:
        """Tell what was left out in minutes that are over; call it now and then."""
        with self._lock:
            self._write(self._limit.ended(self._clock()))

    def close(self) -> None:
        """Tell all that was left out."""
        with self._lock:
            self._write(self._limit.rest())

    def _write(self, lines: list[str]) -> None:
        for line in lines:
            self._logger.warning("%s", line)

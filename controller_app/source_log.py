"""What the log says of the slice source: when it, or one slice, cannot be read, why, and when it can."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from controller_app.log_limit import RepeatLimit

LOG: Final = logging.getLogger(__name__)


class SourceLog:
    """One warning for each reason, and a line when the source is back.

    Reasons come from two sides, the watch and whoever asks for records, so one may come twice.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._error: str | None = None
        #: A source that comes and goes all the time must not fill the log.
        self._limit = RepeatLimit()

    def tell(self, error: str | None, now_s: float) -> None:
        """``error``: why the source cannot answer, with place and mend; None: it does."""
        before, self._error = self._error, error
        if error == before:
            return
        if error is not None:
            self._warn(
                f"{error}; until the source answers, what is held goes on to count, and new flows to"
                " what is not held are dropped"
            )
            return
        for line in self._limit.lines("the slice source answers again", now_s):
            LOG.info("%s", line)


class SliceLog:
    """One warning for each slice that cannot be read and each reason, and a line when it can again."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._errors: dict[str, str] = {}
        self._limit = RepeatLimit()

    def refused(self, name: str, error: str) -> None:
        """``error``: why slice ``name`` cannot be read while others can, with place and mend."""
        if self._errors.get(name) == error:
            return
        self._errors[name] = error
        self._warn(
            f"{error}; until slice {name!r} can be read, what is held of it goes on to count, and new"
            " flows to what is not held are dropped"
        )

    def answered(self, name: str, now_s: float) -> None:
        if self._errors.pop(name, None) is None:
            return
        for line in self._limit.lines(f"slice {name!r} can be read again", now_s):
            LOG.info("%s", line)

    def forget(self, name: str) -> None:
        """Nobody wants the slice any more, so nobody will know whether it can be read."""
        self._errors.pop(name, None)


__all__ = ["SliceLog", "SourceLog"]

"""What the log says of the slice source: when it is lost, why, and when it is back."""

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


__all__ = ["SourceLog"]

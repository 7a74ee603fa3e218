"""What the log says of the ports that are served: each one when it becomes active."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

LOG: Final = logging.getLogger(__name__)

#: Lines per minute with one port each; what comes beyond them is summed up.
PER_MINUTE: Final = 20
_MINUTE_S: Final = 60.0


class ServedLog:
    """Call ``tell`` a few times a second with the ids of all ports that are served."""

    def __init__(self, *, per_minute: int = PER_MINUTE) -> None:
        self._most = per_minute
        self._known: frozenset[str] = frozenset()
        self._began_s = 0.0
        self._said = 0

    def tell(self, served: Iterable[str], now_s: float) -> None:
        """``now_s`` is monotonic seconds. A port that went and came is told again."""
        before, self._known = self._known, frozenset(served)
        new = sorted(self._known - before)
        if not new:
            return
        if now_s - self._began_s >= _MINUTE_S:
            self._began_s, self._said = now_s, 0
        single = new[: self._most - self._said]
        self._said += len(single)
        for port in single:
            LOG.info("port %s is served", port)
        more = len(new) - len(single)
        if more:
            ports = "port is" if more == 1 else "ports are"
            LOG.info("%d more %s served, %d in all", more, ports, len(self._known))


__all__ = ["PER_MINUTE", "ServedLog"]

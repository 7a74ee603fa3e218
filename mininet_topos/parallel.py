"""The same work on several things, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from mininet_topos.signals import deferred_signals

_WORKERS: Final = 4

_T = TypeVar("_T")
_R = TypeVar("_R")


def side_by_side(
    work: Callable[[_T], _R], items: Iterable[_T], *, workers: int = _WORKERS
) -> list[_R]:
    """Do ``work`` for each item, ``workers`` at a time; returns the results in order.

    The first failure is raised when all that began has ended; what did not begin never will.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        # A signal inside submit could leave a thread that the pool does not know of.
        with deferred_signals():
            futures = [pool.submit(work, item) for item in items]
        return [future.result() for future in futures]
    finally:
        with deferred_signals():
            pool.shutdown(cancel_futures=True)

"""What pytest must know before it imports any test or its support, and how tests share the machine.

`make test` runs two workers (pytest-xdist). All tests that need a lab are one piece of work, so one
worker has them, one after another, and no two labs run at once. The other worker has what needs no lab
meanwhile, and yields to it: a system test sees how long traffic stands still. While a test with the mark
``alone`` runs, the other worker waits.

Groups are told by the paths of tests and not by the mark ``xdist_group``: pytest-xdist 3.8 writes the
mark's group to an attribute that pytest 9.2 does not read any more, and so leaves it out.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Its assertions are the checks of the scenarios, and show their operands like those of a test.
pytest.register_assert_rewrite("tests.support.truth_check")

#: Niceness (sched(7)) of tests that need no lab, while a lab may run in the other worker.
_YIELDING = 10

#: Tests of one worker, by the beginning of their ids; the first that fits counts.
_GROUPS = {
    # Mostly waits, and each test has a small switch of its own: it need not queue up with the labs.
    "tests/system/test_ovsdb.py": "ovsdb",
    "tests/system/": "labs",
}

# Files to lock that every worker has and that nobody need remove.
_GATE = Path(__file__)
_PLACE = _GATE.with_name("__init__.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out groups, the largest first, then single tests to whoever has time."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            groups = (group for start, group in _GROUPS.items() if nodeid.startswith(start))
            return next(groups, nodeid)

    return Groups(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Around all hooks of others, so that waiting for a turn is no part of a test's time."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    _set_niceness(0 if item.get_closest_marker("system") else _YIELDING)
    with _turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def _turn(*, alone: bool) -> Iterator[None]:
    """Wait until nobody is alone, or, to be it, until nobody else runs."""
    with _GATE.open() as gate, _PLACE.open() as place:
        # Who waits to be alone holds the gate, so that others do not begin before it.
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(place, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(place, fcntl.LOCK_UN)


def _set_niceness(niceness: int) -> None:
    """What threads and processes begin with, too, that the test starts."""
    if os.getpriority(os.PRIO_PROCESS, 0) != niceness:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, niceness)
        except PermissionError:
            return  # Only root may raise it again, and only root has labs.

"""System tests: real Open vSwitch in network namespaces.

They are skipped, with the reason, where a lab cannot be built. With ONDEMAND_REQUIRE_SYSTEM=1 that
is a failure instead, so that a machine which is meant to run them cannot pass by skipping them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mininet_topos.fabric import Fabric
from mininet_topos.requirements import missing_requirements
from mininet_topos.sweep import sweep

_HERE = Path(__file__).parent

MakeFabric = Callable[..., Fabric]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="session")
def lab_machine() -> None:
    """A machine on which a lab can be built, free of what killed runs left."""
    missing = missing_requirements()
    if missing and os.environ.get("ONDEMAND_REQUIRE_SYSTEM") == "1":
        pytest.fail("system tests are required but cannot run: " + "; ".join(missing))
    if missing:
        pytest.skip("; ".join(missing))
    sweep()


@pytest.fixture
def make_fabric(lab_machine: None) -> Iterator[MakeFabric]:
    """Build fabrics (arguments as for ``Fabric``) that are gone after the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> Fabric:
            return stack.enter_context(Fabric(**options))

        yield make

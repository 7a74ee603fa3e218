"""What all scenarios share: a lab that is checked when the test is over, for IPv4 and for IPv6."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.lab import Lab, MakeLab
from tests.support.world_builder import CloudBuilder


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def make_lab() -> Iterator[MakeLab]:
    """Makes labs; after the test each is checked: every installed rule is true."""
    labs: list[Lab] = []

    def make(cloud: CloudBuilder, **arguments: Any) -> Lab:
        lab = Lab(cloud, **arguments)
        labs.append(lab)
        return lab

    yield make
    for lab in labs:
        lab.check()

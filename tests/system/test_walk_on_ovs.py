"""The random walk, with a real Open vSwitch in the place of the fake switch.

The same steps and the same assertions as in tests/scenario/test_random_walk.py. Ports are real, and so are
the tunnel, connection tracking, timeouts (on a clock that the walk moves) and restarts of ovs-vswitchd;
an agent that starts reads back what the switch holds. After each step the rules that the switch reports
are compared with what a decision from nothing gives.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from mininet_topos.lab_run import LabRun
from ondemand.settings import Settings
from tests.scenario.test_random_walk import FloodWalk, TightWalk, Walk
from tests.support.lab import Lab
from tests.support.real_host import RealHost
from tests.support.real_switch import RealSwitch
from tests.support.walk_cloud import walk_cloud
from tests.support.world_builder import HERE, THERE, TUNNELS

# HYPOTHESIS_PROFILE=explore takes other ways in each run, more of them, and looks for the shortest one
# that fails.
_is_exploring = os.environ.get("HYPOTHESIS_PROFILE") == "explore"


@pytest.fixture(scope="module")
def switch(lab_machine: None) -> Iterator[RealSwitch]:
    with LabRun() as run:
        switch = RealSwitch(run, f"{TUNNELS[HERE]}/24", [TUNNELS[THERE]])
        try:
            yield switch
        finally:
            switch.close()


@pytest.mark.parametrize(("walk", "examples"), [(Walk, 6), (TightWalk, 3), (FloodWalk, 3)])
def test_any_state_to_any_state_on_ovs(switch: RealSwitch, walk: type[Walk], examples: int) -> None:
    class WalkOnOvs(walk):
        def make_lab(self, limits: Settings) -> Lab:
            return Lab(walk_cloud(), settings=limits, make_host=partial(RealHost, real=switch))

    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    run_state_machine_as_test(
        WalkOnOvs,
        settings=settings(
            max_examples=examples * (10 if _is_exploring else 1),
            stateful_step_count=25,
            deadline=None,
            derandomize=not _is_exploring,
            phases=(*phases, Phase.shrink) if _is_exploring else phases,
            suppress_health_check=list(HealthCheck),
        ),
    )

"""Small rules and switches for tests of the fake switch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ondemand.messages import Effects
from ondemand.pipeline import Pipeline
from rule_cache.fields import CtState, Field
from rule_cache.rule import (
    Action,
    Arg,
    Eq,
    Rule,
    Shape,
)
from tests.support.fake_switch import (
    Delivered,
    FakeSwitch,
    Outcome,
)
from tests.support.two_ports import (
    PORT_A,
    PORT_B,
    TUNNEL_PORT,
    all_rules,
    install,
)

PIPELINE = Pipeline()
IPV4 = Eq(Field.ETH_TYPE, 0x0800)
ZONE = Arg("zone")
NEW, EST, REL, RPL, INV, TRK = (
    CtState.NEW,
    CtState.EST,
    CtState.REL,
    CtState.RPL,
    CtState.INV,
    CtState.TRK,
)


def rule(
    *actions: Action, match: tuple[Eq, ...] = (), table: int = 0, priority: int = 10, idle: int = 0
) -> Rule:
    return Rule(Shape("sample", table, priority, match, actions), (), idle)


def switch_with(*rules: Rule, **options: Any) -> FakeSwitch:
    switch = FakeSwitch([1, 2, 3], **options)
    assert switch.apply(Effects(adds=list(enumerate(rules, 1)))).refused == ()
    return switch


def two_port_switch() -> FakeSwitch:
    switch = FakeSwitch([PORT_A, PORT_B], tunnel_ports={4: TUNNEL_PORT})
    assert switch.apply(install(all_rules(PIPELINE))).refused == ()
    return switch


def deliveries(outcomes: Sequence[Outcome]) -> list[tuple[int, bytes]]:
    delivered = [outcome for outcome in outcomes if isinstance(outcome, Delivered)]
    assert len(delivered) == len(outcomes), outcomes
    return [(outcome.ofport, outcome.frame) for outcome in delivered]

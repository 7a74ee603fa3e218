"""Rules leave when traffic ends, deny rules in any case, and the ledger follows the switch."""

from __future__ import annotations

import pytest

from ondemand.messages import FlowRemoved
from ondemand.settings import Settings
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import NOBODY, office
from tests.support.world_builder import HERE, THERE

QUICK = Settings(verdict_idle_s=10, location_idle_s=20, responder_idle_s=30, deny_s=5)


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), hosts=(HERE, THERE), settings=QUICK)


def test_before_traffic_there_are_no_on_demand_rules(lab: Lab) -> None:
    assert lab.here.rules() == []
    assert lab.here.engine.ledger_size == 0


def test_rules_idle_out_one_kind_after_the_other(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.who_has("a", "c"), vm.tcp("a", "c"))
    assert len(lab.here.rules()) == 3
    lab.advance(11)
    assert lab.here.rules("verdict", "_allow") == []
    assert len(lab.here.rules()) == 2
    lab.advance(10)
    assert lab.here.rules("location") == []
    lab.advance(10)
    assert lab.here.rules() == []
    assert lab.here.engine.ledger_size == 0
    assert lab.here.count("rule_removed.idle") == 3


def test_traffic_keeps_its_rules(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    rules = lab.here.rules()
    for number in range(5):
        lab.advance(9)
        assert lab.send("a", vm.udp("a", "c", tp_src=1000 + number)).packet_ins == 0
    assert lab.here.rules() == rules


def test_after_a_rule_has_gone_the_flow_is_decided_anew(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    lab.advance(61)
    assert lab.here.rules() == []
    sent = lab.send("a", vm.udp("a", "c"))
    assert sent.reached == ["c"]
    assert sent.packet_ins > 0


@pytest.mark.parametrize("kind", ["verdict", "location", "question"])
def test_a_deny_rule_goes_after_its_time_though_traffic_goes_on(
    lab: Lab, family: int, kind: str
) -> None:
    vm = lab.frames(family)
    frame = {
        "verdict": vm.tcp("a", "b", 22),
        "location": vm.tcp("a", "b", dst=NOBODY[family]),
        "question": vm.who_has("a", "d"),
    }[kind]
    packet_ins = []
    for _ in range(10):
        packet_ins.append(lab.send("a", frame).packet_ins)
        lab.advance(1)
    assert sum(packet_ins) == 2
    assert lab.here.count("rule_removed.hard") >= 1


def test_a_rule_that_the_switch_lost_unnoticed_is_sent_again(lab: Lab, family: int) -> None:
    """Its flow-removed message is on its way, or lost: the packets are what counts."""
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    host = lab.here
    cookies = [entry.cookie for entry in host.engine.installer.ledger]
    for cookie in cookies:
        host.switch._delete(cookie)
    lab.advance(2)
    assert lab.send("a", vm.udp("a", "c", tp_src=7)).reached == ["c"]
    assert len(host.rules()) == len(cookies)


def test_a_packet_that_was_on_its_way_sends_no_rule_twice(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    host = lab.here
    lab.send("a", vm.who_has("a", "c"))  # so that the record is here
    host.begin_batch()
    lab.send("a", *[vm.udp("a", "c") for _ in range(5)])
    effects = host.engine.take()
    assert len(effects.adds) == len({cookie for cookie, _ in effects.adds}) == 2
    assert len(effects.packet_outs) == 5
    host.switch.apply(effects, lab.now_s)
    host.end_batch()


def test_evictions_by_the_switch_are_counted(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    for entry, reason in zip(list(lab.here.engine.installer.ledger), (5, 77), strict=True):
        table = entry.rule.shape.table
        lab.here.switch._delete(entry.cookie)
        lab.here.engine.flow_removed(FlowRemoved(entry.cookie, table, reason))
    assert lab.here.count("rule_removed.eviction") == 1
    assert lab.here.count("rule_removed.other") == 1
    assert lab.here.engine.ledger_size == 0

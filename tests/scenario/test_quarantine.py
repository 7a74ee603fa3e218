"""A port that floods gets no new flows for a while; its connections go on, and no other port notices."""

from __future__ import annotations

import pytest

from ondemand.quarantine import FORGIVEN_S
from ondemand.settings import Settings
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import office
from tests.support.packet_parts import ACK
from tests.support.world_builder import HERE, THERE

SETTINGS = Settings(flood_rate=10, flood_burst=40, quarantine_max_s=4)


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), hosts=(HERE, THERE), settings=SETTINGS)


def scan(lab: Lab, family: int, count: int, first: int = 0) -> int:
    """``a`` sends to addresses that nobody has; how many packet-ins that made."""
    vm = lab.frames(family)
    before = lab.here.count("packet_in", "a")
    for number in range(first, first + count):
        if family == 4:
            changes = {"dst": f"10.0.1.{100 + number}"}
        else:
            changes = {"dst": f"fd00:1::{0x1000 + number:x}"}
        lab.send("a", vm.udp("a", "b", **changes))
    return lab.here.count("packet_in", "a") - before


def test_a_scan_of_addresses_ends_in_few_rules(lab: Lab, family: int) -> None:
    assert scan(lab, family, 30) == 11
    assert lab.here.count("quarantined", "a") == 1
    vm = lab.frames(family)
    sent = lab.send("a", vm.udp("a", "c", 9999))
    assert sent.packet_ins == 0
    assert sent.dropped_by == ["quarantine_new"]
    assert lab.send("a", vm.who_has("a", "a2")).reached == []


def test_its_connections_go_on(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "c"))
    lab.send("c", vm.tcp_reply("c", "a"))
    scan(lab, family, 30)
    assert lab.send("a", vm.tcp("a", "c", flags=ACK)).reached == ["c"]
    assert lab.send("c", vm.tcp_reply("c", "a", flags=ACK)).reached == ["a"]


def test_others_reach_it_and_each_other(lab: Lab, family: int) -> None:
    scan(lab, family, 30)
    vm = lab.frames(family)
    assert lab.send("a2", vm.udp("a2", "b")).reached == ["b"]
    assert lab.send("x", vm.tcp("x", "b", 80)).reached == ["b"]


def test_it_ends_and_the_next_one_is_longer(lab: Lab, family: int) -> None:
    scan(lab, family, 30)
    lab.advance(1.05)
    vm = lab.frames(family)
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]
    # On probation, a few packets are enough.
    assert scan(lab, family, 30, first=30) <= 1
    assert lab.here.count("quarantined", "a") == 2
    lab.advance(1.05)
    assert lab.send("a", vm.tcp("a", "c", 81)).reached == []
    lab.advance(1)
    assert lab.send("a", vm.tcp("a", "c", 81)).reached == ["c"]


def test_after_a_good_while_it_is_a_short_one_again(lab: Lab, family: int) -> None:
    for _ in range(4):
        scan(lab, family, 30)
        lab.advance(4.05)
    lab.advance(FORGIVEN_S)
    scan(lab, family, 30)
    lab.advance(1.05)
    assert lab.send("a", lab.frames(family).udp("a", "c")).reached == ["c"]


def test_many_good_connections_are_no_flood(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    for number in range(36):
        assert lab.send("a", vm.tcp("a", "c", 1000 + number)).packet_ins >= 1
    assert lab.here.count("quarantined") == 0


def test_who_is_scanned_is_not_to_blame(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    for number in range(60):
        lab.send("x", vm.tcp("x", "b", 3000 + number))
    assert lab.here.count("denied.no_rule", "b") > 30
    assert lab.here.count("quarantined") == 0
    assert lab.hosts[THERE].count("quarantined", "x") == 1, "there are too many of them"


def test_the_rules_end_without_an_agent(lab: Lab, family: int) -> None:
    scan(lab, family, 30)
    lab.here.kill_agent()
    lab.advance(1.05)
    assert not [line for line in lab.here.switch.dump() if "hard_timeout=1," in line]
    lab.here.start_agent()


def test_it_may_be_off(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), settings=Settings(flood_rate=1, flood_burst=1, quarantine_max_s=0))
    assert scan(lab, family, 30) == 30
    assert lab.here.count("quarantined") == 0


def test_a_port_that_leaves_in_quarantine_comes_back_free(lab: Lab, family: int) -> None:
    scan(lab, family, 30)
    lab.here.unplug("a")
    lab.here.plug("a")
    assert lab.send("a", lab.frames(family).udp("a", "c")).reached == ["c"]

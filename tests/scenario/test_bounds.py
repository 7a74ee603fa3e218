"""Everything is bounded, each bound has a counter, and a flood costs its sender alone."""

from __future__ import annotations

import pytest

from ondemand.settings import Settings
from rule_cache.ledger import Entry
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import add_port, office
from tests.support.world_builder import HERE, THERE


def test_a_flood_evicts_the_oldest_rules_of_its_own_port_only(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office(), settings=Settings(max_rules_per_port=20))
    vm = lab.frames(family)
    lab.send("a2", vm.udp("a2", "b"), vm.tcp("a2", "d"))
    others = {entry.cookie for entry in owned(lab, "a2")}
    assert others
    for port in range(1000, 1050):
        lab.send("a", vm.tcp("a", "c", port))
    assert len(owned(lab, "a")) == 20
    assert {entry.cookie for entry in owned(lab, "a2")} == others
    assert lab.here.engine.evicted_by_port()["a"] > 0
    newest = vm.tcp("a", "c", 1049, tp_src=7)
    assert lab.send("a", newest).packet_ins == 0
    assert lab.send("a", vm.tcp("a", "c", 1000, tp_src=7)).packet_ins == 1


def owned(lab: Lab, port: str) -> list[Entry]:
    zone = lab.here.zone(port)
    return [entry for entry in lab.here.engine.installer.ledger if entry.owner == zone]


def test_what_a_sender_makes_at_a_target_is_on_the_sender_s_account(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office(), settings=Settings(max_rules_per_port=30))
    vm = lab.frames(family)
    lab.send("a2", vm.udp("a2", "b"))
    for port in range(1000, 1050):
        lab.send("a", vm.tcp("a", "b", port))
    assert owned(lab, "b") == []
    assert lab.send("a2", vm.udp("a2", "b", tp_src=7)).packet_ins == 0


def test_the_bound_of_all_takes_from_whom_holds_most(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), settings=Settings(max_rules=100, max_rules_per_port=100))
    vm = lab.frames(family)
    lab.send("a2", vm.udp("a2", "b"))
    before = len(owned(lab, "a2"))
    for port in range(1000, 1150):
        lab.send("a", vm.tcp("a", "c", port))
    assert lab.here.engine.ledger_size == 100
    assert len(owned(lab, "a2")) == before


def test_packets_that_wait_are_bounded_for_each_port_and_in_all(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office(), settings=Settings(max_parked=7, max_parked_per_port=5))
    vm = lab.frames(family)
    lab.here.delayed = True
    for number in range(10):
        lab.send("a", vm.udp("a", "c", tp_src=1000 + number))
    assert lab.here.engine.parked == 5
    assert lab.here.count("parked.no_room", "a") == 5
    for number in range(10):
        lab.send("a2", vm.udp("a2", "e", tp_src=1000 + number))
    assert lab.here.engine.parked == 7
    assert lab.here.count("parked.no_room", "a2") == 8
    lab.here.deliver()
    assert lab.here.engine.parked == 0
    lab.here.delayed = False


def test_room_is_free_again_when_packets_have_left(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), settings=Settings(max_parked=2, max_parked_per_port=2))
    vm = lab.frames(family)
    lab.here.delayed = True
    for _ in range(3):
        lab.send("a", vm.udp("a", "c"), vm.udp("a", "c"))
        assert lab.here.engine.parked == 2
        lab.advance(3)
        assert lab.here.engine.parked == 0
    assert lab.here.count("parked.no_room") == 0
    lab.here.feed.inbox.clear()


def test_packet_ins_over_the_rate_of_a_port_are_dropped(make_lab: MakeLab, family: int) -> None:
    settings = Settings(admission_rate=10, admission_burst=5)
    lab = make_lab(office(), settings=settings)
    vm = lab.frames(family)
    for port in range(1000, 1020):
        lab.send("a", vm.tcp("a", "c", port))
    assert lab.here.count("packet_in", "a") == 5
    assert lab.here.count("packet_in.over_rate", "a") == 15
    assert lab.send("a2", vm.udp("a2", "b")).reached == ["b"], "another port is not concerned"
    lab.advance(0.35)
    for port in range(2000, 2010):
        lab.send("a", vm.tcp("a", "c", port))
    assert lab.here.count("packet_in", "a") == 8


def test_a_port_plugged_again_has_its_whole_budget(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), settings=Settings(admission_rate=1, admission_burst=1))
    vm = lab.frames(family)
    assert lab.send("a", vm.udp("a", "b")).packet_ins == 1
    lab.send("a", vm.udp("a", "d"))
    assert lab.here.count("packet_in.over_rate", "a") == 1
    lab.here.unplug("a")
    lab.here.plug("a")
    lab.send("a", vm.udp("a", "d"))
    assert lab.here.count("packet_in.over_rate", "a") == 1


def test_the_meter_of_a_port_stops_its_flood_in_the_switch(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), settings=Settings(meter_rate=10, meter_burst=5), enforce_meters=True)
    vm = lab.frames(family)
    sent = [lab.send("a", vm.tcp("a", "c", port)).packet_ins for port in range(1000, 1020)]
    assert sum(sent) == 5
    assert lab.send("a2", vm.udp("a2", "b")).reached == ["b"]
    lab.advance(1)
    assert lab.send("a", vm.udp("a", "b")).reached == ["b"]


def test_meters_may_be_off(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), settings=Settings(meter_rate=0), enforce_meters=True)
    vm = lab.frames(family)
    assert lab.here.switch.meters == {}
    assert lab.send("a", vm.udp("a", "b")).reached == ["b"]
    lab.here.unplug("a")
    lab.here.plug("a")
    assert lab.send("a", vm.udp("a", "b")).reached == ["b"]


def test_a_scan_makes_short_rules_and_no_more(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), settings=Settings(deny_s=5))
    vm = lab.frames(family)
    base = vm.ip("a")[:-1]
    for number in range(100, 200):
        lab.send("a", vm.who_has("a", base + bytes([number])))
        lab.send("a", vm.tcp("a", "b", dst=base + bytes([number])))
    assert lab.here.engine.ledger_size > 100
    lab.advance(70)
    assert lab.here.engine.ledger_size == 0


@pytest.mark.parametrize("table_base", [0, 100, 163])
def test_the_block_of_tables_may_lie_elsewhere(
    make_lab: MakeLab, family: int, table_base: int
) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE), settings=Settings(table_base=table_base))
    vm = lab.frames(family)
    for target in ("b", "c", "d", "e"):
        assert lab.send("a", vm.tcp("a", target)).reached == [target]
        assert lab.send(target, vm.tcp_reply(target, "a")).reached == ["a"]
    assert lab.send("a", vm.who_has("a", "b")).reached == ["a"]
    tables = {rule.shape.table for _, rule in lab.here.switch.rules()}
    assert min(tables) == table_base
    assert max(tables) == table_base + 90


def test_many_neighbors_make_no_more_rules_than_peers(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    few = make_lab(cloud)
    vm = few.frames(family)
    few.send("a", vm.tcp("a", "c"))
    more = office()
    for number in range(50, 250):
        add_port(more, f"n{number}", "red", number, host=THERE)
    many = make_lab(more)
    many.send("a", many.frames(family).tcp("a", "c"))
    assert len(many.here.switch.rules()) == len(few.here.switch.rules())
    assert many.here.engine.cache.neighbors_held == few.here.engine.cache.neighbors_held

"""Packets that wait for a record, while the source is slow or away."""

from __future__ import annotations

import pytest

from ondemand.settings import Settings
from tests.support.cloud_edit import change_port, remove_rule, set_rules
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import both, office
from tests.support.packet_parts import ACK
from tests.support.world_builder import HERE, THERE


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), hosts=(HERE, THERE), settings=Settings(park_s=2.0))


def test_a_packet_waits_for_its_record_and_then_goes_on(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    assert lab.send("a", vm.udp("a", "c")).reached == []
    assert lab.here.engine.parked == 1
    sent = lab._sent(lab.here.deliver())
    assert sent.reached == ["c"]
    assert lab.here.engine.parked == 0


def test_many_packets_for_one_record_make_one_fetch(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    for number in range(10):
        lab.send("a", vm.udp("a", "c", tp_src=1000 + number))
        lab.send("a2", vm.tcp("a2", "c"))
    assert len(lab.here.feed.fetches()) == 1
    assert lab.here.engine.parked == 20
    sent = lab._sent(lab.here.deliver())
    assert sent.reached == ["c"] * 20
    assert lab.here.count("parked") == 20


def test_packets_keep_their_order(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    frames = [vm.udp("a", "c", payload=bytes([number])) for number in range(5)]
    lab.send("a", *frames)
    sent = lab._sent(lab.here.deliver())
    assert [frame for _, frame in sent.arrived] == frames


def test_packets_expire_when_no_record_comes(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    lab.send("a", vm.udp("a", "c"), vm.udp("a", "c"))
    lab.here.feed.inbox.clear()
    lab.here.feed.lose("the store is away")
    lab.here.delayed = False
    lab.here.deliver()
    assert lab.here.engine.parked == 2
    lab.advance(1.9)
    assert lab.here.engine.parked == 2
    lab.advance(0.2)
    assert lab.here.engine.parked == 0
    assert lab.here.count("parked.too_late", "a") == 2
    (told,) = lab.here.warnings
    assert told.startswith("2 packets")
    assert "the store is away" in told
    assert lab.here.rules("location") == []


def test_a_packet_that_comes_later_waits_longer(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    lab.send("a", vm.udp("a", "c"))
    lab.advance(1.5)
    lab.send("a", vm.udp("a", "c"))
    lab.advance(1)
    assert lab.here.engine.parked == 1
    assert lab._sent(lab.here.deliver()).reached == ["c"]


def test_a_record_that_comes_too_late_still_makes_the_next_packet_quick(
    lab: Lab, family: int
) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    lab.send("a", vm.udp("a", "c"))
    lab.advance(3)
    lab.here.deliver()
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]


def test_when_the_source_is_back_a_stream_that_never_paused_finds_its_way(
    lab: Lab, family: int
) -> None:
    """There is always a packet that waits; the question must be put again all the same."""
    vm = lab.frames(family)
    lab.here.feed.lose("the store is away")
    for _ in range(5):
        lab.send("a", vm.udp("a", "c"))
        lab.advance(1)
    lab.here.feed.come_back()
    lab.here.deliver()
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]
    assert lab.here.engine.source_error is None
    assert (lab.here.count("source.lost"), lab.here.count("source.back")) == (1, 1)


def test_while_the_source_is_away_the_switch_drops_what_nobody_can_answer_for(
    lab: Lab, family: int
) -> None:
    vm = lab.frames(family)
    lab.here.feed.lose("the store is away")
    lab.here.deliver()
    assert lab.send("a", vm.udp("a", "c")).reached == []
    assert lab.here.engine.parked == 0
    assert lab.here.count("no_location.source_unreachable", "a") == 1
    assert lab.send("a", vm.udp("a", "c"), vm.udp("a", "c")).packet_ins == 0
    lab.advance(lab.here.engine.settings.outage_deny_s + 0.1)
    assert lab.send("a", vm.udp("a", "c")).packet_ins == 1
    lab.here.feed.come_back()
    lab.here.deliver()
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]


def test_questions_for_addresses_get_no_answer_while_the_source_is_away(
    lab: Lab, family: int
) -> None:
    vm = lab.frames(family)
    lab.here.feed.lose("the store is away")
    lab.here.deliver()
    assert lab.send("a", vm.who_has("a", "a2")).reached == []
    assert lab.here.count("not_answered.source_unreachable", "a") == 1
    lab.here.feed.come_back()
    lab.here.deliver()
    assert lab.send("a", vm.who_has("a", "a2")).reached == ["a"]


def test_live_traffic_does_not_notice_that_the_source_is_away(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "c")).reached == ["c"]
    lab.here.feed.lose("the store is away")
    lab.here.deliver()
    for _ in range(5):
        lab.advance(10)
        assert lab.send("c", vm.tcp_reply("c", "a", flags=ACK)).reached == ["a"]
        assert lab.send("a", vm.tcp("a", "c", flags=ACK)).reached == ["c"]
    lab.here.feed.come_back()
    lab.here.deliver()


def test_a_flow_to_a_known_neighbor_begins_while_the_source_is_away(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    lab.here.feed.lose("the store is away")
    assert lab.send("a2", vm.tcp("a2", "c")).reached == ["c"]
    lab.here.feed.come_back()
    lab.here.deliver()


def test_what_changed_while_the_source_was_away_arrives_when_it_is_back(
    lab: Lab, family: int
) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "b"))
    lab.here.feed.lose("the store is away")
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    lab.publish()
    assert lab.send("b", vm.tcp_reply("b", "a")).reached == ["a"]
    lab.here.feed.come_back()
    lab.here.deliver()
    assert lab.send("b", vm.tcp_reply("b", "a")).reached == []


def test_slices_asked_for_while_the_source_is_away_come_later(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office(), plugged=("a",))
    lab.here.feed.lose("the store is away")
    lab.here.plug("b")
    assert lab.send("a", lab.frames(family).udp("a", "b")).reached == []
    lab.here.feed.come_back()
    lab.here.deliver()
    lab.advance(20)
    assert lab.send("a", lab.frames(family).udp("a", "b")).reached == ["b"]


def test_a_port_that_goes_takes_its_waiting_packets_along(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    lab.send("a", vm.udp("a", "c"))
    lab.send("a2", vm.udp("a2", "c"))
    lab.here.unplug("a")
    assert lab.here.engine.parked == 1
    sent = lab._sent(lab.here.deliver())
    assert sent.reached == ["c"]
    lab.here.unplug("a2")


def test_a_target_that_goes_while_a_packet_for_it_waits(lab: Lab, family: int) -> None:
    cloud = lab.cloud
    set_rules(cloud, "web", *both("ingress", "udp", 53, rule_id="dns", group="client"))
    lab.publish()
    vm = lab.frames(family)
    lab.here.delayed = True
    lab.send("a", vm.udp("a", "b"))
    for _ in range(10):
        if not lab.here.feed.inbox or len(lab.here.feed.fetches()) > 1:
            break
        lab.here.deliver_one()
    lab.here.unplug("b")
    lab.here.delayed = False
    assert lab._sent(lab.here.deliver()).reached == []


def test_a_packet_that_waits_while_its_port_gets_another_number(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    lab.send("a", vm.udp("a", "c"), vm.who_has("a", "c"))
    lab.here.plug("a")
    lab.here.delayed = False
    assert sorted(lab._sent(lab.here.deliver()).reached) == ["a", "c"]


@pytest.mark.parametrize("side", ["sender", "target"])
def test_a_packet_that_waits_while_port_security_is_switched_off(
    make_lab: MakeLab, family: int, side: str
) -> None:
    cloud = office()
    if side == "target":
        set_rules(cloud, "web", *both("ingress", "udp", 53, rule_id="dns", group="client"))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    lab.here.delayed = True
    if side == "sender":
        lab.send("a", vm.udp("a", "c"))
        port = "a"
    else:
        lab.from_tunnel(HERE, 101, vm.udp("x", "b"), THERE)
        port = "b"
    assert lab.here.engine.parked == 1
    waiting = len(lab.here.feed.inbox)
    change_port(cloud, port, port_security=False, groups=())
    lab.publish()
    # The port's change overtakes what the packet waits for.
    while len(lab.here.feed.inbox) > waiting:
        lab.here.deliver_one(waiting)
    lab.here.delayed = False
    assert lab._sent(lab.here.deliver()).reached == (["c"] if side == "sender" else ["b"])

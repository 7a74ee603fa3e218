"""The switch goes away and comes back; the agent's knowledge stays, its rules are programmed anew."""

from __future__ import annotations

import pytest

from ondemand.messages import FlowRemoved
from tests.support.cloud_edit import remove_rule
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import add_port, office
from tests.support.packet_parts import ACK
from tests.support.world_builder import HERE, THERE


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), hosts=(HERE, THERE))


def static(lab: Lab) -> list[str]:
    """Static rules in the switch, without their cookies."""
    return sorted(str(rule) for _, rule in lab.here.engine.installer.static_rules())


def test_everything_static_is_programmed_again(lab: Lab, family: int) -> None:
    before = static(lab)
    in_switch = [line.split(",", 1)[1] for line in lab.here.switch.dump()]
    lab.here.restart_switch()
    assert static(lab) == before
    assert [line.split(",", 1)[1] for line in lab.here.switch.dump()] == in_switch
    assert set(lab.here.switch.meters) == {lab.here.zone(port) for port in lab.here.plugged}
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "c")).reached == ["c"]


def test_on_demand_rules_come_back_with_traffic(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    rules = lab.here.rules()
    lab.here.restart_switch()
    assert lab.here.rules() == []
    assert lab.here.engine.ledger_size == 0
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]
    assert lab.here.rules() == rules


def test_connections_survive_when_only_the_agent_lost_the_switch(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "b"))
    lab.send("b", vm.tcp_reply("b", "a"))
    lab.here.reconnect()
    assert lab.send("b", vm.tcp_reply("b", "a", flags=ACK)).reached == ["a"]
    assert lab.send("a", vm.tcp("a", "b", flags=ACK)).reached == ["b"]
    assert lab.send("b", vm.tcp("b", "a", 22)).reached == []


def test_rules_forward_while_the_agent_is_away(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "b"))
    lab.here.engine.switch_lost()
    lab.here.flush()
    assert lab.send("b", vm.tcp_reply("b", "a")).reached == ["a"]
    assert lab.send("a", vm.tcp("a", "b", flags=ACK)).reached == ["b"]
    lab.here.connected_again()


def test_what_changed_while_the_switch_was_away_counts(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "b", 80))
    lab.send("a", vm.tcp("a", "b", 443))
    lab.here.engine.switch_lost()
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    for host in lab.hosts.values():
        host.delayed = True
    lab.publish()
    # As the agent does while it is not connected: news are taken in, effects come to nothing.
    while lab.here.feed.inbox:
        lab.here._hear()
    lab.here.engine.switch_lost()
    for host in lab.hosts.values():
        host.delayed = False
        host.deliver()
    lab.here.connected_again()
    assert lab.send("b", vm.tcp_reply("b", "a", 80)).reached == []
    assert lab.send("b", vm.tcp_reply("b", "a", 443)).reached == ["a"]


def test_a_port_that_came_while_the_switch_was_away_works(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), plugged=("a",))
    host = lab.here
    host.engine.switch_lost()
    host.switch.add_port(50)
    host.plugged["b"] = 50
    host.engine.port_plugged("b", 50, lab.now_s)
    for request in host.engine.take().requests:
        host.feed.ask(request)
    while host.feed.inbox:
        host._hear()
        for request in host.engine.take().requests:
            host.feed.ask(request)
    host.engine.switch_lost()
    host.connected_again()
    assert lab.send("a", lab.frames(family).udp("a", "b")).reached == ["b"]


def test_requests_and_warnings_outlive_the_connection(make_lab: MakeLab) -> None:
    lab = make_lab(office(), plugged=())
    engine = lab.here.engine
    engine.port_plugged("ghost", 9, lab.now_s)
    lab.here.plugged["ghost"] = 9
    engine.port_plugged("a", 10, lab.now_s)
    lab.here.switch.add_port(10)
    lab.here.plugged["a"] = 10
    engine.switch_lost()
    effects = engine.take()
    assert effects.requests != []
    assert any("'ghost'" in warning for warning in effects.warnings)
    assert (effects.adds, effects.deletes, effects.meters) == ([], [], [])
    for request in effects.requests:
        lab.here.feed.ask(request)
    lab.here.deliver()
    lab.here.connected_again()


def test_a_packet_that_waited_through_a_reconnect_goes_on(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    lab.send("a", vm.udp("a", "c"))
    lab.here.reconnect()
    lab.here.delayed = False
    assert lab._sent(lab.here.deliver()).reached == ["c"]


def test_a_flow_removed_message_of_before_says_nothing_of_now(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    old = {entry.cookie for entry in lab.here.engine.installer.ledger}
    lab.here.restart_switch()
    lab.send("a", vm.udp("a", "c"))
    new = {entry.cookie for entry in lab.here.engine.installer.ledger}
    assert not old & new
    for cookie in old:
        lab.here.engine.flow_removed(FlowRemoved(cookie, 30, 0))
    assert {entry.cookie for entry in lab.here.engine.installer.ledger} == new


def test_epochs_stay_over_a_reconnect(lab: Lab) -> None:
    before = {port: lab.here.epoch(port) for port in lab.here.plugged}
    lab.here.reconnect()
    assert {port: lab.here.epoch(port) for port in lab.here.plugged} == before
    add_port(lab.cloud, "new", "red", 90)
    lab.publish()
    lab.here.plug("new")
    assert lab.here.epoch("new") not in before.values()

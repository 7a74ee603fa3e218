"""Fragmented datagrams: the first one of a flow is lost, the next ones pass (docs/pipeline.md)."""

from __future__ import annotations

import pytest

from tests.support.cloud_edit import change_port, set_rules
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import both, office
from tests.support.packet_parts import sctp_packet
from tests.support.world_builder import HERE, THERE

SIDES = pytest.mark.parametrize("target", ["b", "c", "d", "e"])


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), hosts=(HERE, THERE))


@SIDES
def test_a_fragmented_datagram_passes_once_its_flow_is_known(
    lab: Lab, family: int, target: str
) -> None:
    vm = lab.frames(family)
    lab.send("a", *vm.fragments("a", target, number=1))
    lab.advance(20)
    lab.send("a", *vm.fragments("a", target, number=2))
    lab.advance(20)
    sent = lab.send("a", *vm.fragments("a", target, number=3))
    assert sent.reached == [target] * 3
    assert sent.packet_ins == 0


@SIDES
def test_a_whole_datagram_makes_way_for_fragments(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.udp("a", target)).reached == [target]
    assert lab.send("a", *vm.fragments("a", target)).reached == [target] * 3


@SIDES
def test_fragments_flow_back(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", target, 53))
    back = lab.send(target, *vm.fragments(target, "a", 40000, tp_src=53))
    assert back.reached == ["a"] * 3
    stranger = lab.send(target, *vm.fragments(target, "a", 40000, tp_src=54, number=2))
    assert stranger.reached == []


@SIDES
def test_fragments_that_are_denied_do_not_pass(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    for number in range(1, 4):
        assert lab.send("a", *vm.fragments("a", target, 54, number=number)).reached == []
        lab.advance(20)


def test_a_later_fragment_alone_makes_no_verdict(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    _, *later = vm.fragments("a", "b")
    sent = lab.send("a", *later)
    assert sent.reached == []
    assert lab.here.rules("_allow", "_deny") == []


def test_fragments_of_sctp_are_judged_by_the_first(make_lab: MakeLab, family: int) -> None:
    """A later one says no ports, and conntrack would not put it together: it is dropped."""
    lab = make_lab(office())
    vm = lab.frames(family)
    packet = sctp_packet(40000, 1000, chunks=bytes(2000))
    if family == 4:
        later = vm.raw("a", "b", 132, packet[1440:], fragment_offset=1440, identification=9)
        assert lab.send("a", later).reached == []
        assert lab.here.count("no_flow.later_fragment", "a") == 1
        assert lab.here.rules() == []


def test_fragments_of_a_protocol_without_ports_pass(make_lab: MakeLab) -> None:
    """In IPv4 each one says its protocol, which is all that is judged."""
    cloud = office()
    set_rules(cloud, "web", *both("ingress", "gre", rule_id="gre"))
    lab = make_lab(cloud)
    vm = lab.frames(4)
    first = vm.raw("a", "b", 47, bytes(1440), more_fragments=True, identification=9)
    later = vm.raw("a", "b", 47, bytes(100), fragment_offset=1440, identification=9)
    assert lab.send("a", vm.gre("a", "b")).reached == ["b"]
    assert lab.send("a", first, later).reached == ["b", "b"]


def test_fragments_to_a_port_without_port_security_pass(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    for name in ("a2", "b"):
        change_port(cloud, name, port_security=False, groups=())
    lab = make_lab(cloud)
    vm = lab.frames(family)
    assert lab.send("a2", vm.udp("a2", "b")).reached == ["b"]
    sent = lab.send("a2", *vm.fragments("a2", "b"))
    assert sent.reached == ["b"] * 3


def test_an_epoch_that_moves_stops_no_fragments(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "b"))
    assert lab.send("a", *vm.fragments("a", "b", number=1)).reached == ["b"] * 3
    lab.write("sg/web", {f"rule/tcp-443-{family}": None})
    assert lab.send("a", *vm.fragments("a", "b", number=2)).reached == ["b"] * 3

"""Connections: replies flow, and nothing else does because a connection is there."""

from __future__ import annotations

import pytest

from ondemand.settings import Settings
from tests.support.cloud_edit import change_port
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import add_network, add_port, both, office
from tests.support.packet_parts import ACK, FIN, RST
from tests.support.world_builder import HERE, THERE, CloudBuilder

SIDES = pytest.mark.parametrize("target", ["b", "c"], ids=["one host", "two hosts"])


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), hosts=(HERE, THERE))


@SIDES
def test_replies_flow(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", target)).reached == [target]
    assert lab.send(target, vm.tcp_reply(target, "a")).reached == ["a"]
    for _ in range(3):
        assert lab.send("a", vm.tcp("a", target, flags=ACK)).reached == [target]
        assert lab.send(target, vm.tcp_reply(target, "a", flags=ACK)).reached == ["a"]
    assert lab.send("a", vm.tcp("a", target, flags=FIN | ACK)).reached == [target]
    assert lab.send(target, vm.tcp_reply(target, "a", flags=FIN | ACK)).reached == ["a"]


@SIDES
def test_replies_flow_in_udp_and_ping(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.udp("a", target)).reached == [target]
    assert lab.send(target, vm.udp_reply(target, "a")).reached == ["a"]
    assert lab.send("a", vm.ping("a", target)).reached == [target]
    assert lab.send(target, vm.pong(target, "a")).reached == ["a"]


@SIDES
def test_what_nobody_asked_for_does_not_flow(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    for frame in (
        vm.tcp(target, "a", 80),
        vm.tcp_reply(target, "a"),
        vm.tcp_reply(target, "a", flags=ACK),
        vm.tcp_reply(target, "a", flags=RST),
        vm.udp_reply(target, "a"),
        vm.ping(target, "a"),
        vm.pong(target, "a"),
        vm.gre(target, "a"),
        vm.sctp(target, "a", 40000, tp_src=1000),
    ):
        assert lab.send(target, frame).reached == []


@SIDES
def test_an_open_connection_lets_nothing_else_back(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", target))
    lab.send(target, vm.tcp_reply(target, "a"))
    lab.send("a", vm.udp("a", target))
    lab.send("a", vm.ping("a", target, 1))
    for frame in (
        vm.tcp(target, "a", 22),
        vm.tcp_reply(target, "a", tp_dst=40001),
        vm.tcp_reply(target, "a", 81, flags=ACK),
        vm.udp_reply(target, "a", tp_dst=40001),
        vm.udp_reply(target, "a", 54),
        vm.pong(target, "a", 1, body=b"\0\2\0\1"),
        vm.ping(target, "a", 1),
    ):
        assert lab.send(target, frame).reached == []


@SIDES
def test_an_open_connection_opens_no_second_port(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", target, 80)).reached == [target]
    lab.send(target, vm.tcp_reply(target, "a", 80))
    assert lab.send("a", vm.tcp("a", target, 22)).reached == []
    assert lab.send("a", vm.tcp("a", target, 22, flags=ACK)).reached == []
    assert lab.send("a", vm.udp("a", target, 80)).reached == []


@SIDES
def test_the_same_ports_of_another_protocol_are_another_connection(
    lab: Lab, family: int, target: str
) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.udp("a", target, 53)).reached == [target]
    assert lab.send("a", vm.tcp("a", target, 53)).reached == []
    assert lab.send("a", vm.sctp("a", target, 53)).reached == []


# -- protocols that conntrack does not tell apart --------------------------------------------------


@SIDES
def test_sctp_flows_both_ways(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.sctp("a", target, 1000)).reached == [target]
    assert lab.send(target, vm.sctp(target, "a", 40000, tp_src=1000)).reached == ["a"]
    again = lab.send("a", vm.sctp("a", target, 1000))
    assert (again.reached, again.packet_ins) == ([target], 0)


@SIDES
def test_an_sctp_association_opens_no_other_port(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.sctp("a", target, 1000)).reached == [target]
    assert lab.send(target, vm.sctp(target, "a", 40000, tp_src=1000)).reached == ["a"]
    assert lab.send("a", vm.sctp("a", target, 2000)).reached == []
    assert lab.send(target, vm.sctp(target, "a", 40001, tp_src=1000)).reached == []
    assert lab.send(target, vm.sctp(target, "a", 40000, tp_src=2000)).reached == []
    assert lab.send("a", vm.sctp("a", target, 1000, tp_src=7)).reached == [target]


@SIDES
def test_the_way_back_of_sctp_goes_with_its_rule(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.sctp("a", target, 1000))
    key = f"rule/sctp-1000-{family}"
    lab.write("sg/web", {key: None})
    assert lab.send(target, vm.sctp(target, "a", 40000, tp_src=1000)).reached == []
    assert lab.send("a", vm.sctp("a", target, 1000)).reached == []


@SIDES
def test_gre_is_judged_in_each_direction(make_lab: MakeLab, family: int, target: str) -> None:
    cloud = office()
    cloud.group("gre-in", *both("ingress", "gre", rule_id="gre"))
    change_port(cloud, target, groups=("gre-in",))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    for _ in range(2):
        assert lab.send("a", vm.gre("a", target)).reached == [target]
        assert lab.send(target, vm.gre(target, "a")).reached == []


def test_a_protocol_by_number(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    cloud.group("vrrp-in", *both("ingress", 112, rule_id="vrrp"))
    change_port(cloud, "b", groups=("vrrp-in",))
    lab = make_lab(cloud)
    vm = lab.frames(family)
    assert lab.send("a", vm.raw("a", "b", 112, bytes(8))).reached == ["b"]
    assert lab.send("a", vm.raw("a", "b", 113, bytes(8))).reached == []


# -- errors ----------------------------------------------------------------------------------------


@SIDES
def test_an_error_about_a_connection_passes(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    request = vm.udp("a", target)
    assert lab.send("a", request).reached == [target]
    error = lab.send(target, vm.unreachable(target, "a", request))
    assert (error.reached, error.packet_ins) == (["a"], 0)


@SIDES
def test_an_error_about_nothing_does_not_pass(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.udp("a", target)).reached == [target]
    for about in (vm.udp("a", target, 54), vm.udp("a", target, tp_src=7), vm.tcp("a", target)):
        assert lab.send(target, vm.unreachable(target, "a", about)).reached == []


@SIDES
def test_an_error_travels_with_the_connection_too(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", target))
    reply = vm.udp_reply(target, "a")
    assert lab.send(target, reply).reached == ["a"]
    assert lab.send("a", vm.unreachable("a", target, reply)).reached == [target]


def test_an_error_finds_its_way_when_no_rule_knows_it_any_more(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "b"))
    lab.send("b", vm.tcp_reply("b", "a"))
    lab.send("a", vm.tcp("a", "b", flags=ACK))
    lab.advance(lab.here.engine.settings.location_idle_s + 1)
    assert lab.here.rules() == []
    late = vm.tcp_reply("b", "a", flags=ACK)
    assert lab.send("a", vm.unreachable("a", "b", late)).reached == ["b"]


def test_a_rule_removed_stops_errors_too(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    request = vm.udp("a", "b")
    lab.send("a", request)
    lab.write("sg/web", {f"rule/udp-53-{family}": None})
    assert lab.send("b", vm.unreachable("b", "a", request)).reached == []


# -- how long --------------------------------------------------------------------------------------


def test_a_connection_outlives_its_rules(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "b"))
    lab.send("b", vm.tcp_reply("b", "a"))
    lab.send("a", vm.tcp("a", "b", flags=ACK))
    lab.advance(3600)
    assert lab.here.rules() == []
    assert lab.send("b", vm.tcp_reply("b", "a", flags=ACK)).reached == ["a"]
    assert lab.send("a", vm.tcp("a", "b", flags=ACK)).reached == ["b"]


def test_when_conntrack_has_forgotten_a_connection_its_replies_are_unasked(
    lab: Lab, family: int
) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "b"))
    lab.advance(61)
    assert lab.send("b", vm.udp_reply("b", "a")).reached == []


def test_both_may_begin(make_lab: MakeLab, family: int) -> None:
    """One connection in each direction between the same ports are two, judged apart."""
    cloud = CloudBuilder()
    add_network(cloud)
    cloud.group("peer", *both("egress", rule_id="out"), *both("ingress", "udp", 500, rule_id="in"))
    add_port(cloud, "p", "red", 10, groups=("peer",))
    add_port(cloud, "q", "red", 11, groups=("peer",))
    lab = make_lab(cloud)
    vm = lab.frames(family)
    for src, dst in (("p", "q"), ("q", "p")):
        assert lab.send(src, vm.udp(src, dst, 500, tp_src=1)).reached == [dst]
        assert lab.send(dst, vm.udp(dst, src, 1, tp_src=500)).reached == [src]
        assert lab.send(src, vm.udp(src, dst, 501, tp_src=1)).reached == []


@pytest.mark.parametrize("match_connection", [False, True])
def test_rules_are_as_wide_as_the_setting_says(
    make_lab: MakeLab, family: int, match_connection: bool
) -> None:
    lab = make_lab(office(), settings=Settings(match_connection=match_connection))
    vm = lab.frames(family)
    for number in range(3):
        sent = lab.send("a", vm.tcp("a", "b", tp_src=2000 + number))
        assert sent.reached == ["b"]
        assert sent.packet_ins == (1 if number == 0 or match_connection else 0)
        assert lab.send("b", vm.tcp_reply("b", "a", tp_dst=2000 + number)).reached == ["a"]
    verdicts = lab.here.rules("_allow")
    assert len(verdicts) == (6 if match_connection else 2)
    assert all(("ct_tp_src=" in rule) is match_connection for rule in verdicts)
    lab.send("a", vm.ping("a", "b"))
    assert len(lab.here.rules("icmp")) == 2


@pytest.mark.parametrize("match_connection", [False, True])
def test_a_denied_connection_is_dropped_in_the_switch(
    make_lab: MakeLab, family: int, match_connection: bool
) -> None:
    lab = make_lab(office(), settings=Settings(match_connection=match_connection))
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b", 22)).packet_ins == 1
    again = lab.send("a", vm.tcp("a", "b", 22))
    assert (again.reached, again.packet_ins) == ([], 0)
    other = lab.send("a", vm.tcp("a", "b", 22, tp_src=7))
    assert (other.reached, other.packet_ins) == ([], 1 if match_connection else 0)


def test_a_port_denied_says_nothing_of_another(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b", 22)).reached == []
    assert lab.send("a", vm.tcp("a", "b", 80)).reached == ["b"]
    assert lab.send("a2", vm.tcp("a2", "b", 80)).reached == ["b"]


def test_allow_is_needed_at_both_ends(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    cloud.group("only-80", *both("egress", "tcp", 80, rule_id="out-80"))
    change_port(cloud, "a", groups=("only-80",))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    for target in ("b", "c"):
        assert lab.send("a", vm.tcp("a", target, 80)).reached == [target]
        assert lab.send("a", vm.tcp("a", target, 81)).reached == [], "egress denies it"
        assert lab.send("a2", vm.tcp("a2", target, 81)).reached == [target]
        assert lab.send("a2", vm.tcp("a2", target, 82)).reached == [], "ingress denies it"

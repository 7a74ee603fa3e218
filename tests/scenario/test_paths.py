"""Where packets go: within a host, across hosts, routed, by a static route, to the gateway."""

from __future__ import annotations

import pytest

from ondemand.addresses import parse_prefix
from ondemand.codec import encode_record
from ondemand.records import Route
from rule_cache.fields import Field
from tests.support.cloud_edit import change_port
from tests.support.fake_flow import extract
from tests.support.fake_outcomes import Tunnelled
from tests.support.frame_builder import MAC_B
from tests.support.lab import MakeLab
from tests.support.office_cloud import BLUE_VNI, NOBODY, RED_VNI, add_port, office
from tests.support.world_builder import ELSEWHERE, HERE, THERE, CloudBuilder


def macs(frame: bytes) -> tuple[bytes, bytes]:
    """(source, destination)"""
    return frame[6:12], frame[:6]


def ttl(frame: bytes) -> int:
    return extract(frame).fields[Field.IP_TTL]


@pytest.mark.parametrize("target", ["b", "c", "d", "e"])
def test_a_first_packet_arrives_and_the_next_one_asks_nobody(
    make_lab: MakeLab, family: int, target: str
) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE))
    vm = lab.frames(family)
    first = lab.send("a", vm.tcp("a", target))
    assert first.reached == [target]
    assert first.packet_ins >= 1
    second = lab.send("a", vm.tcp("a", target))
    assert second.reached == [target]
    assert second.packet_ins == 0


def test_within_a_host_one_packet_in_settles_all(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b")).packet_ins == 1
    answer = lab.send("b", vm.tcp_reply("b", "a"))
    assert (answer.reached, answer.packet_ins) == (["a"], 0)


def test_across_hosts_one_packet_in_on_each_settles_all(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE))
    vm = lab.frames(family)
    first = lab.send("a", vm.tcp("a", "c"))
    assert [host for host, _ in first.moves.packet_ins] == [HERE, THERE]
    answer = lab.send("c", vm.tcp_reply("c", "a"))
    assert (answer.reached, answer.packet_ins) == (["a"], 0)


def test_another_connection_to_the_same_service_asks_nobody(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE))
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "c"))
    again = lab.send("a", vm.tcp("a", "c", tp_src=50000))
    assert (again.reached, again.packet_ins) == (["c"], 0)


@pytest.mark.parametrize("target", ["b", "c"])
def test_a_switched_frame_arrives_as_it_was_sent(
    make_lab: MakeLab, family: int, target: str
) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE))
    frame = lab.frames(family).udp("a", target, payload=b"as it was")
    assert lab.send("a", frame).frame == frame
    assert lab.send("a", frame).frame == frame


@pytest.mark.parametrize("target", ["d", "e"])
def test_a_routed_frame_gets_the_macs_of_the_other_subnet_and_loses_a_hop(
    make_lab: MakeLab, family: int, target: str
) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE))
    vm = lab.frames(family)
    spec = lab.cloud.port_spec(target)
    for _ in range(2):
        arrived = lab.send("a", vm.udp("a", target, ttl=9)).frame
        assert macs(arrived) == (spec.subnet.gateway_mac, spec.mac)
        assert ttl(arrived) == 8


@pytest.mark.parametrize("target", ["d", "e"])
def test_the_last_hop_of_a_ttl_is_not_routed(make_lab: MakeLab, family: int, target: str) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE))
    sent = lab.send("a", lab.frames(family).udp("a", target, ttl=1))
    assert sent.reached == []
    assert "TTL" in sent.dropped_by


def test_tunnelled_frames_carry_the_vni_of_the_target_subnet(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    vnis = {}
    for target in ("c", "e"):
        outcomes = lab.send("a", vm.tcp("a", target)).moves.outcomes
        vnis[target] = [out.vni for _, out in outcomes if isinstance(out, Tunnelled)]
    assert vnis == {"c": [RED_VNI], "e": [BLUE_VNI]}


def test_a_host_with_an_ipv6_tunnel_address_is_reached(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    change_port(cloud, "c", host=ELSEWHERE)
    lab = make_lab(cloud, hosts=(HERE, ELSEWHERE))
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "c")).reached == ["c"]
    assert lab.send("c", vm.tcp_reply("c", "a")).reached == ["a"]


def test_nobody_has_the_address(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    frame = vm.tcp("a", "b", dst=NOBODY[family], eth_dst=MAC_B)
    first = lab.send("a", frame)
    assert (first.reached, first.packet_ins) == ([], 1)
    assert lab.here.count("no_location.unknown_neighbor", "a") == 1
    second = lab.send("a", frame)
    assert (second.reached, second.packet_ins) == ([], 0)
    assert any("location_deny" in name for name in second.dropped_by)


def test_the_address_is_somebody_else_s_than_the_mac(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    sent = lab.send("a", vm.tcp("a", "b", eth_dst=lab.cloud.mac("c")))
    assert sent.reached == []
    assert lab.here.count("no_location.unknown_mac", "a") == 1


def test_multicast_goes_nowhere(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    group, mac = {
        4: ("224.0.0.251", "01:00:5e:00:00:fb"),
        6: ("ff02::fb", "33:33:00:00:00:fb"),
    }[family]
    sent = lab.send("a", lab.frames(family).udp("a", "b", 5353, dst=group, eth_dst=mac))
    assert sent.reached == []
    assert lab.here.count("no_location.multicast", "a") == 1


# -- gateway ---------------------------------------------------------------------------------------


def test_the_gateway_answers_ping(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    frame = vm.ping_gateway("a", ttl=1)
    for packet_ins in (1, 0):
        sent = lab.send("a", frame)
        assert sent.reached == ["a"]
        assert sent.packet_ins == packet_ins
        fields = extract(sent.frame).fields
        kind = fields[Field.ICMP_TYPE if family == 4 else Field.ICMPV6_TYPE]
        assert kind == (0 if family == 4 else 129)
        source = Field.IPV4_SRC if family == 4 else Field.IPV6_SRC
        assert fields[source].to_bytes(source.width, "big") == vm.gateway("a")
        gateway_mac = lab.cloud.port_spec("a").subnet.gateway_mac
        assert macs(sent.frame) == (gateway_mac, lab.cloud.mac("a"))
        assert ttl(sent.frame) == 64


def test_the_gateway_of_the_other_subnet_answers_ping(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    sent = lab.send("a", vm.ping_gateway("a", dst=vm.gateway("d")))
    assert sent.reached == ["a"]


def test_the_gateway_answers_nothing_but_ping(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    gateway = {"dst": vm.gateway("a"), "eth_dst": lab.cloud.port_spec("a").subnet.gateway_mac}
    assert lab.send("a", vm.ping_gateway("a")).reached == ["a"]
    assert lab.send("a", vm.tcp("a", "b", 22, **gateway)).reached == []
    assert lab.here.count("no_location.gateway", "a") == 1
    assert lab.send("a", vm.ping_gateway("a")).reached == ["a"], "beside the drop rule too"
    route = Route("r", parse_prefix("10.99.0.0/16"), lab.frames(4).ip("d"))
    lab.write("vpc/vpc-1", {route.key: encode_record(route)})
    assert lab.send("a", vm.tcp("a", "b", 22, **gateway)).packet_ins == 0, "judged again, and alike"


def test_a_port_that_may_not_ping_the_gateway_gets_no_answer(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office())
    assert lab.send("b", lab.frames(family).ping_gateway("b")).reached == []
    assert lab.here.count("denied.no_rule", "b") == 1


def test_without_a_router_the_other_subnet_is_not_reached(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    lab.write("vpc/vpc-1", {"router/r": None})
    sent = lab.send("a", lab.frames(family).tcp("a", "d"))
    assert sent.reached == []
    assert lab.here.count("no_location.no_router", "a") == 1


# -- static routes ---------------------------------------------------------------------------------

BEHIND = {4: "198.51.100.7", 6: "2001:db8:7::7"}


def with_route(nexthop_host: str) -> CloudBuilder:
    """Behind the VM ``fw`` of subnet blue are networks that no subnet of the VPC holds."""
    cloud = office()
    add_port(cloud, "fw", "blue", 50, host=nexthop_host, port_security=False)
    cloud.router(
        "r",
        "red",
        "blue",
        routes={"198.51.100.0/24": "10.0.2.50", "2001:db8:7::/64": "fd00:2::50"},
    )
    return cloud


@pytest.mark.parametrize("host", [HERE, THERE])
def test_a_static_route_leads_to_the_vm_that_is_its_next_hop(
    make_lab: MakeLab, family: int, host: str
) -> None:
    lab = make_lab(with_route(host), hosts=(HERE, THERE))
    vm = lab.frames(family)
    frame = vm.udp("a", "d", dst=BEHIND[family], ttl=5)
    for _ in range(2):
        sent = lab.send("a", frame)
        assert sent.reached == ["fw"]
        assert macs(sent.frame)[1] == lab.cloud.mac("fw")
        assert ttl(sent.frame) == 4


def test_what_comes_back_through_the_routing_vm_arrives(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_route(HERE))
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "d", dst=BEHIND[family]))
    gateway = lab.cloud.port_spec("fw").subnet.gateway_mac
    back = vm.udp_reply("fw", "a", src=BEHIND[family], eth_dst=gateway)
    assert lab.send("fw", back).reached == ["a"]
    stranger = vm.udp("fw", "a", 999, src=BEHIND[family], eth_dst=gateway)
    assert lab.send("fw", stranger).reached == []


def test_a_route_that_is_withdrawn_takes_its_rules_along(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_route(HERE))
    vm = lab.frames(family)
    frame = vm.udp("a", "d", dst=BEHIND[family])
    assert lab.send("a", frame).reached == ["fw"]
    key = "route/r/198.51.100.0/24" if family == 4 else "route/r/2001:db8:7::/64"
    lab.write("vpc/vpc-1", {key: None})
    gone = lab.send("a", frame)
    assert (gone.reached, gone.packet_ins) == ([], 0)


def test_a_next_hop_that_is_nobody_is_no_way(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    cloud.router(
        "r", "red", "blue", routes={f"{BEHIND[4]}/32": NOBODY[4], f"{BEHIND[6]}/128": NOBODY[6]}
    )
    lab = make_lab(cloud)
    frame = lab.frames(family).udp("a", "d", dst=BEHIND[family])
    assert lab.send("a", frame).reached == []
    assert lab.here.count("no_location.next_hop_unknown", "a") == 1


def test_no_route_is_no_way(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    frame = lab.frames(family).udp("a", "d", dst=BEHIND[family])
    assert lab.send("a", frame).reached == []
    assert lab.here.count("no_location.no_route", "a") == 1

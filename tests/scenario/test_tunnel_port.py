"""The VXLAN interface comes late, changes its number, goes."""

from __future__ import annotations

import pytest

from tests.support.cloud_edit import change_port
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import office
from tests.support.world_builder import HERE, THERE


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), hosts=(HERE, THERE), tunnel=False)


def both_ways(lab: Lab, family: int) -> tuple[bool, bool]:
    vm = lab.frames(family)
    out = lab.send("a", vm.udp("a", "c")).reached == ["c"]
    back = lab.send("x", vm.udp("x", "b")).reached == ["b"]
    return out, back


def test_a_tunnel_port_that_appears_late(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    assert both_ways(lab, family) == (False, False)
    assert lab.send("a", vm.udp("a", "b")).reached == ["b"], "within the host nothing is missing"
    lab.here.plug_tunnel()
    lab.hosts[THERE].plug_tunnel()
    assert both_ways(lab, family) == (True, True)


def test_a_tunnel_port_that_changes_its_number(lab: Lab, family: int) -> None:
    for host in lab.hosts.values():
        host.plug_tunnel()
    assert both_ways(lab, family) == (True, True)
    lab.here.plug_tunnel(77)
    assert not [rule for rule in lab.here.rules() if "output:1" in rule]
    assert both_ways(lab, family) == (True, True)


def test_a_tunnel_port_that_goes(lab: Lab, family: int) -> None:
    for host in lab.hosts.values():
        host.plug_tunnel()
    assert both_ways(lab, family) == (True, True)
    lab.here.plug_tunnel(0)
    assert both_ways(lab, family) == (False, False)
    assert not [line for line in lab.here.switch.dump() if "tun_id=" in line]
    lab.here.plug_tunnel(0)
    lab.here.plug_tunnel()
    assert both_ways(lab, family) == (True, True)


def test_a_tunnel_port_told_twice_changes_nothing(lab: Lab, family: int) -> None:
    for host in lab.hosts.values():
        host.plug_tunnel()
    both_ways(lab, family)
    before = lab.here.switch.dump()
    lab.here.plug_tunnel()
    assert lab.here.switch.dump() == before


def test_without_a_tunnel_routed_traffic_within_the_host_flows(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "d")).reached == ["d"]
    assert lab.send("d", vm.tcp_reply("d", "a")).reached == ["a"]
    lab.write("sg/web", {f"rule/tcp-443-{family}": None})
    assert lab.send("a", vm.tcp("a", "d")).reached == ["d"]


def test_without_a_tunnel_a_routed_packet_that_is_judged_late_comes_with_the_next(
    make_lab: MakeLab, family: int
) -> None:
    """It cannot be put in again where it was: routed, it no longer looks as its VM sent it."""
    cloud = office()
    change_port(cloud, "a", port_security=False, groups=())
    lab = make_lab(cloud, tunnel=False)
    vm = lab.frames(family)
    assert lab.send("a", vm.udp("a", "d")).reached == []
    assert lab.send("a", vm.udp("a", "d")).reached == ["d"]
    lab.here.plug_tunnel()
    assert lab.send("a", vm.tcp("a", "d")).reached == ["d"], "with one it comes at once"

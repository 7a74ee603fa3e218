"""Ports without port security: neither groups nor anti-spoofing, as sender and as receiver."""

from __future__ import annotations

import pytest

from tests.support.cloud_edit import change_port, set_rules
from tests.support.lab import MakeLab
from tests.support.office_cloud import add_port, office
from tests.support.packet_parts import ACK
from tests.support.world_builder import HERE, THERE, CloudBuilder


def with_free_port(host: str) -> CloudBuilder:
    cloud = office()
    add_port(cloud, "free", "red", 30, host=host, port_security=False)
    return cloud


@pytest.mark.parametrize("host", [HERE, THERE])
def test_a_port_without_port_security_receives_everything(
    make_lab: MakeLab, family: int, host: str
) -> None:
    lab = make_lab(with_free_port(host), hosts=(HERE, THERE))
    vm = lab.frames(family)
    for frame in (vm.tcp("a", "free", 1), vm.ping("a", "free"), vm.gre("a", "free")):
        for _ in range(2):
            assert lab.send("a", frame).reached == ["free"]


@pytest.mark.parametrize("host", [HERE, THERE])
def test_a_port_without_port_security_sends_anything_and_targets_judge(
    make_lab: MakeLab, family: int, host: str
) -> None:
    lab = make_lab(with_free_port(host), hosts=(HERE, THERE))
    vm = lab.frames(family)
    for target in ("b", "c"):
        for _ in range(2):
            assert lab.send("free", vm.tcp("free", target, 80)).reached == [target]
            assert lab.send("free", vm.tcp("free", target, 22)).reached == []
    spoofed = {4: "192.0.2.66", 6: "2001:db8::66"}[family]
    odd = vm.udp("free", "b", src=spoofed, eth_src="02:00:00:00:00:66")
    assert lab.send("free", odd).reached == ["b"]


def test_replies_to_a_port_without_port_security_flow(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_free_port(HERE), hosts=(HERE, THERE))
    vm = lab.frames(family)
    for target in ("b", "c"):
        assert lab.send("free", vm.tcp("free", target)).reached == [target]
        assert lab.send(target, vm.tcp_reply(target, "free")).reached == ["free"]


def test_others_addresses_behind_a_port_without_port_security(
    make_lab: MakeLab, family: int
) -> None:
    """A frame to its MAC comes to it, whatever the address; it may be a router of the tenant's."""
    lab = make_lab(with_free_port(HERE))
    vm = lab.frames(family)
    far = {4: "198.51.100.9", 6: "2001:db8:9::9"}[family]
    assert lab.send("a", vm.udp("a", "free", dst=far)).reached == ["free"]
    assert lab.send("a", vm.udp("a", "b", dst=far)).reached == [], "b is none"


@pytest.mark.parametrize("host", [HERE, THERE])
def test_port_security_switched_off_and_on_again(make_lab: MakeLab, family: int, host: str) -> None:
    cloud = office()
    change_port(cloud, "b", host=host)
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b", 22)).reached == []
    change_port(cloud, "b", port_security=False, groups=())
    lab.publish()
    assert lab.send("a", vm.tcp("a", "b", 22)).reached == ["b"]
    assert lab.send("b", vm.tcp("b", "c", 80)).reached == ["c"]
    change_port(cloud, "b", port_security=True, groups=("web",))
    lab.publish()
    assert lab.send("a", vm.tcp("a", "b", 22, flags=ACK)).reached == []
    assert lab.send("b", vm.tcp("b", "c", 80)).reached == []
    assert lab.send("a", vm.tcp("a", "b", 80)).reached == ["b"]


def test_groups_of_a_port_without_port_security_say_nothing(make_lab: MakeLab, family: int) -> None:
    """A goal state forbids them; a record may hold them all the same."""
    cloud = office()
    change_port(cloud, "b", port_security=False)
    lab = make_lab(cloud)
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b", 22)).reached == ["b"]
    epoch = lab.here.epoch("b")
    set_rules(cloud, "web")
    lab.publish()
    assert lab.here.epoch("b") == epoch
    assert lab.send("a", vm.tcp("a", "b", 22)).reached == ["b"]

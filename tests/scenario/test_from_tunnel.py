"""What comes out of a tunnel: for which port it is, and that it is judged."""

from __future__ import annotations

import pytest

from ondemand.addresses import link_local_of
from tests.support.cloud_edit import change_port
from tests.support.frame_builder import MAC_BROADCAST, build_icmp6
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import BLUE_VNI, RED_VNI, add_port, office
from tests.support.packet_parts import mac_bytes
from tests.support.world_builder import HERE, THERE

STRANGE_MAC = "02:00:00:00:00:66"


def test_a_frame_from_a_tunnel_needs_the_vni_of_the_port(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    frame = lab.frames(family).tcp("x", "b")
    assert lab.from_tunnel(HERE, RED_VNI, frame, THERE).reached == ["b"]
    for vni in (BLUE_VNI, 4_000, 0):
        sent = lab.from_tunnel(HERE, vni, frame, THERE)
        assert (sent.arrived, sent.packet_ins) == ((), 0)


def test_a_frame_from_a_tunnel_needs_the_mac_of_a_port(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    for mac in (mac_bytes(STRANGE_MAC), mac_bytes(MAC_BROADCAST), lab.cloud.mac("c")):
        sent = lab.from_tunnel(HERE, RED_VNI, vm.tcp("x", "b", eth_dst=mac), THERE)
        assert (sent.arrived, sent.packet_ins) == ((), 0)


def test_a_tagged_frame_from_a_tunnel_is_dropped(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    sent = lab.from_tunnel(HERE, RED_VNI, lab.frames(family).tcp("x", "b", vlan=7), THERE)
    assert (sent.arrived, sent.packet_ins) == ((), 0)


def test_a_frame_from_a_tunnel_is_judged(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    assert lab.from_tunnel(HERE, RED_VNI, vm.tcp("x", "b", 22), THERE).reached == []
    assert lab.here.count("denied.no_rule", "b") == 1
    assert lab.from_tunnel(HERE, RED_VNI, vm.tcp("x", "b", 80), THERE).reached == ["b"]


def test_a_router_advertisement_from_a_tunnel_is_dropped(make_lab: MakeLab) -> None:
    cloud = office()
    add_port(cloud, "free", "red", 31, port_security=False)
    lab = make_lab(cloud)
    for target in ("b", "free"):
        frame = build_icmp6(
            icmp_type=134,
            body=bytes(12),
            src=link_local_of(cloud.mac("x")),
            dst=lab.frames(6).ip(target),
            ttl=255,
            eth_src=cloud.mac("x"),
            eth_dst=cloud.mac(target),
        )
        assert lab.from_tunnel(HERE, RED_VNI, frame, THERE).arrived == ()


# -- a MAC that ports share ------------------------------------------------------------------------

VIP, VIP_MAC = {4: "10.0.1.250", 6: "fd00:1::250"}, "00:00:5e:00:01:0a"


@pytest.fixture
def vrrp(make_lab: MakeLab) -> Lab:
    """Two ports of one host share an address with a MAC of its own, as VRRP routers do."""
    cloud = office()
    for name, number in (("m1", 41), ("m2", 42)):
        pairs = [(ip, VIP_MAC) for ip in VIP.values()]
        add_port(cloud, name, "red", number, groups=("web",), pairs=pairs)
    return make_lab(cloud)


def to_vip(lab: Lab, family: int) -> list[str]:
    frame = lab.frames(family).tcp("x", "m1", dst=VIP[family], eth_dst=VIP_MAC)
    return lab.from_tunnel(HERE, RED_VNI, frame, THERE).reached


def test_a_shared_mac_leads_to_the_first_port_alone(vrrp: Lab, family: int) -> None:
    assert to_vip(vrrp, family) == ["m1"]


def test_a_shared_mac_goes_on_to_the_other_port_when_one_goes(vrrp: Lab, family: int) -> None:
    vrrp.here.unplug("m1")
    assert to_vip(vrrp, family) == ["m2"]
    vrrp.here.plug("m1")
    assert to_vip(vrrp, family) == ["m1"]
    vrrp.here.unplug("m2")
    assert to_vip(vrrp, family) == ["m1"]


def test_a_shared_mac_leaves_a_port_that_gives_up_its_pair(vrrp: Lab, family: int) -> None:
    pairs = vrrp.cloud.port_spec("m1").pairs
    change_port(vrrp.cloud, "m1", pairs=())
    vrrp.publish()
    assert to_vip(vrrp, family) == ["m2"]
    change_port(vrrp.cloud, "m1", pairs=pairs)
    vrrp.publish()
    assert to_vip(vrrp, family) == ["m1"]


def test_the_owner_of_a_mac_comes_before_who_shares_it(vrrp: Lab, family: int) -> None:
    add_port(vrrp.cloud, "owner", "red", 43, mac=VIP_MAC, groups=("web",))
    vrrp.publish()
    vrrp.here.plug("owner")
    assert to_vip(vrrp, family) == ["owner"]

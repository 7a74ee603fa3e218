"""Anti-spoofing: what a port may send as."""

from __future__ import annotations

from typing import Any

import pytest

from ondemand.addresses import link_local_of
from tests.support.cloud_edit import change_port
from tests.support.frame_builder import (
    MAC_BROADCAST,
    build_arp,
    build_ethernet,
    build_icmp6,
    build_na,
)
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import add_port, office
from tests.support.packet_parts import mac_bytes
from tests.support.world_builder import HERE, THERE, CloudBuilder

STRANGE_MAC = "02:00:00:00:00:66"
STRANGE_IP = {4: "10.0.1.66", 6: "fd00:1::66"}
PAIR = {4: "10.9.0.0/16", 6: "fd09::/32"}
IN_PAIR = {4: "10.9.1.2", 6: "fd09::2"}
PAIR_MAC = "fa:16:3e:77:77:77"


def gets_out(lab: Lab, family: int, **changes: Any) -> bool:
    """Whether a changed frame of port a gets past port security."""
    sent = lab.send("a", lab.frames(family).udp("a", "b", **changes))
    return sent.packet_ins > 0 or sent.reached != []


@pytest.mark.parametrize(
    "change",
    [{"eth_src": STRANGE_MAC}, {"src": True}, {"eth_src": STRANGE_MAC, "src": True}],
    ids=["mac", "ip", "both"],
)
def test_a_spoofed_source_is_dropped(
    make_lab: MakeLab, family: int, change: dict[str, Any]
) -> None:
    lab = make_lab(office())
    spoofed = {**change, **({"src": STRANGE_IP[family]} if "src" in change else {})}
    assert gets_out(lab, family)
    assert not gets_out(lab, family, **spoofed)


def test_the_address_of_another_port_is_dropped(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    assert not gets_out(lab, family, src=vm.ip("a2"))
    assert not gets_out(lab, family, eth_src=lab.cloud.mac("a2"))
    assert not gets_out(lab, family, src=vm.ip("a2"), eth_src=lab.cloud.mac("a2"))


# -- allowed address pairs -------------------------------------------------------------------------


def with_pairs(mac: str | None) -> CloudBuilder:
    cloud = office()
    spec = cloud.port_spec("a")
    pairs: list[Any] = list(PAIR.values()) if mac is None else [(p, mac) for p in PAIR.values()]
    add_port(cloud, "lender", "red", 60, groups=("client",), pairs=pairs)
    change_port(cloud, "a", pairs=cloud.port_spec("lender").pairs)
    if mac is None:
        own = [type(pair)(pair.prefix, spec.mac) for pair in cloud.port_spec("a").pairs]
        change_port(cloud, "a", pairs=tuple(own))
    return cloud


def test_a_pair_allows_its_prefix_with_the_port_s_mac(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_pairs(None))
    assert gets_out(lab, family, src=IN_PAIR[family])
    assert gets_out(lab, family)
    assert not gets_out(lab, family, src=STRANGE_IP[family])


def test_a_pair_binds_its_mac_and_prefix_together(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_pairs(PAIR_MAC))
    assert gets_out(lab, family, src=IN_PAIR[family], eth_src=PAIR_MAC)
    assert gets_out(lab, family)
    assert not gets_out(lab, family, src=IN_PAIR[family]), "the pair's prefix with the own MAC"
    assert not gets_out(lab, family, eth_src=PAIR_MAC), "the own address with the pair's MAC"


def test_a_pair_that_is_withdrawn_counts_no_more(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_pairs(None))
    vm = lab.frames(family)
    frame = vm.udp("a", "b", src=IN_PAIR[family])
    assert lab.send("a", frame).reached == ["b"]
    change_port(lab.cloud, "a", pairs=())
    lab.publish()
    assert lab.send("a", frame).reached == []
    assert lab.send("a", vm.udp("a", "b")).reached == ["b"]


def test_a_claimed_address_is_reached(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    shared = {4: "10.0.1.200", 6: "fd00:1::200"}
    for name, number, host in (("vip", 20, HERE), ("far", 21, THERE)):
        pairs = [shared[4], shared[6]] if name == "vip" else ["10.0.1.201", "fd00:1::201"]
        add_port(cloud, name, "red", number, host=host, groups=("web",), pairs=pairs)
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    other = {4: "10.0.1.201", 6: "fd00:1::201"}
    for name, ip in (("vip", shared[family]), ("far", other[family])):
        assert lab.send("a", vm.tcp("a", name, dst=ip)).reached == [name]
        assert lab.send(name, vm.tcp_reply(name, "a", src=ip)).reached == ["a"]
        routed = vm.tcp("a", "d", dst=ip)
        assert lab.send("a", routed).reached == [name]


# -- ARP, ND, RA, DHCP -----------------------------------------------------------------------------


def test_spoofed_arp_reaches_nobody(make_lab: MakeLab) -> None:
    """Neither a claim of another's address nor a question in another's name leaves the host."""
    lab = make_lab(office())
    vm = lab.frames(4)
    mac_a, mac_b = lab.cloud.mac("a"), lab.cloud.mac("b")
    for frame in (
        build_arp(opcode=2, sha=mac_a, spa=vm.ip("b"), tha=mac_b, tpa=vm.ip("a2")),
        build_arp(opcode=1, sha=mac_a, spa=vm.ip("b"), tpa=vm.ip("b")),
        build_arp(opcode=1, sha=mac_b, spa=vm.ip("b"), tpa=vm.gateway("a"), eth_src=mac_a),
        build_arp(opcode=1, sha=mac_a, spa=vm.gateway("a"), tpa=vm.ip("a2")),
    ):
        assert set(lab.send("a", frame).reached) <= {"a"}


def test_spoofed_neighbor_discovery_reaches_nobody(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    vm = lab.frames(6)
    mac_a = lab.cloud.mac("a")
    spoofed = build_na(
        target=vm.ip("b"), dst=vm.ip("a2"), link_layer=mac_a, eth_src=mac_a,
        eth_dst=lab.cloud.mac("a2"),
    )  # fmt: skip
    assert lab.send("a", spoofed).arrived == ()
    asked = lab.send("a", vm.who_has("a", "a2", src=vm.ip("b")))
    assert set(asked.reached) <= {"a"}


@pytest.mark.parametrize("kind", [130, 131, 132, 133, 134, 136, 137, 143])
@pytest.mark.parametrize("sender", ["a", "free"])
def test_messages_of_the_link_are_dropped(make_lab: MakeLab, kind: int, sender: str) -> None:
    """Router advertisements above all, of a port without port security too."""
    cloud = office()
    add_port(cloud, "free", "red", 31, port_security=False)
    lab = make_lab(cloud)
    mac = cloud.mac(sender)
    for dst, eth_dst in (
        ("ff02::1", mac_bytes("33:33:00:00:00:01")),
        (lab.frames(6).ip("b"), cloud.mac("b")),
    ):
        frame = build_icmp6(
            icmp_type=kind,
            body=bytes(20),
            src=link_local_of(mac),
            dst=dst,
            ttl=255,
            eth_src=mac,
            eth_dst=eth_dst,
        )
        sent = lab.send(sender, frame)
        assert (sent.arrived, sent.packet_ins) == ((), 0)


def test_link_local_addresses_may_be_sent_from(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    assert gets_out(lab, 6, src=link_local_of(lab.cloud.mac("a")))
    assert not gets_out(lab, 6, src=link_local_of(lab.cloud.mac("b")))


def test_frames_with_a_tag_are_dropped(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    add_port(cloud, "free", "red", 31, port_security=False)
    lab = make_lab(cloud)
    vm = lab.frames(family)
    for sender in ("a", "free"):
        for frame in (
            vm.udp(sender, "b", vlan=7),
            vm.udp(sender, "b", vlan=0),
            vm.who_has(sender, "b", vlan=7),
        ):
            sent = lab.send(sender, frame)
            assert (sent.arrived, sent.packet_ins) == ((), 0)


def test_other_ethertypes_are_dropped(make_lab: MakeLab) -> None:
    cloud = office()
    add_port(cloud, "free", "red", 31, port_security=False)
    lab = make_lab(cloud)
    for sender in ("a", "free"):
        for eth_type in (0x88CC, 0x8847, 0x0700):
            frame = build_ethernet(
                eth_type, bytes(46), eth_src=cloud.mac(sender), eth_dst=MAC_BROADCAST
            )
            sent = lab.send(sender, frame)
            assert (sent.arrived, sent.packet_ins) == ((), 0)

"""A port may always be a DHCP client, and never a server, whatever its groups say."""

from __future__ import annotations

from tests.support.cloud_edit import change_port, set_rules
from tests.support.frame_builder import MAC_BROADCAST, build_udp4, build_udp6
from tests.support.lab import MakeLab
from tests.support.office_cloud import add_port, both, office
from tests.support.world_builder import HERE


def test_a_port_may_always_be_a_dhcp_client(make_lab: MakeLab, family: int) -> None:
    """Where the question goes is not the agent's; that no policy stops it is seen by its counter."""
    cloud = office()
    change_port(cloud, "a", groups=())
    lab = make_lab(cloud)
    mac = cloud.mac("a")
    if family == 4:
        frame = build_udp4(
            src="0.0.0.0",
            dst="255.255.255.255",
            tp_src=68,
            tp_dst=67,
            eth_src=mac,
            eth_dst=MAC_BROADCAST,
        )
    else:
        source = bytes.fromhex("fe80000000000000") + bytes((mac[0] ^ 2, mac[1], mac[2], 0xFF, 0xFE))
        frame = build_udp6(
            src=source + mac[3:],
            dst="ff02::1:2",
            tp_src=546,
            tp_dst=547,
            eth_src=mac,
            eth_dst="33:33:00:01:00:02",
        )
    lab.send("a", frame)
    assert lab.here.rules("_allow") != []
    assert lab.here.count("no_location.multicast", "a") == 1


def test_a_dhcp_relay_is_reached_and_its_answer_passes(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    add_port(cloud, "dhcp", "red", 3, host=HERE, port_security=False)
    change_port(cloud, "a", groups=())
    lab = make_lab(cloud)
    vm = lab.frames(family)
    client, server = (68, 67) if family == 4 else (546, 547)
    ask = vm.udp("a", "dhcp", server, tp_src=client)
    assert lab.send("a", ask).reached == ["dhcp"]
    tell = vm.udp("dhcp", "b", client, tp_src=server)
    assert lab.send("dhcp", tell).reached == ["b"], "a client gets what a server sends first"
    assert lab.send("dhcp", vm.udp("dhcp", "b", client, tp_src=999)).reached == []


def test_a_port_is_never_a_dhcp_server(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    client, server = (68, 67) if family == 4 else (546, 547)
    assert lab.send("a", vm.udp("a", "b", client, tp_src=server)).reached == []
    assert lab.here.count("denied.dhcp_server", "a") == 1


def test_a_client_without_an_address_reaches_a_server_that_lets_it(make_lab: MakeLab) -> None:
    """Its answer has no way of its own: nobody is at 0.0.0.0."""
    cloud = office()
    set_rules(cloud, "web", *both("ingress", "udp", 67, rule_id="dhcp"))
    lab = make_lab(cloud)
    frame = build_udp4(
        src="0.0.0.0",
        dst=lab.frames(4).ip("b"),
        tp_src=68,
        tp_dst=67,
        eth_src=cloud.mac("a"),
        eth_dst=cloud.mac("b"),
    )
    for _ in range(2):
        assert lab.send("a", frame).reached == ["b"]
    assert len(lab.here.rules("location")) == 1

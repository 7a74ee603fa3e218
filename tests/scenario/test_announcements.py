"""RARP and gratuitous ARP of VMs: they go nowhere, and make the host ask for what it may have missed."""

from __future__ import annotations

import pytest

from ondemand.messages import Heal
from tests.support.cloud_edit import change_port
from tests.support.frame_builder import build_arp, build_ethernet
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import office
from tests.support.world_builder import HERE, THERE

RARP = 0x8035


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), hosts=(HERE, THERE))


def rarp(lab: Lab, port: str, **changes: bytes) -> bytes:
    mac = lab.cloud.mac(port)
    packet = build_arp(opcode=3, sha=mac, spa="0.0.0.0", tha=mac, tpa="0.0.0.0")[14:]
    return build_ethernet(RARP, packet, **{"eth_src": mac, "eth_dst": b"\xff" * 6, **changes})


def gratuitous(lab: Lab, port: str, ip: bytes | None = None) -> bytes:
    own = lab.cloud.port_spec(port).fixed_ips[0] if ip is None else ip
    return build_arp(sha=lab.cloud.mac(port), spa=own, tpa=own)


def heals(lab: Lab) -> list[str]:
    return [request.slice for request in lab.here.feed.asked if isinstance(request, Heal)]


@pytest.mark.parametrize("announce", [rarp, gratuitous])
def test_an_announcement_reaches_nobody_and_asks_for_news(lab: Lab, announce) -> None:
    assert lab.send("a", announce(lab, "a")).arrived == ()
    assert lab.here.count("announced", "a") == 1
    assert "host/here" in heals(lab)


def test_a_move_that_was_missed_is_made_up_for(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE))
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    lab.hosts[THERE].unplug("c")
    lab.here.plug("c")
    change_port(lab.cloud, "c", host=HERE)
    lab.here.delayed = True
    lab.publish()
    lab.here.feed.inbox.clear()  # nothing of it arrives
    lab.here.delayed = False
    lab.here.is_unaware = True
    assert "c" not in lab.here.engine.world.ports
    lab.send("a", gratuitous(lab, "a"))
    assert "c" in lab.here.engine.world.ports
    lab.here.is_unaware = False
    lab.here.feed.remind()
    lab.here.deliver()
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]


def test_many_announcements_ask_once_a_second(lab: Lab) -> None:
    frames = [rarp(lab, "a") for _ in range(5)]
    lab.send("a", *frames)
    assert lab.here.count("announced", "a") == 5
    assert heals(lab).count("host/here") == 1
    lab.advance(1.1)
    lab.send("a", rarp(lab, "a"))
    assert heals(lab).count("host/here") == 2


def test_nobody_announces_for_another(lab: Lab) -> None:
    lab.send("a", rarp(lab, "a", eth_src=lab.cloud.mac("b")))
    other = lab.cloud.port_spec("a2").fixed_ips[0]
    lab.send("a", gratuitous(lab, "a", other))
    assert lab.here.count("announced") == 0

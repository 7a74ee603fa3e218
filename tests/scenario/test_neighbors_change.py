"""Neighbors that appear, move, change and vanish while rules about them are installed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ondemand.codec import encode_record
from ondemand.records import Neighbor, Record
from tests.support.cloud_edit import change_port, remove_port
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import NOBODY, add_port, office
from tests.support.packet_parts import mac_bytes
from tests.support.world_builder import ELSEWHERE, HERE, THERE


def encode(records: Mapping[str, Record]) -> dict[str, bytes]:
    return {key: encode_record(record) for key, record in records.items()}


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), hosts=(HERE, THERE, ELSEWHERE))


@pytest.mark.parametrize("port", ["c", "e"])
def test_a_neighbor_that_moves_is_reached_at_its_new_host(lab: Lab, family: int, port: str) -> None:
    vm = lab.frames(family)
    frame = vm.udp("a", port)
    assert lab.send("a", frame).reached == [port]
    rules = len(lab.here.rules())
    change_port(lab.cloud, port, host=ELSEWHERE)
    lab.publish()
    lab.hosts[THERE].unplug(port)
    lab.hosts[ELSEWHERE].plug(port)
    sent = lab.send("a", frame)
    assert sent.reached == [port]
    assert [host for host, _ in sent.moves.packet_ins] == [ELSEWHERE], "rewritten in place"
    assert len(lab.here.rules()) == rules


def test_a_neighbor_that_moves_here(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]
    change_port(lab.cloud, "c", host=HERE)
    lab.publish()
    assert lab.send("a", vm.udp("a", "c")).reached == [], "bound here, and not yet plugged"
    lab.hosts[THERE].unplug("c")
    lab.here.plug("c")
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]


def test_a_local_port_that_moves_away(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.udp("a", "b")).reached == ["b"]
    change_port(lab.cloud, "b", host=THERE)
    lab.here.unplug("b")
    lab.publish()
    lab.hosts[THERE].plug("b")
    assert lab.send("a", vm.udp("a", "b")).reached == ["b"]
    assert lab.send("b", vm.udp_reply("b", "a")).reached == ["a"]


def test_a_port_that_is_plugged_at_its_new_host_before_its_record_says_so(
    lab: Lab, family: int
) -> None:
    """During a migration both hosts may have it; the one that has it serves its own VMs."""
    vm = lab.frames(family)
    change_port(lab.cloud, "c", host=HERE)
    records = lab.cloud.slices()["host/here"]
    lab.write("host/here", lab.changes("host/here", encode(records)))
    lab.hosts[THERE].unplug("c")
    lab.here.plug("c")
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]
    lab.publish()
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]


@pytest.mark.parametrize("kind", ["packet", "routed packet", "question"])
def test_a_neighbor_that_appears_is_reached_at_once(lab: Lab, family: int, kind: str) -> None:
    vm = lab.frames(family)
    mac = mac_bytes("fa:16:3e:00:99:99")
    if kind == "routed packet":
        frame = vm.udp("a", "d", dst={4: "10.0.2.99", 6: "fd00:2::99"}[family])
    elif kind == "packet":
        frame = vm.udp("a", "b", dst=NOBODY[family], eth_dst=mac)
    else:
        frame = vm.duplicate_test("a", vm.ip("a")[:-1] + b"\x99")
    for _ in range(2):
        assert lab.send("a", frame).reached == []
    rules = lab.here.rules("deny")
    subnet = "blue" if kind == "routed packet" else "red"
    if kind == "question":
        ips = {4: ("10.0.1.153", "fd00:1::153"), 6: ("10.0.1.153", "fd00:1::99")}[family]
        lab.cloud.port("new", "red", *ips, host=THERE, groups=("web",))
    else:
        add_port(lab.cloud, "new", subnet, 99, host=THERE, mac=mac.hex(":"), groups=("web",))
    lab.publish()
    lab.hosts[THERE].plug("new")
    assert not set(rules) & set(lab.here.rules()), "the negative rule is gone at once"
    expected = ["a"] if kind == "question" else ["new"]
    sent = lab.send("a", frame)
    assert sent.reached == expected
    assert HERE not in [host for host, _ in sent.moves.packet_ins]


def test_a_neighbor_that_vanishes_is_reached_no_more(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    frame = vm.udp("a", "c")
    assert lab.send("a", frame).reached == ["c"]
    remove_port(lab.cloud, "c")
    lab.publish()
    assert lab.send("a", frame).reached == []
    sent = lab.send("a", frame)
    assert (sent.reached, sent.packet_ins) == ([], 0)
    assert any("location_deny" in name for name in sent.dropped_by)


def test_an_address_that_changes_hands(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    frame = vm.udp("a", "c")
    assert lab.send("a", frame).reached == ["c"]
    ips = lab.cloud.port_spec("c").fixed_ips
    change_port(lab.cloud, "c", fixed_ips=())
    change_port(lab.cloud, "x", fixed_ips=ips, groups=("web",))
    lab.publish()
    assert lab.send("a", frame).reached == [], "the MAC is another one"
    asked = lab.send("a", vm.who_has("a", ips[0 if family == 4 else 1]))
    assert asked.frame[6:12] == lab.cloud.mac("x")
    assert lab.send("a", vm.udp("a", "x")).reached == ["x"]


def test_a_neighbor_written_alike_changes_nothing(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    before = lab.here.switch.dump()
    spec = lab.cloud.port_spec("c")
    for ip in spec.fixed_ips:
        record = Neighbor(ip, spec.mac, spec.subnet.id, "c", spec.host.tunnel, spec.groups)
        name = "nbr/vpc-1/" + ("10.0.1.0" if len(ip) == 4 else "fd00:1::")
        assert record.key in lab.store.records(name)
        lab.write(name, encode({record.key: record}))
    assert lab.here.switch.dump() == before


def test_a_neighbor_of_which_nobody_asked_is_not_held(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    held = lab.here.engine.cache.neighbors_held
    add_port(lab.cloud, "new", "red", 98, host=THERE)
    lab.publish()
    assert lab.here.engine.cache.neighbors_held == held

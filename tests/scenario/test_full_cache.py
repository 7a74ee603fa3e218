"""Neighbors leave a cache that is full, and nothing may rest on them any more."""

from __future__ import annotations

from ondemand.settings import Settings
from tests.support.cloud_edit import change_port, set_rules
from tests.support.lab import MakeLab
from tests.support.office_cloud import add_port, both, office
from tests.support.packet_parts import ACK, SYN
from tests.support.world_builder import ELSEWHERE, HERE, THERE


def test_what_leaves_the_cache_takes_its_rules_along(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    for number in range(100, 220):
        add_port(cloud, f"n{number}", "red", number, host=THERE)
    lab = make_lab(cloud, settings=Settings(neighbor_cache_bytes=65_536))
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    first = lab.here.rules("location")
    for number in range(100, 220):
        lab.send("a", vm.udp("a", f"n{number}"))
    assert not set(first) & set(lab.here.rules())
    assert lab.here.count("cache.dropped") > 0
    assert lab.here.engine.cache.neighbor_bytes <= 65_536
    lab.check()
    again = lab.send("a", vm.udp("a", "c"))
    assert again.packet_ins == 1
    assert any(getattr(outcome, "tun_dst", None) for _, outcome in again.moves.outcomes)


def test_a_record_that_left_and_changed_is_read_anew(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    for number in range(100, 220):
        add_port(cloud, f"n{number}", "red", number, host=THERE)
    lab = make_lab(
        cloud, hosts=(HERE, THERE, ELSEWHERE), settings=Settings(neighbor_cache_bytes=65_536)
    )
    vm = lab.frames(family)
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]
    for number in range(100, 220):
        lab.send("a", vm.udp("a", f"n{number}"))
    change_port(cloud, "c", host=ELSEWHERE)
    lab.hosts[THERE].unplug("c")
    lab.publish()
    lab.hosts[ELSEWHERE].plug("c")
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]


def test_a_member_whose_record_left_the_cache_and_who_leaves_the_group_is_cut(
    make_lab: MakeLab, family: int
) -> None:
    cloud = office()
    cloud.group("admins", *both("egress", rule_id="out"))
    set_rules(cloud, "web", *both("ingress", "tcp", 22, rule_id="ssh", group="admins"))
    add_port(cloud, "m", "red", 50, host=THERE, groups=("admins",))
    for number in range(100, 220):
        add_port(cloud, f"n{number}", "red", number, host=THERE)
    settings = Settings(neighbor_cache_bytes=65_536)
    lab = make_lab(cloud, hosts=(HERE, THERE), settings=settings)
    vm = lab.frames(family)
    syn, ack = vm.tcp("m", "b", 22), vm.tcp("m", "b", 22, flags=ACK)
    assert lab.send("m", syn).reached == ["b"]
    assert lab.send("b", vm.tcp_reply("b", "m", 22, flags=SYN | ACK)).reached == ["m"]
    assert lab.send("m", ack).reached == ["b"]
    for number in range(100, 220):
        lab.send("a", vm.udp("a", f"n{number}"))
    change_port(cloud, "m", groups=("client",))
    lab.publish()
    lab.advance(2)
    assert lab.send("m", ack).reached == []


def test_a_port_that_goes_before_its_epoch_would_move(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    set_rules(cloud, "web", *both("ingress", "tcp", 22, rule_id="ssh", group="client"))
    for number in range(100, 220):
        add_port(cloud, f"n{number}", "red", number, host=THERE)
    lab = make_lab(cloud, settings=Settings(neighbor_cache_bytes=65_536))
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b", 22)).reached == ["b"]
    epochs = lab.here.epoch("b"), lab.here.epoch("d")
    for number in range(100, 220):
        lab.send("a", vm.udp("a", f"n{number}"))
    lab.here.unplug("b")
    lab.here.plug("b")
    plugged = lab.here.epoch("b")
    lab.advance(2)
    assert lab.here.epoch("b") == plugged, "a port that came since then has nothing to look at"
    assert lab.here.epoch("d") != epochs[1]


def test_a_shard_of_which_nothing_is_held_is_forgotten(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    for number in range(100, 220):
        add_port(cloud, f"n{number}", "blue", number, host=THERE)
    lab = make_lab(cloud, settings=Settings(neighbor_cache_bytes=65_536))
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    red = "nbr/vpc-1/" + ("10.0.1.0" if family == 4 else "fd00:1::")
    assert red in lab.here.feed.follows
    for number in range(100, 220):
        lab.send("a", vm.udp("a", f"n{number}"))
    assert red not in lab.here.feed.follows
    assert lab.send("a", vm.udp("a", "c")).packet_ins == 1
    assert red in lab.here.feed.follows


def test_a_port_that_asks_for_much_costs_no_other_port_a_record(
    make_lab: MakeLab, family: int
) -> None:
    cloud = office()
    for number in range(100, 220):
        add_port(cloud, f"n{number}", "blue", number, host=THERE)
    lab = make_lab(cloud, settings=Settings(neighbor_cache_bytes=65_536))
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    mine = lab.here.rules()
    for number in range(100, 220):
        lab.send("d", vm.who_has("d", f"n{number}"))
    assert lab.here.count("cache.dropped") > 0
    assert set(mine) <= set(lab.here.rules())
    assert lab.send("a", vm.udp("a", "c")).packet_ins == 0

"""Members that join and leave a remote group, and addresses that are claimed."""

from __future__ import annotations

import pytest

from tests.support.cloud_edit import change_port
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import add_port, both, one_server
from tests.support.packet_parts import ACK
from tests.support.world_builder import HERE, THERE, CloudBuilder


def reaches(lab: Lab, family: int, src: str, tp_dst: int = 80) -> bool:
    return lab.send(src, lab.frames(family).tcp(src, "s", tp_dst)).reached == ["s"]


@pytest.mark.parametrize("joins", ["y", "x"])
def test_who_joins_a_group_is_let_in_at_once(make_lab: MakeLab, family: int, joins: str) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    change_port(cloud, joins, groups=("out",))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    assert not reaches(lab, family, joins)
    epoch = lab.here.epoch("s")
    change_port(cloud, joins, groups=("out", "staff"))
    lab.publish()
    assert reaches(lab, family, joins)
    assert lab.here.epoch("s") == epoch, "widening moves no epoch"


@pytest.mark.parametrize("leaves", ["a", "x"])
def test_who_leaves_a_group_is_cut_off_and_others_go_on(
    make_lab: MakeLab, family: int, leaves: str
) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    change_port(cloud, "y", groups=("out", "staff"))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    for src in (leaves, "y"):
        assert reaches(lab, family, src)
        assert lab.send("s", vm.tcp_reply("s", src)).reached == [src]
    change_port(cloud, leaves, groups=("out",))
    lab.publish()
    assert lab.send("s", vm.tcp_reply("s", leaves)).reached == []
    assert not reaches(lab, family, leaves)
    assert lab.send("s", vm.tcp_reply("s", "y")).reached == ["y"]
    assert reaches(lab, family, "y")


def test_who_leaves_a_group_is_cut_off_though_the_rule_had_idled_out(
    make_lab: MakeLab, family: int
) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    lab = make_lab(cloud)
    vm = lab.frames(family)
    assert reaches(lab, family, "a")
    lab.send("s", vm.tcp_reply("s", "a"))
    lab.send("a", vm.tcp("a", "s", flags=ACK))
    lab.advance(3600)
    assert lab.here.rules() == []
    change_port(cloud, "a", groups=("out",))
    lab.publish()
    assert lab.send("a", vm.tcp("a", "s", flags=ACK)).reached == []


def test_a_member_that_vanishes_is_cut_off(make_lab: MakeLab, family: int) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    assert reaches(lab, family, "x")
    change_port(cloud, "x", fixed_ips=())
    for name, records in cloud.slices().items():
        if name.startswith("nbr/"):
            changes = {key: None for key in lab.store.records(name) if key not in records}
            lab.write(name, changes)
    ends = {"src": "10.0.1.13" if family == 4 else "fd00:1::13"}
    frame = vm.tcp("y", "s", eth_src=cloud.mac("x"), **ends)
    assert lab.send("x", frame).reached == []


CLAIMED = {4: "10.0.1.200", 6: "fd00:1::200"}


def with_claim() -> CloudBuilder:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    change_port(cloud, "y", groups=("out",))
    add_port(cloud, "vip", "red", 20, groups=("out", "staff"), pairs=list(CLAIMED.values()))
    return cloud


def from_claimed(lab: Lab, family: int, **changes: object) -> list[str]:
    frame = lab.frames(family).tcp("vip", "s", src=CLAIMED[family], **changes)
    return lab.send("vip", frame).reached


def test_a_claimed_address_is_a_member(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_claim())
    assert from_claimed(lab, family) == ["s"]
    reply = lab.frames(family).tcp_reply("s", "vip", dst=CLAIMED[family])
    assert lab.send("s", reply).reached == ["vip"]


def test_who_comes_to_hold_a_claimed_address_ends_the_claim(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_claim())
    assert from_claimed(lab, family) == ["s"]
    add_port(lab.cloud, "owner", "red", 200, host=THERE, groups=("out",))
    lab.publish()
    assert from_claimed(lab, family, flags=ACK) == []


def test_a_claim_withdrawn_ends_the_membership(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_claim())
    assert from_claimed(lab, family) == ["s"]
    before = lab.here.epoch("s")
    change_port(lab.cloud, "vip", pairs=())
    lab.publish()
    assert from_claimed(lab, family, flags=ACK) == []
    assert lab.here.epoch("s") != before


def test_a_longer_claim_leaves_an_address_in_the_groups_of_the_wider_one(
    make_lab: MakeLab, family: int
) -> None:
    cloud = with_claim()
    pairs = cloud.port_spec("vip").pairs
    change_port(cloud, "vip", pairs=())
    add_port(cloud, "wide", "red", 21, host=THERE, groups=("staff",), pairs=["0.0.0.0/0", "::/0"])
    add_port(cloud, "free", "red", 22, port_security=False)
    lab = make_lab(cloud)
    vm = lab.frames(family)
    frame = vm.tcp("free", "s", src=CLAIMED[family], flags=ACK)
    assert lab.send("free", frame).reached == ["s"], "claimed by wide, which is staff"
    change_port(cloud, "vip", pairs=pairs, groups=("out",))
    lab.publish()
    assert lab.send("free", frame).reached == ["s"], "wide claims it as before"
    change_port(cloud, "wide", pairs=())
    lab.publish()
    assert lab.send("free", frame).reached == [], "vip claims it alone, and is none"


def test_a_claim_that_gains_a_group_moves_no_epoch(make_lab: MakeLab, family: int) -> None:
    cloud = with_claim()
    change_port(cloud, "vip", groups=("out",))
    lab = make_lab(cloud)
    assert from_claimed(lab, family) == []
    before = lab.here.epoch("s")
    change_port(cloud, "vip", groups=("out", "staff"))
    lab.publish()
    assert from_claimed(lab, family) == ["s"]
    assert lab.here.epoch("s") == before


def test_a_subnet_that_shrinks_takes_claims_out_of_groups(make_lab: MakeLab, family: int) -> None:
    cloud = with_claim()
    change_port(cloud, "vip", pairs=())
    add_port(cloud, "wide", "red", 21, host=THERE, groups=("staff",), pairs=["0.0.0.0/0", "::/0"])
    add_port(cloud, "free", "blue", 22, port_security=False)
    lab = make_lab(cloud)
    gateway = cloud.port_spec("free").subnet.gateway_mac
    frame = lab.frames(family).tcp("free", "s", src=CLAIMED[family], flags=ACK, eth_dst=gateway)
    assert lab.send("free", frame).reached == ["s"]
    cloud.subnet(
        "red",
        101,
        "10.0.1.0/25",
        "fd00:1::/120",
        gateways=("10.0.1.1", "fd00:1::1"),
    )
    lab.publish()
    assert lab.send("free", frame).reached == []


def test_a_stranger_is_no_member_by_a_pair_of_everything(make_lab: MakeLab, family: int) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    add_port(cloud, "wide", "blue", 21, groups=("staff",), pairs=["0.0.0.0/0", "::/0"])
    lab = make_lab(cloud)
    assert not reaches(lab, family, "y")
    frame = lab.frames(family).tcp("wide", "s", src={4: "192.0.2.77", 6: "2001:db8::77"}[family])
    assert lab.send("wide", frame).reached == []


def test_a_subnet_that_goes_takes_its_ports_and_claims_along(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(with_claim())
    assert from_claimed(lab, family) == ["s"]
    lab.write("vpc/vpc-1", {"subnet/red": None})
    assert lab.here.engine.world.ports == {}
    assert lab.here.rules() == []


def test_a_member_that_leaves_while_rules_are_on_their_way_is_cut_off(
    make_lab: MakeLab, family: int
) -> None:
    """What a group that has not come yet says of the member nobody knows, so all is looked at."""
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    lab = make_lab(cloud)
    vm = lab.frames(family)
    assert reaches(lab, family, "a")
    cloud.group("late")
    change_port(cloud, "s", groups=("server", "late"))
    host = lab.here
    host.delayed = True
    lab.publish()
    while any(getattr(event, "slice", "") == "host/here" for event in host.feed.inbox):
        host.deliver_one()
    change_port(cloud, "a", groups=("out",))
    lab.publish()
    held_back = [event for event in host.feed.inbox if getattr(event, "slice", "") == "sg/late"]
    assert held_back
    for event in held_back:
        host.feed.inbox.remove(event)
    host.deliver()
    host.feed.inbox.extend(held_back)
    host.delayed = False
    host.deliver()
    assert lab.send("a", vm.tcp("a", "s", flags=ACK)).reached == []

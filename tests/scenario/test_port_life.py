"""A port's record, its interface and its VPC's slice come and go in any order."""

from __future__ import annotations

import itertools

import pytest

from ondemand.codec import encode_record
from tests.support.cloud_edit import change_port, remove_group, remove_port
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import add_network, add_port, both, office
from tests.support.packet_parts import ACK
from tests.support.world_builder import HERE, THERE, CloudBuilder


def talks(lab: Lab, family: int, src: str = "a", dst: str = "b") -> bool:
    return lab.send(src, lab.frames(family).udp(src, dst)).reached == [dst]


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["host/here", "vpc/vpc-1", "sg/web", "interface"]))
)
def test_in_whatever_order_things_come(make_lab: MakeLab, order: tuple[str, ...]) -> None:
    cloud = office()
    lab = make_lab(cloud, plugged=())
    slices = {name: lab.store.records(name) for name in order if "/" in name}
    for name, records in slices.items():
        lab.write(name, dict.fromkeys(records))
    for step in order:
        if step == "interface":
            for port in ("a", "b"):
                lab.here.plug(port)
        else:
            lab.write(step, dict(slices[step]))
        lab.check()
    assert talks(lab, 4)
    assert talks(lab, 6)


def test_an_interface_without_a_record_is_told_once(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    lab = make_lab(cloud)
    lab.here.plug("new")
    add_port(cloud, "other", "red", 70)
    lab.publish()
    told = [warning for warning in lab.here.warnings if "'new'" in warning]
    assert len(told) == 1
    assert "host/here" in told[0]
    assert "new" not in lab.here.engine.world.ports
    add_port(cloud, "new", "red", 71, groups=("web",))
    lab.publish()
    assert talks(lab, family, "a", "new")
    remove_port(cloud, "new")
    lab.publish()
    told = [warning for warning in lab.here.warnings if "'new'" in warning]
    assert len(told) == 2, "it is told again when it happens again"


def test_a_record_without_an_interface_has_no_rules(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), plugged=("a",))
    assert set(lab.here.engine.world.ports) == {"a"}
    assert not talks(lab, family)
    assert lab.here.count("no_location.not_plugged", "a") == 1
    lab.here.plug("b")
    assert talks(lab, family), "the negative rule went with the cause"


@pytest.mark.parametrize("port", ["a", "b"])
def test_a_port_unplugged_leaves_nothing_behind(make_lab: MakeLab, family: int, port: str) -> None:
    lab = make_lab(office())
    assert talks(lab, family)
    zone = lab.here.zone(port)
    lab.here.unplug(port)
    assert not [line for line in lab.here.switch.dump() if f"reg6={zone:#x}" in line]
    assert not [line for line in lab.here.switch.dump() if f"reg7={zone:#x}" in line]
    assert zone not in lab.here.switch.meters
    lab.check()


def test_a_port_plugged_again_works_and_old_connections_are_judged_anew(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    assert talks(lab, family)
    old = lab.here.zone("b")
    lab.here.unplug("b")
    assert lab.send("a", vm.udp("a", "b")).reached == []
    lab.here.plug("b")
    assert lab.here.zone("b") != old
    assert talks(lab, family)
    assert lab.send("b", vm.udp_reply("b", "a")).reached == ["a"]


def test_a_port_whose_interface_gets_another_number(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b")).reached == ["b"]
    assert lab.send("b", vm.tcp_reply("b", "a")).reached == ["a"]
    zones = lab.here.zone("a"), lab.here.zone("b")
    lab.here.plug("a")
    lab.here.plug("b")
    assert (lab.here.zone("a"), lab.here.zone("b")) == zones
    assert lab.send("a", vm.tcp("a", "b", flags=ACK)).reached == ["b"], "the connection lives"
    assert lab.send("b", vm.tcp_reply("b", "a", flags=ACK)).reached == ["a"]


def test_two_ports_that_swap_their_numbers(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    first, second = lab.here.plugged["a"], lab.here.plugged["a2"]
    engine = lab.here.engine
    with lab.here.batch():
        engine.port_plugged("a", second, lab.now_s)
        engine.port_plugged("a2", first, lab.now_s)
        lab.here.plugged |= {"a": second, "a2": first}
    assert talks(lab, family, "a")
    assert talks(lab, family, "a2")


def test_a_port_plugged_as_it_was_changes_nothing(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    before = lab.here.switch.dump()
    lab.here.engine.port_plugged("a", lab.here.plugged["a"], lab.now_s)
    lab.here.flush()
    assert lab.here.switch.dump() == before


def test_an_interface_that_was_never_there_goes(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    before = lab.here.switch.dump()
    lab.here.engine.port_unplugged("ghost", lab.now_s)
    lab.here.flush()
    assert lab.here.switch.dump() == before


def test_a_subnet_that_is_missing_is_told_and_the_port_works_when_it_comes(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office())
    records = lab.store.records("vpc/vpc-1")
    lab.write("vpc/vpc-1", {"subnet/red": None})
    assert not {"a", "a2", "b"} & set(lab.here.engine.world.ports)
    told = [warning for warning in lab.here.warnings if "'red'" in warning]
    assert len(told) == 3
    assert all("vpc/vpc-1" in warning for warning in told)
    lab.write("vpc/vpc-1", {"router/r": None})
    assert len([warning for warning in lab.here.warnings if "'red'" in warning]) == 3
    lab.write("vpc/vpc-1", {"subnet/red": records["subnet/red"]})
    assert talks(lab, family)


def test_a_subnet_that_gets_another_vni(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE))
    assert talks(lab, family)
    assert talks(lab, family, "a", "c")
    lab.cloud.subnet("red", 999, "10.0.1.0/24", "fd00:1::/64", gateways=("10.0.1.1", "fd00:1::1"))
    for name in ("a", "a2", "b", "c", "x"):
        change_port(lab.cloud, name, subnet=lab.cloud._vpcs["vpc-1"].subnets["red"])
    lab.publish()
    assert talks(lab, family)
    assert talks(lab, family, "a", "c")
    assert "0x65" not in " ".join(rule for rule in lab.here.rules() if "reg5" in rule)


def test_a_port_that_moves_to_another_subnet(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    assert talks(lab, family, "a", "b")
    blue = lab.cloud.port_spec("d").subnet
    ips = tuple(lab.cloud.port_spec("d").fixed_ips[i][:-1] + b"\x77" for i in range(2))
    change_port(lab.cloud, "b", subnet=blue, fixed_ips=ips)
    lab.publish()
    assert talks(lab, family, "a", "b")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_group_that_is_missing_allows_nothing_and_is_told(
    make_lab: MakeLab, family: int, when: str
) -> None:
    cloud = office()
    change_port(cloud, "b", groups=("web", "ghost"))
    if when == "before":
        remove_group(cloud, "web")
    lab = make_lab(cloud)
    if when == "after":
        assert talks(lab, family)
        remove_group(cloud, "web")
        lab.publish()
    assert not talks(lab, family)
    if when == "before":
        assert lab.here.count("denied.group_missing", "b") == 1
    told = [warning for warning in lab.here.warnings if "port 'b' is in group" in warning]
    assert any("'web' and 'ghost'" in warning for warning in told)
    add_port(cloud, "other", "red", 70)
    lab.publish()
    again = [warning for warning in lab.here.warnings if "port 'b' is in group" in warning]
    assert again == told, "told once"
    cloud.group("web", *both("ingress", "udp", 53, rule_id="dns"))
    cloud.group("ghost")
    lab.publish()
    assert talks(lab, family)


def test_a_missing_group_is_told_whenever_its_slice_comes(make_lab: MakeLab) -> None:
    """The group's slice may be the last to arrive."""
    cloud = office()
    change_port(cloud, "b", groups=("ghost",))
    lab = make_lab(cloud, plugged=())
    host = lab.here
    host.delayed = True
    host.plug("b")
    while host.feed.inbox:
        names = [getattr(event, "slice", "") for event in host.feed.inbox]
        other = [at for at, name in enumerate(names) if name != "sg/ghost"]
        host.deliver_one(other[0] if other else 0)
    assert [warning for warning in host.warnings if "'ghost'" in warning]
    host.delayed = False


def test_while_a_group_has_not_come_packets_wait(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    cloud.group("late", *both("ingress", "udp", 53, rule_id="dns"))
    lab = make_lab(cloud)
    host = lab.here
    change_port(cloud, "b", groups=("late",))
    host.delayed = True
    lab.publish()
    while any(getattr(event, "slice", "") != "sg/late" for event in host.feed.inbox):
        names = [getattr(event, "slice", "") for event in host.feed.inbox]
        host.deliver_one(next(at for at, name in enumerate(names) if name != "sg/late"))
    assert not talks(lab, family)
    while host.feed.inbox and host.engine.parked == 0:
        host.deliver_one()
    assert host.engine.parked == 1
    names = [getattr(event, "slice", "") for event in host.feed.inbox]
    host.delayed = False
    sent = lab._sent(host.deliver())
    assert sent.reached == ["b"]


def test_slices_of_nobody_are_not_followed(make_lab: MakeLab) -> None:
    lab = make_lab(office(), plugged=())
    assert lab.here.feed.follows == ["host/here"]
    lab.here.plug("a")
    assert lab.here.feed.follows == ["host/here", "sg/client", "vpc/vpc-1"]
    lab.here.plug("b")
    assert lab.here.feed.follows == ["host/here", "sg/client", "sg/web", "vpc/vpc-1"]
    lab.here.unplug("a")
    assert lab.here.feed.follows == ["host/here", "sg/web", "vpc/vpc-1"]
    lab.here.unplug("b")
    assert lab.here.feed.follows == ["host/here"]
    assert lab.here.engine.world.policies_in_use() == 0


def test_zones_are_unlike_and_a_reused_one_is_cold(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    zones = {lab.here.zone(port) for port in lab.here.plugged}
    assert len(zones) == 4
    for _ in range(3):
        lab.here.unplug("b")
        lab.here.plug("b")
        assert lab.here.zone("b") not in zones
        zones.add(lab.here.zone("b"))


def test_when_all_zones_are_taken_a_port_is_told_so(
    make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch, family: int
) -> None:
    monkeypatch.setattr("ondemand.local_ports.MAX_ZONE", 2)
    cloud = CloudBuilder()
    add_network(cloud)
    cloud.group("all", *both("egress", rule_id="out"), *both("ingress", rule_id="in"))
    for number in range(1, 4):
        add_port(cloud, f"p{number}", "red", 10 + number, groups=("all",))
    lab = make_lab(cloud, plugged=())
    for number in range(1, 4):
        lab.here.plug(f"p{number}")
    (told,) = lab.here.warnings
    assert "'p3'" in told
    assert "zones" in told
    lab.here.unplug("p1")
    lab.write("vpc/vpc-1", {"router/r": None})
    assert lab.here.zone("p3") == 1
    assert talks(lab, family, "p2", "p3")


def test_a_record_that_is_no_port_is_none(make_lab: MakeLab) -> None:
    """What the key says is checked at the border, so such a record counts as missing."""
    cloud = office()
    lab = make_lab(cloud)
    subnet = cloud.port_spec("a").subnet
    lab.write("host/here", {"port/a": encode_record(subnet)})
    assert "a" not in lab.here.engine.world.ports
    lab.write("host/here", {"port/a": encode_record_of(cloud, "a")})
    assert "a" in lab.here.engine.world.ports


def encode_record_of(cloud: CloudBuilder, port: str) -> bytes:
    return encode_record(cloud.slices()["host/here"][f"port/{port}"])

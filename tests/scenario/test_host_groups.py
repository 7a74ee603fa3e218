"""Hosts of a group share the slice that has their ports; a record in the host's own slice names it."""

from __future__ import annotations

import itertools

import pytest

from ondemand.codec import encode_record
from ondemand.messages import Follow, Forget, Heal
from ondemand.records import HostGroup
from tests.support.cloud_edit import change_port, remove_port
from tests.support.frame_builder import build_arp
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import add_port, office
from tests.support.packet_parts import ACK
from tests.support.world_builder import HERE, THERE, TUNNELS, CloudBuilder

RACK = "hostgroup/rack"
MEMBER = HostGroup("rack")


def rack(*hosts: str) -> CloudBuilder:
    cloud = office()
    for host in hosts or (HERE, THERE):
        cloud.set_host_group(host, "rack")
    return cloud


def talks(lab: Lab, family: int, src: str = "a", dst: str = "b") -> bool:
    return lab.send(src, lab.frames(family).udp(src, dst)).reached == [dst]


def publish_at_once(lab: Lab) -> None:
    """As one transaction: nobody reads a slice before all are written."""
    for host in lab.hosts.values():
        host.delayed = True
    lab.publish()
    for host in lab.hosts.values():
        host.delayed = False
        host.deliver()


def connect(lab: Lab, family: int, src: str = "a", dst: str = "b") -> None:
    """A TCP connection, answered."""
    vm = lab.frames(family)
    assert lab.send(src, vm.tcp(src, dst)).reached == [dst]
    assert lab.send(dst, vm.tcp_reply(dst, src)).reached == [src]


def goes_on(lab: Lab, family: int, src: str = "a", dst: str = "b") -> bool:
    return lab.send(src, lab.frames(family).tcp(src, dst, flags=ACK)).reached == [dst]


def served(lab: Lab, host: str = HERE) -> set[str]:
    return set(lab.hosts[host].engine.world.ports)


def test_ports_of_a_group_are_served_and_published_once(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(rack(), hosts=(HERE, THERE))
    assert set(lab.store.records("host/here")) == {"group/rack"}
    assert served(lab) == {"a", "a2", "b", "d"}
    assert talks(lab, family)
    assert talks(lab, family, "a", "c"), "over VXLAN to a port of the other host"
    assert RACK in lab.here.feed.follows


def test_a_group_is_followed_before_anything_is_plugged(make_lab: MakeLab) -> None:
    lab = make_lab(rack(), plugged=())
    assert lab.here.feed.follows == ["host/here", RACK]


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["host/here", RACK, "vpc/vpc-1", "interface"]))
)
def test_in_whatever_order_things_come(make_lab: MakeLab, order: tuple[str, ...]) -> None:
    lab = make_lab(rack(), plugged=())
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


def test_an_interface_may_be_plugged_on_any_host_of_the_group(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(rack(), hosts=(HERE, THERE))
    assert "c" not in served(lab)
    assert "c" in served(lab, THERE)
    lab.hosts[THERE].unplug("c")
    lab.here.plug("c")
    assert "c" in served(lab)
    assert talks(lab, family, "a", "c"), "its own host finds it at once"
    assert not talks(lab, family, "x", "c"), "the others when its neighbor records have followed"
    version = lab.store.version(RACK)
    change_port(lab.cloud, "c", host=HERE)
    lab.publish()
    assert lab.store.version(RACK) == version, "the group has known it all along"
    assert talks(lab, family, "x", "c")


def test_an_interface_of_another_group_gets_no_rules(make_lab: MakeLab, family: int) -> None:
    cloud = rack(HERE)
    cloud.set_host_group(THERE, "row")
    lab = make_lab(cloud)
    lab.here.plug("c")
    assert "c" not in served(lab)
    (told,) = [warning for warning in lab.here.warnings if "'c'" in warning]
    assert "neither slice 'host/here' nor 'hostgroup/rack' has such a port" in told
    assert not talks(lab, family, "a", "c")


def test_a_host_that_joins_knows_the_ports_and_one_that_leaves_forgets_them(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(rack(HERE), hosts=(HERE, THERE))
    lab.here.plug("c")
    assert "c" not in served(lab)
    lab.cloud.set_host_group(THERE, "rack")
    publish_at_once(lab)
    assert "c" in served(lab)
    assert talks(lab, family, "a", "c")
    zone = lab.here.zone("c")
    lab.cloud.set_host_group(THERE, None)
    publish_at_once(lab)
    assert "c" not in served(lab)
    assert not [line for line in lab.here.switch.dump() if f"reg6={zone:#x}" in line]
    # The host itself leaves: all of its ports but those of its own slice are gone.
    lab.write("host/here", {"group/rack": None})
    assert served(lab) == set()
    assert lab.here.rules() == []
    assert Forget(RACK) in lab.here.feed.asked
    assert RACK not in lab.here.engine.cache.versions()
    lab.write("host/here", {"group/rack": encode_record(MEMBER)})
    assert served(lab) == {"a", "a2", "b", "d"}
    assert talks(lab, family)


def test_live_connections_outlast_the_move_into_a_group_and_out_of_it(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office())
    connect(lab, family)
    before = (lab.here.zone("a"), lab.here.epoch("a"), lab.here.zone("b"), lab.here.epoch("b"))
    static = {cookie for cookie, _ in lab.here.engine.installer.static_rules()}
    for group in ("rack", "row", None):
        lab.cloud.set_host_group(HERE, group)
        publish_at_once(lab)
        lab.check()
        assert goes_on(lab, family)
        after = (lab.here.zone("a"), lab.here.epoch("a"), lab.here.zone("b"), lab.here.epoch("b"))
        assert after == before
    assert {cookie for cookie, _ in lab.here.engine.installer.static_rules()} == static


def test_until_the_group_s_slice_is_here_its_ports_stay_as_they_are(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office())
    connect(lab, family)
    lab.cloud.set_host_group(HERE, "rack")
    lab.here.delayed = True
    lab.publish()
    lab.here.deliver_one()
    assert set(lab.store.records("host/here")) == {"group/rack"}
    assert lab.here.engine.cache.whole(RACK) is None
    assert goes_on(lab, family)
    assert not [warning for warning in lab.here.warnings if "has no such port" in warning]
    # What the slice then does not have, is gone.
    frame = lab.frames(family).tcp("a", "b", flags=ACK)
    remove_port(lab.cloud, "b")
    lab.publish()
    lab.here.delayed = False
    lab.here.deliver()
    assert served(lab) == {"a", "a2", "d"}
    assert lab.send("a", frame).reached == []


def test_a_group_that_nobody_has_published_has_no_ports(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    connect(lab, family)
    lab.write("host/here", {"group/ghost": encode_record(HostGroup("ghost"))})
    assert lab.here.engine.cache.whole("hostgroup/ghost") == {}
    assert served(lab) == {"a", "a2", "b", "d"}
    assert goes_on(lab, family)
    lab.write("host/here", {"port/b": None})
    assert "b" not in served(lab)
    assert not goes_on(lab, family)


def test_a_port_in_two_places_is_that_of_the_host_and_stays_when_one_of_them_goes(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(rack(HERE))
    connect(lab, family)
    zone, epoch = lab.here.zone("b"), lab.here.epoch("b")
    record = lab.store.records(RACK)["port/b"]
    lab.write("host/here", {"port/b": record})
    lab.write(RACK, {"port/b": None})
    assert (lab.here.zone("b"), lab.here.epoch("b")) == (zone, epoch)
    assert goes_on(lab, family)
    lab.write(RACK, {"port/b": record})
    lab.write("host/here", {"port/b": None})
    assert (lab.here.zone("b"), lab.here.epoch("b")) == (zone, epoch)
    assert goes_on(lab, family)


def test_of_two_groups_the_first_one_tells_what_a_port_is(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(rack(HERE))
    port = lab.store.records(RACK)["port/b"]
    lab.write("hostgroup/aisle", {"port/b": port})
    lab.write("host/here", {"group/aisle": encode_record(HostGroup("aisle"))})
    connect(lab, family)
    # In the later one it is in another security group; nobody asks it.
    change_port(lab.cloud, "b", groups=("client",))
    lab.publish_slice(RACK, lab.cloud.slices()[RACK])
    assert lab.here.engine.world.ports["b"].record.groups == ("web",)
    assert goes_on(lab, family)
    lab.write("host/here", {"group/aisle": None})
    assert lab.here.engine.world.ports["b"].record.groups == ("client",)
    assert not goes_on(lab, family), "as a client it lets nobody in"


def test_bad_records_count_as_missing(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(rack(HERE))
    connect(lab, family)
    lab.write(RACK, {"port/b": b"rubbish", "group/row": encode_record(HostGroup("row"))})
    assert served(lab) == {"a", "a2", "d"}
    assert lab.here.count("bad_record") == 2
    lab.write("host/here", {"group/rack": b"rubbish"})
    assert served(lab) == set()
    lab.write("host/here", {"group/rack": encode_record(MEMBER)})
    assert served(lab) == {"a", "a2", "d"}


def test_a_port_s_change_in_the_group_reaches_its_rules(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(rack(HERE))
    connect(lab, family)
    change_port(lab.cloud, "b", groups=("client",))
    lab.publish()
    assert not goes_on(lab, family)


def test_membership_that_flaps_ends_with_the_truth(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(rack(HERE))
    connect(lab, family)
    lab.here.delayed = True
    for _ in range(3):
        lab.write("host/here", {"group/rack": None})
        lab.write("host/here", {"group/rack": encode_record(MEMBER)})
    lab.here.delayed = False
    lab.here.deliver()
    assert served(lab) == {"a", "a2", "b", "d"}
    assert talks(lab, family)
    assert lab.here.feed.follows.count(RACK) == 1


@pytest.mark.parametrize("fresh", [False, True])
def test_a_restart_takes_over_the_ports_of_a_group(
    make_lab: MakeLab, family: int, *, fresh: bool
) -> None:
    lab = make_lab(rack(), hosts=(HERE, THERE))
    connect(lab, family)
    before = {str(rule) for _, rule in lab.here.switch.rules()}
    zone = lab.here.zone("b")
    lab.here.kill_agent()
    lab.here.start_agent(fresh=fresh)
    assert lab.here.zone("b") == zone
    assert goes_on(lab, family)
    assert lab.here.count("adopted.deleted") == 0
    if not fresh:
        assert {str(rule) for _, rule in lab.here.switch.rules()} == before
        follows = [one for one in lab.here.feed.asked if isinstance(one, Follow)]
        assert Follow(RACK, lab.store.version(RACK)) in follows, "from where it was saved"


@pytest.mark.parametrize("group", ["row", None])
def test_a_host_that_changed_its_group_while_no_agent_ran_keeps_its_connections(
    make_lab: MakeLab, family: int, group: str | None
) -> None:
    lab = make_lab(rack(HERE))
    connect(lab, family)
    zone = lab.here.zone("b")
    lab.here.kill_agent()
    lab.cloud.set_host_group(HERE, group)
    lab.publish()
    lab.here.start_agent()
    assert lab.here.zone("b") == zone
    assert goes_on(lab, family)
    assert RACK not in lab.here.engine.cache.versions()


def test_a_port_that_left_the_group_while_no_agent_ran_is_cut(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(rack(HERE))
    connect(lab, family)
    frame = lab.frames(family).tcp("a", "b", flags=ACK)
    lab.here.kill_agent()
    remove_port(lab.cloud, "b")
    add_port(lab.cloud, "b2", "red", 70, groups=("web",))
    lab.publish()
    lab.here.start_agent()
    assert lab.send("a", frame).reached == []
    lab.here.plug("b2")
    assert talks(lab, family, "a", "b2")


def test_an_announcement_asks_for_the_group_s_slice_too(make_lab: MakeLab) -> None:
    lab = make_lab(rack(HERE))
    own = lab.cloud.port_spec("a").fixed_ips[0]
    lab.send("a", build_arp(sha=lab.cloud.mac("a"), spa=own, tpa=own))
    asked = {request.slice for request in lab.here.feed.asked if isinstance(request, Heal)}
    assert {"host/here", RACK} <= asked


def test_a_goal_state_says_where_a_member_is() -> None:
    slices = rack(HERE).slices()
    (member,) = slices["host/here"].values()
    assert isinstance(member, HostGroup)
    assert (member.id, len(member.host)) == ("rack", 4)
    assert TUNNELS[HERE] == ".".join(map(str, member.host))

"""What is derived from slices, and when it is thrown away."""

from __future__ import annotations

from ondemand.slices import group_slice, vpc_slice
from tests.support.world_builder import VPC, CloudBuilder, SmallWorld, allow


def _small() -> SmallWorld:
    cloud = CloudBuilder()
    cloud.subnet("net", 100, "10.0.0.0/24")
    cloud.group("web", allow("ingress", "tcp", 80, rule_id="http"))
    cloud.group("ssh", allow("ingress", "tcp", 22, rule_id="ssh"))
    cloud.port("vm1", "net", "10.0.0.11", groups=("web",))
    cloud.port("vm2", "net", "10.0.0.12", groups=("web",))
    return cloud.world()


def test_a_topology_waits_for_its_slice_and_is_made_once() -> None:
    world = _small().world
    assert world.topology("vpc-9") is None
    topology = world.topology(VPC)
    assert topology is not None
    assert world.topology(VPC) is topology
    world.slice_changed(group_slice("web"))
    assert world.topology(VPC) is topology
    world.slice_changed(vpc_slice("vpc-9"))
    assert world.topology(VPC) is topology
    world.slice_changed(vpc_slice(VPC))
    assert world.topology(VPC) is not topology


def test_a_policy_tells_which_of_its_groups_are_not_here() -> None:
    world = _small().world
    partial = world.policy(("web", "gone"))
    assert partial.missing == ("sg/gone",)
    assert partial.rules == world.policy(("web",)).rules > 0
    assert partial.tags == ("sg/web", "sg/gone")
    assert world.policy(()).missing == ()
    policy = world.policy(("web", "ssh"))
    assert policy.rules == 2
    assert world.policy(("web", "ssh")) is policy


def test_a_policy_goes_when_one_of_its_groups_changes() -> None:
    small = _small()
    world = small.world
    both, web = world.policy(("web", "ssh")), world.policy(("web",))
    assert world.policies_in_use() == 2
    small.remove("sg/ssh", "rule/ssh")
    assert world.policies_in_use() == 1
    assert world.policy(("web",)) is web
    narrower = world.policy(("web", "ssh"))
    assert narrower is not both
    assert narrower.rules == 1
    world.slice_changed("nbr/vpc-1/10.0.0.0")
    assert world.policies_in_use() == 2


def test_a_group_is_missing_when_its_slice_came_without_it() -> None:
    small = _small()
    assert small.world.missing_groups(("web", "gone")) == (), "nobody knows of 'gone' yet"
    small.load(["sg/gone"])
    assert small.world.missing_groups(("web", "gone")) == ("gone",)
    small.remove("sg/web", "group")
    assert small.world.missing_groups(("web", "gone")) == ("web", "gone")


def test_ports_are_found_by_id_and_by_zone() -> None:
    small = _small()
    world = small.world
    port = small.port("vm1")
    assert world.by_zone[port.zone] is port
    world.remove_port(port)
    world.remove_port(port)
    assert (set(world.ports), len(world.by_zone)) == ({"vm2"}, 1)

"""Where quarantine does not do yet what docs/protection.md says of it."""

from __future__ import annotations

from ondemand.settings import Settings
from tests.support.cloud_edit import change_port, set_rules
from tests.support.lab import Lab
from tests.support.office_cloud import both, office
from tests.support.world_builder import HERE, THERE

SETTINGS = Settings(flood_rate=10, flood_burst=40, quarantine_max_s=4)


def scan(lab: Lab, family: int, count: int = 30) -> None:
    """``a`` sends to addresses that nobody has."""
    vm = lab.frames(family)
    for number in range(count):
        dst = f"10.0.1.{100 + number}" if family == 4 else f"fd00:1::{0x1000 + number:x}"
        lab.send("a", vm.udp("a", "b", dst=dst))


def test_a_port_without_port_security_is_in_none(family: int) -> None:
    lab = Lab(office(), hosts=(HERE, THERE), settings=SETTINGS)
    change_port(lab.cloud, "a", port_security=False, groups=(), pairs=())
    lab.publish()
    scan(lab, family)
    assert lab.here.engine.quarantined == []
    assert lab.send("a", lab.frames(family).udp("a", "c")).reached == ["c"]


def test_it_ends_with_port_security(family: int) -> None:
    lab = Lab(office(), hosts=(HERE, THERE), settings=SETTINGS)
    scan(lab, family)
    assert lab.here.engine.quarantined == ["a"]
    change_port(lab.cloud, "a", port_security=False, groups=(), pairs=())
    lab.publish()
    lab.check()
    assert lab.send("a", lab.frames(family).udp("a", "c")).reached == ["c"]


def test_an_epoch_for_one_address_is_no_way_out(family: int) -> None:
    """New flows end too where a policy that became narrower for one address gave it an epoch."""
    cloud = office()
    cloud.group("friends", *both("egress", rule_id="to-friends", group="friends"))
    change_port(cloud, "a", groups=("friends",))
    for friend in ("c", "a2"):
        change_port(cloud, friend, groups=("client", "web", "friends"))
    lab = Lab(cloud, hosts=(HERE, THERE), settings=SETTINGS)
    set_rules(cloud, "web", *both("ingress", rule_id="all"))
    lab.publish()
    vm = lab.frames(family)
    assert lab.send("a", vm.udp("a", "a2", 53)).reached == ["a2"]
    change_port(cloud, "a2", groups=("client", "web"))
    lab.publish()
    assert lab.here.engine.world.ports["a"].remote_epochs
    change_port(cloud, "a2", groups=("client", "web", "friends"))
    lab.publish()
    assert lab.send("a", vm.udp("a", "a2", 53)).reached == ["a2"]
    scan(lab, family)
    assert lab.here.engine.quarantined == ["a"]
    new = vm.udp("a", "a2", 53, tp_src=50001)
    assert lab.send("a", new).reached == []

"""Security groups on packets: default deny, and every kind of remote."""

from __future__ import annotations

import pytest

from tests.support.cloud_edit import add_rule, change_port
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import both, office, one_server
from tests.support.world_builder import HERE, THERE, allow


def reaches(lab: Lab, family: int, src: str, tp_dst: int = 80) -> bool:
    return lab.send(src, lab.frames(family).tcp(src, "s", tp_dst)).reached == ["s"]


@pytest.mark.parametrize("groups", [(), ("empty",)])
def test_without_a_rule_nothing_is_allowed(
    make_lab: MakeLab, family: int, groups: tuple[str, ...]
) -> None:
    cloud = office()
    cloud.group("empty")
    change_port(cloud, "b", groups=groups)
    change_port(cloud, "a2", groups=groups)
    lab = make_lab(cloud)
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b")).reached == []
    assert lab.send("a2", vm.tcp("a2", "d")).reached == []
    assert lab.here.count("denied.no_rule", "b") == 1
    assert lab.here.count("denied.no_rule", "a2") == 1


def test_anybody(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(one_server(*both("ingress", rule_id="all")), hosts=(HERE, THERE))
    vm = lab.frames(family)
    assert all(reaches(lab, family, src, 7) for src in ("a", "y", "x"))
    assert lab.send("y", vm.ping("y", "s")).reached == ["s"]
    assert lab.send("y", vm.gre("y", "s")).reached == ["s"]
    assert lab.send("y", vm.sctp("y", "s")).reached == ["s"]


def test_a_prefix(make_lab: MakeLab, family: int) -> None:
    rules = [
        allow("ingress", "tcp", 80, prefix="10.0.1.11/32"),
        allow("ingress", "tcp", 80, family=6, prefix="fd00:1::11/128"),
    ]
    lab = make_lab(one_server(*rules), hosts=(HERE, THERE))
    assert [reaches(lab, family, src) for src in ("a", "y", "x")] == [True, False, False]


def test_a_group(make_lab: MakeLab, family: int) -> None:
    rules = both("ingress", "tcp", 80, rule_id="staff", group="staff")
    lab = make_lab(one_server(*rules), hosts=(HERE, THERE))
    assert [reaches(lab, family, src) for src in ("a", "y", "x")] == [True, False, True]


def test_a_group_as_the_remote_of_egress(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    cloud.group("to-web", *both("egress", "tcp", 80, rule_id="to-web", group="web"))
    change_port(cloud, "a", groups=("to-web",))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "c")).reached == ["c"]
    assert lab.send("a", vm.tcp("a", "x")).reached == []
    assert lab.here.count("denied.no_rule", "a") == 1


def test_groups_add_up(make_lab: MakeLab, family: int) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="80"))
    cloud.group("more", *both("ingress", "tcp", (440, 449), rule_id="44x"))
    change_port(cloud, "s", groups=("server", "more"))
    lab = make_lab(cloud)
    found = [port for port in (80, 81, 439, 440, 449, 450) if reaches(lab, family, "a", port)]
    assert found == [80, 440, 449]


def test_icmp_by_type_and_code(make_lab: MakeLab, family: int) -> None:
    protocol, echo, timestamp = ("icmp", 8, 13) if family == 4 else ("icmpv6", 128, 128)
    rules = [allow("ingress", protocol, family=family, icmp_type=echo, icmp_code=0)]
    lab = make_lab(one_server(*rules))
    vm = lab.frames(family)
    assert lab.send("a", vm.ping("a", "s")).reached == ["s"]
    if timestamp != echo:
        assert lab.send("a", vm.ping("a", "s", icmp_type=timestamp)).reached == []


def test_a_rule_of_one_family_says_nothing_of_the_other(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(one_server(allow("ingress", "tcp", 80, family=10 - family)))
    assert not reaches(lab, family, "a")
    assert reaches(lab, 10 - family, "a")


def test_a_rule_with_a_group_that_does_not_exist_lets_nobody_in(
    make_lab: MakeLab, family: int
) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="ghost", group="ghost"))
    lab = make_lab(cloud)
    assert not reaches(lab, family, "a")
    add_rule(cloud, "server", allow("ingress", "tcp", 80, family=family, group="staff"))
    lab.publish()
    assert reaches(lab, family, "a")


def test_a_group_that_is_still_on_its_way_takes_nothing_from_a_port(
    make_lab: MakeLab, family: int
) -> None:
    """Groups only add: what the others allow stays, and what they deny waits."""
    cloud = office()
    cloud.group("late", *both("ingress", "tcp", 9, rule_id="discard"))
    lab = make_lab(cloud)
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b", 80)).reached == ["b"]
    before = lab.here.rules()
    change_port(cloud, "b", groups=("web", "late"))
    host = lab.here
    host.delayed = True
    lab.publish()
    host.deliver_one()
    assert "sg/late" in [getattr(event, "slice", "") for event in host.feed.inbox]
    assert lab.here.rules() == before
    assert lab.send("a", vm.tcp("a", "b", 443)).reached == ["b"]
    assert lab.send("a", vm.tcp("a", "b", 9)).reached == []
    assert host.engine.parked == 1
    host.delayed = False
    assert lab._sent(host.deliver()).reached == ["b"]

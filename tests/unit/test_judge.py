"""May a port have this connection? The property test compares with a scan over all rules."""

from __future__ import annotations

import pytest

from ondemand.addresses import parse_ip
from ondemand.decide import judge, reads_source_port
from ondemand.policy import RuleRef
from ondemand.verdict import Allow, Deny, Need, Reason
from tests.support.flow_builder import make_flow
from tests.support.world_builder import CloudBuilder, SmallWorld, allow

TCP, UDP, ICMP, SCTP, GRE = 6, 17, 1, 132, 47


def _cloud() -> CloudBuilder:
    cloud = CloudBuilder()
    cloud.subnet("net", 100, "10.0.0.0/24", "fd00::/64")
    cloud.group(
        "web",
        allow("ingress", "tcp", 80, prefix="10.0.0.0/24", rule_id="http"),
        allow("ingress", "tcp", 5432, group="db", rule_id="from-db"),
        allow("egress", rule_id="out"),
        allow("ingress", "sctp", 3868, rule_id="diameter"),
        allow("ingress", "icmp", icmp_type=8, rule_id="ping"),
    )
    cloud.group("db")
    cloud.port("web1", "net", "10.0.0.11", "fd00::11", groups=("web",))
    cloud.port("bare", "net", "10.0.0.12")
    cloud.port("db1", "net", "10.0.0.21", groups=("db",), host="there")
    return cloud


@pytest.fixture
def small() -> SmallWorld:
    return _cloud().world()


def test_a_rule_that_names_the_address_needs_nobody_to_be_asked(small: SmallWorld) -> None:
    verdict = small.judge("web1", make_flow("ingress", "10.0.0.99", TCP, 40000, 80))
    assert verdict == Allow(RuleRef("web", "http"), ("local web1", "sg/web"))
    assert small.asked == []


def test_a_member_of_a_remote_group_is_let_in(small: SmallWorld) -> None:
    verdict = small.judge("web1", make_flow("ingress", "10.0.0.21", TCP, 40000, 5432))
    assert verdict == Allow(
        RuleRef("web", "from-db"),
        ("local web1", "sg/web", "nbr/vpc-1/10.0.0.0 ip/10.0.0.21"),
    )
    assert small.asked == [Need("nbr/vpc-1/10.0.0.0", "ip/10.0.0.21")]


@pytest.mark.parametrize("remote", ["10.0.0.12", "10.0.0.99"])
def test_who_is_no_member_is_not_and_the_absence_is_read(small: SmallWorld, remote: str) -> None:
    verdict = small.judge("web1", make_flow("ingress", remote, TCP, 40000, 5432))
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.NO_RULE
    assert f"nbr/vpc-1/10.0.0.0 ip/{remote}" in verdict.tags


def test_where_no_rule_names_a_group_nobody_is_asked(small: SmallWorld) -> None:
    verdict = small.judge("web1", make_flow("ingress", "10.0.0.21", TCP, 40000, 81))
    assert verdict == Deny(Reason.NO_RULE, ("local web1", "sg/web"))
    assert small.asked == []


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_without_groups_nothing_is_allowed(small: SmallWorld, direction: str) -> None:
    verdict = small.judge("bare", make_flow(direction, "10.0.0.11", TCP, 40000, 80))
    assert verdict == Deny(Reason.NO_RULE, ("local bare",))


@pytest.mark.parametrize(
    ("protocol", "first", "second", "rule"),
    [
        (SCTP, 3868, 3868, "diameter"),
        (SCTP, 3868, 3869, None),
        (ICMP, 8, 0, "ping"),
        (ICMP, 8, 3, "ping"),
        (ICMP, 0, 8, None),
        (TCP, 80, 40000, None),
        (GRE, 0, 0, None),
    ],
)
def test_ports_types_and_protocols(
    small: SmallWorld, protocol: int, first: int, second: int, rule: str | None
) -> None:
    verdict = small.judge("web1", make_flow("ingress", "10.0.0.99", protocol, first, second))
    found = verdict.rule if isinstance(verdict, Allow) else None
    assert found == (None if rule is None else RuleRef("web", rule))


def test_egress_is_judged_by_egress_rules(small: SmallWorld) -> None:
    verdict = small.judge("web1", make_flow("egress", "192.0.2.9", GRE))
    assert isinstance(verdict, Allow)
    assert verdict.rule == RuleRef("web", "out")
    assert isinstance(small.judge("web1", make_flow("egress", "fd00::9", GRE)), Deny)


def test_a_reply_is_judged_as_its_connection(small: SmallWorld) -> None:
    first = make_flow("ingress", "10.0.0.99", TCP, 40000, 80)
    reply = make_flow("ingress", "10.0.0.99", TCP, 40000, 80, reply=True)
    assert small.judge("web1", first) == small.judge("web1", reply)


def test_a_group_that_is_not_here_is_needed(small: SmallWorld) -> None:
    cloud = _cloud()
    cloud.port("late", "net", "10.0.0.13", groups=("web", "new"))
    late = cloud.world()
    flow = make_flow("ingress", "10.0.0.99", TCP, 1, 81)
    assert judge(late.world, late.port("late"), flow) == Need("sg/new", "")


def test_a_group_that_does_not_exist_has_no_rules_and_is_named() -> None:
    cloud = _cloud()
    cloud.port("lost", "net", "10.0.0.13", groups=("gone", "web"))
    small = cloud.world()
    denied = small.judge("lost", make_flow("ingress", "10.0.0.99", TCP, 40000, 81))
    assert denied == Deny(Reason.GROUP_MISSING, ("local lost", "sg/gone", "sg/web"))
    allowed = small.judge("lost", make_flow("ingress", "10.0.0.99", TCP, 40000, 80))
    assert isinstance(allowed, Allow), "the other groups go on"


def test_a_remote_group_needs_the_vpc() -> None:
    small = _cloud().world()
    small.cache.release("vpc/vpc-1")
    small.world.slice_changed("vpc/vpc-1")
    flow = make_flow("ingress", "10.0.0.21", TCP, 40000, 5432)
    assert judge(small.world, small.port("web1"), flow) == Need("vpc/vpc-1", "")


def test_tenants_with_equal_addresses_are_no_members_of_each_other() -> None:
    cloud = _cloud()
    cloud.subnet("foreign", 200, "10.0.0.0/24", vpc="vpc-2")
    cloud.port("impostor", "foreign", "10.0.0.77", groups=("db",))
    small = cloud.world()
    verdict = small.judge("web1", make_flow("ingress", "10.0.0.77", TCP, 40000, 5432))
    assert isinstance(verdict, Deny)


@pytest.mark.parametrize(
    ("direction", "remote", "first", "second", "allowed"),
    [
        ("egress", "255.255.255.255", 68, 67, True),
        ("egress", "10.0.0.2", 68, 67, True),
        ("ingress", "10.0.0.2", 67, 68, True),
        ("egress", "10.0.0.99", 67, 68, False),
        ("ingress", "10.0.0.99", 68, 67, False),
        ("egress", "fd00::2", 546, 547, True),
        ("ingress", "fd00::2", 547, 546, True),
        ("egress", "fd00::99", 547, 546, False),
        ("egress", "fd00::2", 68, 67, False),
        ("egress", "10.0.0.2", 546, 547, False),
        ("egress", "10.0.0.2", 68, 68, False),
        ("ingress", "10.0.0.2", 67, 67, False),
    ],
)
def test_a_port_is_always_a_dhcp_client(
    small: SmallWorld, direction: str, remote: str, first: int, second: int, *, allowed: bool
) -> None:
    verdict = small.judge("bare", make_flow(direction, remote, UDP, first, second))
    if allowed:
        assert verdict == Allow("DHCP client", ("local bare",))
    else:
        assert isinstance(verdict, Deny)


@pytest.mark.parametrize(("remote", "ports"), [("10.0.0.99", (67, 68)), ("fd00::99", (547, 546))])
def test_a_port_is_never_a_dhcp_server_whatever_its_groups_say(
    remote: str, ports: tuple[int, int]
) -> None:
    cloud = _cloud()
    cloud.group("all", allow("egress"), allow("egress", family=6))
    cloud.port("server", "net", "10.0.0.40", groups=("all",))
    small = cloud.world()
    verdict = small.judge("server", make_flow("egress", remote, UDP, *ports))
    assert verdict == Deny(Reason.DHCP_SERVER, ("local server",))
    back = small.judge("server", make_flow("egress", remote, UDP, ports[0], 9))
    assert isinstance(back, Allow)


def test_dhcp_ports_of_tcp_mean_nothing(small: SmallWorld) -> None:
    verdict = small.judge("bare", make_flow("egress", "10.0.0.2", TCP, 68, 67))
    assert isinstance(verdict, Deny)


@pytest.mark.parametrize(
    ("remote", "protocol", "target", "reads"),
    [
        ("10.0.0.1", UDP, 67, True),
        ("10.0.0.1", UDP, 68, True),
        ("10.0.0.1", UDP, 546, False),
        ("10.0.0.1", UDP, 66, False),
        ("10.0.0.1", TCP, 67, False),
        ("fd00::1", UDP, 546, True),
        ("fd00::1", UDP, 547, True),
        ("fd00::1", UDP, 67, False),
    ],
)
def test_only_dhcp_is_told_by_its_source_port(
    remote: str, protocol: int, target: int, *, reads: bool
) -> None:
    flow = make_flow("egress", parse_ip(remote), protocol, 1000, target)
    assert reads_source_port(flow) == reads

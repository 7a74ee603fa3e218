"""Security groups, compiled; the property test compares them with a scan over all rules."""

from __future__ import annotations

import pytest

from ondemand.addresses import parse_ip
from ondemand.policy import Cell, Policy, RuleRef, narrows
from ondemand.records import Direction, SecurityRule
from tests.support.world_builder import PROTOCOLS, allow

IN, OUT = Direction.INGRESS, Direction.EGRESS
REMOTE4, REMOTE6 = parse_ip("10.0.0.1"), parse_ip("fd00::1")


def _policy(*rules: SecurityRule) -> Policy:
    return Policy({"g": rules})


def _allowed(
    policy: Policy, protocol: str | int, first: int = 0, second: int = 0, family: int = 4
) -> str | None:
    """The rule that lets anybody in."""
    number = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
    cell = policy.cell(IN, family, number, first, second)
    ref = cell.of_address(REMOTE4 if family == 4 else REMOTE6)
    return None if ref is None else ref.rule


def test_no_rules_allow_nothing() -> None:
    policy = Policy({})
    assert policy.rules == 0
    assert policy.remote_groups == frozenset()
    for direction in Direction:
        for family in (4, 6):
            cell = policy.cell(direction, family, 6, 80, 0)
            assert cell.of_address(REMOTE4 if family == 4 else REMOTE6) is None
            assert cell.of_groups(("g",)) is None


def test_rules_of_all_groups_add_up() -> None:
    policy = Policy(
        {
            "a": [allow("ingress", "tcp", 22, rule_id="r")],
            "b": [allow("ingress", "tcp", 80, rule_id="r")],
        }
    )
    assert policy.rules == 2
    found = policy.cell(IN, 4, 6, 80, 0).of_address(REMOTE4)
    assert found == RuleRef("b", "r")
    assert str(found) == "b/r"
    assert policy.cell(IN, 4, 6, 81, 0).of_address(REMOTE4) is None


def test_direction_and_family_are_apart() -> None:
    policy = _policy(allow("egress", "tcp", 80, family=6))
    assert policy.cell(OUT, 6, 6, 80, 0).of_address(REMOTE6) is not None
    assert policy.cell(IN, 6, 6, 80, 0).of_address(REMOTE6) is None
    assert policy.cell(OUT, 4, 6, 80, 0).of_address(REMOTE4) is None


@pytest.mark.parametrize(
    ("port", "rule"),
    [
        (0, None),
        (9, None),
        (10, "low"),
        (19, "low"),
        (20, "low"),
        (21, "middle"),
        (29, "middle"),
        (30, "middle"),
        (31, None),
        (65534, None),
        (65535, "last"),
    ],
)
def test_port_ranges_that_overlap_and_touch(port: int, rule: str | None) -> None:
    policy = _policy(
        allow("ingress", "tcp", (10, 20), rule_id="low"),
        allow("ingress", "tcp", (20, 30), rule_id="middle"),
        allow("ingress", "tcp", 65535, rule_id="last"),
    )
    assert _allowed(policy, "tcp", port) == rule


def test_the_whole_range_of_ports() -> None:
    policy = _policy(allow("ingress", "udp", (0, 65535), rule_id="all"))
    assert _allowed(policy, "udp", 0) == _allowed(policy, "udp", 65535) == "all"
    assert _allowed(policy, "tcp", 0) is None


def test_any_protocol_goes_for_each() -> None:
    policy = _policy(
        allow("ingress", "tcp", 80, rule_id="web"), allow("ingress", rule_id="everything")
    )
    assert _allowed(policy, "tcp", 80) in ("web", "everything")
    assert _allowed(policy, "tcp", 81) == "everything"
    assert _allowed(policy, "icmp", 8, 0) == "everything"
    assert _allowed(policy, 253) == "everything"


def test_a_protocol_is_a_number() -> None:
    policy = _policy(allow("ingress", "gre", rule_id="gre"), allow("ingress", 0, rule_id="hop"))
    assert _allowed(policy, 47) == "gre"
    assert _allowed(policy, 0) == "hop"
    assert _allowed(policy, 46) is None


@pytest.mark.parametrize(
    ("kind", "code", "rule"),
    [
        (8, 0, "echo"),
        (8, 1, None),
        (3, 0, "unreachable"),
        (3, 4, "unreachable"),
        (11, 0, None),
        (0, 0, None),
    ],
)
def test_icmp_types_and_codes(kind: int, code: int, rule: str | None) -> None:
    policy = _policy(
        allow("ingress", "icmp", icmp_type=8, icmp_code=0, rule_id="echo"),
        allow("ingress", "icmp", icmp_type=3, rule_id="unreachable"),
    )
    assert _allowed(policy, "icmp", kind, code) == rule


def test_one_code_says_nothing_of_another() -> None:
    """Cells are kept, so what came first must not decide for what comes after."""
    policy = _policy(allow("ingress", "icmp", icmp_type=8, icmp_code=0, rule_id="echo"))
    assert [_allowed(policy, "icmp", 8, code) for code in (0, 1, 0)] == ["echo", None, "echo"]


def test_all_of_icmp() -> None:
    policy = _policy(
        allow("ingress", "icmpv6", family=6, rule_id="all"),
        allow("ingress", "icmpv6", family=6, icmp_type=128, icmp_code=0, rule_id="echo"),
    )
    for kind in (0, 1, 128, 255):
        for code in (0, 1, 255):
            assert _allowed(policy, "icmpv6", kind, code, family=6) == "all"


def test_a_cell_is_made_once() -> None:
    policy = _policy(allow("ingress", "tcp", (10, 20)))
    assert policy.cell(IN, 4, 6, 10, 0) is policy.cell(IN, 4, 6, 20, 0)
    assert policy.cell(IN, 4, 6, 10, 0) is not policy.cell(IN, 4, 6, 21, 0)


def test_an_icmp_cell_serves_all_types_that_no_rule_names() -> None:
    policy = _policy(allow("ingress", "icmp", icmp_type=8))
    assert policy.cell(IN, 4, 1, 3, 1) is policy.cell(IN, 4, 1, 11, 0)
    assert policy.cell(IN, 4, 1, 8, 0) is not policy.cell(IN, 4, 1, 3, 0)


def _cell(*rules: SecurityRule) -> Cell:
    return Cell((RuleRef("g", rule.id), rule) for rule in rules)


@pytest.mark.parametrize(
    ("ip", "rule"),
    [
        ("10.0.0.1", "host"),
        ("10.0.0.2", "net"),
        ("10.0.1.255", "net"),
        ("10.0.2.0", None),
        ("11.0.0.1", None),
    ],
)
def test_remote_prefixes(ip: str, rule: str | None) -> None:
    cell = _cell(
        allow("ingress", prefix="10.0.0.1/32", rule_id="host"),
        allow("ingress", prefix="10.0.0.0/23", rule_id="net"),
    )
    found = cell.of_address(parse_ip(ip))
    assert (None if found is None else found.rule) == rule


def test_of_two_equal_prefixes_the_first_rule_is_named() -> None:
    cell = _cell(
        allow("ingress", prefix="fd00::/64", rule_id="first"),
        allow("ingress", prefix="fd00::/64", rule_id="second"),
    )
    assert cell.of_address(REMOTE6) == RuleRef("g", "first")


@pytest.mark.parametrize("prefix", [None, "0.0.0.0/0"])
def test_anybody_makes_other_remotes_needless(prefix: str | None) -> None:
    cell = _cell(
        allow("ingress", group="friends"),
        allow("ingress", prefix="10.0.0.0/8"),
        allow("ingress", prefix=prefix, rule_id="anybody"),
        allow("ingress", rule_id="again"),
    )
    assert cell.of_address(parse_ip("192.0.2.1")) == RuleRef("g", "anybody")
    assert (cell.groups, cell.prefixes) == ({}, ())


def test_members_of_a_remote_group() -> None:
    cell = _cell(
        allow("ingress", group="friends", rule_id="first"),
        allow("ingress", group="friends", rule_id="second"),
        allow("ingress", group="family", rule_id="third"),
    )
    assert cell.of_address(REMOTE4) is None
    assert cell.of_groups(("strangers", "friends", "family")) == RuleRef("g", "first")
    assert cell.of_groups(("strangers",)) is None
    assert cell.of_groups(()) is None


def test_a_policy_names_the_groups_it_lets_in() -> None:
    policy = _policy(
        allow("ingress", group="friends"), allow("egress", "tcp", group="family"), allow("egress")
    )
    assert policy.remote_groups == {"friends", "family"}


def test_only_an_addition_does_not_narrow() -> None:
    rule, other = allow("ingress", "tcp", 80, rule_id="r"), allow("ingress", "tcp", rule_id="r")
    assert not narrows(None, rule)
    assert not narrows(rule, rule)
    assert not narrows(None, None)
    assert narrows(rule, None)
    assert narrows(rule, other)

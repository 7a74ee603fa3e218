"""Security groups of a goal state: what their rules say, checked, as records."""

from __future__ import annotations

import hashlib
import re

from ondemand.addresses import IPV4_BYTES, Prefix, parse_prefix
from ondemand.codec import ICMP, ICMPV6, PORTED
from ondemand.goal_model import GroupInput, RuleInput
from ondemand.goal_problems import Problems, did_you_mean
from ondemand.records import ANY, ANY_PROTOCOL, Direction, Group, SecurityRule

_PROTOCOLS = {
    "any": ANY_PROTOCOL,
    "tcp": 6,
    "udp": 17,
    "sctp": 132,
    "icmp": ICMP,
    "icmpv6": ICMPV6,
}
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_DERIVED_ID_BYTES = 6


def check_groups(
    placed: list[tuple[str, GroupInput]], taken: dict[str, str], problems: Problems
) -> dict[str, tuple[Group, tuple[SecurityRule, ...]]]:
    """The groups of one VPC by id. ``taken``: group ids of all VPCs so far, and where they are."""
    groups = [
        (place, group)
        for place, group in placed
        if problems.is_first(taken, group.id, place, f"security group id {group.id!r}")
    ]
    known = {group.id for _, group in groups}
    return {
        group.id: (Group(group.id, group.name), _check_rules(place, group, known, problems))
        for place, group in groups
    }


def _check_rules(
    place: str, group: GroupInput, known: set[str], problems: Problems
) -> tuple[SecurityRule, ...]:
    rules: dict[str, SecurityRule] = {}
    ids: dict[str, str] = {}
    contents: dict[str, str] = {}
    for where, given in problems.read("rule", RuleInput, group.rules, f"{place}.rules"):
        before = len(problems.errors)
        content = _content(where, given, known, problems)
        if len(problems.errors) > before or content is None:
            continue
        text = _canonical(content)
        if not problems.is_first(contents, text, where, "what this rule says"):
            continue
        identity = given.id or _derived_id(text)
        if problems.is_first(ids, identity, where, f"rule id {identity!r}"):
            rules[identity] = SecurityRule(
                id=identity,
                direction=content.direction,
                family=content.family,
                protocol=content.protocol,
                port_min=content.port_min,
                port_max=content.port_max,
                remote_prefix=content.remote_prefix,
                remote_group=content.remote_group,
            )
    return tuple(rules.values())


def _content(
    place: str, rule: RuleInput, groups: set[str], problems: Problems
) -> SecurityRule | None:
    """The rule without its id, or None after noting what is wrong with it."""
    remote = None
    if rule.remote_prefix is not None:
        remote = problems.parse(f"{place}: remote_prefix", parse_prefix, rule.remote_prefix)
        if rule.remote_group is not None:
            problems.add(
                place,
                "remote_prefix and remote_group exclude each other: write two rules",
                key="remote_group",
            )
    if rule.remote_group is not None:
        problems.is_known(f"{place}: remote_group", "security group", rule.remote_group, groups)
    family = _family(place, rule, remote, problems)
    protocol = _protocol(place, rule, family, problems)
    if protocol is None:
        # Whatever the protocol was to be, no protocol has such ports.
        _port_range(place, rule, problems)
        return None
    low, high = _ports(place, rule, protocol, problems)
    return SecurityRule(
        id="",
        direction=Direction.INGRESS if rule.direction == "ingress" else Direction.EGRESS,
        family=family,
        protocol=protocol,
        port_min=low,
        port_max=high,
        remote_prefix=remote,
        remote_group=rule.remote_group,
    )


def _family(place: str, rule: RuleInput, remote: Prefix | None, problems: Problems) -> int:
    of_prefix = None if remote is None else 4 if len(remote.network) == IPV4_BYTES else 6
    if rule.ethertype is None:
        return of_prefix or 4
    family = 4 if rule.ethertype == "IPv4" else 6
    if of_prefix not in (None, family):
        problems.add(
            place, f"remote_prefix {remote} is no {rule.ethertype} prefix", key="ethertype"
        )
    return family


def _protocol(place: str, rule: RuleInput, family: int, problems: Problems) -> int | None:
    given = rule.protocol
    number = _PROTOCOLS.get(given) if isinstance(given, str) else given
    if number is None:
        hint = did_you_mean(str(given), _PROTOCOLS)
        problems.add(
            place,
            f"protocol {given!r} is none of {', '.join(_PROTOCOLS)} and no number 0..255{hint}",
            key="protocol",
        )
        return None
    if isinstance(given, int) and not 0 <= given <= 255:
        problems.add(place, f"protocol {given} is not in 0..255", key="protocol")
        return None
    if family == 4 and number == ICMPV6:
        problems.add(place, f"protocol {given!r} needs 'ethertype: IPv6'", key="protocol")
        return None
    return ICMPV6 if family == 6 and number == ICMP else number


def _ports(place: str, rule: RuleInput, protocol: int, problems: Problems) -> tuple[int, int]:
    """Port range, or ICMP type and code, as a SecurityRule holds them."""
    is_icmp = protocol in (ICMP, ICMPV6)
    if rule.ports is not None and protocol not in PORTED:
        problems.add(place, "ports go with protocol tcp, udp or sctp only", key="ports")
        return ANY, ANY
    if not is_icmp and (rule.icmp_type is not None or rule.icmp_code is not None):
        problems.add(place, "icmp_type and icmp_code go with protocol icmp or icmpv6 only")
        return ANY, ANY
    if is_icmp:
        return _icmp(place, rule, problems)
    return _port_range(place, rule, problems)


def _port_range(place: str, rule: RuleInput, problems: Problems) -> tuple[int, int]:
    if rule.ports is None:
        return ANY, ANY
    found = _PORTS.fullmatch(str(rule.ports))
    if found is not None:
        low = int(found[1])
        high = int(found[2] or low)
        if low <= high <= 65535:
            return low, high
    problems.add(
        place,
        f"ports {rule.ports!r} must be a port or a range 'low-high', both in 0..65535",
        key="ports",
    )
    return ANY, ANY


def _icmp(place: str, rule: RuleInput, problems: Problems) -> tuple[int, int]:
    if rule.icmp_type is None and rule.icmp_code is not None:
        problems.add(place, "icmp_code needs an icmp_type", key="icmp_code")
    for name, value in (("icmp_type", rule.icmp_type), ("icmp_code", rule.icmp_code)):
        if value is not None and not 0 <= value <= 255:
            problems.add(place, f"{name} {value} is not in 0..255", key=name)
    return (
        ANY if rule.icmp_type is None else rule.icmp_type,
        ANY if rule.icmp_code is None else rule.icmp_code,
    )


def _canonical(rule: SecurityRule) -> str:
    """All that a rule says, in one spelling; what ids are derived from must never change."""
    parts = (
        int(rule.direction),
        rule.family,
        rule.protocol,
        rule.port_min,
        rule.port_max,
        rule.remote_prefix or "",
        rule.remote_group or "",
    )
    return "|".join(map(str, parts))


def _derived_id(canonical: str) -> str:
    return "r-" + hashlib.blake2b(canonical.encode(), digest_size=_DERIVED_ID_BYTES).hexdigest()

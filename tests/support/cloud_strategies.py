"""Random small clouds for hypothesis, with few addresses and ports, so that things meet.

Subnets and routers are drawn from a fixed plan, so that what is random stays sound in the way that a
goal state is: every address is one port's fixed IP at most, and a MAC is one port's own in its subnet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from hypothesis import strategies as st

from ondemand.addresses import parse_ip
from ondemand.codec import PORTED
from ondemand.flow import Flow
from ondemand.records import ANY_PROTOCOL, Direction, SecurityRule
from tests.support.flow_builder import make_flow
from tests.support.policy_reference import Connection, address
from tests.support.world_builder import ELSEWHERE, HERE, THERE, CloudBuilder, allow

OTHER_VPC = "vpc-2"
GROUPS = ("g0", "g1", "g2", "g3", "gone")

#: Name, VNI, prefixes, gateways, addresses that a port may have.
_PLAN = (
    ("net-a", 10, ("10.0.0.0/29", "fd00:a::/125"), ("10.0.0.1", "fd00:a::1")),
    ("net-b", 11, ("10.0.0.8/29", "fd00:b::/125"), ("10.0.0.9", "fd00:b::1")),
    ("net-c", 12, ("10.0.1.0/30",), ("10.0.1.1",)),
    ("net-d", 13, ("fd00:d::/126", "10.0.1.4/30"), ()),
)
_USABLE = {
    "net-a": ("10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "fd00:a::2", "fd00:a::3"),
    "net-b": ("10.0.0.10", "10.0.0.11", "fd00:b::2", "fd00:b::3"),
    "net-c": ("10.0.1.2",),
    "net-d": ("10.0.1.5", "fd00:d::1", "fd00:d::2"),
}
_OUTSIDE = ("10.0.0.16", "10.1.0.1", "192.0.2.77", "fd00:e::1", "fe80::1", "0.0.0.0", "::")
_NOT_USABLE = ("10.0.0.0", "10.0.0.7", "10.0.1.3", "fd00:b::7")
_GATEWAYS = ("10.0.0.1", "10.0.0.9", "10.0.1.1", "fd00:a::1", "fd00:b::1")
_MULTICAST = ("224.0.0.18", "ff02::12", "255.255.255.255")
#: Addresses of subnets that no port has, so that only pairs can claim them.
_CLAIMED = ("10.0.0.6", "10.0.0.12", "fd00:a::5", "fd00:b::4")

ADDRESSES = (
    *(ip for ips in _USABLE.values() for ip in ips),
    *_OUTSIDE,
    *_NOT_USABLE,
    *_GATEWAYS,
    *_MULTICAST,
    *_CLAIMED,
)
SHARED_MAC = "02:00:5e:00:01:07"
_PAIR_PREFIXES = (
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/29",
    "10.0.0.4/30",
    "10.0.0.5/32",
    "10.0.0.6/32",
    "10.0.0.6/32",
    "10.0.0.8/29",
    "10.0.0.0/24",
    "10.1.0.0/16",
    "fd00:a::/64",
    "fd00:a::4/126",
    "fd00:a::5/128",
    "fd00:a::5/128",
    "fd00:b::/112",
    "fd00:b::4/128",
)
_PREFIXES = {
    4: (
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/24",
        "10.0.0.0/29",
        "10.0.0.8/29",
        "10.0.0.2/31",
        "10.0.0.2/32",
        "10.0.0.3/32",
        "128.0.0.0/1",
        "192.0.2.64/26",
    ),
    6: (
        "::/0",
        "fd00::/8",
        "fd00:a::/64",
        "fd00:b::/125",
        "fd00:a::2/127",
        "fd00:a::3/128",
        "8000::/1",
        "::/128",
    ),
}

_EDGES = (0, 1, 2, 3, 66, 67, 68, 546, 547, 65534, 65535)
#: None of ICMPv6's link-local messages (130-137, RFC 4861, RFC 2710), which never get to policy.
_ICMP_VALUES = (0, 1, 3, 8, 128, 255)
_ICMP_CODES = (0, 1, 255)

_T = TypeVar("_T")


_64_BITS = (1 << 64) - 1


class _Digits:
    """Choices made by one number, which costs hypothesis far less than a draw for each choice."""

    def __init__(self, number: int) -> None:
        # hypothesis likes small numbers, whose higher digits would all be the first choice. This is
        # the finisher of splitmix64, which spreads each number over all bits and keeps 0 as it is.
        number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
        number = (number ^ number >> 27) * 0x94D049BB133111EB & _64_BITS
        self._number = number ^ number >> 31

    def pick(self, choices: Sequence[_T]) -> _T:
        self._number, index = divmod(self._number, len(choices))
        return choices[index]


_numbers = st.integers(0, _64_BITS)


def _rule(number: int, groups: Sequence[str]) -> SecurityRule:
    """A rule of either family: any of what a rule may say."""
    digits = _Digits(number)
    family = digits.pick((4, 6))
    icmp = 1 if family == 4 else 58
    protocol = digits.pick((ANY_PROTOCOL, 6, 17, 132, icmp, 6, 17, icmp, 47, 0, 50))
    low = high = None
    if digits.pick((0, 1, 2, 3)):
        if protocol in PORTED:
            low, high = sorted((digits.pick(_EDGES), digits.pick(_EDGES)))
        elif protocol == icmp:
            low, high = digits.pick(_ICMP_VALUES), digits.pick((None, *_ICMP_CODES))
    # Rules for anybody would hide the others.
    remote = digits.pick(("prefix", "prefix", "prefix", "group", "group", "group", "anybody"))
    return allow(
        digits.pick(("ingress", "egress")),
        protocol,
        (low, high) if protocol in PORTED and low is not None and high is not None else None,
        family=family,
        icmp_type=low if protocol == icmp else None,
        icmp_code=high if protocol == icmp else None,
        prefix=digits.pick(_PREFIXES[family]) if remote == "prefix" else None,
        group=digits.pick(groups) if remote == "group" else None,
    )


@st.composite
def clouds(draw: st.DrawFn, *, with_rules: bool = True) -> CloudBuilder:
    """Up to four subnets, two routers, groups g0..g3, ports on three hosts; a second tenant's VPC
    with the same addresses.
    """
    cloud = CloudBuilder()
    for name, vni, cidrs, gateways in _PLAN:
        cloud.subnet(name, vni, *cidrs, gateways=gateways)
    joined = draw(
        st.sampled_from((("net-a", "net-b", "net-c"), ("net-a", "net-b"), ("net-b",), ()))
    )
    routes = draw(
        st.dictionaries(
            st.sampled_from(("0.0.0.0/0", "10.1.0.0/16", "10.1.0.0/31", "10.0.0.4/30")),
            st.sampled_from(("10.0.0.2", "10.0.0.6", "10.0.0.10", "10.0.1.2", "10.9.9.9")),
            max_size=3,
        )
        | st.dictionaries(
            st.sampled_from(("::/0", "fd00:e::/64", "fd00:e::1/128")),
            st.sampled_from(("fd00:a::2", "fd00:b::2", "fd00:b::4", "fd00:f::1")),
            max_size=2,
        )
    )
    cloud.router("r1", *joined, routes=routes)
    if draw(st.booleans()):
        cloud.router("r2", "net-c" if "net-c" not in joined else "net-e")
    for group in GROUPS[:4]:
        numbers = draw(st.lists(_numbers, max_size=30)) if with_rules else ()
        cloud.group(group, *(_rule(number, GROUPS) for number in numbers))
    for number, name in enumerate(("net-a", "net-a", "net-a", "net-b", "net-b", "net-c", "net-d")):
        _draw_port(draw, cloud, f"p{number}", name)
    cloud.subnet("net-x", 20, "10.0.0.0/29", "fd00:a::/125", gateways=("10.0.0.1",), vpc=OTHER_VPC)
    cloud.router("rx", "net-x", vpc=OTHER_VPC)
    numbers = draw(st.lists(_numbers, max_size=10)) if with_rules else ()
    cloud.group("gx", *(_rule(number, ("gx", "gone")) for number in numbers), vpc=OTHER_VPC)
    for number, ip in enumerate(("10.0.0.2", "10.0.0.6", "fd00:a::2")):
        cloud.port(
            f"x{number}",
            "net-x",
            ip,
            host=draw(_hosts),
            # In another VPC a MAC may be that of a port of the first.
            mac=cloud.mac("p0").hex(":") if number == 0 else None,
            groups=("gx",),
        )
    return cloud


_hosts = st.sampled_from((HERE, HERE, THERE, ELSEWHERE))
_memberships = st.lists(st.sampled_from(GROUPS[:4]), max_size=4, unique=True).map(sorted)
_pair_macs = st.sampled_from((None, None, SHARED_MAC, "fa:16:3e:00:00:01"))


def _draw_port(draw: st.DrawFn, cloud: CloudBuilder, name: str, subnet: str) -> None:
    """A port with what is left of its subnet's addresses; perhaps none."""
    taken = {ip for other in cloud.port_ids for ip in cloud.port_spec(other).fixed_ips}
    free = [ip for ip in _USABLE[subnet] if parse_ip(ip) not in taken]
    ips = draw(st.lists(st.sampled_from(free), max_size=2, unique=True)) if free else []
    if draw(st.integers(0, 5)) == 0:
        cloud.port(name, subnet, *ips, host=draw(_hosts), port_security=False)
        return
    pairs: dict[tuple[str, str | None], None] = {}
    if draw(st.booleans()):
        pairs = dict.fromkeys(
            draw(st.lists(st.tuples(st.sampled_from(_PAIR_PREFIXES), _pair_macs), max_size=3))
        )
    cloud.port(
        name,
        subnet,
        *ips,
        host=draw(_hosts),
        groups=draw(_memberships),
        pairs=[prefix if mac is None else (prefix, mac) for prefix, mac in pairs],
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """One question in two forms: for the agent and for the reference."""

    flow: Flow
    connection: Connection


def _question(number: int) -> Asked:
    """A connection of any protocol and family with anybody."""
    digits = _Digits(number)
    remote = parse_ip(digits.pick((*ADDRESSES, *_CLAIMED * 4)))
    icmp = 1 if len(remote) == 4 else 58
    protocol = digits.pick((6, 17, 132, icmp, 6, 17, icmp, 47, 0, 50, 51, 59 - icmp))
    egress = digits.pick((True, False))
    has_ports, is_icmp = protocol in PORTED, protocol == icmp
    first = second = 0
    if is_icmp:
        first, second = digits.pick(_ICMP_VALUES), digits.pick(_ICMP_CODES)
    elif has_ports:
        first, second = digits.pick(_EDGES), digits.pick(_EDGES)
    flow = make_flow(
        Direction.EGRESS if egress else Direction.INGRESS,
        remote,
        protocol,
        first,
        second,
        reply=protocol in (6, 17, icmp) and digits.pick((False, True)),
    )
    return Asked(
        flow,
        Connection(
            egress=egress,
            remote=address(remote),
            protocol=protocol,
            source=first if has_ports else None,
            target=second if has_ports else None,
            icmp_type=first if is_icmp else None,
            icmp_code=second if is_icmp else None,
        ),
    )


questions = _numbers.map(_question)

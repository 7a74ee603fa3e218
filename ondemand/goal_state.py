"""Goal state: what a person or a program writes, checked as a whole and compiled to slices.

The input is what a YAML or JSON parser gives. Either all of it is sound, or a GoalStateError tells
all that is wrong and nothing is compiled. Where Neutron has a meaning for a word, it is the meaning
here. ``docs/goal-state.md`` is the full description.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ondemand.addresses import Prefix
from ondemand.codec import encode_record
from ondemand.goal_model import (
    GoalInput,
    GroupInput,
    HostInput,
    PortInput,
    RouterInput,
    SubnetInput,
    VpcInput,
)
from ondemand.goal_ports import PortSpec, check_ports
from ondemand.goal_problems import GoalStateError, Problems
from ondemand.goal_rules import check_groups
from ondemand.goal_topology import check_hosts, check_routers, check_subnets
from ondemand.records import (
    Claim,
    Group,
    MacPointer,
    Neighbor,
    Port,
    Record,
    Route,
    Router,
    SecurityRule,
    Subnet,
)
from ondemand.slices import (
    group_slice,
    host_group_slice,
    host_slice,
    mac_slice,
    neighbor_slice,
    vpc_slice,
)

Slices = dict[str, dict[str, Record]]


@dataclass(frozen=True, slots=True)
class _Vpc:
    """One VPC of the document, as far as it is sound."""

    id: str
    subnets: dict[str, Subnet]
    routers: list[Router]
    routes: list[Route]
    groups: dict[str, tuple[Group, tuple[SecurityRule, ...]]]
    ports: list[PortSpec]


def compile_goal_state(document: object) -> Slices:
    """The records of each slice, by slice name and key.

    Args:
        document: dicts, lists, strings, ints and bools, as a YAML or JSON parser gives them.

    Raises:
        GoalStateError: with every mistake of the document; nothing is compiled then.
    """
    problems = Problems()
    if document is None:
        problems.add("goal state", "is empty; write 'vpcs: []' to say that there is nothing")
    goal = problems.read_one(GoalInput, {} if document is None else document, "goal state")
    if goal is None:
        raise GoalStateError(problems.errors)
    hosts = check_hosts(problems.read("host", HostInput, goal.hosts, "hosts"), problems)
    vpcs = []
    vpc_ids: dict[str, str] = {}
    group_ids: dict[str, str] = {}
    port_ids: dict[str, str] = {}
    vnis: dict[int, str] = {}
    for place, given in problems.read("vpc", VpcInput, goal.vpcs, "vpcs"):
        problems.is_first(vpc_ids, given.id, place, f"vpc id {given.id!r}")
        path = place.partition(" ")[0]  # the id in the place of a vpc would lengthen all below it
        read = problems.read
        scope = problems.scoped(given.id)
        subnets = check_subnets(
            read("subnet", SubnetInput, given.subnets, f"{path}.subnets"), vnis, problems
        )
        routers, routes = check_routers(
            read("router", RouterInput, given.routers, f"{path}.routers"), subnets, problems
        )
        groups = check_groups(
            read("security group", GroupInput, given.security_groups, f"{path}.security_groups"),
            group_ids,
            problems,
        )
        ports = check_ports(
            read("port", PortInput, given.ports, f"{path}.ports"),
            hosts=hosts,
            subnets=subnets,
            groups=groups,
            taken_ids=port_ids,
            problems=problems,
        )
        vpcs.append(_Vpc(given.id, subnets, routers, routes, groups, ports))
    problems.raise_any()

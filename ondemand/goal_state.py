"""Goal state: what a person or a program writes, checked as a whole and compiled to slices.

The input is what a YAML or JSON parser gives. Either all of it is sound, or a GoalStateError tells
all that is wrong and nothing is compiled. Where Neutron has a meaning for a word, that is its meaning
here. ``docs/goal-state.md`` is the full description.
"""

from __future__ import annotations

from ondemand.codec import encode_record
from ondemand.goal_compile import CheckedVpc, Slices, add_host, compile_vpc
from ondemand.goal_model import (
    GoalInput,
    GroupInput,
    HostInput,
    PortInput,
    RouterInput,
    SubnetInput,
    VpcInput,
)
from ondemand.goal_ports import check_ports
from ondemand.goal_problems import GoalStateError, Problems
from ondemand.goal_rules import check_groups
from ondemand.goal_topology import Host, check_hosts, check_routers, check_subnets

__all__ = ["GoalStateError", "Slices", "compile_goal_state", "encode_slices"]


def compile_goal_state(document: object) -> Slices:
    """The records of each slice, by slice name and key.

    A slice that the document names (of a host, a host group, a VPC, a security group) is there also
    when it has no records, so that publishing empties it.

    Args:
        document: dicts, lists, strings, ints and bools, as a YAML or JSON parser gives them.

    Raises:
        GoalStateError: with every mistake of the document; nothing is compiled then.
    """
    if document is None:
        raise GoalStateError(["the goal state is empty: write 'vpcs: []' for no network at all"])
    problems = Problems()
    goal = problems.read_one(GoalInput, document, "top level")
    if goal is None:
        raise problems.error()
    hosts = check_hosts(problems.read("host", HostInput, goal.hosts, "hosts"), problems)
    vpcs = _check_vpcs(goal, hosts, problems)
    problems.raise_any()
    slices: Slices = {}
    for host in hosts.values():
        add_host(host, slices)
    for vpc in vpcs:
        compile_vpc(vpc, slices)
    return slices


def encode_slices(slices: Slices) -> dict[str, dict[str, bytes]]:
    """The payloads to publish."""
    return {
        name: {key: encode_record(record) for key, record in records.items()}
        for name, records in slices.items()
    }


def _check_vpcs(goal: GoalInput, hosts: dict[str, Host], problems: Problems) -> list[CheckedVpc]:
    read = problems.read
    vpcs = []
    vpc_ids: dict[str, str] = {}
    group_ids: dict[str, str] = {}
    port_ids: dict[str, str] = {}
    vnis: dict[int, str] = {}
    for place, given in read("vpc", VpcInput, goal.vpcs, "vpcs"):
        problems.is_first(vpc_ids, given.id, place, f"vpc id {given.id!r}")
        path = place.partition(" ")[0]  # without the id, which would lengthen every place below
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
        vpcs.append(
            CheckedVpc(
                id=given.id,
                subnets=list(subnets.values()),
                routers=routers,
                routes=routes,
                groups=list(groups.values()),
                ports=ports,
            )
        )
    return vpcs

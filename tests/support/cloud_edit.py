"""Changes to a cloud that was built: what an operator would do to it later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ondemand.addresses import parse_ip
from ondemand.goal_topology import Host
from ondemand.records import SecurityRule
from tests.support.world_builder import TUNNELS, CloudBuilder


def host_of(name: str) -> Host:
    return Host(name, parse_ip(TUNNELS[name]), None)


def change_port(cloud: CloudBuilder, name: str, **changes: Any) -> None:
    """Give a port other fields of PortSpec; ``host`` may be the name of one."""
    if isinstance(changes.get("host"), str):
        changes["host"] = host_of(changes["host"])
    spec = replace(cloud.port_spec(name), **changes)
    for vpc in cloud._vpcs.values():
        vpc.ports[:] = [spec if port.id == name else port for port in vpc.ports]
    cloud._ports[name] = spec


def remove_port(cloud: CloudBuilder, name: str) -> None:
    for vpc in cloud._vpcs.values():
        vpc.ports[:] = [port for port in vpc.ports if port.id != name]
    del cloud._ports[name]


def rules_of(cloud: CloudBuilder, group: str) -> tuple[SecurityRule, ...]:
    return next(
        rules for vpc in cloud._vpcs.values() for record, rules in vpc.groups if record.id == group
    )


def set_rules(cloud: CloudBuilder, group: str, *rules: SecurityRule) -> None:
    """Give a group these rules instead of those that it has."""
    for vpc in cloud._vpcs.values():
        vpc.groups[:] = [
            (record, rules if record.id == group else old) for record, old in vpc.groups
        ]


def add_rule(cloud: CloudBuilder, group: str, rule: SecurityRule) -> None:
    set_rules(cloud, group, *rules_of(cloud, group), rule)


def remove_rule(cloud: CloudBuilder, group: str, rule_id: str) -> None:
    kept = [rule for rule in rules_of(cloud, group) if rule.id != rule_id]
    set_rules(cloud, group, *kept)


def remove_group(cloud: CloudBuilder, group: str) -> None:
    for vpc in cloud._vpcs.values():
        vpc.groups[:] = [entry for entry in vpc.groups if entry[0].id != group]

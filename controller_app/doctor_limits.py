"""Checks of the bounds that the switch itself keeps: rules in a table, connections of a port."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from controller_app.config import STANDING_RULES, AgentConfig
from controller_app.config_keys import MAX_CONNECTIONS_PER_PORT
from controller_app.doctor_check import Check, Machine, Status
from controller_app.doctor_sockets import Sockets
from controller_app.ovsdb_config import BridgeConfig
from controller_app.ovsdb_facts import BridgeFacts
from ondemand.pipeline import ON_DEMAND
from ondemand.settings import Settings

_ZONE_LIMIT: Final = re.compile(r"zone=\d+,limit=[1-9]\d*")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the agent will have the switch keep to: the part of its configuration that matters."""

    table_base: int = 0
    table_rules: int = Settings().max_rules + STANDING_RULES
    connections: int = MAX_CONNECTIONS_PER_PORT

    @classmethod
    def of(cls, config: AgentConfig) -> Self:
        return cls(
            config.settings.table_base, config.switch_table_rules, config.max_connections_per_port
        )


def table_limits(limits: Limits, bridge: BridgeFacts | None) -> Check:
    """The table Flow_Table for the tables that traffic fills."""
    tables = [limits.table_base + table for table in ON_DEMAND]
    names = ", ".join(map(str, tables))
    found = {} if bridge is None else {row[0]: row[1:] for row in bridge.flow_tables}
    if not found.keys() & set(tables):
        return Check(
            "table limits",
            Status.OK,
            f"none yet; the agent sets {limits.table_rules} rules per table",
        )
    wrong = [table for table in tables if found.get(table) != (limits.table_rules, True)]
    if wrong:
        shown = ", ".join(f"{table}: {_limit(found.get(table))}" for table in wrong)
        return Check(
            "table limits",
            Status.WARN,
            f"not as configured in tables {shown}",
            f"the agent sets {limits.table_rules} rules and evict when it starts: restart it",
        )
    return Check(
        "table limits",
        Status.OK,
        f"{limits.table_rules} rules in each of tables {names}; who has most in a full one makes room",
    )


def _limit(found: tuple[int | None, bool] | None) -> str:
    if found is None or found[0] is None:
        return "no limit"
    return f"{found[0]} rules, {'evict' if found[1] else 'refuse'}"


def connection_limits(
    machine: Machine, config: BridgeConfig, limits: Limits, datapath: str
) -> Check:
    """Whether conntrack of the datapath takes limits per zone, and for how many zones it has them."""
    name = "connection limits"
    if not limits.connections:
        return Check(name, Status.OK, "switched off: one port may fill conntrack for all")
    said = Sockets(machine, config).ask("dpctl/ct-get-limits", f"{datapath}@ovs-{datapath}")
    if said is None:
        return Check(
            name, Status.WARN, "ovs-vswitchd could not be asked", "run doctor as root to see"
        )
    if said.code != 0:
        reason = said.text.splitlines()[0] if said.text else "it does not say why"
        return Check(
            name,
            Status.WARN,
            f"this datapath takes none: {reason}",
            "install a newer Open vSwitch (2.14) or kernel (4.18), or set [limits]"
            " max_connections_per_port = 0; until then one port may fill conntrack for all",
        )
    zones = len(_ZONE_LIMIT.findall(said.text))
    return Check(
        name, Status.OK, f"{limits.connections} per port; zones that have a limit now: {zones}"
    )

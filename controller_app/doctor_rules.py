"""Checks of the rules in the switch by whose they are: of another host's agent, or of no agent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from controller_app.doctor_check import Check, Machine, Status
from controller_app.doctor_sockets import Sockets
from controller_app.explain_switch import SwitchReader
from controller_app.foreign_rules import count_foreign, rules, will_be_cleared
from controller_app.ovsdb_config import BridgeConfig
from controller_app.ovsdb_errors import ForeignRulesError
from controller_app.ovsdb_facts import BridgeFacts
from controller_app.switch_query import SwitchQuery, SwitchQueryError
from ondemand.local_ports import host_mark
from ondemand.pipeline import Pipeline, Table
from ondemand.read_back import found_owner
from rule_cache.cookie import MAGIC_MASK, MAGIC_VALUE

#: Seconds to wait for the switch.
TIMEOUT_S: Final = 3.0


def owner_checks(
    machine: Machine, config: BridgeConfig, host: str, table_base: int
) -> Iterator[Check]:
    """Whether the agent of ``host`` would refuse the rules that are there; nothing when they do not say
    whose they are, or cannot be read.
    """
    path = Sockets(machine, config).management
    if not machine.has_path(str(path)):
        return
    try:
        with SwitchQuery(path, timeout_s=TIMEOUT_S) as query:
            owner = _owner(SwitchReader(query, Pipeline(table_base)))
    except SwitchQueryError:
        return
    if owner is None:
        return
    if owner == host_mark(host):
        yield Check(
            "owner", Status.OK, f"the rules in the switch are of the agent of host {host!r}"
        )
        return
    found, _, mend = str(ForeignRulesError(config.bridge, host)).partition(": ")
    yield Check("owner", Status.FAIL, found, mend)


def foreign_checks(machine: Machine, config: BridgeConfig, bridge: BridgeFacts) -> Iterator[Check]:
    """Rules that the agent would clear by adopting the bridge; nothing when there are none, or when the
    switch cannot be asked.
    """
    path = Sockets(machine, config).management
    if not machine.has_path(str(path)):
        return
    if not will_be_cleared(target for target, _ in bridge.controllers):
        return
    try:
        count = count_foreign(path, timeout_s=TIMEOUT_S)
    except SwitchQueryError:
        return
    if count:
        yield Check(
            "rules of others",
            Status.WARN,
            f"{rules(count)} on bridge {config.bridge}, which has no controller yet: Open vSwitch clears"
            " all tables when the agent sets the first one",
            "add them again once the agent is connected, which leaves them alone from then on, or set"
            " [bridge] bridge to another name",
        )


def _owner(reader: SwitchReader) -> int | None:
    table = reader.pipeline.number(Table.DELIVER)
    rules = map(reader.read, reader.query.flows(MAGIC_VALUE, MAGIC_MASK, table))
    return found_owner(reader.pipeline, (rule for rule in rules if rule is not None))

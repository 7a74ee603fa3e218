"""How many flows the switch itself lets into a table of the bridge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ovsdbapp.backend.ovs_idl.command import BaseCommand

from controller_app.ovsdb_errors import BridgeConflictError
from controller_app.ovsdb_link import find_row
from controller_app.ovsdb_view import first
from ondemand.pipeline import Pipeline, Table

#: external_ids key of the rows that an agent made.
_OWNED: Final = "ondemand"

#: What makes a group of a full table's rules (ovs-vswitchd.conf.db(5), Flow_Table.groups): the port on
#: whose account they are. Where neighbors are is known per subnet, for all its ports together.
_GROUP_FIELDS: Final = {
    Table.RESPONDER: "NXM_NX_REG6[]",
    Table.EGRESS_VERDICT: "NXM_NX_REG6[]",
    Table.LOCATION: "NXM_NX_REG5[]",
    Table.INGRESS_VERDICT: "NXM_NX_REG7[]",
}


def eviction_groups(pipeline: Pipeline) -> dict[int, tuple[str, ...]]:
    """The tables that traffic fills, and what makes a group in each; for ``set_flow_table_limits``."""
    return {pipeline.number(table): (field,) for table, field in _GROUP_FIELDS.items()}


class SetFlowTableLimits(BaseCommand):
    """Bound the number of flows in each table of ``groups`` (table id -> Flow_Table.groups).

    A full table evicts a flow of the group that has most (Flow_Table.groups), so that who fills the
    table loses its own flows; only flows with a timeout are evicted. Rows that an earlier call made
    for other tables are dropped; rows of somebody else for other tables stay.
    """

    def __init__(
        self, api: Any, bridge: str, groups: Mapping[int, Iterable[str]], *, limit: int
    ) -> None:
        super().__init__(api)
        self.bridge = bridge
        self.groups = {table_id: sorted(fields) for table_id, fields in groups.items()}
        self.limit = limit

    def is_done(self) -> bool:
        """Whether there is nothing to write; called while the replica is held."""
        bridge = find_row(self.api, "Bridge", self.bridge)
        if bridge is None:
            return False
        return {
            table_id: (first(row, "flow_limit"), first(row, "overflow_policy"), _groups(row))
            for table_id, row in bridge.flow_tables.items()
            if table_id in self.groups or _OWNED in row.external_ids
        } == {table_id: (self.limit, "evict", groups) for table_id, groups in self.groups.items()}

    def run_idl(self, txn: Any) -> None:
        bridge = find_row(self.api, "Bridge", self.bridge)
        if bridge is None:
            raise BridgeConflictError(f"bridge {self.bridge} is gone; somebody removed it")
        found = bridge.flow_tables
        bridge.verify("flow_tables")
        tables = {
            table_id: row
            for table_id, row in found.items()
            if table_id in self.groups or _OWNED not in row.external_ids
        }
        for table_id, groups in self.groups.items():
            row = tables.get(table_id)
            if row is None:
                row = tables[table_id] = txn.insert(self.api.tables["Flow_Table"])
                row.external_ids = {_OWNED: "true"}
            if first(row, "flow_limit") != self.limit:
                row.flow_limit = self.limit
            if first(row, "overflow_policy") != "evict":
                row.overflow_policy = "evict"
            if _groups(row) != groups:
                row.groups = groups
        if tables.keys() != found.keys():
            bridge.flow_tables = tables


def _groups(row: Any) -> list[str]:
    return sorted(getattr(row, "groups", []))

"""What the switch says about itself, for ``ondemand doctor``."""

from __future__ import annotations

from dataclasses import dataclass

from controller_app.ovsdb_idl import SCHEMA
from controller_app.ovsdb_link import Link
from controller_app.ovsdb_view import first


@dataclass(frozen=True, slots=True)
class BridgeFacts:
    """One bridge: ``works`` when ovs-vswitchd has opened its datapath, ``controllers`` as pairs of
    target and whether it is connected, ``flow_tables`` as table id, limit of flows (None: none) and
    whether a full table evicts.
    """

    name: str
    datapath_type: str
    works: bool
    fail_mode: str
    controllers: tuple[tuple[str, bool], ...]
    flow_tables: tuple[tuple[int, int | None, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class SwitchFacts:
    """What ovs-vswitchd has told about itself.

    ``settled`` is false while it has not taken up the last change, which is for good if it does not
    run. ``datapath_types`` lists what it was built with; "system" needs a kernel module too.
    """

    ovs_version: str
    db_version: str
    datapath_types: tuple[str, ...]
    iface_types: tuple[str, ...]
    settled: bool
    bridges: tuple[BridgeFacts, ...]


def switch_facts(remote: str, *, timeout_s: float = 3.0) -> SwitchFacts:
    """Read what is in the OVSDB at ``remote``; take no lock and write nothing.

    Raises:
        OvsdbUnreachableError: no answer within ``timeout_s`` seconds.
        OvsdbError: the database has not been initialised.
    """
    with Link(remote, timeout_s=timeout_s) as link, link.held():
        row = next(iter(link.idl.tables[SCHEMA].rows.values()))
        return SwitchFacts(
            ovs_version=first(row, "ovs_version") or "",
            db_version=first(row, "db_version") or "",
            datapath_types=tuple(sorted(row.datapath_types)),
            iface_types=tuple(sorted(row.iface_types)),
            settled=row.cur_cfg >= row.next_cfg,
            bridges=tuple(
                BridgeFacts(
                    name=bridge.name,
                    datapath_type=bridge.datapath_type or "system",
                    works=first(bridge, "datapath_id") is not None,
                    fail_mode=first(bridge, "fail_mode") or "",
                    controllers=tuple((c.target, bool(c.is_connected)) for c in bridge.controller),
                    flow_tables=tuple(
                        (
                            table_id,
                            first(table, "flow_limit"),
                            first(table, "overflow_policy") == "evict",
                        )
                        for table_id, table in sorted(bridge.flow_tables.items())
                    ),
                )
                for bridge in sorted(row.bridges, key=lambda bridge: str(bridge.name))
            ),
        )

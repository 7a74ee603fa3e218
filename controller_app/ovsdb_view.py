"""Read the bridge's ports out of the replica of the database.

A local port is an Interface on the bridge that carries ``external_ids:iface-id`` and has an OpenFlow
port number (ovs-vswitchd.conf.db(5), table Interface).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from controller_app.ovsdb_ports import BridgeView, PortSeen, SeenInterface, TunnelSeen
from ondemand.addresses import AddressError, parse_mac

#: Port numbers from OFPP_MAX on are reserved (OpenFlow 1.3.5, section 7.2.1); 0 is none either.
OFPP_MAX = 0xFF00


def first(row: Any, column: str) -> Any:
    """The value of an optional column of an IDL row, or None."""
    values = getattr(row, column, None)
    return values[0] if values else None


def valid_ofport(row: Any) -> int | None:
    """The OpenFlow port of an Interface row; None when it has none yet (empty) or cannot (-1)."""
    ofport: int | None = first(row, "ofport")
    return ofport if ofport is not None and 0 < ofport < OFPP_MAX else None


class ViewReader:
    """Views of one bridge, read again only where ``note`` told of a change.

    To read 1,000 ports from their rows takes some 40 ms, and each port that appears changes its own
    row several times.
    """

    __slots__ = ("_interfaces", "_members", "_ports", "_tunnel_port")

    def __init__(self, tunnel_port: str) -> None:
        self._tunnel_port = tunnel_port
        #: Per Port row its Interface rows, per Interface row what was read; the rows of this bridge.
        self._ports: dict[UUID, tuple[UUID, ...]] = {}
        self._interfaces: dict[UUID, SeenInterface | TunnelSeen | None] = {}
        self._members: list[UUID] | None = None

    def note(self, table: str, uuid: UUID) -> None:
        """Row ``uuid`` of ``table`` was created, changed or deleted."""
        if table == "Interface":
            self._interfaces.pop(uuid, None)
        elif table == "Port":
            self._ports.pop(uuid, None)
            self._members = None
        elif table == "Bridge":
            self._members = None

    def read(self, bridge: Any | None, interface_rows: Mapping[UUID, Any]) -> BridgeView:
        """The view from the bridge's row (None: there is no such bridge)."""
        if bridge is None:
            self._ports.clear()
            self._interfaces.clear()
            self._members = None
            return BridgeView(present=False, tunnel=None, interfaces=())
        if self._members is None:
            self._members = self._read_members(bridge)
        tunnel = None
        interfaces = []
        for uuid in self._members:
            if uuid in self._interfaces:
                seen = self._interfaces[uuid]
            else:
                seen = self._interfaces[uuid] = self._read_interface(interface_rows[uuid])
            if isinstance(seen, TunnelSeen):
                tunnel = seen
            elif seen is not None:
                interfaces.append(seen)
        return BridgeView(present=True, tunnel=tunnel, interfaces=tuple(interfaces))

    def _read_members(self, bridge: Any) -> list[UUID]:
        ports: dict[UUID, tuple[UUID, ...]] = {}
        for port in bridge.ports:
            known = self._ports.get(port.uuid)
            ports[port.uuid] = known or tuple(row.uuid for row in port.interfaces)
        self._ports = ports
        members = [uuid for uuids in ports.values() for uuid in uuids]
        here = self._interfaces.keys() & set(members)
        self._interfaces = {uuid: self._interfaces[uuid] for uuid in here}
        return members

    def _read_interface(self, row: Any) -> SeenInterface | TunnelSeen | None:
        name: str = row.name
        ofport = valid_ofport(row)
        if name == self._tunnel_port:
            return None if ofport is None else TunnelSeen(name, ofport)
        external_ids: Mapping[str, str] = row.external_ids
        iface_id = external_ids.get("iface-id")
        if not iface_id:
            return None
        who = f"interface {name} (iface-id {iface_id})"
        if ofport is None:
            error = first(row, "error")
            problem = f"{who} has no OpenFlow port: {error}" if error else None
            return SeenInterface(name, iface_id, None, problem)
        mac_text = external_ids.get("attached-mac")
        mac = problem = None
        if mac_text:
            try:
                mac = parse_mac(mac_text)
            except AddressError as error:
                problem = f"{who}: attached-mac is ignored: {error}"
        return SeenInterface(name, iface_id, PortSeen(iface_id, name, ofport, mac), problem)

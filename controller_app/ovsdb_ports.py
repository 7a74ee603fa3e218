"""Which local ports a bridge has, and what changed since they were last told.

Pure: ``read_view`` copies what matters out of the replica of the database, ``PortTracker`` compares
it with what was told before. Events follow from the difference of two states and never from the
single notifications in between, so a lost connection costs nothing: the next view tells it all.

A local port is an Interface on the bridge that carries ``external_ids:iface-id`` and has an OpenFlow
port number (ovs-vswitchd.conf.db(5), table Interface).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ondemand.addresses import AddressError, parse_mac

#: Port numbers from OFPP_MAX on are reserved (OpenFlow 1.3.5, A.2.1); OVS numbers ports below it.
OFPP_MAX = 0xFF00


@dataclass(frozen=True, slots=True)
class PortSeen:
    """``iface_id`` is on interface ``name`` as OpenFlow port ``ofport``.

    The three stay as they are until the PortGone of ``iface_id``; a second PortSeen before it brings
    a new ``attached_mac`` only (6 bytes, from ``external_ids:attached-mac``; None: not given).
    """

    iface_id: str
    name: str
    ofport: int
    attached_mac: bytes | None


@dataclass(frozen=True, slots=True)
class PortGone:
    """``iface_id`` is no longer on interface ``name``."""

    iface_id: str
    name: str


@dataclass(frozen=True, slots=True)
class TunnelSeen:
    """The tunnel port ``name`` has OpenFlow port ``ofport``."""

    name: str
    ofport: int


@dataclass(frozen=True, slots=True)
class TunnelGone:
    """The tunnel port ``name`` has no OpenFlow port any more."""

    name: str


@dataclass(frozen=True, slots=True)
class BridgeGone:
    """Somebody removed the bridge; ``Ovsdb.ensure_bridge`` makes it again."""

    bridge: str


@dataclass(frozen=True, slots=True)
class LockLost:
    """Another agent serves the bridge now; this one must stop writing to it."""

    bridge: str


OvsdbEvent: TypeAlias = PortSeen | PortGone | TunnelSeen | TunnelGone | BridgeGone | LockLost


@dataclass(frozen=True, slots=True)
class SeenInterface:
    """An Interface row that carries an iface-id. ``ofport`` is None until there is a valid one."""

    name: str
    iface_id: str
    ofport: int | None
    attached_mac: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class BridgeView:
    """One consistent state of the bridge; ``interfaces`` are those with an iface-id."""

    present: bool
    tunnel_ofport: int | None
    interfaces: tuple[SeenInterface, ...]


def first(row: Any, column: str) -> Any:
    """The value of an optional column of an IDL row, or None."""
    values = getattr(row, column, None)
    return values[0] if values else None


def valid_ofport(row: Any) -> int | None:
    """The OpenFlow port of an Interface row; None when it has none yet (empty) or cannot (-1)."""
    ofport = first(row, "ofport")
    return ofport if ofport is not None and 0 < ofport < OFPP_MAX else None


def read_view(bridge: Any | None, tunnel_port: str) -> BridgeView:
    """Copy the view out of the IDL row of the bridge (None: there is no such bridge)."""
    if bridge is None:
        return BridgeView(present=False, tunnel_ofport=None, interfaces=())
    tunnel_ofport = None
    interfaces = []
    for port in bridge.ports:
        for row in port.interfaces:
            if row.name == tunnel_port:
                tunnel_ofport = valid_ofport(row)
                continue
            external_ids: Mapping[str, str] = row.external_ids
            iface_id = external_ids.get("iface-id")
            if iface_id:
                interfaces.append(
                    SeenInterface(
                        name=row.name,
                        iface_id=iface_id,
                        ofport=valid_ofport(row),
                        attached_mac=external_ids.get("attached-mac"),
                        error=first(row, "error"),
                    )
                )
    return BridgeView(present=True, tunnel_ofport=tunnel_ofport, interfaces=tuple(interfaces))


class PortTracker:
    """What has been told so far, and what is still to be told.

    ``pending`` lists the events that lead from the one to the other, ``told`` records one of them as
    delivered; between the two nothing is forgotten.
    """

    __slots__ = ("_bridge", "_bridge_seen", "_ports", "_tunnel", "_tunnel_port")

    def __init__(self, bridge: str, tunnel_port: str) -> None:
        self._bridge = bridge
        self._tunnel_port = tunnel_port
        self._ports: dict[str, PortSeen] = {}
        self._tunnel: TunnelSeen | None = None
        self._bridge_seen = False

    def pending(self, view: BridgeView) -> list[OvsdbEvent]:
        """The events that are due, everything that went before anything that came.

        So an ofport or a name that moved from one port to another is never held by two. Ports that
        came are in the order of their ofports.
        """
        wanted = self._choose(view)
        events: list[OvsdbEvent] = []
        for iface_id, told in self._ports.items():
            now = wanted.get(iface_id)
            if now is None or (now.name, now.ofport) != (told.name, told.ofport):
                events.append(PortGone(iface_id, told.name))
        tunnel = None
        if view.tunnel_ofport is not None:
            tunnel = TunnelSeen(self._tunnel_port, view.tunnel_ofport)
        if self._tunnel is not None and self._tunnel != tunnel:
            events.append(TunnelGone(self._tunnel.name))
        if self._bridge_seen and not view.present:
            events.append(BridgeGone(self._bridge))
        if tunnel is not None and self._tunnel != tunnel:
            events.append(tunnel)
        came = [port for port in wanted.values() if self._ports.get(port.iface_id) != port]
        came.sort(key=lambda port: port.ofport)
        events += came
        self._bridge_seen |= view.present
        return events

    def told(self, event: OvsdbEvent) -> None:
        match event:
            case PortSeen():
                self._ports[event.iface_id] = event
            case PortGone():
                self._ports.pop(event.iface_id, None)
            case TunnelSeen():
                self._tunnel = event
            case TunnelGone():
                self._tunnel = None
            case BridgeGone():
                self._bridge_seen = False
            case LockLost():
                pass

    def problems(self, view: BridgeView) -> list[str]:
        """One sentence for each thing that somebody should mend."""
        wanted = self._choose(view)
        sentences = []
        for interface in view.interfaces:
            name, iface_id = interface.name, interface.iface_id
            if interface.ofport is None:
                if interface.error:
                    sentences.append(
                        f"interface {name} (iface-id {iface_id}) has no OpenFlow port: "
                        f"{interface.error}"
                    )
                continue
            kept = wanted[iface_id].name
            if kept != name:
                sentences.append(
                    f"interfaces {kept} and {name} both have iface-id {iface_id}: {kept} stays, "
                    f"{name} is ignored (ovs-vsctl remove Interface {name} external_ids iface-id)"
                )
            if interface.attached_mac and _parsed_mac(interface) is None:
                sentences.append(
                    f"interface {name} (iface-id {iface_id}): attached-mac "
                    f"{interface.attached_mac!r} is ignored, it is not a MAC"
                )
        return sentences

    def _choose(self, view: BridgeView) -> dict[str, PortSeen]:
        """The one interface for each iface-id: the one told before, else the lowest ofport."""
        chosen: dict[str, PortSeen] = {}
        for interface in view.interfaces:
            if interface.ofport is None:
                continue
            iface_id = interface.iface_id
            candidate = PortSeen(iface_id, interface.name, interface.ofport, _parsed_mac(interface))
            rival = chosen.get(iface_id)
            if rival is None or self._rank(candidate) < self._rank(rival):
                chosen[iface_id] = candidate
        return chosen

    def _rank(self, port: PortSeen) -> tuple[bool, int]:
        told = self._ports.get(port.iface_id)
        return (told is None or told.name != port.name, port.ofport)


def _parsed_mac(interface: SeenInterface) -> bytes | None:
    if not interface.attached_mac:
        return None
    try:
        return parse_mac(interface.attached_mac)
    except AddressError:
        return None

"""The local ports of a bridge as events: what changed since they were last told.

Pure. ``PortTracker`` compares a view of the bridge with what has been told before. Events follow from
the difference of two states and never from the single notifications in between, so a lost connection
costs nothing: the next view tells it all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


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
class InterfacesTold:
    """All that was on the bridge when the watch began has been told."""

    bridge: str


@dataclass(frozen=True, slots=True)
class BridgeGone:
    """Somebody removed the bridge; ``Ovsdb.ensure_bridge`` makes it again."""

    bridge: str


@dataclass(frozen=True, slots=True)
class LockLost:
    """Another agent serves the bridge now; this one must stop writing to it.

    ``taken`` says that it took the lock away, False that it was the faster one after a gap.
    """

    bridge: str
    taken: bool = False


OvsdbEvent: TypeAlias = (
    PortSeen | PortGone | TunnelSeen | TunnelGone | InterfacesTold | BridgeGone | LockLost
)


@dataclass(frozen=True, slots=True)
class SeenInterface:
    """An Interface of the bridge that carries an iface-id.

    ``port`` is what there is to tell of it, None until it has an OpenFlow port; ``problem`` is a
    sentence for whoever should mend it.
    """

    name: str
    iface_id: str
    port: PortSeen | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class BridgeView:
    """One consistent state of the bridge; ``interfaces`` are those with an iface-id."""

    present: bool
    tunnel: TunnelSeen | None
    interfaces: tuple[SeenInterface, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """The events that lead from what was told to a view, and one sentence for each problem in it.

    Everything that went comes before anything that came, so that an ofport or a name that moved from
    one port to another is never held by two. Ports that came are in the order of their ofports.
    """

    events: tuple[OvsdbEvent, ...]
    problems: frozenset[str]


class PortTracker:
    """What has been told so far.

    ``compare`` finds what is still to be told, ``told`` records one event of it as delivered; what
    was not recorded is found again.
    """

    __slots__ = ("_bridge", "_bridge_seen", "_ports", "_tunnel")

    def __init__(self, bridge: str) -> None:
        self._bridge = bridge
        self._ports: dict[str, PortSeen] = {}
        self._tunnel: TunnelSeen | None = None
        self._bridge_seen = False

    def compare(self, view: BridgeView) -> Difference:
        wanted = self._choose(view)
        events: list[OvsdbEvent] = []
        for iface_id, told in self._ports.items():
            now = wanted.get(iface_id)
            if now is None or (now.name, now.ofport) != (told.name, told.ofport):
                events.append(PortGone(iface_id, told.name))
        if self._tunnel is not None and self._tunnel != view.tunnel:
            events.append(TunnelGone(self._tunnel.name))
        if self._bridge_seen and not view.present:
            events.append(BridgeGone(self._bridge))
        if view.tunnel is not None and self._tunnel != view.tunnel:
            events.append(view.tunnel)
        came = [port for port in wanted.values() if self._ports.get(port.iface_id) != port]
        came.sort(key=lambda port: port.ofport)
        self._bridge_seen |= view.present
        return Difference((*events, *came), frozenset(_problems(view, wanted)))

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

    def _choose(self, view: BridgeView) -> dict[str, PortSeen]:
        """The one interface for each iface-id: the one told before, else the lowest ofport."""
        chosen: dict[str, PortSeen] = {}
        for interface in view.interfaces:
            port = interface.port
            if port is None:
                continue
            rival = chosen.get(port.iface_id)
            if rival is None or self._rank(port) < self._rank(rival):
                chosen[port.iface_id] = port
        return chosen

    def _rank(self, port: PortSeen) -> tuple[bool, int]:
        told = self._ports.get(port.iface_id)
        return (told is None or told.name != port.name, port.ofport)


def _problems(view: BridgeView, wanted: dict[str, PortSeen]) -> list[str]:
    sentences = []
    for interface in view.interfaces:
        name, iface_id = interface.name, interface.iface_id
        if interface.problem is not None:
            sentences.append(interface.problem)
        if interface.port is not None and (kept := wanted[iface_id].name) != name:
            sentences.append(
                f"interfaces {kept} and {name} both have iface-id {iface_id}: {kept} stays, "
                f"{name} is ignored (ovs-vsctl remove Interface {name} external_ids iface-id)"
            )
    return sentences

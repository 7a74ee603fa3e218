"""A compute host as its own agent would see it, read from a slice store when it is asked for.

The agent's slice cache and world are filled through the source contract, one need after the other, so
that the decisions run on exactly what they run on in the agent. Numbers that only a running switch has
(zones, OpenFlow ports, epochs) are placeholders.
"""

from __future__ import annotations

from typing import Final

from controller_app.explain_hosts import ExplainError, Store, tunnel_of
from ondemand.bound_ports import BoundPorts
from ondemand.decide import judge, locate, resolve
from ondemand.flow import Flow
from ondemand.local_ports import LocalPort
from ondemand.records import Claim, Port
from ondemand.settings import Settings
from ondemand.slice_cache import Applied, SliceCache
from ondemand.slices import vpc_slice
from ondemand.verdict import (
    Allow,
    Answer,
    Deny,
    GatewayEcho,
    Local,
    Need,
    NoAnswer,
    NoLocation,
    Tunnel,
)
from ondemand.world import World

#: A decision needs a handful of records: a neighbor, a MAC pointer, the VPC, some groups. A source
#: that goes on saying that one more is missing is broken.
MAX_NEEDS: Final = 1_000


class StoreView:
    """One host over a store. Its questions raise SourceError, and ExplainError when the store never
    gives what it is asked for.

    Attributes:
        host: its name.
        world: what decisions read; asking fills it.
        bound: the ports that it may serve.
        tunnel_port: OpenFlow port of the VXLAN interface, 0 when there is none.
        problems: records that count as missing, one sentence each.
    """

    def __init__(self, store: Store, host: str) -> None:
        """A view of ``host`` without any port.

        Raises:
            SourceError: the store cannot be read.
        """
        self.host = host
        self.problems: list[str] = []
        self.tunnel_port = 0
        self._store = store
        self._fetched: set[Need] = set()
        self.world = World(SliceCache(Settings().neighbor_cache_bytes), b"")
        self.bound = BoundPorts(self.world.cache, host)
        self._take(self.bound.host_slice)
        for name in self.bound.slices[1:]:
            self._take(name)

    def bound_ports(self) -> list[Port]:
        """The ports of the host's slice and of its groups' slices."""
        return [port.record for port in self.bound.all()]

    def slice_of_port(self, port_id: str) -> str:
        """The slice that has the port; the host's own when none has."""
        found = self.bound.find(port_id)
        return self.bound.host_slice if found is None else found.slice

    def resolve(self, port: LocalPort, target: bytes) -> Answer | NoAnswer:
        """As ``ondemand.decide.resolve``, with all that it needs."""
        while isinstance(answer := resolve(self.world, port, target), Need):
            self._fetch(answer)
        return answer

    def judge(self, port: LocalPort, flow: Flow) -> Allow | Deny:
        """As ``ondemand.decide.judge``, with all that it needs."""
        while isinstance(verdict := judge(self.world, port, flow), Need):
            self._fetch(verdict)
        return verdict

    def locate(
        self, port: LocalPort, eth_dst: bytes, ip_dst: bytes, *, echo: bool = False
    ) -> Tunnel | Local | GatewayEcho | NoLocation:
        """As ``ondemand.decide.locate``, with all that it needs."""
        while isinstance(location := locate(self.world, port, eth_dst, ip_dst, echo=echo), Need):
            self._fetch(location)
        return location

    def _fetch(self, need: Need) -> None:
        """Fetch what a decision needs. Each thing once, so that asking comes to an end."""
        if need in self._fetched or len(self._fetched) >= MAX_NEEDS:
            raise ExplainError(f"the store answers, but {need.slice!r} {need.key!r} stays unknown")
        self._fetched.add(need)
        if need.key:
            applied, _ = self.world.cache.put(self._store.get(need.slice, need.key))
            self._note(applied)
        else:
            self._take(need.slice)

    def _take(self, name: str) -> None:
        """Hold a whole slice."""
        self.world.cache.hold(name)
        self._note(self.world.cache.apply(self._store.snapshot(name)))
        self.world.slice_changed(name)

    def _note(self, applied: Applied) -> None:
        self.problems += [f"{error}; it counts as missing" for error in applied.errors]

    def _own_tunnel_ip(self, also: Port | None = None) -> bytes:
        """This host's tunnel address, which its memberships and records about its ports tell; b"" when
        none does. ``also`` is a port of a group that is known to be here.
        """
        told = next((group.host for group in self.bound.groups if group.host), b"")
        if told:
            return told
        own = [port.record for port in self.bound.all() if port.slice == self.bound.host_slice]
        for port in [*own, *([also] if also is not None else [])]:
            found = self._tunnel_of(port)
            if found:
                return found
        return b""

    def _tunnel_of(self, port: Port) -> bytes:
        """The tunnel address of the host that a port is on; b"" when no record tells."""
        records = (self.world.cache.whole(vpc_slice(port.vpc)) or {}).values()
        claims = [record for record in records if isinstance(record, Claim)]
        # Without entering anything into the cache: what a decision reads, it asks for itself.
        return tunnel_of(self._store, port, claims)


class HostView(StoreView):
    """A host with every port of one VPC plugged; zones, OpenFlow ports and epochs are placeholders."""

    def __init__(
        self, store: Store, host: str, port_id: str, *, tunnel_ip: bytes | None = None
    ) -> None:
        """A view of ``host``, around the port ``port_id``, which gets the first zone.

        ``tunnel_ip`` is the address that the host's agent is configured with; None: as the store has it.

        Raises:
            ExplainError: the port cannot be active: its record or its subnet is missing or broken.
            SourceError: the store cannot be read.
        """
        super().__init__(store, host)
        bound = self.bound_ports()
        port = next((one for one in bound if one.id == port_id), None)
        if port is None:
            reason = "; ".join(self.problems) or "it is not there"
            raise ExplainError(f"port {port_id!r} of host {host!r} cannot be used: {reason}")
        self._take(vpc_slice(port.vpc))
        told = self._own_tunnel_ip(port)
        self.world.tunnel_ip = told if tunnel_ip is None else tunnel_ip
        ports = [one for one in bound if one.vpc == port.vpc and self._is_here(one, port, told)]
        ports.sort(key=lambda one: (one.id != port_id, one.id))
        self._plug(ports)
        self.tunnel_port = len(ports) + 1
        if port_id not in self.world.ports:
            raise ExplainError(
                f"port {port_id!r} is in subnet {port.subnet!r}, which slice"
                f" {vpc_slice(port.vpc)!r} does not have: no agent gives it rules until it does"
            )

    def _is_here(self, one: Port, asked: Port, told: bytes) -> bool:
        """Whether a port is taken for plugged: those that the whole group has are each on one host,
        which is this one where the store has them at its address ``told``.
        """
        if one.id == asked.id or self.slice_of_port(one.id) == self.bound.host_slice:
            return True
        tunnel = self._tunnel_of(one)
        return bool(tunnel) and tunnel == told

    def _plug(self, ports: list[Port]) -> None:
        topology = self.world.topology(ports[0].vpc)
        if topology is None:
            return
        self.problems += topology.problems
        for number, record in enumerate(ports, start=1):
            subnet = topology.subnets.get(record.subnet)
            if subnet is not None:
                self.world.add_port(LocalPort(record, subnet, ofport=number, zone=number, epoch=1))

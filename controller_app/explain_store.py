"""A compute host as its own agent would see it, read from a slice store when it is asked for.

The agent's slice cache and world are filled through the source contract, one need after the other, so
that the decisions run on exactly what they run on in the agent. Numbers that only a running switch has
(zones, OpenFlow ports, epochs) are placeholders.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

from ondemand.codec import RecordError, decode_record
from ondemand.decide import judge, locate, resolve
from ondemand.flow import Flow
from ondemand.goal_problems import did_you_mean
from ondemand.local_ports import LocalPort
from ondemand.records import Claim, Neighbor, Port, port_key
from ondemand.settings import Settings
from ondemand.slice_cache import Applied, SliceCache, neighbor_place
from ondemand.slices import Lookup, SliceKind, Snapshot, host_slice, kind_of, vpc_slice
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


class ExplainError(Exception):
    """The question cannot be answered; the message names the thing and the mend."""


class Summary(Protocol):
    """A slice in a listing."""

    @property
    def name(self) -> str: ...


class Store(Protocol):
    """The part of a slice source that is read here, and a listing of what is in it."""

    def get(self, name: str, key: str) -> Lookup: ...

    def snapshot(self, name: str) -> Snapshot: ...

    def summaries(self) -> Iterable[Summary]: ...


def host_of_port(store: Store, port_id: str, only_host: str | None = None) -> str:
    """The host whose slice has this port.

    Raises:
        ExplainError: none has it, or several have.
        SourceError: the store cannot be read.
    """
    hosts = hosts_of(store, only_host)
    found = [h for h in hosts if store.get(host_slice(h), port_key(port_id)).payload is not None]
    if len(found) == 1:
        return found[0]
    if found:
        raise ExplainError(
            f"port {port_id!r} is bound on the hosts {', '.join(found)}: say on which, with --host"
        )
    where = f"host {only_host!r}" if only_host is not None else "no host of the store"
    ids = [
        key.removeprefix("port/") for h in hosts for key in store.snapshot(host_slice(h)).records
    ]
    hint = did_you_mean(port_id, ids) or _there_are("ports", sorted(ids))
    verb = "has no port" if only_host is not None else "has a port"
    raise ExplainError(f"{where} {verb} {port_id!r}{hint}")


def has_port(store: Store, port_id: str) -> str | None:
    """The host whose slice has this port, None when no host has it or several have."""
    try:
        return host_of_port(store, port_id)
    except ExplainError:
        return None


def hosts_of(store: Store, only_host: str | None = None) -> list[str]:
    """The hosts that have a slice, or just ``only_host``.

    Raises:
        ExplainError: it has none.
        SourceError: the store cannot be read.
    """
    names = [one.name for one in store.summaries()]
    hosts = sorted(n.partition("/")[2] for n in names if kind_of(n) is SliceKind.HOST)
    if only_host is None:
        return hosts
    if only_host not in hosts:
        hint = did_you_mean(only_host, hosts) or _there_are("hosts", hosts)
        raise ExplainError(f"the store has no host {only_host!r}{hint}")
    return [only_host]


def _there_are(what: str, names: list[str]) -> str:
    if not names:
        return f"; it has no {what} at all"
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"; it has {', '.join(names[:10])}{more}"


class StoreView:
    """One host over a store. Its questions raise SourceError, and ExplainError when the store never
    gives what it is asked for.

    Attributes:
        host: its name.
        world: what decisions read; asking fills it.
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
        self._take(host_slice(host))

    def bound_ports(self) -> list[Port]:
        """The ports of the host's slice."""
        records = self.world.cache.whole(host_slice(self.host)) or {}
        return [record for record in records.values() if isinstance(record, Port)]

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

    def _tunnel_ip(self, ports: list[Port]) -> bytes:
        """This host's tunnel address, which only records about its ports tell; b"" when none does."""
        for port in ports:
            for ip in port.fixed_ips:
                neighbor = self._peek(*neighbor_place(port.vpc, ip))
                if isinstance(neighbor, Neighbor) and neighbor.port == port.id:
                    return neighbor.host
        mine = {port.id for port in ports}
        for record in (self.world.cache.whole(vpc_slice(ports[0].vpc)) or {}).values():
            if isinstance(record, Claim) and record.port in mine:
                return record.host
        return b""

    def _peek(self, name: str, key: str) -> Any:
        """A record without entering it into the cache: what a decision reads, it asks for itself."""
        payload = self._store.get(name, key).payload
        if payload is None:
            return None
        try:
            return decode_record(name, key, payload)
        except RecordError:
            return None


class HostView(StoreView):
    """A host with every port of one VPC plugged; zones, OpenFlow ports and epochs are placeholders."""

    def __init__(self, store: Store, host: str, port_id: str) -> None:
        """A view of ``host``, around the port ``port_id``, which gets the first zone.

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
        ports = [one for one in bound if one.vpc == port.vpc]
        ports.sort(key=lambda one: (one.id != port_id, one.id))
        self.world.tunnel_ip = self._tunnel_ip(ports)
        self._plug(ports)
        self.tunnel_port = len(ports) + 1
        if port_id not in self.world.ports:
            raise ExplainError(
                f"port {port_id!r} is in subnet {port.subnet!r}, which slice"
                f" {vpc_slice(port.vpc)!r} does not have: no agent gives it rules until it does"
            )

    def _plug(self, ports: list[Port]) -> None:
        topology = self.world.topology(ports[0].vpc)
        if topology is None:
            return
        self.problems += topology.problems
        for number, record in enumerate(ports, start=1):
            subnet = topology.subnets.get(record.subnet)
            if subnet is not None:
                self.world.add_port(LocalPort(record, subnet, ofport=number, zone=number, epoch=1))

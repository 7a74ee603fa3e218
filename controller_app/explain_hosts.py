"""Which hosts a slice store knows, and on which of them a port is.

A port in the slice of a host group may be served by any host of the group. On which one it is, the records
about its addresses tell: they have the tunnel address, and each host's membership has it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final, Protocol

from ondemand.codec import RecordError, decode_record
from ondemand.goal_problems import did_you_mean
from ondemand.records import Claim, HostGroup, MacPointer, Neighbor, Port, Record, port_key
from ondemand.slice_cache import mac_place, neighbor_place
from ondemand.slices import Lookup, SliceKind, Snapshot, host_group_slice, host_slice, kind_of

#: Ports of a host whose records are read to learn its tunnel address: a few say what all do.
MAX_PORTS_ASKED: Final = 20


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


class Bindings:
    """What the slices of hosts and host groups say, each read once. Raises SourceError."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._snapshots: dict[str, Snapshot] = {}

    def of_host(self, host: str) -> list[str]:
        """Ids of the ports in the host's own slice."""
        return self._ports(host_slice(host))

    def of_groups(self, host: str) -> list[str]:
        """Ids of the ports in the slices of the host's groups."""
        names = (host_group_slice(group.id) for group in self.groups(host))
        return [port for name in names for port in self._ports(name)]

    def tunnels_of(self, host: str) -> frozenset[bytes]:
        """The tunnel addresses at which others look for the host, by its memberships in groups and by
        the records about some ports of its own slice; more than one while a port moves.
        """
        told = {group.host for group in self.groups(host)}
        told |= {
            tunnel_of(self._store, port) for port in islice(self._own_ports(host), MAX_PORTS_ASKED)
        }
        return frozenset(told - {b""})

    def groups(self, host: str) -> list[HostGroup]:
        """The groups that the host belongs to, by id; a record that is bad is none."""
        name = host_slice(host)
        found = []
        for key, payload in sorted(self._records(name).items()):
            record = decoded(name, key, payload) if not key.startswith(port_key("")) else None
            if isinstance(record, HostGroup):
                found.append(record)
        return found

    def shared_port(self, host: str, port_id: str) -> Port | None:
        """A port in the slice of one of the host's groups, if its record can be read."""
        key = port_key(port_id)
        for group in self.groups(host):
            name = host_group_slice(group.id)
            record = decoded(name, key, self._records(name).get(key))
            if isinstance(record, Port):
                return record
        return None

    def _own_ports(self, host: str) -> Iterator[Port]:
        """The records of the host's own slice that can be read."""
        name = host_slice(host)
        for key, payload in self._records(name).items():
            record = decoded(name, key, payload) if key.startswith(port_key("")) else None
            if isinstance(record, Port):
                yield record

    def _ports(self, name: str) -> list[str]:
        head = port_key("")
        return [key.removeprefix(head) for key in self._records(name) if key.startswith(head)]

    def _records(self, name: str) -> Mapping[str, bytes]:
        if name not in self._snapshots:
            self._snapshots[name] = self._store.snapshot(name)
        return self._snapshots[name].records


def decoded(name: str, key: str, payload: bytes | None) -> Record | None:
    """A record, None when it is absent or bad."""
    if payload is None:
        return None
    try:
        return decode_record(name, key, payload)
    except RecordError:
        return None


def tunnel_of(store: Store, port: Port, claims: Iterable[Claim] = ()) -> bytes:
    """The tunnel address of the host that a port is on, by the records about its addresses and its MAC.

    ``claims`` are those of its VPC. b"" when no record tells.
    """
    places = [neighbor_place(port.vpc, ip) for ip in port.fixed_ips]
    for name, key in [*places, mac_place(port.vpc, port.subnet, port.mac)]:
        record = decoded(name, key, store.get(name, key).payload)
        if isinstance(record, Neighbor | MacPointer) and record.port == port.id:
            return record.host
    return next((claim.host for claim in claims if claim.port == port.id), b"")


def host_of_port(store: Store, port_id: str, only_host: str | None = None) -> str:
    """The host whose slice has this port, or on which a port of a host group is.

    Raises:
        ExplainError: none has it, or several have.
        SourceError: the store cannot be read.
    """
    hosts = hosts_of(store, only_host)
    bindings = Bindings(store)
    found = [h for h in hosts if store.get(host_slice(h), port_key(port_id)).payload is not None]
    if not found:
        found = [h for h in hosts if port_id in bindings.of_groups(h)]
        if len(found) > 1:
            found = _at_its_tunnel(store, bindings, port_id, found) or found
    if len(found) == 1:
        return found[0]
    if found:
        raise ExplainError(
            f"port {port_id!r} is bound on the hosts {', '.join(found)}: say on which, with --host"
        )
    where = f"host {only_host!r}" if only_host is not None else "no host of the store"
    ids = {port for h in hosts for port in (*bindings.of_host(h), *bindings.of_groups(h))}
    hint = did_you_mean(port_id, sorted(ids)) or _there_are("ports", sorted(ids))
    verb = "has no port" if only_host is not None else "has a port"
    raise ExplainError(f"{where} {verb} {port_id!r}{hint}")


def _at_its_tunnel(store: Store, bindings: Bindings, port_id: str, hosts: list[str]) -> list[str]:
    """Of the hosts that share a port, those with the tunnel address at which others find it."""
    port = bindings.shared_port(hosts[0], port_id)
    tunnel = b"" if port is None else tunnel_of(store, port)
    if not tunnel:
        return []
    return [h for h in hosts if any(group.host == tunnel for group in bindings.groups(h))]


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

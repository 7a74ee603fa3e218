"""A small cloud in a few lines: hosts, subnets, routers, groups and ports, as slices and as a World.

All arguments are text, as a person would write them in a goal state, but nothing is checked, so that a
test can build what a goal state forbids. Everything goes through the codec, as on a real host::

    cloud = CloudBuilder()
    cloud.subnet("net", 100, "10.0.0.0/24", gateways=("10.0.0.1",))
    cloud.group("web", allow("ingress", "tcp", 443))
    cloud.port("vm1", "net", "10.0.0.11", groups=("web",))
    cloud.port("vm2", "net", "10.0.0.12", host="there")
    small = cloud.world()
    small.locate("vm1", cloud.mac("vm2"), "10.0.0.12")     # Tunnel(host=..., vni=100, ...)
    store = cloud.store()                                  # for a test that runs a whole engine
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from ondemand.addresses import parse_ip, parse_mac, parse_prefix
from ondemand.bound_ports import BoundPorts
from ondemand.decide import judge, locate, resolve
from ondemand.flow import Flow
from ondemand.goal_compile import CheckedVpc, Slices, add_host, compile_vpc
from ondemand.goal_ports import PortSpec
from ondemand.goal_topology import Host, gateway_mac_of
from ondemand.local_ports import LocalPort, Zones
from ondemand.records import (
    ANY,
    ANY_PROTOCOL,
    AddressPair,
    Direction,
    Group,
    Record,
    Route,
    Router,
    SecurityRule,
    Subnet,
)
from ondemand.slice_cache import Applied, SliceCache
from ondemand.slices import SliceKind, group_slice, host_slice, kind_of, vpc_slice
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
from tests.support.slice_store import SliceStore

VPC = "vpc-1"
#: The host whose agent is tested, and others. Their tunnel addresses are TUNNELS[host].
HERE, THERE, ELSEWHERE = "here", "there", "elsewhere"
TUNNELS = {HERE: "192.0.2.1", THERE: "192.0.2.2", ELSEWHERE: "2001:db8::3"}

PROTOCOLS = {
    "any": ANY_PROTOCOL,
    "icmp": 1,
    "tcp": 6,
    "udp": 17,
    "gre": 47,
    "icmpv6": 58,
    "sctp": 132,
}

#: A decision reads few records; one that asks for more than this would never end.
_MAX_NEEDS = 20
_rule_numbers = count(1)


def allow(
    direction: str,
    protocol: str | int = "any",
    ports: int | tuple[int, int] | None = None,
    *,
    family: int = 4,
    icmp_type: int | None = None,
    icmp_code: int | None = None,
    prefix: str | None = None,
    group: str | None = None,
    rule_id: str | None = None,
) -> SecurityRule:
    """A rule; ``prefix`` or ``group`` is the remote, none of them is anybody."""
    low, high = (ANY, ANY) if ports is None else (ports, ports) if isinstance(ports, int) else ports
    if icmp_type is not None:
        low, high = icmp_type, ANY if icmp_code is None else icmp_code
    return SecurityRule(
        id=rule_id or f"r{next(_rule_numbers)}",
        direction=Direction[direction.upper()],
        family=family,
        protocol=PROTOCOLS[protocol] if isinstance(protocol, str) else protocol,
        port_min=low,
        port_max=high,
        remote_prefix=None if prefix is None else parse_prefix(prefix),
        remote_group=group,
    )


@dataclass(slots=True)
class _Vpc:
    subnets: dict[str, Subnet] = field(default_factory=dict)
    routers: list[Router] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    groups: list[tuple[Group, tuple[SecurityRule, ...]]] = field(default_factory=list)
    ports: list[PortSpec] = field(default_factory=list)


class CloudBuilder:
    """What is published. Identifiers of subnets, groups and ports are unique over all VPCs."""

    def __init__(self) -> None:
        self._vpcs: dict[str, _Vpc] = {}
        self._vpc_of_subnet: dict[str, str] = {}
        self._ports: dict[str, PortSpec] = {}
        self.host_groups: dict[str, str] = {}

    # -- what there is ---------------------------------------------------------------------------

    def subnet(
        self,
        name: str,
        vni: int,
        *cidrs: str,
        gateways: Iterable[str] = (),
        gateway_mac: str | None = None,
        vpc: str = VPC,
    ) -> Subnet:
        """A subnet; its gateway's MAC follows from the VNI unless given."""
        addresses = tuple(parse_ip(gateway) for gateway in gateways)
        mac = b""
        if gateway_mac is not None:
            mac = parse_mac(gateway_mac)
        elif addresses:
            mac = gateway_mac_of(vni)
        subnet = Subnet(name, vni, tuple(parse_prefix(cidr) for cidr in cidrs), addresses, mac)
        self._vpc(vpc).subnets[name] = subnet
        self._vpc_of_subnet[name] = vpc
        return subnet

    def router(
        self, name: str, *subnets: str, routes: Mapping[str, str] | None = None, vpc: str = VPC
    ) -> None:
        """A router; ``routes`` leads from prefix to next hop."""
        own = self._vpc(vpc)
        own.routers.append(Router(name, subnets))
        for prefix, nexthop in (routes or {}).items():
            own.routes.append(Route(name, parse_prefix(prefix), parse_ip(nexthop)))

    def group(self, name: str, *rules: SecurityRule, vpc: str = VPC) -> None:
        self._vpc(vpc).groups.append((Group(name, name), rules))

    def port(
        self,
        name: str,
        subnet: str,
        *ips: str,
        host: str = HERE,
        mac: str | None = None,
        groups: Iterable[str] = (),
        pairs: Iterable[str | tuple[str, str]] = (),
        port_security: bool = True,
    ) -> None:
        """A port. A pair is a prefix, with the port's own MAC, or (prefix, MAC)."""
        vpc = self._vpc(self._vpc_of_subnet[subnet])
        own_mac = parse_mac(mac) if mac is not None else _numbered_mac(len(self._ports) + 1)
        spec = PortSpec(
            id=name,
            host=Host(host, parse_ip(TUNNELS[host]), None),
            subnet=vpc.subnets[subnet],
            mac=own_mac,
            fixed_ips=tuple(parse_ip(ip) for ip in ips),
            groups=tuple(groups),
            pairs=tuple(_pair(pair, own_mac) for pair in pairs),
            port_security=port_security,
        )
        vpc.ports.append(spec)
        self._ports[name] = spec

    def set_host_group(self, host: str, group: str | None) -> None:
        """Put a host into a host group, or into none."""
        if group is None:
            self.host_groups.pop(host, None)
        else:
            self.host_groups[host] = group

    # -- what was made of it ---------------------------------------------------------------------

    @property
    def vpcs(self) -> tuple[CheckedVpc, ...]:
        """All VPCs as they go to be published."""
        return tuple(
            CheckedVpc(
                name,
                (*vpc.subnets.values(),),
                vpc.routers,
                vpc.routes,
                vpc.groups,
                [replace(port, host=self.host(port.host.id)) for port in vpc.ports],
            )
            for name, vpc in self._vpcs.items()
        )

    @property
    def port_ids(self) -> list[str]:
        return list(self._ports)

    def port_spec(self, name: str) -> PortSpec:
        return self._ports[name]

    def host(self, name: str) -> Host:
        """A host as it is now, with its host group if it has one (``host_groups``)."""
        return Host(name, parse_ip(TUNNELS[name]), self.host_groups.get(name))

    def mac(self, port: str) -> bytes:
        return self._ports[port].mac

    def ports_on(self, host: str) -> list[str]:
        return [name for name, spec in self._ports.items() if spec.host.id == host]

    def slices(self) -> Slices:
        """The records of every slice."""
        slices: Slices = {}
        for host, group in self.host_groups.items():
            add_host(Host(host, parse_ip(TUNNELS[host]), group), slices)
        for vpc in self.vpcs:
            compile_vpc(vpc, slices)
        return slices

    def store(self) -> SliceStore:
        """A source that has all slices."""
        store = SliceStore()
        for name, records in self.slices().items():
            for record in records.values():
                store.put(name, record)
        return store

    def world(
        self,
        *,
        plugged: Iterable[str] | None = None,
        max_neighbor_bytes: int = 1 << 20,
        store: SliceStore | None = None,
    ) -> SmallWorld:
        """The world of host ``HERE``, with its ports plugged (all of them unless ``plugged``)."""
        small = SmallWorld(store or self.store(), max_neighbor_bytes=max_neighbor_bytes)
        small.load([*map(vpc_slice, self._vpcs), *self._group_slices()])
        for name in self.ports_on(HERE) if plugged is None else plugged:
            small.plug(name)
        return small

    def _group_slices(self) -> list[str]:
        return [group_slice(group.id) for vpc in self._vpcs.values() for group, _ in vpc.groups]

    def _vpc(self, name: str) -> _Vpc:
        return self._vpcs.setdefault(name, _Vpc())


def _numbered_mac(number: int) -> bytes:
    return b"\xfa\x16\x3e" + number.to_bytes(3, "big")


def _pair(pair: str | tuple[str, str], own_mac: bytes) -> AddressPair:
    if isinstance(pair, str):
        return AddressPair(parse_prefix(pair), own_mac)
    return AddressPair(parse_prefix(pair[0]), parse_mac(pair[1]))


class SmallWorld:
    """A World whose needs are answered from a store, and changes in the store reach it at once."""

    def __init__(self, store: SliceStore, *, max_neighbor_bytes: int) -> None:
        self.store = store
        self.cache = SliceCache(max_neighbor_bytes)
        self.world = World(self.cache, parse_ip(TUNNELS[HERE]))
        #: What had to be asked for, in order.
        self.asked: list[Need] = []
        self._zones = Zones()
        self.load([host_slice(HERE)])
        self.load(BoundPorts(self.cache, HERE).slices)

    def load(self, names: Iterable[str]) -> None:
        """Hold these slices whole."""
        for name in names:
            if self.cache.hold(name):
                self.cache.apply(self.store.snapshot(name))
                self.world.slice_changed(name)

    def plug(self, name: str) -> LocalPort:
        """Make a port of this host active."""
        bound = BoundPorts(self.cache, HERE).find(name)
        if bound is None:
            raise KeyError(f"{name!r} is no port of this host")
        record = bound.record
        topology = self.world.topology(record.vpc)
        if topology is None:
            raise LookupError(f"slice of {record.vpc!r} is not loaded")
        zone = self._zones.take()
        port = LocalPort(record, topology.subnets[record.subnet], 100 + zone, zone, 1)
        self.world.add_port(port)
        return port

    def unplug(self, name: str) -> None:
        self.world.remove_port(self.port(name))

    def port(self, name: str) -> LocalPort:
        return self.world.ports[name]

    # -- changes ---------------------------------------------------------------------------------

    def put(self, name: str, record: Record) -> Applied:
        """Publish a record; the change arrives here. Ports that are plugged stay as they are."""
        return self.changed(name, self.cache.apply(self.store.put(name, record)))

    def remove(self, name: str, key: str) -> Applied:
        return self.changed(name, self.cache.apply(self.store.remove(name, key)))

    def changed(self, name: str, applied: Applied) -> Applied:
        """Forget what was derived from a slice that the cache has just changed."""
        self.world.slice_changed(name)
        return applied

    # -- decisions -------------------------------------------------------------------------------

    def answer(self, need: Need) -> None:
        """Do what a host does when a decision needs something: hold the slice, or ask for a record."""
        self.asked.append(need)
        if need.key:
            self.cache.put(self.store.get(need.slice, need.key))
        elif kind_of(need.slice) is not SliceKind.NEIGHBORS:
            self.load([need.slice])

    def judge(self, port: str, flow: Flow) -> Allow | Deny:
        for _ in range(_MAX_NEEDS):
            verdict = judge(self.world, self.port(port), flow)
            if not isinstance(verdict, Need):
                return verdict
            self.answer(verdict)
        raise self._undecided()

    def locate(
        self, port: str, eth_dst: bytes, ip_dst: str | bytes, *, echo: bool = True
    ) -> Tunnel | Local | GatewayEcho | NoLocation:
        ip = parse_ip(ip_dst) if isinstance(ip_dst, str) else ip_dst
        for _ in range(_MAX_NEEDS):
            location = locate(self.world, self.port(port), eth_dst, ip, echo=echo)
            if not isinstance(location, Need):
                return location
            self.answer(location)
        raise self._undecided()

    def resolve(self, port: str, target: str | bytes) -> Answer | NoAnswer:
        ip = parse_ip(target) if isinstance(target, str) else target
        for _ in range(_MAX_NEEDS):
            answer = resolve(self.world, self.port(port), ip)
            if not isinstance(answer, Need):
                return answer
            self.answer(answer)
        raise self._undecided()

    def _undecided(self) -> AssertionError:
        return AssertionError(f"still not decided after {self.asked[-_MAX_NEEDS:]}")

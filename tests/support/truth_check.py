"""The invariant: what is installed is a function of slices and live traffic, of nothing else.

Each on-demand rule must be what its question gets today, asked of the engine's own world and, when no
news is on its way, of a world made from the store at this moment. And the switch must hold exactly the
rules that the engine thinks it holds.
"""

from __future__ import annotations

from collections import Counter

from ondemand.decide import judge, locate, resolve
from ondemand.local_ports import LocalPort
from ondemand.pipeline import ON_DEMAND
from ondemand.records import HostGroup, Port
from ondemand.rules import RuleMaker
from ondemand.slice_cache import SliceCache
from ondemand.slices import (
    SliceKind,
    group_slice,
    host_group_slice,
    host_slice,
    kind_of,
    vpc_slice,
)
from ondemand.static_rules import frame_rules, owner_rule, port_rules, quarantine_rules
from ondemand.subjects import LocationSubject, ResolveSubject, VerdictSubject
from ondemand.topology import Topology
from ondemand.verdict import SOURCE_TAG, Need
from ondemand.world import World
from rule_cache.cookie import is_ours, table_of
from rule_cache.rule import Rule
from rule_cache.tags import Tag
from tests.support.host_sim import HostSim
from tests.support.slice_store import SliceStore

#: A decision reads few records; one that asks for more than this would never end.
_MAX_NEEDS = 20

Decided = tuple[list[Rule], tuple[Tag, ...]]


def check_host(host: HostSim, store: SliceStore) -> None:
    """All of the invariant, for one host; a batch that is open is sent first."""
    if host.batching or host.is_dead:
        return
    is_quiet = not host.feed.inbox and host.feed.error is None and not host.is_unaware
    if host.engine.is_adopting:
        assert not is_quiet, "what was found in the switch is not settled"
        return
    check_switch(host)
    check_bounds(host)
    check_ports(host)
    check_rules(host, host.engine.world, store=None)
    if is_quiet:
        world = world_from_store(host, store)
        check_rules(host, world, store=store)
        assert active_ports(host, store) == set(host.engine.world.ports)


def check_switch(host: HostSim) -> None:
    """The switch holds what the ledger and the list of static rules say, cookies included."""
    installer = host.engine.installer
    expected = {entry.cookie: entry.rule for entry in installer.ledger}
    static = dict(installer.static_rules())
    assert not expected.keys() & static.keys()
    found = host.switch.rules()
    cookies = Counter(cookie for cookie, _ in found)
    assert not [cookie for cookie, count in cookies.items() if count > 1]
    assert _texts(dict(found)) == _texts(expected | static)
    for cookie, rule in found:
        assert is_ours(cookie)
        assert table_of(cookie) == rule.shape.table
    on_demand = {host.engine.pipeline.number(table) for table in ON_DEMAND}
    for rule in expected.values():
        assert rule.shape.table in on_demand
        assert rule.idle_timeout or rule.hard_timeout, f"{rule} would stay for ever"


def _texts(rules: dict[int, Rule]) -> list[str]:
    return sorted(f"{cookie:#x} {rule}" for cookie, rule in rules.items())


def check_bounds(host: HostSim) -> None:
    engine, settings = host.engine, host.engine.settings
    ledger = engine.installer.ledger
    assert len(ledger) <= settings.max_rules
    owners = Counter(entry.owner for entry in ledger)
    for owner, count in owners.items():
        assert count <= settings.max_rules_per_port
        assert owner in engine.world.by_zone, f"zone {owner} has rules and no port"
    assert engine.parked <= settings.max_parked
    assert engine.cache.neighbor_bytes <= settings.neighbor_cache_bytes


def check_ports(host: HostSim) -> None:
    """Zones and epochs are unlike, and each port has exactly the static rules that it should have."""
    engine = host.engine
    ports = list(engine.world.ports.values())
    assert len({port.zone for port in ports}) == len(ports)
    assert len({port.epoch for port in ports}) == len(ports)
    assert {port.zone: port for port in ports} == engine.world.by_zone
    expected = [*frame_rules(engine.pipeline), owner_rule(engine.pipeline, host.name)]
    for port in ports:
        meter = port.zone if engine.settings.meter_rate else 0
        macs = [mac for mac in port.macs if _first_with(mac, port.subnet.vni, ports) is port]
        expected += port_rules(engine.pipeline, port, host.tunnel_port, meter, macs)
        expected += quarantine_rules(engine.pipeline, port)
        assert (port.zone in host.switch.meters) == bool(meter)
    found = [rule for _, rule in engine.installer.static_rules()]
    assert sorted(map(str, found)) == sorted(map(str, expected))
    assert set(host.switch.meters) <= {port.zone for port in ports}


def _first_with(mac: bytes, vni: int, ports: list[LocalPort]) -> LocalPort:
    """The port that gets what comes out of a tunnel for a MAC: its owner, else the first by id."""
    sharers = [port for port in ports if port.subnet.vni == vni and mac in port.macs]
    return min(sharers, key=lambda port: (port.record.mac != mac, port.record.id))


def check_rules(host: HostSim, world: World, *, store: SliceStore | None) -> None:
    """Each rule is what its question gets in this world; what is missing is read from ``store``."""
    engine = host.engine
    maker = RuleMaker(engine.pipeline, engine.settings)
    maker.tunnel_port = host.tunnel_port
    for entry in engine.installer.ledger:
        decided = _decide(world, maker, entry.subject, store)
        assert decided is not None, f"{entry.rule} cannot be decided any more"
        rules, tags = decided
        same = [rule for rule in rules if rule.key == entry.key]
        if world.source_down and SOURCE_TAG in tags:
            # What is installed stays until it can be asked for again.
            assert entry.tags == tags
            continue
        assert list(map(str, same)) == [str(entry.rule)], f"subject {entry.subject}"
        assert entry.tags == tags, f"{entry.rule} depends on other records than it says"


def _decide(
    world: World, maker: RuleMaker, subject: object, store: SliceStore | None
) -> Decided | None:
    for _ in range(_MAX_NEEDS):
        decided = _decide_once(world, maker, subject)
        if not isinstance(decided, Need):
            return decided
        if store is None:
            return None
        if decided.key:
            world.cache.put(store.get(decided.slice, decided.key))
        else:
            _load(world, store, decided.slice)
    raise AssertionError(f"still not decided: {subject}")


def _decide_once(world: World, maker: RuleMaker, subject: object) -> Decided | Need | None:
    match subject:
        case VerdictSubject(zone=zone, flow=flow):
            port = world.by_zone.get(zone)
            if port is None or not port.record.port_security:
                return None
            verdict = judge(world, port, flow)
            if isinstance(verdict, Need):
                return verdict
            return maker.for_verdict(port, flow, verdict), verdict.tags
        case LocationSubject(zone=zone, eth_dst=eth_dst, ip_dst=ip_dst, echo=echo):
            port = world.by_zone.get(zone)
            if port is None:
                return None
            location = locate(world, port, eth_dst, ip_dst, echo=echo)
            if isinstance(location, Need):
                return location
            vni = port.subnet.vni
            rule = maker.for_location(world.ports, vni, eth_dst, ip_dst, location)
            return [rule], location.tags
        case ResolveSubject(zone=zone, target=target):
            port = world.by_zone.get(zone)
            if port is None:
                return None
            answer = resolve(world, port, target)
            if isinstance(answer, Need):
                return answer
            return [maker.for_resolution(port, target, answer)], answer.tags
    raise AssertionError(f"{subject} is no question")


def world_from_store(host: HostSim, store: SliceStore) -> World:
    """A world that knows nothing but the store and which zone each port was given."""
    engine = host.engine
    world = World(SliceCache(1 << 24), engine.world.tunnel_ip)
    _load_ports(world, store, host)
    for name in active_ports(host, store):
        old = engine.world.ports.get(name)
        record = _record(world, host, name)
        topology = _topology(world, store, record)
        if old is not None and topology is not None:
            subnet = topology.subnets[record.subnet]
            port = LocalPort(record, subnet, host.plugged[name], old.zone, old.epoch)
            world.add_port(port)
            # As when all has come: what is read of a policy depends on which groups are here.
            for group in record.groups:
                _load(world, store, group_slice(group))
    return world


def active_ports(host: HostSim, store: SliceStore) -> set[str]:
    """Ports that are bound here, plugged, and in a subnet that exists."""
    world = World(SliceCache(1 << 24), b"")
    _load_ports(world, store, host)
    active = set()
    for name in host.plugged:
        record = _find(world, host, name)
        if record is not None:
            topology = _topology(world, store, record)
            if topology is not None and record.subnet in topology.subnets:
                active.add(name)
    return active


def _record(world: World, host: HostSim, name: str) -> Port:
    record = _find(world, host, name)
    if record is None:
        raise KeyError(f"{name!r} is no port of {host.name}")
    return record


def _find(world: World, host: HostSim, name: str) -> Port | None:
    """The port's record: that of the host's slice, else that of its first group which has it."""
    own = world.cache.whole(host_slice(host.name)) or {}
    groups = sorted(record.id for record in own.values() if isinstance(record, HostGroup))
    for place in (own, *(world.cache.whole(host_group_slice(group)) or {} for group in groups)):
        record = place.get("port/" + name)
        if isinstance(record, Port):
            return record
    return None


def _load_ports(world: World, store: SliceStore, host: HostSim) -> None:
    """The host's own slice and those of its groups."""
    _load(world, store, host_slice(host.name))
    for record in (world.cache.whole(host_slice(host.name)) or {}).values():
        if isinstance(record, HostGroup):
            _load(world, store, host_group_slice(record.id))


def _topology(world: World, store: SliceStore, record: Port) -> Topology | None:
    _load(world, store, vpc_slice(record.vpc))
    return world.topology(record.vpc)


def _load(world: World, store: SliceStore, name: str) -> None:
    if kind_of(name) is not SliceKind.NEIGHBORS and world.cache.hold(name):
        world.cache.apply(store.snapshot(name))
        world.slice_changed(name)

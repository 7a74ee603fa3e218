"""Brings records and interfaces together: which ports are active, their zones, epochs and rules.

A port comes and goes in any order: its record before its interface, the interface before the record,
the VPC's slice last. Whenever one of them changes, ``settle`` works out what the port should be now.
"""

from __future__ import annotations

from collections.abc import Callable

from ondemand.counters import Counters
from ondemand.installer import Installer
from ondemand.local_ports import LocalPort, Zones
from ondemand.messages import Follow, Forget, SetMeter
from ondemand.pipeline import Pipeline
from ondemand.records import Port, Subnet, port_key
from ondemand.settings import Settings
from ondemand.slices import group_slice, host_slice, vpc_slice
from ondemand.static_rules import frame_rules, port_rules
from ondemand.world import World

_MAX_EPOCH = 0xFFFFFFFF
_FRAME = "frame"


class PortManager:
    """Owns the life of local ports. ``on_change`` and ``on_gone`` are told what became of a port."""

    def __init__(
        self,
        *,
        host: str,
        world: World,
        installer: Installer,
        pipeline: Pipeline,
        settings: Settings,
        counters: Counters,
        first_epoch: int,
        on_change: Callable[[LocalPort], None],
        on_gone: Callable[[LocalPort], None],
    ) -> None:
        self._host_slice = host_slice(host)
        self._world = world
        self._installer = installer
        self._pipeline = pipeline
        self._settings = settings
        self._counters = counters
        self._zones = Zones()
        #: Epochs start where no earlier agent left marks on this host's connections.
        self._next_epoch = first_epoch
        self._plugged: dict[str, int] = {}
        self._tunnel_port = 0
        self._warned: dict[str, str] = {}
        self._held: set[str] = set()
        self._on_change = on_change
        self._on_gone = on_gone

    def start(self) -> None:
        self.refresh_holdings()

    def switch_connected(self) -> None:
        """The switch has no rules of ours: program the frame and every active port."""
        self._installer.set_static(_FRAME, frame_rules(self._pipeline))
        for port in self._world.ports.values():
            self._set_meter(port)
            self._program(port)

    def set_tunnel_port(self, ofport: int) -> None:
        """The VXLAN interface has this OpenFlow port now (0: there is none)."""
        self._tunnel_port = ofport
        for port in self._world.ports.values():
            self._program(port)

    def plugged(self, port_id: str, ofport: int) -> None:
        """An interface with this port's iface-id is on the bridge."""
        self._plugged[port_id] = ofport
        self.settle(port_id)

    def unplugged(self, port_id: str) -> None:
        self._plugged.pop(port_id, None)
        self._warned.pop(port_id, None)
        self.settle(port_id)

    def settle_all(self) -> None:
        """After something that many ports depend on changed: the host slice, a VPC."""
        for port_id in sorted(self._plugged.keys() | self._world.ports.keys()):
            self.settle(port_id)

    def settle(self, port_id: str) -> None:
        """Make the port what its record, its interface and its VPC say now."""
        record = self._record(port_id)
        ofport = self._plugged.get(port_id)
        self.refresh_holdings()
        subnet = self._subnet(record) if record is not None and ofport is not None else None
        port = self._world.ports.get(port_id)
        if record is None or ofport is None or subnet is None:
            if port is not None:
                self._deactivate(port)
        elif port is None:
            self._activate(record, subnet, ofport)
        else:
            self._update(port, record, subnet, ofport)
        self._warn_of_missing_groups(port_id)

    def refresh_holdings(self) -> None:
        """Follow exactly the whole slices that the plugged ports refer to."""
        wanted = {self._host_slice}
        for port_id in self._plugged:
            record = self._record(port_id)
            if record is not None:
                wanted.add(vpc_slice(record.vpc))
                wanted.update(group_slice(group) for group in record.groups)
        for name in sorted(wanted - self._held):
            self._world.cache.hold(name)
            self._installer.effects.requests.append(Follow(name, None))
        for name in sorted(self._held - wanted):
            self._world.cache.release(name)
            self._world.slice_changed(name)
            self._installer.effects.requests.append(Forget(name))
            kind, _, owner = name.partition("/")
            if kind == "vpc":
                # Nobody here can ask for its neighbors any more.
                for shard in self._world.cache.parts_of(owner):
                    self._world.cache.drop_part(shard)
                    self._installer.effects.requests.append(Forget(shard))
        self._held = wanted

    def bump_epoch(self, port: LocalPort) -> None:
        """Let every live connection of the port miss once and be judged again."""
        if port.record.port_security:
            port.epoch = self._new_epoch()
            self._counters.add("epoch.bumped", port.record.id)
            self._program(port, late=self._epoch_shapes())

    def _record(self, port_id: str) -> Port | None:
        records = self._world.cache.whole(self._host_slice)
        record = records.get(port_key(port_id)) if records is not None else None
        if isinstance(record, Port):
            return record
        if records is not None and port_id in self._plugged:
            self._warn(
                port_id,
                f"interface with iface-id {port_id!r} is plugged, but slice {self._host_slice!r}"
                " has no such port: it gets no rules until the port is published",
            )
        return None

    def _subnet(self, record: Port) -> Subnet | None:
        topology = self._world.topology(record.vpc)
        if topology is None:
            return None
        subnet = topology.subnets.get(record.subnet)
        if subnet is None:
            self._warn(
                record.id,
                f"port {record.id!r} is in subnet {record.subnet!r}, which slice"
                f" {vpc_slice(record.vpc)!r} does not have: it gets no rules until it does",
            )
        return subnet

    def _warn(self, port_id: str, sentence: str) -> None:
        if self._warned.get(port_id) != sentence:
            self._warned[port_id] = sentence
            self._installer.effects.warnings.append(sentence)

    def _warn_of_missing_groups(self, port_id: str) -> None:
        port = self._world.ports.get(port_id)
        if port is None:
            return
        missing = self._world.missing_groups(port.record.groups)
        if missing:
            names = " and ".join(map(repr, missing))
            self._warn(port_id, f"port {port_id!r} is in group {names}, which does not exist")
        else:
            self._warned.pop(port_id, None)

    def _activate(self, record: Port, subnet: Subnet, ofport: int) -> None:
        try:
            zone = self._zones.take()
        except LookupError as error:
            self._warn(record.id, f"port {record.id!r} gets no rules: {error}")
            return
        port = LocalPort(record, subnet, ofport, zone, self._new_epoch())
        self._world.add_port(port)
        self._set_meter(port)
        self._program(port)
        self._program_sharers(port.macs, subnet.vni)
        self._on_change(port)

    def _deactivate(self, port: LocalPort) -> None:
        self._world.remove_port(port)
        self._installer.set_static(_name(port), ())
        self._installer.delete_owned(port.zone)
        if self._settings.meter_rate:
            self._installer.effects.meters.append(SetMeter(port.zone, 0, 0))
        self._zones.give_back(port.zone)
        self._program_sharers(port.macs, port.subnet.vni)
        self._on_gone(port)

    def _update(self, port: LocalPort, record: Port, subnet: Subnet, ofport: int) -> None:
        if (port.record, port.subnet, port.ofport) == (record, subnet, ofport):
            return
        old = port.record
        narrowed = (
            not set(old.groups) <= set(record.groups)
            or old.port_security != record.port_security
            or port.subnet != subnet
        )
        shared = [(port.macs, port.subnet.vni)]
        port.record, port.subnet, port.ofport = record, subnet, ofport
        shared.append((port.macs, subnet.vni))
        if narrowed:
            port.epoch = self._new_epoch()
        # As in bump_epoch: no connection may be stamped anew by a verdict rule that is about to go.
        self._program(port, late=self._epoch_shapes())
        for macs, vni in shared:
            self._program_sharers(macs, vni)
        self._on_change(port)

    def _program(self, port: LocalPort, late: frozenset[str] = frozenset()) -> None:
        meter = port.zone if self._settings.meter_rate else 0
        rules = port_rules(self._pipeline, port, self._tunnel_port, meter, self._own_macs(port))
        self._installer.set_static(_name(port), rules, late=late)

    def _own_macs(self, port: LocalPort) -> list[bytes]:
        """The MACs of a port by which frames from a tunnel reach it.

        Of ports of one subnet that share a MAC it is the one whose own it is, else the first by id,
        as in the slices (``records.MacPointer``).
        """
        others = [p for p in self._sharers(port.macs, port.subnet.vni) if p is not port]
        return [
            mac
            for mac in port.macs
            if not any(mac in p.macs and _rank(p, mac) < _rank(port, mac) for p in others)
        ]

    def _sharers(self, macs: tuple[bytes, ...], vni: int) -> list[LocalPort]:
        ports = self._world.ports.values()
        return [p for p in ports if p.subnet.vni == vni and not set(macs).isdisjoint(p.macs)]

    def _program_sharers(self, macs: tuple[bytes, ...], vni: int) -> None:
        """Another port with one of these MACs may have to take its frames, or leave them."""
        for port in self._sharers(macs, vni):
            self._program(port)

    def _set_meter(self, port: LocalPort) -> None:
        settings = self._settings
        if settings.meter_rate:
            meter = SetMeter(port.zone, settings.meter_rate, settings.meter_burst)
            self._installer.effects.meters.append(meter)

    def _epoch_shapes(self) -> frozenset[str]:
        pipeline = self._pipeline
        return frozenset(s.name for s in (*pipeline.judged.values(), *pipeline.not_judged.values()))

    def _new_epoch(self) -> int:
        epoch = self._next_epoch
        self._next_epoch = epoch % _MAX_EPOCH + 1
        return epoch


def _rank(port: LocalPort, mac: bytes) -> tuple[bool, str]:
    return port.record.mac != mac, port.record.id


def _name(port: LocalPort) -> str:
    return "port " + port.record.id

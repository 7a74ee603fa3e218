"""Brings records and interfaces together: which ports are active, their zones, epochs and rules.

A port comes and goes in any order: its record before its interface, the interface before the record,
the VPC's slice last. Whenever one of them changes, ``settle`` works out what the port should be now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from ondemand.bound_ports import BoundPorts
from ondemand.counters import Counters
from ondemand.installer import Installer
from ondemand.local_ports import LocalPort, Zones, port_mark
from ondemand.messages import Follow, Forget, SetMeter
from ondemand.pipeline import Pipeline
from ondemand.read_back import FoundPort
from ondemand.records import Port, Subnet
from ondemand.settings import Settings
from ondemand.slices import group_slice, vpc_slice
from ondemand.static_rules import frame_rules, owner_rule, port_rules, quarantine_rules
from ondemand.world import World

_MAX_EPOCH = 0xFFFFFFFF
#: Remote addresses of one port with an epoch of their own; beyond that its whole epoch moves.
MAX_REMOTE_EPOCHS = 64
_FRAME = "frame"


class PortManager:
    """Owns the life of local ports.

    ``on_change``, ``on_narrowed`` and ``on_gone`` are told what became of a port; ``on_narrowed`` is to
    have its connections judged again, by ``bump_epoch``, once its rules are.
    """

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
        on_narrowed: Callable[[LocalPort], None],
        on_gone: Callable[[LocalPort], None],
    ) -> None:
        self._host = host
        self._bound = BoundPorts(world.cache, host)
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
        self._interfaces_known = False
        #: What is held was saved by an earlier agent, and the source may still say what changed since.
        self.is_hearsay = False
        #: What an earlier agent left in the switch, by mark, of ports that are not here yet.
        self._found: dict[int, FoundPort] = {}
        #: Until the switch was seen, nobody knows which zones are in use.
        self._seen_switch = False
        self._on_change = on_change
        self._on_narrowed = on_narrowed
        self._on_gone = on_gone

    def start(self) -> None:
        self.refresh_holdings()

    def restored(self, slices: Iterable[str]) -> None:
        """These are held whole already, and followed; nothing is warned of until ``confirm``."""
        self._held.update(slices)
        self.is_hearsay = bool(self._held)

    def confirm(self) -> None:
        """The source has had its time to tell what changed: what is missing now is worth a warning."""
        self.is_hearsay = False
        self.settle_all()

    def interfaces_known(self) -> None:
        """All that is plugged has been told: what no port refers to is needed no more."""
        self._interfaces_known = True
        self.refresh_holdings()

    def switch_connected(self, found: Iterable[FoundPort] = ()) -> None:
        """The switch is there, with the rules of these ports: program what it lacks."""
        self._read_back(found)
        self._seen_switch = True
        self._installer.set_static(
            _FRAME, [*frame_rules(self._pipeline), owner_rule(self._pipeline, self._host)]
        )
        for port in self._world.ports.values():
            self._set_meter(port)
            self._program(port)
        self.settle_all()

    def _read_back(self, found: Iterable[FoundPort]) -> None:
        """Zones and epochs that are in the switch: where this agent has others, it may be mistaken."""
        self._found = {port.mark: port for port in found}
        for known in self._found.values():
            self._zones.reserve(known.zone)
            if not self._seen_switch and known.epochs:
                self._next_epoch = max(self._next_epoch, *known.epochs) % _MAX_EPOCH + 1
        for port in self._world.ports.values():
            before = self._found.pop(port_mark(port.record.id), None)
            if before is None or before.zone != port.zone:
                self._installer.effects.flush_zones.append(port.zone)
            elif before.epoch is not None and not before.stamps_as(port):
                port.epoch, port.remote_epochs = before.epoch, before.remote_epochs
                self._on_narrowed(port)

    @property
    def is_settled(self) -> bool:
        """Whether all is known that tells which of the plugged ports are to be served."""
        if not self._bound.is_complete:
            return False
        for port_id in self._plugged:
            record = self._record(port_id)
            if record is not None and self._world.topology(record.vpc) is None:
                return False
        return True

    def sweep_found(self) -> None:
        """Whoever was found and is not here by now does not come back: its zone and meter are free."""
        for found in self._found.values():
            self._zones.give_back(found.zone)
            self._installer.effects.meters.append(SetMeter(found.zone, 0, 0))
        self._found = {}

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
        self.refresh_holdings()
        for port_id in sorted(self._plugged.keys() | self._world.ports.keys()):
            self._settle(port_id)

    def settle(self, port_id: str) -> None:
        """Make the port what its record, its interface and its VPC say now."""
        self.refresh_holdings()
        self._settle(port_id)

    def _settle(self, port_id: str) -> None:
        """The same when what is held is as it should be already."""
        record = self._record(port_id)
        ofport = self._plugged.get(port_id)
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
        """Follow exactly the slices of the host and of its groups, and those whole slices that the
        plugged ports refer to.
        """
        wanted = set(self._bound.slices)
        for port_id in self._plugged:
            record = self._record(port_id)
            if record is not None:
                wanted.add(vpc_slice(record.vpc))
                wanted.update(group_slice(group) for group in record.groups)
        for name in sorted(wanted - self._held):
            self._world.cache.hold(name)
            self._installer.effects.requests.append(Follow(name, None))
        if not self._interfaces_known:
            # Ports that are not told yet may refer to what an earlier agent held.
            wanted |= self._held
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
            port.epoch, port.remote_epochs = self._new_epoch(), {}
            self._counters.add("epoch.bumped", port.record.id)
            self._program(port, late=self._epoch_shapes())

    def bump_remotes(self, port: LocalPort, remotes: Collection[bytes]) -> None:
        """The same for connections with these addresses only, in a few rules for each."""
        if len(port.remote_epochs.keys() | set(remotes)) > MAX_REMOTE_EPOCHS:
            self.bump_epoch(port)
        elif port.record.port_security:
            port.remote_epochs |= {remote: self._new_epoch() for remote in remotes}
            self._counters.add("epoch.remote_bumped", port.record.id, len(remotes))
            self._program(port, late=self._epoch_shapes())

    def quarantine(self, port: LocalPort, seconds: int) -> None:
        """End the new flows of a port for so long; 0: let them pass again."""
        port.quarantine_s = seconds
        self._installer.set_static(_quarantine(port), quarantine_rules(self._pipeline, port))

    def _record(self, port_id: str) -> Port | None:
        found = self._bound.find(port_id)
        if found is not None:
            return found.record
        if not self._bound.is_complete:
            # It may be in the slice that is still to come, and then nothing happens to it.
            port = self._world.ports.get(port_id)
            return None if port is None else port.record
        if port_id in self._plugged:
            first, *others = map(repr, self._bound.slices)
            where = f"neither slice {first} nor {' nor '.join(others)}" if others else ""
            self._warn(
                port_id,
                f"interface with iface-id {port_id!r} is plugged, but"
                + (f" {where} has such a port" if where else f" slice {first} has no such port")
                + ": it gets no rules until the port is published",
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
        if not self.is_hearsay and self._warned.get(port_id) != sentence:
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
        if not self._seen_switch:
            return
        found = self._found.pop(port_mark(record.id), None)
        if found is not None:
            epoch = self._new_epoch() if found.epoch is None else found.epoch
            port = LocalPort(record, subnet, ofport, found.zone, epoch, found.remote_epochs)
        else:
            try:
                zone = self._zones.take()
            except LookupError as error:
                self._warn(record.id, f"port {record.id!r} gets no rules: {error}")
                return
            # It may hold connections of an earlier port, or of an agent whose rules are gone.
            self._installer.effects.flush_zones.append(zone)
            port = LocalPort(record, subnet, ofport, zone, self._new_epoch())
        self._world.add_port(port)
        self._set_meter(port)
        self._program(port)
        self._program_sharers(port.macs, subnet.vni)
        self._on_change(port)

    def _deactivate(self, port: LocalPort) -> None:
        self._world.remove_port(port)
        self._installer.set_static(_name(port), ())
        self._installer.set_static(_quarantine(port), ())
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
        if record.port_security and not old.port_security:
            # Marks of the time before it was switched off must not count.
            port.epoch, port.remote_epochs = self._new_epoch(), {}
        if narrowed:
            self._on_narrowed(port)
        self._program(port)
        for macs, vni in shared:
            self._program_sharers(macs, vni)
        self._on_change(port)

    def _program(self, port: LocalPort, late: frozenset[str] = frozenset()) -> None:
        meter = port.zone if self._settings.meter_rate else 0
        rules = port_rules(self._pipeline, port, self._tunnel_port, meter, self._own_macs(port))
        self._installer.set_static(_name(port), rules, late=late)
        self._installer.set_static(_quarantine(port), quarantine_rules(self._pipeline, port))

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
        shapes = (
            *pipeline.judged.values(),
            *pipeline.not_judged.values(),
            *pipeline.judged_remote.values(),
            *pipeline.not_judged_remote.values(),
        )
        return frozenset(shape.name for shape in shapes)

    def _new_epoch(self) -> int:
        epoch = self._next_epoch
        self._next_epoch = epoch % _MAX_EPOCH + 1
        return epoch


def _rank(port: LocalPort, mac: bytes) -> tuple[bool, str]:
    return port.record.mac != mac, port.record.id


def _quarantine(port: LocalPort) -> str:
    return "quarantine " + port.record.id


def _name(port: LocalPort) -> str:
    return "port " + port.record.id

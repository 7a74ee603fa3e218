"""A small data center in one process: a cloud, its slices, compute hosts, and the fabric between them.

Each host runs the engine against a fake switch that really passes packets through the rules. Frames are
sent by the name of a port and arrive by name, on whichever host it is plugged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ondemand.addresses import parse_ip
from ondemand.codec import encode_record
from ondemand.goal_compile import Slices
from ondemand.records import Record
from ondemand.settings import Settings
from tests.support.fabric_sim import Endpoint, FabricSim, Moves
from tests.support.fake_outcomes import Dropped
from tests.support.host_sim import HostSim
from tests.support.truth_check import check_host
from tests.support.vm_frames import VmFrames
from tests.support.world_builder import HERE, TUNNELS, CloudBuilder

#: A good while after any agent's start; the engine must not think that time begins at 0.
START_S = 1000.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one frame, or of a few."""

    moves: Moves
    #: (port id, frame) of everything that came out at a VM.
    arrived: tuple[tuple[str, bytes], ...]

    @property
    def reached(self) -> list[str]:
        return [port for port, _ in self.arrived]

    @property
    def frame(self) -> bytes:
        """The one frame that arrived."""
        (only,) = self.arrived
        return only[1]

    @property
    def packet_ins(self) -> int:
        return len(self.moves.packet_ins)

    @property
    def dropped_by(self) -> list[str]:
        """Names of rules at which packets ended."""
        return [
            outcome.reason for _, outcome in self.moves.outcomes if isinstance(outcome, Dropped)
        ]


class Lab:
    """Hosts by name; ``here`` is the one that most tests look at."""

    def __init__(
        self,
        cloud: CloudBuilder,
        *,
        hosts: Iterable[str] = (HERE,),
        settings: Settings | None = None,
        plugged: Iterable[str] | None = None,
        tunnel: bool = True,
        first_epoch: int = 1,
        enforce_meters: bool = False,
        make_host: Callable[..., HostSim] = HostSim,
    ) -> None:
        """``make_host``: takes the arguments of ``HostSim``."""
        self.cloud = cloud
        self.store = cloud.store()
        self.fabric = FabricSim(START_S)
        self.hosts: dict[str, HostSim] = {}
        ports = None if plugged is None else set(plugged)
        for name in hosts:
            host = make_host(
                name,
                parse_ip(TUNNELS[name]),
                fabric=self.fabric,
                store=self.store,
                settings=settings or Settings(),
                first_epoch=first_epoch,
                enforce_meters=enforce_meters,
            )
            self.hosts[name] = host
            host.start(tunnel=tunnel)
            for port in cloud.ports_on(name):
                if ports is None or port in ports:
                    host.plug(port)

    @property
    def here(self) -> HostSim:
        return self.hosts[HERE]

    @property
    def now_s(self) -> float:
        return self.fabric.now_s

    def frames(self, family: int) -> VmFrames:
        return VmFrames(self.cloud, family)

    # -- traffic ---------------------------------------------------------------------------------

    def send(self, port: str, *frames: bytes) -> Sent:
        """A VM sends frames, one after the other."""
        moves = Moves()
        for frame in frames:
            sent = self.fabric.send(self.endpoint(port), frame)
            moves.outcomes += sent.outcomes
            moves.removed += sent.removed
            moves.refused += sent.refused
            moves.warnings += sent.warnings
        return self._sent(moves)

    def from_tunnel(self, host: str, vni: int, frame: bytes, source: str) -> Sent:
        """A frame comes out of the underlay, from the tunnel address of host ``source``."""
        switch = self.hosts[host].switch
        outcomes = switch.inject_tunnel(vni, frame, parse_ip(TUNNELS[source]), self.now_s)
        self.fabric._outcomes(host, outcomes)
        return self._sent(self.fabric._settle())

    def endpoint(self, port: str) -> Endpoint:
        for host in self.hosts.values():
            if port in host.plugged:
                return Endpoint(host.name, host.plugged[port])
        raise KeyError(f"port {port!r} is not plugged anywhere")

    def flush(self, host: str = HERE) -> Sent:
        """What a host's engine has collected goes to its switch."""
        return self._sent(self.hosts[host].flush())

    def _sent(self, moves: Moves) -> Sent:
        names = {
            Endpoint(host.name, ofport): port
            for host in self.hosts.values()
            for port, ofport in host.plugged.items()
        }
        return Sent(moves, tuple((names[at], frame) for at, frame in moves.arrivals))

    # -- time ------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> Sent:
        """Time passes; rules expire, deadlines pass."""
        moves = self.fabric.advance(seconds)
        for host in self.hosts.values():
            ticked = host.tick()
            moves.outcomes += ticked.outcomes
            moves.warnings += ticked.warnings
        return self._sent(moves)

    # -- goal state ------------------------------------------------------------------------------

    def publish(self, slices: Slices | None = None) -> Sent:
        """Make the store hold what the cloud is now, writing only what differs."""
        wanted = self.cloud.slices() if slices is None else slices
        moves = Moves()
        for name in sorted(wanted.keys() | set(self.store.names)):
            moves.outcomes += self.publish_slice(name, wanted.get(name, {})).moves.outcomes
        return self._sent(moves)

    def publish_slice(self, name: str, records: Mapping[str, Record]) -> Sent:
        """Make one slice hold exactly these records."""
        new = {key: encode_record(record) for key, record in records.items()}
        return self.write(name, self.changes(name, new))

    def changes(self, name: str, wanted: Mapping[str, bytes]) -> dict[str, bytes | None]:
        """What has to be written to a slice so that it holds ``wanted``."""
        have = self.store.records(name)
        changed: dict[str, bytes | None] = {key: None for key in have if key not in wanted}
        changed |= {key: new for key, new in wanted.items() if have.get(key) != new}
        return changed

    def write(self, name: str, changes: Mapping[str, bytes | None]) -> Sent:
        """Write single records as they are, good or bad."""
        moves = Moves()
        if changes:
            self.store.write(name, changes)
            for host in self.hosts.values():
                moves.outcomes += host.published(name).outcomes
        return self._sent(moves)

    # -- truth -----------------------------------------------------------------------------------

    def check(self) -> None:
        """Every installed rule is what a decision from nothing gives now."""
        for host in self.hosts.values():
            check_host(host, self.store)


MakeLab = Callable[..., Lab]

"""The engine: everything that happens to a host goes in here, and what to do about it comes out.

It is called by one thread, holds no socket and reads no clock: ``now_s`` is monotonic seconds. Calls
return nothing; ``take`` hands over the effects that have collected.
"""

from __future__ import annotations

from ondemand.counters import Counters
from ondemand.installer import RESEND_AFTER_S, Installer
from ondemand.local_ports import LocalPort
from ondemand.messages import Effects, Fetch, FlowRemoved, Follow, Forget, PacketIn
from ondemand.packet_handler import PacketHandler
from ondemand.pipeline import Pipeline
from ondemand.port_manager import PortManager
from ondemand.rejudge import Rejudge
from ondemand.rules import RuleMaker
from ondemand.settings import Settings
from ondemand.slice_cache import Applied, SliceCache
from ondemand.slices import Lookup, Snapshot, SourceEvent, SourceState, vpc_slice
from ondemand.verdict import Need
from ondemand.waiting_room import WaitingRoom
from ondemand.world import World
from rule_cache.cookie import Cookies

#: How an evicted rule comes back: OFPRR_EVICTION, OpenFlow 1.4 section 7.4.2, which OVS sends as
#: "delete" to a 1.3 controller.
_REASONS = {0: "idle", 1: "hard", 2: "delete", 4: "meter_delete", 5: "eviction"}


class Engine:
    """One compute host's mind."""

    def __init__(
        self,
        *,
        host: str,
        tunnel_ip: bytes,
        settings: Settings,
        round_number: int,
        first_epoch: int,
    ) -> None:
        self.settings = settings
        self.pipeline = Pipeline(settings.table_base)
        self.counters = Counters()
        self.cache = SliceCache(settings.neighbor_cache_bytes)
        self.world = World(self.cache, tunnel_ip)
        self._installer = Installer(
            Cookies(round_number),
            max_rules=settings.max_rules,
            max_rules_per_owner=settings.max_rules_per_port,
        )
        self._maker = RuleMaker(self.pipeline, settings)
        self._waiting = WaitingRoom(
            max_parked=settings.max_parked,
            max_per_port=settings.max_parked_per_port,
            park_s=settings.park_s,
        )
        self._ports = PortManager(
            host=host,
            world=self.world,
            installer=self._installer,
            pipeline=self.pipeline,
            settings=settings,
            counters=self.counters,
            first_epoch=first_epoch,
            on_change=self._port_changed,
            on_gone=self._port_gone,
        )
        self._packets = PacketHandler(
            world=self.world,
            installer=self._installer,
            maker=self._maker,
            pipeline=self.pipeline,
            settings=settings,
            waiting=self._waiting,
            counters=self.counters,
        )
        self._rejudge = Rejudge(self.world, self._installer, self._maker, self._ports)
        self._changed_ports: list[str] = []
        #: Why the source cannot answer, None while it can.
        self.source_error: str | None = None

    # -- out -------------------------------------------------------------------------------------

    def take(self) -> Effects:
        """What is to be done since the last call."""
        return self._installer.take()

    @property
    def has_effects(self) -> bool:
        return bool(self._installer.effects)

    @property
    def ledger_size(self) -> int:
        return len(self._installer.ledger)

    @property
    def parked(self) -> int:
        return len(self._waiting)

    @property
    def installer(self) -> Installer:
        """For tests and ``dump``: the rules that should be in the switch."""
        return self._installer

    # -- in: switch ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: follow the host's own slice."""
        self._ports.start()

    def switch_connected(self) -> None:
        """The switch is there and holds no rule of ours: program what is always there."""
        self._installer.lost()
        self._ports.switch_connected()

    def switch_lost(self) -> None:
        """The connection is gone; the switch keeps what it has, this side starts over."""
        self._installer.lost()

    def packet_in(self, packet: PacketIn, now_s: float) -> None:
        self._packets.handle(packet, now_s)

    def flow_removed(self, removed: FlowRemoved) -> None:
        """The switch dropped a rule by itself, or confirms a delete (then it is unknown here)."""
        entry = self._installer.removed(removed.cookie)
        if entry is not None:
            self.counters.add(f"rule_removed.{_REASONS.get(removed.reason, 'other')}")

    def rejected(self, cookie: int) -> None:
        """The switch refused the rule with this cookie; what it was for is dropped there."""
        self.counters.add("rule_rejected")
        entry = self._installer.rejected(cookie)
        if entry is not None:
            self._packets.hold_back(entry.owner, entry.sent_s + RESEND_AFTER_S)

    # -- in: interfaces --------------------------------------------------------------------------

    def tunnel_plugged(self, ofport: int) -> None:
        """The VXLAN interface has this OpenFlow port (0: it is gone)."""
        if ofport != self._maker.tunnel_port:
            self._maker.tunnel_port = ofport
            self._ports.set_tunnel_port(ofport)
            for entry in list(self._installer.ledger):
                if "tunnel_port" in entry.rule.shape.args:
                    self._installer.delete(entry)

    def port_plugged(self, port_id: str, ofport: int, now_s: float) -> None:
        self._ports.plugged(port_id, ofport)
        self._judge_changed_ports(now_s)

    def port_unplugged(self, port_id: str, now_s: float) -> None:
        self._ports.unplugged(port_id)
        self._judge_changed_ports(now_s)

    # -- in: slices ------------------------------------------------------------------------------

    def slice_event(self, event: SourceEvent, now_s: float) -> None:
        """What a watch delivered."""
        if isinstance(event, SourceState):
            self.source_error = event.error
            self.counters.add("source.lost" if event.error else "source.back")
            if event.error is None:
                again = [Fetch(need.slice, need.key) for need in self._waiting.ask_again(now_s)]
                self._installer.effects.requests += again
            return
        loading = isinstance(event, Snapshot) and self.cache.whole(event.slice) is None
        applied = self.cache.apply(event)
        self._apply(applied, now_s)
        if loading and isinstance(event, Snapshot):
            # Empty slices change nothing and still make a difference: they are known to be empty.
            self.world.slice_changed(event.slice)
            self._ports.settle_all()
            self._judge_changed_ports(now_s)
        self._release(Need(event.slice, ""), now_s)

    def fetched(self, lookup: Lookup, now_s: float) -> None:
        """The answer to a Fetch."""
        if self.cache.version(vpc_slice(lookup.slice.split("/", 2)[1])) is None:
            return  # the last port of the VPC has gone meanwhile
        applied, fresh = self.cache.put(lookup)
        if fresh:
            version = self.cache.version(lookup.slice)
            self._installer.effects.requests.append(Follow(lookup.slice, version))
        self._apply(applied, now_s)
        self._release(Need(lookup.slice, lookup.key), now_s)

    # -- in: time --------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """A few times a second: let deadlines pass."""
        self._rejudge.tick(now_s)
        if len(self._waiting):
            for need, zones in self._waiting.expire(now_s).items():
                for zone in zones:
                    port = self.world.by_zone.get(zone)
                    name = port.record.id if port is not None else ""
                    self.counters.add("parked.too_late", name)
                self._installer.effects.warnings.append(
                    f"{len(zones)} packets waited in vain for record {need.key!r} of slice"
                    f" {need.slice!r}" + (f": {self.source_error}" if self.source_error else "")
                )

    # -- inside ----------------------------------------------------------------------------------

    def _apply(self, applied: Applied, now_s: float) -> None:
        for error in applied.errors:
            self.counters.add("bad_record")
            self._installer.effects.warnings.append(f"{error}; it counts as missing")
        if applied.heal is not None:
            self.counters.add("source.gap")
            self._installer.effects.requests.append(applied.heal)
        if applied.changes:
            self._rejudge.changed(applied.changes, now_s)
        if applied.forgotten:
            # Nobody will tell of a change to these any more, so nothing may depend on them.
            self.counters.add("cache.dropped", count=len(applied.forgotten))
            self._rejudge.judge_tags(applied.forgotten, now_s)
            self._rejudge.members_forgotten(applied.forgotten_groups)
            for name in dict.fromkeys(tag.partition(" ")[0] for tag in applied.forgotten):
                if self.cache.is_idle(name):
                    self.cache.drop_part(name)
                    self._installer.effects.requests.append(Forget(name))
        self._judge_changed_ports(now_s)

    def _release(self, need: Need, now_s: float) -> None:
        for packet in self._waiting.release(need):
            self._packets.resume(packet, now_s)

    def _port_changed(self, port: LocalPort) -> None:
        self._changed_ports.append(port.tag)

    def _port_gone(self, port: LocalPort) -> None:
        self._changed_ports.append(port.tag)
        self._waiting.drop_zone(port.zone)
        self._packets.forget_port(port.zone)

    def _judge_changed_ports(self, now_s: float) -> None:
        if self._changed_ports:
            tags, self._changed_ports = self._changed_ports, []
            self._rejudge.judge_tags(tags, now_s)


__all__ = ["Engine"]

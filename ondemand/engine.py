"""The engine: everything that happens to a host goes in here, and what to do about it comes out.

It is called by one thread, holds no socket and reads no clock: ``now_s`` is monotonic seconds. Calls
return nothing; ``take`` hands over the effects that have collected.
"""

from __future__ import annotations

from collections.abc import Iterable

from ondemand.adoption import Adoption, Found, NothingFound
from ondemand.announcements import Announcements
from ondemand.counters import Counters
from ondemand.holdings import Holdings
from ondemand.idle_sweep import IdleSweep
from ondemand.installer import RESEND_AFTER_S, Installer
from ondemand.local_ports import LocalPort
from ondemand.messages import Effects, Fetch, FlowRemoved, Follow, Forget, PacketIn
from ondemand.packet_handler import PacketHandler
from ondemand.pipeline import Pipeline
from ondemand.port_manager import PortManager
from ondemand.quarantine import Quarantine
from ondemand.read_back import found_ports
from ondemand.rejudge import Rejudge
from ondemand.rules import RuleMaker
from ondemand.settings import Settings
from ondemand.slice_cache import Applied, SliceCache
from ondemand.slices import Delta, Lookup, Snapshot, SourceEvent, SourceState, vpc_slice
from ondemand.verdict import SOURCE_TAG, Need
from ondemand.waiting_room import WaitingRoom
from ondemand.world import World
from rule_cache.cookie import Cookies
from rule_cache.rule import Rule
from rule_cache.tags import Tag

#: How an evicted rule comes back: OFPRR_EVICTION, OpenFlow 1.4 section 7.4.2, which OVS sends as
#: "delete" to a 1.3 controller.
_REASONS = {0: "idle", 1: "hard", 2: "delete", 4: "meter_delete", 5: "eviction"}


#: Changes that wait for ports which an earlier agent served.
MAX_LATER = 1000
#: Seconds that the source has, once it answers, to tell what changed since the holdings were saved. Until
#: then a record that is missing may be on its way.
CONFIRM_S = 3.0
#: Rules that are judged between two reads of the socket: about a millisecond.
WORK_RULES = 50


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
        saving: bool = False,
    ) -> None:
        """``saving``: collect what has to be written down; then ``cache.take_writes`` must be called
        whenever ``take`` is.
        """
        self.settings = settings
        self.host = host
        self.pipeline = Pipeline(settings.table_base)
        self.counters = Counters()
        self.cache = SliceCache(settings.neighbor_cache_bytes, saving=saving)
        self.world = World(self.cache, tunnel_ip)
        self._cookies = Cookies(round_number)
        self._installer = Installer(
            self._cookies,
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
            on_narrowed=self._port_narrowed,
            on_gone=self._port_gone,
        )
        self._quarantine = Quarantine(
            settings, self.counters, self._ports.quarantine, self._end_quarantine
        )
        self._packets = PacketHandler(
            world=self.world,
            installer=self._installer,
            maker=self._maker,
            pipeline=self.pipeline,
            settings=settings,
            waiting=self._waiting,
            counters=self.counters,
            announcements=Announcements(host, self.world, self._installer, self.counters),
            quarantine=self._quarantine,
        )
        self._rejudge = Rejudge(self.world, self._installer, self._maker, self._ports)
        self._idle = IdleSweep(
            self.cache, self._installer.ledger.has_tag, idle_s=settings.neighbor_idle_s
        )
        self._has_switch = False
        self._changed_ports: list[str] = []
        #: What was found in the switch and is not settled yet; None: all is.
        self._adoption: Adoption | None = None
        #: Whether ``work`` may begin with it: it is known which ports are plugged.
        self._interfaces_known = False
        #: Whether what an earlier agent held is known, so that every change since is told as one.
        self._past_is_known = False
        self._is_sweeping = False
        #: Packet-ins of ports that the switch serves already and this agent does not yet.
        self._early: list[PacketIn] = []
        #: Changes of what an earlier agent held, until its ports are here: only then can each of them
        #: be told what it lost. None: they are applied as they come.
        self._later: list[Delta | Snapshot] | None = None
        #: When what was saved counts as confirmed; None: the time does not run.
        self._confirmed_s: float | None = None
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
    def quarantined(self) -> list[str]:
        """Ids of the ports in quarantine."""
        return sorted(name for name, port in list(self.world.ports.items()) if port.quarantine_s)

    def evicted_by_port(self) -> dict[str, int]:
        """How many rules had to go because a bound was reached, by the port that they were for."""
        evictions = self._installer.ledger.evictions
        return {
            name: evictions[port.zone]
            for name, port in list(self.world.ports.items())
            if port.zone in evictions
        }

    @property
    def installer(self) -> Installer:
        """For tests and ``dump``: the rules that should be in the switch."""
        return self._installer

    # -- in: switch ------------------------------------------------------------------------------

    def start(self, holdings: Holdings | None = None) -> None:
        """Begin: hold what an earlier agent held, and follow that and the host's own slice.

        Without ``holdings`` nobody can know which rights went since the rules in the switch were made,
        so live connections are judged again.
        """
        if holdings is not None:
            restoration = self.cache.restore(holdings)
            self._past_is_known = restoration.is_complete
            self._later = []
            self.counters.add("restored.slices", count=len(restoration.slices))
            self._installer.effects.requests += [
                Follow(one.slice, one.version) for one in restoration.slices
            ]
            self._ports.restored([one.slice for one in restoration.slices if one.is_whole])
        self._ports.start()

    def store_is(self, identity: str) -> None:
        """The source answers for the first time, and says which store it is."""
        if not self.cache.versions():
            self.cache.distrust(identity)

    def switch_connected(
        self,
        static: Iterable[tuple[int, Rule]] = (),
        on_demand: Found | None = None,
        round_number: int | None = None,
    ) -> None:
        """The switch is there, and holds these rules of ours.

        ``static`` are those of tables that no traffic fills. ``on_demand`` are all others, which
        ``work`` takes and judges by and by. No rule has a cookie of round ``round_number``, if it is
        given; cookies of that round are given out then.
        """
        self._installer.lost()
        self._rejudge.lost()
        self._rejudge.holds_epochs = True
        if round_number is not None and round_number != self._cookies.round_number:
            self._cookies.start_round(round_number)
        self._installer.begin_adoption()
        static = list(static)
        self._installer.found_static(static)
        self._adoption = Adoption(
            on_demand if on_demand is not None else NothingFound(),
            world=self.world,
            installer=self._installer,
            rejudge=self._rejudge,
            pipeline=self.pipeline,
        )
        self._is_sweeping = False
        self._has_switch = True
        self._ports.switch_connected(found_ports(self.pipeline, [rule for _, rule in static]))
        self._changed_ports.clear()

    def switch_lost(self) -> None:
        """The connection is gone; the switch keeps what it has, this side starts over."""
        self._installer.lost()
        self._rejudge.lost()
        self._rejudge.holds_epochs = True
        self._adoption = None
        self._has_switch = False
        self._early.clear()

    def interfaces_known(self, now_s: float) -> None:
        """All interfaces that are on the bridge have been told by ``port_plugged``."""
        self._interfaces_known = True
        self._ports.interfaces_known()
        self._take_early(now_s)

    @property
    def round_number(self) -> int:
        """The round of cookies that are given out."""
        return self._cookies.round_number

    @property
    def is_adopting(self) -> bool:
        """Whether rules that were found in the switch are still to be settled."""
        return self._adoption is not None

    @property
    def has_work(self) -> bool:
        """Whether ``work`` has something to do now."""
        adoption = self._adoption
        return self._rejudge.has_work or (
            adoption is not None and self._is_sweeping and (adoption.has_work or adoption.done)
        )

    def work(self, now_s: float, limit: int = WORK_RULES) -> None:
        """Judge some of the rules that wait for it; call it between reads of the socket."""
        self._rejudge.work(limit, now_s)
        adoption = self._adoption
        if adoption is None:
            return
        if not self._is_sweeping:
            if not (self._interfaces_known and self._ports.is_settled):
                return
            # It is known now who is here: what belongs to nobody can go.
            self._is_sweeping = True
            self._installer.sweep_found()
            self._ports.sweep_found()
            self._apply_later(now_s)
            self._take_early(now_s)
        if adoption.has_work:
            adoption.work(limit, now_s)
        if adoption.done:
            self._end_adoption(adoption)

    def _apply_later(self, now_s: float) -> None:
        """Apply the changes that waited for the ports that they concern."""
        if self._later is not None:
            events, self._later = self._later, None
            for event in events:
                self.slice_event(event, now_s)

    def _end_adoption(self, adoption: Adoption) -> None:
        self._adoption = None
        self._installer.end_adoption()
        result = adoption.result
        for name in ("kept", "replaced", "deleted"):
            self.counters.add(f"adopted.{name}", count=getattr(result, name))
        if not self._past_is_known:
            # Whoever may have lost a right meanwhile, this agent cannot know.
            for port in self.world.ports.values():
                self._rejudge.narrow(port)
            self._past_is_known = True
        self._rejudge.holds_epochs = False
        self._rejudge.move_epochs()

    def packet_in(self, packet: PacketIn, now_s: float) -> None:
        # While interfaces are still being told, the port that it is for may be the one not told yet.
        if self._adoption is not None and not (
            self._interfaces_known and self._packets.knows(packet)
        ):
            self._keep_early(packet)
            return
        self._packets.handle(packet, now_s)

    def _keep_early(self, packet: PacketIn) -> None:
        """Its port is served by the switch, so it is about to be known here as well."""
        if not self._is_sweeping and len(self._early) < self.settings.max_parked:
            self._early.append(packet)
        else:
            self.counters.add("packet_in.unknown_port")

    def flow_removed(self, removed: FlowRemoved) -> None:
        """The switch dropped a rule by itself, or confirms a delete (then it is unknown here)."""
        entry = self._installer.removed(removed.cookie)
        if entry is None and self._adoption is not None:
            self._adoption.removed(removed.cookie)
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
            self._source_state(event, now_s)
            return
        if self._later is not None and self.cache.is_held(event.slice):
            if len(self._later) < MAX_LATER:
                self._later.append(event)
                return
            # No switch for a long time: who lost what meanwhile cannot be told in the end.
            self._past_is_known = False
            self._apply_later(now_s)
        loading = isinstance(event, Snapshot) and self.cache.whole(event.slice) is None
        applied = self.cache.apply(event)
        self._apply(applied, now_s)
        if loading and isinstance(event, Snapshot):
            # Empty slices change nothing and still make a difference: they are known to be empty.
            self.world.slice_changed(event.slice)
            self._ports.settle_all()
            self._judge_changed_ports(now_s)
        self._release(Need(event.slice, ""), now_s)

    def _source_state(self, event: SourceState, now_s: float) -> None:
        self.source_error = event.error
        self.counters.add("source.lost" if event.error else "source.back")
        self.world.source_down = event.error is not None
        if event.error is None:
            again = [Fetch(need.slice, need.key) for need in self._waiting.ask_again(now_s)]
            self._installer.effects.requests += again
            self._rejudge.judge_tags((SOURCE_TAG,), now_s)
            if self._adoption is not None:
                self._adoption.source_back()

    def fetched(self, lookup: Lookup, now_s: float) -> None:
        """The answer to a Fetch."""
        if self.cache.version(vpc_slice(lookup.slice.split("/", 2)[1])) is None:
            return  # the last port of the VPC has gone meanwhile
        need = Need(lookup.slice, lookup.key)
        applied, fresh = self.cache.put(lookup, self._waiting.first_zone(need))
        if fresh:
            version = self.cache.version(lookup.slice)
            self._installer.effects.requests.append(Follow(lookup.slice, version))
        self._apply(applied, now_s)
        self._release(need, now_s)

    # -- in: time --------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """A few times a second: let deadlines pass."""
        self.cache.set_clock(now_s)
        self._judge_changed_ports(now_s)
        self._rejudge.tick(now_s)
        self._quarantine.tick(now_s)
        if self._ports.is_hearsay:
            self._confirm(now_s)
        self._let_go_of_idle(now_s)
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
            self._forget_parts(applied.forgotten)
        self._judge_changed_ports(now_s)

    def _confirm(self, now_s: float) -> None:
        """What was saved is as the source has it, when that has been silent for long enough."""
        if self.world.source_down or self._later is not None:
            self._confirmed_s = None
        elif self._confirmed_s is None:
            self._confirmed_s = now_s + CONFIRM_S
        elif now_s >= self._confirmed_s:
            self._ports.confirm()
            self._judge_changed_ports(now_s)

    def _let_go_of_idle(self, now_s: float) -> None:
        """Hold no record that nothing has used for a while."""
        if not self._has_switch or self._adoption is not None:
            self._idle.pause()
            return
        if self.world.source_down:
            return  # what leaves now could not be read again
        left = self._idle.work(now_s)
        if left:
            self.counters.add("cache.idle", count=len(left))
            self._rejudge.unwatched(left)
            self._forget_parts([held.tag for held in left])

    def _forget_parts(self, tags: list[Tag]) -> None:
        """Records with these tags have left the cache: follow no shard for their sake."""
        for name in dict.fromkeys(tag.partition(" ")[0] for tag in tags):
            if self.cache.is_idle(name):
                self.cache.drop_part(name)
                self._installer.effects.requests.append(Forget(name))

    def _release(self, need: Need, now_s: float) -> None:
        for packet in self._waiting.release(need):
            self._packets.resume(packet, now_s)
        if self._adoption is not None:
            self._adoption.answered(need)
        if self.world.source_down:
            # An answer that was on its way; what was denied for want of it may be known now.
            self._rejudge.judge_tags((SOURCE_TAG,), now_s)

    def _end_quarantine(self, port: LocalPort) -> None:
        self._ports.quarantine(port, 0)

    def _port_changed(self, port: LocalPort) -> None:
        self._changed_ports.append(port.tag)

    def _port_narrowed(self, port: LocalPort) -> None:
        self._rejudge.narrow(port)

    def _port_gone(self, port: LocalPort) -> None:
        self._changed_ports.append(port.tag)
        self._waiting.drop_zone(port.zone)
        self.cache.release_owner(port.zone)
        self._packets.forget_port(port.zone)
        self._installer.ledger.evictions.pop(port.zone, None)

    def _judge_changed_ports(self, now_s: float) -> None:
        if self._changed_ports:
            tags, self._changed_ports = self._changed_ports, []
            self._rejudge.judge_tags(tags, now_s)
            self._take_early(now_s)
        self._rejudge.move_epochs()

    def _take_early(self, now_s: float) -> None:
        early, self._early = self._early, []
        for packet in early:
            self.packet_in(packet, now_s)


__all__ = ["Engine"]

"""A compute host without a kernel: the engine, a fake switch and a feed of slices.

The engine is called as the agent calls it. Effects reach the switch at once, or collect while
``batching`` is set, as they do while many messages lie in the agent's socket.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ondemand.adoption import Found, FoundRule
from ondemand.engine import Engine
from ondemand.holdings import Holdings, Identity
from ondemand.messages import Effects, FlowRemoved, PacketIn, SourceRequest
from ondemand.pipeline import ON_DEMAND
from ondemand.settings import Settings
from ondemand.slices import Lookup
from rule_cache.cookie import round_of
from rule_cache.rule import Rule
from tests.support.fabric_sim import FabricSim, Moves
from tests.support.fake_switch import FakeSwitch
from tests.support.slice_feed import SliceFeed
from tests.support.slice_store import SliceStore

#: OpenFlow numbers: of the tunnel port, and of the first VM.
TUNNEL_PORT, FIRST_PORT = 1, 10


class FoundList:
    """What a switch holds, told at once."""

    def __init__(self, found: Iterable[FoundRule]) -> None:
        self._found = list(found)

    @property
    def is_complete(self) -> bool:
        return not self._found

    @property
    def has_next(self) -> bool:
        return bool(self._found)

    def next(self) -> FoundRule | None:
        return self._found.pop(0) if self._found else None


class SlowFound:
    """What a switch holds, told only as far as it is ``released``, a number of rules."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self.released: float = 0

    @property
    def is_complete(self) -> bool:
        return self._found.is_complete

    @property
    def has_next(self) -> bool:
        return self.released > 0 and self._found.has_next

    def next(self) -> FoundRule | None:
        if not self.has_next:
            return None
        self.released -= 1
        return self._found.next()


class HostSim:
    """One host in a fabric.

    Attributes:
        plugged: port id to OpenFlow port, of the interfaces on the bridge.
        tunnel_port: OpenFlow port of the VXLAN interface, 0 while there is none.
        delayed: when set, what the source says stays in ``feed.inbox`` until ``deliver``.
        is_unaware: news were lost on their way, and nothing has told the host so yet.
        tells_slowly: when set, the switch that is found tells its rules as ``read_on`` lets it.
        warnings: every warning so far.
    """

    def __init__(
        self,
        name: str,
        tunnel_ip: bytes,
        *,
        fabric: FabricSim,
        store: SliceStore,
        settings: Settings,
        first_epoch: int = 1,
        enforce_meters: bool = False,
    ) -> None:
        self.name = name
        self.fabric = fabric
        self._settings = settings
        self._tunnel_ip = tunnel_ip
        self.engine = self._make_engine(first_epoch)
        self.switch = self._make_switch(enforce_meters=enforce_meters)
        self._store = store
        self.feed = SliceFeed(store)
        #: No agent runs: packet-ins are lost, nobody hears of changes.
        self.is_dead = False
        #: What the agent has written down of what it holds.
        self.saved = Holdings(Identity(name, "store"))
        #: Cookies of rules that the switch is said to hold and that nobody can read.
        self.strange: list[int] = []
        self.plugged: dict[str, int] = {}
        self.tunnel_port = 0
        self.delayed = False
        self.is_unaware = False
        self.tells_slowly = False
        self._telling: SlowFound | None = None
        self.warnings: list[str] = []
        self._batching = False
        self._next_ofport = FIRST_PORT
        fabric.add_host(
            name,
            self.switch,
            tunnel_ip,
            on_packet_in=self._packet_in,
            on_removed=self._flow_removed,
            on_refused=self._refused,
            on_request=self._request,
        )

    def _make_switch(self, *, enforce_meters: bool) -> FakeSwitch:
        """A switch without rules and without ports."""
        switch = FakeSwitch(
            (),
            tunnel_ports={4: TUNNEL_PORT, 6: TUNNEL_PORT},
            first_table=self._settings.table_base,
            enforce_meters=enforce_meters,
        )
        switch.remove_port(TUNNEL_PORT)
        return switch

    # -- life ------------------------------------------------------------------------------------

    def start(self, *, tunnel: bool = True) -> None:
        """The agent starts and finds an empty switch."""
        self.engine.start()
        self.engine.switch_connected()
        self.engine.interfaces_known(self.fabric.now_s)
        self.flush()
        if tunnel:
            self.plug_tunnel()

    def reconnect(self) -> Moves:
        """The agent loses the switch and finds it again, with all that it held."""
        self.engine.switch_lost()
        return self.connected_again()

    def connected_again(self) -> Moves:
        """The agent reads back what the switch holds."""
        static, found, round_number = self._found()
        self._telling = SlowFound(found) if self.tells_slowly else None
        self.engine.switch_connected(static, self._telling or found, round_number)
        return self.flush()

    @property
    def is_reading(self) -> bool:
        """The switch has not told all that it holds."""
        return self._telling is not None and not self._telling.is_complete

    def read_on(self, count: float = math.inf) -> Moves:
        """The switch tells so many rules more."""
        if self._telling is None:
            return Moves()
        self._telling.released += count
        return self.flush()

    def _found(self) -> tuple[list[tuple[int, Rule]], Found, int]:
        """What the switch holds, as ``Engine.switch_connected`` wants it."""
        rules = [(cookie, self._read_back(rule)) for cookie, rule in self.switch.rules()]
        filled = {self.engine.pipeline.number(table) for table in ON_DEMAND}
        found: list[FoundRule] = [(cookie, None) for cookie in self.strange]
        found += [item for item in rules if item[1].shape.table in filled]
        rounds = {round_of(cookie) for cookie, _ in rules}
        return (
            [item for item in rules if item[1].shape.table not in filled],
            FoundList(found),
            next(number for number in range(256) if number not in rounds),
        )

    def _read_back(self, rule: Rule) -> Rule:
        """The rule as this agent's own pipeline declares it, whichever agent made it."""
        for shape in self.engine.pipeline.shapes:
            if (shape.name, shape.table) == (rule.shape.name, rule.shape.table):
                return Rule(shape, rule.values, rule.idle_timeout, rule.hard_timeout)
        raise ValueError(f"{rule} is of no pipeline")

    def kill_agent(self) -> None:
        """The agent dies; the switch stays as it is, what was not sent is lost."""
        self.is_dead = True
        self._telling = None
        self._save()
        self.feed = SliceFeed(self._store)

    def start_agent(
        self, *, first_epoch: int = 1_000_000, fresh: bool = False, source_first: bool = False
    ) -> Moves:
        """Another agent starts and reads back what the switch holds.

        It knows what the earlier one held, unless it starts ``fresh``. With ``source_first`` it hears
        of all changes before it knows a single interface.
        """
        self.is_dead = False
        self.engine = self._make_engine(first_epoch)
        if fresh:
            self.saved = Holdings(Identity(self.name, "store"))
            self.engine.start()
        else:
            self.engine.start(copy.deepcopy(self.saved))
        moves = Moves()
        if source_first:
            for request in self.engine.take().requests:
                self.feed.ask(request)
            _extend(moves, self.connected_again())
            _extend(moves, self.deliver())
            self._tell_interfaces()
            _extend(moves, self.flush())
        else:
            self._tell_interfaces()
            _extend(moves, self.connected_again())
        _extend(moves, self.deliver())
        return moves

    def _tell_interfaces(self) -> None:
        self.engine.tunnel_plugged(self.tunnel_port)
        for port, ofport in self.plugged.items():
            self.engine.port_plugged(port, ofport, self.fabric.now_s)
        self.engine.interfaces_known(self.fabric.now_s)

    def _make_engine(self, first_epoch: int) -> Engine:
        return Engine(
            host=self.name,
            tunnel_ip=self._tunnel_ip,
            settings=self._settings,
            round_number=1,
            first_epoch=first_epoch,
            saving=True,
        )

    def _save(self) -> None:
        self.saved.apply(self.engine.cache.take_writes())

    def restart_switch(self) -> Moves:
        """As when ovs-vswitchd starts anew: conntrack is gone too."""
        self.switch.clear()
        return self.reconnect()

    # -- interfaces ------------------------------------------------------------------------------

    def plug(self, port: str, ofport: int | None = None) -> Moves:
        """An interface comes, or comes back under another number."""
        if ofport is None:
            ofport = self._next_ofport
            self._next_ofport += 1
        if port in self.plugged:
            self.switch.remove_port(self.plugged[port])
        self.switch.add_port(ofport)
        self.plugged[port] = ofport
        if not self.is_dead:
            self.engine.port_plugged(port, ofport, self.fabric.now_s)
        return self.flush()

    def unplug(self, port: str) -> Moves:
        self.switch.remove_port(self.plugged.pop(port))
        if not self.is_dead:
            self.engine.port_unplugged(port, self.fabric.now_s)
        return self.flush()

    def plug_tunnel(self, ofport: int = TUNNEL_PORT) -> Moves:
        """The VXLAN interface comes or changes its number; 0: it goes."""
        if self.tunnel_port:
            self.switch.remove_port(self.tunnel_port)
        if ofport:
            self._add_tunnel_port(ofport)
        self.tunnel_port = ofport
        self.engine.tunnel_plugged(ofport)
        return self.flush()

    def _add_tunnel_port(self, ofport: int) -> None:
        self.switch.add_port(ofport)
        self.switch._tunnel_ports = {4: ofport, 6: ofport}

    def zone(self, port: str) -> int:
        return self.engine.world.ports[port].zone

    def epoch(self, port: str) -> int:
        return self.engine.world.ports[port].epoch

    # -- source ----------------------------------------------------------------------------------

    def published(self, name: str) -> Moves:
        """The store has something new in a slice."""
        if self.is_dead:
            return Moves()
        self.feed.published(name)
        return Moves() if self.delayed else self.deliver()

    def deliver(self) -> Moves:
        """Let everything arrive that is on its way, and what it brings about."""
        total = Moves()
        while self.feed.inbox:
            _extend(total, self.deliver_one())
        return total

    def deliver_one(self, at: int = 0, *, keep: bool = False) -> Moves:
        """One thing of the inbox arrives; with ``keep`` it will come once more."""
        self._hear(at, keep=keep)
        return self.flush()

    def _hear(self, at: int = 0, *, keep: bool = False) -> None:
        event = self.feed.inbox[at]
        if not keep:
            del self.feed.inbox[at]
        if isinstance(event, Lookup):
            self.engine.fetched(event, self.fabric.now_s)
        else:
            self.engine.slice_event(event, self.fabric.now_s)

    # -- effects ---------------------------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Let effects collect until the end of the block, and be sent together then."""
        self.begin_batch()
        yield
        self.end_batch()

    @property
    def batching(self) -> bool:
        return self._batching

    def begin_batch(self) -> None:
        self._batching = True

    def end_batch(self) -> Moves:
        self._batching = False
        return self.flush()

    def flush(self) -> Moves:
        """Send what the engine wants done, unless a batch is open."""
        if self._batching or self.is_dead:
            return Moves()
        return self.fabric.apply(self.name, self._take())

    def tick(self) -> Moves:
        if self.is_dead:
            return Moves()
        self.engine.tick(self.fabric.now_s)
        return self.flush()

    def _take(self) -> Effects:
        self.engine.work(self.fabric.now_s)
        while self.engine.has_work:
            self.engine.work(self.fabric.now_s)
        effects = self.engine.take()
        self._save()
        self.warnings += effects.warnings
        return effects

    def _packet_in(self, packet: PacketIn, now_s: float) -> Effects | None:
        if self.is_dead:
            return None
        self.engine.packet_in(packet, now_s)
        return None if self._batching else self._take()

    def _flow_removed(self, removed: FlowRemoved, now_s: float) -> Effects | None:
        if self.is_dead:
            return None
        self.engine.flow_removed(removed)
        return None if self._batching else self._take()

    def _refused(self, cookie: int, now_s: float) -> Effects | None:
        self.engine.rejected(cookie)
        return None if self._batching else self._take()

    def _request(self, request: SourceRequest, now_s: float) -> Effects | None:
        self.feed.ask(request)
        if self.delayed:
            return None
        while self.feed.inbox:
            self._hear()
        return self._take()

    # -- looking ---------------------------------------------------------------------------------

    def rules(self, *names: str) -> list[str]:
        """On-demand rules in the switch in ovs-ofctl text, or those whose shape has such a name."""
        known = {entry.cookie for entry in self.engine.installer.ledger}
        return [
            str(rule)
            for cookie, rule in self.switch.rules()
            if cookie in known and (not names or any(name in rule.shape.name for name in names))
        ]

    def connections(self, port: str) -> list[tuple[int, int]]:
        """(protocol, ct_mark) of each connection in the zone of a port."""
        zone = self.zone(port)
        return [
            (connection.key.proto, connection.mark)
            for in_zone, connection in self.switch.conntrack.connections(self.fabric.now_s)
            if in_zone == zone
        ]

    def count(self, name: str, port: str | None = None) -> int:
        return self.engine.counters.of(name, port)


def _extend(total: Moves, moves: Moves) -> None:
    total.outcomes += moves.outcomes
    total.removed += moves.removed
    total.refused += moves.refused
    total.warnings += moves.warnings

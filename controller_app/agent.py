"""The agent: the engine with its connection to the switch, its slice source and its mailbox.

When a switch connects, its rules are read back first (``switch_read_back``): those that are true stay
as they are, so that an agent that starts, or comes back, costs no packet of live traffic.

Threads: while a switch is connected, the connection's thread owns the engine; it handles packet-ins as
they come and everything else when it collects. While none is connected, ``idle`` does the collecting
instead. All other threads only post into the mailbox and wake the owner up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from controller_app.decode import MalformedMessage, failed_cookie, xid_of
from controller_app.encode import Encoder, encode_effects
from controller_app.flow_mod import EncodeError
from controller_app.holdings_file import HoldingsFile
from controller_app.meter_stats import Metered, meter_stats_reply, meter_stats_request
from controller_app.ovsdb_ports import (
    InterfacesTold,
    PortGone,
    PortSeen,
    TunnelGone,
    TunnelSeen,
)
from controller_app.owner import OWNER_XID, Connection
from controller_app.source_link import Answer, SourceLink, StoreIs
from controller_app.source_log import SourceLog
from controller_app.switch_read_back import SwitchReadBack
from ondemand.engine import Engine
from ondemand.local_ports import host_mark
from ondemand.messages import Effects, Fetch, FlowRemoved, PacketIn
from ondemand.read_back import found_owner
from ondemand.slices import Lookup, SliceSource, SourceState
from rule_cache.cookie import MAGIC_MASK, MAGIC_VALUE

LOG = logging.getLogger(__name__)

#: Rounds of fetching and resuming in one collect: a packet may need a record to know the next one it
#: needs (destination, claim, next hop, source). What is left goes on in the next collect.
MAX_FETCH_ROUNDS: Final = 8

#: Seconds that the switch may take to tell what it holds.
READ_BACK_TIMEOUT_S: Final = 30.0
#: Packet-ins that are kept while it does.
MAX_KEPT: Final = 4096

#: Seconds between two looks at what the ports' meters have dropped.
METERS_S: Final = 1.0
#: The request for that; those of a read-back count up from ``OWNER_XID``.
_METERS_XID: Final = OWNER_XID | 0xFFFF

MailboxEvent = Answer | PortSeen | PortGone | TunnelSeen | TunnelGone | InterfacesTold


class Agent:
    """Keeps the ``Owner`` protocol of the hot connection."""

    def __init__(
        self,
        engine: Engine,
        source: SliceSource,
        *,
        clock: Callable[[], float] = time.monotonic,
        warn: Callable[[str], None] = LOG.warning,
        saved: HoldingsFile | None = None,
        replace: bool = False,
        on_foreign: Callable[[], None] | None = None,
    ) -> None:
        """Not connected yet.

        Args:
            engine: of this host.
            source: where slices come from.
            clock: monotonic seconds.
            warn: takes sentences for the log.
            saved: where what the engine holds is written down; its engine must be ``saving``.
            replace: take over the rules of another host's agent, too.
            on_foreign: called, by the connection's thread, when the switch holds the rules of another
                host's agent; nothing has been changed then, and nothing is served.
        """
        self._may_replace = replace
        self._on_foreign = on_foreign
        self._engine = engine
        self._encoder = Encoder(engine.pipeline)
        self._clock = clock
        self._warn = warn
        self._source_log = SourceLog(warn)
        self._mailbox: deque[MailboxEvent] = deque()
        #: Held by whoever collects; without contention while a switch is connected.
        self._collecting = threading.Lock()
        self._connection: Connection | None = None
        self._datapath_id: int | None = None
        self._meters: set[int] = set()
        #: What they have seen, by meter, and when they are asked again.
        self._metered: dict[int, Metered] = {}
        self._ask_meters_s = 0.0
        self._generation = 0
        #: What the switch tells of itself, from its connection until all of it is settled.
        self._reading: SwitchReadBack | None = None
        #: Until it told the least that is needed to serve packets; what came meanwhile is kept.
        self._is_beginning = False
        self._has_own_round = False
        self._reading_until_s = 0.0
        self._kept: deque[PacketIn] = deque()
        self._adopting_since_s: float | None = None
        self._saved = saved
        holdings = saved.load() if saved is not None else None
        identity = holdings.identity.source if holdings is not None else None
        self._link = SourceLink(source, self.post, identity=identity or None)
        with self._collecting:
            engine.start(holdings)
            self._run_requests(engine.take())

    # -- any thread ------------------------------------------------------------------------------

    def post(self, event: MailboxEvent) -> None:
        """Have an event handled soon by the thread that owns the engine."""
        self._mailbox.append(event)
        connection = self._connection
        if connection is not None:
            connection.wake()

    def serve_switch(self, datapath_id: int) -> None:
        """Take packet-ins from the switch that calls itself so in OpenFlow."""
        self._datapath_id = datapath_id

    def wants(self, datapath_id: int) -> bool:
        return datapath_id == self._datapath_id

    def idle(self) -> None:
        """While no switch is connected, handle what other threads posted. Call it now and then."""
        with self._collecting:
            if self._connection is None:
                self._drain(self._clock())
                # What is for the switch is programmed anew when it connects.
                self._engine.switch_lost()

    @property
    def is_connected(self) -> bool:
        """Whether a switch is connected and served."""
        return self._connection is not None and not self._is_beginning

    def zones(self) -> dict[str, int]:
        """The conntrack zone of each port that is served."""
        return {name: port.zone for name, port in list(self._engine.world.ports.items())}

    def status(self) -> dict[str, Any]:
        """Counters and sizes, for metrics; read without stopping the engine."""
        engine = self._engine
        return {
            "connected": self.is_connected,
            "adopting": engine.is_adopting,
            "source_error": engine.source_error,
            "ports": sorted(engine.world.ports),
            "on_demand_rules": engine.ledger_size,
            "parked": engine.parked,
            "quarantined": engine.quarantined,
            "meters": {
                name: {"packets": seen.packets, "dropped": seen.dropped}
                for name, zone in self.zones().items()
                if (seen := self._metered.get(zone)) is not None
            },
            "rules_evicted": engine.evicted_by_port(),
            "neighbors_held": engine.cache.neighbors_held,
            "neighbor_bytes": engine.cache.neighbor_bytes,
            "slices": engine.cache.versions(),
            "counters": engine.counters.by_name(),
        }

    def close(self) -> None:
        """End the threads; rules stay in the switch."""
        self._link.close()
        if self._saved is not None:
            self._saved.close()

    # -- the connection's thread -----------------------------------------------------------------

    def connected(self, connection: Connection) -> None:
        with self._collecting:
            self._reading = SwitchReadBack(
                self._engine.pipeline,
                round_number=self._engine.round_number,
                is_own_round=self._has_own_round,
            )
            self._is_beginning = True
            self._await_answer()
            self._kept.clear()
            connection.send(self._encoder.report_evictions() + self._reading.begin())
            self._connection = connection
        LOG.info("switch %016x is connected", connection.id)

    def packet_in(self, message: PacketIn) -> None:
        if self._is_beginning:
            if len(self._kept) < MAX_KEPT:
                self._kept.append(message)
            else:
                self._engine.counters.add("packet_in.too_early")
            return
        self._engine.packet_in(message, self._clock())

    def flow_removed(self, message: FlowRemoved) -> None:
        self._engine.flow_removed(message)

    def statistics(self, message: bytes) -> None:
        reading, connection = self._reading, self._connection
        try:
            if xid_of(message, 0) == _METERS_XID:
                self._metered.update(meter_stats_reply(message)[0])
                return
            if reading is None or connection is None:
                return
            request = reading.take(message)
        except MalformedMessage as error:
            self._give_up_reading(f"the switch sent {error}")
            return
        self._await_answer()
        if request:
            connection.send(request)
        if self._is_beginning and reading.is_begun:
            with self._collecting:
                self._begin(reading)

    def error(self, xid: int, kind: int, code: int, data: bytes) -> None:
        cookie = failed_cookie(data)
        if cookie is not None and cookie & MAGIC_MASK == MAGIC_VALUE:
            self._engine.rejected(cookie)
            self._warn(
                f"the switch refused rule 0x{cookie:016x}: error type {kind}, code {code}"
                " (OpenFlow 1.3.5 section 7.4.4)"
            )
        else:
            self._warn(f"the switch refused request {xid}: error type {kind}, code {code}")

    def collect(self, now_s: float) -> bytes:
        with self._collecting:
            self._check_answer(now_s)
            if not self._is_beginning:
                return self._drain(now_s) + self._ask_on(now_s)
            # What is for the switch is worked out anew from what it holds.
            self._drain(now_s)
            self._engine.switch_lost()
            return b""

    def disconnected(self) -> None:
        with self._collecting:
            self._connection = None
            self._reading = None
            self._is_beginning = False
            self._engine.switch_lost()
        LOG.warning("the switch is disconnected; its rules stay as they are until it is back")

    # -- inside ----------------------------------------------------------------------------------

    def _begin(self, reading: SwitchReadBack) -> None:
        """The switch has told what is needed to serve packets; the rest follows."""
        owner = found_owner(self._engine.pipeline, [rule for _, rule in reading.static])
        if owner not in (None, host_mark(self._engine.host)) and not self._may_replace:
            # Perhaps a mistake in a configuration: to take its ports for gone would cut them all off.
            self._datapath_id = None
            if self._on_foreign is not None:
                self._on_foreign()
            if self._connection is not None:
                self._connection.close()
            return
        self._is_beginning = False
        self._has_own_round = True
        self._meters = reading.meters
        self._metered.clear()
        self._adopting_since_s = self._clock()
        self._engine.switch_connected(reading.static, reading, reading.round_number)
        while self._kept:
            self._engine.packet_in(self._kept.popleft(), self._clock())

    def _ask_on(self, now_s: float) -> bytes:
        """Ask the switch for more of what it holds, as the engine gets on with it, and now and then
        what its meters have seen.
        """
        if now_s >= self._ask_meters_s and self._meters:
            self._ask_meters_s = now_s + METERS_S
            return meter_stats_request(_METERS_XID)
        if self._reading is None:
            return b""
        if self._reading.is_complete:
            self._reading = None
            return b""
        request = self._reading.more()
        if request:
            self._await_answer()
        return request

    def _await_answer(self) -> None:
        """The switch has this long to say the next thing."""
        self._reading_until_s = self._clock() + READ_BACK_TIMEOUT_S

    def _check_answer(self, now_s: float) -> None:
        reading = self._reading
        if reading is not None and reading.is_awaiting and now_s > self._reading_until_s:
            self._give_up_reading(
                f"the switch did not tell its rules within {READ_BACK_TIMEOUT_S:g} s"
            )

    def _give_up_reading(self, reason: str) -> None:
        """The switch will connect again, and is asked again."""
        self._warn(f"{reason}; it is asked again on a new connection")
        if self._connection is not None:
            self._connection.close()

    def _tell_adopted(self, now_s: float) -> None:
        if self._adopting_since_s is None or self._engine.is_adopting:
            return
        seconds, self._adopting_since_s = now_s - self._adopting_since_s, None
        count = self._engine.counters.of
        LOG.info(
            "rules found in the switch since the start: %d kept, %d replaced, %d deleted;"
            " the last ones took %.2f s",
            count("adopted.kept"),
            count("adopted.replaced"),
            count("adopted.deleted"),
            seconds,
        )

    def _drain(self, now_s: float) -> bytes:
        engine = self._engine
        mailbox = self._mailbox
        while mailbox:
            self._handle(mailbox.popleft(), now_s)
        engine.tick(now_s)
        engine.work(now_s)
        self._tell_adopted(now_s)
        if engine.has_work and self._connection is not None:
            self._connection.wake()
        if not engine.has_effects:
            self._save()
            return b""
        out = b""
        for _ in range(MAX_FETCH_ROUNDS):
            effects = engine.take()
            for sentence in effects.warnings:
                self._warn(sentence)
            out += self._encode(effects)
            self._save()
            if not effects.requests:
                break
            self._run_requests(effects)
        return out

    def _save(self) -> None:
        """Write down what is held, before the switch hears of rules that rest on it."""
        saved = self._saved
        if saved is not None:
            saved.append(self._engine.cache.take_writes())
            if not saved.is_saving:
                self._engine.cache.stop_saving()
                self._saved = None

    def _handle(self, event: MailboxEvent, now_s: float) -> None:
        engine = self._engine
        match event:
            case Lookup():
                engine.fetched(event, now_s)
            case PortSeen():
                engine.port_plugged(event.iface_id, event.ofport, now_s)
            case PortGone():
                engine.port_unplugged(event.iface_id, now_s)
            case TunnelSeen():
                engine.tunnel_plugged(event.ofport)
            case TunnelGone():
                engine.tunnel_plugged(0)
            case InterfacesTold():
                engine.interfaces_known(now_s)
            case StoreIs():
                engine.store_is(event.identity)
            case SourceState():
                self._source_log.tell(event.error, now_s)
                engine.slice_event(event, now_s)
            case _:
                engine.slice_event(event, now_s)

    def _run_requests(self, effects: Effects) -> None:
        link = self._link
        fetches: list[Fetch] = []
        for request in effects.requests:
            if isinstance(request, Fetch) and link.is_local:
                fetches.append(request)
            else:
                link.ask(request)
        if fetches:
            now_s = self._clock()
            for lookup in link.fetch(fetches):
                self._engine.fetched(lookup, now_s)

    def _encode(self, effects: Effects) -> bytes:
        self._generation = generation = self._generation % 0xFFFF + 1
        try:
            return encode_effects(effects, self._encoder, self._meters, generation)
        except EncodeError as error:
            # One frame too large for a packet-out must not cost the rules beside it.
            self._warn(f"not sent: {error}")
            effects.packet_outs.clear()
            return encode_effects(effects, self._encoder, self._meters)

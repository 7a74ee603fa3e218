"""A switch that really runs packets through installed rules, without OpenFlow and without a kernel.

It takes the engine's effects and gives back what a real bridge would: frames at ports and tunnels,
rewritten byte for byte, packet-ins with registers and conntrack state, flow-removed messages. Where
it had to be told how Open vSwitch behaves, the behaviour was observed on Open vSwitch 3.1 with the
userspace datapath; tests/system compares the two. Nothing in it is random, and time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ondemand.messages import Effects, FlowRemoved, SetMeter
from rule_cache.fields import Field
from rule_cache.rule import Meter, Rule
from tests.support.fake_conntrack import Conntrack
from tests.support.fake_flow import Fields
from tests.support.fake_fragments import Reassembly
from tests.support.fake_meter import FakeMeter
from tests.support.fake_outcomes import (
    Applied,
    Delivered,
    Dropped,
    Held,
    Outcome,
    Tunnelled,
    packet_in_fields,
)
from tests.support.fake_run import Packet, Run
from tests.support.fake_table import (
    AmbiguousMatchError,
    FakeTable,
    FlowLimit,
    Installed,
    RuleRefusedError,
)

__all__ = [
    "MESSAGES",
    "AmbiguousMatchError",
    "Applied",
    "Delivered",
    "Dropped",
    "FakeSwitch",
    "FlowLimit",
    "Held",
    "Outcome",
    "Tunnelled",
    "packet_in_fields",
]

#: Reasons of flow-removed: OpenFlow 1.3.5 section 7.4.2; eviction: OpenFlow 1.4 section 7.4.2.
IDLE, HARD, DELETE, EVICTION = 0, 1, 2, 5

#: Fields of Effects that are messages to the switch, in the order of sending.
MESSAGES: Final = (
    "deletes",
    "flush_zones",
    "meters",
    "adds",
    "packet_outs",
    "after_barrier",
    "late_deletes",
)


class FakeSwitch:
    """One bridge.

    Attributes:
        now_s: the latest time that any call named; calls without a time happen then.
        refuse: when set, rules for which it returns true are answered with an error.
        cut_after: when set, only so many messages of the next batch arrive; it is then unset.
        path: the rules that the last packet met, in ovs-ofctl text.
    """

    def __init__(
        self,
        ports: Iterable[int],
        *,
        tunnel_ports: Mapping[int, int] | None = None,
        first_table: int = 0,
        limits: Mapping[int, FlowLimit] | None = None,
        enforce_meters: bool = False,
    ) -> None:
        """A switch without rules.

        Args:
            ports: OpenFlow numbers of the local ports.
            tunnel_ports: address family of the underlay (4 or 6) to the number of its tunnel port.
            first_table: number of the table at which packets begin.
            limits: table number to its bound; other tables have none.
            enforce_meters: drop what exceeds a meter; otherwise meters only count.
        """
        self.now_s = 0.0
        self.refuse: Callable[[int, Rule], bool] | None = None
        self.cut_after: int | None = None
        self.path: list[str] = []
        self.conntrack = Conntrack()
        self.reassembly = Reassembly()
        self.meters: dict[int, FakeMeter] = {}
        self._tunnel_ports = dict(tunnel_ports or {})
        self._ports = {*ports, *self._tunnel_ports.values()}
        self._first_table = first_table
        self._limits = dict(limits or {})
        self._enforce_meters = enforce_meters
        self._tables: dict[int, FakeTable] = {}
        self._by_cookie: dict[int, list[Installed]] = {}

    # -- ports -----------------------------------------------------------------------------------

    def add_port(self, ofport: int) -> None:
        self._ports.add(ofport)

    def remove_port(self, ofport: int) -> None:
        """Unplug a port. Its rules stay, as in a real switch."""
        self._ports.discard(ofport)

    def has_port(self, ofport: int) -> bool:
        return ofport in self._ports

    def is_tunnel(self, ofport: int) -> bool:
        return ofport in self._tunnel_ports.values()

    # -- rules -----------------------------------------------------------------------------------

    def apply(self, effects: Effects, now_s: float | None = None) -> Applied:
        """Do what ``effects`` ask of a switch, in the order that it documents."""
        self._advance(now_s)
        outcomes: list[Outcome] = []
        removed: list[FlowRemoved] = []
        refused: list[tuple[int, str]] = []
        messages = [(name, message) for name in MESSAGES for message in getattr(effects, name)]
        count = len(messages) if self.cut_after is None else min(self.cut_after, len(messages))
        self.cut_after = None
        for name, message in messages[:count]:
            if name in {"deletes", "late_deletes"}:
                removed += self._delete(message)
            elif name == "flush_zones":
                self.conntrack.flush(message)
            elif name == "meters":
                removed += self._set_meter(message)
            elif name == "packet_outs":
                in_port, tun_id, frame = message
                outcomes += self.packet_out(in_port, frame, tun_id=tun_id)
            else:
                cookie, rule = message
                try:
                    removed += self._add(cookie, rule)
                except RuleRefusedError as error:
                    refused.append((cookie, str(error)))
        return Applied(tuple(outcomes), tuple(removed), tuple(refused), len(messages) - count)

    def expire(self, now_s: float) -> list[FlowRemoved]:
        """Let time pass: rules whose idle or hard timeout is over leave, and are reported."""
        self._advance(now_s)
        gone = []
        for installed in list(self._all()):
            if installed.expires_s <= self.now_s:
                hard = installed.rule.hard_timeout
                is_hard = hard and installed.created_s + hard <= self.now_s
                self._remove(installed)
                gone.append(_flow_removed(installed, HARD if is_hard else IDLE))
        return gone

    def clear(self) -> None:
        """Lose everything, as when ovs-vswitchd starts anew."""
        self._tables.clear()
        self._by_cookie.clear()
        self.meters.clear()
        self.conntrack.clear()
        self.reassembly.clear()

    def rules(self) -> list[tuple[int, Rule]]:
        """(cookie, rule) of all rules, by table, the oldest first."""
        return [(installed.cookie, installed.rule) for installed in self._all()]

    def rules_in(self, table: int) -> list[tuple[int, Rule]]:
        """(cookie, rule) of the rules of one table, the oldest first."""
        installed_in = self._tables.get(table, ())
        return [(installed.cookie, installed.rule) for installed in installed_in]

    def packets(self, cookie: int) -> int:
        """How many packets met the rules with this cookie."""
        return sum(installed.packets for installed in self._by_cookie.get(cookie, ()))

    def dump(self) -> list[str]:
        """All rules in ovs-ofctl text, sorted."""
        return sorted(map(str, self._all()))

    # -- packets ---------------------------------------------------------------------------------

    def inject(self, ofport: int, frame: bytes, now_s: float | None = None) -> list[Outcome]:
        """A frame arrives at a port."""
        if ofport not in self._ports:
            raise ValueError(f"port {ofport} is not in the switch: add_port it first")
        return self._run(ofport, frame, {}, now_s)

    def inject_tunnel(
        self, vni: int, frame: bytes, tun_src: bytes, now_s: float | None = None
    ) -> list[Outcome]:
        """A frame arrives from the host ``tun_src`` (4 or 16 bytes); without a tunnel port it is lost."""
        family = 4 if len(tun_src) == 4 else 6
        if self._tunnel_ports[family] not in self._ports:
            return []
        metadata: Fields = {Field.TUN_ID: vni}
        if family == 4:
            metadata[Field.TUN_SRC] = int.from_bytes(tun_src, "big")
        return self._run(self._tunnel_ports[family], frame, metadata, now_s)

    def packet_out(
        self, in_port: int, frame: bytes, now_s: float | None = None, *, tun_id: int = 0
    ) -> list[Outcome]:
        """The controller sends a frame through the pipeline as if it came from ``in_port``.

        The port may be gone by now; what the rules make of that is theirs.
        """
        return self._run(in_port, frame, {Field.TUN_ID: tun_id} if tun_id else {}, now_s)

    # -- for Run ---------------------------------------------------------------------------------

    def lookup(self, table: int, fields: Fields) -> Installed | None:
        found = self._tables.get(table)
        return None if found is None else found.lookup(fields)

    def meter_passes(self, meter: int) -> bool:
        if meter not in self.meters:
            return True
        passes = self.meters[meter].count(self.now_s)
        return passes or not self._enforce_meters

    # -- inside ----------------------------------------------------------------------------------

    def _run(
        self, in_port: int, frame: bytes, metadata: Fields, now_s: float | None
    ) -> list[Outcome]:
        self._advance(now_s)
        run = Run(self)
        run.table(self._first_table, Packet.arrive(frame, in_port, metadata))
        self.path = run.path
        return run.outcomes

    def _advance(self, now_s: float | None) -> None:
        if now_s is not None:
            if now_s < self.now_s:
                raise ValueError(f"now_s {now_s} is before {self.now_s}: time only goes on")
            self.now_s = now_s

    def _all(self) -> list[Installed]:
        return [installed for number in sorted(self._tables) for installed in self._tables[number]]

    def _add(self, cookie: int, rule: Rule) -> list[FlowRemoved]:
        if self.refuse is not None and self.refuse(cookie, rule):
            raise RuleRefusedError(f"{rule}: refused by the test")
        installed = Installed(cookie, rule, self.now_s)
        for action in rule.shape.actions:
            if isinstance(action, Meter):
                meter = installed.value_of(action.meter)
                if meter and meter not in self.meters:
                    raise RuleRefusedError(f"{installed}: there is no meter {meter}")
        number = rule.shape.table
        table = self._tables.setdefault(number, FakeTable(self._limits.get(number)))
        replaced, evicted = table.add(installed)
        self._by_cookie.setdefault(cookie, []).append(installed)
        if replaced is not None:
            # The counters go on; nobody is told of the old rule's end.
            installed.packets = replaced.packets
            self._forget_cookie(replaced)
        if evicted is None:
            return []
        self._forget_cookie(evicted)
        return [_flow_removed(evicted, EVICTION)]

    def _delete(self, cookie: int) -> list[FlowRemoved]:
        gone = list(self._by_cookie.get(cookie, ()))
        for installed in gone:
            self._remove(installed)
        return [_flow_removed(installed, DELETE) for installed in gone if installed.has_timeout]

    def _set_meter(self, message: SetMeter) -> list[FlowRemoved]:
        if message.rate:
            self.meters[message.meter] = FakeMeter(message.rate, message.burst, self.now_s)
            return []
        self.meters.pop(message.meter, None)
        gone = []
        for installed in self._all():  # a meter's rules go with it (OpenFlow 1.3.5 section 6.5)
            actions = installed.rule.shape.actions
            metered = [action for action in actions if isinstance(action, Meter)]
            if message.meter in [installed.value_of(action.meter) for action in metered]:
                self._remove(installed)
                gone.append(installed)
        return [_flow_removed(installed, DELETE) for installed in gone if installed.has_timeout]

    def _remove(self, installed: Installed) -> None:
        self._tables[installed.rule.shape.table].remove(installed)
        self._forget_cookie(installed)

    def _forget_cookie(self, installed: Installed) -> None:
        others = [other for other in self._by_cookie[installed.cookie] if other is not installed]
        if others:
            self._by_cookie[installed.cookie] = others
        else:
            del self._by_cookie[installed.cookie]


def _flow_removed(installed: Installed, reason: int) -> FlowRemoved:
    return FlowRemoved(installed.cookie, installed.rule.shape.table, reason)

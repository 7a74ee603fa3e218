"""The model's traffic through the model's switch, with the agent's own engine behind it.

Which rules a packet needs is not known here. It is known which tables it passes and what it looks up there
(docs/pipeline.md); a lookup without a rule is a packet-in to the engine, whose answer goes into the switch, and
then the packet has to meet it: if it does not, the run fails. A packet of a flow passes

* RESPONDER, before it, if the VM has to ask for the MAC of its next hop;
* EGRESS_VERDICT or INGRESS_VERDICT, if conntrack does not know its connection;
* LOCATION, on its way from the VM, as the answer to a packet that came in.

The engine answers without delay, and what it asks the source for is there at once.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.traffic_model import UDP, Burst, Flow, Kind, Traffic
from benchmarks.traffic_packets import packet_in
from benchmarks.traffic_switch import SwitchModel, SwitchModelError
from benchmarks.traffic_vpc import NEAR_VNI, TUNNEL_PORT, TrafficVpc, new_engine, port_id
from ondemand.pipeline import L4, Table
from ondemand.records import Direction
from ondemand.settings import Settings
from rule_cache.rule import RuleKey

#: How long conntrack keeps a UDP connection that has been answered: Open vSwitch's default. TCP connections
#: that stay open are kept for a day.
UDP_KEPT_S: Final = 30.0
#: A Linux guest that has not heard of a next hop for so long asks again (gc_stale_time in arp(7)).
GUEST_KEEPS_S: Final = 60.0
#: Conntrack does not know a flow: no packet of it came yet, or none was let in.
_NEVER_S: Final = -1.0
_DENIED_S: Final = -2.0
#: Told of each packet that looks up rules: when, and which.
Needs = Callable[[float, tuple[RuleKey, ...]], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run counted.

    Attributes:
        packets, flows: that there were; questions by ARP are packets too.
        packet_ins: by kind of flow.
        packet_ins_by_table: by the table that missed.
        peak_second: packet-ins of the second with the most of them, and of all flows but the scan.
        requests: bursts and questions, each of which is at most one packet-in.
        flows_hit: flows whose first packet made no packet-in, nor the question before it.
        alive_mean: on-demand rules, averaged over time; ``alive_by_table`` of one table.
        alive_end: those that are left, ``ledger_end`` of the engine's own count.
        static: rules that were always there.
        removed: by reason of flow-removed.
        evicted: rules that went because a bound was reached.
    """

    packets: int
    flows: int
    packet_ins: dict[Kind, int]
    packet_ins_by_table: dict[str, int]
    peak_second: int
    peak_second_unscanned: int
    requests: int
    flows_hit: int
    alive_mean: float
    alive_peak: int
    alive_by_table: dict[str, float]
    alive_end: int
    ledger_end: int
    static: int
    removed: dict[int, int]
    evicted: int

    @property
    def total(self) -> int:
        """Packet-ins of all flows."""
        return sum(self.packet_ins.values())


class HostRun:
    """One host for one run."""

    def __init__(self, vpc: TrafficVpc, settings: Settings, *, needs: Needs | None = None) -> None:
        """``needs`` is told which rules each packet needed; a question is a packet of its own.

        Raises:
            SwitchModelError: the engine does not serve the VMs.
        """
        self.vpc = vpc
        self.engine = new_engine(settings)
        self.pipeline = self.engine.pipeline
        self.switch = SwitchModel(self.pipeline)
        self._needs = needs
        self._by_connection = settings.match_connection
        pipeline = self.pipeline
        allow = {
            direction: pipeline.verdict[direction, 4, L4.PORT, False, self._by_connection][0]
            for direction in Direction
        }
        self._egress_slot = allow[Direction.EGRESS].slot
        self._ingress_slot = allow[Direction.INGRESS].slot
        self._location_slot = pipeline.location_tunnel[4, 4, False].slot
        self._responder_slot = pipeline.arp_reply.slot
        self._egress_table = pipeline.number(Table.EGRESS_VERDICT)
        self._ingress_table = pipeline.number(Table.INGRESS_VERDICT)
        self._location_table = pipeline.number(Table.LOCATION)
        self._responder_table = pipeline.number(Table.RESPONDER)
        self._zones = self._start()
        self.switch.is_settled = True
        #: By VM and next hop: when the VM heard of it last.
        self._heard_s: dict[tuple[int, bytes], float] = {}
        #: By flow: when conntrack saw it last, or one of the two below.
        self._tracked_s = array("d")
        self._packet_ins: Counter[Kind] = Counter()
        self._by_table: Counter[int] = Counter()
        self._by_second: Counter[int] = Counter()
        self._scan_by_second: Counter[int] = Counter()
        self._packets = self._requests = self._flows = self._flows_hit = 0

    def run(self, traffic: Traffic) -> Outcome:
        """All of it, up to its end.

        Raises:
            SwitchModelError: something happened that the model has no place for.
        """
        self._tracked_s = array("d", [_NEVER_S]) * len(traffic.flows)
        second = 0
        for burst in traffic.bursts:
            if burst.time_s >= second:
                self.engine.tick(burst.time_s)
                self._serve(burst.time_s)
                second = int(burst.time_s) + 1
            self._burst(burst, traffic.flows[burst.flow])
        end_s = traffic.parameters.duration_s
        self._age(end_s)
        return self._outcome(end_s)

    # -- a packet --------------------------------------------------------------------------------

    def _burst(self, burst: Burst, flow: Flow) -> None:
        now_s, number, packets = burst
        self._age(now_s)
        misses = self._ask_for_next_hop(flow, now_s)
        tracked_s = self._tracked_s[number]
        keys, tables = self._lookups(flow, now_s, tracked_s)
        missed = self._pass(keys, tables, flow, now_s)
        self._packets += packets
        if tracked_s == _NEVER_S:
            self._flows += 1
            self._flows_hit += not (missed or misses)
        self._tracked_s[number] = now_s if self._is_allowed(keys) else _DENIED_S

    def _lookups(
        self, flow: Flow, now_s: float, tracked_s: float
    ) -> tuple[tuple[RuleKey, ...], tuple[int, ...]]:
        """What the packet, or the answer to it, looks up, in order, and in which tables."""
        remote = self.vpc.ip(flow.remote)
        _, mac = self.vpc.next_hop(flow.remote)
        location = (self._location_slot, (NEAR_VNI, mac, remote))
        if tracked_s >= 0 and (flow.protocol != UDP or now_s - tracked_s <= UDP_KEPT_S):
            return (location,), (self._location_table,)
        zone = self._zones[flow.vm]
        served = flow.local_port if flow.incoming else flow.remote_port
        values: tuple[int | bytes, ...] = (zone, remote, flow.protocol, served)
        if self._by_connection:
            opened_from = flow.remote_port if flow.incoming else flow.local_port
            values = (*values, self.vpc.vm_ip(flow.vm), opened_from)
        if flow.incoming:
            verdict = (self._ingress_slot, values)
            return (verdict, location), (self._ingress_table, self._location_table)
        return ((self._egress_slot, values), location), (self._egress_table, self._location_table)

    def _pass(
        self, keys: tuple[RuleKey, ...], tables: tuple[int, ...], flow: Flow, now_s: float
    ) -> bool:
        """Go through the tables; whether there was a packet-in."""
        use = self.switch.use
        missed = False
        needed = 0
        while needed < len(keys):
            held = use(keys[needed], now_s)
            if held is None:
                if missed:
                    raise SwitchModelError(
                        f"the engine's answer to a packet-in left no rule for {keys[needed]}, which"
                        f" table {tables[needed]} needs; this model and the pipeline differ"
                    )
                missed = True
                self._packet_in(tables[needed], flow, now_s)
                needed = 0
                continue
            needed += 1
            if not held.rule.shape.actions:
                break  # dropped
        self._requests += 1
        if self._needs is not None:
            self._needs(now_s, keys[:needed])
        return missed

    def _is_allowed(self, keys: tuple[RuleKey, ...]) -> bool:
        """Whether conntrack has the connection now: the verdict, if there was one, let it in."""
        return len(keys) == 1 or bool(self.switch.rules[keys[0]].rule.shape.actions)

    def _ask_for_next_hop(self, flow: Flow, now_s: float) -> bool:
        """By ARP, if the VM has not heard of it for long; whether there was a packet-in."""
        if flow.kind is Kind.CLOSED:
            return False  # what is dropped before it comes to the VM needs no answer
        next_hop, _ = self.vpc.next_hop(flow.remote)
        place = flow.vm, next_hop
        heard_s = self._heard_s.get(place)
        self._heard_s[place] = now_s
        if heard_s is not None and now_s - heard_s <= GUEST_KEEPS_S:
            return False
        self._packets += 1
        key = (self._responder_slot, (self._zones[flow.vm], next_hop))
        return self._pass((key,), (self._responder_table,), flow, now_s)

    def _packet_in(self, table: int, flow: Flow, now_s: float) -> None:
        self._packet_ins[flow.kind] += 1
        self._by_table[table] += 1
        by_second = self._scan_by_second if flow.kind is Kind.SCAN else self._by_second
        by_second[int(now_s)] += 1
        message = packet_in(self.vpc, Table(table), flow, self._zones[flow.vm])
        self.engine.packet_in(message, now_s)
        self._serve(now_s)

    # -- the engine ------------------------------------------------------------------------------

    def _start(self) -> Sequence[int]:
        """Bring the engine up with all VMs plugged in: their zones."""
        engine, vms = self.engine, self.vpc.parameters.vms
        engine.start()
        engine.switch_connected()
        engine.tunnel_plugged(TUNNEL_PORT)
        self._serve(0.0)
        for vm in range(vms):
            engine.port_plugged(port_id(vm), vm + 1, 0.0)
            self._serve(0.0)
        engine.interfaces_known(0.0)
        for _ in range(vms + 1000):
            engine.work(0.0)
            self._serve(0.0)
            if not engine.is_adopting:
                break
        missing = [vm for vm in range(vms) if port_id(vm) not in engine.world.ports]
        if engine.is_adopting or missing:
            raise SwitchModelError(f"the engine does not serve VMs {missing}")
        return [engine.world.ports[port_id(vm)].zone for vm in range(vms)]

    def _serve(self, now_s: float) -> None:
        """Take what the engine sends and answer what it asks, until it is still."""
        engine = self.engine
        while engine.has_effects:
            effects = engine.take()
            if effects.warnings:
                raise SwitchModelError(f"the engine warns: {effects.warnings[0]}")
            self.switch.apply(effects, now_s)
            self.vpc.answer(engine, effects, now_s)

    def _age(self, now_s: float) -> None:
        for told in self.switch.age(now_s):
            self.engine.flow_removed(told)

    def _outcome(self, end_s: float) -> Outcome:
        switch, names = self.switch, {int(self.pipeline.number(t)): t.name for t in Table}
        both = self._by_second + self._scan_by_second
        return Outcome(
            packets=self._packets,
            flows=self._flows,
            packet_ins={kind: self._packet_ins[kind] for kind in Kind},
            packet_ins_by_table={names[table]: n for table, n in sorted(self._by_table.items())},
            peak_second=max(both.values(), default=0),
            peak_second_unscanned=max(self._by_second.values(), default=0),
            requests=self._requests,
            flows_hit=self._flows_hit,
            alive_mean=switch.alive_s(end_s) / end_s,
            alive_peak=switch.peak,
            alive_by_table={
                names[table]: switch.alive_s(end_s, (table,)) / end_s
                for table in (
                    self._responder_table,
                    self._egress_table,
                    self._location_table,
                    self._ingress_table,
                )
            },
            alive_end=len(switch.rules),
            ledger_end=self.engine.ledger_size,
            static=len(switch.static),
            removed=dict(switch.removed),
            evicted=sum(self.engine.evicted_by_port().values()),
        )


__all__ = ["GUEST_KEEPS_S", "UDP_KEPT_S", "HostRun", "Needs", "Outcome"]

"""The benchmark ``traffic`` says which tables a packet passes; a switch that runs packets through them agrees.

The same small traffic goes through the benchmark's model, which knows rules only, and as real frames through the
fake switch with its conntrack. Both have the same packet-ins and hold the same rules in the end.
"""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.traffic_model import TCP, UDP, Burst, Flow, Kind, Traffic, generate
from benchmarks.traffic_parameters import Parameters
from benchmarks.traffic_run import GUEST_KEEPS_S, HostRun
from benchmarks.traffic_vpc import NEAR_VNI, TUNNEL_PORT, TrafficVpc, new_engine, port_id
from ondemand.messages import Effects, PacketIn
from ondemand.pipeline import Table
from ondemand.settings import Settings
from tests.support.fake_outcomes import Delivered, Outcome, Tunnelled
from tests.support.fake_switch import FakeSwitch
from tests.support.frame_builder import build_arp, build_tcp4, build_udp4
from tests.support.packet_parts import ACK, SYN

ELSEWHERE = bytes((198, 18, 0, 9))
SMALL = Parameters(
    duration_s=100.0,
    vms=2,
    neighbors=300,
    same_subnet=100,
    talking_share=0.5,
    services=40,
    flows_per_vm_s=1.5,
    closed_share=0.1,
    kept_connections=5,
    scan_rate=4.0,
)


class RealPackets:
    """The agent behind a switch that looks at frames."""

    def __init__(self, vpc: TrafficVpc, settings: Settings) -> None:
        self.vpc = vpc
        self.engine = new_engine(settings)
        self.switch = FakeSwitch((), tunnel_ports={4: TUNNEL_PORT, 6: TUNNEL_PORT})
        self.packet_ins: Counter[str] = Counter()
        self.engine.start()
        self.engine.switch_connected()
        self.engine.tunnel_plugged(TUNNEL_PORT)
        self._serve(0.0)
        for vm in range(vpc.parameters.vms):
            self.switch.add_port(vm + 1)
            self.engine.port_plugged(port_id(vm), vm + 1, 0.0)
            self._serve(0.0)
        self.engine.interfaces_known(0.0)
        while self.engine.is_adopting:
            self.engine.work(0.0)
            self._serve(0.0)
        self._heard_s: dict[tuple[int, bytes], float] = {}
        self._open: set[int] = set()

    def run(self, traffic: Traffic) -> None:
        for burst in traffic.bursts:
            flow = traffic.flows[burst.flow]
            self._expire(burst.time_s)
            self._ask(flow, burst.time_s)
            self._exchange(burst, flow)
        self._expire(traffic.parameters.duration_s)

    def rules(self) -> set[str]:
        return {
            str(rule) for _, rule in self.switch.rules() if rule.idle_timeout or rule.hard_timeout
        }

    def _exchange(self, burst: Burst, flow: Flow) -> None:
        """A packet and its answer; a TCP connection begins with the three of its handshake."""
        is_new = burst.flow not in self._open
        flags = (SYN, SYN | ACK, ACK) if is_new else (ACK, ACK)
        outgoing = not flow.incoming
        for one in flags if flow.protocol == TCP else (0, 0):
            if not self._send(flow, burst.time_s, outgoing=outgoing, flags=one):
                return
            outgoing = not outgoing
            if flow.remote >= self.vpc.parameters.neighbors:
                return
        self._open.add(burst.flow)

    def _send(self, flow: Flow, now_s: float, *, outgoing: bool, flags: int) -> bool:
        """One packet; whether it came to its end."""
        _, mac = self.vpc.next_hop(flow.remote)
        here = (self.vpc.vm_mac(flow.vm), self.vpc.vm_ip(flow.vm), flow.local_port)
        there = (mac, self.vpc.ip(flow.remote), flow.remote_port)
        source, target = (here, there) if outgoing else (there, here)
        place = {
            "eth_src": source[0],
            "src": source[1],
            "tp_src": source[2],
            "eth_dst": target[0],
            "dst": target[1],
            "tp_dst": target[2],
        }
        frame = build_udp4(**place) if flow.protocol == UDP else build_tcp4(**place, flags=flags)
        if outgoing:
            outcomes = self._answered(self.switch.inject(flow.vm + 1, frame, now_s), now_s)
            return any(isinstance(one, Tunnelled) for one in outcomes)
        outcomes = self.switch.inject_tunnel(NEAR_VNI, frame, ELSEWHERE, now_s)
        return any(isinstance(one, Delivered) for one in self._answered(outcomes, now_s))

    def _ask(self, flow: Flow, now_s: float) -> None:
        if flow.kind is Kind.CLOSED:
            return
        next_hop, _ = self.vpc.next_hop(flow.remote)
        heard_s = self._heard_s.get((flow.vm, next_hop))
        self._heard_s[flow.vm, next_hop] = now_s
        if heard_s is None or now_s - heard_s > GUEST_KEEPS_S:
            mac, ip = self.vpc.vm_mac(flow.vm), self.vpc.vm_ip(flow.vm)
            frame = build_arp(sha=mac, spa=ip, tpa=next_hop)
            outcomes = self._answered(self.switch.inject(flow.vm + 1, frame, now_s), now_s)
            assert any(isinstance(one, Delivered) for one in outcomes)

    def _answered(self, outcomes: list[Outcome], now_s: float) -> list[Outcome]:
        """What becomes of a packet when all packet-ins are answered."""
        found: list[Outcome] = []
        todo = list(outcomes)
        while todo:
            one = todo.pop(0)
            if isinstance(one, PacketIn):
                self.packet_ins[Table(one.table).name] += 1
                self.engine.packet_in(one, now_s)
                todo += self._serve(now_s)
            else:
                found.append(one)
        return found

    def _serve(self, now_s: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while self.engine.has_effects:
            effects: Effects = self.engine.take()
            applied = self.switch.apply(effects, now_s)
            outcomes += applied.outcomes
            assert not applied.refused
            self.vpc.answer(self.engine, effects, now_s)
        return outcomes

    def _expire(self, now_s: float) -> None:
        for removed in self.switch.expire(now_s):
            self.engine.flow_removed(removed)


@pytest.mark.parametrize("match_connection", [False, True])
@pytest.mark.parametrize("idle_s", [5, 40])
def test_model_has_the_packet_ins_of_real_packets(idle_s: int, match_connection: bool) -> None:
    traffic, vpc = generate(SMALL), TrafficVpc(SMALL)
    assert {one.kind for one in traffic.flows} == set(Kind)
    assert {one.protocol for one in traffic.flows} == {TCP, UDP}
    settings = Settings(
        verdict_idle_s=idle_s,
        location_idle_s=idle_s,
        responder_idle_s=idle_s,
        neighbor_idle_s=0,
        match_connection=match_connection,
    )
    run = HostRun(vpc, settings)
    outcome = run.run(traffic)
    real = RealPackets(vpc, settings)
    real.run(traffic)
    assert dict(real.packet_ins) == outcome.packet_ins_by_table
    assert real.rules() == {str(held.rule) for held in run.switch.rules.values()}
    assert outcome.packet_ins_by_table.keys() >= {"RESPONDER", "EGRESS_VERDICT", "INGRESS_VERDICT"}

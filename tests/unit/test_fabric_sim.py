"""Fake switches joined by tunnels."""

from collections.abc import Iterable
from typing import Any

import pytest

from ondemand.addresses import parse_ip
from ondemand.messages import Effects, Fetch, FlowRemoved, PacketIn, SourceRequest
from rule_cache.fields import Field
from rule_cache.rule import Action, Eq, Output, Rule, SetField, Shape, ToController
from tests.support.fabric_sim import Arrival, Endpoint, FabricSim, RunawayError
from tests.support.fake_switch import Dropped, FakeSwitch, Tunnelled
from tests.support.frame_builder import build_udp4

TUNNEL = 9
IPS = {"h1": parse_ip("192.0.2.1"), "h2": parse_ip("192.0.2.2")}
VM1, VM2 = Endpoint("h1", 1), Endpoint("h2", 1)
FRAME = build_udp4()


def rule(match: Iterable[Eq], *actions: Action, priority: int = 10, idle: int = 0) -> Rule:
    return Rule(Shape("sample", 0, priority, tuple(match), actions), (), idle)


def to_other(host: str) -> Rule:
    other = "h2" if host == "h1" else "h1"
    return rule(
        [Eq(Field.IN_PORT, 1)],
        SetField(Field.TUN_ID, 77),
        SetField(Field.TUN_DST, IPS[other]),
        Output(TUNNEL),
        idle=30,
    )


MISS = rule([], ToController(), priority=0)
FROM_TUNNEL = rule([Eq(Field.IN_PORT, TUNNEL), Eq(Field.TUN_ID, 77)], Output(1))


def fabric(**handlers: dict[str, Any]) -> FabricSim:
    sim = FabricSim()
    for name, tunnel_ip in IPS.items():
        switch = FakeSwitch([1], tunnel_ports={4: TUNNEL})
        sim.add_host(name, switch, tunnel_ip, **handlers.get(name, {}))
        sim.apply(name, Effects(adds=[(1, MISS), (2, FROM_TUNNEL)]))
    return sim


def learning(host: str) -> dict[str, Any]:
    """An agent that sends everything to the other host."""

    def on_packet_in(packet: PacketIn, now_s: float) -> Effects:
        return Effects(adds=[(100, to_other(host))], packet_outs=[(packet.in_port, 0, packet.data)])

    return {"on_packet_in": on_packet_in}


def test_a_first_packet_goes_by_its_agent_and_the_next_does_not() -> None:
    sim = fabric(h1=learning("h1"))
    moves = sim.send(VM1, FRAME)
    assert moves.arrivals == [Arrival(VM2, FRAME)]
    assert [host for host, _ in moves.packet_ins] == ["h1"]
    moves = sim.send(VM1, FRAME)
    assert (moves.arrivals, moves.packet_ins) == ([Arrival(VM2, FRAME)], [])


def test_vms_answer() -> None:
    sim = fabric(h1=learning("h1"), h2=learning("h2"))
    answer = build_udp4(payload=b"answer")
    sim.vms[VM2] = lambda frame: [answer] if frame == FRAME else []
    assert sim.send(VM1, FRAME).arrivals == [Arrival(VM2, FRAME), Arrival(VM1, answer)]


def test_without_an_agent_packet_ins_are_only_noted() -> None:
    moves = fabric().send(VM1, FRAME)
    assert [host for host, _ in moves.packet_ins] == ["h1"]
    assert moves.arrivals == []


def test_a_tunnel_to_nobody_loses_the_frame() -> None:
    sim = fabric()
    away = rule([Eq(Field.IN_PORT, 1)], SetField(Field.TUN_DST, bytes(3) + b"\1"), Output(TUNNEL))
    sim.apply("h1", Effects(adds=[(5, away)]))
    moves = sim.send(VM1, FRAME)
    assert moves.outcomes == [("h1", Tunnelled(0, bytes(3) + b"\1", FRAME))]


def test_expired_rules_are_told_to_their_agent() -> None:
    told: list[tuple[FlowRemoved, float]] = []
    handlers = learning("h1") | {"on_removed": lambda removed, now_s: told.append((removed, now_s))}
    sim = fabric(h1=handlers)
    sim.send(VM1, FRAME)
    assert sim.advance(29.0).removed == []
    removed = FlowRemoved(100, 0, 0)
    assert sim.advance(1.0).removed == [("h1", removed)]
    assert told == [(removed, 30.0)]


def test_requests_reach_the_source_and_its_answer_is_applied() -> None:
    asked: list[SourceRequest] = []

    def on_request(request: SourceRequest, now_s: float) -> Effects:
        asked.append(request)
        return Effects(adds=[(100, to_other("h1"))], packet_outs=[(1, 0, FRAME)])

    fetch = Fetch("nbr/vpc/10.0.0.0", "ip/10.0.0.11")
    handlers = {
        "on_packet_in": lambda packet, now_s: Effects(requests=[fetch], warnings=["waiting"]),
        "on_request": on_request,
    }
    moves = fabric(h1=handlers).send(VM1, FRAME)
    assert asked == [fetch]
    assert moves.warnings == [("h1", "waiting")]
    assert moves.arrivals == [Arrival(VM2, FRAME)]


def test_refused_rules_are_told_to_their_agent() -> None:
    refused: list[int] = []
    sim = fabric(h1={"on_refused": lambda cookie, now_s: refused.append(cookie)})
    sim.switch("h1").refuse = lambda cookie, _rule: cookie == 100
    moves = sim.apply("h1", Effects(adds=[(100, to_other("h1")), (101, FROM_TUNNEL)]))
    assert refused == [100]
    assert [(host, cookie) for host, cookie, _ in moves.refused] == [("h1", 100)]


def test_drops_are_noted_with_their_host() -> None:
    sim = fabric()
    sim.apply("h2", Effects(deletes=[1, 2]))
    sim.apply("h1", Effects(adds=[(100, to_other("h1"))]))
    assert sim.send(VM1, FRAME).drops == [("h2", Dropped(0, "no rule"))]


def test_what_never_ends_is_an_error() -> None:
    handlers = {"on_packet_in": lambda packet, now_s: Effects(packet_outs=[(1, 0, FRAME)])}
    with pytest.raises(RunawayError, match="still moving"):
        fabric(h1=handlers).send(VM1, FRAME)

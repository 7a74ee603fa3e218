"""How an agent reads a switch back: in which state it is, what it keeps, what it gives up."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest

from controller_app import agent as agent_module
from controller_app.agent import MAX_KEPT, READ_BACK_TIMEOUT_S, Agent
from controller_app.ovsdb_ports import InterfacesTold, PortGone, PortSeen
from controller_app.owner import OWNER_XID, is_owners
from controller_app.switch_read_back import SwitchReadBack
from ondemand.addresses import parse_ip
from ondemand.engine import Engine
from ondemand.messages import FlowRemoved, PacketIn
from ondemand.pipeline import Pipeline, Table
from ondemand.settings import Settings
from rule_cache.cookie import MAGIC_VALUE, ROUNDS, round_of
from tests.support.fault_source import FaultSource
from tests.support.fault_switch import (
    FLOW_MOD,
    METER_CONFIG,
    METER_MOD,
    MULTIPART_REQUEST,
    InstantLink,
    ScriptedSwitch,
    Session,
    count_reply,
    meters_reply,
)
from tests.support.flow_stats_bytes import reply
from tests.support.office_cloud import RED_VNI, office
from tests.support.packet_in_bytes import message
from tests.support.vm_frames import VmFrames
from tests.support.world_builder import HERE, TUNNELS

FOREIGN_METER = 900
PLUGGED = {"a": 10, "b": 12}
DELETE, METER_DELETE = 3, 2


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def make_agent(
    monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> Iterator[Callable[..., Agent]]:
    """Agents of one host, all with the same source, whose clock stands at 0."""
    monkeypatch.setattr(agent_module, "SourceLink", InstantLink)
    source = FaultSource(office().store())
    made: list[Agent] = []

    def make(*, round_number: int = 1, plugged: bool = True, told: bool = True) -> Agent:
        engine = Engine(
            host=HERE,
            tunnel_ip=parse_ip(TUNNELS[HERE]),
            settings=Settings(),
            round_number=round_number,
            first_epoch=1 + 1000 * len(made),
        )
        agent = Agent(engine, source, clock=lambda: 0.0, warn=warnings.append)
        if plugged:
            for port, ofport in PLUGGED.items():
                agent.post(PortSeen(port, f"tap-{port}", ofport, None))
        if told:
            agent.post(InterfacesTold("br-int"))
        agent.idle()
        made.append(agent)
        return agent

    yield make
    for agent in made:
        agent.close()


@pytest.fixture
def agent(make_agent: Callable[..., Agent]) -> Agent:
    return make_agent()


@pytest.fixture
def switch() -> ScriptedSwitch:
    return ScriptedSwitch()


def settled(agent: Agent, switch: ScriptedSwitch) -> Session:
    session = Session(agent, switch)
    session.read_all()
    assert not agent.status()["adopting"]
    return session


def question(zone: int, target: str = "b") -> PacketIn:
    """Port a asks for the MAC of another port."""
    frame = VmFrames(office(), 4).who_has("a", target)
    return PacketIn(table=Table.RESPONDER, in_port=10, data=frame, vni=RED_VNI, source_zone=zone)


def zone_of(agent: Agent, port: str = "a") -> int:
    return agent._engine.world.ports[port].zone


def agree(session: Session) -> None:
    """Agent and switch have the same rules under the same cookies."""
    installer = session.agent._engine.installer
    known = {entry.cookie for entry in installer.ledger}
    known |= {cookie for cookie, _ in installer.static_rules()}
    assert session.ours().keys() == known


def requests(session: Session, kind: int) -> list[bytes]:
    return [
        one
        for one in session.switch.sent(MULTIPART_REQUEST)
        if int.from_bytes(one[8:10], "big") == kind
    ]


# -- beginning -------------------------------------------------------------------------------------


def test_an_empty_switch_gets_what_its_ports_need(agent: Agent, switch: ScriptedSwitch) -> None:
    session = Session(agent, switch)
    assert not agent.status()["connected"]
    assert switch.sent(FLOW_MOD) == []
    session.read_all()
    assert agent.status()["connected"]
    assert set(agent.status()["ports"]) == PLUGGED.keys()
    assert switch.meters == {zone_of(agent, "a"), zone_of(agent, "b")}
    agree(session)


def test_packet_ins_wait_until_it_has_begun(
    make_agent: Callable[..., Agent], switch: ScriptedSwitch
) -> None:
    former = make_agent()
    settled(former, switch)
    zone = zone_of(former)
    agent = make_agent(round_number=2)
    session = Session(agent, switch)
    for target in ("b", "a2"):
        agent.packet_in(question(zone, target))
    session.write()
    assert switch.sent(13) == []
    assert agent.status()["on_demand_rules"] == 0
    session.read_all()
    assert agent.status()["on_demand_rules"] == 2
    assert [one[-42:] for one in switch.sent(13)] == [
        question(zone, target).data[-42:] for target in ("b", "a2")
    ]
    agree(session)


def test_of_very_many_packet_ins_the_first_are_kept_and_the_others_counted(
    agent: Agent, switch: ScriptedSwitch
) -> None:
    session = settled(agent, switch)
    zone = zone_of(agent)
    agent.disconnected()
    session = Session(agent, switch)
    for _ in range(MAX_KEPT):
        agent.packet_in(question(zone, "a2"))
    agent.packet_in(question(zone, "b"))
    session.read_all()
    targets = {entry.rule.value_of("target") for entry in agent._engine.installer.ledger}
    assert targets == {parse_ip("10.0.1.11")}
    assert agent._engine.counters.of("packet_in.too_early") == 1


def test_an_answer_in_parts_counts_when_the_last_is_here(
    agent: Agent, switch: ScriptedSwitch
) -> None:
    session = Session(agent, switch)
    replies, session.replies = session.replies, []
    for one in replies[:-1]:
        agent.statistics(one)
    xid = int.from_bytes(replies[-1][4:8], "big")
    agent.statistics(reply([], more=True, xid=xid))
    session.write()
    assert not agent.status()["connected"]
    agent.statistics(reply([], xid=xid))
    session.write()
    assert agent.status()["connected"]


def test_an_answer_that_nobody_waits_for_changes_nothing(
    agent: Agent, switch: ScriptedSwitch, warnings: list[str]
) -> None:
    """Of an earlier read-back, or one that comes twice."""
    session = Session(agent, switch)
    replies = list(session.replies)
    agent.statistics(meters_reply([1, 2, 3], xid=OWNER_XID + 0xFFF))
    for one in replies:
        agent.statistics(one)
        agent.statistics(one)
    session.replies = []
    session.read_all()
    for one in replies:
        agent.statistics(one)
    session.read_all()
    agree(session)
    assert agent._meters == {zone_of(agent, "a"), zone_of(agent, "b")}
    assert warnings == []
    assert not session.connection.is_closed


def test_all_that_it_asks_has_a_xid_of_its_own(agent: Agent, switch: ScriptedSwitch) -> None:
    session = settled(agent, switch)
    xids = [int.from_bytes(one[4:8], "big") for one in switch.sent(MULTIPART_REQUEST)]
    assert len(set(xids)) == len(xids)
    assert all(map(is_owners, xids))
    assert len(requests(session, METER_CONFIG)) == 1


# -- it ends in between ----------------------------------------------------------------------------


@pytest.mark.parametrize("answers", range(0, 30, 3))
def test_a_connection_that_ends_in_the_middle_leaves_nothing_behind(
    make_agent: Callable[..., Agent], switch: ScriptedSwitch, answers: int
) -> None:
    former = make_agent()
    session = settled(former, switch)
    former.packet_in(question(zone_of(former)))
    session.read_all()
    (old,) = [entry.cookie for entry in former._engine.installer.ledger]
    agent = make_agent(round_number=2)
    session = Session(agent, switch)
    agent.packet_in(question(zone_of(former), "a2"))
    for _ in range(answers):
        session.read(1)
    agent.disconnected()
    assert not agent.status()["connected"]
    assert not agent.status()["adopting"]
    assert agent.status()["on_demand_rules"] == 0
    agent.idle()
    session = settled(agent, switch)
    agree(session)
    assert agent._engine.installer.ledger.get(old) is not None


def test_answers_after_the_end_are_ignored(agent: Agent, switch: ScriptedSwitch) -> None:
    session = Session(agent, switch)
    replies = list(session.replies)
    agent.disconnected()
    for one in replies:
        agent.statistics(one)
    assert not agent.status()["connected"]
    agree(settled(agent, switch))


def test_what_happens_in_between_counts(agent: Agent, switch: ScriptedSwitch) -> None:
    """A port goes while the switch tells what it holds: its rules and its meter go too."""
    settled(agent, switch)
    zone = zone_of(agent, "b")
    agent.disconnected()
    session = Session(agent, switch)
    agent.post(PortGone("b", "tap-b"))
    session.write()
    session.read_all()
    assert agent.status()["ports"] == ["a"]
    assert switch.meters == {zone_of(agent, "a")} != {zone}
    agree(session)


# -- malformed, late -------------------------------------------------------------------------------


def malformed(kind: str, xid: int) -> bytes:
    good = reply([], xid=xid)
    if kind == "short":
        return good[:12]
    if kind == "entry cut":
        return reply([bytes(64)], xid=xid)
    if kind == "rest":
        return reply([bytes(8)], xid=xid)
    if kind == "meter of 0 bytes":
        return message(19, struct.pack(">HH4x", METER_CONFIG, 0) + bytes(8), xid=xid)
    if kind == "meter cut":
        return message(19, struct.pack(">HH4x", METER_CONFIG, 0) + bytes(5), xid=xid)
    return message(19, struct.pack(">HH4x", 99, 0), xid=xid)


@pytest.mark.parametrize(
    "kind", ["short", "entry cut", "rest", "meter of 0 bytes", "meter cut", "another type"]
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_malformed_answer_ends_the_connection(
    agent: Agent, switch: ScriptedSwitch, warnings: list[str], kind: str, place: int
) -> None:
    """To meters, to the round, to a table: the switch is asked again on the next connection."""
    session = Session(agent, switch)
    xid = int.from_bytes(session.replies[place][4:8], "big")
    agent.statistics(malformed(kind, xid))
    assert session.connection.is_closed
    (warning,) = warnings
    assert "asked again on a new connection" in warning
    agent.disconnected()
    agree(settled(agent, switch))


def test_a_malformed_answer_later_on_ends_the_connection_too(
    agent: Agent, switch: ScriptedSwitch
) -> None:
    session = Session(agent, switch)
    session.read()
    assert agent.status()["connected"]
    assert session.replies != []
    xid = int.from_bytes(session.replies[0][4:8], "big")
    agent.statistics(malformed("entry cut", xid))
    assert session.connection.is_closed
    agent.disconnected()
    agree(settled(agent, switch))


def test_a_switch_that_does_not_answer_is_given_up(
    agent: Agent, switch: ScriptedSwitch, warnings: list[str]
) -> None:
    session = Session(agent, switch)
    session.read(1)
    assert agent.collect(READ_BACK_TIMEOUT_S) == b""
    assert not session.connection.is_closed
    assert agent.collect(READ_BACK_TIMEOUT_S + 0.1) == b""
    assert session.connection.is_closed
    assert f"within {READ_BACK_TIMEOUT_S:g} s" in warnings[0]


def test_a_switch_that_stops_answering_later_on_is_given_up(
    agent: Agent, switch: ScriptedSwitch
) -> None:
    """Until all is read epochs do not move: live connections keep what a policy took from them."""
    session = Session(agent, switch)
    session.read()
    assert agent.status()["adopting"]
    assert len(session.replies) == 1
    agent.collect(10 * READ_BACK_TIMEOUT_S)
    assert session.connection.is_closed


# -- the round -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "used", "chosen"), [(7, (7, 8, 10), 9), (255, (255, 0), 1)])
def test_a_round_in_use_is_not_taken(
    make_agent: Callable[..., Agent],
    switch: ScriptedSwitch,
    first: int,
    used: tuple[int, ...],
    chosen: int,
) -> None:
    """Nor are rules of another round taken for the agent's own; what they are of they are kept by."""
    for number in used:
        other = make_agent(round_number=number)
        taken = ScriptedSwitch()
        settled(other, taken)
        cookie, one = next(iter(taken.rules.items()))
        switch.rules[cookie] = one[:31] + bytes([one[31] ^ number % 7]) + one[32:]
    agent = make_agent(round_number=first)
    session = settled(agent, switch)
    assert agent._engine.round_number == chosen
    added = [int.from_bytes(one[8:16], "big") for one in switch.sent(FLOW_MOD) if one[25] == 0]
    assert {round_of(cookie) for cookie in added} == {chosen}
    agree(session)


def test_its_own_round_is_kept_on_the_next_connection(agent: Agent, switch: ScriptedSwitch) -> None:
    session = settled(agent, switch)
    assert len(requests(session, 2)) == 1
    cookies = set(switch.rules)
    agent.disconnected()
    session = settled(agent, switch)
    assert len(requests(session, 2)) == 1
    assert agent._engine.round_number == 1
    assert cookies & set(switch.rules) != set()
    agree(session)


def test_a_round_is_asked_for_again_when_the_first_connection_ended_too_early(
    agent: Agent, switch: ScriptedSwitch
) -> None:
    session = Session(agent, switch)
    session.read(1)
    agent.disconnected()
    session = settled(agent, switch)
    assert len(requests(session, 2)) == 2


def test_with_every_round_in_use_it_does_not_ask_for_ever() -> None:
    reading = SwitchReadBack(Pipeline(), round_number=3, is_own_round=False)
    asked = 0
    out = reading.begin()[24 : 24 + 56]
    while out:
        asked += 1
        out = reading.take(count_reply(5, xid=int.from_bytes(out[4:8], "big")))
    assert asked == ROUNDS


# -- meters, strange rules, errors -----------------------------------------------------------------


def test_no_meter_is_deleted_that_somebody_uses(
    make_agent: Callable[..., Agent], switch: ScriptedSwitch
) -> None:
    """Neither that of a port, whoever made it, nor one of another application."""
    settled(make_agent(), switch)
    in_use = set(switch.meters)
    switch.meters.add(FOREIGN_METER)
    session = settled(make_agent(round_number=2), switch)
    assert switch.meters == in_use | {FOREIGN_METER}
    commands = [struct.unpack_from(">H", one, 8)[0] for one in switch.sent(METER_MOD)]
    assert METER_DELETE not in commands
    agree(session)


def test_a_meter_that_is_there_is_changed_and_one_that_is_missing_is_added(
    make_agent: Callable[..., Agent], switch: ScriptedSwitch
) -> None:
    former = make_agent()
    settled(former, switch)
    there, missing = zone_of(former, "a"), zone_of(former, "b")
    switch.meters.discard(missing)
    switch.received.clear()
    settled(make_agent(round_number=2), switch)
    commands = {
        meter: command
        for command, meter in (
            struct.unpack_from(">H2xI", one, 8) for one in switch.sent(METER_MOD)
        )
    }
    assert commands == {there: 1, missing: 0}


def test_the_meter_of_a_port_that_does_not_come_back_goes(
    make_agent: Callable[..., Agent], switch: ScriptedSwitch
) -> None:
    settled(make_agent(), switch)
    session = settled(make_agent(round_number=2, plugged=False), switch)
    assert switch.meters == set()
    agree(session)


@pytest.mark.parametrize("table", [Table.CLASSIFY, Table.LOCATION])
def test_a_rule_with_our_cookie_that_nobody_can_read_goes(
    agent: Agent, switch: ScriptedSwitch, table: Table
) -> None:
    strange = MAGIC_VALUE | 0x77_00_0000_0001
    one = bytearray(message(FLOW_MOD, bytes(40) + b"\0\1\0\4\0\0\0\0"))
    one[8:16], one[24] = strange.to_bytes(8, "big"), table
    switch.rules[strange] = bytes(one)
    foreign = 0x1234
    one[8:16] = foreign.to_bytes(8, "big")
    switch.rules[foreign] = bytes(one)
    session = settled(agent, switch)
    assert strange not in switch.rules
    assert foreign in switch.rules
    agree(session)


def test_an_error_about_a_rule_strikes_it_and_another_is_told(
    agent: Agent, switch: ScriptedSwitch, warnings: list[str]
) -> None:
    session = settled(agent, switch)
    switch.refuse = lambda one: one[24] == Table.RESPONDER
    agent.packet_in(question(zone_of(agent)))
    session.write()
    (refused,) = switch.refused
    agent.error(1, 5, 1, refused[:64])
    agent.error(2, 1, 1, message(METER_MOD, bytes(20)))
    session.write()
    agree(session)
    assert agent.status()["on_demand_rules"] == 0
    assert "refused rule 0x" in warnings[0]
    assert warnings[1] == "the switch refused request 2: error type 1, code 1"


def test_a_rule_refused_while_an_older_one_with_its_match_is_read_back(
    make_agent: Callable[..., Agent], switch: ScriptedSwitch
) -> None:
    former = make_agent()
    session = settled(former, switch)
    former.packet_in(question(zone_of(former)))
    session.read_all()
    agent = make_agent(round_number=2)
    session = Session(agent, switch)
    session.read()
    assert agent.status()["connected"]
    switch.refuse = lambda one: one[24] == Table.RESPONDER
    agent.packet_in(question(zone_of(former)))
    session.write()
    session.read_all()
    (refused,) = switch.refused
    agent.error(1, 5, 1, refused[:64])
    session.read_all()
    agree(session)


def test_a_rule_that_was_replaced_meanwhile_is_not_adopted(
    make_agent: Callable[..., Agent], switch: ScriptedSwitch
) -> None:
    former = make_agent()
    session = settled(former, switch)
    former.packet_in(question(zone_of(former)))
    session.read_all()
    (old,) = [entry.cookie for entry in former._engine.installer.ledger]
    agent = make_agent(round_number=2)
    session = Session(agent, switch)
    session.read()
    assert agent.status()["connected"]
    agent.packet_in(question(zone_of(former)))
    session.write()
    (entry,) = agent._engine.installer.ledger
    assert old not in switch.rules
    # It expires before the switch has told of the rules that it held at first.
    del switch.rules[entry.cookie]
    agent.flow_removed(FlowRemoved(entry.cookie, Table.RESPONDER, 0))
    session.read_all()
    assert not agent.status()["adopting"]
    agree(session)

"""Faults between a real agent and a real Open vSwitch: afterwards both agree, and on what is true.

``check`` compares a dump of the switch, taken through a connection of its own, with the ledger and the
static rules of the agent, cookies included, and each rule with a fresh decision.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator

import pytest

from controller_app import agent as agent_module
from controller_app import switch_read_back
from controller_app.owner import is_owners
from mininet_topos.lab_run import LabRun
from mininet_topos.ovs_node import OvsNode
from ondemand import engine as engine_module
from ondemand.installer import RESEND_AFTER_S
from ondemand.pipeline import Table
from tests.support.fault_proxy import (
    BARRIER_REPLY,
    BARRIER_REQUEST,
    FLOW_MOD,
    FLOW_REMOVED,
    METER_MOD,
    MULTIPART_REPLY,
    Cut,
    Delay,
    Fault,
    Garble,
    Passing,
    Refuse,
    Repeat,
    Swallow,
    Way,
)
from tests.support.fault_site import BRIDGE, FaultSite, running_site
from tests.support.fault_story import ACTS, Act, Story, story_cloud

PACKET_IN = 10
#: Types of multipart messages.
FLOW, METERS = 1, 10


@pytest.fixture(scope="module")
def whole_story(lab_machine: None) -> Iterator[Story]:
    """One bridge for all; the read-back in two pieces, for every one of its messages is broken."""
    with (
        pytest.MonkeyPatch.context() as patch,
        LabRun() as run,
    ):
        patch.setattr(switch_read_back, "PIECES", 2)
        with running_site(OvsNode(run, "faults"), story_cloud()) as site:
            yield Story(site)


@pytest.fixture
def story(whole_story: Story) -> Iterator[Story]:
    whole_story.start_over()
    yield whole_story
    whole_story.site.proxy.begin()
    no_limits(whole_story.site)


def no_limits(site: FaultSite) -> None:
    site.node.vsctl("clear", "Bridge", BRIDGE, "flow_tables")


def name_of(act: Act) -> str:
    return act.name


def recorded(story: Story, act: Act) -> list[Passing]:
    """Play an act without a fault: its messages."""
    site = story.site
    story.prepare(act)
    site.proxy.begin()
    story.play(act)
    assert not site.settle()
    messages = list(site.proxy.record)
    site.check(spare_meters=True)
    return messages


def broken(story: Story, act: Act, fault: Fault, way: Way, number: int) -> bool:
    """Play an act with a fault at one message; whether that message came."""
    site = story.site
    story.prepare(act)
    before = site.engine.world.ports["b"].epoch
    site.proxy.begin()
    site.proxy.arm_at(fault, way, number)
    story.play(act)
    site.settle()
    done = site.proxy.injected[fault.name] > 0
    site.proxy.disarm()
    # Of meters see test_a_meter_goes_with_its_port_whatever_is_lost.
    site.check(spare_meters=True)
    if act.narrows:
        assert site.engine.world.ports["b"].epoch != before, (
            "live connections were not judged again"
        )
    return done


# -- cut -------------------------------------------------------------------------------------------


#: Messages of an act, of both ways together, at the least; how many they are differs by what happens
#: to be handled together.
LEAST = {
    "connect": 60,
    "restart": 60,
    "traffic": 50,
    "narrow": 8,
    "widen": 2,
    "plug": 15,
    "unplug": 15,
}


@pytest.mark.parametrize("act", ACTS, ids=name_of)
def test_cut_at_every_message(story: Story, act: Act) -> None:
    """Before it, and half-way through it: as long as there is one of that number.

    Half-way only when the agent begins anew, which has most of its messages in common with "connect".
    """
    parts = (0.5,) if act.name == "restart" else (0.0, 0.5)
    messages = 0
    for way in Way:
        number = misses = 0
        while misses < 2:
            number += 1
            try:
                done = [broken(story, act, Cut(part), way, number) for part in parts]
            except AssertionError as error:
                raise AssertionError(f"{act.name}: cut at message {number} {way.value}") from error
            messages += any(done)
            misses = 0 if any(done) else misses + 1
    assert messages >= LEAST[act.name]


def test_a_meter_goes_with_its_port_whatever_is_lost(story: Story) -> None:
    """The port's rules are deleted, its meter is not yet."""
    site, act = story.site, Act("unplug")
    story.prepare(act)
    site.proxy.begin()
    site.proxy.arm(Cut(), lambda passing: passing.kind == METER_MOD)
    story.play(act)
    assert site.settle()
    assert site.proxy.injected["cut"] == 1
    site.check()


# -- refused ---------------------------------------------------------------------------------------

TABLE_FULL, OUT_OF_METERS, BAD_TYPE, BAD_ACTION = (5, 1), (12, 11), (1, 1), (2, 1)
ADD = 0


def is_add(passing: Passing) -> bool:
    return passing.kind == FLOW_MOD and passing.data[25] == ADD


#: Acts of which single rules are refused; see below for those of a read-back.
REFUSABLE = {"traffic", "narrow", "plug"}


@pytest.fixture
def forgiving(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port of which a rule was refused is served again at once."""
    monkeypatch.setattr(engine_module, "RESEND_AFTER_S", 0.0)


@pytest.mark.parametrize("act", [act for act in ACTS if act.name in REFUSABLE], ids=name_of)
def test_each_rule_refused_in_turn(story: Story, forgiving: None, act: Act) -> None:
    """Whatever is refused is not believed to be there, nor is what it should have replaced."""
    site = story.site
    count = sum(is_add(passing) for passing in recorded(story, act))
    assert count >= 2
    refused = 0
    for number in range(1, count + 1):
        story.prepare(act)
        site.proxy.begin()
        seen = itertools.count(1)
        site.proxy.arm(
            Refuse(*(TABLE_FULL, BAD_ACTION)[number % 2]),
            lambda passing, seen=seen, number=number: is_add(passing) and next(seen) == number,  # type: ignore[misc]
        )
        story.play(act)
        assert not site.settle()
        site.proxy.disarm()
        refused += site.proxy.injected["refuse"]
        # A static rule that is refused is missing until its port changes or the switch reconnects.
        site.check(ports=False)
        site.reconnect()
        site.settle()
        site.check(spare_meters=True)
    assert refused > count // 2


def test_rules_without_a_port_refused_while_the_switch_is_read_back(story: Story) -> None:
    site, act = story.site, Act("connect")
    story.prepare(act)
    site.proxy.begin()
    site.proxy.arm(Refuse(*TABLE_FULL), is_add)
    story.play(act)
    assert not site.settle()
    assert site.proxy.injected["refuse"] == 1
    site.check(ports=False)


@pytest.mark.parametrize("error", [OUT_OF_METERS, BAD_TYPE], ids=["out of meters", "unsupported"])
def test_meters_refused(story: Story, error: tuple[int, int]) -> None:
    """Then the switch refuses the rules that use them too; both know which there are."""
    site, act = story.site, Act("plug")
    story.prepare(act)
    site.proxy.begin()
    site.proxy.arm(Refuse(*error), lambda passing: passing.kind == METER_MOD)
    story.play(act)
    assert not site.settle()
    assert site.proxy.injected["refuse"] == 1
    assert site.engine.counters.of("rule_rejected") > 0
    site.check(ports=False)
    site.reconnect()
    site.settle()
    site.check(spare_meters=True)


def limit_table(site: FaultSite, table: int, **columns: str) -> None:
    """A limit of the switch's own."""
    values = [f"{name}={value}" for name, value in columns.items()]
    site.node.vsctl(
        *("--", "--id=@limited", "create", "Flow_Table", *values),
        *("--", "set", "Bridge", BRIDGE, f"flow_tables:{table}=@limited"),
    )


def many_frames(site: FaultSite, count: int) -> list[bytes]:
    return [site.frames().udp("a", "c", number + 1) for number in range(count)]


@pytest.mark.parametrize("table", [Table.RESPONDER, Table.EGRESS_VERDICT, Table.LOCATION])
def test_a_full_table_that_refuses(
    story: Story, monkeypatch: pytest.MonkeyPatch, table: Table
) -> None:
    site = story.site
    monkeypatch.setattr(engine_module, "RESEND_AFTER_S", 0.05)
    story.prepare(Act("connect"))
    site.expire(*(entry.cookie for entry in list(site.engine.installer.ledger)))
    site.settle()
    room = site.node.rule_count(BRIDGE, f"table={table}") + 1
    limit_table(site, table, flow_limit=str(room), overflow_policy="refuse")
    for _ in range(3):
        story.traffic()
        site.settle()
        time.sleep(0.06)
    assert site.engine.counters.of("rule_rejected") > 0
    assert site.node.rule_count(BRIDGE, f"table={table}") == room
    site.check()
    no_limits(site)
    for _ in range(3):
        story.traffic()
        site.settle()
        time.sleep(0.06)
    site.check()
    in_table = [entry for entry in site.engine.installer.ledger if entry.rule.shape.table == table]
    assert len(in_table) > 1


def test_a_full_table_that_evicts(story: Story) -> None:
    """The switch tells what it evicted, and the ledger follows."""
    site, table = story.site, Table.EGRESS_VERDICT
    story.prepare(Act("connect"))
    limit_table(
        site,
        table,
        flow_limit=str(site.node.rule_count(BRIDGE, f"table={table}")),
        overflow_policy="evict",
    )
    site.send("a", *many_frames(site, 20))
    site.settle()
    assert site.engine.counters.of("rule_removed.eviction") >= 19
    site.check()


# -- lost, late and repeated -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [BARRIER_REQUEST, BARRIER_REPLY])
def test_barriers_lost(story: Story, kind: int) -> None:
    site, act = story.site, Act("narrow")
    story.prepare(act)
    before = site.engine.world.ports["b"].epoch
    site.proxy.begin()
    site.proxy.arm(Swallow(), lambda passing: passing.kind == kind, times=99)
    story.play(act)
    assert not site.settle()
    assert site.proxy.injected["swallow"] > 0
    site.check()
    assert site.engine.world.ports["b"].epoch != before


def test_a_removal_that_is_not_told_is_found_by_the_next_packet(story: Story) -> None:
    """Where a packet misses, that is: the verdict of b, say, is asked for by the next packet to b."""
    site = story.site
    story.prepare(Act("connect"))
    site.proxy.begin()
    site.proxy.arm(Swallow(), lambda passing: passing.kind == FLOW_REMOVED, times=99)
    ledger = list(site.engine.installer.ledger)
    gone = [
        next(entry for entry in ledger if entry.rule.shape.table == table)
        for table in (Table.EGRESS_VERDICT, Table.LOCATION, Table.INGRESS_VERDICT)
    ]
    site.expire(*(entry.cookie for entry in gone))
    site.settle()
    assert site.proxy.injected["swallow"] == len(gone)
    assert site.engine.ledger_size == len(ledger)
    time.sleep(RESEND_AFTER_S)
    story.traffic()
    site.settle()
    site.check()


def test_a_removal_that_is_not_told_is_found_by_the_next_connection(story: Story) -> None:
    site = story.site
    story.prepare(Act("connect"))
    site.proxy.begin()
    site.proxy.arm(Swallow(), lambda passing: passing.kind == FLOW_REMOVED, times=99)
    site.expire(*(entry.cookie for entry in list(site.engine.installer.ledger)))
    site.settle()
    assert site.proxy.injected["swallow"] > 0
    site.reconnect()
    site.settle()
    site.check()
    assert site.engine.ledger_size == 0


@pytest.mark.parametrize("kind", [FLOW_REMOVED, MULTIPART_REPLY, PACKET_IN, BARRIER_REPLY])
def test_what_the_switch_says_is_said_twice(story: Story, kind: int) -> None:
    site = story.site
    total = 0
    for act in ACTS:
        story.prepare(act)
        site.proxy.begin()
        site.proxy.arm(Repeat(), lambda passing: passing.kind == kind, times=999)
        story.play(act)
        assert not site.settle()
        total += site.proxy.injected["repeat"]
        site.check(spare_meters=True)
    assert total > 0


def test_packets_that_come_while_the_switch_is_read_back(story: Story) -> None:
    """The answers are late, and until they are here new connections begin."""
    site = story.site
    story.prepare(Act("connect"))
    site.expire(*(entry.cookie for entry in list(site.engine.installer.ledger)))
    site.settle()
    site.proxy.begin()
    site.proxy.arm(Delay(0.1), lambda passing: passing.multipart == METERS)
    site.reconnect()
    site._until(lambda: site.agent._connection is not None)
    story.traffic()
    assert site.engine.ledger_size == 0
    assert not site.settle()
    assert site.proxy.injected["delay"] == 1
    site.check()
    assert site.engine.ledger_size > 5


# -- the read-back ---------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent waits a short time for the switch's answers."""
    monkeypatch.setattr(agent_module, "READ_BACK_TIMEOUT_S", 0.3)


@pytest.mark.parametrize("lost", ["meters", "rules that stay"])
def test_an_answer_lost_before_packets_are_served_is_asked_for_again(
    story: Story, impatient: None, lost: str
) -> None:
    site = story.site
    story.prepare(Act("connect"))
    site.proxy.begin()
    kind = METERS if lost == "meters" else FLOW
    site.proxy.arm(
        Swallow(),
        lambda passing: passing.multipart == kind and is_owners(passing.xid),
    )
    story.play(Act("connect"))
    assert site.settle()
    assert site.proxy.injected["swallow"] == 1
    site.check()


def test_an_answer_lost_afterwards_is_asked_for_again(story: Story, impatient: None) -> None:
    """Until it is here epochs do not move, so live connections keep a right that they lost."""
    site = story.site
    story.prepare(Act("connect"))
    site.proxy.begin()
    site.proxy.arm(
        Swallow(),
        lambda passing: (
            passing.way is Way.TO_AGENT
            and passing.multipart == FLOW
            and is_owners(passing.xid)
            and not site.agent._is_beginning
        ),
    )
    story.play(Act("connect"))
    site.settle()
    assert site.proxy.injected["swallow"] == 1
    site.check()


# -- garbage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ACTS, ids=name_of)
def test_garbage_behind_half_a_message(story: Story, act: Act) -> None:
    """The rest of a message is noise, and what follows is no message at all."""
    random_bytes = random.Random(f"garbage {act.name}")
    messages = recorded(story, act)
    injected = 0
    for passing in random_bytes.sample(messages, min(12, len(messages))):
        noise = random_bytes.randbytes(len(passing.data) - len(passing.data) // 2)
        fault = Garble(noise + random_bytes.randbytes(40))
        injected += broken(story, act, fault, passing.way, passing.number)
    assert injected > 0

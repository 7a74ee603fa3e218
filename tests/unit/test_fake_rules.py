"""Rules of the fake switch: replaced, deleted, expired, evicted, metered and refused."""

from typing import Any

import pytest
from msgspec.structs import replace

from ondemand.addresses import parse_ip
from ondemand.messages import Effects, FlowRemoved, PacketIn, SetMeter
from ondemand.pipeline import Table
from rule_cache.fields import Field
from rule_cache.rule import (
    Arg,
    Eq,
    Meter,
    Output,
    Resubmit,
    Rule,
    Shape,
    ToController,
)
from tests.support.fake_flow import extract
from tests.support.fake_switch import (
    Delivered,
    Dropped,
    FakeSwitch,
    FlowLimit,
)
from tests.support.frame_builder import (
    IP4_B,
    build_tcp4,
    build_udp4,
)
from tests.support.switch_bricks import (
    IPV4,
    PIPELINE,
    TRK,
    ZONE,
    rule,
    switch_with,
    two_port_switch,
)
from tests.support.two_port_traffic import (
    A_TO_B,
)
from tests.support.two_ports import (
    PORT_A,
)

# Rules that come and go ----------------------------------------------------------------------------

TABLE = PIPELINE.number(Table.EGRESS_VERDICT)
FLOW = Shape("flow", TABLE, 5, (Eq(Field.REG6, ZONE), IPV4, Eq(Field.IPV4_DST, Arg("ip"))), ())


def flow(number: int, *, zone: int = 1, idle: int = 60, hard: int = 0) -> Rule:
    made = FLOW.rule(zone=zone, ip=bytes((10, 0, 0, number)))
    return replace(made, idle_timeout=idle, hard_timeout=hard)


def test_the_same_match_replaces_and_nobody_is_told() -> None:
    switch = FakeSwitch([1])
    switch.apply(Effects(adds=[(1, flow(1)), (2, flow(2))]))
    applied = switch.apply(Effects(adds=[(3, flow(1, idle=9))]))
    assert (applied.removed, applied.refused) == ((), ())
    assert switch.rules_in(TABLE) == [(2, flow(2)), (3, flow(1, idle=9))]
    switch.apply(Effects(deletes=[1]))
    assert len(switch.rules()) == 2


def test_shapes_with_the_same_match_replace_each_other() -> None:
    constant = Shape("constant", 0, 10, (Eq(Field.IN_PORT, 1),), (Output(2),))
    argument = Shape("argument", 0, 10, (Eq(Field.IN_PORT, Arg("port")),), (Output(3),))
    switch = switch_with(constant.rule(), argument.rule(port=1))
    assert [cookie for cookie, _ in switch.rules()] == [2]


def test_deletes_go_first_and_are_reported_for_rules_with_a_timeout() -> None:
    switch = FakeSwitch([1])
    switch.apply(Effects(adds=[(1, flow(1)), (2, rule(Output(1)))]))
    applied = switch.apply(Effects(deletes=[1, 2, 99], adds=[(4, flow(1))]))
    assert applied.removed == (FlowRemoved(1, TABLE, 2),)
    assert [cookie for cookie, _ in switch.rules()] == [4]


def test_packet_outs_meet_the_rules_of_their_batch_but_not_those_behind_the_barrier() -> None:
    switch = FakeSwitch([1, 2, 3])
    effects = Effects(
        adds=[(1, rule(Output(2)))],
        packet_outs=[(1, 0, build_udp4())],
        after_barrier=[(2, rule(Output(3)))],
    )
    assert switch.apply(effects).outcomes == (Delivered(2, build_udp4()),)
    assert switch.inject(1, build_udp4()) == [Delivered(3, build_udp4())]


def test_idle_and_hard_timeouts() -> None:
    switch = switch_with(rule(Resubmit(TABLE)))
    first = rule(Output(2), table=TABLE, match=(IPV4,), idle=10)
    switch.apply(Effects(adds=[(11, first), (12, flow(2, idle=0, hard=15))]), now_s=100.0)
    assert switch.expire(109.9) == []
    switch.inject(1, build_udp4(), 109.9)
    assert switch.expire(114.0) == []
    assert switch.expire(115.0) == [FlowRemoved(12, TABLE, 1)]
    assert switch.expire(119.9) == [FlowRemoved(11, TABLE, 0)]
    assert switch.expire(1e6) == []
    assert [cookie for cookie, _ in switch.rules()] == [1]


def test_time_does_not_go_back() -> None:
    switch = FakeSwitch([1])
    switch.expire(5.0)
    with pytest.raises(ValueError, match="only goes on"):
        switch.inject(1, build_udp4(), 4.0)


def test_a_full_table_evicts_from_the_largest_group() -> None:
    switch = FakeSwitch([1], limits={TABLE: FlowLimit(5)})
    permanent = rule(table=TABLE, priority=0)
    adds = [(1, permanent), (2, flow(1)), (3, flow(2, zone=2)), (4, flow(3, zone=2))]
    assert switch.apply(Effects(adds=[*adds, (5, flow(4, zone=2))])).removed == ()
    assert switch.apply(Effects(adds=[(6, flow(5))])).removed == (FlowRemoved(3, TABLE, 5),)
    assert [cookie for cookie, _ in switch.rules_in(TABLE)] == [1, 2, 4, 5, 6]
    # One that takes the place of another needs no room.
    assert switch.apply(Effects(adds=[(7, flow(5, idle=1))])).removed == ()


def test_a_table_full_of_permanent_rules_refuses() -> None:
    switch = FakeSwitch([1], limits={TABLE: FlowLimit(1)})
    switch.apply(Effects(adds=[(1, flow(1, idle=0))]))
    ((cookie, reason),) = switch.apply(Effects(adds=[(2, flow(2))])).refused
    assert (cookie, reason.endswith("the table is full")) == (2, True)


def test_packets_are_counted_also_over_a_replacement() -> None:
    switch = switch_with(rule(Output(2)))
    switch.inject(1, build_udp4())
    switch.inject(1, build_udp4())
    switch.apply(Effects(adds=[(9, rule(Output(3)))]))
    switch.inject(1, build_udp4())
    assert (switch.packets(1), switch.packets(9)) == (0, 3)


def test_dump_is_ofctl_text_in_order() -> None:
    switch = switch_with(rule(Output(2)), flow(1))
    assert switch.dump() == [
        "cookie=0x1,table=0,priority=10 actions=output:2",
        "cookie=0x2,table=30,idle_timeout=60,priority=5,reg6=0x1,dl_type=0x800,nw_dst=10.0.0.1 actions=drop",
    ]


def test_the_path_names_the_rules_that_were_met() -> None:
    switch = switch_with(rule(Resubmit(7)))
    switch.inject(1, build_udp4())
    assert switch.path == [
        "cookie=0x1,table=0,priority=10 actions=resubmit(,7)",
        "table=7 no rule",
    ]


# Meters --------------------------------------------------------------------------------------------


def metered(**options: Any) -> FakeSwitch:
    switch = FakeSwitch([1], **options)
    meter = SetMeter(5, rate=10, burst=2)
    miss = rule(Meter(5), ToController())
    assert switch.apply(Effects(meters=[meter], adds=[(1, miss)])).refused == ()
    return switch


def test_a_rule_needs_its_meter_first() -> None:
    switch = FakeSwitch([1])
    ((cookie, reason),) = switch.apply(Effects(adds=[(1, rule(Meter(5), ToController()))])).refused
    assert cookie == 1
    assert reason.endswith("there is no meter 5")
    assert switch.apply(Effects(adds=[(1, rule(Meter(0), ToController()))])).refused == ()


def test_a_meter_goes_with_its_rules() -> None:
    switch = metered()
    assert switch.apply(Effects(meters=[SetMeter(5, 0, 0)])).removed == ()
    assert switch.rules() == []


def test_meters_only_count_unless_they_are_enforced() -> None:
    switch = metered()
    assert all(isinstance(switch.inject(1, build_udp4())[0], PacketIn) for _ in range(5))
    assert (switch.meters[5].seen, switch.meters[5].exceeded) == (5, 3)


def test_an_enforced_meter_drops_what_is_over_its_rate() -> None:
    switch = metered(enforce_meters=True)
    dropped = [Dropped(0, "meter")]
    assert [switch.inject(1, build_udp4(), 0.0) == dropped for _ in range(4)] == [
        False,
        False,
        True,
        True,
    ]
    assert switch.inject(1, build_udp4(), 0.1) != dropped
    assert switch.inject(1, build_udp4(), 0.1) == dropped


# What goes wrong on request, and what is wrong -----------------------------------------------------


def test_a_batch_may_be_cut() -> None:
    switch = FakeSwitch([1])
    switch.cut_after = 2
    effects = Effects(
        deletes=[77], adds=[(1, flow(1)), (2, flow(2))], packet_outs=[(1, 0, build_udp4())]
    )
    assert switch.apply(effects).lost == 2
    assert [cookie for cookie, _ in switch.rules()] == [1]
    assert switch.apply(effects).lost == 0


def test_rules_may_be_refused() -> None:
    switch = FakeSwitch([1])
    switch.refuse = lambda cookie, _rule: cookie == 1
    applied = switch.apply(Effects(adds=[(1, flow(1)), (2, flow(2))]))
    assert [cookie for cookie, _ in applied.refused] == [1]
    assert [cookie for cookie, _ in switch.rules()] == [2]


def test_a_match_without_its_prerequisite_is_refused() -> None:
    match = (IPV4, Eq(Field.CT_STATE, TRK, TRK), Eq(Field.CT_NW_DST, parse_ip(IP4_B)))
    ((_, reason),) = FakeSwitch([1]).apply(Effects(adds=[(1, rule(match=match))])).refused
    assert "ct_nw_dst needs a ct_state" in reason


def test_clear_loses_everything() -> None:
    switch = two_port_switch()
    switch.inject(PORT_A, build_udp4(**A_TO_B))
    switch.clear()
    assert (switch.rules(), switch.meters, switch.conntrack.connections(0.0)) == ([], {}, [])
    assert switch.inject(PORT_A, build_udp4(**A_TO_B)) == [Dropped(0, "no rule")]


def test_a_port_that_is_not_there_gets_nothing() -> None:
    with pytest.raises(ValueError, match="port 9 is not in the switch"):
        FakeSwitch([1]).inject(9, build_udp4())


def test_headers_that_are_cut_short_leave_their_fields_out() -> None:
    assert extract(b"short").fields == {}
    cut = extract(build_tcp4()[:33]).fields
    assert cut[Field.ETH_TYPE] == 0x0800
    assert Field.IPV4_SRC not in cut
    fields = extract(build_tcp4(vlan=5)).fields
    assert (fields[Field.VLAN_TCI], fields[Field.TCP_DST]) == (0x1005, 80)

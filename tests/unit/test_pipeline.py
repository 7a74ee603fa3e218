"""The declared pipeline as a whole: what holds for every shape of rule."""

from __future__ import annotations

from graphlib import TopologicalSorter
from itertools import combinations, product

import pytest

from ondemand.pipeline import (
    ETH_IPV4,
    ETH_IPV6,
    L4,
    LAST_TABLE,
    ON_DEMAND,
    TRACKED,
    Pipeline,
    Table,
)
from ondemand.records import Direction
from rule_cache.fields import CtState, Field
from rule_cache.rule import (
    Action,
    Arg,
    Ct,
    Eq,
    Meter,
    Move,
    Operand,
    Output,
    OutputInPort,
    Resubmit,
    SetField,
    Shape,
    ToController,
)
from tests.support.fake_prerequisites import missing_prerequisite

PIPELINE = Pipeline()
SHAPES = PIPELINE.shapes
each_shape = pytest.mark.parametrize(
    "shape", SHAPES, ids=[f"{shape.table}-{shape.name}" for shape in SHAPES]
)

#: Fields of the switch itself, which any rule may set; the others belong to a kind of packet.
_OWN = {
    Field.REG4,
    Field.REG5,
    Field.REG6,
    Field.REG7,
    Field.TUN_ID,
    Field.TUN_DST,
    Field.TUN_IPV6_DST,
    Field.CT_MARK,
}
_REGISTERS = {Field.REG5, Field.REG6, Field.REG7}


def _number(operand: Operand) -> int:
    if isinstance(operand, Arg):
        return 0
    return int.from_bytes(operand, "big") if isinstance(operand, bytes) else operand


def _match(shape: Shape) -> dict[Field, tuple[int, int]]:
    """Field to (value, mask), 0 for a value that each rule brings itself."""
    match = {}
    for item in shape.match:
        full = (1 << 8 * item.field.width) - 1
        match[item.field] = _number(item.value), full if item.mask is None else _number(item.mask)
    return match


def _written(action: Action) -> list[Field]:
    if isinstance(action, SetField):
        return [action.field]
    return [action.source, action.target] if isinstance(action, Move) else []


def _targets(shape: Shape) -> list[int]:
    """The tables that a rule hands packets to."""
    tables = [action.table for action in shape.actions if isinstance(action, Resubmit)]
    return tables + [a.table for a in shape.actions if isinstance(a, Ct) and a.table is not None]


# -- tables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [0, 1, 100, 253 - LAST_TABLE])
def test_a_block_of_tables_begins_at_its_base(base: int) -> None:
    pipeline = Pipeline(base)
    for shape in pipeline.shapes:
        table = pipeline.table_of(shape.table)
        assert table is not None, shape.name
        assert pipeline.number(table) == shape.table == base + table
        for target in _targets(shape):
            assert pipeline.table_of(target) is not None, shape.name
    assert [shape.name for shape in pipeline.shapes] == [shape.name for shape in SHAPES]


@pytest.mark.parametrize("base", [-1, 254 - LAST_TABLE, 254])
def test_a_block_that_does_not_fit_is_refused(base: int) -> None:
    with pytest.raises(ValueError, match=rf"table base {base} is not in 0\.\.163"):
        Pipeline(base)


@pytest.mark.parametrize("number", [-1, 1, 99, 101, 191, 254])
def test_a_table_of_somebody_else_is_none_of_ours(number: int) -> None:
    assert Pipeline(100).table_of(number) is None


def test_no_packet_goes_round_in_circles() -> None:
    onward: dict[int, set[int]] = {}
    for shape in SHAPES:
        onward.setdefault(shape.table, set()).update(_targets(shape))
    order = TopologicalSorter(onward)
    assert [*order.static_order()][-1] == Table.CLASSIFY, "which raises CycleError for a circle"


def test_every_table_is_reached_and_filled() -> None:
    reached = {target for shape in SHAPES for target in _targets(shape)}
    assert reached | {Table.CLASSIFY} == set(Table)
    assert {shape.table for shape in SHAPES} == set(Table)


# -- each shape --------------------------------------------------------------------------------------


@each_shape
def test_every_field_has_its_prerequisites(shape: Shape) -> None:
    """OVS refuses a match or a write where the packet may not have the field."""
    match = _match(shape)
    assert missing_prerequisite(match) == ""
    for action in shape.actions:
        for field in _written(action):
            if field not in _OWN:
                full = (1 << 8 * field.width) - 1
                assert missing_prerequisite({field: (0, full)} | match) == "", action


@each_shape
def test_conntrack_meets_ip_only(shape: Shape) -> None:
    if any(isinstance(action, Ct) for action in shape.actions):
        assert _match(shape)[Field.ETH_TYPE][0] in (ETH_IPV4, ETH_IPV6)


@each_shape
def test_no_field_is_matched_twice(shape: Shape) -> None:
    assert len({item.field for item in shape.match}) == len(shape.match)


@each_shape
def test_a_meter_comes_first_and_guards_the_controller(shape: Shape) -> None:
    meters = [isinstance(action, Meter) for action in shape.actions]
    assert not any(meters[1:])
    for action in shape.actions:
        if isinstance(action, ToController):
            assert meters[0], "no packet-in without a meter"
            assert {item.field for item in shape.match} & _REGISTERS, "of the port itself"


@each_shape
def test_a_packet_leaves_in_few_places(shape: Shape) -> None:
    if any(isinstance(action, Output) for action in shape.actions):
        tunnel = Field.TUN_ID in {a.field for a in shape.actions if isinstance(a, SetField)}
        assert shape.table == (Table.LOCATION if tunnel else Table.DELIVER)
    if any(isinstance(action, OutputInPort) for action in shape.actions):
        assert shape.table in (Table.RESPONDER, Table.ND_REPLY, Table.LOCATION)


@each_shape
def test_on_demand_rules_belong_to_a_port_or_a_subnet(shape: Shape) -> None:
    """So that what one tenant's traffic makes never meets another tenant's."""
    if shape.table in ON_DEMAND and "later_fragment" not in shape.name:
        first = shape.match[0]
        assert first.field in _REGISTERS
        assert isinstance(first.value, Arg)


@each_shape
def test_only_a_rule_that_is_there_once_matches_nothing_of_its_own(shape: Shape) -> None:
    if shape.matched == 0:
        assert shape.args == (("host",) if shape is PIPELINE.owner else ())
        assert shape.match, "no shape matches everything"


def _canonical(shape: Shape) -> tuple[object, ...]:
    """What the switch compares, in no particular order of fields."""
    items = sorted(
        (
            item.field.text,
            "any" if isinstance(item.value, Arg) else str(_number(item.value)),
            str(
                item.mask if item.mask is None or isinstance(item.mask, Arg) else _number(item.mask)
            ),
        )
        for item in shape.match
    )
    return (shape.table, shape.priority, *items)


def _separated_by_protocol(one: Shape, other: Shape) -> bool:
    """The protocol that a rule of either brings itself is never that of a rule of the other."""
    return {"_port_" in one.name, "_port_" in other.name} == {True, False} and {
        "_icmp_" in one.name,
        "_icmp_" in other.name,
    } == {True, False}


def test_two_shapes_share_a_slot_if_the_switch_would_replace_one_by_the_other() -> None:
    for one, other in combinations(SHAPES, 2):
        if one.slot == other.slot:
            assert _canonical(one) == _canonical(other)
        elif _canonical(one) == _canonical(other):
            assert _separated_by_protocol(one, other), (one.name, other.name)


# -- verdicts ----------------------------------------------------------------------------------------


def test_there_is_a_verdict_for_every_kind_of_flow() -> None:
    both = (False, True)
    tracked = set(product(Direction, (4, 6), (L4.PORT, L4.ICMP), both, both))
    stateless = set(product(Direction, (4, 6), (L4.SCTP, L4.NONE), (False,), both))
    assert set(PIPELINE.verdict) == tracked | stateless


def test_allow_and_deny_replace_each_other() -> None:
    for key, (allow, deny) in PIPELINE.verdict.items():
        assert allow.slot == deny.slot, key
        assert allow.args == deny.args, key
        assert deny.actions == ()


def test_a_verdict_is_in_its_directions_table_and_knows_its_port_by_its_register() -> None:
    for (direction, *_), shapes in PIPELINE.verdict.items():
        egress = direction is Direction.EGRESS
        for shape in shapes:
            assert shape.table == (Table.EGRESS_VERDICT if egress else Table.INGRESS_VERDICT)
            assert shape.match[0].field is (Field.REG6 if egress else Field.REG7)


def test_what_conntrack_knows_is_committed_in_the_ports_zone_with_its_epoch() -> None:
    for (direction, _, l4, _, _), (allow, _) in PIPELINE.verdict.items():
        commits = [action for action in allow.actions if isinstance(action, Ct)]
        if l4 in (L4.SCTP, L4.NONE):
            assert commits == []
        else:
            register = Field.REG6 if direction is Direction.EGRESS else Field.REG7
            assert commits == [Ct(zone=register, commit=True, mark=Field.REG4)]


def test_tracked_and_untracked_packets_meet_different_verdicts() -> None:
    for (_, _, l4, reply, _), (allow, _) in PIPELINE.verdict.items():
        state, mask = _match(allow)[Field.CT_STATE]
        assert mask & CtState.TRK
        assert bool(state & CtState.TRK) == (l4 in (L4.PORT, L4.ICMP))
        if l4 in (L4.PORT, L4.ICMP):
            assert mask & CtState.INV
            assert not state & CtState.INV
            assert mask & CtState.RPL
            assert bool(state & CtState.RPL) == reply


def test_a_verdict_never_matches_the_packets_own_addresses_where_there_is_a_connection() -> None:
    own = {Field.IPV4_SRC, Field.IPV4_DST, Field.IPV6_SRC, Field.IPV6_DST, Field.IP_PROTO}
    for (_, _, l4, _, _), (allow, _) in PIPELINE.verdict.items():
        fields = {item.field for item in allow.match}
        assert bool(fields & own) == (l4 in (L4.SCTP, L4.NONE)), allow.name


def test_only_protocols_that_conntrack_tells_apart_are_tracked() -> None:
    assert {4: {1, 6, 17}, 6: {6, 17, 58}} == {family: {*TRACKED[family]} for family in TRACKED}


@pytest.mark.parametrize("register", [Field.REG6, Field.REG7])
def test_zone_and_epoch_are_arguments_and_never_constants(register: Field) -> None:
    # One matches nothing, the other what nobody has judged.
    constant = (PIPELINE.owner, *PIPELINE.quarantine)
    for shape in SHAPES:
        for item in shape.match:
            if item.field in (register, Field.CT_MARK) and shape not in constant:
                assert isinstance(item, Eq)
                assert isinstance(item.value, Arg), shape.name

"""Shapes, rules, and the text of rules."""

from __future__ import annotations

import pytest

from rule_cache.fields import CtState, Field, Value
from rule_cache.rule import (
    Action,
    Arg,
    Ct,
    DecTtl,
    Eq,
    Meter,
    Move,
    Output,
    OutputInPort,
    Resubmit,
    Rule,
    SetField,
    Shape,
    ShapeError,
    ToController,
    format_rule,
    nxm_name,
)

_REMOTE = b"\x0a\0\0\x07"
_MATCH = (
    Eq(Field.REG6, Arg("zone")),
    Eq(Field.ETH_TYPE, 0x0800),
    Eq(Field.IPV4_DST, Arg("remote"), Arg("mask")),
)


def _shape(*actions: Action, match: tuple[Eq, ...] = _MATCH, priority: int = 100) -> Shape:
    return Shape("test", 30, priority, match, actions)


def test_arguments_are_listed_matched_ones_first_and_once() -> None:
    shape = _shape(
        SetField(Field.REG7, Arg("target")),
        SetField(Field.REG5, Arg("zone")),
        Output(Arg("port")),
    )
    assert shape.args == ("zone", "remote", "mask", "target", "port")
    assert shape.matched == 3


def test_a_rule_is_made_by_name_and_read_by_name() -> None:
    shape = _shape(Output(Arg("port")))
    rule = shape.rule(port=4, zone=1, remote=_REMOTE, mask=b"\xff" * 4)
    assert rule == Rule(shape, (1, _REMOTE, b"\xff" * 4, 4))
    assert rule.value_of("port") == 4
    assert rule.value_of("remote") == _REMOTE


@pytest.mark.parametrize(
    "values",
    [
        {"zone": 1},
        {"zone": 1, "remote": _REMOTE, "mask": 0, "port": 1, "spare": 2},
        {"zone": 1, "remote": _REMOTE, "mask": 0, "prot": 1},
        {},
    ],
)
def test_a_rule_with_other_arguments_is_refused(values: dict[str, int | bytes]) -> None:
    with pytest.raises(ShapeError, match=r"test takes \('zone', 'remote', 'mask', 'port'\), not"):
        _shape(Output(Arg("port"))).rule(**values)


def test_what_is_matched_is_the_identity_and_what_is_done_is_not() -> None:
    allow, deny = _shape(Output(Arg("port"))), _shape()
    values: dict[str, Value] = {"zone": 1, "remote": _REMOTE, "mask": b"\xff" * 4}
    first = allow.rule(**values, port=1)
    assert first.key == allow.rule(**values, port=2).key == deny.rule(**values).key
    assert first.key != allow.rule(**values | {"zone": 2}, port=1).key
    assert first.key != allow.rule(**values | {"mask": b"\xff\0\0\0"}, port=1).key
    assert first != allow.rule(**values, port=2)
    assert first != deny.rule(**values)


@pytest.mark.parametrize(
    "other",
    [
        Shape("test", 31, 100, _MATCH, ()),
        Shape("test", 30, 101, _MATCH, ()),
        Shape("test", 30, 100, _MATCH[:2], ()),
        Shape("test", 30, 100, (*_MATCH[:2], Eq(Field.IPV4_DST, Arg("remote"))), ()),
        Shape("test", 30, 100, (_MATCH[0], Eq(Field.ETH_TYPE, 0x86DD), _MATCH[2]), ()),
        Shape("test", 30, 100, (Eq(Field.REG7, Arg("zone")), *_MATCH[1:]), ()),
    ],
)
def test_another_table_priority_or_match_is_another_slot(other: Shape) -> None:
    assert other.slot != _shape().slot


def test_shapes_are_told_apart_by_identity() -> None:
    assert _shape() != _shape()
    assert len({_shape(), _shape()}) == 2


@pytest.mark.parametrize("priority", [-1, 65536])
def test_a_priority_out_of_range_is_refused(priority: int) -> None:
    with pytest.raises(ShapeError, match=rf"test: priority {priority} is not in 0\.\.65535"):
        _shape(priority=priority)


def test_a_move_between_widths_is_refused() -> None:
    with pytest.raises(ShapeError, match="moves between different widths"):
        _shape(Move(Field.ETH_SRC, Field.IPV4_SRC))


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (SetField(Field.ETH_SRC, b"\x02\0\0\0\0\x01"), "set_field:02:00:00:00:00:01->dl_src"),
        (SetField(Field.REG4, Arg("epoch")), "set_field:0x9->reg4"),
        (SetField(Field.TUN_DST, b"\xc0\0\x02\x01"), "set_field:192.0.2.1->tun_dst"),
        (Move(Field.ETH_SRC, Field.ETH_DST), "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]"),
        (Output(3), "output:3"),
        (OutputInPort(), "IN_PORT"),
        (Resubmit(40), "resubmit(,40)"),
        (Ct(zone=Field.REG6, table=20), "ct(zone=NXM_NX_REG6[0..15],table=20)"),
        (Ct(zone=Field.REG7, commit=True), "ct(commit,zone=NXM_NX_REG7[0..15])"),
        (
            Ct(zone=Field.REG7, commit=True, mark=Field.REG4),
            "ct(commit,zone=NXM_NX_REG7[0..15],exec(move:NXM_NX_REG4[]->NXM_NX_CT_MARK[]))",
        ),
        (DecTtl(), "dec_ttl"),
        (ToController(), "CONTROLLER:65535"),
        (ToController(128), "CONTROLLER:128"),
        (Meter(Arg("epoch")), "meter:9"),
        (Meter(5), "meter:5"),
        (Meter(0), "drop"),
    ],
)
def test_an_action_is_written_as_ovs_writes_it(action: Action, text: str) -> None:
    shape = Shape("test", 0, 1, (Eq(Field.REG6, Arg("epoch")),), (action,))
    assert str(shape.rule(epoch=9)) == f"table=0,priority=1,reg6=0x9 actions={text}"


def test_a_whole_rule_is_written_as_ovs_writes_it() -> None:
    shape = _shape(
        Meter(Arg("meter")),
        SetField(Field.REG7, Arg("zone")),
        Resubmit(60),
        match=(*_MATCH, Eq(Field.CT_STATE, CtState.TRK, CtState.TRK | CtState.INV)),
    )
    rule = Rule(shape, (1, _REMOTE, b"\xff\xff\xff\xff", 0), idle_timeout=60, hard_timeout=10)
    assert format_rule(rule, cookie=0x0D5E << 48) == (
        "cookie=0xd5e000000000000,table=30,idle_timeout=60,hard_timeout=10,priority=100,"
        "reg6=0x1,dl_type=0x800,nw_dst=10.0.0.7/255.255.255.255,ct_state=-inv+trk"
        " actions=set_field:0x1->reg7,resubmit(,60)"
    )


def test_a_rule_without_actions_drops() -> None:
    text = str(_shape(match=()).rule())
    assert text == "table=30,priority=100 actions=drop"


def test_registers_and_headers_that_rules_move_have_nxm_names() -> None:
    assert nxm_name(Field.ND_TARGET) == "NXM_NX_ND_TARGET"
    with pytest.raises(KeyError):
        nxm_name(Field.TCP_DST)

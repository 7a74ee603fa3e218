"""Rules of every shape of a pipeline, with values that a switch accepts.

Values follow from where an argument stands, not from the shape's name, so that a shape that is added
to the pipeline is covered without a change here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ondemand.pipeline import ICMP, ICMPV6, TCP, Pipeline
from rule_cache.fields import Field, Format, Value
from rule_cache.rule import Arg, Eq, Meter, Output, Rule, SetField, Shape

#: Meters that sampled rules refer to.
METERS = range(1, 9)
#: Ports that sampled rules refer to; a switch accepts a rule for a port that it does not have.
PORTS = range(1, 200)


def sample_rules(pipeline: Pipeline, *, per_shape: int = 3) -> Iterator[Rule]:
    """``per_shape`` rules of each shape, the same at each call, no two with the same match."""
    for number, shape in enumerate(pipeline.shapes):
        for sample in range(per_shape):
            rng = random.Random(number * 1000 + sample)
            yield sample_rule(shape, rng, sample)


def sample_rule(shape: Shape, rng: random.Random, sample: int = 1) -> Rule:
    """A rule with random values; the first sample of a shape with a meter has meter 0, "none"."""
    values = {name: _value(shape, name, rng) for name in shape.args}
    for item in shape.match:
        if isinstance(item.mask, Arg) and isinstance(item.value, Arg):
            ones = rng.choice((0, 8, 24, 32, item.field.width * 8))
            mask = _prefix_mask(item.field.width, min(ones, item.field.width * 8))
            address = values[item.value.name]
            values[item.mask.name] = mask
            values[item.value.name] = bytes(a & b for a, b in zip(address, mask, strict=True))
    if "meter" in shape.args and sample == 0:
        values["meter"] = 0
    return Rule(
        shape,
        tuple(values[name] for name in shape.args),
        idle_timeout=rng.choice((0, 60, 0xFFFF)),
        hard_timeout=rng.choice((0, 600, 0xFFFF)),
    )


def edge_rules(shape: Shape) -> Iterator[Rule]:
    """The least and the greatest value of each argument; not all that a switch would accept."""
    for ones in (False, True):
        values: list[Value] = []
        for name in shape.args:
            width, is_number = _kind(shape, name)
            edge = b"\xff" * width if ones else bytes(width)
            values.append(int.from_bytes(edge, "big") if is_number else edge)
        timeout = 0xFFFF if ones else 0
        yield Rule(shape, tuple(values), idle_timeout=timeout, hard_timeout=timeout)


def fields_of(shape: Shape, name: str) -> list[Field]:
    """The fields that an argument fills, as value or as mask."""
    found = [item.field for item in shape.match if Arg(name) in {item.value, item.mask}]
    found += [
        action.field
        for action in shape.actions
        if isinstance(action, SetField) and action.value == Arg(name)
    ]
    return found


def _kind(shape: Shape, name: str) -> tuple[int, bool]:
    """Width in bytes, and whether the value is a number."""
    fields = fields_of(shape, name)
    if not fields:
        return 4, True
    is_number = fields[0].form not in {Format.MAC, Format.IP}
    return min(field.width for field in fields), is_number


def _value(shape: Shape, name: str, rng: random.Random) -> Value:
    width, is_number = _kind(shape, name)
    fields = fields_of(shape, name)
    for action in shape.actions:
        if isinstance(action, Meter) and action.meter == Arg(name):
            return rng.choice(METERS)
        if isinstance(action, Output) and action.port == Arg(name):
            return rng.choice(PORTS)
    if Field.IN_PORT in fields:
        return rng.choice(PORTS)
    if Field.CT_NW_PROTO in fields:
        return _tracked_protocol(shape)
    data = rng.randbytes(width)
    return int.from_bytes(data, "big") if is_number else data


def _tracked_protocol(shape: Shape) -> int:
    """ct_tp_* means ports only of a protocol that has them, else ICMP type and code."""
    is_icmp = any(
        item.field is Field.CT_TP_DST and item.value == Arg("icmp_code") for item in shape.match
    )
    if not is_icmp:
        return TCP
    return ICMPV6 if Eq(Field.ETH_TYPE, 0x86DD) in shape.match else ICMP


def _prefix_mask(width: int, ones: int) -> bytes:
    bits = width * 8
    return ((1 << bits) - (1 << (bits - ones))).to_bytes(width, "big")

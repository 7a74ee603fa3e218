"""Rules as values: a *shape*, declared once, and the values that fill it.

A shape says table, priority, which fields are matched and what is done. A rule is a shape with one
value for each of the shape's arguments. The switch identifies a rule by table, priority and match
(OpenFlow 1.3.5 section 6.4), so here a rule's identity is the shape's ``slot`` (the match without its
values) together with the values that are matched: two shapes of one slot replace each other.

Because shapes are few and fixed, an encoder can turn each into a byte template ahead of time, a test
can check each against a declared pipeline, and no rule is ever built field by field on the hot path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import assert_never

import msgspec

from rule_cache.fields import Field, Value, format_match, format_value, to_int


@dataclass(frozen=True, slots=True)
class Arg:
    """A place in a shape that each rule fills with a value of its own."""

    name: str


Operand = Value | Arg


@dataclass(frozen=True, slots=True)
class Eq:
    """The packet's ``field`` equals ``value``, where ``mask`` has ones (all, when None)."""

    field: Field
    value: Operand
    mask: Operand | None = None


@dataclass(frozen=True, slots=True)
class SetField:
    """Write ``value`` over the whole field."""

    field: Field
    value: Operand


@dataclass(frozen=True, slots=True)
class Move:
    """Copy a whole field; both have the same width."""

    source: Field
    target: Field


@dataclass(frozen=True, slots=True)
class Output:
    """Send out of an OpenFlow port; nothing happens when the packet came from there."""

    port: Operand


@dataclass(frozen=True, slots=True)
class OutputInPort:
    """Back to where the packet came from, which a plain Output never does."""


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Go on in ``table``; unlike goto it may stand in an action list."""

    table: int


@dataclass(frozen=True, slots=True)
class Ct:
    """Conntrack in the zone that ``zone`` (a register, low 16 bits) names.

    With ``table`` the packet recirculates there; with ``commit`` the connection is stored, and the
    register ``mark`` copied into its ct_mark. ovs-actions(7).
    """

    zone: Field
    table: int | None = None
    commit: bool = False
    mark: Field | None = None


@dataclass(frozen=True, slots=True)
class DecTtl:
    """Decrement the TTL; a packet whose TTL ends goes no further."""


@dataclass(frozen=True, slots=True)
class ToController:
    """Packet-in with up to ``max_len`` bytes; 65535 means all of it (OFPCML_NO_BUFFER)."""

    max_len: int = 0xFFFF


@dataclass(frozen=True, slots=True)
class Meter:
    """Drop what exceeds meter ``meter``; 0 means no meter. Only as the first action."""

    meter: Operand


Action = SetField | Move | Output | OutputInPort | Resubmit | Ct | DecTtl | ToController | Meter


def _args_of(item: Eq | Action) -> Iterator[Arg]:
    for name in item.__slots__:
        value = getattr(item, name)
        if isinstance(value, Arg):
            yield value


class ShapeError(ValueError):
    """A shape is declared wrongly; our fault, never the network's."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A kind of rule. ``actions`` empty means drop. ``args`` lists the arguments, matched ones first."""

    name: str
    table: int
    priority: int
    match: tuple[Eq, ...]
    actions: tuple[Action, ...]
    args: tuple[str, ...] = field(init=False)
    #: How many of ``args`` are matched.
    matched: int = field(init=False)
    #: The match without its values: equal for shapes whose rules replace each other.
    slot: str = field(init=False)

    def __post_init__(self) -> None:
        names: list[str] = []
        for item in self.match:
            names += [arg.name for arg in _args_of(item) if arg.name not in names]
        matched = len(names)
        for action in self.actions:
            names += [arg.name for arg in _args_of(action) if arg.name not in names]
            if isinstance(action, Move) and action.source.width != action.target.width:
                raise ShapeError(f"{self.name}: {action} moves between different widths")
        if not 0 <= self.priority <= 0xFFFF:
            raise ShapeError(f"{self.name}: priority {self.priority} is not in 0..65535")
        order = [f"{item.field.text}/{item.mask!r}" for item in self.match]
        fixed = [f"{i.field.text}={i.value!r}" for i in self.match if not isinstance(i.value, Arg)]
        object.__setattr__(self, "args", tuple(names))
        object.__setattr__(self, "matched", matched)
        object.__setattr__(
            self, "slot", f"{self.table}/{self.priority}/{','.join(order)}/{','.join(fixed)}"
        )

    def rule(self, **values: Value) -> Rule:
        """A rule of this shape by argument name (for tests and for rules off the hot path)."""
        if set(values) != set(self.args):
            raise ShapeError(f"{self.name} takes {self.args}, not {tuple(values)}")
        return Rule(self, tuple(values[name] for name in self.args))


RuleKey = tuple[str, tuple[Value, ...]]


class Rule(msgspec.Struct, frozen=True, gc=False):
    """A shape and its values. Timeouts are in seconds, 0 is never (OpenFlow 1.3.5 section 5.5)."""

    shape: Shape
    values: tuple[Value, ...]
    idle_timeout: int = 0
    hard_timeout: int = 0

    @property
    def key(self) -> RuleKey:
        """What the switch tells rules apart by."""
        return self.shape.slot, self.values[: self.shape.matched]

    def value_of(self, name: str) -> Value:
        return self.values[self.shape.args.index(name)]

    def __str__(self) -> str:
        return format_rule(self)


def format_rule(rule: Rule, cookie: int | None = None) -> str:
    """The rule in the syntax that ``ovs-ofctl add-flow`` reads."""
    shape = rule.shape
    bound = dict(zip(shape.args, rule.values, strict=True))

    def value(operand: Operand) -> Value:
        return bound[operand.name] if isinstance(operand, Arg) else operand

    head = [] if cookie is None else [f"cookie=0x{cookie:x}"]
    head.append(f"table={shape.table}")
    if rule.idle_timeout:
        head.append(f"idle_timeout={rule.idle_timeout}")
    if rule.hard_timeout:
        head.append(f"hard_timeout={rule.hard_timeout}")
    head.append(f"priority={shape.priority}")
    for item in shape.match:
        mask = None if item.mask is None else value(item.mask)
        head.append(format_match(item.field, value(item.value), mask))
    actions = ",".join(text for text in (_format_action(a, value) for a in shape.actions) if text)
    return f"{','.join(head)} actions={actions or 'drop'}"


def _format_action(action: Action, resolve: Callable[[Operand], Value]) -> str:
    match action:
        case SetField(field=target, value=operand):
            return f"set_field:{format_value(target, resolve(operand))}->{target.text}"
        case Move(source=source, target=target):
            return f"move:{nxm_name(source)}[]->{nxm_name(target)}[]"
        case Output(port=port):
            return f"output:{to_int(resolve(port))}"
        case OutputInPort():
            return "IN_PORT"
        case Resubmit(table=table):
            return f"resubmit(,{table})"
        case Ct(zone=zone, table=table, commit=commit, mark=mark):
            parts = ["commit"] if commit else []
            parts.append(f"zone={nxm_name(zone)}[0..15]")
            if table is not None:
                parts.append(f"table={table}")
            if mark is not None:
                parts.append(f"exec(move:{nxm_name(mark)}[]->{nxm_name(Field.CT_MARK)}[])")
            return f"ct({','.join(parts)})"
        case DecTtl():
            return "dec_ttl"
        case ToController(max_len=max_len):
            return f"CONTROLLER:{max_len}"
        case Meter(meter=meter):
            number = to_int(resolve(meter))
            return f"meter:{number}" if number else ""
        case _:
            assert_never(action)


_NXM_NAMES = {
    Field.ETH_SRC: "NXM_OF_ETH_SRC",
    Field.ETH_DST: "NXM_OF_ETH_DST",
    Field.IPV4_SRC: "NXM_OF_IP_SRC",
    Field.IPV4_DST: "NXM_OF_IP_DST",
    Field.IPV6_SRC: "NXM_NX_IPV6_SRC",
    Field.IPV6_DST: "NXM_NX_IPV6_DST",
    Field.ARP_SHA: "NXM_NX_ARP_SHA",
    Field.ARP_THA: "NXM_NX_ARP_THA",
    Field.ARP_SPA: "NXM_OF_ARP_SPA",
    Field.ARP_TPA: "NXM_OF_ARP_TPA",
    Field.ND_TARGET: "NXM_NX_ND_TARGET",
    Field.ND_SLL: "NXM_NX_ND_SLL",
    Field.ND_TLL: "NXM_NX_ND_TLL",
    Field.CT_MARK: "NXM_NX_CT_MARK",
    Field.REG4: "NXM_NX_REG4",
    Field.REG5: "NXM_NX_REG5",
    Field.REG6: "NXM_NX_REG6",
    Field.REG7: "NXM_NX_REG7",
    Field.TUN_ID: "NXM_NX_TUN_ID",
}


def nxm_name(target: Field) -> str:
    """The name that ``move`` and ``zone=`` use (ovs-fields(7), "NXM name")."""
    return _NXM_NAMES[target]

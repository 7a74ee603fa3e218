"""Turn a shape into a byte template of its flow-mod, so that a rule costs one ``Struct.pack``.

All that a shape fixes (header, table, priority, OXM headers, actions, padding, every length) is packed
once. What is left are places: the arguments, and the xid, cookie and timeouts of each rule. A template
is the constant pieces, the ``struct`` format of pieces and places in wire order, and the order itself.

Wire formats: OpenFlow 1.3.5 sections 7.2.3 (match), 7.2.4 (instructions), 7.2.5 (actions), 7.3.4.1
(flow-mod); ovs-actions(7) for what the Nicira actions do.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, assert_never

from controller_app.oxm import OXM, struct_code
from rule_cache.fields import Field, Value, to_bytes, to_int
from rule_cache.rule import (
    Action,
    Arg,
    Ct,
    DecTtl,
    Eq,
    Meter,
    Move,
    Operand,
    Output,
    OutputInPort,
    Resubmit,
    Rule,
    SetField,
    Shape,
    ToController,
)

VERSION: Final = 0x04
FLOW_MOD: Final = 14
NO_BUFFER: Final = 0xFFFFFFFF
#: OFPP_ANY and OFPG_ANY: no restriction on the port or group.
ANY: Final = 0xFFFFFFFF
#: OFPFC_ADD replaces a rule of the same table, priority and match.
ADD: Final = 0
SEND_FLOW_REMOVED: Final = 0x0001

_IN_PORT, _CONTROLLER = 0xFFFFFFF8, 0xFFFFFFFD
_MATCH_OXM = 1
_METER, _APPLY_ACTIONS = 6, 4
_OUTPUT, _DEC_TTL, _SET_FIELD, _EXPERIMENTER_ACTION = 0, 24, 25, 0xFFFF
_NICIRA = 0x00002320
_NXAST_REG_MOVE, _NXAST_RESUBMIT_TABLE, _NXAST_CT = 6, 14, 35
#: OFPP_IN_PORT with 16 bits: go on with the packet's own port.
_RESUBMIT_IN_PORT = 0xFFF8
_CT_COMMIT = 0x0001
_CT_NO_RECIRCULATION = 0xFF
#: Bits 0 to 15 of a register: offset << 6 | bits - 1.
_LOW_16_BITS = 15

_BEFORE_MATCH_BYTES = 48


class EncodeError(ValueError):
    """A shape or a rule cannot be written as OpenFlow; our fault, never the network's."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value of each rule goes: its ``struct`` code, width, and the name of the argument."""

    code: str
    width: int
    name: str


_Pieces = list[bytes | _Place]

#: What each rule has besides its arguments. No argument can have these names: they hold a space.
_XID: Final = _Place("I", 4, "rule xid")
_COOKIE: Final = _Place("Q", 8, "rule cookie")
_IDLE: Final = _Place("H", 2, "rule idle_timeout")
_HARD: Final = _Place("H", 2, "rule hard_timeout")
_OF_RULE: Final = (_XID, _COOKIE, _IDLE, _HARD)


class Template:
    """The flow-mods of one shape (of one with a meter: for one of "metered" and "not metered")."""

    __slots__ = ("_argument_count", "_byte_places", "_constants", "_name", "_pack", "_pick")

    def __init__(self, shape: Shape, *, flags: int, metered: bool) -> None:
        pieces = _flow_mod(shape, flags=flags, metered=metered)
        constants = tuple(piece for piece in pieces if isinstance(piece, bytes))
        names = [place.name for place in _OF_RULE] + list(shape.args)
        order, code, next_constant = [], ">", 0
        for piece in pieces:
            if isinstance(piece, bytes):
                order.append(next_constant)
                next_constant += 1
                code += f"{len(piece)}s"
            else:
                order.append(len(constants) + names.index(piece.name))
                code += piece.code
        self._name = shape.name
        self._constants: tuple[Any, ...] = constants
        self._pack: Callable[..., bytes] = struct.Struct(code).pack
        self._pick: Callable[[tuple[Any, ...]], tuple[Any, ...]] = itemgetter(*order)
        self._argument_count = len(shape.args)
        # Struct pads and cuts bytes silently, so their widths are checked for each rule.
        self._byte_places = tuple(
            {
                (shape.args.index(piece.name), piece.width)
                for piece in pieces
                if isinstance(piece, _Place) and piece.code.endswith("s")
            }
        )

    def add(self, rule: Rule, cookie: int) -> bytes:
        """The rule's flow-mod, OFPFC_ADD; its xid is the low half of the cookie.

        Raises:
            EncodeError: a value is missing, of the wrong type or too wide.
        """
        values = rule.values
        try:
            for index, width in self._byte_places:
                if len(values[index]) != width:  # type: ignore[arg-type]
                    raise EncodeError(
                        f"{self._name}: argument {rule.shape.args[index]} is {values[index]!r}, "
                        f"give it {width} bytes"
                    )
            if len(values) != self._argument_count:
                raise EncodeError(f"{self._name} takes {rule.shape.args}, not {values}")
            return self._pack(
                *self._pick(
                    (
                        *self._constants,
                        cookie & 0xFFFFFFFF,
                        cookie,
                        rule.idle_timeout,
                        rule.hard_timeout,
                        *values,
                    )
                )
            )
        except (struct.error, TypeError, IndexError) as error:
            raise EncodeError(
                f"{self._name}: {values} with timeouts {rule.idle_timeout}, {rule.hard_timeout} "
                f"does not fit {rule.shape.args}: {error}"
            ) from error


def _flow_mod(shape: Shape, *, flags: int, metered: bool) -> _Pieces:
    match = _match(shape)
    instructions = _instructions(shape, metered=metered)
    length = _checked_length(shape, _BEFORE_MATCH_BYTES + _size(match) + _size(instructions))
    head: _Pieces = [
        struct.pack(">BBH", VERSION, FLOW_MOD, length),
        _XID,
        _COOKIE,
        struct.pack(">QBB", 0, shape.table, ADD),
        _IDLE,
        _HARD,
        struct.pack(">HIIIH2x", shape.priority, NO_BUFFER, ANY, ANY, flags),
    ]
    return _merged(head + match + instructions)


def _match(shape: Shape) -> _Pieces:
    oxms: _Pieces = []
    for item in shape.match:
        oxms += _oxm(shape, item)
    # The length leaves out the padding (section 7.2.3.1), unlike all other lengths.
    length = 4 + _size(oxms)
    return [struct.pack(">HH", _MATCH_OXM, length), *oxms, bytes(-length % 8)]


def _oxm(shape: Shape, item: Eq) -> _Pieces:
    oxm = OXM[item.field]
    value = _operand(item.field, item.value)
    if item.mask is None:
        return [oxm.header.to_bytes(4, "big"), value]
    mask = _operand(item.field, item.mask)
    if isinstance(value, bytes) and isinstance(mask, bytes) and to_int(value) & ~to_int(mask):
        raise EncodeError(f"{shape.name}: {item} has bits outside its mask, which OVS refuses")
    return [oxm.masked_header.to_bytes(4, "big"), value, mask]


def _operand(field: Field, operand: Operand) -> bytes | _Place:
    if isinstance(operand, Arg):
        return _Place(struct_code(field), field.width, operand.name)
    return _constant(field, operand)


def _constant(field: Field, value: Value) -> bytes:
    try:
        data = to_bytes(field, value)
    except OverflowError:
        data = b""
    if len(data) != field.width:
        raise EncodeError(f"{field.text}: {value!r} is not {field.width} bytes wide")
    return data


def _instructions(shape: Shape, *, metered: bool) -> _Pieces:
    """Meter, then apply-actions; none at all is a drop (section 5.9)."""
    pieces: _Pieces = []
    actions: tuple[Action, ...] = shape.actions
    match actions:
        case (Meter(meter=meter), *rest):
            if metered:
                pieces += [struct.pack(">HH", _METER, 8), _number(meter)]
            actions = tuple(rest)
    body: _Pieces = []
    for action in actions:
        body += _action(shape, action)
    if body:
        length = _checked_length(shape, 8 + _size(body))
        pieces += [struct.pack(">HH4x", _APPLY_ACTIONS, length), *body]
    return pieces


def _checked_length(shape: Shape, length: int) -> int:
    if length > 0xFFFF:
        raise EncodeError(f"{shape.name}: a flow-mod of over {length} bytes; the most is 65535")
    return length


def _action(shape: Shape, action: Action) -> _Pieces:
    match action:
        case SetField():
            return _set_field(action.field, action.value)
        case Move():
            return [_move(action.source, action.target)]
        case Output():
            return [struct.pack(">HH", _OUTPUT, 16), _number(action.port), bytes(8)]
        case OutputInPort():
            return [struct.pack(">HHIH6x", _OUTPUT, 16, _IN_PORT, 0)]
        case ToController():
            return [struct.pack(">HHIH6x", _OUTPUT, 16, _CONTROLLER, action.max_len)]
        case Resubmit():
            return [resubmit(action.table)]
        case Ct():
            return [_ct(shape, action)]
        case DecTtl():
            return [struct.pack(">HH4x", _DEC_TTL, 8)]
        case Meter():
            raise EncodeError(f"{shape.name}: a meter is an instruction, put it first")
        case _:
            assert_never(action)


def _set_field(field: Field, operand: Operand) -> _Pieces:
    length = 8 + field.width
    padding = -length % 8
    head = struct.pack(">HHI", _SET_FIELD, length + padding, OXM[field].header)
    return [head, _operand(field, operand), bytes(padding)]


#: The action ``set_field:N->tun_id`` up to its 8 bytes of value; it needs no padding.
SET_TUN_ID_HEADER: Final = struct.pack(">HHI", _SET_FIELD, 16, OXM[Field.TUN_ID].header)


#: The action ``set_field:N->reg3`` up to its 4 bytes of value, which 4 bytes of padding follow.
SET_GENERATION_HEADER: Final = struct.pack(">HHI", _SET_FIELD, 16, OXM[Field.REG3].header)


def resubmit(table: int) -> bytes:
    """The action ``resubmit(,table)``."""
    return _nicira(_NXAST_RESUBMIT_TABLE, struct.pack(">HB3x", _RESUBMIT_IN_PORT, table))


def _ct(shape: Shape, action: Ct) -> bytes:
    if action.mark is not None and not action.commit:
        raise EncodeError(f"{shape.name}: ct() sets a mark only when it commits")
    nested = b"" if action.mark is None else _move(action.mark, Field.CT_MARK)
    body = struct.pack(
        ">HIHB3xH",
        _CT_COMMIT if action.commit else 0,
        OXM[action.zone].header,
        _LOW_16_BITS,
        _CT_NO_RECIRCULATION if action.table is None else action.table,
        0,
    )
    return _nicira(_NXAST_CT, body, nested=nested)


def _move(source: Field, target: Field) -> bytes:
    bits = source.width * 8
    headers = (OXM[source].header, OXM[target].header)
    return _nicira(_NXAST_REG_MOVE, struct.pack(">HHHII", bits, 0, 0, *headers))


def _nicira(subtype: int, body: bytes, *, nested: bytes = b"") -> bytes:
    """An action of Nicira's, padded to 8 bytes, with the actions that it holds."""
    length = 10 + len(body)
    padding = bytes(-length % 8)
    length += len(padding) + len(nested)
    head = struct.pack(">HHIH", _EXPERIMENTER_ACTION, length, _NICIRA, subtype)
    return head + body + padding + nested


def _number(operand: Operand) -> bytes | _Place:
    if isinstance(operand, Arg):
        return _Place("I", 4, operand.name)
    return to_int(operand).to_bytes(4, "big")


def _size(pieces: Sequence[bytes | _Place]) -> int:
    return sum(len(piece) if isinstance(piece, bytes) else piece.width for piece in pieces)


def _merged(pieces: _Pieces) -> _Pieces:
    """Neighbouring constants become one."""
    merged: _Pieces = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if isinstance(piece, bytes) and isinstance(last, bytes):
            merged[-1] = last + piece
        elif piece != b"":
            merged.append(piece)
    return merged

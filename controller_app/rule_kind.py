"""What a shape looks like when the switch reports it, and where its arguments stand then.

The instructions are those that the encoder sends, learned by encoding the shape with different values:
what differs is a place of an argument. The match is compared field by field, since the switch
reorders it and leaves out what says nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from controller_app.encode import Encoder
from controller_app.flow_stats import BEFORE_MATCH_BYTES
from controller_app.oxm import struct_code
from controller_app.reported_rule import Reported, normal_instructions, normal_mask
from rule_cache.fields import Field, Value, to_bytes
from rule_cache.rule import Arg, Eq, Meter, Output, SetField, Shape

# Flags of a flow-mod, and the length of its match.
_read_flow_mod = struct.Struct(">44xHxxxxH").unpack_from
#: Output ports and meters.
_NUMBER_CODE: Final = "I"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: its first byte, its ``struct`` code, and the name of its argument."""

    at: int
    code: str
    name: str

    @property
    def end(self) -> int:
        return self.at + struct.calcsize(f">{self.code}")


class Bound:
    """The arguments of a shape in one byte structure: where they stand, or what they are."""

    __slots__ = ("constants", "masked", "nonzero", "pinned", "places")

    def __init__(self) -> None:
        self.places: list[Place] = []
        #: Places whose bytes are a part of the structure: with another value it is another one.
        self.pinned: list[Place] = []
        #: Arguments that stand nowhere, because the structure itself tells their value.
        self.constants: dict[str, Value] = {}
        #: Pairs of arguments, value and mask: a value has no bit that its mask has not.
        self.masked: list[tuple[str, str]] = []
        #: Arguments that stand nowhere when they are 0, so that 0 is wrong where they do.
        self.nonzero: list[str] = []


def meter_of(shape: Shape) -> str | None:
    """The argument that names the meter, None for a shape without."""
    for action in shape.actions:
        if isinstance(action, Meter) and isinstance(action.meter, Arg):
            return action.meter.name
    return None


class RuleKind:
    """A shape as the switch reports it; one with a meter is two kinds, metered and not.

    ``protocols`` are those that a ``ct_nw_proto`` of the shape may have; empty: any.
    """

    __slots__ = (
        "_fixed",
        "_holes",
        "_mask",
        "_meter",
        "_protocols",
        "_required",
        "_size",
        "flags",
        "shape",
    )

    def __init__(
        self, shape: Shape, encoder: Encoder, protocols: frozenset[int], *, metered: bool
    ) -> None:
        self.shape = shape
        self._protocols = protocols
        self._required = frozenset(i.field for i in shape.match if not isinstance(i.mask, Arg))
        codes = dict(_operands(shape))
        values = {name: _pattern(code, 0x01) for name, code in codes.items()}
        meter = meter_of(shape)
        #: The argument of the meter, and whether there is an instruction that holds it.
        self._meter = None if meter is None else (meter, metered)
        if meter is not None and not metered:
            values[meter] = 0
            del codes[meter]
        message = encoder.add(shape.rule(**values), 0)
        self.flags, match_bytes = _read_flow_mod(message)
        begin = BEFORE_MATCH_BYTES + (match_bytes + 7 & ~7)
        instructions = normal_instructions(message[begin:])
        mask = bytearray(b"\xff" * len(instructions))
        #: Places of arguments, from the beginning of the instructions.
        self._holes: list[Place] = []
        for name, code in codes.items():
            changed = encoder.add(shape.rule(**{**values, name: _pattern(code, 0xFE)}), 0)[begin:]
            at = 0
            while at < len(instructions):
                if changed[at] == message[begin + at]:
                    at += 1
                    continue
                hole = Place(at, code, name)
                self._holes.append(hole)
                mask[at : hole.end] = bytes(hole.end - at)
                at = hole.end
        self._size = len(instructions)
        self._mask = int.from_bytes(mask, "big")
        self._fixed = int.from_bytes(instructions, "big") & self._mask

    def bind(
        self, match: Mapping[Field, Reported], instructions: bytes, instructions_at: int
    ) -> Bound | None:
        """The places of the arguments, None when no rule of this kind is reported so.

        ``instructions`` are in the encoder's words; they begin at ``instructions_at`` of the entry.
        """
        if len(instructions) != self._size or not self._required <= match.keys():
            return None
        if int.from_bytes(instructions, "big") & self._mask != self._fixed:
            return None
        bound = Bound()
        for item in self.shape.match:
            if not self._bind_item(item, match.get(item.field), bound):
                return None
        if not match.keys() <= {item.field for item in self.shape.match}:
            return None
        bound.places += [Place(instructions_at + p.at, p.code, p.name) for p in self._holes]
        match self._meter:
            case (name, True):
                bound.nonzero.append(name)
            case (name, False):
                bound.constants[name] = 0
        return bound

    def _bind_item(self, item: Eq, reported: Reported | None, bound: Bound) -> bool:
        field, value, mask = item.field, item.value, item.mask
        code = struct_code(field)
        if isinstance(mask, Arg):
            if not isinstance(value, Arg):
                return False
            if reported is None:
                bound.constants[value.name] = bound.constants[mask.name] = _pattern(code, 0x00)
                return True
            if reported.mask is None:
                bound.constants[mask.name] = _pattern(code, 0xFF)
            else:
                bound.places.append(Place(reported.mask_at, code, mask.name))
                bound.masked.append((value.name, mask.name))
        elif reported is None or reported.mask != _reported_mask(field, mask):
            return False
        if not isinstance(value, Arg):
            return reported.value == to_bytes(field, value)
        place = Place(reported.value_at, code, value.name)
        if field is Field.CT_NW_PROTO and self._protocols:
            bound.pinned.append(place)
            return reported.value[0] in self._protocols
        bound.places.append(place)
        return True


def _reported_mask(field: Field, mask: Value | None) -> bytes | None:
    return None if mask is None else normal_mask(field, to_bytes(field, mask))


def _pattern(code: str, byte: int) -> Value:
    """A value of this ``struct`` code in which each byte is ``byte``."""
    data = bytes([byte]) * struct.calcsize(f">{code}")
    return data if code.endswith("s") else int.from_bytes(data, "big")


def _operands(shape: Shape) -> Iterator[tuple[str, str]]:
    """Each argument with the ``struct`` code of its value."""
    for item in shape.match:
        for operand in (item.value, item.mask):
            if isinstance(operand, Arg):
                yield operand.name, struct_code(item.field)
    for action in shape.actions:
        match action:
            case SetField(field=field, value=Arg(name=name)):
                yield name, struct_code(field)
            case Output(port=Arg(name=name)) | Meter(meter=Arg(name=name)):
                yield name, _NUMBER_CODE

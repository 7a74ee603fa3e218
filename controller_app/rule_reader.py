"""The inverse of the encoder: from an entry of the switch's flow statistics to the rule that it holds.

An entry is a rule of ours when the encoder, given that rule, would send the same: table, priority, flags,
every matched field with its mask, every instruction. ``reported_rule`` says where Open vSwitch uses other
words for the same.

Few byte structures occur, each with its values at fixed places. The reader learns them: the first entry
of a structure is taken apart and compared field by field, which makes a *plan*: a mask with ones
wherever no value of an argument stands, and the struct that reads these values. Another entry is read
by a plan only after each byte under the mask was found equal.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

from controller_app.decode import MalformedMessage
from controller_app.encode import Encoder
from controller_app.flow_stats import BEFORE_MATCH_BYTES, LEAST_ENTRY_BYTES
from controller_app.reported_rule import normal_instructions, parse_match
from controller_app.rule_kind import Bound, Place, RuleKind, meter_of
from ondemand.pipeline import ICMP, ICMPV6, L4, TRACKED, Pipeline
from rule_cache.fields import to_int
from rule_cache.rule import Rule, Shape

#: Most plans that a reader keeps. One pipeline has about 200 structures with its shapes, tracked
#: protocols, meters and masks; over the bound the reader starts to learn anew.
MAX_PLANS: Final = 1024

# Length, table, priority, length of the match.
_read_head = struct.Struct(">HB9xH36xH").unpack_from
# The padding behind the table, flags, the padding behind them.
_read_flags = struct.Struct(">3xB14xHI").unpack_from
#: What differs between rules besides arguments: duration, both timeouts, cookie, counters.
_VARYING: Final = ((4, 12), (14, 18), (24, 48))
_TIMEOUTS: Final = (Place(14, "H", "idle timeout"), Place(16, "H", "hard timeout"))

_Key = tuple[int, int, int, int]


class _Plan:
    """How to read the rules of one byte structure."""

    __slots__ = (
        "_constants",
        "_equal",
        "_masked",
        "_nonzero",
        "_pick",
        "_shape",
        "_unpack",
        "fixed",
        "mask",
    )

    def __init__(self, shape: Shape, entry: bytes, bound: Bound) -> None:
        mask = bytearray(b"\xff" * len(entry))
        for begin, end in (*_VARYING, *((place.at, place.end) for place in bound.places)):
            mask[begin:end] = bytes(end - begin)
        self.mask = int.from_bytes(mask, "big")
        self.fixed = int.from_bytes(entry, "big") & self.mask
        self._shape = shape
        places = sorted([*_TIMEOUTS, *bound.places, *bound.pinned], key=lambda place: place.at)
        code, read_to = ">", 0
        for place in places:
            code += f"{place.at - read_to}x{place.code}"
            read_to = place.end
        self._unpack: Callable[[bytes, int], tuple[Any, ...]] = struct.Struct(code).unpack_from
        # Behind the values that stand in the entry are those that its structure tells.
        self._constants = tuple(bound.constants.values())
        names = [place.name for place in places] + list(bound.constants)
        self._pick = _picker([names.index(name) for name in shape.args])
        #: An argument that stands in several places has one value.
        self._equal = tuple(
            (names.index(name), index)
            for index, name in enumerate(names)
            if names.index(name) != index
        )
        self._masked = tuple((names.index(v), names.index(m)) for v, m in bound.masked)
        self._nonzero = tuple(names.index(name) for name in bound.nonzero)

    def rule(self, buf: bytes, start: int) -> Rule | None:
        """The rule of an entry of this structure, None when its values contradict each other."""
        values = self._unpack(buf, start) + self._constants
        for first, second in self._equal:
            if values[first] != values[second]:
                return None
        for index in self._nonzero:
            if not values[index]:
                return None
        for value, mask in self._masked:
            if to_int(values[value]) & ~to_int(values[mask]):
                return None
        return Rule(self._shape, self._pick(values), values[0], values[1])


def _picker(order: list[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Like ``itemgetter``, which gives no tuple for less than two."""
    if len(order) > 1:
        return itemgetter(*order)
    if order:
        return itemgetter(slice(order[0], order[0] + 1))
    return itemgetter(slice(0))


class RuleReader:
    """Reads the rules of one pipeline, faster when it has seen the like before. For one thread."""

    __slots__ = ("_encoder", "_kinds", "_plan_count", "_plans", "_protocols", "_shapes")

    def __init__(self, pipeline: Pipeline) -> None:
        self._encoder = Encoder(pipeline)
        self._protocols = _protocols(pipeline)
        #: Table and priority -> shapes, and their kinds once an entry of that place has come.
        self._shapes: dict[tuple[int, int], list[Shape]] = {}
        for shape in pipeline.shapes:
            self._shapes.setdefault((shape.table, shape.priority), []).append(shape)
        self._kinds: dict[tuple[int, int], list[RuleKind]] = {}
        #: Length, table, priority and length of the match -> plans.
        self._plans: dict[_Key, list[_Plan]] = {}
        self._plan_count = 0

    def read(self, buf: bytes, start: int, end: int) -> Rule | None:
        """The rule of the entry at ``buf[start:end]``, None when no shape makes such a rule.

        Raises:
            MalformedMessage: it breaks the format.
        """
        if end - start < LEAST_ENTRY_BYTES or end > len(buf):
            raise MalformedMessage(f"flow statistics with an entry of {end - start} bytes")
        key: _Key = _read_head(buf, start)
        entry = int.from_bytes(buf[start:end], "big")
        for plan in self._plans.get(key, ()):
            if entry & plan.mask == plan.fixed:
                rule = plan.rule(buf, start)
                if rule is not None:
                    return rule
        if key[0] != end - start:
            raise MalformedMessage(f"an entry of {end - start} bytes that says it has {key[0]}")
        return self._learn(key, buf[start:end])

    def _learn(self, key: _Key, entry: bytes) -> Rule | None:
        match, instructions_at = parse_match(entry, BEFORE_MATCH_BYTES)
        instructions = normal_instructions(entry[instructions_at:])
        first_padding, flags, second_padding = _read_flags(entry)
        if match is None or first_padding or second_padding:
            return None
        for kind in self._kinds_at(key[1], key[2]):
            if kind.flags != flags:
                continue
            bound = kind.bind(match, instructions, instructions_at)
            if bound is None:
                continue
            plan = _Plan(kind.shape, entry, bound)
            rule = plan.rule(entry, 0)
            if rule is not None:
                self._keep(key, plan)
                return rule
        return None

    def _keep(self, key: _Key, plan: _Plan) -> None:
        if self._plan_count >= MAX_PLANS:
            self._plans.clear()
            self._plan_count = 0
        self._plans.setdefault(key, []).append(plan)
        self._plan_count += 1

    def _kinds_at(self, table: int, priority: int) -> list[RuleKind]:
        place = table, priority
        shapes = self._shapes.get(place)
        if shapes is None:
            return []
        kinds = self._kinds.get(place)
        if kinds is None:
            kinds = self._kinds[place] = [
                RuleKind(
                    shape,
                    self._encoder,
                    self._protocols.get(shape, frozenset()),
                    metered=metered,
                )
                for shape in shapes
                for metered in ((False, True) if meter_of(shape) is not None else (True,))
            ]
        return kinds


def _protocols(pipeline: Pipeline) -> dict[Shape, frozenset[int]]:
    """What ``ct_nw_proto`` can be in the rules of a shape.

    Conntrack keeps type and code of ICMP where it keeps ports, so the rules of one connection with
    ports and of one with ICMP match the same fields, and only the protocol tells the shapes apart.
    """
    return {
        shape: frozenset(p for p in TRACKED[family] if (p in {ICMP, ICMPV6}) == (l4 is L4.ICMP))
        for (_, family, l4, _, _), shapes in pipeline.verdict.items()
        if l4 in {L4.PORT, L4.ICMP}
        for shape in shapes
    }

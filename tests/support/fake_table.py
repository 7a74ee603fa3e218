"""One table of the fake switch: rules by what they match, found by priority, bounded and aged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from rule_cache.fields import Field, Value, to_int
from rule_cache.rule import Action, Arg, Operand, Rule, format_rule
from tests.support.fake_flow import Fields
from tests.support.fake_prerequisites import missing_prerequisite

#: Fields with their masks, in one order: what OVS calls a subtable.
_Shape = tuple[tuple[Field, int], ...]
#: What the switch tells the rules of a table apart by.
_Identity = tuple[int, _Shape, tuple[int, ...]]


class RuleRefusedError(Exception):
    """The switch answers a flow-mod with an error."""


class AmbiguousMatchError(AssertionError):
    """A packet matches two rules of one priority that do different things.

    The switch may take either (OpenFlow 1.3.5 section 5.3), so a pipeline must not rely on it.
    """


@dataclass(frozen=True, slots=True)
class FlowLimit:
    """Row of OVSDB's Flow_Table with overflow_policy=evict, groups by one field.

    ``flow_limit`` counts all rules of the table; only those with a timeout are evicted.
    """

    flow_limit: int
    group: Field = Field.REG6


class Installed:
    """A rule in the switch, its match as numbers, and its counters."""

    __slots__ = (
        "actions",
        "bound",
        "cookie",
        "created_s",
        "identity",
        "match",
        "packets",
        "rule",
        "used_s",
    )

    def __init__(self, cookie: int, rule: Rule, now_s: float) -> None:
        self.cookie = cookie
        self.rule = rule
        self.bound = dict(zip(rule.shape.args, rule.values, strict=True))
        self.match: dict[Field, tuple[int, int]] = {}
        for item in rule.shape.match:
            full = 0x03 if item.field is Field.IP_FRAG else (1 << 8 * item.field.width) - 1
            mask = full if item.mask is None else self.value_of(item.mask)
            value = self.value_of(item.value)
            if value & ~mask:
                raise RuleRefusedError(f"{rule}: bits of {item.field.text} outside of its mask")
            if mask:
                self.match[item.field] = (value, mask)
        ordered = sorted(self.match.items(), key=lambda entry: entry[0].text)
        shape = tuple((target, mask) for target, (_, mask) in ordered)
        values = tuple(value for _, (value, _) in ordered)
        self.identity: _Identity = (rule.shape.priority, shape, values)
        #: Comparable with those of other rules.
        self.actions = tuple(self._resolve(action) for action in rule.shape.actions)
        self.created_s = self.used_s = now_s
        self.packets = 0

    @property
    def has_timeout(self) -> bool:
        """Such rules come and go with traffic; the switch is asked to tell when they go."""
        return bool(self.rule.idle_timeout or self.rule.hard_timeout)

    @property
    def expires_s(self) -> float:
        """The time at which a timeout ends it if no packet comes."""
        ends = []
        if self.rule.idle_timeout:
            ends.append(self.used_s + self.rule.idle_timeout)
        if self.rule.hard_timeout:
            ends.append(self.created_s + self.rule.hard_timeout)
        return min(ends, default=float("inf"))

    def value_of(self, operand: Operand) -> int:
        return to_int(self.bound[operand.name] if isinstance(operand, Arg) else operand)

    def _resolve(self, action: Action) -> tuple[type[Action], tuple[object, ...]]:
        operands: list[object] = []
        for name in type(action).__slots__:
            operand: Operand | object = getattr(action, name)
            operands.append(self.value_of(operand) if isinstance(operand, Arg | Value) else operand)
        return type(action), tuple(operands)

    def __str__(self) -> str:
        return format_rule(self.rule, self.cookie)


class FakeTable:
    """Rules of one table."""

    def __init__(self, limit: FlowLimit | None = None) -> None:
        self._limit = limit
        self._by_identity: dict[_Identity, Installed] = {}
        #: Priority -> fields and masks -> values -> rule.
        self._subtables: dict[int, dict[_Shape, dict[tuple[int, ...], Installed]]] = {}

    def __iter__(self) -> Iterator[Installed]:
        return iter(self._by_identity.values())

    def __len__(self) -> int:
        return len(self._by_identity)

    def add(self, installed: Installed) -> tuple[Installed | None, Installed | None]:
        """Put a rule in: (the rule that it replaces, the rule evicted to make room).

        Raises:
            RuleRefusedError: the match lacks a prerequisite, or the table is full.
        """
        problem = missing_prerequisite(installed.match)
        if problem:
            raise RuleRefusedError(f"{installed}: {problem}")
        replaced = self._by_identity.get(installed.identity)
        evicted = None
        if replaced is not None:
            self.remove(replaced)
        elif self._limit is not None and len(self) >= self._limit.flow_limit:
            evicted = self._victim(self._limit.group)
            if evicted is None:
                raise RuleRefusedError(f"{installed}: the table is full")
            self.remove(evicted)
        priority, shape, values = installed.identity
        self._by_identity[installed.identity] = installed
        self._subtables.setdefault(priority, {}).setdefault(shape, {})[values] = installed
        return replaced, evicted

    def remove(self, installed: Installed) -> None:
        priority, shape, values = installed.identity
        del self._by_identity[installed.identity]
        subtables = self._subtables[priority]
        del subtables[shape][values]
        if not subtables[shape]:
            del subtables[shape]

    def lookup(self, fields: Fields) -> Installed | None:
        """The rule of the highest priority that matches."""
        for priority in sorted(self._subtables, reverse=True):
            found: list[Installed] = []
            for shape, rules in self._subtables[priority].items():
                values = tuple(fields.get(target, 0) & mask for target, mask in shape)
                if values in rules:
                    found.append(rules[values])
            if len({rule.actions for rule in found}) > 1:
                raise AmbiguousMatchError(" and ".join(map(str, found)))
            if found:
                return found[0]
        return None

    def _victim(self, group: Field) -> Installed | None:
        """The rule that would expire first, of the group that has most (ovs-vswitchd.conf.db(5))."""
        candidates = [rule for rule in self if rule.has_timeout]
        sizes = Counter(rule.match.get(group, (0, 0)) for rule in candidates)
        if not sizes:
            return None
        (largest, _), *_ = sizes.most_common(1)
        members = (rule for rule in candidates if rule.match.get(group, (0, 0)) == largest)
        return min(members, key=lambda rule: rule.expires_s)

"""Security groups, compiled so that a verdict costs the same for ten rules as for thousands.

The rules of all groups of a port become, per direction, family and protocol, a row of *cells*: port
ranges between the bounds that occur in rules (or ICMP types and codes that occur). In a cell stay only
the remotes that matter there: anybody, some groups, some prefixes. A cell is made when a packet first
falls into it, so that compiling is cheap and a policy change costs no more than what traffic uses.

``docs/security-groups.md`` has the meaning; ``tests/support/policy_reference.py`` has the same meaning
as a plain scan over all rules, and the two are compared by random search.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from ondemand.records import ANY, ANY_PROTOCOL, Direction, SecurityRule
from ondemand.slices import group_slice


@dataclass(frozen=True, slots=True)
class RuleRef:
    """A rule of a group, by name."""

    group: str
    rule: str

    def __str__(self) -> str:
        return f"{self.group}/{self.rule}"


class Cell:
    """The remotes that are allowed at one place, each with the rule that says so."""

    __slots__ = ("anybody", "groups", "prefixes")

    def __init__(self, rules: Iterable[tuple[RuleRef, SecurityRule]]) -> None:
        self.anybody: RuleRef | None = None
        self.groups: dict[str, RuleRef] = {}
        by_length: dict[int, dict[int, RuleRef]] = {}
        for ref, rule in rules:
            if rule.remote_group is not None:
                self.groups.setdefault(rule.remote_group, ref)
            elif rule.remote_prefix is None or rule.remote_prefix.length == 0:
                self.anybody = self.anybody or ref
            else:
                network = rule.remote_prefix.network
                shift = len(network) * 8 - rule.remote_prefix.length
                row = by_length.setdefault(shift, {})
                row.setdefault(int.from_bytes(network, "big") >> shift, ref)
        if self.anybody is not None:
            self.groups, by_length = {}, {}
        #: (bits to drop, {prefix: rule}) for each prefix length that occurs.
        self.prefixes = tuple(by_length.items())

    def of_address(self, ip: bytes) -> RuleRef | None:
        """The rule that allows this address whoever holds it."""
        if self.anybody is not None:
            return self.anybody
        if self.prefixes:
            number = int.from_bytes(ip, "big")
            for shift, row in self.prefixes:
                ref = row.get(number >> shift)
                if ref is not None:
                    return ref
        return None

    def of_groups(self, groups: Sequence[str]) -> RuleRef | None:
        """The rule that allows a member of any of these groups."""
        allowed = self.groups
        for group in groups:
            ref = allowed.get(group)
            if ref is not None:
                return ref
        return None


_Entry = tuple[RuleRef, SecurityRule]


class _Row:
    """The cells of one direction, family and protocol."""

    __slots__ = ("_bounds", "_cells", "_codes", "_exact", "_types", "_wide")

    def __init__(self, rules: list[_Entry], *, icmp: bool) -> None:
        #: Rules of one port or ICMP type, by it; and all others. Most rules are of the first sort.
        #: With their places in the list: the first rule that allows is the one that is named.
        self._exact: dict[int, list[tuple[int, _Entry]]] = {}
        self._wide: list[tuple[int, _Entry]] = []
        for place, entry in enumerate(rules):
            low, high = entry[1].port_min, entry[1].port_max
            if low != ANY and (icmp or low == high):
                self._exact.setdefault(low, []).append((place, entry))
            else:
                self._wide.append((place, entry))
        self._cells: dict[int | tuple[int, int], Cell] = {}
        self._bounds: list[int] | None = None
        if icmp:
            self._types = frozenset(rule.port_min for _, rule in rules)
            self._codes = frozenset(rule.port_max for _, rule in rules)
        else:
            bounds = {0}
            for _, rule in rules:
                if rule.port_min != ANY:
                    bounds.update((rule.port_min, rule.port_max + 1))
            self._bounds = sorted(bounds)

    def cell(self, first: int, second: int) -> Cell:
        """``first``, ``second``: destination port and anything, or ICMP type and code."""
        place: int | tuple[int, int]
        if self._bounds is not None:
            place = bisect_right(self._bounds, first)
        else:
            # A type or code that no rule names falls into the cell of "any".
            place = (
                first if first in self._types else ANY,
                second if second in self._codes else ANY,
            )
        cell = self._cells.get(place)
        if cell is None:
            cell = self._cells[place] = Cell(self._covering(first, second))
        return cell

    def _covering(self, first: int, second: int) -> Iterable[_Entry]:
        found = [
            (place, entry)
            for place, entry in self._exact.get(first, ())
            if self._bounds is not None or entry[1].port_max in (ANY, second)
        ]
        found += [
            (place, entry)
            for place, entry in self._wide
            if entry[1].port_min == ANY or entry[1].port_min <= first <= entry[1].port_max
        ]
        return [entry for _, entry in sorted(found, key=itemgetter(0))]


class Policy:
    """The rules of all groups of a port together. Groups only ever add to what is allowed.

    So what is allowed without the rules of a group that are not here yet stays allowed when they come;
    ``missing`` are the slices of such groups, and only a denial has to wait for them.
    """

    __slots__ = ("_other", "_rows", "missing", "remote_groups", "rules", "tags")

    def __init__(self, groups: Mapping[str, Iterable[SecurityRule] | None]) -> None:
        """``groups``: the rules of each group, None when they are not here yet."""
        entries = [
            (RuleRef(group, rule.id), rule)
            for group, rules in groups.items()
            for rule in rules or ()
        ]
        #: What a verdict by this policy has read: the whole slice of each group.
        self.tags = tuple(group_slice(group) for group in groups)
        self.missing = tuple(group_slice(g) for g, rules in groups.items() if rules is None)
        #: How many rules went in.
        self.rules = len(entries)
        #: Groups whose members some rule lets in or reaches.
        self.remote_groups = frozenset(
            rule.remote_group for _, rule in entries if rule.remote_group is not None
        )
        self._rows: dict[tuple[Direction, int, int], _Row] = {}
        self._other: dict[tuple[Direction, int], _Row] = {}
        for direction in Direction:
            for family in (4, 6):
                mine = [e for e in entries if e[1].direction == direction and e[1].family == family]
                anything = [e for e in mine if e[1].protocol == ANY_PROTOCOL]
                self._other[direction, family] = _Row(anything, icmp=False)
                for protocol in {e[1].protocol for e in mine} - {ANY_PROTOCOL}:
                    self._rows[direction, family, protocol] = _Row(
                        [e for e in mine if e[1].protocol in (protocol, ANY_PROTOCOL)],
                        icmp=protocol in (1, 58),
                    )

    def cell(
        self, direction: Direction, family: int, protocol: int, first: int, second: int
    ) -> Cell:
        """Who is allowed here: destination port as ``first``, or ICMP type and code.

        Protocols without either pass 0, 0.
        """
        row = self._rows.get((direction, family, protocol))
        if row is None:
            row = self._other[direction, family]
        return row.cell(first, second)


def narrows(old: SecurityRule | None, new: SecurityRule | None) -> bool:
    """Whether replacing ``old`` by ``new`` may forbid what was allowed: anything but an addition."""
    return old is not None and old != new

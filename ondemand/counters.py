"""Counters: what happened, to which port, how often."""

from __future__ import annotations

from collections import defaultdict


class Counters:
    """Counts by name and port ("" for what belongs to no port). Only ever grows."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str], int] = defaultdict(int)

    def add(self, name: str, port: str = "", count: int = 1) -> None:
        self._counts[name, port] += count

    def of(self, name: str, port: str | None = None) -> int:
        """One count; with ``port`` None the sum over all ports."""
        if port is not None:
            return self._counts.get((name, port), 0)
        return sum(count for (of_name, _), count in self._counts.items() if of_name == name)

    def by_name(self) -> dict[str, dict[str, int]]:
        """All counts as {name: {port: count}}, sorted."""
        table: dict[str, dict[str, int]] = {}
        for (name, port), count in sorted(self._counts.items()):
            table.setdefault(name, {})[port] = count
        return table

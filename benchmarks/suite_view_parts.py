"""What views of results have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from benchmarks.suite_results import Panel, Ratio, Value
from benchmarks.summary import Spread

#: What a benchmark wrote, and what makes panels of the results of all its runs.
Raw = Mapping[str, Any]
View = Callable[[Sequence[Raw]], list[Panel]]

#: Where a frame goes, in words.
PATHS: Final = {"local": "both VMs on one host", "remote": "to another host over VXLAN"}


def value(said: Mapping[str, float]) -> Value:
    return Value(said["median"], said["low"], said["high"])


def of(numbers: Sequence[float]) -> Value:
    spread = Spread.of(numbers)
    return Value(spread.median, spread.low, spread.high)


def ratios(what: str, pairs: Sequence[tuple[str, str, Mapping[str, float]]]) -> list[Ratio]:
    return [Ratio(what, ours, theirs, value(said)) for ours, theirs, said in pairs]


def percent(share: float) -> str:
    return f"{share * 100:g}%"


__all__ = ["PATHS", "Raw", "View", "of", "percent", "ratios", "value"]

"""What a demo or an experiment promises, what it saw, and what it measured: plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

LabT = TypeVar("LabT")


@dataclass(frozen=True, slots=True)
class Promise:
    """One thing that must hold. ``name`` is unique within a report; ``promised`` is a short clause."""

    theme: str
    name: str
    promised: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What was observed, in a few words, and whether it is what was promised."""

    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Trial(Generic[LabT]):
    """One action and the promises that it tests.

    Attributes:
        promises: one or more.
        look: acts on the lab and returns what was seen of each promise, in their order. It may raise
            ``LabError`` or ``SourceError``; then none of the promises held.
    """

    promises: tuple[Promise, ...]
    look: Callable[[LabT], Sequence[Seen]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A promise and what came of it; ``seconds`` that its trial took."""

    promise: Promise
    seen: Seen
    seconds: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """Figures without a threshold: what they are of -> value. ``name`` is unique within a report."""

    name: str
    unit: str
    values: Mapping[str, float]


def check(theme: str, name: str, promised: str, look: Callable[[LabT], Seen]) -> Trial[LabT]:
    """A trial with one promise."""
    return Trial((Promise(theme, name, promised),), lambda lab: (look(lab),))


def all_of(*seen: Seen) -> Seen:
    """Several observations of one promise, which holds when all of them are as promised."""
    return Seen(all(one.ok for one in seen), "; ".join(one.text for one in seen))

"""What the experiment promises, and whether the results keep it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mininet_topos.promises import Outcome, Promise, Seen
from scale.contest import PULL, PULL_ALL, PUSH
from scale.measure import CHANGE_TIMEOUT_S, Result
from scale.tables import size

_MAX_GROWTH: Final = 2.0
_SLICES: Final = "Slice source"


@dataclass(frozen=True, slots=True)
class Results:
    """By number of hosts, and by size of the goal state."""

    by_hosts: Sequence[Result]
    by_goal: Sequence[Result]

    def joined(self, other: Results) -> Results:
        """With all of another run that was not measured anew in this one."""
        return Results(
            _joined(other.by_hosts, self.by_hosts, lambda one: (one.hosts, one.contender)),
            _joined(other.by_goal, self.by_goal, lambda one: (one.vpc_bytes, one.contender)),
        )

    def of(self, *contenders: str) -> list[Result]:
        return [one for one in (*self.by_hosts, *self.by_goal) if one.contender in contenders]


def _joined(
    old: Sequence[Result], new: Sequence[Result], key: Callable[[Result], tuple[int, str]]
) -> list[Result]:
    found = {key(one): one for one in (*old, *new)}
    order = {contender: place for place, contender in enumerate((PULL, PULL_ALL, PUSH))}
    return sorted(found.values(), key=lambda one: (key(one)[0], order.get(one.contender, 9)))


@dataclass(frozen=True, slots=True)
class _Test:
    promise: Promise
    look: Callable[[Results], Seen]


def promises(
    *, has_slices: bool, has_push: bool, has_restart: bool, has_goals: bool
) -> list[_Test]:
    """All that must hold in a run with these parts."""
    within = f"within {CHANGE_TIMEOUT_S:.0f} s"
    pulls = (PULL, PULL_ALL)
    tests = []
    if has_slices:
        promised = f"each at all hosts that hold it {within}, and once"
        tests += [
            _test(_SLICES, "changes", promised, pulls, _changes),
            _test(_SLICES, "the end", "all hosts hold what the store holds", pulls, _equal),
        ]
    if has_slices and has_restart:
        promised = "fewer bytes than the cold start"
        tests.append(_test(_SLICES, "restart with what was saved", promised, (PULL,), _cheaper))
    if has_slices and has_goals:
        promised = (
            f"bytes of a change grow less than {_MAX_GROWTH:.0f} times where hosts use as much"
        )
        tests.append(_test(_SLICES, "a larger VPC", promised, (PULL,), _flat, by_goal=True))
    if has_push:
        tests += [
            _test(
                "Push",
                "pushed changes",
                f"each at all hosts that hold it {within}",
                (PUSH,),
                _changes,
            ),
            _test(
                "Push",
                "the end of the push",
                "all hosts hold what the pusher holds",
                (PUSH,),
                _equal,
            ),
        ]
    return tests


def _test(
    theme: str,
    name: str,
    promised: str,
    contenders: Sequence[str],
    look: Callable[[Sequence[Result]], Seen],
    *,
    by_goal: bool = False,
) -> _Test:
    def see(results: Results) -> Seen:
        found = [one for one in results.of(*contenders) if not by_goal or one in results.by_goal]
        return look(found) if found else Seen(ok=False, text="nothing was measured")

    return _Test(Promise(theme, name, promised), see)


def outcomes(tests: Sequence[_Test], results: Results) -> list[Outcome]:
    """What came of each promise."""
    return [Outcome(test.promise, test.look(results), 0.0) for test in tests]


def _changes(results: Sequence[Result]) -> Seen:
    expected = sum(one.expected for one in results)
    entered = sum(one.entered for one in results)
    twice = sum(one.twice for one in results)
    healed = sum(one.heals for one in results)
    text = f"{entered:,} of {expected:,} arrived, {twice} twice, {healed} healed"
    return Seen(ok=entered == expected and twice == 0, text=text)


def _equal(results: Sequence[Result]) -> Seen:
    different = sum(one.different for one in results)
    first = [text for one in results for text in one.first][:3]
    hosts = sum(one.hosts for one in results)
    if different:
        return Seen(ok=False, text=f"{different:,} differ: {', '.join(first)}")
    return Seen(ok=True, text=f"{hosts:,} hosts compared, record by record")


def _cheaper(results: Sequence[Result]) -> Seen:
    pairs = [
        (one.hosts, one.steps["restart"].bytes, one.steps["cold"].bytes)
        for one in results
        if "restart" in one.steps
    ]
    hosts, restart, cold = pairs[-1] if pairs else (0, 0.0, 0.0)
    text = f"{size(restart / max(hosts, 1))} instead of {size(cold / max(hosts, 1))} a host"
    return Seen(ok=bool(pairs) and all(after < before for _, after, before in pairs), text=text)


def _flat(results: Sequence[Result]) -> Seen:
    each = [(one.vpc_bytes, one.steps["group"].bytes / one.hosts) for one in results]
    (low, least), (high, most) = each[0], each[-1]
    text = f"{size(least)} with {size(low)} in the VPC, {size(most)} with {size(high)}"
    return Seen(ok=most <= _MAX_GROWTH * least, text=text)


__all__ = ["Results", "outcomes", "promises"]

"""In which order the slices of a publish are written.

Each slice is a transaction of its own, so readers see what is between them. A port that moves from a host's
slice to a host group's, or back, must be in one of them at every moment, or its connections are cut. So:

1. slices of hosts and host groups get what is new in them, and lose and change nothing;
2. all other slices are written, so that what is changed next finds its security groups;
3. slices of hosts and host groups are written as they shall be;
4. slices that nobody wants any more are emptied.

A slice that loses and changes nothing is done after the first step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from controller_app.nats_commit import SliceState
from ondemand.publishing import (
    Difference,
    Payloads,
    Progress,
    PublishResult,
    SliceCounts,
    difference,
)
from ondemand.slices import SliceKind, kind_of

#: Progress is told each time so many records more are done.
_PROGRESS_EVERY: Final = 10_000
#: Of slices that hold ports.
_PORT_KINDS: Final = (SliceKind.HOST, SliceKind.HOST_GROUP)

Changes = Sequence[tuple[str, bytes | None]]
InParallel = Callable[
    [Callable[[str], Coroutine[Any, Any, object]], Iterable[str]], Awaitable[None]
]


class Bring(Protocol):
    """Write what differs in a slice: its state before, and its version afterwards."""

    async def __call__(
        self,
        name: str,
        differing: Callable[[SliceState], Changes],
        *,
        is_new: bool,
        expected: int | None,
    ) -> tuple[SliceState, int]: ...


class Publication:
    """One publish. ``there``: the slices that were ever written."""

    def __init__(
        self,
        bring: Bring,
        in_parallel: InParallel,
        desired: Mapping[str, Payloads],
        *,
        there: Collection[str],
        expected: Mapping[str, int],
        progress: Progress | None,
    ) -> None:
        self._bring = bring
        self._in_parallel = in_parallel
        self._desired = desired
        self._there = frozenset(there)
        self._expected = dict(expected)
        self._progress = progress
        self._total = sum(map(len, desired.values()))
        self._done = self._told = 0
        self._counts: dict[str, SliceCounts] = {}
        #: What the first step found in slices that the third one has to finish.
        self._unfinished: dict[str, Difference] = {}

    async def run(self, *, replace_all: bool) -> None:
        with_ports = [name for name in self._desired if kind_of(name) in _PORT_KINDS]
        others = self._desired.keys() - with_ports
        await self._in_parallel(self._add, with_ports)
        await self._in_parallel(self._replace, [name for name in self._desired if name in others])
        await self._in_parallel(self._finish, list(self._unfinished))
        if replace_all:
            await self._in_parallel(self._empty, sorted(self._there - self._desired.keys()))

    def result(self) -> PublishResult:
        if self._progress is not None:
            self._progress(self._total, self._total)
        return PublishResult(self._counts)

    async def _add(self, name: str) -> None:
        found, version = await self._write(name, _added, is_new=name not in self._there)
        if found.changed or found.removed:
            self._unfinished[name] = found
            if name in self._expected:
                self._expected[name] = version
        else:
            self._count(name, found, version)

    async def _replace(self, name: str) -> None:
        self._count(name, *await self._write(name, _all, is_new=name not in self._there))

    async def _finish(self, name: str) -> None:
        before = self._unfinished[name]
        found, version = await self._write(name, _all, is_new=False)
        added = before.added + found.added
        self._count(
            name, Difference(added, found.changed, found.removed, before.unchanged), version
        )

    async def _empty(self, name: str) -> None:
        found, version = await self._write(name, _all, is_new=False)
        if found:
            self._count(name, found, version)

    async def _write(
        self, name: str, wanted: Callable[[Difference, Payloads], Changes], *, is_new: bool
    ) -> tuple[Difference, int]:
        """Write a part of what differs: all that differed before, and the version afterwards."""
        records = self._desired.get(name, {})

        def differing(state: SliceState) -> Changes:
            return wanted(difference(state.live(), records), records)

        before, version = await self._bring(
            name, differing, is_new=is_new, expected=self._expected.get(name)
        )
        return difference(before.live(), records), version

    def _count(self, name: str, found: Difference, version: int) -> None:
        self._counts[name] = SliceCounts(
            version=version,
            added=len(found.added),
            changed=len(found.changed),
            removed=len(found.removed),
            unchanged=found.unchanged,
        )
        self._done += len(self._desired.get(name, ()))
        if self._progress is not None and self._done - self._told >= _PROGRESS_EVERY:
            self._progress(self._done, self._total)
            self._told = self._done


def _added(found: Difference, records: Payloads) -> Changes:
    return [(key, records[key]) for key in found.added]


def _all(found: Difference, records: Payloads) -> Changes:
    changes: list[tuple[str, bytes | None]] = [*_added(found, records)]
    changes += [(key, records[key]) for key in found.changed]
    changes += [(key, None) for key in found.removed]
    return changes

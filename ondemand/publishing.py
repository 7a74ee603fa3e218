"""How goal state gets into a source of slices: the writer's side of the contract in ``slices``.

A publisher is told what the records shall be and writes only what differs, so that publishing the
same goal state twice changes no version and wakes no reader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

#: Told now and then how many of the records are done, and how many there are.
Progress = Callable[[int, int], None]

Payloads = Mapping[str, bytes]


class PublishConflictError(Exception):
    """A slice is not at the version that the writer expected; nothing was written."""

    def __init__(self, name: str, expected: int, found: int) -> None:
        super().__init__(
            f"slice {name!r} is at version {found}, not {expected}: somebody else published;"
            " look at what is there now and publish again"
        )
        self.name = name
        self.expected = expected
        self.found = found


@dataclass(frozen=True, slots=True)
class Difference:
    """The keys by which two sets of records differ, in the order of the desired set."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def difference(current: Payloads, desired: Payloads) -> Difference:
    """What must be written and removed to make ``current`` into ``desired``."""
    added: list[str] = []
    changed: list[str] = []
    for key, payload in desired.items():
        held = current.get(key)
        if held is None:
            added.append(key)
        elif held != payload:
            changed.append(key)
    return Difference(
        added=tuple(added),
        changed=tuple(changed),
        removed=tuple(key for key in current if key not in desired),
        unchanged=len(desired) - len(added) - len(changed),
    )


@dataclass(frozen=True, slots=True)
class SliceCounts:
    """What publishing did to one slice, in records, and the slice's version after it."""

    version: int
    added: int
    changed: int
    removed: int
    unchanged: int

    @property
    def written(self) -> int:
        """The records of which a reader hears."""
        return self.added + self.changed + self.removed


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What publishing did, for each slice that was looked at."""

    slices: Mapping[str, SliceCounts]

    @property
    def written(self) -> int:
        """The records of which readers hear; 0 when the store held the goal state already."""
        return sum(counts.written for counts in self.slices.values())


class Publisher(Protocol):
    """Where slices are written. All methods raise SourceError when the source cannot be written."""

    def publish(
        self,
        desired: Mapping[str, Payloads],
        *,
        replace_all: bool,
        expected: Mapping[str, int] | None = None,
        progress: Progress | None = None,
    ) -> PublishResult:
        """Make each slice in ``desired`` hold exactly the records given for it.

        Other slices stay as they are, or are emptied when ``replace_all`` is set. ``expected`` names
        versions that slices must have.

        Raises:
            PublishConflictError: a slice has another version than ``expected`` says.
        """

    def write(self, name: str, changes: Mapping[str, bytes | None]) -> int:
        """Write (payload) or remove (None) single records; the slice's version afterwards."""

    def close(self) -> None:
        """Release files and connections."""

"""What a kind of source must bring so that the contract suite can run against it, and what the suite
looks through: a recorder of what a watch delivers, and a reader that follows one slice.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from ondemand.publishing import Publisher
from ondemand.slices import Delta, SliceSource, Snapshot, SourceEvent, SourceState

#: Longer than any sound source needs; only a failing test waits for it.
PATIENCE_S = 20.0


class Backend(ABC):
    """One store of slices, empty at first."""

    @abstractmethod
    def source(self) -> SliceSource:
        """A new reader of the store."""

    @abstractmethod
    def publisher(self) -> Publisher:
        """A new writer of the store."""

    @abstractmethod
    def forget_history(self, name: str) -> None:
        """Change a slice so that no delta from any of its versions so far can be given."""

    @abstractmethod
    def lose(self) -> None:
        """Make the store unreachable, keeping what it holds."""

    @abstractmethod
    def restore(self) -> None:
        """Make it reachable again."""

    @abstractmethod
    def make_anew(self) -> None:
        """Throw the store away with all it holds, and create an empty one in its place."""

    @abstractmethod
    def close(self) -> None:
        """Close all readers and writers."""


class Recorder:
    """Takes what a watch delivers, from the source's own thread."""

    def __init__(self) -> None:
        self.events: list[SourceEvent] = []
        self._arrived = threading.Condition()

    def __call__(self, event: SourceEvent) -> None:
        with self._arrived:
            self.events.append(event)
            self._arrived.notify_all()

    def wait_for(self, holds: Callable[[list[SourceEvent]], object]) -> list[SourceEvent]:
        """The events so far, once ``holds`` is true of them."""
        with self._arrived:
            reached = self._arrived.wait_for(lambda: holds(self.events), PATIENCE_S)
            assert reached, f"did not come in {PATIENCE_S} s; events so far: {self.events}"
            return list(self.events)

    def of(self, name: str) -> list[Delta | Snapshot]:
        with self._arrived:
            return [e for e in self.events if not isinstance(e, SourceState) and e.slice == name]

    def states(self) -> list[SourceState]:
        with self._arrived:
            return [event for event in self.events if isinstance(event, SourceState)]


class Replica:
    """A reader of one slice that refuses a gap, a repetition and a step back."""

    def __init__(self, start: Snapshot) -> None:
        self.name = start.slice
        self.version = start.version
        self.records = dict(start.records)

    def apply(self, event: SourceEvent) -> None:
        if isinstance(event, SourceState) or event.slice != self.name:
            return
        assert event.version > self.version, "delivered twice, or out of order"
        if isinstance(event, Snapshot):
            self.records = dict(event.records)
        else:
            assert event.since == self.version, "a gap"
            check_chain(event)
            apply_changes(self.records, event)
        self.version = event.version


def apply_changes(records: dict[str, bytes], delta: Delta) -> None:
    for change in delta.changes:
        if change.payload is None:
            records.pop(change.key, None)
        else:
            records[change.key] = change.payload


def check_chain(delta: Delta) -> None:
    """Each change follows the one before it, from ``since`` to the version of the delta."""
    previous = delta.since
    for change in delta.changes:
        assert change.previous == previous
        assert change.version > change.previous
        previous = change.version
    assert previous <= delta.version


def follow_until(recorder: Recorder, replica: Replica, version: int) -> None:
    """Let ``replica`` apply what arrived, until it is at ``version``."""
    recorder.wait_for(lambda events: any(reaches(event, replica.name, version) for event in events))
    for event in list(recorder.events):
        replica.apply(event)
    assert replica.version == version


def reaches(event: SourceEvent, name: str, version: int) -> bool:
    is_told = isinstance(event, Delta | Snapshot) and event.slice == name
    return is_told and event.version >= version


def settle() -> None:
    """Give a source the time to deliver what it should not deliver."""
    time.sleep(0.15)

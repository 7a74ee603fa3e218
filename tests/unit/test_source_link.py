"""The link to a slice source: one slice that cannot be read holds up nobody else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from controller_app.requests_aside import RequestsAside
from controller_app.source_link import FETCHES_TOGETHER, Answer, SourceLink, StoreIs
from ondemand.messages import Fetch, Follow, Forget, Heal
from ondemand.slices import (
    Delta,
    Lookup,
    SliceRefusedError,
    Snapshot,
    SourceError,
    SourceState,
    TooOld,
)
from tests.support.fault_source import FaultSource
from tests.support.slice_store import SliceStore

PATIENCE_S = 10.0
A, B, C = "vpc/a", "vpc/b", "vpc/c"


class RefusingSource(FaultSource):
    """Refuses the slices in ``refused``, each with its text, and everything while ``lost`` is set.

    Attributes:
        tried: (slice, key) of all records that were asked for, also in vain.
    """

    def __init__(self, *, is_local: bool = False) -> None:
        self.records = SliceStore()
        super().__init__(self.records)
        self.is_local = is_local  # type: ignore[misc]
        self.refused: dict[str, str] = {}
        self.lost: str | None = None
        self.is_identity_refused = False
        self.tried: list[tuple[str, str]] = []

    def identity(self) -> str:
        self._check_store()
        if self.is_identity_refused:
            raise SliceRefusedError("nothing may be read: allow it")
        return super().identity()

    def get(self, name: str, key: str) -> Lookup:
        self.tried.append((name, key))
        self._check(name)
        return super().get(name, key)

    def get_many(self, places: Sequence[tuple[str, str]]) -> list[Lookup]:
        return [self.get(name, key) for name, key in places]

    def snapshot(self, name: str) -> Snapshot:
        self.tried.append((name, ""))
        self._check(name)
        return super().snapshot(name)

    def delta(self, name: str, since: int) -> Delta | TooOld:
        self._check(name)
        return super().delta(name, since)

    def _check(self, name: str) -> None:
        self._check_store()
        text = self.refused.get(name)
        if text is not None:
            raise SliceRefusedError(text)

    def _check_store(self) -> None:
        if self.lost is not None:
            raise SourceError(self.lost)


class Site:
    """A link on a source, with all that it delivers and says."""

    def __init__(self, *, is_local: bool = False, first_s: float = 0.02) -> None:
        self.source = RefusingSource(is_local=is_local)
        for name in (A, B, C):
            self.source.write(name, {"1": b"one", "2": b"two"})
        self.answers: list[Answer] = []
        self.warnings: list[str] = []
        self._arrived = threading.Condition()
        self.link = SourceLink(
            self.source,
            self._deliver,
            warn=self.warnings.append,
            aside=RequestsAside(first_s=first_s, longest_s=max(first_s, 0.05), gap_s=0.0),
        )

    def _deliver(self, answer: Answer) -> None:
        with self._arrived:
            self.answers.append(answer)
            self._arrived.notify_all()

    def until(self, holds: Callable[[], object]) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < end_s, f"it did not happen: {self.answers}, {self.warnings}"
            with self._arrived:
                self._arrived.wait(0.01)

    def keys(self, name: str) -> list[str]:
        """Keys of the records of a slice that were answered, in order."""
        return [one.key for one in self.answers if isinstance(one, Lookup) and one.slice == name]

    def states(self) -> list[str | None]:
        return [one.error for one in self.answers if isinstance(one, SourceState)]

    def is_tried(self, name: str, times: int) -> bool:
        return sum(1 for slice_, _ in self.source.tried if slice_ == name) >= times


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.link.close()


@pytest.fixture
def local_site() -> Iterator[Site]:
    site = Site(is_local=True)
    yield site
    site.link.close()


def test_a_refused_slice_in_front_holds_up_no_other(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    site.source.refused[A] = "slice 'vpc/a' is refused: allow it"
    for request in (Fetch(A, "1"), Follow(A, None), Fetch(B, "1"), Fetch(A, "2"), Follow(C, None)):
        site.link.ask(request)
    site.until(lambda: site.keys(B) and any(isinstance(one, Snapshot) for one in site.answers))
    site.until(lambda: site.is_tried(A, 4))
    assert not [one for one in site.answers if not isinstance(one, StoreIs) and one.slice == A]  # type: ignore[union-attr]
    assert site.states() == [], "the source is not lost"
    # Once, however often it was tried.
    assert [text.partition(";")[0] for text in site.warnings] == [site.source.refused[A]]
    assert "until slice 'vpc/a' can be read" in site.warnings[0]
    # The source's changes go on.
    site.source.write(C, {"1": b"new"})
    site.until(lambda: isinstance(site.answers[-1], Delta))

    del site.source.refused[A]
    site.until(lambda: site.keys(A) == ["1", "2"])
    kinds = [type(one) for one in site.answers if getattr(one, "slice", None) == A]
    assert kinds == [Lookup, Snapshot, Lookup], "in the order in which they were asked for"
    assert caplog.messages.count("slice 'vpc/a' can be read again") == 1
    # And what comes later is answered as ever.
    site.link.ask(Fetch(A, "3"))
    site.until(lambda: site.keys(A) == ["1", "2", "3"])
    assert len(site.warnings) == 1


def test_another_reason_is_told_and_so_is_the_same_one_after_it_was_readable(site: Site) -> None:
    site.source.refused[A] = "not allowed: allow it"
    site.link.ask(Fetch(A, "1"))
    site.until(lambda: len(site.warnings) == 1)
    site.source.refused[A] = "damaged: publish it again"
    site.until(lambda: len(site.warnings) == 2)
    del site.source.refused[A]
    site.until(lambda: site.keys(A) == ["1"])
    site.source.refused[A] = "damaged: publish it again"
    site.link.ask(Fetch(A, "2"))
    site.until(lambda: len(site.warnings) == 3)
    assert [text.partition(":")[0] for text in site.warnings] == [
        "not allowed",
        "damaged",
        "damaged",
    ]


def test_two_refused_slices_come_back_each_for_itself(site: Site) -> None:
    site.source.refused = {A: "a is refused: allow it", B: "b is refused: allow it"}
    for name in (A, B, A, B):
        site.link.ask(Fetch(name, "1"))
    site.link.ask(Fetch(B, "2"))
    site.link.ask(Fetch(C, "1"))
    site.until(lambda: site.keys(C))
    site.until(lambda: site.is_tried(A, 3) and site.is_tried(B, 3))
    assert sorted(text[0] for text in site.warnings) == ["a", "b"]
    del site.source.refused[B]
    site.until(lambda: site.keys(B) == ["1", "2"])
    assert site.keys(A) == []
    del site.source.refused[A]
    site.until(lambda: site.keys(A) == ["1"])


def test_a_slice_that_is_forgotten_is_not_asked_for_any_more(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    site.source.refused = {A: "a is refused: allow it", B: "b is refused: allow it"}
    for request in (Follow(A, None), Fetch(A, "1"), Fetch(B, "1"), Forget(A), Fetch(C, "1")):
        site.link.ask(request)
    site.until(lambda: site.keys(C))
    tried = len([name for name, _ in site.source.tried if name == A])
    site.until(lambda: site.is_tried(B, 4))
    assert len([name for name, _ in site.source.tried if name == A]) == tried
    site.source.refused.clear()
    site.until(lambda: site.keys(B))
    assert site.keys(A) == []
    assert "slice 'vpc/a' can be read again" not in caplog.messages
    # Who wants it anew is answered, and told anew when it is refused.
    site.source.refused[A] = "a is refused: allow it"
    site.link.ask(Fetch(A, "2"))
    site.until(lambda: len(site.warnings) == 3)
    site.source.refused.clear()
    site.until(lambda: site.keys(A) == ["2"])


def test_the_whole_store_fails_while_a_slice_is_refused(site: Site) -> None:
    site.source.refused[A] = "a is refused: allow it"
    site.link.ask(Fetch(A, "1"))
    site.until(lambda: site.warnings)
    site.source.lost = "the store is gone: bring it back"
    site.until(lambda: site.states() == ["the store is gone: bring it back"])
    site.link.ask(Fetch(B, "1"))
    site.link.ask(Fetch(A, "2"))
    site.source.lost = None
    site.until(lambda: site.keys(B) == ["1"])
    assert site.states() == ["the store is gone: bring it back", None]
    assert site.keys(A) == []
    assert len(site.warnings) == 1, "nothing new is known of the slice"
    del site.source.refused[A]
    site.until(lambda: site.keys(A) == ["1", "2"])
    assert site.states() == ["the store is gone: bring it back", None]


def test_what_is_refused_for_the_whole_store_is_a_lost_source(site: Site) -> None:
    """Also where the identity is known from before, so that a slice is what is asked for first."""
    site.link.ask(Fetch(B, "1"))
    site.until(lambda: site.keys(B))
    site.source.is_identity_refused = True
    site.source.refused[A] = "a is refused: allow it"
    site.link.ask(Fetch(A, "1"))
    site.until(lambda: site.states() == ["nothing may be read: allow it"])
    assert site.warnings == [], "the owner of the link tells it"
    site.source.is_identity_refused = False
    site.until(lambda: site.states()[-1] is None)
    site.until(lambda: site.warnings)


def test_a_heal_of_a_refused_slice_comes_when_it_can_be_read(site: Site) -> None:
    since = site.source.snapshot(A).version
    site.source.write(A, {"1": b"new"})
    site.source.refused[A] = "a is refused: allow it"
    site.link.ask(Heal(A, since))
    site.link.ask(Fetch(B, "1"))
    site.until(lambda: site.keys(B))
    del site.source.refused[A]
    site.until(lambda: isinstance(site.answers[-1], Delta))
    delta = site.answers[-1]
    assert isinstance(delta, Delta)
    assert (delta.slice, delta.since) == (A, since)


def test_changes_of_a_record_that_was_read_before_come_while_another_one_is_refused(
    site: Site,
) -> None:
    site.link.ask(Fetch(A, "1"))
    site.until(lambda: site.keys(A) == ["1"])
    lookup = site.answers[-1]
    assert isinstance(lookup, Lookup)
    site.source.refused[A] = "a is refused: allow it"
    site.link.ask(Fetch(A, "2"))
    site.link.ask(Follow(A, lookup.version))
    site.until(lambda: site.warnings)
    site.source.write(A, {"1": b"new", "2": b"two"})
    site.until(lambda: any(isinstance(one, Delta) and one.slice == A for one in site.answers))
    assert site.keys(A) == ["1"], "it is still refused"


def test_a_link_ends_while_a_slice_is_refused_and_while_the_store_is_lost() -> None:
    for lost in (None, "the store is gone: bring it back"):
        site = Site()
        site.source.refused[A] = "a is refused: allow it"
        site.link.ask(Fetch(A, "1"))
        site.until(lambda site=site: site.warnings)  # type: ignore[misc]
        site.source.lost = lost
        site.until(lambda site=site: site.is_tried(A, 3))  # type: ignore[misc]
        site.link.close()
        assert site.keys(A) == []


def test_it_is_logged_as_a_warning_unless_somebody_else_takes_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = RefusingSource()
    source.refused[A] = "a is refused: allow it"
    link = SourceLink(source, lambda _answer: None)
    link.ask(Fetch(A, "1"))
    end_s = time.monotonic() + PATIENCE_S
    while not caplog.records:
        assert time.monotonic() < end_s, "it did not happen"
        time.sleep(0.01)
    link.close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "a is refused: allow it; until slice 'vpc/a' can be read" in record.message


class TestTogether:
    """Records that wait one behind the other while something else is answered."""

    @pytest.fixture
    def held(self, site: Site) -> Iterator[threading.Event]:
        """The link's thread is kept busy with a snapshot until this is set."""
        go, snapshot = threading.Event(), site.source.snapshot

        def wait(name: str) -> Snapshot:
            go.wait(PATIENCE_S)
            return snapshot(name)

        site.source.snapshot = wait  # type: ignore[method-assign]
        site.link.ask(Follow(C, None))
        yield go
        go.set()

    @pytest.fixture
    def batches(self, site: Site) -> list[int]:
        """How many records were asked for together, each time."""
        sizes: list[int] = []
        get_many = site.source.get_many

        def told(places: Sequence[tuple[str, str]]) -> list[Lookup]:
            sizes.append(len(places))
            return get_many(places)

        site.source.get_many = told  # type: ignore[method-assign]
        return sizes

    def test_they_are_asked_for_together_up_to_a_bound(
        self, site: Site, held: threading.Event, batches: list[int]
    ) -> None:
        keys = [str(number) for number in range(FETCHES_TOGETHER + 5)]
        for key in keys:
            site.link.ask(Fetch(A, key))
        held.set()
        site.until(lambda: len(site.keys(A)) == len(keys))
        assert site.keys(A) == keys
        assert batches == [FETCHES_TOGETHER, 5]

    def test_what_is_between_them_keeps_its_place(
        self, site: Site, held: threading.Event, batches: list[int]
    ) -> None:
        asked = (Fetch(A, "1"), Fetch(B, "1"), Heal(A, 0), Fetch(A, "2"), Forget(B), Fetch(B, "2"))
        for request in asked:
            site.link.ask(request)
        held.set()
        site.until(lambda: site.keys(B) == ["1", "2"])
        kinds = [type(one) for one in site.answers if getattr(one, "slice", None) == A]
        assert kinds == [Lookup, Delta, Lookup]
        assert batches == [2]

    def test_a_refused_slice_among_them_holds_up_no_other(
        self, site: Site, held: threading.Event
    ) -> None:
        site.source.refused[B] = "b is refused: allow it"
        for name, key in ((A, "1"), (B, "1"), (A, "2"), (B, "2"), (C, "1")):
            site.link.ask(Fetch(name, key))
        held.set()
        site.until(lambda: site.keys(C))
        assert site.keys(A) == ["1", "2"]
        assert site.states() == []
        # And those that come while it waits aside go behind it.
        site.link.ask(Fetch(A, "3"))
        site.link.ask(Fetch(B, "3"))
        site.until(lambda: site.keys(A) == ["1", "2", "3"])
        del site.source.refused[B]
        site.until(lambda: site.keys(B) == ["1", "2", "3"])
        assert len(site.warnings) == 1

    def test_a_lost_store_is_told_and_all_are_answered_when_it_is_back(
        self, site: Site, held: threading.Event
    ) -> None:
        for key in ("1", "2", "3"):
            site.link.ask(Fetch(A, key))
        site.until(lambda: site.answers)
        held.set()
        site.until(lambda: any(isinstance(one, Snapshot) for one in site.answers))
        site.source.lost = "the store is gone: bring it back"
        for key in ("4", "5"):
            site.link.ask(Fetch(A, key))
        site.until(lambda: site.states() == ["the store is gone: bring it back"])
        site.source.lost = None
        site.until(lambda: site.keys(A) == ["1", "2", "3", "4", "5"])
        assert site.states() == ["the store is gone: bring it back", None]

    def test_a_link_ends_with_fetches_that_wait(self, held: threading.Event, site: Site) -> None:
        for key in ("1", "2"):
            site.link.ask(Fetch(A, key))
        closing = threading.Thread(target=site.link.close)
        closing.start()
        site.until(site.link._closing.is_set)
        held.set()
        closing.join(PATIENCE_S)
        assert not closing.is_alive()
        assert site.keys(A) == []


class TestAtOnce:
    """``fetch``, by which the engine's own thread reads from a source on this host."""

    def test_a_batch_with_a_refused_slice_gives_all_the_others(self, local_site: Site) -> None:
        site = local_site
        site.source.refused[B] = "b is refused: allow it"
        batch = [Fetch(A, "1"), Fetch(B, "1"), Fetch(C, "1"), Fetch(A, "2"), Fetch(B, "2")]
        found = site.link.fetch(batch)
        assert {(one.slice, one.key) for one in found} == {(A, "1"), (A, "2"), (C, "1")}
        site.until(lambda: site.warnings)
        assert site.states() == []
        assert site.link.fetch([Fetch(B, "1")]) == []
        del site.source.refused[B]
        site.until(lambda: site.keys(B)[:2] == ["1", "2"])
        assert len(site.warnings) == 1

    def test_a_store_that_is_lost_is_told_and_found_again(self, local_site: Site) -> None:
        site = local_site
        site.source.lost = "the store is gone: bring it back"
        assert site.link.fetch([Fetch(A, "1"), Fetch(B, "1")]) == []
        site.until(lambda: site.states() == ["the store is gone: bring it back"])
        site.source.lost = None
        site.until(lambda: site.keys(A) == ["1"])
        site.until(lambda: site.states()[-1] is None)

    def test_a_lost_store_is_found_again_by_a_request_for_a_refused_slice(self) -> None:
        """It would wait behind others, and nobody else would ask."""
        site = Site(is_local=True, first_s=60.0)
        site.source.refused[A] = "a is refused: allow it"
        site.link.ask(Fetch(A, "1"))
        site.until(lambda: site.warnings)
        site.source.lost = "the store is gone: bring it back"
        assert site.link.fetch([Fetch(A, "2")]) == []
        site.until(site.states)
        site.source.lost = None
        site.until(lambda: site.states()[-1] is None)
        site.link.close()
        assert site.keys(A) == []

"""Requests that wait for slices which cannot be read: their order, their bounds, their pauses."""

from __future__ import annotations

import itertools

from controller_app.requests_aside import RequestsAside
from ondemand.messages import Fetch, Follow, Heal

A, B = "vpc/a", "vpc/b"


def drained(aside: RequestsAside, name: str) -> list[object]:
    """All that waits for a slice, in order."""
    found: list[object] = []
    while name in aside:
        found.append(aside.first(name))
        aside.answered(name, 0.0)
    return found


def test_order_is_kept_within_a_slice_and_what_is_there_is_not_added_again() -> None:
    aside = RequestsAside()
    for request in (Follow(A, None), Fetch(A, "1"), Fetch(B, "1"), Fetch(A, "2"), Fetch(A, "1")):
        assert aside.put(request, 0.0) == []
    aside.put(Follow(A, None), 0.0)
    assert len(aside) == 4
    assert drained(aside, A) == [Follow(A, None), Fetch(A, "1"), Fetch(A, "2")]
    assert B in aside
    assert drained(aside, B) == [Fetch(B, "1")]
    assert len(aside) == 0


def test_of_heals_only_the_one_that_goes_back_furthest_is_kept() -> None:
    aside = RequestsAside()
    for since in (5, 7, 3, 4):
        aside.put(Heal(A, since), 0.0)
    aside.put(Heal(B, 9), 0.0)
    assert drained(aside, A) == [Heal(A, 3)]
    assert drained(aside, B) == [Heal(B, 9)]


def test_what_is_dropped_waits_no_more_and_counts_for_nothing() -> None:
    aside = RequestsAside(max_fetches=2)
    aside.put(Fetch(A, "1"), 0.0)
    aside.put(Fetch(A, "2"), 0.0)
    aside.drop(A)
    aside.drop("vpc/unknown")
    assert A not in aside
    assert aside.wait_s(0.0) is None
    assert aside.due(1e9) is None
    assert aside.put(Fetch(B, "1"), 0.0) == []
    assert aside.put(Fetch(B, "2"), 0.0) == []
    assert drained(aside, B) == [Fetch(B, "1"), Fetch(B, "2")]


def test_the_record_asked_for_longest_ago_makes_room() -> None:
    aside = RequestsAside(max_fetches=3)
    aside.put(Follow(A, None), 0.0)
    for key in ("1", "2", "3"):
        aside.put(Fetch(A, key), 0.0)
    aside.put(Fetch(A, "1"), 0.0)  # asked for again just now
    assert aside.put(Fetch(B, "1"), 0.0) == []
    assert drained(aside, A) == [Follow(A, None), Fetch(A, "1"), Fetch(A, "3")]
    assert B in aside


def test_a_slice_whose_last_request_made_room_is_named() -> None:
    aside = RequestsAside(max_fetches=1)
    aside.put(Fetch(A, "1"), 0.0)
    assert aside.put(Fetch(B, "1"), 0.0) == [A]
    assert A not in aside
    assert drained(aside, B) == [Fetch(B, "1")]


def test_a_million_records_that_nobody_may_read_stay_bounded() -> None:
    aside = RequestsAside(max_fetches=100)
    for number in range(10_000):
        aside.put(Fetch(f"nbr/v/{number % 1_000}", str(number)), 0.0)
    assert len(aside) == 100


def test_pauses_grow_to_the_longest_and_begin_anew_after_an_answer() -> None:
    aside = RequestsAside(first_s=2.0, longest_s=10.0, gap_s=0.1)
    aside.put(Fetch(A, "1"), 0.0)
    aside.put(Fetch(A, "2"), 1.0)
    now_s, pauses = 0.0, []
    for _ in range(5):
        before_s = now_s
        while aside.due(now_s) is None:
            wait_s = aside.wait_s(now_s)
            assert wait_s is not None
            assert wait_s > 0.0, "it would spin"
            now_s += wait_s
        pauses.append(round(now_s - before_s, 6))
        aside.refused(A, now_s)
    assert pauses == [2.0, 4.0, 8.0, 10.0, 10.0]
    aside.answered(A, now_s)
    assert aside.due(now_s) == A, "what waits behind is tried at once"
    aside.refused(A, now_s)
    assert aside.due(now_s + 3.9) is None
    assert aside.due(now_s + 4.0) == A


def test_many_slices_are_tried_one_after_the_other_with_a_gap() -> None:
    aside = RequestsAside(first_s=2.0, longest_s=10.0, gap_s=0.1)
    for number in range(50):
        aside.put(Fetch(f"vpc/{number}", "k"), 0.0)
    now_s, tried = 0.0, []
    while now_s < 7.5:
        name = aside.due(now_s)
        if name is not None:
            tried.append((name, now_s))
            aside.refused(name, now_s)
        wait_s = aside.wait_s(now_s)
        assert wait_s is not None
        now_s += wait_s
    times = [when_s for _, when_s in tried]
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 0.099
    assert {name for name, _ in tried} == {f"vpc/{number}" for number in range(50)}


def test_a_follow_that_reads_nothing_waits_only_behind_a_follow() -> None:
    aside = RequestsAside()
    assert not aside.goes_behind(Fetch(A, "1"))
    aside.put(Fetch(A, "1"), 0.0)
    assert aside.goes_behind(Fetch(A, "2"))
    assert aside.goes_behind(Follow(A, None))
    assert aside.goes_behind(Heal(A, 4))
    assert not aside.goes_behind(Follow(A, 4))
    assert not aside.goes_behind(Fetch(B, "1"))
    aside.put(Follow(A, None), 0.0)
    assert aside.goes_behind(Follow(A, 4))

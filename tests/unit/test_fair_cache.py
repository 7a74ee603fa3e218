"""The fair cache, case by case; the property test has the sequences."""

from __future__ import annotations

import pytest

from ondemand.fair_cache import NOBODY, FairCache


def _cache(max_bytes: int = 10) -> FairCache[str, int]:
    """Entries are their own sizes."""
    return FairCache(max_bytes, lambda size: size)


def _filled(cache: FairCache[str, int], entries: dict[str, int]) -> None:
    for key, owner in entries.items():
        cache.put(key, 1, owner)


def _dropped(cache: FairCache[str, int]) -> list[str]:
    return [key for key, _ in cache.dropped]


def test_one_owner_may_use_everything() -> None:
    cache = _cache()
    _filled(cache, {str(number): 1 for number in range(10)})
    assert (len(cache), cache.used_bytes, cache.dropped) == (10, 10, [])
    assert cache.bytes_by_owner() == {1: 10}


def test_who_holds_most_gives_up_what_it_used_longest_ago() -> None:
    cache = _cache()
    _filled(cache, {f"a{number}": 1 for number in range(6)})
    _filled(cache, {f"b{number}": 2 for number in range(4)})
    assert cache.get("a0") == 1
    cache.put("b4", 1, 2)
    assert _dropped(cache) == ["a1"]
    assert cache.bytes_by_owner() == {1: 5, 2: 5}


def test_a_flood_pushes_out_its_own() -> None:
    cache = _cache()
    _filled(cache, {"a0": 1, "a1": 1})
    _filled(cache, {f"b{number}": 2 for number in range(100)})
    assert cache.get("a0") == cache.get("a1") == 1
    assert _dropped(cache) == [f"b{number}" for number in range(92)]


def test_a_use_by_another_owner_does_not_move_an_entry() -> None:
    cache = _cache()
    cache.put("a", 1, 1)
    cache.put("a", 2, 2)
    assert cache.bytes_by_owner() == {1: 2}


def test_what_an_owner_leaves_behind_goes_first() -> None:
    cache = _cache()
    _filled(cache, {"a0": 1, "a1": 1, "b0": 2})
    _filled(cache, {f"c{number}": 3 for number in range(7)})
    cache.release_owner(1)
    cache.release_owner(1)
    assert cache.bytes_by_owner() == {NOBODY: 2, 2: 1, 3: 7}
    cache.put("b1", 1, 2)
    cache.release_owner(2)
    cache.put("c7", 1, 3)
    assert _dropped(cache) == ["a0", "a1"], "those who left first"
    cache.put("c8", 1, 3)
    assert _dropped(cache) == ["a0", "a1", "b0"]


def test_what_nobody_holds_belongs_to_who_brings_it_again() -> None:
    cache = _cache()
    cache.put("a", 1, NOBODY)
    cache.put("a", 2, 3)
    assert cache.bytes_by_owner() == {3: 2}
    cache.put("a", 3, NOBODY)
    assert cache.bytes_by_owner() == {3: 3}


def test_an_owner_that_came_back_has_a_new_account() -> None:
    cache = _cache()
    cache.put("a", 1, 1)
    cache.release_owner(1)
    cache.put("b", 1, 1)
    assert cache.bytes_by_owner() == {NOBODY: 1, 1: 1}


def test_an_entry_never_makes_room_for_itself_by_going() -> None:
    cache = _cache()
    cache.put("a", 6, 1)
    cache.put("b", 4, 2)
    cache.put("a", 8, 1)
    assert _dropped(cache) == ["b"]
    assert (cache.get("a"), cache.used_bytes) == (8, 8)
    cache.put("a", 3, 1)
    assert cache.used_bytes == 3


def test_an_entry_larger_than_the_cache_is_refused() -> None:
    cache = _cache()
    cache.put("a", 1, 1)
    with pytest.raises(ValueError, match="11 bytes, and 10 is all"):
        cache.put("a", 11, 1)
    assert (cache.get("a"), cache.used_bytes) == (1, 1)


def test_what_is_taken_out_is_not_dropped() -> None:
    cache = _cache()
    cache.put("a", 1, 1)
    assert (cache.pop("a"), cache.pop("a")) == (1, None)
    assert (len(cache), cache.used_bytes, cache.dropped, cache.bytes_by_owner()) == (0, 0, [], {})
    assert "a" not in cache


def test_an_account_that_is_emptied_leaves_the_order_of_others_alone() -> None:
    cache = _cache(4)
    _filled(cache, {"a0": 1, "a1": 1, "a2": 1, "b0": 2})
    cache.get("a0")
    cache.release_owner(1)
    cache.release_owner(2)
    cache.pop("b0")
    cache.put("c0", 2, 3)
    cache.put("c1", 1, 3)
    assert _dropped(cache) == ["a1", "a2"]


def test_looking_is_no_use() -> None:
    cache = _cache(2)
    _filled(cache, {"a": 1, "b": 1})
    assert cache.peek("a") == 1
    assert dict(cache.items()) == {"a": 1, "b": 1}
    cache.put("c", 1, 1)
    assert _dropped(cache) == ["a"]

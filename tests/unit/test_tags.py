"""The tag index."""

from __future__ import annotations

from rule_cache.tags import TagIndex


def test_a_tag_leads_to_the_rules_that_carry_it() -> None:
    index = TagIndex()
    index.add(1, ("a", "b"))
    index.add(2, ("b", "c"))
    assert index.cookies("a") == {1}
    assert index.cookies("b") == {1, 2}
    assert index.cookies("d") == frozenset()
    assert (index.has("c"), index.has("d")) == (True, False)


def test_a_tag_without_rules_leaves_nothing_behind() -> None:
    index = TagIndex()
    index.add(1, ("a", "b"))
    index.add(2, ("b",))
    index.remove(1, ("a", "b"))
    assert (len(index), index.has("a")) == (1, False)
    assert index.cookies("b") == {2}
    index.remove(2, ("b",))
    assert len(index) == 0


def test_a_tag_named_twice_counts_once() -> None:
    index = TagIndex()
    index.add(1, ("a", "a"))
    index.remove(1, ("a", "a"))
    assert len(index) == 0


def test_removing_what_is_not_there_changes_nothing() -> None:
    index = TagIndex()
    index.add(1, ("a",))
    index.remove(2, ("a", "b"))
    assert index.cookies("a") == {1}


def test_what_was_read_does_not_change_afterwards() -> None:
    index = TagIndex()
    index.add(1, ("a",))
    before = index.cookies("a")
    index.add(2, ("a",))
    assert before == {1}

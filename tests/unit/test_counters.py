"""Counters by name and port."""

from __future__ import annotations

from ondemand.counters import Counters


def test_counts_add_up_by_name_and_port() -> None:
    counters = Counters()
    counters.add("allowed", "vm1")
    counters.add("allowed", "vm1")
    counters.add("allowed", "vm2")
    counters.add("source.gap")
    counters.add("cache.dropped", count=5)
    assert counters.of("allowed", "vm1") == 2
    assert counters.of("allowed") == 3
    assert counters.of("source.gap", "") == counters.of("source.gap") == 1
    assert counters.of("cache.dropped") == 5


def test_what_never_happened_counts_zero_and_is_not_listed() -> None:
    counters = Counters()
    assert counters.of("allowed") == counters.of("allowed", "vm1") == 0
    assert counters.by_name() == {}


def test_the_table_is_sorted() -> None:
    counters = Counters()
    for name, port in (("b", "vm2"), ("b", "vm1"), ("a", "")):
        counters.add(name, port)
    table = counters.by_name()
    assert table == {"a": {"": 1}, "b": {"vm1": 1, "vm2": 1}}
    assert [*table] == ["a", "b"]
    assert [*table["b"]] == ["vm1", "vm2"]

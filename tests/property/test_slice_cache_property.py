"""Whatever a transport does to messages, the slice cache ends where the source is.

A source is written to while snapshots, deltas and answers to fetches are on their way; they arrive late,
twice, in another order or never. At each step the cache holds what the source had at the version that
the cache names, and at the end, after one more change in each slice, what the source has.
"""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.cache_model import OPS, Model

_steps = st.lists(st.tuples(st.sampled_from(OPS), st.integers(0, 47)), min_size=20, max_size=80)


@settings(max_examples=300)
@given(_steps)
@example(
    # The answer to a fetch is overtaken by the delta that changes the record.
    [
        ("fetch at once", 0),
        ("deliver", 0),
        ("fetch", 4),
        ("write", 6),
        ("deliver early", 12),
        ("deliver", 0),
    ]
)
def test_the_cache_ends_where_the_source_is(steps: list[tuple[str, int]]) -> None:
    model = Model()
    for op, choice in steps:
        model.run(op, choice)
    model.finish()

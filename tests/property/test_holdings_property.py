"""Saved holdings are those of a moment that was: whatever is done to the cache and to the journal.

The cache and its source do what they do in the property test of the cache; in between, what is held
is written down, and the agent is killed and begins anew from what was written.
"""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ondemand.journal import HoldingsError, encode_header, replay
from tests.support.saved_model import IDENTITY, SAVED_OPS, SavedModel, restore

_steps = st.lists(
    st.tuples(st.sampled_from(SAVED_OPS), st.integers(0, 47)), min_size=20, max_size=80
)


def _ran(steps: list[tuple[str, int]]) -> SavedModel:
    model = SavedModel()
    for op, choice in steps:
        model.run(op, choice)
    return model


@settings(max_examples=300)
@given(_steps)
@example(
    # Killed when a heal is on its way, of an answer that a change overtook.
    [
        ("fetch at once", 0),
        ("deliver", 0),
        ("fetch", 4),
        ("write", 6),
        ("deliver early", 12),
        ("deliver", 0),
        ("restart", 0),
    ]
)
def test_after_kills_the_cache_ends_where_the_source_is(steps: list[tuple[str, int]]) -> None:
    _ran(steps).finish()


@settings(max_examples=300)
@given(_steps, st.floats(0, 1))
def test_a_journal_cut_anywhere_leads_to_the_last_whole_batch(
    steps: list[tuple[str, int]], where: float
) -> None:
    model = _ran(steps)
    model.write_down()
    header = len(encode_header(IDENTITY))
    cut = header + round(where * (len(model.journal) - header))
    ends = list(accumulate(map(len, model.frames), initial=header))
    whole = sum(1 for end in ends if end <= cut) - 1
    holdings, end = replay(model.journal[:cut], "test")
    assert (holdings.identity, end) == (IDENTITY, ends[whole])
    restore(holdings, model.states[whole])


@settings(max_examples=300)
@given(_steps, st.integers(0, 1 << 20), st.integers(1, 255))
def test_a_damaged_journal_is_refused(steps: list[tuple[str, int]], at: int, flip: int) -> None:
    model = _ran(steps)
    model.write_down()
    journal = bytearray(model.journal)
    journal[at % len(journal)] ^= flip
    with pytest.raises(HoldingsError, match=r"^saved holdings test are not used: it is damaged"):
        replay(bytes(journal), "test")


@settings(max_examples=200)
@given(_steps)
def test_the_shortest_journal_leads_to_the_same(steps: list[tuple[str, int]]) -> None:
    model = _ran(steps)
    holdings, _ = replay(model.journal, "test")
    again = type(holdings)(holdings.identity)
    for batch in holdings.as_writes():
        again.apply(batch)
    assert again == holdings


@given(st.binary(max_size=200))
def test_no_other_bytes_are_a_journal(junk: bytes) -> None:
    with pytest.raises(HoldingsError, match=r"^saved holdings test are not used"):
        replay(junk, "test")
    holdings, end = replay(encode_header(IDENTITY) + junk[:11], "test")
    assert (holdings.slices, end) == ({}, len(encode_header(IDENTITY)))

"""The token bucket under any pattern of tries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ondemand.admission import TokenBucket

_tries = st.lists(
    st.tuples(st.floats(0, 5, allow_nan=False), st.integers(1, 30)), min_size=1, max_size=20
)


@given(_tries)
def test_over_any_time_no_more_than_burst_and_rate_allow(tries: list[tuple[float, int]]) -> None:
    bucket = TokenBucket(rate=4, burst=6, now_s=0.0)
    now_s, taken = 0.0, 0
    for pause_s, count in tries:
        now_s += pause_s
        taken += sum(bucket.take(now_s) for _ in range(count))
        assert taken <= 6 + 4 * now_s + 1e-6


@given(_tries)
def test_who_stays_within_the_rate_is_never_refused(tries: list[tuple[float, int]]) -> None:
    bucket = TokenBucket(rate=4, burst=6, now_s=0.0)
    now_s, sent = 0.0, 0
    for pause_s, count in tries:
        now_s += pause_s
        for _ in range(count):
            # Half a second apart at a quarter of a second's rate.
            now_s += 0.5
            sent += 1
            assert bucket.take(now_s), sent

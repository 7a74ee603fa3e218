"""The token bucket."""

from __future__ import annotations

from ondemand.admission import TokenBucket


def _taken(bucket: TokenBucket, now_s: float, tries: int) -> int:
    return sum(bucket.take(now_s) for _ in range(tries))


def test_a_burst_is_let_through_and_no_more() -> None:
    bucket = TokenBucket(rate=10, burst=5, now_s=0.0)
    assert _taken(bucket, 0.0, 20) == 5


def test_tokens_come_back_at_the_rate() -> None:
    bucket = TokenBucket(rate=10, burst=5, now_s=0.0)
    _taken(bucket, 0.0, 5)
    assert not bucket.take(0.05)
    assert bucket.take(0.1)
    assert not bucket.take(0.1)
    assert _taken(bucket, 0.35, 10) == 2


def test_no_more_than_a_burst_is_saved_up() -> None:
    bucket = TokenBucket(rate=10, burst=5, now_s=0.0)
    _taken(bucket, 0.0, 5)
    assert _taken(bucket, 1000.0, 20) == 5


def test_a_refused_try_costs_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=1, now_s=0.0)
    assert bucket.take(0.0)
    assert _taken(bucket, 0.9, 100) == 0
    assert bucket.take(1.01)

"""The sweep by itself: what it looks at and lets go of in one step is bounded."""

from __future__ import annotations

import pytest

from ondemand import idle_sweep
from ondemand.addresses import parse_ip
from ondemand.codec import encode_record
from ondemand.idle_sweep import LEFT_S, MAX_LEAVING, PASSES, STEP_S, IdleSweep
from ondemand.records import Neighbor
from ondemand.slice_cache import SliceCache
from ondemand.slices import Lookup, neighbor_slice

IDLE_S = 100.0
VPC = "v"
MAC = bytes.fromhex("fa163e000001")


def filled(count: int) -> SliceCache:
    """Records of consecutive addresses, used at 0."""
    cache = SliceCache(1 << 28)
    for number in range(count):
        ip = (int.from_bytes(parse_ip("10.0.0.0")) + number).to_bytes(4)
        record = Neighbor(ip, MAC, "s", "p", parse_ip("192.0.2.1"))
        cache.put(Lookup(neighbor_slice(VPC, ip), record.key, 1, encode_record(record)))
    return cache


def test_a_step_looks_at_few_and_lets_go_of_few() -> None:
    cache, in_use = filled(5_000), set[str]()
    looked: list[str] = []

    def is_in_use(tag: str) -> bool:
        looked.append(tag)
        return tag in in_use

    sweep = IdleSweep(cache, is_in_use, idle_s=IDLE_S)
    assert sweep.work(0.0) == []
    now_s, leaving, steps = 2 * IDLE_S, [], 0
    while cache.neighbors_held:
        looked.clear()
        left = sweep.work(now_s)
        leaving.append(len(left))
        # Those that leave are asked for once more.
        assert len(looked) <= idle_sweep.STEP_RECORDS + 256 + len(left)
        now_s += LEFT_S if left else STEP_S
        steps += 1
        assert steps < 1000
    assert max(leaving) <= MAX_LEAVING
    assert sum(leaving) == 5_000
    assert len([count for count in leaving if count]) == 3, "together, so that epochs move seldom"


def test_what_is_in_use_when_it_is_to_leave_stays() -> None:
    cache = filled(600)
    in_use: set[str] = set()
    sweep = IdleSweep(cache, lambda tag: tag in in_use, idle_s=IDLE_S)
    sweep.work(0.0)
    # The first step has found two of three shards idle; then rules are made and packets ask.
    assert sweep.work(2 * IDLE_S) == []
    in_use |= {held.tag for held in cache.held_of("nbr/v/10.0.1.0")}
    cache.set_clock(2 * IDLE_S)
    asked = parse_ip("10.0.2.1")
    assert cache.neighbor(VPC, asked) is not None
    left = sweep.work(2 * IDLE_S + STEP_S)
    assert len(left) == 600 - 256 - 1
    assert cache.neighbor(VPC, parse_ip("10.0.1.7")) is not None
    assert cache.neighbor(VPC, asked) is not None


@pytest.mark.parametrize("at_s", [IDLE_S * 0.5, IDLE_S * (1 + 1 / PASSES) - 1])
def test_nothing_leaves_before_its_time_and_a_pause_begins_anew(at_s: float) -> None:
    cache = filled(10)
    sweep = IdleSweep(cache, lambda _: False, idle_s=IDLE_S)
    sweep.work(0.0)
    assert sweep.work(at_s) == []
    sweep.pause()
    assert sweep.work(1000.0) == [], "it is known only from now on which rules there are"
    assert sweep.work(1000.0 + at_s) == []
    assert cache.neighbors_held == 10
    assert len(sweep.work(1000.0 + 2 * IDLE_S)) == 10


def test_0_is_never() -> None:
    cache = filled(3)
    sweep = IdleSweep(cache, lambda _: False, idle_s=0)
    assert sweep.work(0.0) == sweep.work(1e9) == []

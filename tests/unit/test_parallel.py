"""Work side by side: results in order, failures after all has ended."""

import threading

import pytest

from mininet_topos.parallel import side_by_side


def test_results_keep_the_order_of_the_items():
    first = threading.Event()

    def work(number):
        if number == 0:
            assert first.wait(5)
        else:
            first.set()
        return number * 10

    assert side_by_side(work, range(3), workers=2) == [0, 10, 20]


def test_a_failure_waits_for_what_has_begun_and_nothing_new_begins():
    failed, ended = threading.Event(), []

    def work(number):
        if number == 1:
            failed.set()
            raise ValueError("one")
        if number == 0:
            assert failed.wait(5)
        ended.append(number)

    with pytest.raises(ValueError, match="one"):
        side_by_side(work, range(2), workers=2)
    assert ended == [0]


def test_never_more_at_once_than_asked_for():
    lock, now, most = threading.Lock(), 0, 0
    gate = threading.Barrier(2, timeout=5)

    def work(_number):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        gate.wait()
        with lock:
            now -= 1

    side_by_side(work, range(6), workers=2)
    assert most == 2

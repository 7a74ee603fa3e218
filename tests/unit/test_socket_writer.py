"""The writer: whole messages in order, whatever the socket takes, and an honest answer."""

import errno
import socket
import threading
import time

import pytest

from controller_app.socket_writer import HIGH_WATER_BYTES, SocketWriter
from tests.support.recording_owner import wait_until


class Pair:
    """A writer and the other end of its socket."""

    def __init__(self):
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(0)
        self.theirs.settimeout(5)
        self.wakes = 0
        self.writer = SocketWriter(self.ours, on_waiting=self._woken)

    def _woken(self):
        self.wakes += 1

    def fill(self, byte=b"a"):
        """Write until something has to wait; returns all that was accepted."""
        accepted = b""
        while not self.writer.waiting_bytes:
            assert self.writer.write(byte * 50_000)
            accepted += byte * 50_000
        return accepted

    def read(self, size):
        data = b""
        while len(data) < size:
            data += self.theirs.recv(size - len(data))
            self.writer.flush()
        return data


@pytest.fixture
def pair():
    pair = Pair()
    yield pair
    pair.ours.close()
    pair.theirs.close()


def test_what_the_socket_takes_is_written_at_once(pair):
    assert pair.writer.write(b"first")
    assert pair.writer.write(b"")
    assert pair.writer.write(b"second")
    assert pair.theirs.recv(100) == b"firstsecond"
    assert (pair.writer.waiting_bytes, pair.wakes) == (0, 0)


def test_what_the_socket_does_not_take_waits_and_keeps_its_order(pair):
    expected = pair.fill()
    for number in range(20):
        data = bytes([number]) * (number * 1000)
        assert pair.writer.write(data)
        expected += data
    assert pair.wakes == 1
    assert pair.writer.waiting_bytes > 190_000
    assert pair.read(len(expected)) == expected
    assert pair.writer.waiting_bytes == 0
    pair.fill()
    assert pair.wakes == 2


def test_how_long_the_peer_takes_nothing_is_told(pair):
    assert pair.writer.standstill_s(time.monotonic()) == 0
    total = len(pair.fill())
    pair.writer.write(b"z" * 100_000)
    later = time.monotonic() + 10
    assert 9 < pair.writer.standstill_s(later) < 12
    pair.read(total + 100_000)
    assert pair.writer.standstill_s(later) == 0


def test_a_little_progress_ends_a_standstill(pair):
    pair.fill()
    pair.writer.write(b"z" * 2_000_000)
    before_s = time.monotonic()
    pair.read(300_000)
    assert pair.writer.waiting_bytes > 0
    assert pair.writer.standstill_s(before_s) < 0 <= pair.writer.standstill_s(time.monotonic())


def test_other_threads_wait_for_room_and_get_it(pair):
    accepted = pair.fill() + b"b" * HIGH_WATER_BYTES
    pair.writer.write(b"b" * HIGH_WATER_BYTES)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(pair.writer.write_when_room(b"end", 5)))
    thread.start()
    assert pair.writer.write_when_room(b"no room in time", 0.01) is False
    assert answers == []
    assert pair.read(len(accepted) + 3) == accepted + b"end"
    thread.join(5)
    assert answers == [True]


def test_with_room_another_thread_does_not_wait(pair):
    assert pair.writer.write_when_room(b"now", 0)
    assert pair.theirs.recv(10) == b"now"


def test_after_the_peer_is_gone_nothing_is_accepted(pair):
    pair.theirs.close()
    assert pair.writer.write(b"lost") is False
    assert pair.writer.failure.errno in {errno.EPIPE, errno.ECONNRESET}
    assert pair.writer.write(b"lost") is False
    assert pair.writer.write_when_room(b"lost", 5) is False
    assert pair.wakes == 0


def test_a_peer_that_goes_while_something_waits_is_noticed_by_flush(pair):
    pair.fill()
    pair.theirs.close()
    pair.writer.flush()
    assert pair.writer.failure is not None
    assert pair.writer.waiting_bytes == 0
    assert pair.writer.write(b"lost") is False


def test_a_failure_wakes_whoever_waits_for_room(pair):
    pair.fill()
    pair.writer.write(b"b" * HIGH_WATER_BYTES)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(pair.writer.write_when_room(b"x", 60)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(pair.writer._room._waiters) == 3)
    pair.writer.fail(ConnectionAbortedError("the end"))
    for thread in threads:
        thread.join(5)
    assert answers == [False] * 3
    assert str(pair.writer.failure) == "the end"
    pair.writer.fail(OSError("a later reason"))
    assert str(pair.writer.failure) == "the end"


def test_end_lets_what_waits_out_and_nothing_more_in(pair):
    accepted = pair.fill()
    pair.writer.end()
    assert pair.writer.write(b"too late") is False
    assert pair.writer.write_when_room(b"too late", 5) is False
    assert pair.read(len(accepted)) == accepted
    assert pair.theirs.recv(10) == b""
    assert pair.writer.failure is None
    pair.theirs.send(b"half open")
    assert pair.ours.recv(20) == b"half open"


def test_end_with_nothing_waiting_tells_the_peer_at_once(pair):
    pair.writer.write(b"bye")
    pair.writer.end()
    assert pair.theirs.recv(10) == b"bye"
    assert pair.theirs.recv(10) == b""

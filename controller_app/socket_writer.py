"""The one writer of a connection: for many threads, in whole messages, and never blocking.

What the socket does not take at once waits here and is written when the socket is ready again. So no
thread ever stands still in ``send`` with the lock in its hand, and the thread that reads the socket
goes on reading while the peer does not. That matters with Open vSwitch: it counts flow-removed
messages as replies and takes no new requests while a hundred replies are unread, so a controller that
waits for its write to end before it reads again waits for ever (connmgr, "OFCONN_REPLY_MAX").
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

#: Bytes that may wait before a thread other than the reader has to wait with its own.
HIGH_WATER_BYTES: Final = 1 << 20


class SocketWriter:
    """Writes to a non-blocking stream socket.

    ``on_waiting`` is called, by any thread, when there begins to be something that waits: the reader
    is then to call ``flush`` whenever the socket is writable.

    Attributes:
        waiting_bytes: accepted and not yet given to the socket.
        failure: the error that ended all writing, None so far.
    """

    def __init__(self, sock: socket.socket, *, on_waiting: Callable[[], None]) -> None:
        self._socket = sock
        self._on_waiting = on_waiting
        self._room = threading.Condition(threading.Lock())
        self._waiting: deque[memoryview] = deque()
        self._progress_s = 0.0
        self._ending = False
        self.waiting_bytes = 0
        self.failure: OSError | None = None

    def write(self, data: bytes) -> bool:
        """Write one or more whole messages. False: they are not written, nor will be."""
        with self._room:
            accepted, begins_to_wait = self._accept(data)
        if begins_to_wait:
            self._on_waiting()
        return accepted

    def write_when_room(self, data: bytes, timeout_s: float) -> bool:
        """As ``write``, but wait up to ``timeout_s`` seconds for others' messages to be written."""
        with self._room:
            has_room = self._room.wait_for(self._has_room, timeout_s)
            accepted, begins_to_wait = self._accept(data) if has_room else (False, False)
        if begins_to_wait:
            self._on_waiting()
        return accepted

    def flush(self) -> None:
        """Write what waits, as far as the socket takes it."""
        with self._room:
            while self._waiting:
                data = self._waiting[0]
                sent = self._send(data)
                if sent <= 0:
                    break
                self.waiting_bytes -= sent
                self._progress_s = time.monotonic()
                if sent < len(data):
                    self._waiting[0] = data[sent:]
                    break
                self._waiting.popleft()
            if self._ending and not self._waiting:
                self._shut_down(socket.SHUT_WR)
            self._room.notify_all()

    def end(self) -> None:
        """Accept nothing more; tell the peer so when all that waits is written."""
        with self._room:
            self._ending = True
            if not self._waiting:
                self._shut_down(socket.SHUT_WR)
            self._room.notify_all()

    def fail(self, reason: OSError) -> None:
        """Write nothing more, not even what waits, and wake up whoever waits for room."""
        with self._room:
            self._fail(reason)

    def standstill_s(self, now_s: float) -> float:
        """Seconds since the socket last took a byte of what waits; 0 when nothing waits."""
        with self._room:
            return now_s - self._progress_s if self._waiting else 0.0

    def _has_room(self) -> bool:
        return self.waiting_bytes < HIGH_WATER_BYTES or self._ending or self.failure is not None

    def _accept(self, data: bytes) -> tuple[bool, bool]:
        """Whether the data was taken, and whether it is the first that has to wait."""
        if self._ending or self.failure is not None:
            return False, False
        if not data:
            return True, False
        rest = memoryview(data)
        begins_to_wait = not self._waiting
        if begins_to_wait:
            sent = self._send(rest)
            if sent < 0:
                return False, False
            rest = rest[sent:]
            if not rest:
                return True, False
            self._progress_s = time.monotonic()
        self._waiting.append(rest)
        self.waiting_bytes += len(rest)
        return True, begins_to_wait

    def _send(self, data: memoryview) -> int:
        """How many bytes the socket took; -1 when it never will again."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._fail(error)
            return -1

    def _fail(self, reason: OSError) -> None:
        if self.failure is None:
            self.failure = reason
        self._waiting.clear()
        self.waiting_bytes = 0
        # Wakes the reader up: its poll reports a hang-up.
        self._shut_down(socket.SHUT_RDWR)
        self._room.notify_all()

    def _shut_down(self, how: int) -> None:
        try:
            self._socket.shutdown(how)
        except OSError:
            # Not connected any more: there is nothing left to shut down.
            return

"""A file descriptor by which other threads end a thread's wait in poll()."""

from __future__ import annotations

import os
import threading


class WakeFd:
    """``set`` makes it readable, from any thread; the waiting thread opens, clears and closes it.

    The lock keeps a late ``set`` from writing into a file that got the same number since.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fd = -1

    def open(self) -> int:
        """The descriptor to poll."""
        with self._lock:
            self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            return self._fd

    def set(self) -> None:
        """Wake the waiting thread up; nothing happens when none waits."""
        with self._lock:
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        """Wait again; call it when poll reported the descriptor."""
        os.eventfd_read(self._fd)

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

"""What a host's VM sees while the host comes up: when a first packet is answered, and when all are.

Run by path, in the VM; standard library only. It sends at once and goes on until it has seen all of it:

* ``--local``: a datagram to the next port each 10 ms, so that each is a new flow, until the first is answered;
* ``--far``: a datagram to the last neighbor of the VPC each 5 ms until one is answered, then one to each of
  some neighbors that are spread over the whole VPC, at a bounded rate, again to those that do not answer.

Output: one JSON object. Moments are of CLOCK_MONOTONIC, which all processes of a machine share. It asks for
a real-time priority (sched(7)): an instrument that waits for its turn on a busy core would measure that.

    cold_traffic --local 10.0.0.12 20000 500 --far 10.64.0.16 1000000 1000 --for-s 30

Exit code: 0 all of it was seen, 1 some was not in time, 2 usage.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

MAX_SECONDS: Final = 300.0
MAX_FAR: Final = 20_000
#: Seconds between two datagrams to the other VM, and to the last neighbor.
LOCAL_S: Final = 0.01
LAST_S: Final = 0.005
#: Datagrams a second to the neighbors; below what is taken for a flood (flood_rate).
RATE: Final = 2_500
#: Datagrams between two looks at the clock.
BURST: Final = 10
#: A neighbor that has not answered is sent to again after so many seconds.
AGAIN_S: Final = 0.1
FAR_PORT: Final = 9000
_NUMBER: Final = 8


class Local:
    """New flows to another VM until one is served."""

    def __init__(self, address: str, first: int, count: int) -> None:
        self.sock = open_socket()
        self._address, self._first, self._count = address, first, count
        self._sent_s: list[float] = []
        self.due_s = 0.0
        #: When the first flow that was served was begun, and when it was answered.
        self.served: tuple[float, float] | None = None

    @property
    def is_over(self) -> bool:
        return self.served is not None

    def send(self, now_s: float) -> None:
        if self.is_over or now_s < self.due_s:
            return
        self.due_s = now_s + LOCAL_S
        if (number := len(self._sent_s)) < self._count:
            self._sent_s.append(now_s)
            put(self.sock, number, (self._address, self._first + number))

    def take(self, now_s: float) -> None:
        for number in arrived(self.sock):
            if self.served is None and number < len(self._sent_s):
                self.served = self._sent_s[number], now_s


class Far:
    """The last neighbor until it answers, then all that are in use."""

    def __init__(self, base: str, neighbors: int, in_use: int) -> None:
        self.sock = open_socket()
        self.sock.bind(("", FAR_PORT))
        self._base = int(ipaddress.IPv4Address(base))
        self._numbers = spread(neighbors, in_use)
        self._last = self._numbers[-1]
        #: When each is to be sent to, and which; in that order.
        self._waiting = deque((0.0, number) for number in self._numbers[:-1])
        self._open = set(self._numbers)
        self.sent = 0
        self.due_s = 0.0
        self.last_s: float | None = None
        self.all_s: float | None = None

    @property
    def is_over(self) -> bool:
        return not self._open

    @property
    def answered(self) -> int:
        return len(self._numbers) - len(self._open)

    def send(self, now_s: float) -> None:
        if self.is_over or now_s < self.due_s:
            return
        if self.last_s is None:
            self.due_s = now_s + LAST_S
            self._put(self._last)
            return
        # What was missed is not made up for: the bound is on the rate.
        self.due_s = now_s + BURST / RATE
        for _ in range(BURST):
            number = self._next(now_s)
            if number is None:
                return
            self._put(number)

    def take(self, now_s: float) -> None:
        for number in arrived(self.sock):
            self._open.discard(number)
            if number == self._last and self.last_s is None:
                self.last_s, self.due_s = now_s, 0.0
            if not self._open and self.all_s is None:
                self.all_s = now_s

    def _next(self, now_s: float) -> int | None:
        """Whom to send to; None: to nobody yet."""
        while self._waiting:
            again_s, number = self._waiting[0]
            if number in self._open and again_s > now_s:
                self.due_s = again_s
                return None
            self._waiting.popleft()
            if number in self._open:
                self._waiting.append((now_s + AGAIN_S, number))
                return number
        return None

    def _put(self, number: int) -> None:
        self.sent += 1
        put(self.sock, number, (str(ipaddress.IPv4Address(self._base + number)), FAR_PORT))


def spread(neighbors: int, in_use: int) -> list[int]:
    """Numbers from 0 on, evenly spread, the last of all at the end."""
    if in_use == 1:
        return [neighbors - 1]
    return [number * (neighbors - 1) // (in_use - 1) for number in range(in_use)]


def open_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(0)
    return sock


def put(sock: socket.socket, number: int, target: tuple[str, int]) -> None:
    """One datagram; one that cannot be sent is lost like any other."""
    with suppress(OSError):
        sock.sendto(number.to_bytes(_NUMBER, "big"), target)


def arrived(sock: socket.socket) -> Iterator[int]:
    """The numbers of the datagrams that have come back."""
    while True:
        try:
            data = sock.recv(2048)
        except BlockingIOError:
            return
        except OSError:
            continue  # an ICMP error about an earlier datagram
        yield int.from_bytes(data[:_NUMBER], "big")


def watch(local: Local | None, far: Far | None, for_s: float) -> bool:
    """Send and take until all was seen; False: not in time."""
    asked = [one for one in (local, far) if one is not None]
    end_s = time.monotonic() + for_s
    with selectors.DefaultSelector() as selector:
        for one in asked:
            selector.register(one.sock, selectors.EVENT_READ, one)
        while left := [one for one in asked if not one.is_over]:
            now_s = time.monotonic()
            if now_s > end_s:
                return False
            for one in left:
                one.send(now_s)
            pause_s = min(one.due_s for one in left) - time.monotonic()
            for key, _ in selector.select(max(0.0, min(pause_s, 0.05))):
                key.data.take(time.monotonic())
    return True


def hurry() -> None:
    """Be put before what is measured, where the system allows it."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="cold_traffic")
    parser.add_argument("--local", nargs=3, metavar=("ADDRESS", "PORT", "COUNT"))
    parser.add_argument("--far", nargs=3, metavar=("FIRST", "NEIGHBORS", "COUNT"))
    parser.add_argument("--for-s", type=float, default=30.0)
    options = parser.parse_args(arguments)
    if not 0 < options.for_s <= MAX_SECONDS:
        parser.error(f"--for-s is at most {MAX_SECONDS:g}")
    local = far = None
    if options.local is not None:
        address, first, count = options.local[0], int(options.local[1]), int(options.local[2])
        if not (first >= 1 and count >= 1 and first + count <= 65_536):
            parser.error("--local: ports are 1 to 65535")
        local = Local(address, first, count)
    if options.far is not None:
        base, neighbors, in_use = options.far[0], int(options.far[1]), int(options.far[2])
        if not 1 <= in_use <= min(neighbors, MAX_FAR):
            parser.error(f"--far: COUNT is in 1..NEIGHBORS, at most {MAX_FAR}")
        far = Far(base, neighbors, in_use)
    hurry()
    is_all = watch(local, far, options.for_s)
    found = {
        "served": None if local is None else local.served,
        "last_s": None if far is None else far.last_s,
        "all_s": None if far is None else far.all_s,
        "answered": 0 if far is None else far.answered,
        "sent": 0 if far is None else far.sent,
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 0 if is_all else 1


if __name__ == "__main__":
    sys.exit(main())

"""Datagrams at a fine pace, and when each came. Run by path; standard library only.

``stream`` sends one datagram at each interval to one port, each with the moment it was sent; it writes a
line ``gap <when> <seconds>`` whenever it was late by more than ``LATE_S``. ``collect`` writes a line
``<port> <sent> <arrived>`` for each datagram. Moments are of CLOCK_MONOTONIC, which all processes of a
machine share. Each begins with a line ``ready``. Both ask for a real-time priority (sched(7)): an instrument
that waits for its turn on a busy core would measure that.

    change_traffic stream 10.0.1.11 5000 --interval-s 0.001 --for-s 5
    change_traffic collect 5000 5001
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Final

MAX_SECONDS: Final = 600.0
LATE_S: Final = 0.0005
_MOMENT: Final = struct.Struct("!d")


def say(text: str) -> None:
    """One line, at once."""
    os.write(1, f"{text}\n".encode())


def hurry() -> None:
    """Be put before what is measured, where the system allows it."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def stream(args: argparse.Namespace) -> None:
    """Send until the time is over; what a machine that stood still has missed is not sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((args.address, args.port))
        say("ready")
        start_s = next_s = last_s = time.monotonic()
        while (now_s := time.monotonic()) < start_s + args.for_s:
            if now_s < next_s:
                time.sleep(next_s - now_s)
                continue
            if now_s - last_s > args.interval_s + LATE_S:
                say(f"gap {last_s:.6f} {now_s - last_s:.6f}")
            last_s = now_s
            with suppress(OSError):  # an ICMP error about an earlier datagram
                sock.send(_MOMENT.pack(now_s))
            next_s = max(next_s + args.interval_s, now_s)


def collect(args: argparse.Namespace) -> None:
    """Take what comes on the ports until the time is over."""
    with selectors.DefaultSelector() as selector:
        for port in args.port:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind(("", port))
            sock.setblocking(False)  # noqa: FBT003 - the signature is the socket module's
            selector.register(sock, selectors.EVENT_READ, port)
        say("ready")
        end_s = time.monotonic() + args.for_s
        while (left_s := end_s - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                took = key.fileobj
                if not isinstance(took, socket.socket):
                    continue
                try:
                    data = took.recv(_MOMENT.size)
                except OSError:
                    continue
                if len(data) == _MOMENT.size:
                    (sent_s,) = _MOMENT.unpack(data)
                    say(f"{key.data} {sent_s:.6f} {time.monotonic():.6f}")


def main(arguments: list[str] | None = None) -> int:
    top = argparse.ArgumentParser(prog="change_traffic")
    commands = top.add_subparsers(required=True)
    sends = commands.add_parser("stream")
    sends.add_argument("address")
    sends.add_argument("port", type=int)
    sends.add_argument("--interval-s", type=float, default=0.001)
    sends.set_defaults(run=stream)
    takes = commands.add_parser("collect")
    takes.add_argument("port", type=int, nargs="+")
    takes.set_defaults(run=collect)
    for command in (sends, takes):
        command.add_argument("--for-s", type=float, default=MAX_SECONDS)
    args = top.parse_args(arguments)
    if not 0 < args.for_s <= MAX_SECONDS or not 0.0002 <= getattr(args, "interval_s", 1) <= 10:
        top.error(f"at most {MAX_SECONDS:g} s, and an interval of 0.0002 to 10 s")
    hurry()
    args.run(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""First packets: how long each takes, and how many flows a second can be set up.

Run by path, as ``traffic``; standard library only. ``reflect`` echoes datagrams on many UDP ports;
``probe`` sends one datagram to each of them, so each is a flow that no rule knows yet. With a window
of 1 it measures latency, with a larger one the rate. ``pulse`` does the same at a fixed pace, whether
the last one came back or not, and tells when. ``fill`` only sends. Output: JSON, one line when
``reflect`` listens, one with the result of the others.

    traffic_probe reflect 20000 1000
    traffic_probe probe 10.0.1.11 20000 1000 --window 1
    traffic_probe pulse 10.0.1.11 20000 500 --interval-s 0.02
    traffic_probe fill 10.0.1.11 1000 25000 --rate 3000

Exit code: 0 every datagram came back, 1 some did not, 2 usage.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from typing import Final

MAX_FLOWS: Final = 20_000
#: Datagrams that ``fill`` sends at most, and how many a second.
MAX_FILL: Final = 60_000
MAX_FILL_RATE: Final = 20_000
MAX_SECONDS: Final = 600.0
_CHUNK: Final = 2048
#: Datagrams of ``fill`` between two looks at the clock.
_BURST: Final = 16


def reflect(args: argparse.Namespace) -> int:
    """Echo each datagram to where it came from, until the time is over."""
    with selectors.DefaultSelector() as selector:
        for port in range(args.first, args.first + args.count):
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(("::", port))
            sock.settimeout(0)
            selector.register(sock, selectors.EVENT_READ, sock)
        report(ready=True)
        end_s = time.monotonic() + args.for_s
        while (left_s := end_s - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                try:
                    data, peer = key.data.recvfrom(_CHUNK)
                    key.data.sendto(data, peer)
                except OSError:
                    continue
    return 0


def probe(args: argparse.Namespace) -> int:
    """Send to each port once, with ``window`` datagrams under way at most."""
    sent_s: dict[int, float] = {}
    rtts_ms: list[float] = []
    number = lost = 0
    start_s = time.monotonic()
    with open_socket(args.address) as sock:
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            while number < args.count or sent_s:
                while number < args.count and len(sent_s) < args.window:
                    sent_s[number] = time.monotonic()
                    send(sock, number, (args.address, args.first + number))
                    number += 1
                if selector.select(0.05):
                    receive(sock, sent_s, rtts_ms)
                lost += give_up(sent_s, time.monotonic() - args.timeout_s)
    seconds = time.monotonic() - start_s
    rtts_ms.sort()
    report(sent=args.count, received=len(rtts_ms), seconds=seconds, rtts_ms=summary(rtts_ms))
    return 1 if lost else 0


def pulse(args: argparse.Namespace) -> int:
    """Send to each port once, one at each interval; tells of each when it went and came back.

    Output: ``start_s`` (CLOCK_MONOTONIC, which all processes of a machine share), and for each datagram
    the seconds since then when it was sent and when its echo came, or null.
    """
    sent_s: dict[int, float] = {}
    back_s: dict[int, float] = {}
    with open_socket(args.address) as sock, selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        start_s = next_s = time.monotonic()
        while len(sent_s) < args.count or time.monotonic() < next_s + args.timeout_s:
            if len(sent_s) < args.count and time.monotonic() >= next_s:
                number = len(sent_s)
                sent_s[number] = time.monotonic()
                send(sock, number, (args.address, args.first + number))
                next_s += args.interval_s
            left_s = next_s - time.monotonic() if len(sent_s) < args.count else 0.05
            if selector.select(max(0.0, left_s)):
                for number in arrived(sock):
                    back_s.setdefault(number, time.monotonic())
            if len(sent_s) == args.count == len(back_s):
                break
    pulses = [
        (round(sent_s[number] - start_s, 6), since(start_s, back_s.get(number)))
        for number in range(args.count)
    ]
    report(start_s=start_s, pulses=pulses)
    return 0 if len(back_s) == args.count else 1


def since(start_s: float, moment_s: float | None) -> float | None:
    return None if moment_s is None else round(moment_s - start_s, 6)


def fill(args: argparse.Namespace) -> int:
    """Send one datagram to each port at a bounded rate; what comes back is not looked at.

    All from one port, so that a second time makes no more connections.
    """
    number, start_s = 0, time.monotonic()
    with open_socket(args.address) as sock:
        sock.bind(("", args.source_port))
        while number < args.count:
            if number > (time.monotonic() - start_s) * args.rate:
                time.sleep(0.001)
                continue
            for port in range(number, min(number + _BURST, args.count)):
                send(sock, port, (args.address, args.first + port))
            number = min(number + _BURST, args.count)
    report(sent=number, seconds=time.monotonic() - start_s)
    return 0


def open_socket(address: str) -> socket.socket:
    """A datagram socket of the address's family that does not block."""
    version = ipaddress.ip_address(address).version
    sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    sock.settimeout(0)
    return sock


def send(sock: socket.socket, number: int, target: tuple[str, int]) -> None:
    """One datagram; one that cannot be sent is lost like any other."""
    try:
        sock.sendto(number.to_bytes(8, "big"), target)
    except OSError:
        return


def receive(sock: socket.socket, sent_s: dict[int, float], rtts_ms: list[float]) -> None:
    """Take what has come."""
    for number in arrived(sock):
        start_s = sent_s.pop(number, None)
        if start_s is not None:
            rtts_ms.append((time.monotonic() - start_s) * 1e3)


def arrived(sock: socket.socket) -> Iterator[int]:
    """The numbers of the datagrams that have come back."""
    while True:
        try:
            data = sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            continue  # an ICMP error about an earlier datagram
        yield int.from_bytes(data[:8], "big")


def give_up(sent_s: dict[int, float], before_s: float) -> int:
    """Forget what was sent before a moment; how many that were."""
    late = []
    for number, start_s in sent_s.items():
        if start_s > before_s:
            break
        late.append(number)
    for number in late:
        del sent_s[number]
    return len(late)


def summary(values: list[float]) -> dict[str, float]:
    """Percentiles of sorted values (nearest rank); empty when there are none."""
    if not values:
        return {}
    places = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    last = len(values) - 1
    return {name: values[min(last, int(place * len(values)))] for name, place in places.items()}


def report(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="traffic_probe", description="first packets of many flows")
    commands = top.add_subparsers(required=True)
    command = commands.add_parser("reflect", help="echo datagrams on many ports")
    command.add_argument("--for-s", type=float, default=MAX_SECONDS)
    command.set_defaults(run=reflect)
    asked = commands.add_parser("probe", help="one datagram to each port")
    asked.add_argument("address", help="IPv4 or IPv6 address")
    asked.add_argument("--window", type=int, default=1, help="datagrams under way (1)")
    asked.add_argument("--timeout-s", type=float, default=1.0, help="then it is lost (1)")
    asked.set_defaults(run=probe, for_s=MAX_SECONDS)
    paced = commands.add_parser("pulse", help="one datagram to each port at a fixed pace")
    paced.add_argument("address", help="IPv4 or IPv6 address")
    paced.add_argument("--interval-s", type=float, default=0.02, help="between two (0.02)")
    paced.add_argument("--timeout-s", type=float, default=1.0, help="wait for the last (1)")
    paced.set_defaults(run=pulse, for_s=MAX_SECONDS)
    filled = commands.add_parser("fill", help="one datagram to each port, and no more")
    filled.add_argument("address", help="IPv4 or IPv6 address")
    filled.add_argument("--rate", type=int, default=3000, help="a second (3000)")
    filled.add_argument("--source-port", type=int, default=9999, help="from where (9999)")
    filled.set_defaults(run=fill, for_s=MAX_SECONDS)
    for made in (command, asked, paced, filled):
        made.add_argument("first", type=int, help="first port")
        made.add_argument("count", type=int, help="how many ports")
    return top


def main(argv: list[str] | None = None) -> int:
    command = parser()
    args = command.parse_args(argv)
    if not (args.first >= 1 and args.first + args.count <= 65_536):
        command.error("ports are 1 to 65535")
    most = MAX_FILL if args.run is fill else MAX_FLOWS
    if not 1 <= args.count <= most or not 0 < args.for_s <= MAX_SECONDS:
        command.error(f"at most {most} flows, {MAX_SECONDS:g} s")
    if not 0 < getattr(args, "rate", 1) <= MAX_FILL_RATE:
        command.error(f"a rate is 1 to {MAX_FILL_RATE} datagrams a second")
    if not 0.001 <= getattr(args, "interval_s", 1) <= 60:
        command.error("an interval is 0.001 to 60 s")
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    sys.exit(main())

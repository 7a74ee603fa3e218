"""A load: many connections and datagram flows kept alive at once, and what becomes of each.

Run by path, as ``traffic``, beside which it lies; standard library only. Each flow goes to an echo
server and sends numbered messages. A TCP connection has one under way at a time: the next one is sent
at the next interval after the echo came, so a loss costs exactly one retransmission. A UDP flow sends
one at each interval, and what is not echoed in time is lost.

A caller asks over a Unix socket, one JSON line each way:

    {"ask": "mark"}   begin to watch anew; answers as "seen" for the time before
    {"ask": "seen"}   what became of each flow since the mark (see ``Watch.seen``)

Times are of the clock CLOCK_MONOTONIC, which all processes of a machine share.

    traffic_load --control /tmp/load.sock --flow tcp,10.0.0.2,80 --flow udp,10.0.0.2,53

Exit code: 0 the time was over, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

MAX_SECONDS: Final = 3600.0
MAX_FLOWS: Final = 10_000
_MESSAGE: Final = 64
_CONNECT_TIMEOUT_S: Final = 5.0
_CHUNK: Final = 65536
#: Bytes of echoes that may wait for a load that a busy machine keeps waiting; root may ask for as many (socket(7)).
_RECEIVE_BYTES: Final = 4 << 20
_SO_RCVBUFFORCE: Final = 33

# struct tcp_info (linux/tcp.h): tcpi_total_retrans, and since Linux 6.7 tcpi_total_rto.
_TOTAL_RETRANS: Final = 100
_TOTAL_RTO: Final = 240
_TCP_INFO_BYTES: Final = 256


class Watch:
    """What became of a flow since the last mark."""

    def __init__(self, flow: Flow, now_s: float) -> None:
        self._flow = flow
        self._start_s = now_s
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._longest_s = 0.0
        self._sent = self._echoed = self._lost = 0
        self._retrans, self._rto = flow.retransmissions()
        self._to_first: int | None = None

    def sent(self) -> None:
        self._sent += 1

    def lost(self, sent_s: float) -> None:
        """Book what was sent then; what was sent before the mark is none of this watch's."""
        self._lost += sent_s >= self._start_s

    def echoed(self, now_s: float) -> None:
        self._longest_s = max(self._longest_s, now_s - (self._last_s or self._start_s))
        if self._first_s is None:
            self._first_s = now_s
            self._to_first = self._flow.retransmissions()[0] - self._retrans
        self._last_s = now_s
        self._echoed += 1

    def seen(self, now_s: float) -> dict[str, Any]:
        """``first_s`` and ``last_s``: when an echo came first and last, None: never.

        ``longest_gap_s``: the longest time without an echo, up to now. ``lost``: datagrams without
        an echo. ``retransmissions`` and ``timeouts`` are of this end's TCP (RFC 6298);
        ``to_first``: the former up to the first echo.
        """
        retrans, rto = self._flow.retransmissions()
        since_s = now_s - (self._last_s or self._start_s)
        return {
            "sent": self._sent,
            "echoed": self._echoed,
            "lost": self._lost,
            "first_s": self._first_s,
            "last_s": self._last_s,
            "longest_gap_s": max(self._longest_s, since_s),
            "retransmissions": retrans - self._retrans,
            "timeouts": rto - self._rto,
            "to_first": self._to_first,
            "error": self._flow.error,
            "source_port": self._flow.source_port,
        }


class Flow:
    """One connection, or one pair of UDP ports."""

    def __init__(self, protocol: str, address: str, port: int) -> None:
        self.protocol = protocol
        self.address = address
        self.port = port
        self.error = ""
        self.source_port = 0
        self.sock: socket.socket | None = None
        self._number = 0
        #: Messages under way: when each was sent, in order.
        self._awaited: dict[int, float] = {}
        self._buffer = b""
        self.watch = Watch(self, time.monotonic())

    def open(self) -> None:
        """Connect; a failure is kept as ``error``."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        kind = socket.SOCK_STREAM if self.protocol == "tcp" else socket.SOCK_DGRAM
        sock = socket.socket(family, kind)
        try:
            if self.protocol == "tcp":
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            else:
                with suppress(PermissionError):
                    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
            sock.settimeout(_CONNECT_TIMEOUT_S)
            sock.connect((self.address, self.port))
            sock.setblocking(False)  # noqa: FBT003 - the signature is the socket module's
        except OSError as error:
            sock.close()
            self.error = str(error)
            return
        self.source_port = int(sock.getsockname()[1])
        self.sock = sock

    def retransmissions(self) -> tuple[int, int]:
        """Of this end of a TCP connection so far: retransmissions, and retransmission timeouts."""
        if self.protocol != "tcp" or self.sock is None:
            return 0, 0
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        (retrans,) = struct.unpack_from("=I", info, _TOTAL_RETRANS)
        rto = struct.unpack_from("=H", info, _TOTAL_RTO)[0] if len(info) >= _TOTAL_RTO + 2 else 0
        return retrans, rto

    def send(self, now_s: float, give_up_s: float) -> None:
        """Send the next message; give up those that are under way too long."""
        if self.sock is None:
            return
        if self.protocol == "tcp" and self._awaited:
            return
        for number, sent_s in list(self._awaited.items()):
            if now_s - sent_s < give_up_s:
                break
            del self._awaited[number]
            self.watch.lost(sent_s)
        self._number += 1
        try:
            self.sock.send(self._number.to_bytes(8, "big").ljust(_MESSAGE, b"."))
        except OSError as error:
            if self.protocol == "tcp":
                self.error = str(error)
                return
            # An ICMP error about an earlier datagram is told here; UDP goes on.
        self._awaited[self._number] = now_s
        self.watch.sent()

    def receive(self, now_s: float) -> bool:
        """Take what has come; False when the connection has ended."""
        if self.sock is None:
            return False
        try:
            data = self.sock.recv(_CHUNK)
        except BlockingIOError:
            return True
        except OSError as error:
            if self.protocol == "udp":
                return True
            self.error = str(error)
            return False
        if self.protocol == "tcp" and not data:
            self.error = "closed by the other side"
            return False
        self._buffer = self._buffer + data if self.protocol == "tcp" else data
        while len(self._buffer) >= _MESSAGE:
            message, self._buffer = self._buffer[:_MESSAGE], self._buffer[_MESSAGE:]
            if self._awaited.pop(int.from_bytes(message[:8], "big"), None) is not None:
                self.watch.echoed(now_s)
        return True


class Load:
    """All flows, and who asks about them."""

    def __init__(self, flows: list[Flow], control: Path, give_up_s: float) -> None:
        self._flows = flows
        self._give_up_s = give_up_s
        self._selector = selectors.DefaultSelector()
        for flow in flows:
            flow.open()
            if flow.sock is not None:
                self._selector.register(flow.sock, selectors.EVENT_READ, flow)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Under its own name only when it listens: who sees the file may connect at once.
        place = control.with_suffix(".new")
        place.unlink(missing_ok=True)
        self._listener.bind(str(place))
        self._listener.listen(4)
        place.rename(control)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def run(self, interval_s: float, for_s: float) -> None:
        """Send for ``for_s`` seconds; flows take turns within an interval."""
        end_s = time.monotonic() + for_s
        pause_s = interval_s / len(self._flows)
        next_s = time.monotonic()
        turn = 0
        while (now_s := time.monotonic()) < end_s:
            while next_s <= now_s:
                self._flows[turn].send(now_s, self._give_up_s)
                turn = (turn + 1) % len(self._flows)
                next_s += pause_s
            for key, _ in self._selector.select(max(0.0, next_s - time.monotonic())):
                if isinstance(key.data, Flow):
                    if not key.data.receive(time.monotonic()):
                        self._selector.unregister(key.fileobj)
                else:
                    self._answer()
            if now_s - next_s > interval_s:
                next_s = now_s  # a machine that stood still does not send all that it missed

    def _answer(self) -> None:
        peer, _ = self._listener.accept()
        with peer:
            peer.settimeout(1.0)
            try:
                ask = json.loads(peer.makefile("r").readline())["ask"]
                now_s = time.monotonic()
                seen = [flow.watch.seen(now_s) for flow in self._flows]
                if ask == "mark":
                    for flow in self._flows:
                        flow.watch = Watch(flow, now_s)
                answer = {"now_s": now_s, "flows": seen}
                peer.sendall(json.dumps(answer).encode() + b"\n")
            except (OSError, ValueError, KeyError):
                return


def flow(text: str) -> Flow:
    """From ``tcp,10.0.0.2,80``."""
    try:
        protocol, address, port = text.split(",")
        number = int(port)
    except ValueError:
        protocol = ""
    if protocol not in {"tcp", "udp"}:
        raise argparse.ArgumentTypeError(f"{text} is not of the form tcp,10.0.0.2,80")
    return Flow(protocol, address, number)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="traffic_load", description="keep many flows alive")
    made.add_argument("--control", type=Path, required=True, help="Unix socket to be asked over")
    made.add_argument("--flow", type=flow, action="append", required=True, metavar="P,ADDRESS,PORT")
    made.add_argument("--interval-s", type=float, default=0.02, help="per flow and message (0.02)")
    made.add_argument("--give-up-s", type=float, default=0.5, help="a datagram is lost (0.5)")
    made.add_argument("--for-s", type=float, default=120.0, help="seconds to live (120)")
    return made


def main(argv: list[str] | None = None) -> int:
    command = parser()
    args = command.parse_args(argv)
    if not 0.001 <= args.interval_s <= 60 or not 0 < args.for_s <= MAX_SECONDS:
        command.error("an interval is 0.001 to 60 s, a life up to an hour")
    if len(args.flow) > MAX_FLOWS:
        command.error(f"{len(args.flow)} flows are more than {MAX_FLOWS}")
    Load(args.flow, args.control, args.give_up_s).run(args.interval_s, args.for_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())

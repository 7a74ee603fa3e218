"""Test traffic from inside a namespace: TCP and UDP echo servers and their clients.

Run by path or as ``python -m mininet_topos.traffic``; standard library only, so that it starts at
once. Each command is bounded in count and time. Output is JSON: one line with the result, or for
``serve`` one line when it listens and for ``stream`` one line for each step.

    traffic serve --tcp 80 --udp 53 --for-s 60
    traffic tcp 10.0.0.2 80 --count 3
    traffic udp 10.0.0.2 53 --count 3
    traffic stream 10.0.0.2 80 --for-s 20

Exit code: 0 the command did its work and every try was answered, 1 some try was not, 2 usage.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import selectors
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

MAX_COUNT: Final = 100_000
MAX_SECONDS: Final = 3600.0
_CHUNK: Final = 65536
#: Bytes that may wait in a socket that serves.
RECEIVE_BYTES: Final = 4 << 20
#: asm-generic/socket.h; not among the names of the socket module.
SO_RCVBUFFORCE: Final = 33

# Room for one IPv4 or IPv6 packet-info control message (ip(7), ipv6(7)).
_PACKET_INFO_SPACE: Final = 128


def report(**fields: object) -> None:
    """One JSON line on standard output, at once."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def family_of(address: str) -> socket.AddressFamily:
    version = ipaddress.ip_address(address).version
    return socket.AF_INET if version == 4 else socket.AF_INET6


# Servers ------------------------------------------------------------------------------------------


def dual_stack(kind: socket.SocketKind, port: int) -> socket.socket:
    """A bound, non-blocking socket for both families (IPv4 where the kernel has no IPv6)."""
    family, any_address = (
        (socket.AF_INET6, "::") if socket.has_dualstack_ipv6() else (socket.AF_INET, "")
    )
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((any_address, port))
    sock.settimeout(0)
    return sock


def serve(args: argparse.Namespace) -> int:
    """Echo everything on the given ports until the time is over."""
    with selectors.DefaultSelector() as selector:
        for port in args.tcp:
            sock = dual_stack(socket.SOCK_STREAM, port)
            sock.listen(1024)
            selector.register(sock, selectors.EVENT_READ, _accepting(selector))
        for port in args.udp:
            sock = dual_stack(socket.SOCK_DGRAM, port)
            hold_more(sock)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            selector.register(sock, selectors.EVENT_READ, _echo_datagram)
        report(ready=True, tcp=args.tcp, udp=args.udp)
        end_s = time.monotonic() + args.for_s
        while (left_s := end_s - time.monotonic()) > 0:
            for key, _ in selector.select(left_s):
                key.data(key.fileobj)
    return 0


def _accepting(selector: selectors.BaseSelector) -> Callable[[socket.socket], None]:
    def close(peer: socket.socket) -> None:
        selector.unregister(peer)
        peer.close()

    def echo(peer: socket.socket) -> None:
        try:
            data = peer.recv(_CHUNK)
            if data:
                # A peer that does not read is cut rather than waited for: it would stop the others.
                peer.settimeout(1.0)
                peer.sendall(data)
                peer.settimeout(0)
                return
        except OSError:
            pass
        close(peer)

    def accept(listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        peer.settimeout(0)
        selector.register(peer, selectors.EVENT_READ, echo)

    return accept


def _echo_datagram(sock: socket.socket) -> None:
    try:
        data, control, _, peer = sock.recvmsg(_CHUNK, _PACKET_INFO_SPACE)
        # The same control message on the way back: the answer leaves from the address asked.
        sock.sendmsg([data], control, 0, peer)
    except OSError:
        return


# Clients ------------------------------------------------------------------------------------------


def try_tcp(args: argparse.Namespace) -> int:
    """Connect, optionally see one echo, close; ``count`` times."""
    attempts = []
    for number in range(args.count):
        if number:
            time.sleep(args.interval_s)
        attempts.append(_one_connection(args))
    report(attempts=attempts)
    return 0 if all(attempt["connected"] for attempt in attempts) else 1


def _one_connection(args: argparse.Namespace) -> dict[str, Any]:
    start_s = time.perf_counter()
    try:
        with open_tcp(args.address, args.port, args.timeout_s, args.source_port) as sock:
            if args.echo:
                sock.sendall(b"hello")
                if sock.recv(5) == b"":
                    raise ConnectionResetError("closed before the echo")
            elapsed_ms = (time.perf_counter() - start_s) * 1e3
    except OSError as error:
        return {"connected": False, "ms": None, "error": error_name(error)}
    return {"connected": True, "ms": elapsed_ms, "error": ""}


def open_tcp(address: str, port: int, timeout_s: float, source_port: int) -> socket.socket:
    sock = socket.socket(family_of(address), socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source_port:
            sock.bind(("", source_port))
        sock.settimeout(timeout_s)
        sock.connect((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def error_name(error: OSError) -> str:
    """``timeout``, ``refused`` or ``unreachable`` where it is one of these, else the text."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    text = str(error.strerror or error)
    return "unreachable" if "unreachable" in text or "No route" in text else text


def hold_more(sock: socket.socket) -> None:
    """Let datagrams wait for a process that a busy machine keeps waiting, instead of losing them.

    Past net.core.rmem_max root alone may go (socket(7)).
    """
    for option in (SO_RCVBUFFORCE, socket.SO_RCVBUF):
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BYTES)
        except PermissionError:
            continue
        return


def try_udp(args: argparse.Namespace) -> int:
    """Send numbered datagrams from one source port, and time their echoes."""
    rtts_ms = []
    with socket.socket(family_of(args.address), socket.SOCK_DGRAM) as sock:
        if args.source_port:
            sock.bind(("", args.source_port))
        sock.connect((args.address, args.port))
        for number in range(args.count):
            if number:
                time.sleep(args.interval_s)
            rtt_ms = _one_datagram(sock, number, args)
            if rtt_ms is not None:
                rtts_ms.append(rtt_ms)
    report(sent=args.count, received=len(rtts_ms), rtts_ms=rtts_ms)
    return 0 if len(rtts_ms) == args.count else 1


def _one_datagram(sock: socket.socket, number: int, args: argparse.Namespace) -> float | None:
    mark = number.to_bytes(8, "big")
    start_s = time.perf_counter()
    try:
        sock.send(mark.ljust(args.size, b"."))
        while (left_s := start_s + args.timeout_s - time.perf_counter()) > 0:
            sock.settimeout(left_s)
            if sock.recv(_CHUNK)[:8] == mark:  # not a late echo of an earlier one
                return (time.perf_counter() - start_s) * 1e3
    except OSError:
        return None
    return None


def stream(args: argparse.Namespace) -> int:
    """Hold one connection, send a chunk at each interval and count what is echoed.

    While nothing gets through, TCP keeps the chunks and tries again, so ``echoed`` stands still; it
    goes on if the way is opened again.
    """
    sent = echoed = 0
    try:
        sock = open_tcp(args.address, args.port, args.timeout_s, args.source_port)
    except OSError as error:
        report(state="failed", sent=0, echoed=0, error=error_name(error))
        return 1
    chunk = b"x" * args.size
    end_s = time.monotonic() + args.for_s
    with sock:
        sock.settimeout(0)
        try:
            while time.monotonic() < end_s:
                sent += _send_some(sock, chunk)
                echoed += _receive_for(sock, args.interval_s)
                report(state="open", sent=sent, echoed=echoed, error="")
        except OSError as error:
            report(state="broken", sent=sent, echoed=echoed, error=error_name(error))
            return 1
    report(state="closed", sent=sent, echoed=echoed, error="")
    return 0


def _send_some(sock: socket.socket, chunk: bytes) -> int:
    try:
        return sock.send(chunk)
    except BlockingIOError:
        return 0


def _receive_for(sock: socket.socket, seconds: float) -> int:
    received = 0
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        sock.settimeout(left_s)
        try:
            data = sock.recv(_CHUNK)
        except TimeoutError:
            break
        if not data:
            raise ConnectionResetError("closed by the other side")
        received += len(data)
    sock.settimeout(0)
    return received


# Command line -------------------------------------------------------------------------------------


def bounded(kind: type[float], low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not in {low:g}..{high:g}")
        return value

    return number


def ip_address(text: str) -> str:
    """An address and no name: a lookup would be traffic that no test asked for."""
    return str(ipaddress.ip_address(text))


def parser() -> argparse.ArgumentParser:
    port = bounded(int, 1, 65535)
    seconds = bounded(float, 0.0, MAX_SECONDS)
    top = argparse.ArgumentParser(prog="traffic", description="TCP and UDP test traffic")
    commands = top.add_subparsers(required=True)

    command = commands.add_parser("serve", help="echo on TCP and UDP ports, IPv4 and IPv6")
    command.add_argument("--tcp", type=port, action="append", default=[], metavar="PORT")
    command.add_argument("--udp", type=port, action="append", default=[], metavar="PORT")
    command.add_argument("--for-s", type=seconds, default=600.0, help="seconds to live (600)")
    command.set_defaults(run=serve)

    def client(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
        made = commands.add_parser(name, help=text)
        made.add_argument("address", type=ip_address, help="IPv4 or IPv6 address")
        made.add_argument("port", type=port)
        made.add_argument("--timeout-s", type=seconds, default=1.0, help="per try (1)")
        made.add_argument("--source-port", type=port, default=0, help="0: any (0)")
        made.set_defaults(run=run)
        return made

    for name, run, text in (
        ("tcp", try_tcp, "connect and close"),
        ("udp", try_udp, "send datagrams to an echo server"),
    ):
        command = client(name, run, text)
        command.add_argument("--count", type=bounded(int, 1, MAX_COUNT), default=1, help="(1)")
        command.add_argument("--interval-s", type=seconds, default=0.0, help="pause between (0)")
        if name == "tcp":
            command.add_argument("--echo", action="store_true", help="also await an echo")
        else:
            command.add_argument("--size", type=bounded(int, 8, 65000), default=8, help="bytes (8)")

    command = client("stream", stream, "hold a connection and count the bytes echoed")
    command.add_argument("--for-s", type=seconds, default=60.0, help="seconds to live (60)")
    command.add_argument(
        "--interval-s", type=bounded(float, 0.001, 60.0), default=0.05, help="per chunk (0.05)"
    )
    command.add_argument("--size", type=bounded(int, 1, _CHUNK), default=64, help="bytes (64)")
    return top


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    sys.exit(main())

"""A node that sends and answers test traffic, and what comes of it.

It runs ping and the ``traffic`` script inside its namespace.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from mininet_topos import traffic, traffic_frames
from mininet_topos.errors import CommandError
from mininet_topos.lab_run import LabRun
from mininet_topos.node import LabNode, script
from mininet_topos.processes import Background, wait_until_output

_SCRIPT: Final = script(traffic)
_FRAMES: Final = script(traffic_frames)

_READY_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.02
_START_ALLOWANCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class PingResult:
    """Requests sent, answers received, and the answers' round trips in ms, in order."""

    sent: int
    received: int
    rtts_ms: tuple[float, ...]

    @property
    def lost(self) -> int:
        return self.sent - self.received

    @property
    def all_answered(self) -> bool:
        return self.sent > 0 and self.received == self.sent


@dataclass(frozen=True, slots=True)
class TcpAttempt:
    """One try to connect. ``ms`` is the time of the handshake (and echo), None without one.

    ``error``: empty, ``timeout``, ``refused``, ``unreachable``, or the system's own text.
    """

    connected: bool
    ms: float | None
    error: str


@dataclass(frozen=True, slots=True)
class StreamState:
    """How far a stream is: ``starting``, ``open``, ``closed``, ``broken`` or ``failed``; bytes."""

    state: str
    sent: int
    echoed: int
    error: str


class Stream:
    """One TCP connection to an echo server that goes on beside the caller."""

    def __init__(self, process: Background) -> None:
        self.process = process

    @property
    def now(self) -> StreamState:
        lines = self.process.output_tail().splitlines(keepends=True)
        for line in reversed(lines):
            # The last line may be half written, and the first one cut by the tail.
            if line.startswith('{"state"') and line.endswith("}\n"):
                return StreamState(**json.loads(line))
        return StreamState("starting", 0, 0, "")

    def wait_for_progress(self, *, timeout_s: float = 3.0) -> bool:
        """Whether bytes come back that were not back when this was called."""
        before = self.now.echoed
        deadline_s = time.monotonic() + timeout_s
        while self.now.echoed <= before:
            if time.monotonic() > deadline_s or not self.process.running:
                return self.now.echoed > before
            time.sleep(_POLL_S)
        return True

    def bytes_during(self, seconds: float) -> int:
        """How many bytes come back in the next ``seconds``; 0 on a connection that is cut."""
        before = self.now.echoed
        time.sleep(seconds)
        return self.now.echoed - before

    def stop(self) -> None:
        self.process.stop()


class TrafficNode(LabNode):
    """A ``LabNode`` with test traffic; addresses are text, IPv4 or IPv6."""

    def __init__(self, run: LabRun, label: str) -> None:
        self._numbers = itertools.count(1)
        super().__init__(run, label)

    def ping(
        self,
        address: str,
        *,
        count: int = 1,
        interval_s: float = 0.2,
        timeout_s: float = 1.0,
        size: int = 56,
    ) -> PingResult:
        """ICMP or ICMPv6 echo; ``timeout_s`` is the wait when none answers, ``size`` in bytes.

        Raises:
            CommandError: nothing could be sent, for example because there is no route.
        """
        version = ipaddress.ip_address(address).version
        # Not -w: with it, ping sends more than -c asks for when some are lost.
        argv = ["ping", f"-{version}", "-n", "-c", str(count), "-i", f"{interval_s:g}"]
        argv += ["-W", f"{timeout_s:g}", "-s", str(size), address]
        limit_s = count * interval_s + timeout_s + _START_ALLOWANCE_S
        result = self.execute(argv, timeout_s=limit_s, check=False)
        totals = re.search(r"(\d+) packets transmitted, (\d+) received", result.stdout)
        if totals is None:
            said = result.stderr or result.stdout
            raise CommandError(self.label, argv, result.returncode, said)
        rtts_ms = tuple(
            float(text) for text in re.findall(r"time=([\d.]+) ms$", result.stdout, re.MULTILINE)
        )
        return PingResult(int(totals[1]), int(totals[2]), rtts_ms)

    def serve(
        self, *, tcp: Sequence[int] = (), udp: Sequence[int] = (), for_s: float = 600.0
    ) -> Background:
        """Echo servers on TCP and UDP ports, IPv4 and IPv6; returns when they listen.

        Raises:
            CommandError: a port is taken.
        """
        words = [word for port in tcp for word in ("--tcp", str(port))]
        words += [word for port in udp for word in ("--udp", str(port))]
        server = self._start("serve", *words, "--for-s", str(for_s))
        wait_until_output(server, '"ready": true', timeout_s=_READY_TIMEOUT_S)
        return server

    def tcp_connect(
        self, address: str, port: int, *, timeout_s: float = 1.0, source_port: int = 0
    ) -> bool:
        """Whether a TCP handshake succeeds."""
        (attempt,) = self.tcp_attempts(address, port, timeout_s=timeout_s, source_port=source_port)
        return attempt.connected

    def tcp_attempts(
        self,
        address: str,
        port: int,
        *,
        count: int = 1,
        timeout_s: float = 1.0,
        interval_s: float = 0.0,
        source_port: int = 0,
        echo: bool = False,
    ) -> tuple[TcpAttempt, ...]:
        """``count`` connections one after the other; with ``echo`` each must also bring data back.

        ``timeout_s`` is per try, ``source_port`` 0 for any.
        """
        words = ["--count", str(count), "--timeout-s", str(timeout_s)]
        words += ["--interval-s", str(interval_s)]
        words += _source(source_port) + (["--echo"] if echo else [])
        limit_s = count * (2 * timeout_s + interval_s)
        answer = self._ask("tcp", address, port, words, limit_s)
        return tuple(TcpAttempt(**attempt) for attempt in answer["attempts"])

    def udp_request(
        self,
        address: str,
        port: int,
        *,
        count: int = 1,
        timeout_s: float = 1.0,
        interval_s: float = 0.0,
        source_port: int = 0,
        size: int = 8,
    ) -> PingResult:
        """``count`` datagrams of ``size`` bytes to an echo server, from one source port."""
        words = ["--count", str(count), "--timeout-s", str(timeout_s)]
        words += ["--interval-s", str(interval_s), "--size", str(size), *_source(source_port)]
        answer = self._ask("udp", address, port, words, count * (timeout_s + interval_s))
        return PingResult(answer["sent"], answer["received"], tuple(answer["rtts_ms"]))

    def stream(
        self,
        address: str,
        port: int,
        *,
        for_s: float = 60.0,
        interval_s: float = 0.05,
        timeout_s: float = 2.0,
        source_port: int = 0,
    ) -> Stream:
        """Open a TCP connection and keep it busy; returns when the first bytes came back.

        Args:
            address: of the echo server.
            port: of the echo server.
            for_s: how long the connection lives, seconds.
            interval_s: between two chunks.
            timeout_s: for the handshake, and again for the first echo.
            source_port: 0 for any.

        Raises:
            CommandError: it could not be opened.
        """
        words = [address, str(port), "--for-s", str(for_s), "--interval-s", str(interval_s)]
        words += ["--timeout-s", str(timeout_s), *_source(source_port)]
        stream = Stream(self._start("stream", *words))
        if not stream.wait_for_progress(timeout_s=2 * timeout_s + _START_ALLOWANCE_S):
            process = stream.process
            process.stop()
            code = process.returncode or 0
            raise CommandError(self.label, process.argv, code, process.output_tail())
        return stream

    def announce(self, interface: str, address: str) -> None:
        """Gratuitous ARP and RARP, as hypervisors send them for a VM that has moved."""
        self.execute([*_FRAMES, "announce", interface, address])

    def scan(
        self,
        kind: Literal["arp", "ip", "ports"],
        interface: str,
        address: str,
        *,
        to: str,
        mac: str = "",
        for_s: float = 5.0,
        rate: int = traffic_frames.MAX_RATE,
    ) -> Background:
        """Scan addresses or ports from a raw socket, for ``for_s`` seconds beside the caller.

        Args:
            kind: ``arp``: questions for each address; ``ip``: a datagram to each; ``ports``: one to
                each port of the first address.
            interface: of this node.
            address: the sender's IPv4 address.
            to: the prefix of the addresses.
            mac: of the gateway, or of the target; not for ``arp``.
            for_s: seconds, at most ``traffic_frames.MAX_SECONDS``.
            rate: frames a second at most.
        """
        words = ["scan", kind, interface, address, "--to", to, "--for-s", str(for_s)]
        words += ["--rate", str(rate), *(["--mac", mac] if mac else [])]
        return self.spawn(f"scan-{next(self._numbers)}", [*_FRAMES, *words])

    def _ask(
        self, command: str, address: str, port: int, words: list[str], limit_s: float
    ) -> dict[str, Any]:
        argv = [*_SCRIPT, command, address, str(port), *words]
        result = self.execute(argv, timeout_s=limit_s + _START_ALLOWANCE_S, check=False)
        try:
            answer: dict[str, Any] = json.loads(result.stdout)
        except ValueError as error:
            said = result.stderr or result.stdout
            raise CommandError(self.label, argv, result.returncode, said) from error
        return answer

    def _start(self, command: str, *words: str) -> Background:
        name = f"{command}-{next(self._numbers)}"
        return self.spawn(name, [*_SCRIPT, command, *words])


def _source(port: int) -> list[str]:
    return ["--source-port", str(port)] if port else []

"""Drives loads (``traffic_load``) in VMs, and says what became of their flows."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from mininet_topos import traffic_load
from mininet_topos.errors import LabError
from mininet_topos.node import SPARE_FILES, LabNode, script, with_open_files
from mininet_topos.parallel import side_by_side
from mininet_topos.processes import Background, wait_until_path_exists

_SCRIPT: Final = script(traffic_load)

_READY_TIMEOUT_S: Final = 20.0
_ANSWER_TIMEOUT_S: Final = 5.0
#: Bytes of a path in sun_path with its final NUL (unix(7)).
_SUN_PATH: Final = 108

INTERVAL_S: Final = 0.02


class LoadError(LabError):
    """A load does not run or does not answer; the message names the VM and what it said."""


@dataclass(frozen=True, slots=True)
class FlowSpec:
    """A flow from one VM to an address; ``name`` is what reports call it."""

    name: str
    source: str
    target: str
    protocol: Literal["tcp", "udp"]
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class FlowSeen:
    """What became of a flow since the mark. Moments are of ``time.monotonic``, None: never.

    Attributes:
        spec: the flow.
        sent: messages.
        echoed: messages that came back.
        lost: datagrams that did not come back.
        first_s: when the first one came back.
        last_s: when the last one came back.
        longest_gap_s: the longest time without one, up to the look.
        retransmissions: of the end that began the connection (TCP).
        far_retransmissions: of the other end.
        timeouts: retransmission timeouts of the near end (RFC 6298).
        to_first: ``retransmissions`` until the first message came back.
        error: why the connection ended, empty while it lives.
    """

    spec: FlowSpec
    sent: int
    echoed: int
    lost: int
    first_s: float | None
    last_s: float | None
    longest_gap_s: float
    retransmissions: int
    timeouts: int
    to_first: int | None
    error: str
    far_retransmissions: int = 0

    @property
    def is_alive(self) -> bool:
        return not self.error


class Loads:
    """The loads of several VMs, seen as one."""

    def __init__(self, nodes: Mapping[str, LabNode], specs: Sequence[FlowSpec]) -> None:
        self._nodes = nodes
        self._specs = specs
        self._by_source = {
            source: [spec for spec in specs if spec.source == source]
            for source in dict.fromkeys(spec.source for spec in specs)
        }
        self._processes: dict[str, Background] = {}
        self._far_retransmissions: dict[tuple[str, int, int], int] = {}

    def start(
        self, *, interval_s: float, for_s: float, intervals: Mapping[str, float] | None = None
    ) -> None:
        """Start all of them; returns when each flow has had an echo, or ``LoadError``.

        ``intervals``: of the flows of some sources, where ``interval_s`` does not suit.
        """
        own = intervals or {}
        side_by_side(
            lambda source: self._start(source, own.get(source, interval_s), for_s),
            self._by_source,
            workers=len(self._by_source),
        )
        self.mark()
        deadline_s = time.monotonic() + _READY_TIMEOUT_S
        while silent := [one for one in self.seen() if not one.echoed]:
            if time.monotonic() > deadline_s:
                names = ", ".join(f"{one.spec.name} {one.error}".strip() for one in silent)
                raise LoadError(f"no echo of {len(silent)} flows that must live: {names}")
            time.sleep(0.05)
        self.mark()

    def mark(self, *sources: str) -> None:
        """Begin to watch anew, all flows or those of some sources."""
        if not sources:
            self._far_retransmissions = self._count_far_retransmissions()
        self._ask("mark", sources)

    def seen(self) -> list[FlowSeen]:
        """What became of each flow since the mark, in the order of the specs."""
        answers = self._ask("seen")
        now = self._count_far_retransmissions()
        found: dict[FlowSpec, FlowSeen] = {}
        for source, answer in answers.items():
            for spec, fields in zip(self._by_source[source], answer["flows"], strict=True):
                key = (spec.target, spec.port, int(fields.pop("source_port")))
                far = max(0, now.get(key, 0) - self._far_retransmissions.get(key, 0))
                found[spec] = FlowSeen(spec, **fields, far_retransmissions=far)
        return [found[spec] for spec in self._specs]

    def watch(self, seconds: float) -> list[FlowSeen]:
        """Let time pass, and look."""
        time.sleep(seconds)
        return self.seen()

    def wait(
        self, reached: Callable[[Sequence[FlowSeen]], bool], *, timeout_s: float
    ) -> list[FlowSeen]:
        """Look until ``reached``, or the time is over; returns what was seen last."""
        deadline_s = time.monotonic() + timeout_s
        while not reached(seen := self.seen()) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        return seen

    def stop(self) -> None:
        for process in self._processes.values():
            process.stop()

    def _start(self, source: str, interval_s: float, for_s: float) -> None:
        node = self._nodes[source]
        control = self._control(source)
        if len(str(control)) >= _SUN_PATH:
            raise LoadError(f"{control} is too long for a socket: set TMPDIR to a shorter one")
        control.unlink(missing_ok=True)
        words = ["--control", str(control), "--interval-s", str(interval_s), "--for-s", str(for_s)]
        for spec in self._by_source[source]:
            words += ["--flow", f"{spec.protocol},{spec.address},{spec.port}"]
        files = len(self._by_source[source]) + SPARE_FILES
        process = node.spawn("load", with_open_files(files, [*_SCRIPT, *words]))
        self._processes[source] = process
        wait_until_path_exists(control, process, timeout_s=_READY_TIMEOUT_S)

    def _control(self, source: str) -> Path:
        return self._nodes[source].directory / "load.sock"

    def _ask(self, what: str, some: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        sources = list(some or self._by_source)
        answers = side_by_side(
            lambda source: self._ask_one(source, what), sources, workers=len(sources)
        )
        return dict(zip(sources, answers, strict=True))

    def _ask_one(self, source: str, what: str) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(_ANSWER_TIMEOUT_S)
                sock.connect(str(self._control(source)))
                sock.sendall(json.dumps({"ask": what}).encode() + b"\n")
                answer: dict[str, Any] = json.loads(sock.makefile("r").readline())
        except (OSError, ValueError) as error:
            said = self._processes[source].output_tail().strip()
            raise LoadError(f"the load of {source} does not answer ({error}): {said}") from error
        return answer

    def _count_far_retransmissions(self) -> dict[tuple[str, int, int], int]:
        """By (VM, its port, the other end's port): retransmissions of the end that serves."""
        targets = sorted({spec.target for spec in self._specs if spec.protocol == "tcp"})
        counts = side_by_side(lambda name: retransmissions(self._nodes[name]), targets)
        return {
            (name, own, peer): count
            for name, found in zip(targets, counts, strict=True)
            for (own, peer), count in found.items()
        }


def retransmissions(node: LabNode) -> dict[tuple[int, int], int]:
    """Retransmissions of each TCP connection in a node, by its own port and its peer's (ss(8))."""
    return parse_ss(node.execute(["ss", "-tinHO", "state", "established"]).stdout)


def parse_ss(text: str) -> dict[tuple[int, int], int]:
    """From the lines of ``ss -tinHO state established``: ``retrans:<now>/<total>`` of each."""
    found = {}
    for line in text.splitlines():
        ports = re.match(r"\s*\d+\s+\d+\s+\S+:(\d+)\s+\S+:(\d+)\s", line)
        count = re.search(r"\bretrans:\d+/(\d+)", line)
        if ports is not None:
            found[int(ports[1]), int(ports[2])] = int(count[1]) if count else 0
    return found


@contextmanager
def loads(
    nodes: Mapping[str, LabNode],
    specs: Iterable[FlowSpec],
    *,
    interval_s: float = INTERVAL_S,
    intervals: Mapping[str, float] | None = None,
    for_s: float = 300.0,
) -> Iterator[Loads]:
    """Loads that run, until the context is left; ``intervals``: by source, other than ``interval_s``.

    Raises:
        LoadError: some flow has had no echo.
        CommandError: a load did not start.
    """
    made = Loads(nodes, list(specs))
    try:
        made.start(interval_s=interval_s, for_s=for_s, intervals=intervals)
        yield made
    finally:
        made.stop()

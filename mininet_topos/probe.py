"""Drives first-packet probes (``traffic_probe``) between VMs."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Final

from mininet_topos import traffic_probe
from mininet_topos.errors import CommandError, CommandTimeoutError
from mininet_topos.node import SPARE_FILES, LabNode, script, with_open_files
from mininet_topos.processes import Background, wait_until_output

_SCRIPT: Final = script(traffic_probe)
_START_ALLOWANCE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Probed:
    """Datagrams sent, echoes received, seconds it took in all, and percentiles of round trips.

    ``rtts_ms``: ``p50``, ``p90``, ``p99`` and ``max`` in ms; empty when nothing came back.
    """

    sent: int
    received: int
    seconds: float
    rtts_ms: dict[str, float]

    @property
    def rate(self) -> float:
        """Flows that came to be, a second."""
        return self.received / self.seconds if self.seconds else 0.0


def reflect(node: LabNode, *, first: int, count: int) -> Background:
    """Echo datagrams on ``count`` UDP ports from ``first`` on; returns when it listens.

    Raises:
        CommandError: a port is taken.
    """
    argv = [*_SCRIPT, "reflect", str(first), str(count)]
    process = node.spawn(f"reflect-{first}", with_open_files(count + SPARE_FILES, argv))
    wait_until_output(process, '"ready": true', timeout_s=_START_ALLOWANCE_S)
    return process


def probe(
    node: LabNode,
    address: str,
    *,
    first: int,
    count: int,
    window: int = 1,
    timeout_s: float = 1.0,
    limit_s: float = 120.0,
) -> Probed:
    """One datagram to each of ``count`` ports, each of which is a flow that no rule knows yet.

    Args:
        node: the sender.
        address: of the node that reflects.
        first: the first port.
        count: how many.
        window: how many are under way at most; 1 measures latency, more of them the rate.
        timeout_s: a datagram without an echo after that is lost.
        limit_s: of the whole.

    Raises:
        CommandError: it could not be run.
        CommandTimeoutError: it took longer than ``limit_s``.
    """
    words = ["probe", address, str(first), str(count)]
    words += ["--window", str(window), "--timeout-s", str(timeout_s)]
    result = node.execute([*_SCRIPT, *words], timeout_s=limit_s, check=False)
    try:
        fields = json.loads(result.stdout)
    except ValueError as error:
        said = result.stderr or result.stdout
        raise CommandError(node.label, words, result.returncode, said) from error
    return Probed(**fields)


@dataclass(frozen=True, slots=True)
class Pulses:
    """New flows begun at a fixed pace: when each first packet went, and when its echo came.

    Moments are of ``time.monotonic``; an echo of None never came.
    """

    moments: tuple[tuple[float, float | None], ...]

    @property
    def lost(self) -> int:
        return sum(back is None for _, back in self.moments)

    @property
    def rate(self) -> float:
        """Flows served a second, from the first packet to the last echo; 0 when none was served."""
        last_s = max((back for _, back in self.moments if back), default=None)
        served = len(self.moments) - self.lost
        return served / (last_s - self.moments[0][0]) if last_s else 0.0

    def first_served_s(self, since_s: float) -> float | None:
        """When the first flow was served that began after a moment; None: none was."""
        return min((back for sent, back in self.moments if sent >= since_s and back), default=None)

    def served_for_good_s(self, since_s: float) -> float | None:
        """When the first one was served after which all were; None: the last was not."""
        found = None
        for sent, back in reversed(self.moments):
            if sent < since_s or back is None:
                break
            found = back
        return found

    def longest_gap_s(self, since_s: float, until_s: float) -> float:
        """The longest time between those dates in which no new flow was served."""
        times = sorted(back for _, back in self.moments if back and since_s <= back <= until_s)
        edges = [since_s, *times, until_s]
        return max(later - earlier for earlier, later in itertools.pairwise(edges))


def pulse(
    node: LabNode, address: str, *, first: int, count: int, interval_s: float = 0.02
) -> Background:
    """Begin a new flow at each interval beside the caller; ``pulses`` says what became of them.

    Args:
        node: the sender.
        address: of the node that reflects.
        first: the first port.
        count: how many flows.
        interval_s: seconds between two.
    """
    words = ["pulse", address, str(first), str(count), "--interval-s", str(interval_s)]
    return node.spawn(f"pulse-{first}", [*_SCRIPT, *words])


def pulses(process: Background, *, timeout_s: float) -> Pulses:
    """What became of a ``pulse``, when it is over.

    Raises:
        CommandTimeoutError: it was not in time.
        CommandError: it failed.
    """
    if not process.wait(timeout_s):
        said = process.output_tail()
        raise CommandTimeoutError(process.name, process.argv, timeout_s, said)
    try:
        fields = json.loads(process.output())
    except ValueError as error:
        code = process.returncode or 0
        raise CommandError(process.name, process.argv, code, process.output_tail()) from error
    start_s = fields["start_s"]
    return Pulses(
        tuple(
            (start_s + sent, None if back is None else start_s + back)
            for sent, back in fields["pulses"]
        )
    )


def fill(node: LabNode, address: str, *, first: int, count: int, rate: int) -> None:
    """One datagram to each of ``count`` ports, ``rate`` a second, whether somebody listens or not.

    Raises:
        CommandError: it could not be run.
        CommandTimeoutError: it took far longer than it should.
    """
    words = ["fill", address, str(first), str(count), "--rate", str(rate)]
    node.execute([*_SCRIPT, *words], timeout_s=3 * count / rate + _START_ALLOWANCE_S)

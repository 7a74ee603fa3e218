"""Drives ``change_traffic``: streams between VMs, and when their datagrams came."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks import change_traffic
from mininet_topos.node import LabNode, script
from mininet_topos.ovs_host import INTEGRATION_BRIDGE, ComputeHost
from mininet_topos.processes import Background, wait_until_output

_SCRIPT: Final = script(change_traffic)
_START_S: Final = 10.0
_POLL_S: Final = 0.01
#: Kinds of messages by which an agent programs a switch, as ovs-ofctl(8) prints them.
_PROGRAMMING: Final = ("OFPT_FLOW_MOD", "OFPT_BARRIER_REQUEST", "OFPT_GROUP_MOD", "OFPT_METER_MOD")


@dataclass(frozen=True, slots=True)
class Datagram:
    """When a datagram was sent and when it came (``time.monotonic``)."""

    sent_s: float
    came_s: float


class Collector:
    """Takes what comes on some UDP ports of a VM until the lab ends."""

    def __init__(self, node: LabNode, ports: Sequence[int]) -> None:
        """Return when it listens."""
        words = ["collect", *map(str, ports)]
        self._process = node.spawn("collect", [*_SCRIPT, *words])
        wait_until_output(self._process, "ready\n", timeout_s=_START_S)
        self._offset = 0

    def mark(self) -> None:
        """Forget what came so far."""
        self._offset = self._process.log.stat().st_size

    def came(self, port: int) -> list[Datagram]:
        """What came on a port since the mark."""
        with self._process.log.open("rb") as file:
            file.seek(self._offset)
            text = file.read().decode()
        lines = text[: text.rfind("\n") + 1].splitlines()
        words = [line.split() for line in lines if line.startswith(f"{port} ")]
        return [Datagram(float(sent), float(came)) for _, sent, came in words]

    def first_after(self, port: int, since_s: float, *, timeout_s: float) -> Datagram | None:
        """The first one that came after a moment; None: none did in time."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            for one in self.came(port):
                if one.came_s >= since_s:
                    return one
            time.sleep(_POLL_S)
        return None

    def last_before_silence(
        self, port: int, since_s: float, *, quiet_s: float, timeout_s: float
    ) -> Datagram | None:
        """The last one, once none has come for ``quiet_s``; None: they went on until the time was over.

        Raises:
            ValueError: none had come before ``since_s``, so there was nothing to be cut.
        """
        if not any(one.came_s < since_s for one in self.came(port)):
            raise ValueError(f"nothing came on port {port} before the change")
        end_s = time.monotonic() + timeout_s
        while (now_s := time.monotonic()) < end_s:
            last = self.came(port)[-1]
            if now_s - max(last.came_s, since_s) >= quiet_s:
                return last
            time.sleep(_POLL_S)
        return None


class Stream:
    """Datagrams that are sent at a fine pace."""

    def __init__(self, process: Background) -> None:
        self._process = process

    def latest_s(self, since_s: float, until_s: float) -> float:
        """The longest time between two datagrams that were due between these moments, 0: as planned."""
        found = re.findall(r"^gap (\S+) (\S+)$", self._process.output(), re.MULTILINE)
        late = [
            float(length)
            for at, length in found
            if float(at) <= until_s and float(at) + float(length) >= since_s
        ]
        return max(late, default=0.0)


@contextmanager
def stream(node: LabNode, address: str, port: int, *, interval_s: float) -> Iterator[Stream]:
    """Send as long as the context lasts."""
    words = ["stream", address, str(port), "--interval-s", str(interval_s)]
    process = node.spawn("stream", [*_SCRIPT, *words])
    try:
        wait_until_output(process, "ready\n", timeout_s=_START_S)
        yield Stream(process)
    finally:
        process.stop()


class Messages:
    """What a host's agent sends to its switch, as the switch sees it (``ovs-ofctl snoop``)."""

    def __init__(self, host: ComputeHost) -> None:
        environment = {"OVS_RUNDIR": str(host.directory)}
        self._process = host.spawn(
            "snoop", ["ovs-ofctl", "snoop", INTEGRATION_BRIDGE], env=environment
        )
        self._offset = 0

    def mark(self) -> None:
        self._offset = len(self._process.output())

    def programming(self) -> dict[str, int]:
        """How many of each kind came since the mark, without those of which none came."""
        text = self._process.output()[self._offset :]
        counts = {
            kind.removeprefix("OFPT_").lower(): len(re.findall(rf"^{kind} ", text, re.MULTILINE))
            for kind in _PROGRAMMING
        }
        return {kind: count for kind, count in counts.items() if count}

    def packet_outs(self) -> int:
        """How many packets the agent put through the switch since the mark."""
        text = self._process.output()[self._offset :]
        return len(re.findall(r"^OFPT_PACKET_OUT ", text, re.MULTILINE))

    def stop(self) -> None:
        self._process.stop()

"""Which new flows a run offers, in which order, and what the answer to each must be.

The plan goes to the fake switch as a file (``native/plan.h``). What it says about a destination, its
tunnel endpoint and its MAC, is read back from the slice store, not from what was written there.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import vpc
from benchmarks.vpc import VpcSize
from ondemand.records import Neighbor

_MAGIC: Final = 0x314E4C50
_HEAD: Final = struct.Struct("<IIII6s2x")
_PORT: Final = struct.Struct("<I4s6s2x")
_NEIGHBOR: Final = struct.Struct("<4s4s6s2x")
_FLOW: Final = struct.Struct("<IHHH2x")


@dataclass(frozen=True, slots=True)
class PlannedFlow:
    """A TCP connection from local port number ``port`` (1, 2, ...) to a neighbor."""

    port: int
    neighbor: int
    source_port: int
    target_port: int


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """``flows`` refer to ``neighbors`` by place."""

    ports: int
    neighbors: tuple[Neighbor, ...]
    flows: tuple[PlannedFlow, ...]

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            file.write(
                _HEAD.pack(
                    _MAGIC, self.ports, len(self.neighbors), len(self.flows), vpc.gateway_mac()
                )
            )
            for number in range(1, self.ports + 1):
                file.write(_PORT.pack(number, vpc.port_ip(number), vpc.port_mac(number)))
            for neighbor in self.neighbors:
                file.write(_NEIGHBOR.pack(neighbor.ip, neighbor.host, neighbor.mac))
            for flow in self.flows:
                file.write(
                    _FLOW.pack(flow.neighbor, flow.port - 1, flow.source_port, flow.target_port)
                )


def make_plan(
    store: Path, size: VpcSize, *, destinations: int, flows: int, seed: int = 1
) -> FlowPlan:
    """``flows`` new flows, spread over the local ports, to ``destinations`` of the neighbors.

    They go round all destinations before any is met again, then to its next TCP port. So with as many
    destinations as flows each record is new to the agent; with few, and a warm-up as long as a round,
    each is known.

    Raises:
        ValueError: there are not that many neighbors, or not that many flows to them.
    """
    if not 1 <= destinations <= size.neighbors:
        raise ValueError(f"{destinations} destinations of {size.neighbors} neighbors")
    if not 1 <= flows <= destinations * size.target_ports:
        raise ValueError(f"{flows} flows to {destinations} destinations")
    chance = random.Random(seed)
    ips = [vpc.neighbor_ip(n) for n in chance.sample(range(size.neighbors), destinations)]
    records = vpc.neighbors_in_store(store, ips)
    first_port = [chance.randrange(size.target_ports) for _ in ips]
    planned = tuple(
        PlannedFlow(
            port=1 + number % size.ports,
            neighbor=number % destinations,
            source_port=chance.randrange(32_768, 61_000),
            target_port=vpc.FIRST_TARGET_PORT
            + (first_port[number % destinations] + number // destinations) % size.target_ports,
        )
        for number in range(flows)
    )
    return FlowPlan(size.ports, tuple(records[ip] for ip in ips), planned)

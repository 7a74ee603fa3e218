"""Where the time goes on a host: threads of ovs-vswitchd, the agent, packets and upcalls."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mininet_topos.agent_host import AgentOnHost
from mininet_topos.ovs_host import ComputeHost

#: Clock ticks a second (proc(5)).
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """What was used since some moment.

    Attributes:
        at_s: ``time.monotonic``.
        forwarding: seconds of ovs-vswitchd's main thread, which also forwards for all ports.
        others: seconds of its other threads.
        agent: seconds of the agent.
        packets: that the datapath looked up, each recirculation counted.
        upcalls: of these, those that no datapath flow knew.
    """

    at_s: float
    forwarding: float
    others: float
    agent: float
    packets: int
    upcalls: int

    def since(self, before: Cost) -> dict[str, float]:
        """Shares of a core, and rates, between two looks."""
        seconds = self.at_s - before.at_s
        return {
            "ovs-vswitchd main": (self.forwarding - before.forwarding) / seconds,
            "its other threads": (self.others - before.others) / seconds,
            "agent": (self.agent - before.agent) / seconds,
            "packets/s": (self.packets - before.packets) / seconds,
            "upcalls/s": (self.upcalls - before.upcalls) / seconds,
        }


def cost(host: ComputeHost, agent: AgentOnHost) -> Cost:
    """Look now; what counts from the start of both processes."""
    pid = host.vswitchd_pid or 0
    threads = _thread_seconds(pid)
    main = threads.pop(pid, 0.0)
    stats = parse_pmd_stats(host.appctl("dpif-netdev/pmd-stats-show"))
    return Cost(
        at_s=time.monotonic(),
        forwarding=main,
        others=sum(threads.values()),
        agent=sum(_thread_seconds(agent.process.pid).values()),
        packets=stats["packets received"] + stats["packet recirculations"],
        upcalls=stats["miss with success upcall"] + stats["miss with failed upcall"],
    )


def parse_pmd_stats(text: str) -> Counter[str]:
    """From ``ovs-appctl dpif-netdev/pmd-stats-show``: the sum of all threads by what is counted."""
    found: Counter[str] = Counter()
    for what, number in re.findall(r"^\s+([a-z][^:\n]*): (\d+)(?:\s|$)", text, re.MULTILINE):
        found[what] += int(number)
    return found


def over_meter(host: ComputeHost, zones: dict[int, str]) -> Counter[str]:
    """How many packets meters have dropped, by the port whose miss rules they belong to.

    Args:
        host: the host.
        zones: the port of each conntrack zone.
    """
    ports: dict[int, str] = {}
    for rule in host.dump_flows():
        meter = re.search(r"\bmeter:(\d+)", rule)
        zone = re.search(r"\breg[67]=(0x[0-9a-f]+)\b", rule)
        if meter and zone:
            ports[int(meter[1])] = zones.get(int(zone[1], 16), f"zone {zone[1]}")
    return Counter(
        {
            ports.get(meter, f"meter {meter}"): dropped
            for meter, dropped in parse_meters(host.ofctl("meter-stats", "br-int")).items()
            if dropped
        }
    )


def parse_meters(text: str) -> dict[int, int]:
    """From ``ovs-ofctl meter-stats``: packets that the bands of each meter have dropped."""
    found: dict[int, int] = {}
    meter = 0
    for line in text.splitlines():
        if begun := re.search(r"\bmeter[:=](\d+)", line):
            meter = int(begun[1])
        if band := re.match(r"\s*\d+:\s+packet_count:(\d+)", line):
            found[meter] = found.get(meter, 0) + int(band[1])
    return found


def _thread_seconds(pid: int) -> dict[int, float]:
    """Seconds of processor time by thread (proc(5), fields 14 and 15)."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(task.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    return found

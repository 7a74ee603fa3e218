"""The experiments' lab: VMs under load, goal states that change, and what switches then hold."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller_app.config_keys import Value
from mininet_topos.agent_host import STATUS_INTERVAL_S
from mininet_topos.agent_lab import AgentLab, LabPlan
from mininet_topos.errors import LabConfigError
from mininet_topos.experiment_state import Goal
from mininet_topos.lab_source import SqliteSource
from mininet_topos.load import INTERVAL_S, FlowSpec, LoadError, Loads, loads
from mininet_topos.vm import VM_INTERFACE
from ondemand.publishing import Payloads

#: What a dumped rule tells of its life, not of itself (ovs-ofctl(8)).
_LIFE: Final = re.compile(r"\b(?:duration|n_packets|n_bytes|idle_age|hard_age)=[^,\s]+,? ?")

#: The files of an SQLite store in WAL mode.
_STORE_SUFFIXES: Final = ("", "-wal", "-shm")


#: Nice value of the threads that forward (setpriority(2)); a pid stands for its main thread.
_FORWARDING_NICE: Final = -15

#: Seconds for which one try of several is waited for.
_TRY_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Tracked:
    """An entry of a host's conntrack: its zone and original tuple, as text."""

    zone: int
    original: str


class ExperimentLab(AgentLab):
    """A context in which an experiment's hosts, agents and VMs run.

    Attributes:
        goal: what is published.
    """

    def __init__(
        self,
        goal: Goal,
        *,
        hosts: int,
        progress: Callable[[str], None],
        settings: Mapping[str, Mapping[str, Value]] | None = None,
    ) -> None:
        plan = LabPlan(hosts, [station.placed for station in goal.stations], settings or {})
        super().__init__(plan, progress=progress)
        self.goal = goal
        self._loads: Loads | None = None

    # Goal state -----------------------------------------------------------------------------------

    def payloads(self) -> Mapping[str, Payloads]:
        return self.goal.payloads(self.tunnels)

    def publish_goal(self, goal: Goal) -> float:
        """Publish another goal state; returns when that began (``time.monotonic``).

        So a time that counts from then includes the publishing itself.
        """
        self.goal = goal
        payloads = self.payloads()
        start_s = time.monotonic()
        self._store.publish(payloads, replace_all=self.replaces_all)
        return start_s

    @property
    def store_file(self) -> Path:
        """The slice store.

        Raises:
            LabConfigError: it is no file.
        """
        source = self.source
        if not isinstance(source, SqliteSource):
            raise LabConfigError(f"the slices are in {source.title}, and not in a file")
        return source.file

    def take_store_away(self) -> None:
        """Move the slice store's files elsewhere, as when a disk goes away."""
        self.close_store()
        away = self._away
        away.mkdir(exist_ok=True)
        for path in self._store_files():
            shutil.move(path, away / path.name)

    def put_garbage(self) -> None:
        """Where the store was, put a file that is none."""
        self.store_file.write_bytes(b"no slice store, and no SQLite either\n" * 200)

    def bring_store_back(self) -> float:
        """Put the store back in one step; returns when that was done (``time.monotonic``)."""
        for path in self._away.iterdir():
            if path.name != self.store_file.name:
                shutil.move(path, self.store_file.parent / path.name)
        (self._away / self.store_file.name).replace(self.store_file)
        back_s = time.monotonic()
        self.open_store()
        return back_s

    @property
    def _away(self) -> Path:
        return self.fabric.run.directory / "away"

    def _store_files(self) -> list[Path]:
        names = [self.store_file.name + suffix for suffix in _STORE_SUFFIXES]
        found = [self.store_file.parent / name for name in names]
        return [path for path in found if path.exists()]

    # Traffic --------------------------------------------------------------------------------------

    def start_loads(
        self,
        specs: Sequence[FlowSpec],
        *,
        interval_s: float = INTERVAL_S,
        intervals: Mapping[str, float] | None = None,
        for_s: float = 300.0,
    ) -> Loads:
        """Start loads that run as long as the lab; each flow has had an echo when it returns.

        Args:
            specs: the flows.
            interval_s: between two messages of a flow.
            intervals: the same for the flows of some sources.
            for_s: how long they run at most.
        """
        self._loads = self._stack.enter_context(
            loads(self.vms, specs, interval_s=interval_s, intervals=intervals, for_s=for_s)
        )
        return self._loads

    @property
    def loads(self) -> Loads:
        """The loads that run.

        Raises:
            LoadError: there are none, because they could not be started.
        """
        if self._loads is None:
            raise LoadError("the streams could not be begun")
        return self._loads

    def hasten_arp(self, name: str) -> None:
        """Let a VM repeat an unanswered ARP or ND question every 50 ms, not once a second."""
        self.vms[name].write_sysctls(
            {f"{family}/neigh/{VM_INTERFACE}/retrans_time_ms": "50" for family in ("ipv4", "ipv6")}
        )

    def until_ping(self, name: str, address: str, *, timeout_s: float) -> float | None:
        """Ping until an answer comes; returns when that was (``time.monotonic``), None: never."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            if self.vms[name].ping(address, timeout_s=_TRY_S).received:
                return time.monotonic()
        return None

    def until_connected(
        self, name: str, address: str, port: int, *, timeout_s: float
    ) -> float | None:
        """Try TCP connections until one succeeds; returns when that was, None: never."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            if self.vms[name].tcp_connect(address, port, timeout_s=_TRY_S):
                return time.monotonic()
        return None

    def prefer_switches(self) -> None:
        """Let the threads that forward have a core when they want one.

        A compute host's switch does not wait behind VMs and tests; here it would, and on the userspace
        datapath one thread forwards for all ports, so that packets are lost meanwhile.

        Raises:
            LoadError: a switch does not run.
        """
        for host in self.fabric.hosts:
            pid = host.vswitchd_pid
            if pid is None:
                raise LoadError(f"ovs-vswitchd of {host.label} does not run")
            # Containers may lack CAP_SYS_NICE; then the machine had better be idle.
            with suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, pid, _FORWARDING_NICE)

    # What agents and switches hold ----------------------------------------------------------------

    def counts(self, name: str) -> Counter[int]:
        """A counter of each agent, all ports together, by the host's number.

        Waits until the agents have told of everything that came before.
        """
        time.sleep(2 * STATUS_INTERVAL_S)
        found: Counter[int] = Counter()
        for number, agent in self.agents.items():
            counters = agent.status.get("counters", {})
            for key, by_port in counters.items():
                if key == name or key.endswith(f".{name}"):
                    found[number] += sum(by_port.values())
        return found

    def rules(self, number: int) -> frozenset[str]:
        """All rules of a host without what tells of their use: cookie, match, timeouts, actions."""
        return frozenset(_LIFE.sub("", line).strip() for line in self.host(number).dump_flows())

    def marks(self, number: int) -> dict[Tracked, int]:
        """The mark of each connection that a host tracks."""
        return parse_conntrack(self.host(number).appctl("dpctl/dump-conntrack"))

    def zone(self, name: str) -> int:
        """The conntrack zone of a VM's port."""
        vm = self.vms[name]
        return self.zone_of(self.fabric.hosts.index(vm.host) + 1, vm.ofport)


def parse_conntrack(text: str) -> dict[Tracked, int]:
    """From the lines of ``ovs-appctl dpctl/dump-conntrack``; a mark of 0 is not shown."""
    found = {}
    for line in text.splitlines():
        original = re.match(r"(\w+,orig=\([^)]*\))", line)
        zone = re.search(r"\bzone=(\d+)", line)
        mark = re.search(r"\bmark=(\d+)", line)
        if original is not None:
            key = Tracked(int(zone[1]) if zone else 0, original[1])
            found[key] = int(mark[1]) if mark else 0
    return found


def is_on_demand(rule: str) -> bool:
    """Whether a dumped rule is one that traffic asked for: it leaves again."""
    return "_timeout=" in rule

"""The demo's lab: hosts with agents, VMs with servers, the slice store, and traffic that is noted."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from controller_app.sqlite_store import SqliteStore
from mininet_topos.agent_host import AgentError, AgentOnHost
from mininet_topos.demo_model import Measurement
from mininet_topos.demo_rules import OnDemandRule, Use, on_demand_rules
from mininet_topos.demo_state import (
    ADMIN,
    CLOSED,
    ECHO_UDP,
    HOSTS,
    HTTP,
    SQL,
    VMS,
    demo_payloads,
    fleet_payloads,
)
from mininet_topos.fabric import Fabric
from mininet_topos.ovs_host import ComputeHost
from mininet_topos.parallel import side_by_side
from mininet_topos.traffic_node import PingResult, Stream, TcpAttempt
from mininet_topos.vm import Vm, VmSpec
from ondemand.publishing import Progress

#: Seconds. Short, so that a viewer sees rules leave; longer than any step that counts them.
IDLE_S: Final = 6
DENY_S: Final = 2

_SETTINGS: Final = {
    "rules": {
        "verdict_idle_s": IDLE_S,
        "location_idle_s": IDLE_S,
        "responder_idle_s": IDLE_S,
        "deny_s": DENY_S,
    }
}

_SERVERS: Final[Mapping[str, Mapping[str, tuple[int, ...]]]] = {
    "web": {"tcp": (HTTP, ADMIN, CLOSED), "udp": (ECHO_UDP,)},
    "client": {"tcp": (HTTP,)},
    "db": {"tcp": (SQL,)},
}


class DemoLab:
    """A context in which the demo's hosts, agents and VMs run.

    Attributes:
        fabric: the hosts and VMs.
        agents: by the number of their host, 1 to 3.
        vms: by name; see ``demo_state``.
        uses: which VM has sent to which address, as far as ``ping`` and its like were used.
        last_traffic_s: when that last ended (monotonic seconds).
        first_counts: on-demand rules after the first traffic, by host and table.
        measurements: what experiments have measured.
    """

    def __init__(self, *, with_fleet: bool, progress: Callable[[str], None]) -> None:
        """Nothing is made before the context is entered.

        Args:
            with_fleet: the VPC has the subnet of the synthetic neighbors.
            progress: told in a few words what is being done.
        """
        self._with_fleet = with_fleet
        self._progress = progress
        self.fabric = Fabric(hosts=HOSTS, progress=progress)
        self.agents: dict[int, AgentOnHost] = {}
        self.vms: dict[str, Vm] = {}
        self.uses: set[Use] = set()
        self.last_traffic_s = 0.0
        self.first_counts: Mapping[int, Mapping[int, int]] = {}
        self.measurements: list[Measurement] = []
        self._store: SqliteStore
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.fabric)
            self._store = SqliteStore(self.fabric.run.directory / "slices.db", writer=True)
            stack.callback(self._store.close)
            self._build()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def host(self, number: int) -> ComputeHost:
        return self.fabric.hosts[number - 1]

    @property
    def store_file(self) -> Path:
        return self._store.path

    # Goal state -----------------------------------------------------------------------------------

    def publish(self, *, without_rules: Collection[str] = ()) -> int:
        """Publish the goal state; returns how many records differ from the one before."""
        tunnels = {host.label: host.tunnel_ip for host in self.fabric.hosts}
        payloads = demo_payloads(tunnels, without_rules=without_rules, with_fleet=self._with_fleet)
        return self._store.publish(payloads, replace_all=False).written

    def publish_fleet(self, count: int, progress: Progress) -> None:
        """Publish ``count`` synthetic neighbors, spread over the three hosts."""
        done = 0
        for size, payloads in fleet_payloads(count, [h.tunnel_ip for h in self.fabric.hosts]):
            self._store.publish(payloads, replace_all=False)
            done += size
            progress(done, count)

    # Rules ----------------------------------------------------------------------------------------

    def rules(self) -> dict[int, list[OnDemandRule]]:
        """The on-demand rules in the switch of each host, by its number."""
        return {host: on_demand_rules(self.host(host).dump_flows()) for host in self.agents}

    def zone_of(self, host: int, ofport: int) -> int:
        """The conntrack zone of a local port, read from the rule that classifies its packets."""
        (rule,) = self.host(host).dump_flows(match=f"table=0,in_port={ofport}")
        found = re.search(r"set_field:(0x[0-9a-f]+)->reg6", rule)
        return int(found[1], 16) if found else 0

    def rules_of_zone(self, host: int, zone: int) -> int:
        """How many rules of a host belong to the port with this zone."""
        own = re.compile(rf"\breg[67]={zone:#x}\b|:{zone:#x}->reg[67]\b")
        return sum(1 for line in self.host(host).dump_flows() if own.search(line))

    # Traffic --------------------------------------------------------------------------------------

    def ping(self, source: str, address: str, *, count: int = 2) -> PingResult:
        """``count`` echo requests; waits a second for the first answer, 0.3 s for the last."""
        with self._noting(source, address):
            # When it has seen an answer, ping waits for the last one no longer than an interval.
            return self.vms[source].ping(address, count=count, interval_s=0.3)

    def tcp(self, source: str, address: str, port: int) -> TcpAttempt:
        """One connection over which data must come back."""
        with self._noting(source, address):
            (attempt,) = self.vms[source].tcp_attempts(address, port, echo=True)
        return attempt

    def udp(self, source: str, address: str, port: int, *, count: int, size: int) -> PingResult:
        """``count`` datagrams of ``size`` bytes, each awaited for 0.4 s."""
        with self._noting(source, address):
            return self.vms[source].udp_request(
                address, port, count=count, size=size, timeout_s=0.4
            )

    def stream(self, source: str, address: str, port: int) -> Stream:
        """A connection over which data goes forth and back until it is stopped."""
        with self._noting(source, address):
            return self.vms[source].stream(address, port, interval_s=0.02)

    def note(self, source: str, address: str) -> None:
        """Note traffic that was made by other means."""
        self.uses.add((source, address))
        self.last_traffic_s = time.monotonic()

    @contextmanager
    def _noting(self, source: str, address: str) -> Iterator[None]:
        self.note(source, address)
        try:
            yield
        finally:
            self.note(source, address)

    # Set-up ---------------------------------------------------------------------------------------

    def _build(self) -> None:
        written = self.publish()
        self._progress(f"published the goal state: {written} records in one SQLite file")
        self._progress(f"starting {HOSTS} agents, one in each host's namespace")
        for number, host in enumerate(self.fabric.hosts, 1):
            agent = AgentOnHost(host, self._store.path, settings=_SETTINGS)
            agent.start()
            self.agents[number] = agent
        # VMs are made while the agents start; they are plugged in once there is a bridge.
        made = self.fabric.add_vms(
            [(self.host(vm.host), VmSpec(vm.name, vm.mac, vm.addresses, vm.gateways)) for vm in VMS]
        )
        self.vms = {vm.label: vm for vm in made}
        for agent in self.agents.values():
            agent.wait_connected()
        self._progress("plugging the VMs in")
        side_by_side(lambda vm: vm.plug(vm.label), self.vms.values())
        for number, agent in self.agents.items():
            wanted = [vm.name for vm in VMS if vm.host == number]
            if not agent.wait_for_ports(wanted):
                raise AgentError(
                    f"the agent of {agent.host.label} serves the ports {sorted(agent.ports)} "
                    f"instead of {wanted}: {agent.errors() or 'it reported no error'}"
                )
        self._progress("starting servers in the VMs")
        side_by_side(_serve, self.vms.values())


def _serve(vm: Vm) -> None:
    ports = _SERVERS.get(vm.label.partition("-")[0])
    if ports is not None:
        vm.serve(tcp=ports.get("tcp", ()), udp=ports.get("udp", ()))

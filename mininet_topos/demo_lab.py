"""The demo's lab: its VMs on three hosts with agents, and traffic that is noted."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from mininet_topos.agent_lab import AgentLab, LabPlan, PlacedVm
from mininet_topos.demo_rules import OnDemandRule, Use, on_demand_rules
from mininet_topos.demo_state import (
    ADMIN,
    CLOSED,
    ECHO_UDP,
    HOSTS,
    HTTP,
    SQL,
    VMS,
    DemoVm,
    demo_payloads,
    fleet_payloads,
)
from mininet_topos.traffic_node import PingResult, Stream, TcpAttempt
from mininet_topos.vm import VmSpec
from ondemand.publishing import Payloads, Progress

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


def _placed(vm: DemoVm) -> PlacedVm:
    ports = _SERVERS.get(vm.name.partition("-")[0], {})
    spec = VmSpec(vm.name, vm.mac, vm.addresses, vm.gateways)
    return PlacedVm(spec, vm.host, tcp=ports.get("tcp", ()), udp=ports.get("udp", ()))


class DemoLab(AgentLab):
    """A context in which the demo's hosts, agents and VMs run.

    Attributes:
        uses: which VM has sent to which address, as far as ``ping`` and its like were used.
        last_traffic_s: when that last ended (monotonic seconds).
        first_counts: on-demand rules after the first traffic, by host and table.
    """

    #: The fleet is published apart, once.
    replaces_all = False

    def __init__(self, *, with_fleet: bool, progress: Callable[[str], None]) -> None:
        """Nothing is made before the context is entered.

        Args:
            with_fleet: the VPC has the subnet of the synthetic neighbors.
            progress: told in a few words what is being done.
        """
        plan = LabPlan(HOSTS, [_placed(vm) for vm in VMS], _SETTINGS)
        super().__init__(plan, progress=progress)
        self._with_fleet = with_fleet
        self._without_rules: Collection[str] = ()
        self.uses: set[Use] = set()
        self.last_traffic_s = 0.0
        self.first_counts: Mapping[int, Mapping[int, int]] = {}

    # Goal state -----------------------------------------------------------------------------------

    def payloads(self) -> Mapping[str, Payloads]:
        return demo_payloads(
            self.tunnels, without_rules=self._without_rules, with_fleet=self._with_fleet
        )

    def publish_without(self, rules: Collection[str]) -> int:
        """Publish the goal state without these rules, until the next ``publish_without``."""
        self._without_rules = rules
        return self.publish()

    def publish_fleet(self, count: int, progress: Progress) -> None:
        """Publish ``count`` synthetic neighbors, spread over the three hosts."""
        done = 0
        for size, payloads in fleet_payloads(count, list(self.tunnels.values())):
            self._store.publish(payloads, replace_all=False)
            done += size
            progress(done, count)

    # Rules ----------------------------------------------------------------------------------------

    def rules(self) -> dict[int, list[OnDemandRule]]:
        """The on-demand rules in the switch of each host, by its number."""
        return {host: on_demand_rules(self.host(host).dump_flows()) for host in self.agents}

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

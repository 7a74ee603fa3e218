"""A lab with everything that the agent needs: hosts with agents, VMs with servers, the slice store."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

from controller_app.config_keys import Value
from controller_app.source_factory import SliceStore
from mininet_topos.agent_host import AgentError, AgentOnHost
from mininet_topos.fabric import Fabric
from mininet_topos.lab_source import LabSource, SourceKind, make_source
from mininet_topos.ovs_host import ComputeHost
from mininet_topos.parallel import side_by_side
from mininet_topos.promises import Measurement
from mininet_topos.vm import Vm, VmSpec
from ondemand.publishing import Payloads


@dataclass(frozen=True, slots=True)
class PlacedVm:
    """A VM and where it starts.

    Attributes:
        spec: the VM; its name is also its port's id in the goal state.
        host: number of its host, from 1.
        tcp: ports on which it echoes TCP.
        udp: the same of UDP.
        is_plugged: it is plugged in from the start, and the agent is to serve it.
    """

    spec: VmSpec
    host: int
    tcp: tuple[int, ...] = ()
    udp: tuple[int, ...] = ()
    is_plugged: bool = True


@dataclass(frozen=True, slots=True)
class LabPlan:
    """What is built. ``settings``: keys of the agents' configuration, by table."""

    hosts: int
    vms: Sequence[PlacedVm]
    settings: Mapping[str, Mapping[str, Value]]


class AgentLab:
    """A context in which hosts, agents and VMs run. A subclass says what goal state there is.

    Attributes:
        plan: what it was built from.
        fabric: the hosts and VMs.
        agents: by the number of their host, from 1.
        vms: by name.
        measurements: what trials have measured.
        step: told in a few words what is being done.
        replaces_all: publishing removes what the goal state does not name.
        source_kind: what the agents read, to be set before the context is entered.
        source: it, in the context.
    """

    replaces_all: ClassVar[bool] = True
    source_kind: SourceKind = "sqlite"
    source: LabSource

    def __init__(self, plan: LabPlan, *, progress: Callable[[str], None]) -> None:
        """Nothing is made before the context is entered."""
        self.plan = plan
        self.step = progress
        self.fabric = Fabric(hosts=plan.hosts, progress=progress)
        self.agents: dict[int, AgentOnHost] = {}
        self.vms: dict[str, Vm] = {}
        self.measurements: list[Measurement] = []
        self._store: SliceStore
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.fabric)
            self.source = make_source(self.source_kind, self.fabric.run, self.fabric.hosts)
            self.open_store()
            stack.callback(self.close_store)
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

    def open_store(self) -> None:
        """Open the slice store for publishing, again if it was closed."""
        self._store = self.source.open()

    def close_store(self) -> None:
        """Have no file or connection of the store open. May be called again."""
        self._store.close()

    @property
    def tunnels(self) -> dict[str, str]:
        """Tunnel address of each host by its id, in the order of their numbers."""
        return {host.label: host.tunnel_ip for host in self.fabric.hosts}

    # Goal state -----------------------------------------------------------------------------------

    def payloads(self) -> Mapping[str, Payloads]:
        """The goal state, as payloads of slices."""
        raise NotImplementedError

    def publish(self) -> int:
        """Publish ``payloads``; returns how many records differ from the ones before."""
        return self._store.publish(self.payloads(), replace_all=self.replaces_all).written

    # Rules ----------------------------------------------------------------------------------------

    def zone_of(self, host: int, ofport: int) -> int:
        """The conntrack zone of a local port, read from the rule that classifies its packets."""
        (rule,) = self.host(host).dump_flows(match=f"table=0,in_port={ofport}")
        found = re.search(r"set_field:(0x[0-9a-f]+)->reg6", rule)
        return int(found[1], 16) if found else 0

    def rules_of_zone(self, host: int, zone: int) -> int:
        """How many rules of a host belong to the port with this zone."""
        return sum(1 for line in self.host(host).dump_flows() if is_of_zone(line, zone))

    # Set-up ---------------------------------------------------------------------------------------

    def start_agent(self, number: int) -> AgentOnHost:
        """Start the agent of a host, again if there was one; it serves some time later."""
        agent = self.agents.get(number)
        if agent is None:
            host = self.host(number)
            settings = self.plan.settings
            source = {**self.source.settings(host), **settings.get("source", {})}
            agent = AgentOnHost(host, None, settings={**settings, "source": source})
            self.agents[number] = agent
        agent.start()
        return agent

    def serve(self, name: str) -> None:
        """Start the servers of a VM."""
        for placed in self.plan.vms:
            if placed.spec.name == name and (placed.tcp or placed.udp):
                self.vms[name].serve(tcp=placed.tcp, udp=placed.udp)

    def _build(self) -> None:
        written = self.publish()
        self.step(f"published the goal state: {written} records in {self.source.title}")
        self.step(f"starting {self.plan.hosts} agents, one in each host's namespace")
        for number in range(1, self.plan.hosts + 1):
            self.start_agent(number)
        # VMs are made while the agents start; they are plugged in once there is a bridge.
        made = self.fabric.add_vms([(self.host(vm.host), vm.spec) for vm in self.plan.vms])
        self.vms = {vm.label: vm for vm in made}
        for agent in self.agents.values():
            agent.wait_connected()
        self.step("plugging the VMs in")
        plugged = [vm for vm in self.plan.vms if vm.is_plugged]
        side_by_side(lambda vm: self.vms[vm.spec.name].plug(vm.spec.name), plugged)
        for number, agent in self.agents.items():
            wanted = [vm.spec.name for vm in plugged if vm.host == number]
            if not agent.wait_for_ports(wanted):
                raise AgentError(
                    f"the agent of {agent.host.label} serves the ports {sorted(agent.ports)} "
                    f"instead of {wanted}: {agent.errors() or 'it reported no error'}"
                )
        self.step("starting servers in the VMs")
        side_by_side(self.serve, self.vms)


def is_of_zone(rule: str, zone: int) -> bool:
    """Whether a dumped rule belongs to the port with this conntrack zone."""
    own = rf"\breg[67]={zone:#x}\b|:{zone:#x}->reg[67]\b"
    return re.search(own, rule) is not None

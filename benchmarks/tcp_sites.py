"""The switches that ``tcp_crr`` compares: under agents, with the same rules preloaded, and plain bridges.

Each contender has two hosts and three VMs as in ``first_packet_sites``, here with addresses and a TCP stack.
What they would otherwise ask by ARP they know for good. A VM's processes run on the core that its
host's switch is not on, as the agents do, for all contenders alike.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self

from benchmarks.crr import SYSCTLS, ask, serving
from benchmarks.first_packet_sites import (
    IPS,
    MACS,
    PATHS,
    VERDICTS,
    VNI,
    OnDemandSite,
    Site,
    introduce,
    make_site,
    preload,
)
from mininet_topos.errors import LabError
from mininet_topos.fabric import Fabric
from mininet_topos.ovs_host import INTEGRATION_BRIDGE, VXLAN_PORT
from mininet_topos.switch_cost import parse_meters, parse_pmd_stats
from mininet_topos.vm import VM_INTERFACE, Vm
from scale.machine import cpu_s

Match = Literal["service", "connection"]

PRELOADED, NORMAL = "preloaded", "NORMAL bridge"
_SHORT: Final = {"service": "svc", "connection": "con", PRELOADED: "pre", NORMAL: "nor"}
#: Connections that show that a path works.
_CHECKED: Final = 50
_CHECK_S: Final = 5.0
#: Verdict rules of TCP connections to a port, whatever else they match.
_TO_PORT: Final = "ip,ct_state=-inv+trk,ct_nw_proto=6"
#: A switch that has nothing to do and an agent that has nothing to do take some percent of a core.
_QUIET_SHARE: Final = 0.2
_QUIET_LOOKS: Final = 2
_LOOK_S: Final = 0.1
_SETTLE_S: Final = 10.0


def agents_name(match: Match) -> str:
    return f"agents, {match}"


@dataclass(frozen=True, slots=True)
class Used:
    """What both hosts of a contender have used and done so far.

    Attributes:
        switch_s: processor time of ovs-vswitchd on each of the two hosts, seconds.
        agents_s: of the two agents; 0 without.
        received: packets that ports gave to the datapaths.
        lookups: times that a datapath looked a packet up: when it is received, and each recirculation.
        upcalls: lookups that no flow of the datapath knew.
        packet_ins: packets for the agents that came to the ports' meters.
        over_meter: those of them that the meters dropped.
    """

    switch_s: tuple[float, ...]
    agents_s: float
    received: float
    lookups: float
    upcalls: float
    packet_ins: int
    over_meter: int

    def since(self, before: Self, transactions: int) -> dict[str, float]:
        """For one transaction, between two looks; processor time in microseconds."""

        def each(now: float, then: float) -> float:
            return (now - then) / transactions if transactions else 0.0

        return {
            "switches_us": each(sum(self.switch_s), sum(before.switch_s)) * 1e6,
            "agents_us": each(self.agents_s, before.agents_s) * 1e6,
            "packets": each(self.received, before.received),
            "lookups": each(self.lookups, before.lookups),
            "upcalls": each(self.upcalls, before.upcalls),
            "packet_ins": each(self.packet_ins, before.packet_ins),
        }

    def busiest_s(self, before: Self) -> float:
        """Processor time of the switch that took more of it between two looks, seconds."""
        return max(now - then for now, then in zip(self.switch_s, before.switch_s, strict=True))


class Contender:
    """A site, and its agents where there are any."""

    def __init__(self, name: str, site: Site, *, agents: OnDemandSite | None = None) -> None:
        self.name = name
        self.site = site
        self.agents = agents

    def target(self, path: str) -> tuple[Vm, str]:
        """The VM at the end of a path, and its address."""
        name = PATHS[path]
        return self.site.vms[name], IPS[name]

    def core(self, vm: Vm) -> int | None:
        """Where a VM's processes run."""
        return self.site.controller_core(vm.host)

    def clean_up(self, port: int) -> None:
        """Remove what a run to a port has left, and wait until all is quiet.

        Left are connections in conntrack, datapath flows, and the agents' verdict rules of that port. Else
        they would leave one by one later, while another contender is measured on the same cores.

        Raises:
            LabError: a switch or an agent is still busy after ten seconds.
        """
        for host in self.site.hosts:
            if self.agents:
                for table in VERDICTS:
                    host.ofctl(
                        "del-flows", INTEGRATION_BRIDGE, f"{table},{_TO_PORT},ct_tp_dst={port}"
                    )
            host.appctl("revalidator/purge")
            host.appctl("dpctl/flush-conntrack")
        quiet = 0
        for _ in range(int(_SETTLE_S / _LOOK_S)):
            before = self._busy_s()
            time.sleep(_LOOK_S)
            quiet = quiet + 1 if self._busy_s() - before <= _LOOK_S * _QUIET_SHARE else 0
            if quiet == _QUIET_LOOKS:
                return
        raise LabError(f"{self.name}: a switch or an agent is still busy after {_SETTLE_S:g} s")

    def _busy_s(self) -> float:
        """Processor time of switches and agents."""
        pids = [host.vswitchd_pid or 0 for host in self.site.hosts]
        return sum(map(cpu_s, [*pids, *(self.agents.agent_pids if self.agents else ())]))

    def used(self) -> Used:
        stats = [
            parse_pmd_stats(host.appctl("dpif-netdev/pmd-stats-show")) for host in self.site.hosts
        ]
        received = sum(one["packets received"] for one in stats)
        meters = [
            host.ofctl("meter-stats", INTEGRATION_BRIDGE)
            for host in (self.site.hosts if self.agents else ())
        ]
        return Used(
            switch_s=tuple(cpu_s(host.vswitchd_pid or 0) for host in self.site.hosts),
            agents_s=sum(map(cpu_s, self.agents.agent_pids)) if self.agents else 0.0,
            received=received,
            lookups=received + sum(one["packet recirculations"] for one in stats),
            upcalls=sum(
                one["miss with success upcall"] + one["miss with failed upcall"] for one in stats
            ),
            packet_ins=sum(
                int(count)
                for text in meters
                for count in re.findall(r"packet_in_count:(\d+)", text)
            ),
            over_meter=sum(sum(parse_meters(text).values()) for text in meters),
        )

    def connect(self, ports: Sequence[int], *, count: int = 1) -> None:
        """Have ``count`` connections to each of these ports on both paths.

        Raises:
            LabError: not all of them were answered.
        """
        source = self.site.vms["a"]
        for path in PATHS:
            vm, address = self.target(path)
            with serving(vm, address, (min(ports), max(ports)), core=self.core(vm)):
                for port in ports:
                    load = ask(
                        *(source, address, port),
                        parallel=1,
                        seconds=_CHECK_S,
                        most=count,
                        core=self.core(source),
                    )
                    if load.ended != count:
                        raise LabError(
                            f"{self.name}: {load.ended} of {count} connections to port {port} were "
                            f"answered on the {path} path ({load.timeouts} timeouts, {load.refused} refused)"
                        )


def make_contenders(
    fabric: Fabric,
    matches: Sequence[Match],
    *,
    rules: int,
    ports: Sequence[int],
    say: Callable[[str], None],
) -> dict[str, Contender]:
    """All contenders by name, each seen to work.

    Agents that match services install the rules for all ``ports`` once, which are loaded elsewhere; then
    they start afresh. Their hosts are there also when only ``connection`` is asked for.

    Args:
        fabric: with ``hosts_needed`` hosts.
        matches: what agents match; a contender for each.
        rules: security rules of a port.
        ports: TCP ports that will be connected to. The first one is used here to see that all works.
        say: told what is being done.
    """
    introduce(fabric.hosts)
    agents: dict[Match, Contender] = {}
    hosts = iter(fabric.hosts)

    def site(name: str) -> Site:
        made = make_site(fabric, _SHORT[name], next(hosts), next(hosts))
        _address(made)
        return made

    say("training: the agents install the rules of all ports")
    for match in _built(matches):
        on_demand = OnDemandSite(fabric, site(match), rules=rules, match=match, protocol="tcp")
        agents[match] = Contender(agents_name(match), on_demand.site, agents=on_demand)
    trained = agents["service"]
    trained.connect(ports)
    preloaded = Contender(PRELOADED, site(PRELOADED))
    if trained.agents is not None:
        preload(preloaded.site, trained.agents, trained.agents.dump())
        trained.agents.restart_agents()
    normal = Contender(NORMAL, site(NORMAL))
    _make_normal(normal.site)
    found = [*(agents[match] for match in matches), preloaded, normal]
    for one in found:
        one.connect(ports[:1], count=_CHECKED)
    return {one.name: one for one in found}


def hosts_needed(matches: Sequence[Match]) -> int:
    return 2 * (len(_built(matches)) + 2)


def _built(matches: Sequence[Match]) -> list[Match]:
    """Agents that match services are always there: the preloaded rules come from them."""
    return ["service", *(match for match in matches if match != "service")]


def _address(site: Site) -> None:
    """Give the VMs addresses, and the neighbors that they would ask for."""
    for name, vm in site.vms.items():
        vm.write_sysctls(SYSCTLS)
        vm.ip(
            f"address add {IPS[name]}/24 dev {VM_INTERFACE}",
            *(
                f"neighbor replace {IPS[other]} lladdr {MACS[other]} nud permanent dev {VM_INTERFACE}"
                for other in IPS
                if other != name
            ),
        )


def _make_normal(site: Site) -> None:
    """A learning bridge on each host and a tunnel between the two; one rule, no policy, no conntrack."""
    for host, other in ((site.near, site.far), (site.far, site.near)):
        host.vsctl(
            *("add-br", INTEGRATION_BRIDGE, "--", "set", "Bridge", INTEGRATION_BRIDGE),
            *("datapath_type=netdev", "fail_mode=secure"),
            *("--", "add-port", INTEGRATION_BRIDGE, VXLAN_PORT),
            *("--", "set", "Interface", VXLAN_PORT, "type=vxlan"),
            *(f"options:remote_ip={other.tunnel_ip}", f"options:key={VNI}"),
        )
        host.add_flows(INTEGRATION_BRIDGE, "actions=NORMAL")
    site.plug()


__all__ = [
    "NORMAL",
    "PRELOADED",
    "Contender",
    "Match",
    "Used",
    "agents_name",
    "hosts_needed",
    "make_contenders",
]

"""The switches that the first packets go through: on demand, preloaded, and under learning controllers.

Each site has two compute hosts with Open vSwitch (userspace) and the same three VMs: ``a`` and ``b`` on
the first, ``c`` on the second. So ``a`` to ``b`` is local and ``a`` to ``c`` goes through VXLAN. The
VMs have no addresses of their own: frames come from the probe, and no kernel answers them.

Of a machine with two cores, one has the switches of the first hosts and the controllers of the second
ones, the other has the rest and the probe, at every site alike. Where the kernel happens to put two
daemons moves a latency by more than 100 us, because a switch that has sent a packet goes on for a while
before it sleeps. So each next stop of a packet is on the other core.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.controllers import Cores, pin, pinned
from benchmarks.machine import rss_mib
from benchmarks.probe import Passes, probe
from controller_app.sqlite_store import SqliteStore
from mininet_topos.errors import LabError
from mininet_topos.fabric import Fabric
from mininet_topos.ovs_host import INTEGRATION_BRIDGE, VXLAN_PORT, ComputeHost
from mininet_topos.processes import Background
from mininet_topos.vm import Vm, VmSpec
from ondemand.goal_state import compile_goal_state, encode_slices
from rule_cache.cookie import MAGIC_MASK, MAGIC_VALUE

NAMES: Final = ("a", "b", "c")
MACS: Final = {"a": "fa:16:3e:00:00:0a", "b": "fa:16:3e:00:00:0b", "c": "fa:16:3e:00:00:0c"}
IPS: Final = {"a": "10.0.1.10", "b": "10.0.1.11", "c": "10.0.1.12"}
#: Where a frame of each path goes; all come from ``a``.
PATHS: Final = {"local": "b", "remote": "c"}
VNI: Final = 5001
VERDICTS: Final = ("table=30", "table=80")
LOCATIONS: Final = ("table=40",)
_READY_S: Final = 30.0


@dataclass(slots=True)
class Site:
    """Two hosts with their VMs."""

    name: str
    near: ComputeHost
    far: ComputeHost
    vms: dict[str, Vm]
    cores: Cores

    @property
    def hosts(self) -> tuple[ComputeHost, ComputeHost]:
        return self.near, self.far

    def send(
        self,
        path: str,
        *,
        source_port: int,
        first_port: int,
        flows: int,
        passes: int,
        window: int = 1,
    ) -> Passes:
        """Time the frames of so many new flows from ``a`` along a path."""
        target = PATHS[path]
        return probe(
            self.vms["a"],
            self.vms[target],
            ips=(IPS["a"], IPS[target]),
            source_port=source_port,
            first_port=first_port,
            flows=flows,
            passes=passes,
            window=window,
            core=self.cores.second,
        )

    def controller_core(self, host: ComputeHost) -> int | None:
        """Not the one that the host's switch is on."""
        return self.cores.second if host is self.near else self.cores.first

    def plug(self) -> None:
        """Plug all VMs in, in one order, so that their port numbers are those of other sites."""
        for name in NAMES:
            self.vms[name].plug(f"vm-{name}")

    def port_numbers(self) -> dict[str, int]:
        numbers = {name: vm.ofport for name, vm in self.vms.items()}
        for host, label in ((self.near, "near"), (self.far, "far")):
            numbers[f"tunnel {label}"] = host.ofport(VXLAN_PORT)
        return numbers


def make_site(fabric: Fabric, name: str, near: ComputeHost, far: ComputeHost) -> Site:
    placed = [
        (host, VmSpec(f"{name}-{vm}", MACS[vm], ()))
        for vm, host in (("a", near), ("b", near), ("c", far))
    ]
    cores = Cores.of_this_machine()
    for host, core in ((near, cores.first), (far, cores.second)):
        if host.vswitchd_pid is not None:
            pin(host.vswitchd_pid, core)
    return Site(name, near, far, dict(zip(NAMES, fabric.add_vms(placed), strict=True)), cores)


def introduce(hosts: Sequence[ComputeHost]) -> None:
    """Let the underlay learn where each host is; else it floods to all, and wakes all switches."""
    first, *others = hosts
    for other in others:
        first.execute(["ping", "-c", "1", "-W", "2", other.tunnel_ip])


def wait_for(what: str, condition: Callable[[], bool], *processes: Background) -> None:
    """Wait until something is so.

    Raises:
        LabError: it is not so in time, or one of the processes ended.
    """
    end_s = time.monotonic() + _READY_S
    while not condition():
        for process in processes:
            if not process.running:
                raise LabError(f"{process.name} ended: {process.output_tail().strip()}")
        if time.monotonic() > end_s:
            said = "\n".join(process.output_tail().strip() for process in processes)
            raise LabError(f"{what}: not so after {_READY_S:g} s. {said}")
        time.sleep(0.05)


class OnDemandSite:
    """A site whose hosts each run the agent."""

    def __init__(
        self,
        fabric: Fabric,
        site: Site,
        *,
        rules: int,
        match: str,
        protocol: str = "udp",
        settings: str = "",
    ) -> None:
        """``settings``: further lines of the agents' configuration, those of its table [rules] first."""
        self.site = site
        self._match = match
        self._settings = settings
        # Without policy no verdict is asked for.
        self._miss_tables = VERDICTS if rules else LOCATIONS
        self._store: Path = fabric.run.directory / f"slices-{site.name}.db"
        with SqliteStore(self._store, writer=True) as store:
            state = compile_goal_state(goal_state(site, rules, protocol))
            store.publish(encode_slices(state), replace_all=True)
        self._agents: list[Background] = []
        self.start_agents()
        site.plug()
        self._wait_until_programmed()

    def start_agents(self) -> None:
        for host in self.site.hosts:
            config = host.directory / "agent.toml"
            config.write_text(self._config(host))
            argv = [sys.executable, "-m", "controller_app.cli", "run", "--config", str(config)]
            argv.append("--fresh")
            self._agents.append(host.spawn("agent", pinned(argv, self.site.controller_core(host))))
        for host, agent in zip(self.site.hosts, self._agents, strict=True):
            wait_for(
                f"{host.label} has {INTEGRATION_BRIDGE}",
                lambda host=host: INTEGRATION_BRIDGE in host.vsctl("list-br").split(),  # type: ignore[misc]
                agent,
            )

    def restart_agents(self) -> None:
        """Have new agents, whose switches hold no on-demand rules: they would adopt them."""
        for agent in self._agents:
            agent.stop()
        self._agents.clear()
        for host in self.site.hosts:
            host.ofctl("del-flows", INTEGRATION_BRIDGE, f"cookie={MAGIC_VALUE:#x}/{MAGIC_MASK:#x}")
        self.start_agents()
        self._wait_until_programmed()
        wait_for(
            "rules of former agents are gone", lambda: self.verdict_rules() == 0, *self._agents
        )

    def verdict_rules(self) -> int:
        """How many verdict rules for traffic both hosts hold."""
        return sum(
            "ct_tp_dst=" in line
            for host in self.site.hosts
            for table in VERDICTS
            for line in host.dump_flows(match=table)
        )

    @property
    def agent_pids(self) -> list[int]:
        return [agent.pid for agent in self._agents]

    def agent_rss_mib(self) -> list[float]:
        return [round(rss_mib(pid), 1) for pid in self.agent_pids]

    def dump(self) -> dict[str, list[str]]:
        """All rules but those that ask a controller, without counters and timeouts."""
        dumped = {}
        for label, host in zip(("near", "far"), self.site.hosts, strict=True):
            text = host.ofctl("--no-stats", "dump-flows", INTEGRATION_BRIDGE, timeout_s=60)
            lines = [line.strip() for line in text.splitlines() if "actions=" in line]
            dumped[label] = [
                re.sub(r"(idle|hard)_timeout=\d+, ?|send_flow_rem ", "", line)
                for line in lines
                if "CONTROLLER" not in line
            ]
        return dumped

    def _wait_until_programmed(self) -> None:
        for host, ports in zip(self.site.hosts, (2, 1), strict=True):
            wait_for(
                f"{host.label} has the rules of {ports} ports",
                lambda host=host, ports=ports: all(  # type: ignore[misc]
                    _misses(host, table) == ports for table in self._miss_tables
                ),
                *self._agents,
            )

    def _config(self, host: ComputeHost) -> str:
        return f"""
[host]
id = "{host.label}"
tunnel_ip = "{host.tunnel_ip}"
[bridge]
ovsdb = "{host.ovsdb_remote}"
datapath_type = "netdev"
controller = "tcp:127.0.0.1:6653"
[source]
file = "{self._store}"
[state]
holdings_file = "{host.directory}/agent.holdings"
[rules]
match = "{self._match}"
{self._settings}"""


def _misses(host: ComputeHost, table: str) -> int:
    return sum("CONTROLLER" in line for line in host.dump_flows(match=table))


def preload(site: Site, model: OnDemandSite, dumped: dict[str, list[str]]) -> None:
    """Give a site the rules that agents installed elsewhere, for ever and without any controller."""
    for host in site.hosts:
        host.create_integration_bridge()
    site.plug()
    ours, theirs = site.port_numbers(), model.site.port_numbers()
    if ours != theirs:
        raise LabError(f"the port numbers {ours} of {site.name} differ from {theirs}")
    for label, host in zip(("near", "far"), site.hosts, strict=True):
        rules = dumped[label]
        for own, other in zip(site.hosts, model.site.hosts, strict=True):
            rules = [rule.replace(f":{other.tunnel_ip}->", f":{own.tunnel_ip}->") for rule in rules]
        host.add_flows(INTEGRATION_BRIDGE, *rules)


def run_learning(site: Site, command: Callable[[int, Path], list[str]]) -> list[Background]:
    """Put a site under two learning controllers (``benchmarks.controllers``) that have seen all three VMs."""
    apps = []
    for host, other in ((site.near, site.far), (site.far, site.near)):
        host.vsctl(
            *("add-br", INTEGRATION_BRIDGE, "--", "set", "Bridge", INTEGRATION_BRIDGE),
            *("datapath_type=netdev", "fail_mode=secure", "protocols=OpenFlow13"),
            *("--", "add-port", INTEGRATION_BRIDGE, VXLAN_PORT),
            *("--", "set", "Interface", VXLAN_PORT, "type=vxlan"),
            *(f"options:remote_ip={other.tunnel_ip}", f"options:key={VNI}"),
        )
        argv = command(6653, host.directory)
        apps.append(host.spawn("controller", pinned(argv, site.controller_core(host))))
        host.vsctl("set-controller", INTEGRATION_BRIDGE, "tcp:127.0.0.1:6653")
    site.plug()
    for host, app in zip(site.hosts, apps, strict=True):
        wait_for(
            f"{host.label} has its controller's rule",
            lambda host=host: _misses(host, "table=0") == 1,  # type: ignore[misc]
            app,
        )
    for source in ("c", "b", "a"):
        target = "a" if source != "a" else "c"
        probe(
            site.vms[source],
            site.vms[target],
            ips=(IPS[source], IPS[target]),
            source_port=9,
            first_port=9,
            flows=1,
            passes=2,
        )
    return apps


def goal_state(site: Site, rules: int, protocol: str = "udp") -> dict[str, Any]:
    """One subnet, one security group of ``rules`` rules that allow its members all of a protocol.

    With 0 rules the ports have no port security: no policy, and no conntrack.
    """
    group = [
        {
            "direction": direction,
            "protocol": protocol,
            "ports": f"{1 + number * 65_535 // half}-{(number + 1) * 65_535 // half}",
            "remote_group": "members",
        }
        for direction, half in (("egress", (rules + 1) // 2), ("ingress", max(1, rules // 2)))
        for number in range(half)
    ]
    return {
        "hosts": [{"id": host.label, "tunnel_ip": host.tunnel_ip} for host in site.hosts],
        "vpcs": [
            {
                "id": "bench",
                "subnets": [{"id": "net", "vni": VNI, "cidrs": ["10.0.1.0/24"]}],
                "security_groups": [{"id": "members", "rules": group}],
                "ports": [
                    {
                        "id": f"vm-{name}",
                        "host": site.vms[name].host.label,
                        "subnet": "net",
                        "mac": MACS[name],
                        "fixed_ips": [IPS[name]],
                    }
                    | ({"security_groups": ["members"]} if rules else {"port_security": False})
                    for name in NAMES
                ],
            }
        ],
    }

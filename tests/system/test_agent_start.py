"""The start of an agent: when the switch connects, what it is told, and in whose place the agent goes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import controller_app
from controller_app.sqlite_store import SqliteStore
from mininet_topos.agent_host import AgentOnHost
from mininet_topos.fabric import Fabric
from mininet_topos.ovs_host import ComputeHost
from mininet_topos.vm import Vm, VmSpec
from ondemand.goal_state import compile_goal_state, encode_slices

PATIENCE_S = 20.0
#: Few, so that a flood of a test fills them.
TABLE_RULES = 100
CONNECTIONS = 20


FLOOD = """
import socket, time
for port in range(2000, 2300):
    time.sleep(0.003)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("10.0.1.12", port))
"""


def port(name: str, number: int) -> dict[str, object]:
    return {
        "id": name,
        "host": "h1",
        "subnet": "blue",
        "mac": f"02:00:00:00:01:{number:02x}",
        "fixed_ips": [f"10.0.1.{number}"],
        "security_groups": ["open"],
    }


A, B = port("vm-a", 11), port("vm-b", 12)
STATE = {
    "hosts": [{"id": "h1", "tunnel_ip": "192.0.2.1"}],
    "vpcs": [
        {
            "id": "vpc",
            "subnets": [
                {"id": "blue", "vni": 5001, "cidrs": ["10.0.1.0/24"], "gateways": ["10.0.1.1"]}
            ],
            "security_groups": [
                {
                    "id": "open",
                    "rules": [
                        {"direction": way, "ethertype": "IPv4"} for way in ("egress", "ingress")
                    ],
                }
            ],
            "ports": [A, B],
        }
    ],
}


def eventually(what: Callable[[], bool], timeout_s: float = PATIENCE_S) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


class Site:
    """One host with the ports A and B, and agents that are started on it one after the other."""

    def __init__(self, fabric: Fabric, directory: Path) -> None:
        self.fabric = fabric
        self.host: ComputeHost = fabric.hosts[0]
        self.store = directory / "slices.db"
        with SqliteStore(self.store, writer=True) as store:
            store.publish(encode_slices(compile_goal_state(STATE)), replace_all=True)

    def agent(self, **tables: dict[str, object]) -> AgentOnHost:
        return AgentOnHost(self.host, self.store, settings=tables)

    def vm(self, spec: dict[str, object]) -> Vm:
        name, number = str(spec["id"]), int(str(spec["mac"])[-2:], 16)
        made = VmSpec(name, str(spec["mac"]), (f"10.0.1.{number}/24",), ("10.0.1.1",))
        return self.fabric.add_vm(self.host, made, iface_id=name)

    def replace(self, agent: AgentOnHost) -> None:
        """Start ``agent`` in the place of the one that runs."""
        agent._status_file.unlink(missing_ok=True)
        place = str(Path(controller_app.__file__).resolve().parent.parent)
        command = [sys.executable, "-m", "controller_app.cli", "run", "--replace-agent"]
        agent._process = self.host.spawn(
            "agent",
            [*command, "--config", str(agent.config_file)],
            env={"PYTHONPATH": place},
        )

    def events(self) -> list[str]:
        lines = (self.host.directory / "agent-events.log").read_text().splitlines()
        return [json.loads(line)["event"] for line in lines]

    def zone_limits(self) -> dict[int, int]:
        words = self.host.appctl("dpctl/ct-get-limits", "netdev@ovs-netdev").splitlines()[1:]
        pairs = [dict(pair.split("=") for pair in line.split(",")) for line in words]
        return {int(pair["zone"]): int(pair["limit"]) for pair in pairs if pair["limit"] != "0"}


@pytest.fixture
def site(make_fabric: Callable[..., Fabric], tmp_path: Path) -> Site:
    return Site(make_fabric(hosts=1), tmp_path)


def reaches(vm: Vm, address: str) -> bool:
    return vm.ping(address, timeout_s=0.5).received == 1


def kill(agent: AgentOnHost) -> None:
    process = agent.process
    os.kill(process.pid, signal.SIGKILL)
    assert eventually(lambda: not process.running)


def test_after_seconds_without_an_agent_the_switch_connects_at_once(site: Site) -> None:
    agent = site.agent()
    agent.start()
    agent.wait_connected()
    a = site.vm(A)
    site.vm(B)
    assert agent.wait_for_ports(["vm-a", "vm-b"])
    assert eventually(lambda: reaches(a, "10.0.1.12"))
    for _ in range(2):
        kill(agent)
        time.sleep(3)
        before = len(site.events())
        agent.start()
        agent.wait_connected()
        assert agent.wait_for_ports(["vm-a", "vm-b"])
        assert eventually(lambda: reaches(a, "10.0.1.12"))
        log = (site.host.directory / "agent-events.log").read_text().splitlines()[before:]
        at = {json.loads(line)["event"].split()[0]: json.loads(line)["time"] for line in log}
        # Within the same second or two: it did not wait for the switch's next attempt.
        ready, connected = (float(at[word][17:-1]) for word in ("bridge", "switch"))
        assert (connected - ready) % 60 < 0.7
    assert agent.errors() == []


def test_an_agent_takes_the_place_of_another(site: Site) -> None:
    first = site.agent()
    first.start()
    first.wait_connected()
    a = site.vm(A)
    b = site.vm(B)
    assert first.wait_for_ports(["vm-a", "vm-b"])
    b.serve(tcp=[80])
    stream = a.stream("10.0.1.12", 80)
    assert stream.wait_for_progress(timeout_s=5)
    replaced = first.process
    second = site.agent()
    site.replace(second)
    assert eventually(lambda: not replaced.running)
    assert replaced.returncode == 2
    assert "was started to replace this one on bridge br-int" in replaced.output_tail()
    assert "Traceback" not in replaced.output_tail()
    second.wait_connected()
    assert second.wait_for_ports(["vm-a", "vm-b"])
    assert stream.wait_for_progress(timeout_s=5)
    assert eventually(lambda: reaches(b, "10.0.1.11"))
    assert second.process.running


def test_an_agent_at_another_address_takes_the_place_too(site: Site) -> None:
    first = site.agent()
    first.start()
    first.wait_connected()
    replaced = first.process
    second = site.agent(bridge={"controller": "tcp:127.0.0.1:6655"})
    site.replace(second)
    assert eventually(lambda: not replaced.running)
    assert eventually(
        lambda: site.host.vsctl("get-controller", "br-int").strip() == "tcp:127.0.0.1:6655"
    )
    assert eventually(lambda: site.host.vsctl("get", "Controller", ".", "is_connected") == "true\n")
    assert second.process.running


def test_without_being_told_to_replace_it_is_refused_and_says_how(site: Site) -> None:
    first = site.agent()
    first.start()
    first.wait_connected()
    for controller in ("tcp:127.0.0.1:6653", "tcp:127.0.0.1:6655"):
        second = AgentOnHost(
            site.host,
            site.store,
            settings={"bridge": {"controller": controller}, "log": {"format": "text"}},
        )
        second.start()
        assert eventually(lambda process=second.process: not process.running)
        assert second.process.returncode == 2
        assert "--replace-agent" in second.process.output_tail()
    assert first.process.running


def test_the_rules_of_another_hosts_agent_are_not_touched(site: Site) -> None:
    """A wrong [host] id must not cost the ports of this host their rules."""
    first = site.agent()
    first.start()
    first.wait_connected()
    a = site.vm(A)
    site.vm(B)
    assert first.wait_for_ports(["vm-a", "vm-b"])
    assert eventually(lambda: reaches(a, "10.0.1.12"))
    kill(first)
    rules = sorted(flow.partition(" actions")[2] for flow in site.host.dump_flows())
    other = site.agent(host={"id": "h9"}, log={"format": "text"})
    other.start()
    assert eventually(lambda: not other.process.running)
    assert other.process.returncode == 2
    said = other.process.output_tail()
    assert "made by the agent of another host than 'h9'" in said
    assert "--replace-agent" in said
    assert "Traceback" not in said
    assert sorted(flow.partition(" actions")[2] for flow in site.host.dump_flows()) == rules
    assert reaches(a, "10.0.1.12")
    site.replace(other)
    other.wait_connected()
    assert eventually(lambda: not reaches(a, "10.0.1.12")), "h9 has no such ports"
    assert other.process.running


def test_an_address_that_does_not_become_free_is_an_error_that_names_it(site: Site) -> None:
    """The lock is taken from nobody; a stranger listens at the address."""
    stranger = site.host.spawn(
        "stranger",
        [
            "python3",
            "-c",
            "import socket,time;s=socket.socket();s.bind(('127.0.0.1',6653));s.listen();time.sleep(60)",
        ],
    )
    agent = site.agent()
    site.replace(agent)
    assert eventually(lambda: not agent.process.running)
    assert agent.process.returncode == 2
    assert "somebody still listens on tcp:127.0.0.1:6653" in agent.process.output_tail()
    assert stranger.running


def test_the_switch_is_given_its_limits(site: Site) -> None:
    limits = {"switch_table_rules": TABLE_RULES, "max_connections_per_port": CONNECTIONS}
    agent = site.agent(limits=limits, rules={"match": "connection"})
    agent.start()
    agent.wait_connected()
    a = site.vm(A)
    site.vm(B)
    assert agent.wait_for_ports(["vm-a", "vm-b"])
    assert eventually(lambda: len(site.zone_limits()) == 2)
    assert set(site.zone_limits().values()) == {CONNECTIONS}
    tables = site.host.vsctl("get", "Bridge", "br-int", "flow_tables")
    assert {word.split("=")[0].strip() for word in tables.strip("{}\n").split(",")} == {
        *("5", "30", "40", "80")
    }
    assert eventually(lambda: reaches(a, "10.0.1.12"))
    # A VM that opens connection after connection.
    a.execute(
        [
            "python3",
            "-c",
            FLOOD,
        ],
        timeout_s=30,
    )
    is_full = eventually(
        lambda: agent.status.get("connections", {}).get("vm-a", {}).get("full", False)
    )
    assert is_full, (agent.status, site.host.appctl("dpctl/ct-stats-show", "netdev@ovs-netdev"))
    connections = agent.status["connections"]
    assert connections["vm-a"]["count"] == connections["vm-a"]["limit"] == CONNECTIONS
    for table in (30, 80):
        assert site.host.rule_count(match=f"table={table}") <= TABLE_RULES
    # A restart of ovs-vswitchd forgets the limits; the agent gives them again.
    site.host.kill_vswitchd()
    site.host.start_vswitchd()
    assert eventually(lambda: set(site.zone_limits().values()) == {CONNECTIONS})
    assert len(site.zone_limits()) == 2
    assert agent.errors() == []

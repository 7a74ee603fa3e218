"""Every rule that an agent has in a real switch, explained: what was sent, and that it is true today."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controller_app.cli import cli
from controller_app.sqlite_store import SqliteStore
from mininet_topos.agent_host import AgentOnHost
from mininet_topos.fabric import Fabric
from mininet_topos.vm import Vm, VmSpec
from ondemand.goal_state import compile_goal_state, encode_slices

#: Long enough that no rule leaves while a test runs.
SLOW = {"rules": {"deny_s": 300}}
GATEWAYS = ("10.0.1.1", "fd00:1::1")
COOKIE = re.compile(r"cookie=0x([0-9a-f]+)")


def port(name: str, number: int, host: str, *groups: str) -> dict[str, object]:
    return {
        "id": name,
        "host": host,
        "subnet": "blue",
        "mac": f"02:00:00:00:01:{number:02x}",
        "fixed_ips": [f"10.0.1.{number}", f"fd00:1::{number:x}"],
        "security_groups": list(groups),
    }


PORTS = (
    port("client", 11, "h1", "clients"),
    port("near", 12, "h1", "servers"),
    port("far", 13, "h2", "servers"),
)


def state(*, tcp_port: int = 80, second_host: str | None = None) -> dict[str, object]:
    """Clients may open TCP ``tcp_port`` of servers, and ping them by IPv6."""
    servers = [
        {"id": "http", "direction": "ingress", "protocol": "tcp", "ports": tcp_port, "remote_group": "clients"},
        {"id": "ping-v6", "direction": "ingress", "ethertype": "IPv6", "protocol": "icmp", "icmp_type": 128, "icmp_code": 0},
    ]  # fmt: skip
    out = [
        {"id": "out", "direction": "egress"},
        {"id": "out-v6", "direction": "egress", "ethertype": "IPv6"},
    ]
    return {
        "hosts": [
            {"id": "h1", "tunnel_ip": "TUNNEL_1"},
            {"id": "h2", "tunnel_ip": second_host or "TUNNEL_2"},
        ],
        "vpcs": [
            {
                "id": "vpc",
                "subnets": [
                    {
                        "id": "blue",
                        "vni": 5001,
                        "cidrs": ["10.0.1.0/24", "fd00:1::/64"],
                        "gateways": list(GATEWAYS),
                    }
                ],
                "routers": [{"id": "router", "subnets": ["blue"]}],
                "security_groups": [
                    {"id": "clients", "rules": out},
                    {"id": "servers", "rules": servers},
                ],
                "ports": list(PORTS),
            }
        ],
    }


class Site:
    """Two compute hosts with an agent each; the first one's switch is asked."""

    def __init__(self, fabric: Fabric, directory: Path) -> None:
        self.fabric = fabric
        self.store_file = directory / "slices.db"
        self.host, self.other = fabric.hosts
        self.agents = [AgentOnHost(host, self.store_file, settings=SLOW) for host in fabric.hosts]
        self.publish(state())

    def publish(self, document: dict[str, object]) -> None:
        text = json.dumps(document)
        for number, host in enumerate(self.fabric.hosts, start=1):
            text = text.replace(f"TUNNEL_{number}", host.tunnel_ip)
        with SqliteStore(self.store_file, writer=True) as store:
            store.publish(encode_slices(compile_goal_state(json.loads(text))), replace_all=True)

    def vm(self, spec: dict[str, Any]) -> Vm:
        name, number = str(spec["id"]), int(str(spec["mac"])[-2:], 16)
        host = self.host if spec["host"] == "h1" else self.other
        made = VmSpec(
            name, str(spec["mac"]), (f"10.0.1.{number}/24", f"fd00:1::{number:x}/64"), GATEWAYS
        )
        return self.fabric.add_vm(host, made, iface_id=name)

    def start(self) -> list[Vm]:
        for agent in self.agents:
            agent.start()
        for agent in self.agents:
            agent.wait_connected()
        vms = [self.vm(spec) for spec in PORTS]
        assert self.agents[0].wait_for_ports(["client", "near"])
        assert self.agents[1].wait_for_ports(["far"])
        return vms

    def ask(self, *arguments: str) -> Result:
        """``ondemand explain`` with the first agent's configuration."""
        config = str(self.agents[0].config_file)
        result = CliRunner().invoke(cli, ["explain", "--config", config, *arguments])
        assert "Traceback" not in result.output
        return result

    def listed(self) -> dict[str, bool]:
        """What each listed rule is -> whether it is true."""
        result = self.ask("--rules", "--json")
        found = json.loads(result.stdout)
        whats = {rule["what"]: rule["true"] for rule in found["rules"]}
        assert len(whats) == len(found["rules"])
        assert result.exit_code == (0 if all(whats.values()) else 1)
        return whats


@pytest.fixture
def site(make_fabric: Callable[..., Fabric], tmp_path: Path) -> Site:
    return Site(make_fabric(hosts=2), tmp_path)


def eventually(what: Callable[[], bool], timeout_s: float = 15.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.1)
    return True


def traffic(client: Vm, near: Vm, far: Vm) -> None:
    for server in (near, far):
        server.serve(tcp=[80])
    assert client.tcp_connect("10.0.1.12", 80)
    assert client.tcp_connect("10.0.1.13", 80)
    assert not client.tcp_connect("10.0.1.12", 81, timeout_s=0.5)
    assert not client.tcp_connect("10.0.1.99", 80, timeout_s=0.5)
    assert client.ping("10.0.1.1").received == 1
    assert client.ping("fd00:1::c").received == 1


CLIENT_TO_NEAR = "lets port near receive TCP to its port 80 from 10.0.1.11"
TO_FAR = "sends packets of subnet blue to 10.0.1.13 at 02:00:00:00:01:0d by tunnel to host"


def test_every_rule_in_the_switch_is_explained_and_true(site: Site) -> None:
    traffic(*site.start())
    whats = site.listed()
    assert all(whats.values())
    for what in (
        "lets port client send TCP to port 80 of 10.0.1.12",
        "lets port client send TCP to port 80 of 10.0.1.13",
        "lets port client send TCP to port 81 of 10.0.1.12",
        "lets port client send ICMP echo request to 10.0.1.1",
        "lets port client send ICMPv6 echo request to fd00:1::c",
        CLIENT_TO_NEAR,
        "lets port near receive ICMPv6 echo request from fd00:1::b",
        "drops the TCP that comes to port near to its port 81 from 10.0.1.11",
        "answers ping of gateway 10.0.1.1 in subnet blue",
        "answers port client's ARP question for 10.0.1.12 with 02:00:00:00:01:0c",
        "answers port client's neighbor solicitation for fd00:1::c with 02:00:00:00:01:0c",
        "drops port client's ARP question for 10.0.1.99 without an answer",
        "sends packets of subnet blue to 10.0.1.12 at 02:00:00:00:01:0c to port near on this host",
        f"{TO_FAR} {site.other.tunnel_ip}, VNI 5001",
    ):
        assert what in whats, what
    cookies = []
    for line in site.host.dump_flows():
        cookie = COOKIE.search(line)
        assert cookie is not None
        if not cookie[1].startswith("d5e"):
            continue
        cookies.append(cookie[1])
        result = site.ask("--rule", f"0x{cookie[1]}", "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found["true"], found
        assert f"table={found['table']}, " in line
        assert f"priority={found['priority']}" in line
        assert found["removed_by"]
        assert (found["why"] is not None) == (found["kind"] == "on demand")
        if found["kind"] == "on demand":
            assert whats[found["what"]]
            assert found["depends_on"]
            timeout = re.search(r"(idle|hard)_timeout=(\d+)", line)
            assert timeout is not None
            assert found["removed_by"][0].startswith(f"{timeout[2]} s ")
    assert len(cookies) > 80
    assert len(whats) == sum("_timeout=" in line for line in site.host.dump_flows())
    near = json.loads(site.ask("--rules", "--port", "near", "--json").stdout)
    assert {rule["port"] for rule in near["rules"]} == {"near"}
    allowed = next(rule for rule in near["rules"] if rule["what"] == CLIENT_TO_NEAR)
    assert allowed["packets"] >= 1
    text = " ".join(site.ask("--rule", allowed["cookie"]).stdout.split())
    assert "why allowed by rule servers/http" in text
    assert "neighbor 10.0.1.11 of VPC vpc (slice nbr/vpc/10.0.1.0, key ip/10.0.1.11)" in text
    # The same rule without a configuration: all that it tells is in the switch and in the store.
    socket = f"unix:{site.host.directory}/br-int.mgmt"
    alone = CliRunner().invoke(
        cli,
        [
            *("explain", "--store", str(site.store_file), "--switch", socket),
            *("--rule", allowed["cookie"], "--json"),
        ],
    )
    assert json.loads(alone.stdout)["why"]["security_rule"]["rule"] == "http"
    assert json.loads(alone.stdout)["true"]


def test_a_store_that_changed_behind_a_stopped_agent(site: Site) -> None:
    vms = site.start()
    traffic(*vms)
    for agent in site.agents:
        agent.stop()
    site.publish(state(tcp_port=8080, second_host="192.0.2.200"))
    whats = site.listed()
    to_far = f"{TO_FAR} {site.other.tunnel_ip}, VNI 5001"
    # What was allowed to port 80 and where "far" is; what it sends it may still send.
    assert not whats[CLIENT_TO_NEAR]
    assert not whats[to_far]
    assert whats["lets port client send TCP to port 80 of 10.0.1.12"]
    assert whats["lets port near receive ICMPv6 echo request from fd00:1::b"]
    rules = json.loads(site.ask("--rules", "--json").stdout)["rules"]
    cookie = next(rule["cookie"] for rule in rules if rule["what"] == CLIENT_TO_NEAR)
    said = site.ask("--rule", cookie)
    text = " ".join(said.stdout.split())
    assert said.exit_code == 1
    assert "today no security rule allows it (no_rule)" in text
    assert "true not any more: a fresh decision gives another rule" in text
    assert "actions=drop" in text
    assert "one that starts here replaces or deletes it" in text
    # So it is.
    site.agents[0].start()
    site.agents[0].wait_connected()
    assert eventually(lambda: all(site.listed().values()))
    whats = site.listed()
    assert CLIENT_TO_NEAR not in whats
    assert to_far not in whats
    assert f"{TO_FAR} 192.0.2.200, VNI 5001" in whats
    gone = site.ask("--rule", cookie)
    assert gone.exit_code == 2
    assert f"has no rule with cookie {int(cookie, 16):#x} (any more)" in gone.stderr


def test_bridges_that_no_agent_serves(site: Site) -> None:
    site.host.vsctl("add-br", "br-old", "--", "set", "Bridge", "br-old", "datapath_type=netdev", "protocols=OpenFlow10")  # fmt: skip
    old = site.ask("--rules", "--bridge", "br-old")
    assert (old.exit_code, old.stdout) == (2, "")
    assert "bridge 'br-old' does not speak OpenFlow 1.3" in old.stderr
    none = site.ask("--rules", "--bridge", "br-odl")
    assert "there is no bridge 'br-odl'" in none.stderr
    assert "did you mean 'br-old'?" in none.stderr
    site.host.vsctl("add-br", "br-new", "--", "set", "Bridge", "br-new", "datapath_type=netdev")
    assert site.ask("--rules", "--bridge", "br-new").stdout == (
        "the switch holds no rule that traffic made\n"
    )

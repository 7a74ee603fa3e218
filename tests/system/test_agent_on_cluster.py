"""An agent on real Open vSwitch whose slices come from three NATS servers, of which the leader dies."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import controller_app
from mininet_topos.agent_host import AgentOnHost
from mininet_topos.errors import CommandError
from mininet_topos.fabric import Fabric
from mininet_topos.vm import Vm, VmSpec
from tests.support.nats_cluster import NatsCluster
from tests.support.nats_server import needs_nats_server
from tests.system.test_agent import GATEWAYS, QUICK, A, B, eventually, port, reaches, state

pytestmark = needs_nats_server

CHECKOUT = Path(controller_app.__file__).resolve().parent.parent
C = port("vm-c", 13)


class ClusterSite:
    """One compute host, and on it three NATS servers, an agent and VMs."""

    def __init__(self, fabric: Fabric, directory: Path) -> None:
        self.fabric = fabric
        self.host = fabric.hosts[0]
        self.directory = directory
        self.cluster = NatsCluster(directory, spawn=self.host.spawn)
        servers = ", ".join(self.cluster.urls)
        settings = {**QUICK, "source": {"kind": "nats", "servers": servers}}
        self.agent = AgentOnHost(self.host, None, settings=settings)

    def run(self, *words: str) -> str:
        """A Python module in the host's namespace: what it writes."""
        command = [sys.executable, "-m", *words]
        return self.host.execute(command, timeout_s=60.0, env={"PYTHONPATH": str(CHECKOUT)}).stdout

    def ask(self, command: str) -> str:
        return self.run("tests.support.nats_cluster", command, *self.cluster.urls)

    def publish(self, document: dict[str, object]) -> None:
        path = self.directory / "state.json"
        path.write_text(json.dumps(document))
        servers = ",".join(url.removeprefix("nats://") for url in self.cluster.urls)
        words = ("slices", "publish", str(path), "--store", f"nats://{servers}")
        self.run("controller_app.cli", *words)

    def vm(self, spec: dict[str, object]) -> Vm:
        name, number = str(spec["id"]), int(str(spec["mac"])[-2:], 16)
        addresses = (f"10.0.1.{number}/24", f"fd00:1::{number:x}/64")
        return self.fabric.add_vm(
            self.host, VmSpec(name, str(spec["mac"]), addresses, GATEWAYS), iface_id=name
        )


@pytest.fixture
def site(make_fabric: Callable[..., Fabric], tmp_path: Path) -> ClusterSite:
    return ClusterSite(make_fabric(hosts=1), tmp_path)


def test_an_agent_serves_while_the_leader_of_its_slices_dies(site: ClusterSite) -> None:
    """Traffic and changes before it, without it and after it is back; the agent is not restarted."""
    site.cluster.start_servers()
    site.ask("make")
    site.publish(state(A, B))
    site.agent.start()
    site.agent.wait_connected()
    a, b = site.vm(A), site.vm(B)
    assert site.agent.wait_for_ports(["vm-a", "vm-b"])
    assert eventually(lambda: reaches(a, "10.0.1.12"))

    leader = site.ask("leader").strip()
    site.cluster.servers[leader].stop()
    assert reaches(a, "10.0.1.12"), "what is held serves at once"
    assert eventually(lambda: publishes(site, state(A, B, C)), 20.0), "a new leader"
    c = site.vm(C)
    assert site.agent.wait_for_ports(["vm-a", "vm-b", "vm-c"])
    assert eventually(lambda: reaches(b, "10.0.1.13"))

    site.cluster.servers[leader].start()
    site.publish(state(A, B))
    assert eventually(lambda: site.agent.ports == frozenset(["vm-a", "vm-b"]))
    assert eventually(lambda: not reaches(a, "10.0.1.13"))
    assert reaches(b, "10.0.1.11")
    site.ask("current")
    site.publish(state(A, B, C))
    assert eventually(lambda: reaches(c, "10.0.1.11"))


def publishes(site: ClusterSite, document: dict[str, object]) -> bool:
    try:
        site.publish(document)
    except CommandError:
        return False
    return True

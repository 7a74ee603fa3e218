"""An agent on real Open vSwitch whose slices come from a NATS server."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import controller_app
from mininet_topos.agent_host import AgentOnHost
from mininet_topos.fabric import Fabric
from mininet_topos.processes import Background
from mininet_topos.vm import Vm, VmSpec
from tests.support.nats_server import PROGRAM, needs_nats_server
from tests.system.test_agent import GATEWAYS, QUICK, A, B, eventually, reaches, state

pytestmark = needs_nats_server

URL = "nats://127.0.0.1:4222"
CHECKOUT = Path(controller_app.__file__).resolve().parent.parent


class NatsSite:
    """One compute host, and on it a NATS server, an agent and VMs."""

    def __init__(self, fabric: Fabric, directory: Path) -> None:
        self.fabric = fabric
        self.host = fabric.hosts[0]
        self.directory = directory
        settings = {**QUICK, "source": {"kind": "nats", "servers": URL}}
        self.agent = AgentOnHost(self.host, directory / "unused.db", settings=settings)
        self.server: Background | None = None

    def start_server(self) -> None:
        store = self.directory / "jetstream"
        self.server = self.host.spawn(
            "nats-server", [PROGRAM or "nats-server", "-a", "127.0.0.1", "-js", "-sd", str(store)]
        )

    def stop_server(self) -> None:
        assert self.server is not None
        self.server.kill()

    def publish(self, document: dict[str, object]) -> None:
        path = self.directory / "state.json"
        path.write_text(json.dumps(document))
        command = [sys.executable, "-m", "controller_app.cli", "slices", "publish", str(path)]
        self.host.execute(
            [*command, "--store", URL], timeout_s=30.0, env={"PYTHONPATH": str(CHECKOUT)}
        )

    def vm(self, spec: dict[str, object]) -> Vm:
        name, number = str(spec["id"]), int(str(spec["mac"])[-2:], 16)
        addresses = (f"10.0.1.{number}/24", f"fd00:1::{number:x}/64")
        return self.fabric.add_vm(
            self.host, VmSpec(name, str(spec["mac"]), addresses, GATEWAYS), iface_id=name
        )


@pytest.fixture
def site(make_fabric: Callable[..., Fabric], tmp_path: Path) -> NatsSite:
    return NatsSite(make_fabric(hosts=1), tmp_path)


def test_an_agent_serves_from_nats_through_an_outage_of_the_server(site: NatsSite) -> None:
    """The agent before its server; then changes, a server that dies, and changes after it is back."""
    site.agent.start()
    site.agent.wait_connected()
    a = site.vm(A)
    site.start_server()
    site.publish(state(A, B))
    assert site.agent.wait_for_ports(["vm-a"])
    b = site.vm(B)
    assert site.agent.wait_for_ports(["vm-a", "vm-b"])
    assert eventually(lambda: reaches(a, "10.0.1.12"))
    assert reaches(b, "fd00:1::b")

    site.stop_server()
    assert reaches(a, "10.0.1.12"), "what is held serves without the server"
    site.start_server()
    site.publish(state(A))
    assert eventually(lambda: site.agent.ports == frozenset(["vm-a"]))
    assert eventually(lambda: not reaches(a, "10.0.1.12"))
    site.publish(state(A, B))
    assert eventually(lambda: reaches(a, "10.0.1.12"))

"""Host groups on real Open vSwitch: the ports of a rack are published once, and any of its hosts serves them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from controller_app.sqlite_store import SqliteStore
from mininet_topos.agent_host import AgentOnHost
from mininet_topos.fabric import Fabric
from mininet_topos.ovs_host import ComputeHost
from mininet_topos.vm import Vm, VmSpec
from ondemand.goal_state import compile_goal_state, encode_slices

PORTS = {"vm-a": 11, "vm-b": 12, "vm-c": 13}


def state(hosts: list[ComputeHost], groups: dict[str, str], where: dict[str, str]) -> object:
    rules = [{"direction": "egress"}, {"direction": "ingress", "protocol": "icmp"}]
    return {
        "hosts": [
            {"id": host.label, "tunnel_ip": host.tunnel_ip}
            | ({"group": groups[host.label]} if host.label in groups else {})
            for host in hosts
        ],
        "vpcs": [
            {
                "id": "vpc",
                "subnets": [{"id": "blue", "vni": 5001, "cidrs": ["10.0.1.0/24"]}],
                "security_groups": [{"id": "open", "rules": rules}],
                "ports": [
                    {
                        "id": name,
                        "host": where[name],
                        "subnet": "blue",
                        "mac": f"02:00:00:00:01:{number:02x}",
                        "fixed_ips": [f"10.0.1.{number}"],
                        "security_groups": ["open"],
                    }
                    for name, number in PORTS.items()
                ],
            }
        ],
    }


class Rack:
    """Two compute hosts of one rack, their store and agents."""

    def __init__(self, fabric: Fabric, directory: Path) -> None:
        self.fabric = fabric
        self.hosts = list(fabric.hosts)
        self.store_file = directory / "slices.db"
        self.where = {"vm-a": "h1", "vm-b": "h1", "vm-c": "h2"}
        self.agents = [AgentOnHost(host, self.store_file) for host in self.hosts]

    def publish(self, **groups: str) -> None:
        document = state(self.hosts, groups, self.where)
        with SqliteStore(self.store_file, writer=True) as store:
            store.publish(encode_slices(compile_goal_state(document)), replace_all=True)

    def vm(self, name: str, host: int) -> Vm:
        number = PORTS[name]
        spec = VmSpec(name, f"02:00:00:00:01:{number:02x}", (f"10.0.1.{number}/24",), ())
        return self.fabric.add_vm(self.hosts[host], spec, iface_id=name)

    def zones(self) -> list[str]:
        """The rules of the first host that deliver to its ports: zone, mark of the port, OpenFlow port."""
        flows = self.hosts[0].dump_flows()
        found = (re.search(r"reg7=.* actions=.*output:.*", flow) for flow in flows)
        return sorted(match.group() for match in found if match is not None)


@pytest.fixture
def rack(make_fabric: Callable[..., Fabric], tmp_path: Path) -> Rack:
    return Rack(make_fabric(hosts=2), tmp_path)


def test_a_rack_s_ports_on_any_of_its_hosts_and_a_host_that_joins_and_leaves(rack: Rack) -> None:
    rack.publish(h1="rack", h2="rack")
    with SqliteStore(rack.store_file) as store:
        assert set(store.snapshot("host/h1").records) == {"group/rack"}
        assert set(store.snapshot("hostgroup/rack").records) == {f"port/{name}" for name in PORTS}
    for agent in rack.agents:
        agent.start()
    for agent in rack.agents:
        agent.wait_connected()
    first, second = rack.agents
    a, _, c = rack.vm("vm-a", 0), rack.vm("vm-b", 0), rack.vm("vm-c", 1)
    assert first.wait_for_ports(["vm-a", "vm-b"])
    assert second.wait_for_ports(["vm-c"])
    assert a.ping("10.0.1.12", count=3, interval_s=0.2).received == 3
    assert a.ping("10.0.1.13", count=3, interval_s=0.2).received == 3, "over VXLAN"

    # Out of the group and into it again: the ports stay, and so do their rules.
    zones = rack.zones()
    assert len(zones) == 2
    for groups in ({}, {"h1": "row", "h2": "row"}, {"h1": "rack", "h2": "rack"}):
        rack.publish(**groups)
        assert a.ping("10.0.1.12", count=5, interval_s=0.1).received == 5
        assert first.wait_for_ports(["vm-a", "vm-b"])
        assert rack.zones() == zones
    assert first.errors() == []

    # The VM moves inside the rack: its port is known there already.
    c.move(rack.hosts[0])
    c.plug("vm-c")
    assert first.wait_for_ports(["vm-a", "vm-b", "vm-c"])
    assert a.ping("10.0.1.13", count=3, interval_s=0.2).received == 3

    # The host leaves the rack with its own two ports.
    rack.publish(h2="rack")
    assert first.wait_for_ports(["vm-a", "vm-b"])
    assert a.ping("10.0.1.12", count=3, interval_s=0.2).received == 3

"""What quarantine does to the datapath of real Open vSwitch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mininet_topos.agent_host import AgentOnHost
from mininet_topos.fabric import Fabric
from mininet_topos.vm import VM_INTERFACE
from tests.system.test_agent import A, B, Site, eventually, reaches, state

#: Lasts longer than the test looks.
FLOODS_SOON = {"limits": {"flood_rate": 100, "flood_burst": 1500, "quarantine_max_s": 60}}


@pytest.fixture
def site(make_fabric: Callable[..., Fabric], tmp_path: Path) -> Site:
    site = Site(make_fabric(hosts=1), tmp_path)
    site.agent = AgentOnHost(site.host, site.store_file, settings=FLOODS_SOON)
    return site


def arp_flows(site: Site) -> int:
    """Datapath flows of ARP packets."""
    dumped = site.host.appctl("dpctl/dump-flows").splitlines()
    return sum("eth_type(0x0806)" in flow for flow in dumped)


def test_a_scan_that_comes_round_again_leaves_no_flow_for_each_address(site: Site) -> None:
    site.publish(state(A, B))
    site.agent.start()
    site.agent.wait_connected()
    scanner, other = site.vm(A), site.vm(B)
    assert site.agent.wait_for_ports({"vm-a", "vm-b"})
    # All addresses twice a second, so that no flow of one of them ever idles out by itself.
    scan = scanner.scan("arp", VM_INTERFACE, "10.0.1.11", to="10.0.0.0/22", for_s=8.0, rate=2000)
    assert eventually(lambda: arp_flows(site) > 200)
    assert eventually(lambda: site.agent.status["counters"].get("quarantined") is not None)
    # A second quarantine lasts two seconds, a third one four.
    assert eventually(lambda: arp_flows(site) < 20)
    assert scan.running
    assert reaches(other, "10.0.1.1")
    scan.stop()

"""Loads, scans and probes between two VMs of a learning switch."""

from __future__ import annotations

import json

import pytest

from mininet_topos.load import FlowSpec, loads
from mininet_topos.probe import probe, reflect
from mininet_topos.vm import VM_INTERFACE, VmSpec


@pytest.fixture
def pair(make_fabric):
    """Two VMs on one host whose br-int forwards as a learning switch."""
    fabric = make_fabric(hosts=1)
    host = fabric.hosts[0]
    host.create_integration_bridge(fail_mode="standalone")
    specs = [VmSpec(f"vm-{n}", f"02:00:00:00:00:0{n}", (f"10.0.1.{n}/24",)) for n in (1, 2)]
    return fabric.add_vms([(host, spec) for spec in specs], iface_ids=["vm-1", "vm-2"])


def received(vm) -> int:
    path = f"/sys/class/net/{VM_INTERFACE}/statistics/rx_packets"
    return int(vm.execute(["cat", path]).stdout)


def test_a_pause_is_seen_and_what_it_costs_tcp(pair):
    _, two = pair
    two.serve(tcp=[80], udp=[53])
    flows = [FlowSpec(p, "vm-1", "vm-2", p, "10.0.1.2", n) for p, n in (("tcp", 80), ("udp", 53))]
    with loads({vm.label: vm for vm in pair}, flows, interval_s=0.02) as streams:
        streams.mark()
        two.unplug()
        streams.watch(1.0)
        two.plug("vm-2")
        tcp, udp = streams.wait(
            lambda found: (
                all(f.echoed and f.longest_gap_s > 0.9 for f in found)
                and all((f.last_s or 0) - (f.first_s or 0) > 0.5 for f in found)
            ),
            timeout_s=10,
        )
    assert tcp.longest_gap_s > 0.9
    assert udp.longest_gap_s > 0.9
    assert tcp.retransmissions >= 1
    assert tcp.timeouts <= tcp.retransmissions
    assert tcp.is_alive
    assert udp.lost >= 20


def test_retransmissions_of_the_other_end_are_seen(pair):
    """The way back is cut: the server has to send its echo again."""
    _, two = pair
    two.serve(tcp=[80])
    flow = FlowSpec("tcp", "vm-1", "vm-2", "tcp", "10.0.1.2", 80)
    with loads({vm.label: vm for vm in pair}, [flow], interval_s=0.02) as streams:
        streams.mark()
        host = two.host
        host.add_flows("br-int", f"priority=10,in_port={two.ofport} actions=drop")
        streams.watch(1.0)
        host.ofctl("del-flows", "br-int", f"in_port={two.ofport}")
        (seen,) = streams.wait(lambda found: found[0].echoed > 0, timeout_s=10)
    assert seen.far_retransmissions >= 1


def test_scans_leave_the_vm(pair):
    one, two = pair
    for kind, words in (
        ("arp", {}),
        ("ip", {"mac": two.spec.mac}),
        ("ports", {"mac": two.spec.mac}),
    ):
        before = received(two)
        scan = one.scan(
            kind, VM_INTERFACE, "10.0.1.1", to="10.0.1.128/25", for_s=0.5, rate=2000, **words
        )
        assert scan.wait(10)
        told = json.loads(scan.output())
        assert 300 < told["sent"] <= 1100
        assert received(two) - before >= told["sent"] * 0.9


def test_an_announcement_reaches_everybody(pair):
    one, two = pair
    before = received(two)
    one.announce(VM_INTERFACE, "10.0.1.1")
    assert received(two) - before >= 6


def test_probes_tell_latency_and_rate(pair):
    one, two = pair
    reflect(two, first=20_000, count=200)
    single = probe(one, "10.0.1.2", first=20_000, count=100)
    assert (single.sent, single.received) == (100, 100)
    assert 0 < single.rtts_ms["p50"] <= single.rtts_ms["p99"]
    many = probe(one, "10.0.1.2", first=20_100, count=100, window=20)
    assert many.received == 100
    assert many.rate > 0
    lost = probe(one, "10.0.1.3", first=20_000, count=3, window=3, timeout_s=0.1)
    assert (lost.received, lost.rtts_ms, lost.rate) == (0, {}, 0.0)

"""Limits of conntrack zones on the userspace datapath of a real Open vSwitch."""

from __future__ import annotations

import ipaddress
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from controller_app.conntrack_limits import ConntrackLimits, ZoneUsage
from controller_app.vswitchd_control import ProcessWatch, control_socket
from mininet_topos.fabric import Fabric
from mininet_topos.ovs_host import ComputeHost

PATIENCE_S = 15.0
DATAPATH = "netdev@ovs-netdev"


def wait_for(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


@pytest.fixture
def host(make_fabric: Callable[..., Fabric]) -> ComputeHost:
    host = make_fabric(hosts=1).hosts[0]
    host.create_integration_bridge()
    return host


@pytest.fixture
def limits(host: ComputeHost) -> Iterator[ConntrackLimits]:
    warnings: list[str] = []
    made = ConntrackLimits(
        DATAPATH, lambda: control_socket(host.directory), limit=5, warn=warnings.append
    )
    yield made
    made.close()
    assert warnings == []


def udp_frame(source_port: int) -> str:
    """An IPv4 UDP packet in hexadecimal (RFC 768, RFC 791)."""
    addresses = ipaddress.ip_address("10.0.0.1").packed + ipaddress.ip_address("10.0.0.2").packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", head))
    checksum = ~(total + (total >> 16)) & 0xFFFF
    head = head[:10] + struct.pack("!H", checksum) + head[12:]
    ethernet = bytes.fromhex("0200000000020200000000010800")
    return (ethernet + head + struct.pack("!HHHH", source_port, 53, 8, 0)).hex()


def connect(host: ComputeHost, zone: int, count: int, *, first: int = 1000) -> None:
    for port in range(first, first + count):
        host.ofctl(
            "packet-out",
            "br-int",
            f"in_port=controller packet={udp_frame(port)} actions=ct(commit,zone={zone})",
        )


def connections(host: ComputeHost, zone: int) -> int:
    return len(host.appctl("dpctl/dump-conntrack", DATAPATH, f"zone={zone}").splitlines())


def set_limits(host: ComputeHost) -> set[str]:
    said = host.appctl("dpctl/ct-get-limits", DATAPATH).splitlines()[1:]
    return {line.rpartition(",")[0] for line in said}


def test_a_zone_is_full_at_its_limit_and_others_do_not_feel_it(
    host: ComputeHost, limits: ConntrackLimits
) -> None:
    limits.ensure([7, 8])
    wait_for(lambda: set_limits(host) == {"zone=7,limit=5", "zone=8,limit=5"})
    connect(host, 7, 9)
    connect(host, 8, 2)
    connect(host, 9, 9)
    assert [connections(host, zone) for zone in (7, 8, 9)] == [5, 2, 9]
    limits.read_usage()
    wait_for(limits.usage)
    assert limits.usage() == {7: ZoneUsage(5, 5), 8: ZoneUsage(2, 5)}
    assert limits.by_port({"a": 7, "b": 8, "c": 9})["a"]["full"]


def test_a_limit_that_is_raised_or_taken_away_lets_more_in(
    host: ComputeHost, limits: ConntrackLimits
) -> None:
    limits.ensure([7])
    wait_for(lambda: set_limits(host) == {"zone=7,limit=5"})
    connect(host, 7, 9)
    limits.set(7, 8)
    wait_for(lambda: set_limits(host) == {"zone=7,limit=8"})
    connect(host, 7, 9, first=2000)
    assert connections(host, 7) == 8
    limits.ensure([])
    wait_for(lambda: set_limits(host) == set())
    connect(host, 7, 9, first=3000)
    assert connections(host, 7) == 17


def test_limits_come_back_after_a_restart_of_the_switch(
    host: ComputeHost, limits: ConntrackLimits
) -> None:
    watch = ProcessWatch(host.directory)
    limits.ensure([7])
    wait_for(lambda: set_limits(host) == {"zone=7,limit=5"})
    host.kill_vswitchd()
    host.start_vswitchd()
    assert watch.changed()
    assert set_limits(host) == set()
    limits.renew()
    wait_for(lambda: set_limits(host) == {"zone=7,limit=5"})

"""Where packets go: what the agent decides is what a plain scan over all records decides."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ondemand.addresses import parse_ip, parse_mac
from ondemand.verdict import Answer, GatewayEcho, Local, Tunnel
from tests.support.cloud_strategies import ADDRESSES, SHARED_MAC, clouds
from tests.support.location_reference import (
    Delivery,
    Host,
    ToGateway,
    answer_of,
    delivery_of,
)
from tests.support.world_builder import HERE, TUNNELS, CloudBuilder

_TARGETS = [parse_ip(text) for text in ADDRESSES]
_addresses = st.lists(st.sampled_from(_TARGETS), min_size=5, max_size=20, unique=True)


def _plugged(cloud: CloudBuilder, out: set[int]) -> list[str]:
    return [name for number, name in enumerate(cloud.ports_on(HERE)) if number not in out]


def _macs(cloud: CloudBuilder) -> list[bytes]:
    """Every MAC that a sender could think of: of ports, pairs and gateways, and of nobody."""
    macs = {cloud.mac(name) for name in cloud.port_ids}
    macs |= {subnet.gateway_mac for vpc in cloud.vpcs for subnet in vpc.subnets}
    macs |= {parse_mac(SHARED_MAC), parse_mac("fa:16:3e:99:99:99"), b"\xff" * 6}
    return sorted(mac for mac in macs if mac)


@settings(max_examples=80)
@given(clouds(with_rules=False), st.sets(st.integers(0, 5), max_size=2), _addresses)
def test_a_location_is_what_a_scan_over_all_records_says(
    cloud: CloudBuilder, out: set[int], addresses: list[bytes]
) -> None:
    plugged = _plugged(cloud, out)
    small = cloud.world(plugged=plugged)
    host = Host(parse_ip(TUNNELS[HERE]), plugged)
    macs = _macs(cloud)
    for vpc in cloud.vpcs:
        hosts = {spec.id: spec.host.tunnel for spec in vpc.ports}
        for sender in vpc.ports:
            if sender.id not in plugged:
                continue
            for ip in addresses:
                for mac in macs:
                    location = small.locate(sender.id, mac, ip)
                    found: Delivery | ToGateway | tuple[bytes, int] | None = None
                    expected = delivery_of(vpc, host, sender, mac, ip)
                    if isinstance(location, Local):
                        found = Delivery(location.port, None, None, location.rewrite)
                    elif isinstance(location, GatewayEcho):
                        found = ToGateway()
                    elif isinstance(location, Tunnel) and isinstance(expected, Delivery):
                        # A tunnel names the host only; the MAC says to which port.
                        assert location.host == hosts[expected.port]
                        found = Delivery(
                            expected.port, location.host, location.vni, location.rewrite
                        )
                    elif isinstance(location, Tunnel):
                        found = location.host, location.vni
                    assert found == expected, (sender, mac, ip, location)


@settings(max_examples=80)
@given(clouds(with_rules=False), st.permutations(_TARGETS))
def test_an_answer_is_what_a_scan_over_all_records_says(
    cloud: CloudBuilder, addresses: list[bytes]
) -> None:
    small = cloud.world()
    for vpc in cloud.vpcs:
        for asker in vpc.ports:
            if asker.host.id != HERE:
                continue
            for ip in addresses:
                answer = small.resolve(asker.id, ip)
                found = (answer.mac, answer.router) if isinstance(answer, Answer) else None
                assert found == answer_of(vpc, asker, ip), (asker, ip, answer)

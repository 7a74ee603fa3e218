"""Where packets go and who answers for an address, as a plain scan over all that was published.

As ``policy_reference``, this reads ports, subnets, routers and routes as they were written, and nothing
that the agent made of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ondemand.goal_compile import CheckedVpc
from ondemand.goal_ports import PortSpec
from ondemand.records import Route, Router, Subnet
from tests.support.policy_reference import Address, address, holding_of, is_in, network


@dataclass(frozen=True, slots=True)
class Host:
    """The host that is asked: its tunnel address, and the ids of the ports that are plugged in."""

    tunnel: bytes
    plugged: Collection[str]


@dataclass(frozen=True, slots=True)
class Delivery:
    """The packet reaches ``port``: here, or, with ``tunnel`` and ``vni`` set, on another host.

    ``rewrite`` is (source MAC, destination MAC) of a packet that was routed.
    """

    port: str
    tunnel: bytes | None
    vni: int | None
    rewrite: tuple[bytes, bytes] | None


@dataclass(frozen=True, slots=True)
class ToGateway:
    """The packet is for the gateway itself."""


def delivery_of(
    vpc: CheckedVpc, host: Host, sender: PortSpec, eth_dst: bytes, ip_dst: bytes
) -> Delivery | ToGateway | None:
    """What becomes of a packet of ``sender``; None: it is dropped."""
    ip = address(ip_dst)
    if eth_dst[0] % 2 == 1 or ip.is_multicast:
        return None
    if sender.subnet.gateways and eth_dst == sender.subnet.gateway_mac:
        return _routed(vpc, host, sender.subnet, ip)
    port = _port_at(vpc, sender.subnet, eth_dst, ip)
    return None if port is None else _deliver(host, port, sender.subnet, None)


def _port_at(vpc: CheckedVpc, subnet: Subnet, mac: bytes, ip: Address) -> PortSpec | None:
    """Who takes a frame to this MAC and address in a subnet."""
    holding = holding_of(vpc, ip)
    if holding is not None and holding.mac == mac and holding.port.subnet.id == subnet.id:
        return holding.port
    # Not an address of that MAC's port. A port that may use other addresses than its own takes it.
    in_subnet = [port for port in vpc.ports if port.subnet.id == subnet.id]
    takers = [
        port
        for port in in_subnet
        if (port.pairs or not port.port_security)
        and mac in (port.mac, *(pair.mac for pair in port.pairs))
    ]
    if not takers:
        return None
    owners = [port for port in in_subnet if port.mac == mac]
    return owners[0] if owners else min(takers, key=lambda port: port.id)


def _routed(
    vpc: CheckedVpc, host: Host, subnet: Subnet, ip: Address
) -> Delivery | ToGateway | None:
    router = next((router for router in vpc.routers if subnet.id in router.subnets), None)
    if router is None:
        return None
    joined = [subnet for subnet in vpc.subnets if subnet.id in router.subnets]
    if any(ip == address(gateway) for subnet in joined for gateway in subnet.gateways):
        return ToGateway()
    next_hop = ip
    target = _subnet_with(joined, ip)
    route = _route(vpc, router, ip)
    if route is not None and route.prefix.length > _connected_length(target, ip):
        next_hop = address(route.nexthop)
        target = _subnet_with(joined, next_hop)
    holding = holding_of(vpc, next_hop)
    if target is None or holding is None or holding.port.subnet.id != target.id:
        return None
    return _deliver(host, holding.port, target, (target.gateway_mac, holding.mac))


def _subnet_with(subnets: list[Subnet], ip: Address) -> Subnet | None:
    for subnet in subnets:
        if any(is_in(ip, network(prefix)) for prefix in subnet.prefixes):
            return subnet
    return None


def _connected_length(subnet: Subnet | None, ip: Address) -> int:
    """Length of the subnet's prefix that holds ``ip``; -1 without a subnet."""
    prefixes = subnet.prefixes if subnet is not None else ()
    return max((p.length for p in prefixes if is_in(ip, network(p))), default=-1)


def _route(vpc: CheckedVpc, router: Router, ip: Address) -> Route | None:
    routes = [
        route
        for route in vpc.routes
        if route.router == router.id and is_in(ip, network(route.prefix))
    ]
    return max(routes, key=lambda route: route.prefix.length, default=None)


def _deliver(
    host: Host, port: PortSpec, subnet: Subnet, rewrite: tuple[bytes, bytes] | None
) -> Delivery | None:
    if port.id in host.plugged:
        return Delivery(port.id, None, None, rewrite)
    if port.host.tunnel == host.tunnel:
        return None
    return Delivery(port.id, port.host.tunnel, subnet.vni, rewrite)


def answer_of(vpc: CheckedVpc, asker: PortSpec, target: bytes) -> tuple[bytes, bool] | None:
    """(MAC, whether a router has it) that answers ARP or ND of ``asker``; None: nobody answers."""
    ip = address(target)
    if target in asker.subnet.gateways:
        return asker.subnet.gateway_mac, True
    if _subnet_with([asker.subnet], ip) is None:
        return None
    holding = holding_of(vpc, ip)
    if holding is None or holding.port.subnet.id != asker.subnet.id:
        return None
    if asker.id in {holding.port.id, *holding.sharers}:
        # An address that the asker may use itself: an answer would be its duplicate.
        return None
    return holding.mac, False

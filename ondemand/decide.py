"""The decisions: may this connection be, where is that address, who answers for it.

Pure functions of the world. ``explain`` calls the same ones. Each lists what it read as tags, in the
order of reading; a rule made from the decision carries them all.
"""

from __future__ import annotations

from ondemand.flow import Flow
from ondemand.holder import holder_of, topology_tag
from ondemand.local_ports import LocalPort, port_tag
from ondemand.pipeline import L4, UDP
from ondemand.records import Direction, MacPointer, Route, Subnet
from ondemand.slice_cache import mac_place
from ondemand.topology import Topology
from ondemand.verdict import (
    SOURCE_TAG,
    Allow,
    Answer,
    Deny,
    GatewayEcho,
    Local,
    Location,
    Need,
    NoAnswer,
    NoLocation,
    PolicyVerdict,
    Reason,
    Resolution,
    Tunnel,
)
from ondemand.world import World
from rule_cache.tags import Tag

# Until Python 3.12 a member costs 90 ns when it is read through its class.
_ICMP = L4.ICMP
_INGRESS = Direction.INGRESS

#: UDP ports of DHCP (RFC 2131 section 4.1) and DHCPv6 (RFC 8415 section 7.2): (server, client).
_DHCP = {4: (67, 68), 6: (547, 546)}


def reads_source_port(flow: Flow) -> bool:
    """Whether policy reads both ports of this flow, so that a rule must match both.

    Only DHCP is told by both; everything else is judged by the destination port alone.
    """
    return flow.protocol == UDP and flow.second in _DHCP[flow.family]


def judge(world: World, port: LocalPort, flow: Flow) -> PolicyVerdict:
    """May the port begin (EGRESS) or receive (INGRESS) this connection?"""
    reads: list[Tag] = [port.tag]
    verdict = _judge(world, port, flow, reads)
    if world.source_down and isinstance(verdict, Need):
        return Deny(Reason.SOURCE_UNREACHABLE, (*reads, SOURCE_TAG))
    return verdict


def _judge(world: World, port: LocalPort, flow: Flow, reads: list[Tag]) -> PolicyVerdict:
    if flow.direction is _INGRESS and flow.remote in port.record.fixed_ips:
        # Conntrack would take what the port itself sends for packets of this connection.
        return Deny(Reason.SPOOFED_SOURCE, tuple(reads))
    if flow.protocol == UDP:
        dhcp = _dhcp_verdict(flow, reads)
        if dhcp is not None:
            return dhcp
    groups = port.record.groups
    policy = world.policy(groups)
    reads += policy.tags
    # Of ports a security rule reads the destination only; of ICMP the type and the code.
    first, second = (flow.first, flow.second) if flow.l4 is _ICMP else (flow.second, 0)
    cell = policy.cell(flow.direction, flow.family, flow.protocol, first, second)
    rule = cell.of_address(flow.remote)
    if rule is None and cell.groups:
        topology = world.topology(port.vpc)
        if topology is None:
            return Need("vpc/" + port.vpc, "")
        holder = holder_of(world, topology, port.vpc, flow.remote, reads)
        if isinstance(holder, Need):
            return holder
        if holder is not None:
            rule = cell.of_groups(holder.groups)
    if rule is not None:
        return Allow(rule, tuple(reads))
    if policy.missing:
        return Need(policy.missing[0], "")
    missing = world.missing_groups(groups)
    return Deny(Reason.GROUP_MISSING if missing else Reason.NO_RULE, tuple(reads))


def _dhcp_verdict(flow: Flow, reads: list[Tag]) -> PolicyVerdict | None:
    """Neutron always lets a port be a DHCP client and never a server."""
    server, client = _DHCP[flow.family]
    if (flow.first, flow.second) == (client, server) and flow.direction is Direction.EGRESS:
        return Allow("DHCP client", tuple(reads))
    if (flow.first, flow.second) == (server, client):
        if flow.direction is Direction.INGRESS:
            return Allow("DHCP client", tuple(reads))
        return Deny(Reason.DHCP_SERVER, tuple(reads))
    return None


def locate(
    world: World, port: LocalPort, eth_dst: bytes, ip_dst: bytes, *, echo: bool = False
) -> Location:
    """Where does a packet go that ``port`` sends to this MAC and address?

    ``echo``: it is an ICMP echo request, which alone the gateway answers.
    """
    reads: list[Tag] = [port.tag]
    location = _locate(world, port, eth_dst, ip_dst, reads, echo=echo)
    if world.source_down and isinstance(location, Need):
        return NoLocation(Reason.SOURCE_UNREACHABLE, (*reads, SOURCE_TAG))
    return location


def _locate(
    world: World,
    port: LocalPort,
    eth_dst: bytes,
    ip_dst: bytes,
    reads: list[Tag],
    *,
    echo: bool,
) -> Location:
    if eth_dst[0] & 1 or (ip_dst[0] & 0xF0 == 0xE0 if len(ip_dst) == 4 else ip_dst[0] == 0xFF):
        return NoLocation(Reason.MULTICAST, tuple(reads))
    topology = world.topology(port.vpc)
    if topology is None:
        return Need("vpc/" + port.vpc, "")
    reads.append(topology_tag(port.vpc))
    subnet = port.subnet
    if subnet.gateways and eth_dst == subnet.gateway_mac:
        return _routed(world, topology, port, ip_dst, reads, echo=echo)
    holder = holder_of(world, topology, port.vpc, ip_dst, reads)
    if isinstance(holder, Need):
        return holder
    if holder is not None and holder.mac == eth_dst and holder.subnet == subnet.id:
        return _at(world, holder.port, holder.host, subnet, reads, None)
    # Not an address of that MAC: only a port that may forward for others takes it.
    pointer = world.cache.mac_pointer(port.vpc, subnet.id, eth_dst)
    if pointer is None:
        return Need(*mac_place(port.vpc, subnet.id, eth_dst))
    reads.append(pointer.tag)
    if isinstance(pointer.record, MacPointer):
        return _at(world, pointer.record.port, pointer.record.host, subnet, reads, None)
    reason = Reason.UNKNOWN_NEIGHBOR if holder is None else Reason.UNKNOWN_MAC
    return NoLocation(reason, tuple(reads))


def _routed(
    world: World,
    topology: Topology,
    port: LocalPort,
    ip_dst: bytes,
    reads: list[Tag],
    *,
    echo: bool,
) -> Location:
    router = topology.router_of(port.subnet.id)
    if router is None:
        return NoLocation(Reason.NO_ROUTER, tuple(reads))
    if ip_dst in router.gateways:
        return GatewayEcho(tuple(reads)) if echo else NoLocation(Reason.GATEWAY, tuple(reads))
    subnet, next_hop = router.route(ip_dst), ip_dst
    if isinstance(subnet, Route):
        next_hop = subnet.nexthop
        subnet = router.connected_subnet(next_hop)
        if subnet is None:
            return NoLocation(Reason.NEXT_HOP_UNKNOWN, tuple(reads))
    if subnet is None:
        return NoLocation(Reason.NO_ROUTE, tuple(reads))
    holder = holder_of(world, topology, port.vpc, next_hop, reads)
    if isinstance(holder, Need):
        return holder
    if holder is None or holder.subnet != subnet.id:
        known = next_hop is not ip_dst
        reason = Reason.NEXT_HOP_UNKNOWN if known else Reason.UNKNOWN_NEIGHBOR
        return NoLocation(reason, tuple(reads))
    rewrite = (subnet.gateway_mac, holder.mac)
    return _at(world, holder.port, holder.host, subnet, reads, rewrite)


def _at(
    world: World,
    port: str,
    host: bytes,
    subnet: Subnet,
    reads: list[Tag],
    rewrite: tuple[bytes, bytes] | None,
) -> Location:
    """A port that was found: on this host or on another one."""
    reads.append(port_tag(port))
    if port in world.ports:
        return Local(port, tuple(reads), rewrite)
    if host == world.tunnel_ip:
        return NoLocation(Reason.NOT_PLUGGED, tuple(reads))
    return Tunnel(host, subnet.vni, tuple(reads), rewrite)


def way_back(port: LocalPort, remote_mac: bytes, remote: bytes) -> bytes:
    """The MAC that ``port`` sends to when it answers ``remote``: its own, or the gateway's."""
    same_subnet = any(prefix.contains(remote) for prefix in port.subnet.prefixes)
    return remote_mac if same_subnet or not port.subnet.gateways else port.subnet.gateway_mac


def resolve(world: World, port: LocalPort, target: bytes) -> Resolution:
    """Who answers when ``port`` asks for ``target`` by ARP or neighbor discovery?"""
    reads: list[Tag] = [port.tag]
    resolution = _resolve(world, port, target, reads)
    if world.source_down and isinstance(resolution, Need):
        return NoAnswer(Reason.SOURCE_UNREACHABLE, (*reads, SOURCE_TAG))
    return resolution


def _resolve(world: World, port: LocalPort, target: bytes, reads: list[Tag]) -> Resolution:
    topology = world.topology(port.vpc)
    if topology is None:
        return Need("vpc/" + port.vpc, "")
    reads.append(topology_tag(port.vpc))
    subnet = port.subnet
    if target in subnet.gateways:
        return Answer(subnet.gateway_mac, tuple(reads), router=True)
    if target in port.record.fixed_ips:
        return NoAnswer(Reason.OWN_ADDRESS, tuple(reads))
    if not any(prefix.contains(target) for prefix in subnet.prefixes):
        return NoAnswer(Reason.NOT_IN_SUBNET, tuple(reads))
    holder = holder_of(world, topology, port.vpc, target, reads)
    if isinstance(holder, Need):
        return holder
    if holder is None or holder.subnet != subnet.id:
        return NoAnswer(Reason.UNKNOWN_NEIGHBOR, tuple(reads))
    if holder.port == port.record.id or port.record.id in holder.sharers:
        # It asks for an address that it may use itself: answering would fail its duplicate test.
        return NoAnswer(Reason.OWN_ADDRESS, tuple(reads))
    return Answer(holder.mac, tuple(reads))


__all__ = ["judge", "locate", "reads_source_port", "resolve", "way_back"]

"""Why something is denied or allowed, in sentences."""

from __future__ import annotations

from typing import Final

from controller_app.explain_packet import Packet
from ondemand.addresses import Prefix, format_ip, format_mac, link_local_of
from ondemand.pipeline import Pipeline
from ondemand.records import Port
from ondemand.verdict import Reason
from rule_cache.rule import Rule

REASONS: Final = {
    Reason.NO_RULE: "no security rule allows it",
    Reason.GROUP_MISSING: "no security rule allows it, and a group of the port does not exist",
    Reason.DHCP_SERVER: "a VM may not answer as a DHCP server",
    Reason.UNKNOWN_NEIGHBOR: "nobody holds or claims the address",
    Reason.UNKNOWN_MAC: "the destination MAC is not that of the port that holds the address, nor of"
    " one that forwards for others",
    Reason.NO_ROUTE: "the router has no subnet and no route for the address",
    Reason.NO_ROUTER: "it is sent to the gateway, and no router joins the subnet",
    Reason.NEXT_HOP_UNKNOWN: "the next hop of the static route is nobody's address",
    Reason.MULTICAST: "broadcast and multicast are not forwarded",
    Reason.GATEWAY: "the gateway answers ping and nothing else",
    Reason.NOT_PLUGGED: "the port is bound on this host and has no interface here",
    Reason.OWN_ADDRESS: "the address is one of the port's own, so nobody else answers",
    Reason.NOT_IN_SUBNET: "the address lies outside the port's subnet",
    Reason.SPOOFED_SOURCE: "it comes from the very address of the port that it is for",
    Reason.SOURCE_UNREACHABLE: "the slice source does not answer, and a record is needed that the agent"
    " does not hold",
}


def source_sentence(pipeline: Pipeline, port: Port, packet: Packet, rule: Rule | None) -> str:
    """Why the switch lets a packet pass port security, or not; ``rule`` is the one that it meets."""
    sender = f"{format_mac(packet.eth_src)} with {format_ip(packet.src)}"
    if rule is None:
        known = ", ".join(_allowed(port))
        return f"{sender} is none of the port's own addresses: {known}"
    shape = rule.shape
    if shape in (pipeline.to_arp, pipeline.to_nd):
        return "questions for neighbors are answered by the fabric and never forwarded"
    if shape in pipeline.no_link_local.values():
        return (
            f"ICMPv6 type {packet.first} stays on the link, and the fabric forwards none of these"
        )
    if shape is pipeline.allowed_dhcp:
        return "a DHCP client may ask from 0.0.0.0"
    if shape in pipeline.any_source.values():
        return "the port has no port security: it may send from any address"
    if shape in pipeline.allowed_source.values():
        return f"{sender}: {_whose(port, packet)}"
    return f"dropped by rule {shape.name}"


def _whose(port: Port, packet: Packet) -> str:
    if packet.eth_src == port.mac and packet.src in port.fixed_ips:
        return "the port's MAC and fixed IP"
    for pair in port.pairs:
        if packet.eth_src == pair.mac and pair.prefix.contains(packet.src):
            return f"an allowed address pair of the port ({_pair(pair.prefix, pair.mac)})"
    return "the link-local address of the MAC"


def _allowed(port: Port) -> list[str]:
    macs = dict.fromkeys([port.mac, *(pair.mac for pair in port.pairs)])
    found = [_pair(Prefix(ip, len(ip) * 8), port.mac) for ip in port.fixed_ips]
    found += [_pair(pair.prefix, pair.mac) for pair in port.pairs]
    found += [_pair(Prefix(link_local_of(mac), 128), mac) for mac in macs]
    return found


def _pair(prefix: Prefix, mac: bytes) -> str:
    whole = prefix.length == len(prefix.network) * 8
    return f"{format_ip(prefix.network) if whole else prefix} with {format_mac(mac)}"

"""Hosts, subnets and routers of a goal state, checked, as values and records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ondemand.addresses import IPV4_BYTES, Prefix, format_ip, parse_ip, parse_mac, parse_prefix
from ondemand.codec import MAX_VNI, mac_error
from ondemand.goal_model import HostInput, RouteInput, RouterInput, SubnetInput
from ondemand.goal_problems import Problems
from ondemand.records import Route, Router, Subnet
from ondemand.slices import SliceNameError, check_id

#: The first half of a derived gateway MAC; 02 marks it as locally administered (IEEE 802 section 8.4).
_GATEWAY_MAC_HEAD = b"\x02\x67\x77"


@dataclass(frozen=True, slots=True)
class Host:
    """A compute host: its tunnel address and, if any, its host group."""

    id: str
    tunnel: bytes
    group: str | None


def gateway_mac_of(vni: int) -> bytes:
    """The gateway's MAC in a subnet that names none: one per VNI, the same on every host."""
    return _GATEWAY_MAC_HEAD + vni.to_bytes(3, "big")


def read_mac(text: str, place: str, problems: Problems) -> bytes | None:
    """A MAC that one interface may have, or None after noting why it is none."""
    mac = problems.parse(place, parse_mac, text)
    reason = None if mac is None else mac_error(mac)
    if reason is not None:
        problems.add(place, reason)
        return None
    return mac


def is_usable(ip: bytes, prefix: Prefix) -> bool:
    """Whether a host may have the address: not the network's or the broadcast address of an IPv4
    subnet (RFC 1122 section 3.2.1.3); prefixes of 31 and 32 bits have neither (RFC 3021).
    """
    if len(ip) != IPV4_BYTES or prefix.length > 30:
        return True
    host = int.from_bytes(ip, "big") & ((1 << (32 - prefix.length)) - 1)
    return host not in (0, (1 << (32 - prefix.length)) - 1)


def prefix_of(ip: bytes, prefixes: Iterable[Prefix]) -> Prefix | None:
    return next((prefix for prefix in prefixes if prefix.contains(ip)), None)


def check_hosts(placed: list[tuple[str, HostInput]], problems: Problems) -> dict[str, Host]:
    hosts: dict[str, Host] = {}
    ids: dict[str, str] = {}
    tunnels: dict[bytes, str] = {}
    for place, given in placed:
        if not problems.is_first(ids, given.id, place, f"host id {given.id!r}"):
            continue
        tunnel = problems.parse(f"{place}: tunnel_ip", parse_ip, given.tunnel_ip)
        if given.group is not None:
            try:
                check_id("group", given.group)
            except SliceNameError as error:
                problems.add(place, str(error))
        if tunnel is None or not problems.is_first(
            tunnels, tunnel, place, f"tunnel_ip {given.tunnel_ip}"
        ):
            problems.add_broken("host", given.id)
            continue
        hosts[given.id] = Host(given.id, tunnel, given.group)
    return hosts


def check_subnets(
    placed: list[tuple[str, SubnetInput]], vnis: dict[int, str], problems: Problems
) -> dict[str, Subnet]:
    """The subnets of one VPC by id. ``vnis``: those of all VPCs so far, and where they are."""
    subnets: dict[str, Subnet] = {}
    ids: dict[str, str] = {}
    for place, given in placed:
        if not problems.is_first(ids, given.id, place, f"subnet id {given.id!r}"):
            continue
        before = len(problems.errors)
        if not 0 < given.vni <= MAX_VNI:
            problems.add(place, f"vni {given.vni} is not in 1..{MAX_VNI}", key="vni")
        else:
            problems.is_first(vnis, given.vni, place, f"vni {given.vni}")
        prefixes = _prefixes(place, given, problems)
        gateways = _gateways(place, given, prefixes, problems)
        gateway_mac = _gateway_mac(place, given, problems)
        if len(problems.errors) > before:
            problems.add_broken("subnet", given.id)
        else:
            subnets[given.id] = Subnet(given.id, given.vni, prefixes, gateways, gateway_mac)
    return subnets


def _prefixes(place: str, given: SubnetInput, problems: Problems) -> tuple[Prefix, ...]:
    prefixes: dict[int, Prefix] = {}
    if not given.cidrs:
        problems.add(place, "cidrs is empty: a subnet needs an IPv4 prefix, an IPv6 prefix or both")
    for number, text in enumerate(given.cidrs):
        where = f"{place}: cidrs[{number}]"
        prefix = problems.parse(where, parse_prefix, text)
        if prefix is None:
            continue
        if "/" not in text:
            problems.add(where, f"{text!r} has no prefix length; write it as {text}/24 or alike")
        elif len(prefix.network) in prefixes:
            problems.add(
                where, f"{text} is a second prefix of its family: make it a subnet of its own"
            )
        else:
            prefixes[len(prefix.network)] = prefix
    return tuple(prefixes.values())


def _gateways(
    place: str, given: SubnetInput, prefixes: tuple[Prefix, ...], problems: Problems
) -> tuple[bytes, ...]:
    gateways: dict[int, bytes] = {}
    for number, text in enumerate(given.gateways):
        where = f"{place}: gateways[{number}]"
        gateway = problems.parse(where, parse_ip, text)
        if gateway is None:
            continue
        prefix = prefix_of(gateway, prefixes)
        if prefix is None:
            # Without a sound prefix nobody can tell; that the prefix is unsound was said already.
            if len(prefixes) == len(given.cidrs):
                problems.add(where, f"{text} lies outside the subnet ({_text(prefixes)})")
        elif not is_usable(gateway, prefix):
            problems.add(where, f"{text} is the network or broadcast address of {prefix}")
        elif len(gateway) in gateways:
            problems.add(
                where, f"{text} is a second gateway of its family; one is all there can be"
            )
        else:
            gateways[len(gateway)] = gateway
    return tuple(gateways.values())


def _gateway_mac(place: str, given: SubnetInput, problems: Problems) -> bytes:
    if given.gateway_mac is not None:
        if not given.gateways:
            problems.add(place, "gateway_mac has no meaning without gateways", key="gateway_mac")
        return read_mac(given.gateway_mac, f"{place}: gateway_mac", problems) or b""
    if given.gateways and 0 < given.vni <= MAX_VNI:
        return gateway_mac_of(given.vni)
    return b""


def _text(prefixes: Iterable[Prefix]) -> str:
    return ", ".join(map(str, prefixes))


def check_routers(
    placed: list[tuple[str, RouterInput]], subnets: Mapping[str, Subnet], problems: Problems
) -> tuple[list[Router], list[Route]]:
    """The routers of one VPC and all their static routes."""
    routers: list[Router] = []
    routes: list[Route] = []
    ids: dict[str, str] = {}
    attached: dict[str, str] = {}
    for place, given in placed:
        if not problems.is_first(ids, given.id, place, f"router id {given.id!r}"):
            continue
        joined = []
        for number, name in enumerate(given.subnets):
            where = f"{place}: subnets[{number}]"
            if not problems.is_known(where, "subnet", name, subnets):
                continue
            if problems.is_first(attached, name, where, f"subnet {name!r}"):
                joined.append(subnets[name])
                if not subnets[name].gateways:
                    problems.add(
                        where, f"subnet {name!r} has no gateways, so no router can be in it"
                    )
        _check_overlaps(place, joined, problems)
        routers.append(Router(given.id, tuple(given.subnets)))
        routes += _check_routes(
            place, given, joined, is_complete=len(joined) == len(given.subnets), problems=problems
        )
    return routers, routes


def _check_overlaps(place: str, subnets: list[Subnet], problems: Problems) -> None:
    ordered = sorted(
        (len(prefix.network), prefix.network, prefix.length, subnet.id, prefix)
        for subnet in subnets
        for prefix in subnet.prefixes
    )
    outer: tuple[Prefix, str] | None = None
    for _, _, _, name, prefix in ordered:
        # Prefixes nest or are disjoint, so it is enough to look at the last one that is not inside
        # another.
        if outer is not None and outer[0].contains(prefix.network):
            problems.add(
                place,
                f"subnets {outer[1]!r} ({outer[0]}) and {name!r} ({prefix}) overlap:"
                " a router cannot tell where to send",
            )
        else:
            outer = (prefix, name)


def _check_routes(
    place: str, given: RouterInput, joined: list[Subnet], *, is_complete: bool, problems: Problems
) -> list[Route]:
    routes = []
    taken: dict[Prefix, str] = {}
    connected = {prefix for subnet in joined for prefix in subnet.prefixes}
    own = {gateway for subnet in joined for gateway in subnet.gateways}
    for where, route in problems.read("route", RouteInput, given.routes, f"{place}.routes"):
        to = problems.parse(f"{where}: to", parse_prefix, route.to)
        via = problems.parse(f"{where}: via", parse_ip, route.via)
        if to is None or via is None:
            continue
        if not problems.is_first(taken, to, where, f"the route to {to}"):
            continue
        if to in connected:
            problems.add(where, f"{to} is a subnet of the router itself and needs no route")
        if len(via) != len(to.network):
            problems.add(where, f"via {route.via} and to {to} are of different families")
        elif via in own:
            problems.add(where, f"via {route.via} is an address of the router itself")
        elif prefix_of(via, connected) is None and is_complete:
            problems.add(where, f"via {route.via} lies in none of the router's subnets")
        routes.append(Route(given.id, to, via))
    return routes


def shown(ip: bytes, subnet: Subnet) -> str:
    """The words for an address that is not of its subnet."""
    return f"{format_ip(ip)} lies outside subnet {subnet.id!r} ({_text(subnet.prefixes)})"

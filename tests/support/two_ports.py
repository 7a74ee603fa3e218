"""Rules for a bridge with two local ports, A and B, of one subnet, and a tunnel to a third, C.

What the agent would install over time is here all at once: for each pair and protocol a verdict, for
each destination a location, for each address an answer. Denied: TCP port 22, both ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ondemand.addresses import parse_ip, parse_mac, parse_prefix
from ondemand.local_ports import LocalPort
from ondemand.messages import Effects, SetMeter
from ondemand.pipeline import (
    ICMP,
    ICMPV6,
    L4,
    ND_OVERRIDE,
    ND_ROUTER,
    ND_SOLICITED,
    TCP,
    UDP,
    Pipeline,
)
from ondemand.records import Direction, Port, Subnet
from ondemand.static_rules import epoch_rules, frame_rules, port_rules
from rule_cache.rule import Rule
from tests.support.frame_builder import IP4_A, IP4_B, IP6_A, IP6_B, MAC_A, MAC_B

VNI: Final = 5001
PORT_A, PORT_B, TUNNEL_PORT = 1, 2, 3
ZONE_A, ZONE_B = 11, 12
EPOCH: Final = 7
MAC_C, IP4_C, IP6_C = "fa:16:3e:00:00:0c", "10.0.0.12", "fd00::12"
#: Another subnet behind the gateway: D by the tunnel, and B's second address.
IP4_D, IP6_D, IP4_B2 = "10.0.1.13", "fd00:0:0:1::13", "10.0.1.11"
MAC_D: Final = "fa:16:3e:00:00:0d"
GATEWAY_MAC, GATEWAY4, GATEWAY6 = "fa:16:3e:00:00:01", "10.0.0.1", "fd00::1"
HOST_C: Final = "192.0.2.3"
#: Nobody has it, and A was told so.
IP4_NOBODY, IP6_NOBODY = "10.0.0.99", "fd00::99"
ALLOWED_TCP, ALLOWED_UDP, DENIED_TCP = 80, 53, 22

_SUBNET: Final = Subnet(
    "net",
    VNI,
    (parse_prefix("10.0.0.0/24"), parse_prefix("fd00::/64")),
    (parse_ip(GATEWAY4), parse_ip(GATEWAY6)),
    parse_mac(GATEWAY_MAC),
)


def local_ports(epoch: int = EPOCH) -> tuple[LocalPort, LocalPort]:
    def port(name: str, mac: str, ips: tuple[str, ...], ofport: int, zone: int) -> LocalPort:
        record = Port(name, parse_mac(mac), "vpc", "net", tuple(map(parse_ip, ips)))
        return LocalPort(record, _SUBNET, ofport, zone, epoch)

    return (
        port("a", MAC_A, (IP4_A, IP6_A), PORT_A, ZONE_A),
        port("b", MAC_B, (IP4_B, IP6_B, IP4_B2), PORT_B, ZONE_B),
    )


def meters() -> list[SetMeter]:
    """One per zone, so wide that no test meets its end."""
    return [SetMeter(zone, 100_000, 100_000) for zone in (ZONE_A, ZONE_B)]


def static_rules(pipeline: Pipeline) -> list[Rule]:
    rules = frame_rules(pipeline)
    for port in local_ports():
        rules += port_rules(pipeline, port, TUNNEL_PORT, port.zone)
    return rules


def rules_of_epoch(pipeline: Pipeline, epoch: int) -> list[Rule]:
    """The rules that take the place of those of another epoch."""
    return [
        rule
        for port in local_ports(epoch)
        for direction in Direction
        for rule in epoch_rules(pipeline, port, direction)
    ]


def on_demand_rules(pipeline: Pipeline) -> list[Rule]:
    return [*_verdicts(pipeline), *_locations(pipeline), *_answers(pipeline)]


def all_rules(pipeline: Pipeline) -> list[Rule]:
    return [*static_rules(pipeline), *on_demand_rules(pipeline)]


def install(rules: list[Rule], first_cookie: int = 1) -> Effects:
    """Effects that add the rules, behind the meters that they need."""
    return Effects(meters=meters(), adds=list(enumerate(rules, first_cookie)))


def _verdicts(pipeline: Pipeline) -> Iterator[Rule]:
    peers = (
        (ZONE_A, (IP4_B, IP6_B, IP4_C, IP6_C, IP4_D, IP6_D, IP4_B2, GATEWAY4, GATEWAY6)),
        (ZONE_B, (IP4_A, IP6_A, IP4_C, IP6_C, IP4_D, IP6_D, GATEWAY4, GATEWAY6)),
    )
    for zone, remotes in peers:
        for remote in map(parse_ip, remotes):
            for direction in Direction:
                for reply in (False, True):
                    yield from _verdicts_with(
                        pipeline, direction, zone=zone, remote=remote, reply=reply
                    )


def _verdicts_with(
    pipeline: Pipeline, direction: Direction, *, zone: int, remote: bytes, reply: bool
) -> Iterator[Rule]:
    family = 4 if len(remote) == 4 else 6
    ports = pipeline.verdict[direction, family, L4.PORT, reply, False]
    icmp = pipeline.verdict[direction, family, L4.ICMP, reply, False]
    for proto, tp_dst, shape in (
        (TCP, ALLOWED_TCP, ports[0]),
        (UDP, ALLOWED_UDP, ports[0]),
        (TCP, DENIED_TCP, ports[1]),
    ):
        yield shape.rule(zone=zone, remote=remote, proto=proto, tp_dst=tp_dst)
    echo = {4: (ICMP, 8), 6: (ICMPV6, 128)}[family]
    yield icmp[0].rule(zone=zone, remote=remote, proto=echo[0], icmp_type=echo[1], icmp_code=0)
    if not reply:
        sctp = pipeline.verdict[direction, family, L4.SCTP, False, False][0]
        yield sctp.rule(zone=zone, remote=remote, tp_src=40000, tp_dst=3868)
        gre = pipeline.verdict[direction, family, L4.NONE, False, False][0]
        yield gre.rule(zone=zone, remote=remote, proto=47)


def _locations(pipeline: Pipeline) -> Iterator[Rule]:
    gateway = parse_mac(GATEWAY_MAC)
    local = (
        (MAC_A, IP4_A, ZONE_A),
        (MAC_A, IP6_A, ZONE_A),
        (MAC_B, IP4_B, ZONE_B),
        (MAC_B, IP6_B, ZONE_B),
    )
    for mac, ip, zone in local:
        yield pipeline.location_local[_family(ip), False].rule(
            vni=VNI, mac=parse_mac(mac), remote=parse_ip(ip), zone=zone
        )
    yield pipeline.location_local[4, True].rule(
        vni=VNI,
        mac=gateway,
        remote=parse_ip(IP4_B2),
        gateway_mac=gateway,
        next_mac=parse_mac(MAC_B),
        zone=ZONE_B,
    )
    for ip in (IP4_C, IP6_C):
        yield pipeline.location_tunnel[_family(ip), 4, False].rule(
            vni=VNI,
            mac=parse_mac(MAC_C),
            remote=parse_ip(ip),
            tun_id=VNI,
            host=parse_ip(HOST_C),
            tunnel_port=TUNNEL_PORT,
        )
    for ip in (IP4_D, IP6_D):
        yield pipeline.location_tunnel[_family(ip), 4, True].rule(
            vni=VNI,
            mac=gateway,
            remote=parse_ip(ip),
            gateway_mac=gateway,
            next_mac=parse_mac(MAC_D),
            tun_id=VNI + 1,
            host=parse_ip(HOST_C),
            tunnel_port=TUNNEL_PORT,
        )
    for ip in (GATEWAY4, GATEWAY6):
        yield pipeline.gateway_echo[_family(ip)].rule(vni=VNI, mac=gateway, remote=parse_ip(ip))
    for ip in (IP4_NOBODY, IP6_NOBODY):
        yield pipeline.location_deny[_family(ip)].rule(vni=VNI, mac=gateway, remote=parse_ip(ip))


def _answers(pipeline: Pipeline) -> Iterator[Rule]:
    known = {
        GATEWAY4: GATEWAY_MAC,
        GATEWAY6: GATEWAY_MAC,
        IP4_A: MAC_A,
        IP6_A: MAC_A,
        IP4_B: MAC_B,
        IP6_B: MAC_B,
        IP4_C: MAC_C,
        IP6_C: MAC_C,
    }
    for zone in (ZONE_A, ZONE_B):
        for ip, mac in known.items():
            target, address = parse_ip(ip), parse_mac(mac)
            if _family(ip) == 4:
                yield pipeline.arp_reply.rule(zone=zone, target=target, mac=address)
                continue
            flags = ND_SOLICITED | ND_OVERRIDE | (ND_ROUTER if mac == GATEWAY_MAC else 0)
            yield pipeline.nd_reply.rule(zone=zone, target=target, mac=address, flags=flags)
        yield pipeline.arp_deny.rule(zone=zone, target=parse_ip(IP4_NOBODY))
        yield pipeline.nd_deny.rule(zone=zone, target=parse_ip(IP6_NOBODY))


def _family(ip: str) -> int:
    return 6 if ":" in ip else 4

"""Frames made at random that have something to do with the rules of ``two_ports``."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from tests.support.frame_builder import (
    IP4_A,
    IP4_B,
    IP6_A,
    IP6_B,
    MAC_A,
    MAC_B,
    build_arp,
    build_icmp4,
    build_icmp6,
    build_ipv4_raw,
    build_ns,
    build_sctp4,
    build_tcp4,
    build_tcp6,
    build_udp4,
    build_udp6,
)
from tests.support.packet_parts import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    destination_options,
    hop_by_hop,
    routing_header,
)
from tests.support.two_port_traffic import Step, Values, echo, quoting
from tests.support.two_ports import (
    GATEWAY4,
    GATEWAY6,
    GATEWAY_MAC,
    IP4_B2,
    IP4_C,
    IP4_D,
    IP4_NOBODY,
    IP6_C,
    IP6_D,
    IP6_NOBODY,
    MAC_C,
    PORT_A,
    PORT_B,
)

_SENDERS: Final = ((PORT_A, MAC_A, IP4_A, IP6_A), (PORT_B, MAC_B, IP4_B, IP6_B))
_TARGETS: Final = (
    (MAC_A, IP4_A, IP6_A),
    (MAC_B, IP4_B, IP6_B),
    (MAC_C, IP4_C, IP6_C),
    (GATEWAY_MAC, IP4_D, IP6_D),
    (GATEWAY_MAC, GATEWAY4, GATEWAY6),
    (GATEWAY_MAC, IP4_B2, IP6_NOBODY),
)
#: The side with the port above 40000 is always the client: where both sides begin a connection at
#: once, the switch's TCP windows decide, which the fake does not have.
_PORTS: Final = ((40000, 80), (80, 40000), (40000, 53), (53, 40000), (40001, 22), (40000, 81))
_CLIENT_FLAGS: Final = (SYN, SYN, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, 0, SYN | FIN)
_SERVER_FLAGS: Final = (SYN | ACK, SYN | ACK, ACK, FIN | ACK, RST | ACK)


def random_step(rng: random.Random, *, damaged: bool) -> Step:
    """A frame that has something to do with the rules; ``damaged`` changes or cuts it."""
    ofport, mac, ip4, ip6 = rng.choice(_SENDERS)
    eth_dst, dst4, dst6 = rng.choice(_TARGETS)
    tp_src, tp_dst = rng.choice(_PORTS)
    ports: Values = {"tp_src": tp_src, "tp_dst": tp_dst}
    common: Values = {
        "eth_src": mac,
        "eth_dst": eth_dst,
        "ttl": rng.choice((64, 64, 64, 1, 2)),
        "vlan": rng.choice((None,) * 30 + (0, 5)),
    }
    v4 = {**common, "src": ip4, "dst": dst4}
    v6 = {**common, "src": ip6, "dst": dst6}
    back4: Values = {"src": dst4, "dst": ip4}
    back6: Values = {"src": dst6, "dst": ip6}
    payload = rng.randbytes(rng.choice((0, 0, 5, 20)))
    flags = rng.choice(_CLIENT_FLAGS if tp_src >= 40000 else _SERVER_FLAGS)
    code = rng.choice((0, 0, 0, 1))
    body = echo(rng.randrange(2), payload)
    extensions = rng.choice(((), (hop_by_hop(),), (destination_options(), routing_header())))
    makers: list[Callable[[], bytes]] = [
        lambda: build_tcp4(**v4, **ports, flags=flags),
        lambda: build_tcp4(**v4, **ports, flags=flags),
        lambda: build_tcp6(**v6, **ports, flags=flags, extensions=extensions),
        lambda: build_udp4(**v4, **ports, payload=payload),
        lambda: build_udp6(**v6, **ports, payload=payload, extensions=extensions),
        lambda: build_icmp4(**v4, icmp_type=rng.choice((8, 0, 13, 3)), icmp_code=code, body=body),
        lambda: build_icmp6(
            **v6, icmp_type=rng.choice((128, 129, 1, 133, 136)), icmp_code=code, body=body
        ),
        lambda: build_icmp4(
            **v4,
            icmp_type=rng.choice((3, 11, 5)),
            body=quoting(build_udp4(**back4, **ports), rng.choice((28, 24))),
        ),
        lambda: build_icmp6(
            **v6,
            icmp_type=rng.choice((1, 2, 3)),
            body=quoting(build_tcp6(**back6, **ports), rng.choice((60, 48))),
        ),
        lambda: build_arp(
            sha=mac,
            spa=ip4,
            tpa=rng.choice((IP4_A, IP4_B, GATEWAY4, IP4_NOBODY, "10.0.0.70")),
            opcode=rng.choice((1, 1, 1, 2, 3)),
        ),
        lambda: build_ns(
            src=rng.choice((ip6, ip6, "::")),
            target=rng.choice((IP6_A, IP6_B, GATEWAY6, IP6_NOBODY, "fd00::70")),
            link_layer=rng.choice((mac, mac, None)),
            eth_src=mac,
        ),
        lambda: build_sctp4(**v4, tp_src=40000, tp_dst=rng.choice((3868, 1))),
        lambda: build_ipv4_raw(rng.choice((47, 50, 2)), b"12345678", **v4),
    ]
    frame = rng.choice(makers)()
    return ofport, _damage(rng, frame) if damaged else frame


def _damage(rng: random.Random, frame: bytes) -> bytes:
    """Other bytes behind the addresses, and maybe an early end; still a frame of 14 bytes or more."""
    data = bytearray(frame)
    for _ in range(rng.choice((1, 1, 2, 4))):
        data[rng.randrange(12, min(len(data), 90))] = rng.choice((0, 1, 255, rng.randrange(256)))
    if rng.random() < 0.3:
        data = data[: rng.randrange(14, len(data) + 1)]
    return bytes(data)

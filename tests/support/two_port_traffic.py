"""Traffic for the bridge of ``two_ports``: named sequences of frames."""

from __future__ import annotations

from typing import Any, Final

from tests.support.frame_builder import (
    IP4_A,
    IP4_B,
    IP6_A,
    IP6_B,
    MAC_A,
    MAC_B,
    MAC_BROADCAST,
    build_arp,
    build_icmp4,
    build_icmp6,
    build_ipv4_raw,
    build_ipv6_raw,
    build_na,
    build_ns,
    build_sctp4,
    build_sctp6,
    build_tcp4,
    build_tcp6,
    build_udp4,
    build_udp6,
    padded,
)
from tests.support.packet_parts import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    UDP,
    fragment_header,
    hop_by_hop,
    udp_datagram,
)
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

#: (port at which it arrives, frame)
Step = tuple[int, bytes]
#: Keyword arguments of the builders in ``frame_builder``.
Values = dict[str, Any]

# Addresses of a frame, for the builders: between A and B, and from A by way of the gateway.
A_TO_B: Final[Values] = {"src": IP4_A, "dst": IP4_B, "eth_src": MAC_A, "eth_dst": MAC_B}
B_TO_A: Final[Values] = {"src": IP4_B, "dst": IP4_A, "eth_src": MAC_B, "eth_dst": MAC_A}
A_TO_B6: Final[Values] = {"src": IP6_A, "dst": IP6_B, "eth_src": MAC_A, "eth_dst": MAC_B}
B_TO_A6: Final[Values] = {"src": IP6_B, "dst": IP6_A, "eth_src": MAC_B, "eth_dst": MAC_A}
A_TO_GATEWAY: Final[Values] = {
    "src": IP4_A,
    "dst": GATEWAY4,
    "eth_src": MAC_A,
    "eth_dst": GATEWAY_MAC,
}
A_TO_GATEWAY6: Final[Values] = {
    "src": IP6_A,
    "dst": GATEWAY6,
    "eth_src": MAC_A,
    "eth_dst": GATEWAY_MAC,
}
A_TO_C: Final[Values] = {"src": IP4_A, "dst": IP4_C, "eth_src": MAC_A, "eth_dst": MAC_C}
A_TO_C6: Final[Values] = {"src": IP6_A, "dst": IP6_C, "eth_src": MAC_A, "eth_dst": MAC_C}
A_TO_D: Final[Values] = {"src": IP4_A, "dst": IP4_D, "eth_src": MAC_A, "eth_dst": GATEWAY_MAC}
A_TO_D6: Final[Values] = {"src": IP6_A, "dst": IP6_D, "eth_src": MAC_A, "eth_dst": GATEWAY_MAC}
A_TO_B2: Final[Values] = {"src": IP4_A, "dst": IP4_B2, "eth_src": MAC_A, "eth_dst": GATEWAY_MAC}


def fragments4(
    addresses: Values, *, tp_dst: int, size: int = 3000, piece: int = 1480, number: int = 1
) -> list[bytes]:
    """A UDP datagram of ``size`` bytes in IPv4 fragments with ``piece`` bytes of data each."""
    data = _datagram(addresses, tp_dst, size)
    return [
        build_ipv4_raw(
            UDP,
            data[at : at + piece],
            **addresses,
            identification=number,
            fragment_offset=at,
            more_fragments=at + piece < len(data),
        )
        for at in range(0, len(data), piece)
    ]


def fragments6(
    addresses: Values, *, tp_dst: int, size: int = 3000, piece: int = 1448, number: int = 1
) -> list[bytes]:
    """As ``fragments4``, in IPv6."""
    data = _datagram(addresses, tp_dst, size)
    return [
        build_ipv6_raw(
            UDP,
            data[at : at + piece],
            **addresses,
            extensions=[
                fragment_header(
                    offset=at, more_fragments=at + piece < len(data), identification=number
                )
            ],
        )
        for at in range(0, len(data), piece)
    ]


def _datagram(addresses: Values, tp_dst: int, size: int) -> bytes:
    payload = bytes(index % 251 for index in range(size))
    return udp_datagram(addresses["src"], addresses["dst"], 40000, tp_dst, payload=payload)


def quoting(frame: bytes, bytes_of_ip: int) -> bytes:
    """Body of an ICMP error about ``frame``."""
    return bytes(4) + frame[14 : 14 + bytes_of_ip]


def echo(number: int, payload: bytes = b"") -> bytes:
    """Body of an echo request or reply."""
    return b"\0\1" + number.to_bytes(2, "big") + payload


def _from_a(*frames: bytes) -> list[Step]:
    return [(PORT_A, frame) for frame in frames]


_ANSWER: Final[Values] = {"tp_src": 80, "tp_dst": 40000}
_DNS_ANSWER: Final[Values] = {"tp_src": 53, "tp_dst": 40000}

SCENARIOS: Final[dict[str, list[Step]]] = {
    "tcp from handshake to a new one": [
        (PORT_A, build_tcp4(**A_TO_B)),
        (PORT_A, build_tcp4(**A_TO_B)),
        (PORT_B, build_tcp4(**B_TO_A, **_ANSWER, flags=SYN | ACK)),
        (PORT_A, build_tcp4(**A_TO_B, flags=ACK)),
        (PORT_A, build_tcp4(**A_TO_B, flags=FIN | ACK)),
        (PORT_B, build_tcp4(**B_TO_A, **_ANSWER, flags=FIN | ACK)),
        (PORT_A, build_tcp4(**A_TO_B, flags=ACK)),
        (PORT_A, build_tcp4(**A_TO_B)),
        (PORT_B, build_tcp4(**B_TO_A, **_ANSWER, flags=RST | ACK)),
        (PORT_A, build_tcp4(**A_TO_B, flags=ACK)),
    ],
    "tcp of flags that open nothing": _from_a(
        *(
            build_tcp4(**A_TO_B, tp_src=1000 + flags, flags=flags)
            for flags in (0, FIN, PSH, SYN | FIN, SYN | RST, SYN | ACK, RST, ACK, FIN | ACK)
        )
    ),
    "tcp in ipv6": [
        (PORT_A, build_tcp6(**A_TO_B6)),
        (PORT_B, build_tcp6(**B_TO_A6, **_ANSWER, flags=SYN | ACK)),
        (PORT_A, build_tcp6(**A_TO_B6, flags=ACK)),
    ],
    "denied and unknown": _from_a(
        build_tcp4(**A_TO_B, tp_dst=22),
        build_tcp4(**A_TO_B, tp_dst=81),
        build_tcp6(**A_TO_B6, tp_dst=22),
        build_udp6(**A_TO_B6, tp_dst=123),
        build_ipv4_raw(99, b"12345678", **A_TO_B),
    ),
    "udp": [
        (PORT_A, build_udp4(**A_TO_B, payload=b"question")),
        (PORT_A, build_udp4(**A_TO_B, payload=b"question")),
        (PORT_B, build_udp4(**B_TO_A, **_DNS_ANSWER, payload=b"answer")),
        (PORT_A, build_udp4(**A_TO_B, payload=b"question")),
        (PORT_B, build_udp4(**B_TO_A, tp_src=53, tp_dst=40001)),
        (PORT_A, build_udp6(**A_TO_B6, extensions=[hop_by_hop()])),
        (PORT_B, build_udp6(**B_TO_A6, **_DNS_ANSWER)),
    ],
    "echo": [
        (PORT_B, build_icmp4(**B_TO_A, icmp_type=0, body=echo(7))),
        (PORT_A, build_icmp4(**A_TO_B, body=echo(1))),
        (PORT_A, build_icmp4(**A_TO_B, body=echo(2))),
        (PORT_B, build_icmp4(**B_TO_A, icmp_type=0, body=echo(1))),
        (PORT_A, build_icmp4(**A_TO_B, icmp_code=1, body=echo(1))),
        (PORT_A, build_icmp4(**A_TO_B, icmp_type=13, body=echo(1))),
        (PORT_A, build_icmp6(**A_TO_B6, body=echo(1))),
        (PORT_B, build_icmp6(**B_TO_A6, icmp_type=129, body=echo(1))),
        (PORT_A, build_icmp6(**A_TO_B6, icmp_code=1, body=echo(1))),
    ],
    "icmp errors": [
        (PORT_A, build_udp4(**A_TO_B)),
        (PORT_B, build_icmp4(**B_TO_A, icmp_type=3, body=quoting(build_udp4(**A_TO_B), 28))),
        (PORT_B, build_icmp4(**B_TO_A, icmp_type=3, body=quoting(build_udp4(**A_TO_B), 27))),
        (PORT_B, build_icmp4(**B_TO_A, icmp_type=3, body=quoting(build_tcp4(**A_TO_B), 40))),
        (PORT_B, build_udp4(**B_TO_A, **_DNS_ANSWER)),
        (
            PORT_A,
            build_icmp4(
                **A_TO_B, icmp_type=3, body=quoting(build_udp4(**B_TO_A, **_DNS_ANSWER), 28)
            ),
        ),
        (PORT_A, build_tcp6(**A_TO_B6)),
        (PORT_B, build_icmp6(**B_TO_A6, icmp_type=2, body=quoting(build_tcp6(**A_TO_B6), 60))),
        (PORT_B, build_icmp6(**B_TO_A6, icmp_type=2, body=quoting(build_tcp6(**A_TO_B6), 48))),
    ],
    "protocols without conntrack": _from_a(
        build_sctp4(**A_TO_B),
        build_sctp4(**A_TO_B, tp_dst=1),
        build_sctp6(**A_TO_B6),
        build_ipv4_raw(47, b"12345678", **A_TO_B),
    ),
    "arp": _from_a(
        build_arp(),
        padded(build_arp(tpa=GATEWAY4)),
        build_arp(tpa=IP4_NOBODY),
        build_arp(tpa="10.0.0.70"),
        build_arp(opcode=2),
        build_arp(vlan=5),
    ),
    "neighbor discovery": _from_a(
        build_ns(),
        build_ns(target=GATEWAY6),
        build_ns(target=IP6_NOBODY),
        build_ns(target="fd00::70"),
        build_ns(src="::", link_layer=None),
        build_ns(link_layer=None),
        build_ns(dst=IP6_B),
        build_na(),
        build_icmp6(**A_TO_B6, icmp_type=133),
    ),
    "gateway": _from_a(
        build_icmp4(**A_TO_GATEWAY, body=echo(1, b"payload"), ttl=1),
        build_icmp6(**A_TO_GATEWAY6, body=echo(1, b"payload")),
        build_tcp4(**A_TO_GATEWAY),
    ),
    "routed": [
        *_from_a(
            build_tcp4(**A_TO_D),
            build_tcp4(**A_TO_D, ttl=2, tp_src=2),
            build_tcp4(**A_TO_D, ttl=1, tp_src=1),
            build_tcp6(**A_TO_D6),
            build_tcp6(**A_TO_D6, ttl=1),
            build_tcp4(**A_TO_B2),
            build_tcp4(**(A_TO_GATEWAY | {"dst": IP4_NOBODY})),
        ),
        (
            PORT_B,
            build_tcp4(
                src=IP4_B2,
                dst=IP4_A,
                eth_src=MAC_B,
                eth_dst=GATEWAY_MAC,
                **_ANSWER,
                flags=SYN | ACK,
            ),
        ),
    ],
    "to another host": _from_a(build_tcp4(**A_TO_C), build_udp6(**A_TO_C6)),
    "spoofed": _from_a(
        build_tcp4(**(A_TO_B | {"src": "10.0.0.50"})),
        build_tcp4(**(A_TO_B | {"eth_src": MAC_C})),
        build_udp4(
            src="0.0.0.0",
            dst="255.255.255.255",
            tp_src=68,
            tp_dst=67,
            eth_src=MAC_A,
            eth_dst=MAC_BROADCAST,
        ),
    ),
    "padding": _from_a(padded(build_tcp4(**A_TO_B)), padded(build_udp4(**A_TO_B))),
    "fragments in order": _from_a(*fragments4(A_TO_B, tp_dst=53)),
    "fragments, the last first": _from_a(*reversed(fragments4(A_TO_B, tp_dst=53))),
    "fragments in ipv6": _from_a(*fragments6(A_TO_B6, tp_dst=53)),
    "fragments of a routed datagram": _from_a(*fragments4(A_TO_B2, tp_dst=53)),
    "fragments without a verdict": _from_a(*fragments4(A_TO_B, tp_dst=54)),
    "fragments of two datagrams": [
        step
        for pair in zip(
            _from_a(*fragments4(A_TO_B, tp_dst=53, number=1)),
            _from_a(*fragments4(A_TO_B, tp_dst=53, number=2)),
            strict=True,
        )
        for step in pair
    ],
    "fragments that are too short": _from_a(*fragments4(A_TO_B, tp_dst=53, piece=800)),
    "a fragment is missing": _from_a(*fragments4(A_TO_B, tp_dst=53)[:-1]),
}

"""Flows as they come about: from a packet-in and a frame, through ``flow_of``."""

from __future__ import annotations

from ondemand.addresses import parse_ip
from ondemand.flow import Flow, flow_of
from ondemand.frames import ETH_IPV4, ETH_IPV6, Fragment, Frame, Kind
from ondemand.messages import PacketIn
from ondemand.pipeline import TRACKED
from ondemand.records import Direction
from rule_cache.fields import CtState

LOCAL4, LOCAL6 = "10.0.0.11", "fd00::11"


def ip_frame(
    src: bytes,
    dst: bytes,
    protocol: int,
    first: int = 0,
    second: int = 0,
    *,
    fragment: Fragment = Fragment.NOT_FRAGMENT,
) -> Frame:
    """The parsed form of an IP packet: ports, or ICMP type and code."""
    v4 = len(src) == 4
    return Frame(
        kind=Kind.IPV4 if v4 else Kind.IPV6,
        eth_dst=b"\xfa\x16\x3e\0\0\x01",
        eth_src=b"\xfa\x16\x3e\0\0\x02",
        vlan=-1,
        eth_type=ETH_IPV4 if v4 else ETH_IPV6,
        src=src,
        dst=dst,
        proto=protocol,
        tp_src=first,
        tp_dst=second,
        fragment=fragment,
        ttl=64,
    )


def make_flow(
    direction: str | Direction,
    remote: str | bytes,
    protocol: int,
    first: int = 0,
    second: int = 0,
    *,
    local: str | bytes | None = None,
    reply: bool = False,
) -> Flow:
    """The flow of a connection's packet at a port.

    ``direction`` is the connection's, seen from the port; ``first`` and ``second`` are source and
    destination port of its first packet, or ICMP type and code. ``reply``: the packet is one that
    comes back, which only a protocol that conntrack follows has.
    """
    began = Direction[direction.upper()] if isinstance(direction, str) else direction
    far = parse_ip(remote) if isinstance(remote, str) else remote
    if local is None:
        local = LOCAL4 if len(far) == 4 else LOCAL6
    near = parse_ip(local) if isinstance(local, str) else local
    src, dst = (near, far) if began is Direction.EGRESS else (far, near)
    tracked = protocol in TRACKED[4 if len(far) == 4 else 6]
    if reply and not tracked:
        raise ValueError(f"protocol {protocol} has no replies: each packet is judged by itself")
    packet = PacketIn(table=30, in_port=1, data=b"")
    if tracked:
        packet = PacketIn(
            table=30,
            in_port=1,
            data=b"",
            ct_state=CtState.TRK | (CtState.EST | CtState.RPL if reply else CtState.NEW),
            ct_src=src,
            ct_dst=dst,
            ct_proto=protocol,
            ct_tp_src=first,
            ct_tp_dst=second,
        )
    frame = ip_frame(dst, src, protocol) if reply else ip_frame(src, dst, protocol, first, second)
    flow = flow_of(packet, frame, Direction(began ^ reply))
    if isinstance(flow, Flow):
        return flow
    raise ValueError(f"no flow: {flow}")

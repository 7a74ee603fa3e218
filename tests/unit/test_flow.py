"""From a packet-in to the flow that policy judges."""

from __future__ import annotations

import pytest

from ondemand.addresses import parse_ip
from ondemand.flow import Flow, NoFlow, flow_of, stateless_flow
from ondemand.frames import Fragment, Frame, Kind, parse
from ondemand.messages import PacketIn
from ondemand.pipeline import L4
from ondemand.records import Direction
from rule_cache.fields import CtState
from tests.support.flow_builder import ip_frame, make_flow
from tests.support.frame_builder import build_arp, build_icmp4, build_sctp4, build_tcp4, build_tcp6

OUT, IN = Direction.EGRESS, Direction.INGRESS
LOCAL, REMOTE = parse_ip("10.0.0.11"), parse_ip("10.0.0.99")
LOCAL6, REMOTE6 = parse_ip("fd00::11"), parse_ip("fd00::99")
TRK, NEW, EST, RPL, INV, REL = (
    CtState.TRK,
    CtState.NEW,
    CtState.EST,
    CtState.RPL,
    CtState.INV,
    CtState.REL,
)
TCP, UDP, ICMP, ICMPV6, SCTP, GRE = 6, 17, 1, 58, 132, 47


def _tracked(
    state: int, src: bytes, dst: bytes, protocol: int, first: int, second: int
) -> PacketIn:
    return PacketIn(
        table=30,
        in_port=1,
        data=b"",
        ct_state=TRK | state,
        ct_src=src,
        ct_dst=dst,
        ct_proto=protocol,
        ct_tp_src=first,
        ct_tp_dst=second,
    )


UNTRACKED = PacketIn(table=30, in_port=1, data=b"")


def test_a_packet_that_the_port_begins_with() -> None:
    packet = _tracked(NEW, LOCAL, REMOTE, TCP, 40000, 80)
    frame = parse(build_tcp4(src="10.0.0.11", dst="10.0.0.99", tp_src=40000, tp_dst=80))
    flow = flow_of(packet, frame, OUT)
    assert flow == Flow(
        direction=OUT,
        family=4,
        local=LOCAL,
        remote=REMOTE,
        protocol=TCP,
        first=40000,
        second=80,
        reply=False,
        l4=L4.PORT,
    )
    assert flow.table_direction is OUT


@pytest.mark.parametrize(
    ("began", "reply", "at"),
    [(OUT, False, OUT), (OUT, True, IN), (IN, False, IN), (IN, True, OUT)],
)
def test_a_packet_of_either_direction_is_judged_by_the_original_one(
    began: Direction, *, reply: bool, at: Direction
) -> None:
    src, dst = (LOCAL6, REMOTE6) if began is OUT else (REMOTE6, LOCAL6)
    packet = _tracked(EST | (RPL if reply else 0), src, dst, UDP, 1000, 53)
    # The packet at hand has its own headers, which for a reply are the other way round.
    frame = ip_frame(dst, src, UDP, 53, 1000) if reply else ip_frame(src, dst, UDP, 1000, 53)
    flow = flow_of(packet, frame, at)
    assert isinstance(flow, Flow)
    assert (flow.direction, flow.family, flow.reply) == (began, 6, reply)
    assert (flow.local, flow.remote) == (LOCAL6, REMOTE6)
    assert (flow.first, flow.second) == (1000, 53)
    assert flow.table_direction is at


def test_an_icmp_error_is_judged_as_the_connection_that_it_is_about() -> None:
    """A router far away answers the port's TCP connection with "unreachable"."""
    packet = _tracked(REL | RPL, LOCAL, REMOTE, TCP, 40000, 80)
    frame = parse(build_icmp4(src="192.0.2.7", dst="10.0.0.11", icmp_type=3, icmp_code=1))
    flow = flow_of(packet, frame, IN)
    assert flow == make_flow("egress", REMOTE, TCP, 40000, 80, local=LOCAL, reply=True)


def test_an_echo_has_type_and_code() -> None:
    flow = flow_of(
        _tracked(NEW, REMOTE, LOCAL, ICMP, 8, 0), ip_frame(REMOTE, LOCAL, ICMP, 8, 0), IN
    )
    assert isinstance(flow, Flow)
    assert (flow.l4, flow.first, flow.second) == (L4.ICMP, 8, 0)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (_tracked(INV, LOCAL, REMOTE, TCP, 1, 2), NoFlow.INVALID_STATE),
        (_tracked(INV | NEW, b"", b"", 0, 0, 0), NoFlow.INVALID_STATE),
        (_tracked(NEW, b"", b"", 0, 0, 0), NoFlow.INVALID_STATE),
        (_tracked(NEW, LOCAL, REMOTE, SCTP, 1, 2), NoFlow.INVALID_STATE),
        (_tracked(NEW, LOCAL, REMOTE, GRE, 0, 0), NoFlow.INVALID_STATE),
        (_tracked(NEW, LOCAL, REMOTE, ICMPV6, 128, 0), NoFlow.INVALID_STATE),
        (_tracked(NEW, LOCAL6, REMOTE6, ICMP, 8, 0), NoFlow.INVALID_STATE),
    ],
)
def test_a_state_that_tells_no_connection_makes_no_flow(packet: PacketIn, reason: NoFlow) -> None:
    assert flow_of(packet, ip_frame(LOCAL, REMOTE, TCP, 1, 2), OUT) is reason


def test_a_later_fragment_of_a_tracked_packet_makes_no_flow() -> None:
    frame = ip_frame(LOCAL, REMOTE, UDP, fragment=Fragment.LATER)
    packet = _tracked(NEW, LOCAL, REMOTE, UDP, 1, 2)
    assert flow_of(packet, frame, OUT) is NoFlow.LATER_FRAGMENT
    first = ip_frame(LOCAL, REMOTE, UDP, 1, 2, fragment=Fragment.FIRST)
    assert isinstance(flow_of(packet, first, OUT), Flow)


@pytest.mark.parametrize(("at", "local", "remote"), [(OUT, LOCAL, REMOTE), (IN, REMOTE, LOCAL)])
def test_a_packet_that_never_met_conntrack_is_judged_by_its_headers(
    at: Direction, local: bytes, remote: bytes
) -> None:
    frame = parse(build_sctp4(src="10.0.0.11", dst="10.0.0.99", tp_src=9, tp_dst=3868))
    flow = flow_of(UNTRACKED, frame, at)
    assert flow == Flow(
        direction=at,
        family=4,
        local=local,
        remote=remote,
        protocol=SCTP,
        first=9,
        second=3868,
        reply=False,
        l4=L4.SCTP,
    )
    assert flow.table_direction is at


@pytest.mark.parametrize(
    ("src", "dst", "protocol", "l4"),
    [
        (LOCAL, REMOTE, GRE, L4.NONE),
        (LOCAL6, REMOTE6, GRE, L4.NONE),
        (LOCAL, REMOTE, ICMPV6, L4.NONE),
        (LOCAL6, REMOTE6, ICMP, L4.NONE),
        (LOCAL, REMOTE, 0, L4.NONE),
    ],
)
def test_a_protocol_without_ports_has_none(src: bytes, dst: bytes, protocol: int, l4: L4) -> None:
    frame = ip_frame(src, dst, protocol, -1, -1)
    flow = stateless_flow(frame, OUT)
    assert isinstance(flow, Flow)
    assert (flow.protocol, flow.first, flow.second, flow.l4) == (protocol, 0, 0, l4)
    assert flow.family == (4 if len(src) == 4 else 6)


@pytest.mark.parametrize(
    ("src", "dst", "protocol", "is_flow"),
    [
        (LOCAL, REMOTE, GRE, True),
        (LOCAL, REMOTE, SCTP, False),
        (LOCAL6, REMOTE6, GRE, False),
        (LOCAL6, REMOTE6, SCTP, False),
    ],
)
def test_a_later_fragment_makes_a_flow_only_where_a_rule_could_match_it(
    src: bytes, dst: bytes, protocol: int, *, is_flow: bool
) -> None:
    frame = ip_frame(src, dst, protocol, -1, -1, fragment=Fragment.LATER)
    flow = stateless_flow(frame, OUT)
    assert isinstance(flow, Flow) if is_flow else flow is NoFlow.LATER_FRAGMENT


@pytest.mark.parametrize(
    "frame",
    [
        parse(build_arp(spa="10.0.0.11", tpa="10.0.0.99")),
        Frame(kind=Kind.OTHER, eth_dst=bytes(6), eth_src=bytes(6), vlan=-1, eth_type=0x88CC),
    ],
)
def test_what_is_not_ip_makes_no_flow(frame: Frame) -> None:
    assert stateless_flow(frame, OUT) is NoFlow.NOT_IP


def test_ipv6_packets_have_ipv6_addresses() -> None:
    frame = parse(build_tcp6(src="fd00::11", dst="fd00::99", tp_src=1, tp_dst=2))
    flow = stateless_flow(frame, IN)
    assert isinstance(flow, Flow)
    assert (flow.family, flow.local, flow.remote, flow.l4) == (6, REMOTE6, LOCAL6, L4.PORT)

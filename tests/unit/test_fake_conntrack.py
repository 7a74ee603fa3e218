"""Connection tracking of the fake switch, fragments included."""

from typing import Any

import pytest

from ondemand.addresses import parse_ip
from ondemand.messages import PacketIn
from ondemand.pipeline import Table
from rule_cache.fields import Field
from rule_cache.rule import (
    Ct,
    Eq,
    Output,
    Resubmit,
    SetField,
    ToController,
)
from tests.support.fake_switch import (
    Delivered,
    FakeSwitch,
    Held,
)
from tests.support.frame_builder import (
    IP4_A,
    IP4_B,
    build_icmp4,
    build_icmp6,
    build_tcp4,
    build_udp4,
)
from tests.support.packet_parts import ACK, FIN, RST, SYN
from tests.support.switch_bricks import (
    EST,
    INV,
    IPV4,
    NEW,
    PIPELINE,
    REL,
    RPL,
    TRK,
    rule,
    switch_with,
    two_port_switch,
)
from tests.support.two_port_traffic import (
    A_TO_B,
    B_TO_A,
    Values,
    fragments4,
    quoting,
)
from tests.support.two_ports import (
    EPOCH,
    PORT_A,
    ZONE_A,
    ZONE_B,
)

# Conntrack -----------------------------------------------------------------------------------------

COMMIT = 50


def tracker(**options: Any) -> FakeSwitch:
    """Port 1 and 2 talk through zone 9; each packet is told of before it is committed or dropped."""
    valid = Eq(Field.CT_STATE, TRK, TRK | INV)
    return switch_with(
        rule(SetField(Field.REG6, 9), Ct(zone=Field.REG6, table=20)),
        rule(ToController(), Resubmit(COMMIT), table=20),
        rule(
            SetField(Field.REG4, EPOCH),
            Ct(zone=Field.REG6, commit=True, mark=Field.REG4),
            Resubmit(60),
            table=COMMIT,
            match=(valid, IPV4),
        ),
        rule(table=COMMIT, priority=1),
        rule(Output(2), table=60, match=(Eq(Field.IN_PORT, 1),)),
        rule(Output(1), table=60, match=(Eq(Field.IN_PORT, 2),)),
        **options,
    )


def states(switch: FakeSwitch, *steps: tuple[int, bytes], now_s: float | None = None) -> list[int]:
    found = []
    for port, frame in steps:
        packets = [out for out in switch.inject(port, frame, now_s) if isinstance(out, PacketIn)]
        found += [packet.ct_state & ~TRK for packet in packets]
    return found


ANSWER: Values = {"tp_src": 80, "tp_dst": 40000}


def test_tcp_states() -> None:
    switch = tracker()
    syn, ack = (1, build_tcp4(**A_TO_B)), (1, build_tcp4(**A_TO_B, flags=ACK))
    syn_ack = (2, build_tcp4(**B_TO_A, **ANSWER, flags=SYN | ACK))
    fin = (1, build_tcp4(**A_TO_B, flags=FIN | ACK))
    fin_back = (2, build_tcp4(**B_TO_A, **ANSWER, flags=FIN | ACK))
    assert states(switch, syn, syn, syn_ack, ack) == [NEW, NEW, EST | RPL, EST]
    assert states(switch, fin, fin_back, ack, syn) == [EST, EST | RPL, EST, NEW]


def test_tcp_that_is_not_a_syn_is_established_before_the_answer() -> None:
    syn, ack = (1, build_tcp4(**A_TO_B)), (1, build_tcp4(**A_TO_B, flags=ACK))
    assert states(tracker(), syn, ack) == [NEW, EST]


def test_tcp_is_picked_up_in_the_middle_but_not_half_open() -> None:
    ack = (1, build_tcp4(**A_TO_B, flags=ACK))
    assert states(tracker(), ack, ack) == [NEW, EST]
    assert states(tracker(), (1, build_tcp4(**A_TO_B, flags=RST))) == [NEW]
    for flags in (SYN | ACK, 0, FIN, SYN | FIN, SYN | RST):
        assert states(tracker(), (1, build_tcp4(**A_TO_B, flags=flags))) == [INV]


def test_a_reset_lets_the_same_ports_begin_anew() -> None:
    switch = tracker()
    syn = (1, build_tcp4(**A_TO_B))
    reset = (2, build_tcp4(**B_TO_A, **ANSWER, flags=RST | ACK))
    assert states(switch, syn, reset, syn) == [NEW, EST | RPL, NEW]


def test_udp_is_new_until_it_is_answered() -> None:
    switch = tracker()
    question = (1, build_udp4(**A_TO_B))
    answer = (2, build_udp4(**B_TO_A, tp_src=53, tp_dst=40000))
    assert states(switch, question, question, answer, question) == [NEW, NEW, EST | RPL, EST]


def test_what_was_not_committed_stays_new_in_both_directions() -> None:
    switch = switch_with(
        rule(Ct(zone=Field.REG6, table=20)),
        rule(ToController(), table=20),
    )
    question = (1, build_udp4(**A_TO_B))
    answer = (2, build_udp4(**B_TO_A, tp_src=53, tp_dst=40000))
    assert states(switch, question, answer, question) == [NEW, NEW, NEW]


def test_echo_goes_by_its_id() -> None:
    switch = tracker()
    request = (1, build_icmp4(**A_TO_B, body=b"\0\1\0\1"))
    reply = (2, build_icmp4(**B_TO_A, icmp_type=0, body=b"\0\1\0\2"))
    other_id = (2, build_icmp4(**B_TO_A, icmp_type=0, body=b"\0\2\0\1"))
    assert states(switch, reply, request, reply, other_id) == [INV, NEW, EST | RPL, INV]
    assert states(switch, (1, build_icmp4(**A_TO_B, icmp_code=1))) == [INV]


@pytest.mark.parametrize("icmp_type", [133, 134, 135, 136, 137, 143, 129])
def test_icmpv6_that_is_no_query_is_invalid(icmp_type: int) -> None:
    assert states(tracker(), (1, build_icmp6(icmp_type=icmp_type, body=bytes(20)))) == [INV]


def test_an_error_is_related_to_what_it_quotes() -> None:
    switch = tracker()
    question = build_udp4(**A_TO_B)
    error = (2, build_icmp4(**B_TO_A, icmp_type=3, icmp_code=3, body=quoting(question, 28)))
    stranger = build_udp4(**A_TO_B, tp_dst=54)
    strange = (2, build_icmp4(**B_TO_A, icmp_type=3, body=quoting(stranger, 28)))
    assert states(switch, error, (1, question), error, strange) == [INV, NEW, REL | RPL, INV]
    (packet, *_) = switch.inject(*error)
    assert isinstance(packet, PacketIn)
    assert (packet.ct_proto, packet.ct_tp_src, packet.ct_tp_dst) == (17, 40000, 53)
    assert packet.ct_mark == EPOCH


def test_the_tuple_of_a_reply_is_the_original_one() -> None:
    switch = tracker()
    switch.inject(1, build_udp4(**A_TO_B))
    (packet, *_) = switch.inject(2, build_udp4(**B_TO_A, tp_src=53, tp_dst=40000))
    assert isinstance(packet, PacketIn)
    assert (packet.ct_src, packet.ct_dst) == (parse_ip(IP4_A), parse_ip(IP4_B))
    assert (packet.ct_tp_src, packet.ct_tp_dst, packet.ct_mark) == (40000, 53, EPOCH)


def test_a_wrong_checksum_is_invalid() -> None:
    for at in (24, 37, 41):  # IP header, UDP length, UDP checksum
        frame = bytearray(build_udp4(**A_TO_B))
        frame[at] ^= 0x41
        assert states(tracker(), (1, bytes(frame))) == [INV]


def test_zones_do_not_see_each_other() -> None:
    switch = two_port_switch()
    switch.inject(PORT_A, build_udp4(**A_TO_B))
    zones = [zone for zone, _ in switch.conntrack.connections(0.0)]
    assert zones == [ZONE_A, ZONE_B]


def test_connections_end_with_time() -> None:
    switch = tracker()
    question = (1, build_udp4(**A_TO_B))
    answer = (2, build_udp4(**B_TO_A, tp_src=53, tp_dst=40000))
    assert states(switch, question, now_s=0.0) == [NEW]
    assert states(switch, answer, now_s=59.0) == [EST | RPL]
    assert states(switch, answer, now_s=88.0) == [EST | RPL]
    assert states(switch, answer, now_s=118.0) == [NEW]


# Fragments -----------------------------------------------------------------------------------------


def test_fragments_wait_for_each_other_and_stay_fragments() -> None:
    switch = two_port_switch()
    first, second, third = fragments4(A_TO_B, tp_dst=53)
    entry = PIPELINE.number(Table.EGRESS_ENTRY)
    assert switch.inject(PORT_A, third) == [Held(entry, ZONE_A)]
    assert switch.inject(PORT_A, first) == [Held(entry, ZONE_A)]
    out = [item.frame for item in switch.inject(PORT_A, second) if isinstance(item, Delivered)]
    assert out == [first, second, third]


def test_later_fragments_have_no_ports_and_wait_for_a_verdict() -> None:
    switch = two_port_switch()
    *held, last = fragments4(A_TO_B, tp_dst=54)
    for frame in held:
        switch.inject(PORT_A, frame)
    packet, *waiting = switch.inject(PORT_A, last)
    assert isinstance(packet, PacketIn)
    assert packet.ct_tp_dst == 54
    assert waiting == [Held(PIPELINE.number(Table.EGRESS_VERDICT), ZONE_A)] * 2


def test_fragments_that_waited_in_vain_come_out_in_the_place_of_another_packet() -> None:
    """Their state is +inv without +trk, and port and registers are those of the packet that came."""
    switch = tracker()
    first, second, third = fragments4(A_TO_B, tp_dst=53)
    switch.inject(1, first, 0.0)
    switch.inject(1, second, 10.0)
    assert [type(out) for out in switch.inject(1, build_udp4(**A_TO_B), 14.9)] == [
        PacketIn,
        Delivered,
    ]
    outcomes = switch.inject(2, build_udp4(**B_TO_A, tp_src=53, tp_dst=40000), 15.0)
    strays = [out for out in outcomes if isinstance(out, PacketIn) and out.ct_state == INV]
    assert [(stray.data, stray.in_port) for stray in strays] == [(first, 2), (second, 2)]
    assert [type(out) for out in switch.inject(1, third, 16.0)] == [Held]


def test_a_short_fragment_that_is_not_the_last_is_invalid() -> None:
    first, *_ = fragments4(A_TO_B, tp_dst=53, piece=800)
    assert states(tracker(), (1, first)) == [INV]

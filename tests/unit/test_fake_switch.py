"""The fake switch: lookup, actions, and what the pipeline's rules make of packets."""

import pytest

from ondemand.addresses import parse_ip, parse_mac
from ondemand.frames import parse
from ondemand.messages import Effects, PacketIn
from ondemand.pipeline import Pipeline, Table
from rule_cache.fields import Field
from rule_cache.rule import (
    DecTtl,
    Eq,
    Move,
    Output,
    OutputInPort,
    Resubmit,
    SetField,
    ToController,
)
from tests.support.fake_switch import (
    AmbiguousMatchError,
    Delivered,
    Dropped,
    FakeSwitch,
    Tunnelled,
)
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
    build_na,
    build_ns,
    build_tcp4,
    build_udp4,
    padded,
)
from tests.support.packet_parts import internet_checksum
from tests.support.switch_bricks import (
    IPV4,
    NEW,
    PIPELINE,
    TRK,
    deliveries,
    rule,
    switch_with,
    two_port_switch,
)
from tests.support.two_port_traffic import (
    A_TO_B,
    A_TO_C,
    A_TO_D,
    A_TO_GATEWAY,
    A_TO_GATEWAY6,
    Values,
    echo,
)
from tests.support.two_ports import (
    GATEWAY4,
    GATEWAY6,
    GATEWAY_MAC,
    HOST_C,
    MAC_C,
    MAC_D,
    PORT_A,
    PORT_B,
    TUNNEL_PORT,
    VNI,
    all_rules,
    install,
)

# Lookup --------------------------------------------------------------------------------------------


def test_the_highest_priority_decides() -> None:
    switch = switch_with(
        rule(Output(2), priority=1),
        rule(Output(3), match=(IPV4, Eq(Field.IPV4_DST, parse_ip(IP4_B)))),
    )
    assert deliveries(switch.inject(1, build_udp4())) == [(3, build_udp4())]
    assert deliveries(switch.inject(1, build_arp())) == [(2, build_arp())]


def test_masks_leave_bits_out() -> None:
    match = (IPV4, Eq(Field.IPV4_SRC, parse_ip("10.0.0.0"), parse_ip("255.255.255.0")))
    switch = switch_with(rule(Output(2), match=match))
    assert deliveries(switch.inject(1, build_udp4())) == [(2, build_udp4())]
    assert switch.inject(1, build_udp4(src="10.0.1.1")) == [Dropped(0, "no rule")]


def test_no_rule_is_a_drop_and_so_is_a_rule_without_actions() -> None:
    assert FakeSwitch([1]).inject(1, build_udp4()) == [Dropped(0, "no rule")]
    assert switch_with(rule()).inject(1, build_udp4()) == [Dropped(0, "sample")]


def test_two_rules_that_a_packet_could_meet_are_an_error() -> None:
    switch = switch_with(
        rule(Output(2), match=(IPV4,)), rule(Output(3), match=(Eq(Field.IN_PORT, 1),))
    )
    with pytest.raises(AmbiguousMatchError, match=r"output:2 and .*output:3"):
        switch.inject(1, build_udp4())
    assert deliveries(switch.inject(1, build_arp())) == [(3, build_arp())]


def test_two_rules_that_do_the_same_are_no_error() -> None:
    switch = switch_with(
        rule(Output(2), match=(IPV4,)), rule(Output(2), match=(Eq(Field.IN_PORT, 1),))
    )
    assert deliveries(switch.inject(1, build_udp4())) == [(2, build_udp4())]


def test_packets_begin_at_the_block_of_the_pipeline() -> None:
    pipeline = Pipeline(100)
    switch = FakeSwitch(
        [PORT_A, PORT_B],
        tunnel_ports={4: TUNNEL_PORT},
        first_table=pipeline.number(Table.CLASSIFY),
    )
    assert switch.apply(install(all_rules(pipeline))).refused == ()
    assert deliveries(switch.inject(PORT_A, build_udp4(**A_TO_B))) == [(2, build_udp4(**A_TO_B))]


# Actions -------------------------------------------------------------------------------------------


def test_registers_go_along_and_resubmit_returns() -> None:
    switch = switch_with(
        rule(SetField(Field.REG6, 7), Resubmit(5), Output(3)),
        rule(Output(2), table=5, match=(Eq(Field.REG6, 7),)),
    )
    assert [port for port, _ in deliveries(switch.inject(1, build_udp4()))] == [2, 3]


def test_resubmits_in_a_circle_end() -> None:
    outcomes = switch_with(rule(Resubmit(0))).inject(1, build_udp4())
    assert outcomes == [Dropped(0, "too many resubmits")]


def test_output_to_the_input_port_needs_in_port() -> None:
    frame = build_udp4()
    assert switch_with(rule(Output(1))).inject(1, frame) == [Dropped(0, "output to its input port")]
    assert switch_with(rule(OutputInPort())).inject(1, frame) == [Delivered(1, frame)]


def test_output_to_a_port_that_is_not_there() -> None:
    switch = switch_with(rule(Output(2)))
    switch.remove_port(2)
    assert switch.inject(1, build_udp4()) == [Dropped(0, "no port 2")]
    switch.add_port(2)
    assert deliveries(switch.inject(1, build_udp4())) == [(2, build_udp4())]


@pytest.mark.parametrize(("ttl", "left"), [(64, 63), (2, 1), (1, None), (0, None)])
def test_the_ttl_ends_at_one(ttl: int, left: int | None) -> None:
    outcomes = switch_with(rule(DecTtl(), Output(2))).inject(1, build_udp4(ttl=ttl))
    if left is None:
        assert outcomes == [Dropped(0, "TTL")]
    else:
        assert deliveries(outcomes) == [(2, build_udp4(ttl=left))]


def test_addresses_change_with_their_checksums() -> None:
    switch = switch_with(
        rule(
            SetField(Field.IPV4_SRC, parse_ip("192.0.2.7")),
            SetField(Field.ETH_DST, parse_mac(MAC_C)),
            Output(2),
            match=(IPV4,),
        )
    )
    changed: Values = {"src": "192.0.2.7", "eth_dst": MAC_C}
    for build in (build_tcp4, build_udp4):
        assert deliveries(switch.inject(1, build())) == [(2, build(**changed))]
    no_checksum = build_udp4()[:40] + b"\0\0"
    ((_, frame),) = deliveries(switch.inject(1, no_checksum))
    assert frame[40:42] == b"\0\0"
    assert internet_checksum(frame[14:34]) == 0


def test_a_wrong_checksum_stays_wrong() -> None:
    switch = switch_with(rule(SetField(Field.IPV4_SRC, parse_ip("192.0.2.7")), Output(2)))
    good, frame = build_tcp4(), bytearray(build_tcp4())
    frame[-4] ^= 1
    ((_, right),) = deliveries(switch.inject(1, good))
    ((_, wrong),) = deliveries(switch.inject(1, bytes(frame)))
    assert [a ^ b for a, b in zip(right, wrong, strict=True) if a != b] == [1]


def test_move_swaps_nothing() -> None:
    switch = switch_with(rule(Move(Field.ETH_SRC, Field.ETH_DST), Output(2)))
    assert deliveries(switch.inject(1, build_udp4())) == [(2, build_udp4(eth_dst=MAC_A))]


def test_a_packet_in_tells_table_cookie_and_registers() -> None:
    switch = switch_with(
        rule(
            SetField(Field.REG5, 5), SetField(Field.REG6, 6), SetField(Field.REG7, 7), Resubmit(4)
        ),
        rule(ToController(), table=4),
    )
    (packet,) = switch.inject(3, build_udp4())
    assert isinstance(packet, PacketIn)
    assert (packet.table, packet.cookie, packet.in_port) == (4, 2, 3)
    assert (packet.vni, packet.source_zone, packet.target_zone) == (5, 6, 7)
    assert (packet.ct_state, packet.ct_src, packet.data) == (0, b"", build_udp4())


def test_tunnel_ports_give_vni_and_host() -> None:
    switch = FakeSwitch([1], tunnel_ports={4: 8, 6: 9})
    to_v4 = (SetField(Field.TUN_ID, 77), SetField(Field.TUN_DST, parse_ip("192.0.2.9")), Output(8))
    v6 = parse_ip("2001:db8::9")
    to_v6 = (SetField(Field.TUN_ID, 78), SetField(Field.TUN_IPV6_DST, v6), Output(9))
    adds = [
        (1, rule(*to_v4, match=(IPV4,))),
        (2, rule(*to_v6, match=(Eq(Field.ETH_TYPE, 0x86DD),))),
        (3, rule(Output(8), match=(Eq(Field.ETH_TYPE, 0x0806),))),
    ]
    assert switch.apply(Effects(adds=adds)).refused == ()
    assert switch.inject(1, build_udp4()) == [Tunnelled(77, parse_ip("192.0.2.9"), build_udp4())]
    assert switch.inject(1, build_icmp6()) == [Tunnelled(78, v6, build_icmp6())]
    assert switch.inject(1, build_arp()) == [Dropped(0, "no tunnel destination")]


def test_a_frame_from_a_tunnel_has_its_vni_and_no_way_back_into_it() -> None:
    switch = FakeSwitch([1], tunnel_ports={4: 8})
    match = (Eq(Field.IN_PORT, 8), Eq(Field.TUN_ID, 77))
    adds = [
        (1, rule(Output(1), match=match, priority=2)),
        (2, rule(SetField(Field.TUN_DST, parse_ip("192.0.2.9")), Output(8), priority=1)),
    ]
    switch.apply(Effects(adds=adds))
    source = parse_ip("192.0.2.9")
    assert switch.inject_tunnel(77, build_udp4(), source) == [Delivered(1, build_udp4())]
    assert switch.inject_tunnel(78, build_udp4(), source) == [
        Dropped(0, "output to its input port")
    ]
    assert switch.packet_out(8, build_udp4(), tun_id=77) == [Delivered(1, build_udp4())]


# What the pipeline's rules make of packets ---------------------------------------------------------


def test_arp_is_answered() -> None:
    reply = build_arp(opcode=2, sha=GATEWAY_MAC, spa=GATEWAY4, tha=MAC_A, tpa=IP4_A, eth_dst=MAC_A)
    outcomes = two_port_switch().inject(PORT_A, build_arp(tpa=GATEWAY4))
    assert outcomes == [Delivered(PORT_A, reply)]
    assert two_port_switch().inject(PORT_A, padded(build_arp(tpa=GATEWAY4))) == [
        Delivered(PORT_A, padded(reply))
    ]


def test_a_solicitation_is_answered() -> None:
    (outcome,) = two_port_switch().inject(PORT_A, build_ns(target=IP6_B))
    advertisement = build_na(
        target=IP6_B, dst=IP6_A, link_layer=MAC_B, eth_src=MAC_B, eth_dst=MAC_A
    )
    assert outcome == Delivered(PORT_A, advertisement)
    (outcome,) = two_port_switch().inject(PORT_A, build_ns(src="::", link_layer=None))
    assert isinstance(outcome, Delivered)
    assert parse(outcome.frame).dst == parse_ip("ff02::1")


def test_the_gateway_answers_echo() -> None:
    switch = two_port_switch()
    back: Values = {"src": GATEWAY4, "dst": IP4_A, "eth_src": GATEWAY_MAC, "eth_dst": MAC_A}
    request = build_icmp4(**A_TO_GATEWAY, ttl=3, body=echo(9, b"data"))
    reply = build_icmp4(**back, icmp_type=0, body=echo(9, b"data"))
    assert switch.inject(PORT_A, request) == [Delivered(PORT_A, reply)]
    back6 = back | {"src": GATEWAY6, "dst": IP6_A}
    request = build_icmp6(**A_TO_GATEWAY6, body=echo(9))
    reply = build_icmp6(**back6, icmp_type=129, body=echo(9))
    assert switch.inject(PORT_A, request) == [Delivered(PORT_A, reply)]


def test_a_routed_packet_leaves_by_the_tunnel_with_new_macs() -> None:
    frame = build_tcp4(**A_TO_D)
    expected = build_tcp4(**(A_TO_D | {"eth_src": GATEWAY_MAC, "eth_dst": MAC_D}), ttl=63)
    assert two_port_switch().inject(PORT_A, frame) == [
        Tunnelled(VNI + 1, parse_ip(HOST_C), expected)
    ]


def test_what_one_switch_tunnels_another_takes() -> None:
    frame = build_tcp4(**(A_TO_C | {"dst": IP4_B, "eth_dst": MAC_B, "src": "10.0.0.12"}))
    assert two_port_switch().inject_tunnel(VNI, frame, parse_ip(HOST_C)) == [
        Delivered(PORT_B, frame)
    ]
    assert two_port_switch().inject_tunnel(VNI + 9, frame, parse_ip(HOST_C)) == [
        Dropped(0, "no rule")
    ]


def test_a_miss_of_a_new_connection_carries_its_tuple() -> None:
    (packet,) = two_port_switch().inject(PORT_A, build_tcp4(**A_TO_B, tp_dst=81))
    assert isinstance(packet, PacketIn)
    assert packet.table == PIPELINE.number(Table.EGRESS_VERDICT)
    assert (packet.ct_state, packet.ct_mark) == (NEW | TRK, 0)
    assert (packet.ct_src, packet.ct_dst) == (parse_ip(IP4_A), parse_ip(IP4_B))
    assert (packet.ct_proto, packet.ct_tp_src, packet.ct_tp_dst) == (6, 40000, 81)


def test_behind_a_commit_the_packet_is_untracked() -> None:
    switch = two_port_switch()
    (packet,) = switch.inject(PORT_A, build_tcp4(**(A_TO_GATEWAY | {"dst": "10.0.0.12"})))
    assert isinstance(packet, PacketIn)
    assert packet.table == PIPELINE.number(Table.LOCATION)
    assert (packet.ct_state, packet.ct_src, packet.vni) == (0, b"", VNI)

"""The fake switch against Open vSwitch: the same rules, the same frames, the same outcome.

Everything that leaves a port is compared byte for byte, and every packet-in field for field, the
cookie of the rule included. The tunnel is a plain port here; what it would add is no header of the
frame.
"""

import random
from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace

from controller_app.encode import Encoder
from controller_app.flow_mod import Template
from mininet_topos.lab_run import LabRun
from ondemand.addresses import parse_ip
from ondemand.messages import Effects, PacketIn
from ondemand.pipeline import Pipeline, Table
from rule_cache.fields import FRAG_ANY, FRAG_LATER, CtState, Field, Value
from rule_cache.rule import Arg, Eq, Output, Shape, format_rule
from tests.support.fake_switch import (
    Delivered,
    FakeSwitch,
    FlowLimit,
    Outcome,
    packet_in_fields,
)
from tests.support.frame_builder import (
    IP4_B,
    MAC_B,
    build_icmp4,
    build_tcp4,
    build_tcp6,
    build_udp4,
    build_udp6,
)
from tests.support.packet_parts import ACK, SYN
from tests.support.random_traffic import random_step
from tests.support.real_bridge import BRIDGE, RealBridge, Seen
from tests.support.two_port_traffic import (
    A_TO_B,
    A_TO_B6,
    B_TO_A,
    B_TO_A6,
    SCENARIOS,
    Step,
    quoting,
)
from tests.support.two_ports import (
    EPOCH,
    IP4_C,
    MAC_C,
    PORT_A,
    PORT_B,
    TUNNEL_PORT,
    VNI,
    all_rules,
    install,
    meters,
    rules_of_epoch,
)

PIPELINE = Pipeline()
ENCODER = Encoder(PIPELINE)
#: Ethertype of the bridge's own marker.
EXPERIMENT = b"\x88\xb5"


class Twins:
    """A fake switch and a real bridge, programmed alike."""

    def __init__(self, real: RealBridge) -> None:
        self.real = real
        self._generation = 0
        self.fake = FakeSwitch([PORT_A, PORT_B, TUNNEL_PORT])
        assert self.fake.apply(install(all_rules(PIPELINE))).refused == ()
        self.real.program(self.fake.dump(), meters())

    def send(self, step: Step) -> list[Outcome]:
        """Send a frame to both; they must do the same."""
        ofport, frame = step
        outcomes = self.fake.inject(ofport, frame)
        self.compare(outcomes, self.real.inject(ofport, frame), step)
        return outcomes

    def packet_out(self, in_port: int, tun_id: int, frame: bytes) -> list[Outcome]:
        outcomes = self.fake.packet_out(in_port, frame, tun_id=tun_id)
        self._generation += 1
        message = ENCODER.packet_out(in_port, tun_id, frame, self._generation)
        self.compare(outcomes, self.real.packet_out(message), (in_port, frame))
        return outcomes

    def delete(self, cookies: list[int]) -> None:
        self.fake.apply(Effects(deletes=cookies))
        assert self.real.send(*map(ENCODER.delete, cookies)).errors == []

    def change_epoch(self, epoch: int) -> None:
        """The rules that know the old epoch by its mark go; the others are replaced."""
        judged = [shape.name for shape in PIPELINE.judged.values()]
        rules = self.fake.rules()
        self.delete([cookie for cookie, rule in rules if rule.shape.name in judged])
        adds = list(enumerate(rules_of_epoch(PIPELINE, epoch), 1000 * epoch))
        assert self.fake.apply(Effects(after_barrier=adds)).refused == ()
        self.real.add([format_rule(rule, cookie) for cookie, rule in adds])

    def compare(self, outcomes: list[Outcome], seen: Seen, step: Step) -> None:
        delivered = [(out.ofport, out.frame) for out in outcomes if isinstance(out, Delivered)]
        packet_ins = [packet_in_fields(out) for out in outcomes if isinstance(out, PacketIn)]
        where = "\n".join((f"port {step[0]}, frame {step[1].hex()}", *self.fake.path))
        delivered.sort(key=lambda entry: entry[0])  # by port, as the bridge's own are
        assert delivered == seen.delivered, where
        assert packet_ins == [packet_in_fields(packet) for packet in seen.packet_ins], where


@pytest.fixture(scope="module")
def real_bridge(lab_machine: None) -> Iterator[RealBridge]:
    with LabRun() as run:
        bridge = RealBridge(run, ports=3)
        try:
            yield bridge
        finally:
            bridge.close()


@pytest.fixture
def twins(real_bridge: RealBridge) -> Twins:
    return Twins(real_bridge)


@pytest.mark.parametrize("name", SCENARIOS)
def test_traffic_ends_alike(twins: Twins, name: str) -> None:
    for step in SCENARIOS[name]:
        twins.send(step)


@pytest.mark.parametrize("damaged", [False, True], ids=["sound", "damaged"])
@pytest.mark.parametrize("seed", range(3))
def test_random_traffic_ends_alike(twins: Twins, seed: int, damaged: bool) -> None:
    rng = random.Random(seed)
    kinds = set()
    for _ in range(500):
        ofport, frame = random_step(rng, damaged=damaged)
        if frame[12:14] == EXPERIMENT:
            continue
        kinds |= {type(outcome).__name__ for outcome in twins.send((ofport, frame))}
    assert kinds >= {"Delivered", "PacketIn", "Dropped"}


@pytest.mark.parametrize("reply_first", [False, True], ids=["original first", "reply first"])
@pytest.mark.parametrize("family", [4, 6])
def test_a_new_epoch_judges_live_connections_again(
    twins: Twins, family: int, reply_first: bool
) -> None:
    """Those still allowed go on, stamped anew by a packet of either direction."""
    tcp: Callable[..., bytes] = build_tcp4 if family == 4 else build_tcp6
    udp: Callable[..., bytes] = build_udp4 if family == 4 else build_udp6
    there, back = (A_TO_B, B_TO_A) if family == 4 else (A_TO_B6, B_TO_A6)
    answer = {"tp_src": 80, "tp_dst": 40000}
    question = (PORT_A, udp(**there))
    response = (PORT_B, udp(**back, tp_src=53, tp_dst=40000))
    steps = [(PORT_A, tcp(**there, flags=ACK)), (PORT_B, tcp(**back, **answer, flags=ACK))]
    twins.send((PORT_A, tcp(**there)))
    twins.send((PORT_B, tcp(**back, **answer, flags=SYN | ACK)))
    twins.send(question)
    twins.send(response)
    twins.change_epoch(EPOCH + 1)
    for step in (*(steps[::-1] if reply_first else steps), response, question):
        assert [type(outcome) for outcome in twins.send(step)] == [Delivered]
    marks = {connection.mark for _, connection in twins.fake.conntrack.connections(0.0)}
    assert marks == {EPOCH + 1}


def test_a_packet_in_about_an_error_to_the_server_has_no_tuple(twins: Twins) -> None:
    """It is +rel without +rpl: a rule that matches its original tuple is met, a packet-in has none."""
    answer = build_udp4(**B_TO_A, tp_src=53, tp_dst=40000)
    error = (PORT_A, build_icmp4(**A_TO_B, icmp_type=3, body=quoting(answer, 28)))
    twins.send((PORT_A, build_udp4(**A_TO_B)))
    twins.send((PORT_B, answer))
    twins.change_epoch(EPOCH + 1)
    assert [type(outcome) for outcome in twins.send(error)] == [Delivered]
    twins.change_epoch(EPOCH + 2)
    rules = twins.fake.rules_in(PIPELINE.number(Table.EGRESS_VERDICT))
    twins.delete([cookie for cookie, rule in rules if "tp_dst" in rule.shape.args])
    (packet_in,) = twins.send(error)
    assert isinstance(packet_in, PacketIn)
    assert (packet_in.ct_state, packet_in.ct_mark) == (REL | TRK, EPOCH + 1)
    assert (packet_in.ct_src, packet_in.ct_proto, packet_in.ct_tp_dst) == (b"", 0, 0)


def test_packet_out_takes_the_path_of_its_port(twins: Twins) -> None:
    (delivered,) = twins.packet_out(PORT_A, 0, build_tcp4(**A_TO_B))
    assert delivered == Delivered(PORT_B, build_tcp4(**A_TO_B))
    twins.packet_out(PORT_A, 0, build_tcp4(**A_TO_B, tp_dst=81))


def test_packet_out_with_the_vni_of_a_tunnel(twins: Twins) -> None:
    frame = build_tcp4(src=IP4_C, dst=IP4_B, eth_src=MAC_C, eth_dst=MAC_B)
    (delivered,) = twins.packet_out(TUNNEL_PORT, VNI, frame)
    assert delivered == Delivered(PORT_B, frame)
    for tun_id, other in ((VNI + 1, frame), (0, frame), (VNI, build_tcp4(eth_dst=MAC_C))):
        (dropped,) = twins.packet_out(TUNNEL_PORT, tun_id, other)
        assert not isinstance(dropped, Delivered)


def test_what_comes_from_a_tunnel_may_be_judged_here(twins: Twins) -> None:
    frame = build_tcp4(src=IP4_C, dst=IP4_B, eth_src=MAC_C, eth_dst=MAC_B, tp_dst=81)
    (packet_in,) = twins.packet_out(TUNNEL_PORT, VNI, frame)
    assert isinstance(packet_in, PacketIn)
    assert packet_in.table == PIPELINE.number(Table.INGRESS_VERDICT)


# Which rules are taken ----------------------------------------------------------------------------

IPV4, IPV6, ARP = Eq(Field.ETH_TYPE, 0x0800), Eq(Field.ETH_TYPE, 0x86DD), Eq(Field.ETH_TYPE, 0x0806)
ICMP6 = (IPV6, Eq(Field.IP_PROTO, 58))
NS, NA = Eq(Field.ICMPV6_TYPE, 135), Eq(Field.ICMPV6_TYPE, 136)
CODE_0 = Eq(Field.ICMPV6_CODE, 0)
TUPLE = Eq(Field.CT_NW_DST, parse_ip(IP4_B))


def state(value: int, mask: int) -> Eq:
    return Eq(Field.CT_STATE, value, mask)


NEW, INV, TRK, RPL, REL, EST = (
    CtState.NEW,
    CtState.INV,
    CtState.TRK,
    CtState.RPL,
    CtState.REL,
    CtState.EST,
)
VALID = state(TRK, TRK | INV)
MATCHES: dict[str, tuple[Eq, ...]] = {
    "no type": (Eq(Field.IPV4_SRC, bytes(4)),),
    "ipv4 address": (IPV4, Eq(Field.IPV4_SRC, bytes(4))),
    "ipv4 address in ipv6": (IPV6, Eq(Field.IPV4_SRC, bytes(4))),
    "ipv6 address": (IPV6, Eq(Field.IPV6_DST, bytes(16))),
    "protocol of arp": (ARP, Eq(Field.IP_PROTO, 6)),
    "port without protocol": (IPV4, Eq(Field.TCP_DST, 80)),
    "port of another protocol": (IPV4, Eq(Field.IP_PROTO, 17), Eq(Field.TCP_DST, 80)),
    "port": (IPV6, Eq(Field.IP_PROTO, 17), Eq(Field.UDP_DST, 80)),
    "sctp port": (IPV4, Eq(Field.IP_PROTO, 132), Eq(Field.SCTP_SRC, 80)),
    "icmp in ipv6": (IPV6, Eq(Field.IP_PROTO, 1), Eq(Field.ICMP_TYPE, 8)),
    "icmpv6": (*ICMP6, Eq(Field.ICMPV6_TYPE, 128), CODE_0),
    "fragment": (IPV4, Eq(Field.IP_FRAG, FRAG_ANY | FRAG_LATER, FRAG_ANY | FRAG_LATER)),
    "fragment of nothing": (Eq(Field.IP_FRAG, FRAG_ANY | FRAG_LATER, FRAG_ANY | FRAG_LATER),),
    "arp": (ARP, Eq(Field.ARP_OP, 1), Eq(Field.ARP_TPA, parse_ip(IP4_B))),
    "arp in ipv4": (IPV4, Eq(Field.ARP_OP, 1)),
    "nd target": (*ICMP6, NS, CODE_0, Eq(Field.ND_TARGET, bytes(16))),
    "nd target without code": (*ICMP6, NS, Eq(Field.ND_TARGET, bytes(16))),
    "nd target of echo": (
        *ICMP6,
        Eq(Field.ICMPV6_TYPE, 128),
        CODE_0,
        Eq(Field.ND_TARGET, bytes(16)),
    ),
    "nd sll of solicitation": (*ICMP6, NS, CODE_0, Eq(Field.ND_SLL, bytes(6))),
    "nd tll of solicitation": (*ICMP6, NS, CODE_0, Eq(Field.ND_TLL, bytes(6))),
    "nd tll of advertisement": (*ICMP6, NA, CODE_0, Eq(Field.ND_TLL, bytes(6))),
    "tuple": (IPV4, VALID, TUPLE),
    "tuple without type": (VALID, TUPLE),
    "tuple of another family": (IPV6, VALID, TUPLE),
    "tuple without state": (IPV4, TUPLE),
    "tuple of +trk": (IPV4, state(TRK, TRK), TUPLE),
    "tuple of +trk-rpl": (IPV4, state(TRK, TRK | RPL), TUPLE),
    "tuple of +inv": (IPV4, state(TRK | INV, TRK | INV), TUPLE),
    "tuple of -inv": (IPV4, state(0, INV), TUPLE),
    "tuple of +new": (IPV4, state(NEW, NEW), TUPLE),
    "tuple of +est": (IPV4, state(EST | TRK, EST | TRK), TUPLE),
    "tuple of +rel": (IPV4, state(REL, REL), TUPLE),
    "tuple of +rpl": (IPV4, state(RPL, RPL), TUPLE),
    "tuple of -rpl-inv+trk": (IPV4, state(TRK, TRK | RPL | INV), TUPLE),
    "tuple protocol": (IPV6, VALID, Eq(Field.CT_NW_PROTO, 6)),
    "tuple port": (IPV4, VALID, Eq(Field.CT_NW_PROTO, 6), Eq(Field.CT_TP_DST, 80)),
    "value outside of its mask": (IPV4, Eq(Field.IPV4_SRC, b"\1\1\1\1", b"\xff\0\0\0")),
    "mask": (IPV4, Eq(Field.IPV4_SRC, b"\1\0\0\0", b"\xff\0\0\0")),
}


@pytest.mark.parametrize("name", MATCHES)
def test_the_same_matches_are_refused(real_bridge: RealBridge, name: str) -> None:
    real_bridge.program([])
    # As an argument of the rule, a value meets no check before the switch's own.
    masked = [item for item in MATCHES[name] if item.field is Field.IPV4_SRC and item.mask]
    match = tuple(
        Eq(item.field, Arg("value"), Arg("mask")) if item in masked else item
        for item in MATCHES[name]
    )
    shape = Shape("sample", 30, 100, match, (Output(PORT_A),))
    values: dict[str, Value] = {}
    for item in masked:
        assert isinstance(item.value, bytes)
        assert isinstance(item.mask, bytes)
        values = {"value": item.value, "mask": item.mask}
    rule = shape.rule(**values)
    message = Template(shape, flags=0, metered=False).add(rule, 5)
    errors = real_bridge.send(message).errors
    refused = FakeSwitch([PORT_A]).apply(Effects(adds=[(5, rule)])).refused
    assert bool(errors) == bool(refused), (errors, refused)


def test_a_tuple_port_without_protocol_is_not_let_through(real_bridge: RealBridge) -> None:
    """The switch would take the rule and leave the port out: the fake refuses it aloud."""
    real_bridge.program([])
    shape = Shape("sample", 30, 100, (IPV4, VALID, Eq(Field.CT_TP_DST, 80)), (Output(PORT_A),))
    message = Template(shape, flags=0, metered=False).add(shape.rule(), 5)
    assert real_bridge.send(message).errors == []
    (line,) = real_bridge.node.dump_flows(BRIDGE, "table=30")
    assert "ct_tp_dst" not in line
    ((cookie, reason),) = FakeSwitch([PORT_A]).apply(Effects(adds=[(5, shape.rule())])).refused
    assert cookie == 5
    assert "needs ct_nw_proto" in reason


def test_every_shape_of_the_pipeline_is_taken(real_bridge: RealBridge) -> None:
    real_bridge.program([], meters())
    adds = list(enumerate(all_rules(PIPELINE), 1))
    said = real_bridge.send(*(ENCODER.add(rule, cookie) for cookie, rule in adds))
    assert said.errors == []
    fake = FakeSwitch([PORT_A, PORT_B, TUNNEL_PORT])
    assert fake.apply(Effects(meters=meters(), adds=adds)).refused == ()
    # Both count the same rules: none of them took the place of another.
    assert real_bridge.node.rule_count(BRIDGE) == len(fake.rules()) + 1  # the marker's rule


def test_the_same_rules_are_evicted(real_bridge: RealBridge) -> None:
    """The largest group loses the rule that would expire first; permanent rules stay.

    Where two groups are the largest, Open vSwitch takes one at random: here one always is.
    """
    table = PIPELINE.number(Table.EGRESS_VERDICT)
    permanent = Shape("permanent", table, 1, (Eq(Field.REG6, Arg("zone")),), ())
    fleeting = Shape(
        "fleeting", table, 2, (Eq(Field.REG6, Arg("zone")), IPV4, Eq(Field.IPV4_DST, Arg("ip"))), ()
    )
    rules = [permanent.rule(zone=zone) for zone in (1, 2, 3)]
    for number, zone in enumerate((1, 1, 3, 2, 2, 2, 2, 2, 3, 1, 1, 1)):
        rule = fleeting.rule(zone=zone, ip=bytes((10, 0, 0, number)))
        rules.append(replace(rule, idle_timeout=1000 - number * 7 % 40))
    limit = 3 + 7
    real_bridge.program([])
    real_bridge.node.vsctl(
        *("--", "--id=@table", "create", "Flow_Table", f"flow_limit={limit}"),
        *("overflow_policy=evict", 'groups="NXM_NX_REG6[]"'),
        *("--", "set", "Bridge", BRIDGE, f"flow_tables:{table}=@table"),
    )
    try:
        fake = FakeSwitch([PORT_A], limits={table: FlowLimit(limit)})
        for cookie, rule in enumerate(rules, 1):
            assert fake.apply(Effects(adds=[(cookie, rule)])).refused == ()
            real_bridge.add([format_rule(rule, cookie)])
        left = real_bridge.node.dump_flows(BRIDGE, f"table={table}")
    finally:
        real_bridge.node.vsctl("clear", "Bridge", BRIDGE, "flow_tables")
    cookies = sorted(int(line.split("cookie=")[1].split(",")[0], 16) for line in left)
    assert cookies == sorted(cookie for cookie, _ in fake.rules_in(table))
    assert len(cookies) == limit

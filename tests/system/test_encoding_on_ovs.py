"""Text of a rule, its bytes, and what the switch makes of either: all three agree.

Each rule goes to a real switch twice: as text through ovs-ofctl to one bridge, as our bytes through
an OpenFlow connection to another. The switch then describes both in its own words.
"""

import re
from contextlib import closing

import pytest

from controller_app.decode import (
    PacketInDecoder,
    decode_error,
    decode_flow_removed,
    failed_cookie,
    packet_in_cookie,
)
from controller_app.encode import Encoder, reports_removal
from mininet_topos.lab_run import LabRun
from mininet_topos.ovs_node import OvsNode
from ondemand.messages import PacketIn, SetMeter
from ondemand.pipeline import Pipeline, Table
from rule_cache.cookie import MAGIC_MASK, MAGIC_VALUE, Cookies, is_ours
from rule_cache.fields import Field
from rule_cache.rule import Arg, Eq, Output, Rule, Shape, format_rule
from tests.support.frame_builder import build_icmp4, build_icmp6, build_tcp4, build_tcp6, build_udp4
from tests.support.real_bridge import BRIDGE, RealBridge
from tests.support.shape_samples import METERS, sample_rules
from tests.support.switch_client import SwitchClient

TEXT, BYTES = "br-text", "br-bytes"
ERROR, PACKET_IN, FLOW_REMOVED = 1, 10, 11
COOKIE = MAGIC_VALUE | 0x0103_0000_0001


@pytest.fixture(scope="module")
def node(lab_machine):
    with LabRun() as run:
        node = OvsNode(run, "enc")
        for bridge in (TEXT, BYTES):
            node.vsctl(
                *("add-br", bridge, "--", "set", "Bridge", bridge),
                *("datapath_type=netdev", "fail_mode=secure"),
            )
        yield node


@pytest.fixture
def client(node):
    for bridge in (TEXT, BYTES):
        node.ofctl("del-flows", bridge)
        node.ofctl("del-meters", bridge)
    with SwitchClient(node.directory / f"{BYTES}.mgmt") as client:
        yield client


def errors(messages):
    """What the switch refused, as (cookie, type, code)."""
    found = [decode_error(m, 0, len(m)) for m in messages if m[1] == ERROR]
    return [(failed_cookie(data), kind, code) for _, kind, code, data in found]


def dumped(node, bridge):
    """Cookie -> the switch's words for the rule, without what differs from moment to moment."""
    changing = re.compile(r"(duration=[\d.]+s|n_packets=\d+|n_bytes=\d+|(idle|hard)_age=\d+),? ?")
    lines = {}
    for line in node.dump_flows(bridge):
        cookie, _, rest = changing.sub("", line).partition(" ")
        lines[int(cookie.rstrip(",").removeprefix("cookie="), 16)] = rest
    return lines


@pytest.mark.parametrize("base", [0, 100])
def test_text_and_bytes_of_every_shape_are_one_rule_to_the_switch(node, client, base):
    pipeline = Pipeline(base)
    encoder = Encoder(pipeline)
    cookies = Cookies(1)
    rules, occupied = {}, set()
    for rule in sample_rules(pipeline, per_shape=4):
        if rule.key not in occupied:  # else it would take the place of the other
            occupied.add(rule.key)
            rules[cookies.next(rule.shape.table)] = rule
    assert {rule.shape.slot for rule in rules.values()} == {s.slot for s in pipeline.shapes}

    for meter in METERS:
        client.send(encoder.meter_mod(SetMeter(meter, 10 * meter, meter), exists=False))
        band = f"band=type=drop,rate={10 * meter},burst_size={meter}"
        node.ofctl("add-meter", TEXT, f"meter={meter},pktps,burst,{band}")
    client.send(b"".join(encoder.add(rule, cookie) for cookie, rule in rules.items()))
    assert errors(client.barrier()) == []
    node.add_flows(TEXT, *(format_rule(rule, cookie) for cookie, rule in rules.items()))

    from_text, from_bytes = dumped(node, TEXT), dumped(node, BYTES)
    assert from_bytes.keys() == rules.keys()
    for cookie, rule in rules.items():
        words = from_bytes[cookie].replace("send_flow_rem ", "")
        assert words == from_text[cookie], str(rule)
        assert words.startswith(f"table={rule.shape.table}, ") or rule.shape.table == 0
        reports = "send_flow_rem " in from_bytes[cookie]
        assert reports == reports_removal(rule.shape, pipeline), str(rule)

    client.send(encoder.delete_matching(MAGIC_VALUE, MAGIC_MASK))
    assert errors(client.barrier()) == []
    assert dumped(node, BYTES) == {}


def deliver_rules(count):
    return [PIPELINE.deliver.rule(zone=zone, port=5, ofport=zone) for zone in range(1, count + 1)]


PIPELINE = Pipeline()
ENCODER = Encoder(PIPELINE)


def test_a_rule_is_deleted_by_its_own_cookie_only(node, client):
    rules = dict(enumerate(deliver_rules(6), COOKIE))
    client.send(b"".join(ENCODER.add(rule, cookie) for cookie, rule in rules.items()))
    client.send(ENCODER.delete(COOKIE + 2) + ENCODER.delete(COOKIE + 100))
    assert errors(client.barrier()) == []
    assert dumped(node, BYTES).keys() == rules.keys() - {COOKIE + 2}


def test_another_apps_rules_stay_when_all_of_ours_are_deleted(node, client):
    node.ofctl("add-flow", BYTES, "cookie=0x1234,table=5,priority=7,actions=drop")
    client.send(ENCODER.add(deliver_rules(1)[0], COOKIE))
    client.send(ENCODER.delete_matching(MAGIC_VALUE, MAGIC_MASK))
    assert errors(client.barrier()) == []
    assert dumped(node, BYTES).keys() == {0x1234}


def test_the_same_match_replaces_and_takes_the_new_cookie(node, client):
    first, second = (
        PIPELINE.deliver.rule(zone=1, port=5, ofport=5),
        PIPELINE.deliver.rule(zone=1, port=5, ofport=6),
    )
    client.send(ENCODER.add(first, COOKIE) + ENCODER.add(second, COOKIE + 1))
    assert errors(client.barrier()) == []
    assert dumped(node, BYTES) == {
        COOKIE + 1: "table=90, priority=200,reg7=0x1 actions=set_field:0x5->reg2,output:6"
    }


def removals(client, count):
    """The next that the switch reports, as (cookie, table, reason)."""
    found = [decode_flow_removed(m, 0, len(m)) for m in client.wait_for(FLOW_REMOVED, count)]
    return [(removed.cookie, removed.table, removed.reason) for removed in found]


def denials(count, *, first_cookie):
    """Rules with a timeout: the switch evicts no others."""
    args = (1, bytes(6))
    return b"".join(
        ENCODER.add(
            Rule(PIPELINE.location_deny[4], (*args, bytes([10, 0, 0, n])), idle_timeout=60),
            first_cookie + n,
        )
        for n in range(count)
    )


DELETE, EVICTION = 2, 5


def test_removals_of_on_demand_rules_are_reported_with_their_cookies(client):
    client.send(ENCODER.report_evictions())
    client.send(ENCODER.add(deliver_rules(1)[0], COOKIE) + denials(2, first_cookie=COOKIE + 1))
    client.send(ENCODER.delete_matching(MAGIC_VALUE, MAGIC_MASK))
    assert set(removals(client, 2)) == {(COOKIE + n, Table.LOCATION, DELETE) for n in (1, 2)}


def test_evictions_are_reported_when_asked_for(node, client):
    node.vsctl(
        *("--", "--id=@t", "create", "Flow_Table", "flow_limit=1", "overflow_policy=evict"),
        *("--", "set", "Bridge", BYTES, f"flow_tables:{int(Table.LOCATION)}=@t"),
    )
    try:
        client.send(ENCODER.report_evictions() + denials(3, first_cookie=COOKIE))
        assert set(removals(client, 2)) == {
            (cookie, Table.LOCATION, EVICTION) for cookie in (COOKIE, COOKIE + 1)
        }
    finally:
        node.vsctl("clear", "Bridge", BYTES, "flow_tables")


def test_a_refused_rule_is_named_by_the_error(node, client):
    """conntrack's original tuple without the ct_state that it needs."""

    class Refused(Pipeline):
        def __init__(self):
            super().__init__()
            match = (Eq(Field.ETH_TYPE, 0x0800), Eq(Field.CT_NW_DST, Arg("remote")))
            self.refused = Shape("refused", 30, 5, match, (Output(1),))
            self.shapes = [self.refused]

    pipeline = Refused()
    client.send(Encoder(pipeline).add(pipeline.refused.rule(remote=bytes(4)), COOKIE))
    assert errors(client.barrier()) == [(COOKIE, 4, 9)]  # OFPET_BAD_MATCH, OFPBMC_BAD_PREREQ
    assert dumped(node, BYTES) == {}


def meters(node):
    text = node.ofctl("dump-meters", BYTES)
    pattern = r"meter=(\d+) (\S+) (\S+) bands=\s*type=drop rate=(\d+) burst_size=(\d+)"
    return {int(m): (*flags, int(r), int(b)) for m, *flags, r, b in re.findall(pattern, text)}


def test_meters_are_added_changed_and_deleted_and_take_their_rules_along(node, client):
    client.send(ENCODER.meter_mod(SetMeter(5, 100, 10), exists=False))
    client.send(ENCODER.add(PIPELINE.location_miss.rule(zone=1, meter=5), COOKIE))
    assert errors(client.barrier()) == []
    assert meters(node) == {5: ("pktps", "burst", 100, 10)}
    client.send(ENCODER.meter_mod(SetMeter(5, 200, 20), exists=True))
    assert errors(client.barrier()) == []
    assert meters(node) == {5: ("pktps", "burst", 200, 20)}
    assert COOKIE in dumped(node, BYTES)
    client.send(ENCODER.meter_mod(SetMeter(5, 0, 0), exists=True) * 2)
    assert errors(client.barrier()) == []
    assert meters(node) == {}
    assert dumped(node, BYTES) == {}
    client.send(ENCODER.meter_mod(SetMeter(5, 200, 20), exists=True))
    assert len(errors(client.barrier())) == 1


@pytest.mark.parametrize("tun_id", [0, 5001])
def test_a_packet_out_goes_through_the_first_table_and_comes_back_whole(node, client, tun_id):
    client.send(ENCODER.report_evictions())
    node.add_flows(
        BYTES,
        f"cookie={COOKIE},table=0,priority=9,in_port=7,tun_id={tun_id} "
        "actions=set_field:5001->reg5,set_field:3->reg6,controller:65535",
    )
    frame = build_udp4(payload=b"x" * 900)
    client.send(ENCODER.packet_out(7, tun_id, frame, 1))
    (message,) = client.wait_for(PACKET_IN)
    packet = PacketInDecoder().decode(message, 0, len(message))
    assert (packet.cookie, packet.table, packet.in_port) == (COOKIE, 0, 7)
    assert (packet.vni, packet.source_zone, packet.target_zone) == (5001, 3, 0)
    assert packet.data == frame


def test_packet_ins_through_conntrack_are_read_as_by_another_decoder(lab_machine):
    """The tests' tap reads OXM by OXM; both see the same packet-ins of real frames."""
    to_conntrack = (
        "table=0,priority=5,in_port=1,{} actions=set_field:5001->reg5,set_field:3->reg6,"
        "ct(table=1,zone=NXM_NX_REG6[0..15])"
    )
    back = (
        f"cookie={COOKIE + 1},table=1,priority=1,{{}} actions=controller:65535,"
        "ct(commit,zone=NXM_NX_REG6[0..15],exec(set_field:0x77->ct_mark)),set_field:4->reg7"
    )
    rules = [
        f"cookie={COOKIE},table=0,priority=1 actions=controller:65535",
        *(
            rule
            for kind in ("ip", "ipv6")
            for rule in (to_conntrack.format(kind), back.format(kind))
        ),
    ]
    frames = [b() for b in (build_tcp4, build_tcp6, build_udp4, build_icmp4, build_icmp6)]
    with LabRun() as run, closing(RealBridge(run, ports=2)) as bridge:
        bridge.program(rules)
        with SwitchClient(bridge.node.directory / f"{BRIDGE}.mgmt") as client:
            # The first of port 1 makes a connection, the second belongs to it.
            theirs = [
                packet
                for frame in frames
                for port in (1, 1, 2)
                for packet in bridge.inject(port, frame).packet_ins
            ]
            messages = [m for m in client.barrier() if m[1] == PACKET_IN]
    messages = [m for m in messages if is_ours(packet_in_cookie(m, 0, len(m)))]
    decoder = PacketInDecoder()
    for _ in range(2):
        ours = [decoder.decode(m, 0, len(m)) for m in messages]
        assert [fields(packet) for packet in ours] == [fields(packet) for packet in theirs]
    seen = {(packet.ct_mark, len(packet.ct_src), packet.table) for packet in ours}
    assert seen == {(0, 0, 0), (0, 4, 1), (0, 16, 1), (0x77, 4, 1), (0x77, 16, 1)}


def fields(packet):
    names = (n for n in dir(PacketIn) if not n.startswith("_"))
    return {name: getattr(packet, name) for name in names}


def zones_with_connections(node):
    lines = node.appctl("dpctl/dump-conntrack", "netdev@ovs-netdev").splitlines()
    return sorted(int(line.partition("zone=")[2].partition(",")[0]) for line in lines)


def test_a_zone_is_flushed_and_no_other(node, client):
    frame = build_udp4().hex()
    for zone in (7, 8):
        node.ofctl(
            "packet-out", BYTES, f"in_port=local packet={frame} actions=ct(commit,zone={zone})"
        )
    assert zones_with_connections(node) == [7, 8]
    client.send(ENCODER.flush_zone(7))
    assert errors(client.barrier()) == []
    assert zones_with_connections(node) == [8]
    client.send(ENCODER.flush_zone(8) + ENCODER.flush_zone(9))
    assert errors(client.barrier()) == []
    assert zones_with_connections(node) == []

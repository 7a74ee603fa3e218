"""Our bytes against os-ken's, and what the encoder refuses."""

import pytest
from os_ken.ofproto import ofproto_v1_3 as ofproto
from os_ken.ofproto import ofproto_v1_3_parser as parser

from controller_app.encode import Encoder, encode_effects
from controller_app.flow_mod import EncodeError
from ondemand.messages import Effects, SetMeter
from ondemand.pipeline import L4, ON_DEMAND, P_DEFAULT, Pipeline
from ondemand.records import Direction
from rule_cache.fields import Field
from rule_cache.rule import Arg, Ct, Eq, Meter, Output, OutputInPort, Rule, SetField, Shape
from tests.support.os_ken_twin import DATAPATH, os_ken_add, serialized
from tests.support.shape_samples import edge_rules, sample_rules

COOKIE = 0x0D5E_0103_8765_4321
PIPELINES = {base: Pipeline(base) for base in (0, 100)}


class ShapesOf(Pipeline):
    """A pipeline of just these shapes."""

    def __init__(self, *shapes: Shape) -> None:
        super().__init__()
        self.shapes = list(shapes)


def shape(match, actions, *, table=30):
    return Shape("test_shape", table, 100, tuple(match), tuple(actions))


def expected_flags(rule: Rule, base: int) -> int:
    on_demand = rule.shape.table in {base + table for table in ON_DEMAND}
    return ofproto.OFPFF_SEND_FLOW_REM if on_demand and rule.shape.priority > P_DEFAULT else 0


@pytest.mark.parametrize("base", PIPELINES)
def test_every_shape_is_encoded_as_by_os_ken(base):
    pipeline = PIPELINES[base]
    encoder = Encoder(pipeline)
    rules = [
        *sample_rules(pipeline, per_shape=5),
        *(r for s in pipeline.shapes for r in edge_rules(s)),
    ]
    for rule in rules:
        theirs = os_ken_add(rule, COOKIE, flags=expected_flags(rule, base))
        assert encoder.add(rule, COOKIE).hex(" ") == theirs.hex(" "), str(rule)
    assert {rule.shape for rule in rules} == set(pipeline.shapes)


@pytest.mark.parametrize("base", PIPELINES)
def test_os_ken_reads_what_we_write(base):
    """The other way round: os-ken's parser finds a whole message with nothing left over."""
    pipeline = PIPELINES[base]
    encoder = Encoder(pipeline)
    for rule in sample_rules(pipeline, per_shape=1):
        data = encoder.add(rule, COOKIE)
        assert len(data) % 8 == 0
        assert int.from_bytes(data[2:4], "big") == len(data)
        message = parser.OFPFlowMod.parser(
            DATAPATH, ofproto.OFP_VERSION, ofproto.OFPT_FLOW_MOD, len(data), 0, data
        )
        assert message.cookie == COOKIE
        assert message.table_id == rule.shape.table
        assert message.priority == rule.shape.priority


def test_removal_is_reported_for_on_demand_rules_but_not_for_their_misses():
    pipeline = PIPELINES[0]
    encoder = Encoder(pipeline)

    def flags(rule):
        return int.from_bytes(encoder.add(rule, COOKIE)[44:46], "big")

    allow, deny = pipeline.verdict[Direction.EGRESS, 4, L4.PORT, False, False]
    values = {"zone": 1, "remote": bytes(4), "proto": 6, "tp_dst": 443}
    assert flags(allow.rule(**values)) == ofproto.OFPFF_SEND_FLOW_REM
    assert flags(deny.rule(**values)) == ofproto.OFPFF_SEND_FLOW_REM
    assert flags(pipeline.verdict_miss[Direction.EGRESS].rule(zone=1, meter=1)) == 0
    assert flags(pipeline.arp_miss.rule(zone=1, meter=1)) == 0
    assert flags(pipeline.deliver.rule(zone=1, port=3, ofport=2)) == 0


def test_meter_zero_leaves_the_meter_out():
    pipeline = PIPELINES[0]
    encoder = Encoder(pipeline)
    miss = pipeline.location_miss
    with_meter = encoder.add(miss.rule(zone=1, meter=7), COOKIE)
    without = encoder.add(miss.rule(zone=1, meter=0), COOKIE)
    assert len(with_meter) == len(without) + 8
    assert bytes.fromhex("00060008 00000007") in with_meter


def test_a_constant_meter_is_encoded_too():
    for number, instruction in ((3, bytes.fromhex("00060008 00000003")), (0, b"")):
        metered = shape([], [Meter(number), OutputInPort()])
        data = Encoder(ShapesOf(metered)).add(metered.rule(), COOKIE)
        assert data[56:].startswith(instruction + bytes.fromhex("00040018"))


def test_an_argument_may_stand_in_several_places():
    twice = shape(
        [Eq(Field.REG6, Arg("x")), Eq(Field.TUN_ID, Arg("x"))], [SetField(Field.REG7, Arg("x"))]
    )
    data = Encoder(ShapesOf(twice)).add(twice.rule(x=0x01020304), COOKIE)
    assert data.count(bytes.fromhex("01020304")) == 3


def test_xid_is_the_low_half_of_the_cookie():
    encoder = Encoder(PIPELINES[0])
    rule = next(sample_rules(PIPELINES[0]))
    assert encoder.add(rule, COOKIE)[4:16].hex() == "87654321" + "0d5e010387654321"


VERDICT = PIPELINES[0].verdict[Direction.EGRESS, 4, L4.PORT, False, False][0]
VERDICT_V6 = PIPELINES[0].verdict[Direction.EGRESS, 6, L4.PORT, False, False][0]
GOOD = (1, b"\x0a\x00\x00\x01", 6, 443)


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        (Rule(VERDICT, (1, bytes(16), 6, 443)), "remote"),
        (Rule(VERDICT_V6, (1, bytes(4), 6, 443)), "remote"),
        (Rule(VERDICT, (1, 0x0A000001, 6, 443)), "remote"),
        (Rule(VERDICT, (bytes(4), *GOOD[1:])), "zone"),
        (Rule(VERDICT, (*GOOD[:3], 65536)), "65536"),
        (Rule(VERDICT, (*GOOD[:3], -1)), "-1"),
        (Rule(VERDICT, (*GOOD[:2], 256, 443)), "256"),
        (Rule(VERDICT, GOOD[:3]), "takes"),
        (Rule(VERDICT, ()), "does not fit"),
        (Rule(VERDICT, (*GOOD, 5)), "takes"),
        (Rule(VERDICT, GOOD, idle_timeout=65536), "timeouts 65536"),
        (Rule(VERDICT, GOOD, hard_timeout=-1), "timeouts 0, -1"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(rule, names):
    encoder = Encoder(PIPELINES[0])
    with pytest.raises(EncodeError, match=names):
        encoder.add(rule, COOKIE)
    assert encoder.add(Rule(VERDICT, GOOD), COOKIE)


def test_a_meter_that_does_not_fit_is_refused():
    miss = PIPELINES[0].location_miss
    encoder = Encoder(PIPELINES[0])
    for values in ((1, -1), (1, 1 << 32), (1,)):
        with pytest.raises(EncodeError):
            encoder.add(Rule(miss, values), COOKIE)


@pytest.mark.parametrize("cookie", [-1, 1 << 64])
def test_a_cookie_that_does_not_fit_is_refused(cookie):
    with pytest.raises(EncodeError):
        Encoder(PIPELINES[0]).add(Rule(VERDICT, GOOD), cookie)


def test_a_shape_of_another_pipeline_is_refused():
    with pytest.raises(EncodeError, match="not a shape of this"):
        Encoder(PIPELINES[100]).add(Rule(VERDICT, GOOD), COOKIE)


@pytest.mark.parametrize(
    ("match", "actions", "says"),
    [
        ([Eq(Field.IPV4_DST, bytes(16))], [], "4 bytes"),
        ([Eq(Field.ETH_TYPE, 0x10000)], [], "2 bytes"),
        ([Eq(Field.CT_STATE, 0x21, 0x20)], [], "outside its mask"),
        ([], [OutputInPort(), Meter(1)], "put it first"),
        ([], [Ct(zone=Field.REG6, mark=Field.REG4)], "only when it commits"),
        ([], [SetField(Field.REG6, 1)] * 5000, "65535"),
    ],
)
def test_a_shape_that_cannot_be_encoded_is_refused_at_once(match, actions, says):
    with pytest.raises(EncodeError, match=says):
        Encoder(ShapesOf(shape(match, actions)))


def test_delete_is_exact_and_in_all_tables():
    encoder = Encoder(PIPELINES[0])
    for data, mask in (
        (encoder.delete(COOKIE), 0xFFFFFFFFFFFFFFFF),
        (encoder.delete_matching(COOKIE, 0xFFFF << 48), 0xFFFF << 48),
    ):
        theirs = parser.OFPFlowMod(
            DATAPATH,
            cookie=COOKIE,
            cookie_mask=mask,
            table_id=ofproto.OFPTT_ALL,
            command=ofproto.OFPFC_DELETE,
            priority=0,
            buffer_id=ofproto.OFP_NO_BUFFER,
            out_port=ofproto.OFPP_ANY,
            out_group=ofproto.OFPG_ANY,
            match=parser.OFPMatch(),
        )
        assert data.hex() == serialized(theirs, xid=COOKIE & 0xFFFFFFFF).hex()


@pytest.mark.parametrize("base", PIPELINES)
@pytest.mark.parametrize("tun_id", [0, 5001])
@pytest.mark.parametrize("frame", [b"", bytes(range(61))])
def test_packet_out_goes_through_the_first_table(base, tun_id, frame):
    actions = [parser.OFPActionSetField(reg3=9), parser.NXActionResubmitTable(table_id=base)]
    if tun_id:
        actions.insert(0, parser.OFPActionSetField(tunnel_id=tun_id))
    theirs = parser.OFPPacketOut(
        DATAPATH,
        buffer_id=ofproto.OFP_NO_BUFFER,
        in_port=7,
        actions=actions,
        data=frame,
    )
    ours = Encoder(PIPELINES[base]).packet_out(7, tun_id, frame, 9)
    assert ours.hex(" ") == serialized(theirs, xid=0).hex(" ")


@pytest.mark.parametrize(
    ("in_port", "tun_id", "size"), [(7, 0, 65480), (-1, 0, 60), (1 << 32, 0, 60), (7, 1 << 64, 60)]
)
def test_a_packet_out_that_does_not_fit_is_refused(in_port, tun_id, size):
    with pytest.raises(EncodeError, match="packet-out"):
        Encoder(PIPELINES[0]).packet_out(in_port, tun_id, bytes(size), 9)
    assert len(Encoder(PIPELINES[0]).packet_out(7, 0, bytes(65479), 9)) == 65535


def test_barrier():
    ours = Encoder(PIPELINES[0]).barrier(0x01020304)
    assert ours == serialized(parser.OFPBarrierRequest(DATAPATH), xid=0x01020304)


@pytest.mark.parametrize(
    ("rate", "exists", "command"),
    [
        (100, False, ofproto.OFPMC_ADD),
        (100, True, ofproto.OFPMC_MODIFY),
        (0, True, ofproto.OFPMC_DELETE),
        (0, False, ofproto.OFPMC_DELETE),
    ],
)
def test_meter_mod(rate, exists, command):
    bands = [parser.OFPMeterBandDrop(rate, 20)] if rate else []
    theirs = parser.OFPMeterMod(
        DATAPATH, command, ofproto.OFPMF_PKTPS | ofproto.OFPMF_BURST, 9, bands
    )
    ours = Encoder(PIPELINES[0]).meter_mod(SetMeter(9, rate, 20), exists=exists)
    assert ours.hex(" ") == serialized(theirs, xid=9).hex(" ")


def test_effects_are_one_buffer_in_the_promised_order():
    encoder = Encoder(PIPELINES[0])
    rules = list(sample_rules(PIPELINES[0], per_shape=1))[:3]
    effects = Effects(
        deletes=[COOKIE, COOKIE + 1],
        flush_zones=[7],
        meters=[SetMeter(4, 50, 10)],
        adds=[(COOKIE + 2, rules[0]), (COOKIE + 3, rules[1])],
        packet_outs=[(3, 0, b"frame"), (4, 77, b"other")],
        after_barrier=[(COOKIE + 4, rules[2])],
        late_deletes=[COOKIE + 5],
        warnings=["not for the switch"],
    )
    assert encode_effects(effects, encoder, set(), 9) == b"".join(
        (
            encoder.delete(COOKIE),
            encoder.delete(COOKIE + 1),
            encoder.flush_zone(7),
            encoder.meter_mod(SetMeter(4, 50, 10), exists=False),
            encoder.add(rules[0], COOKIE + 2),
            encoder.add(rules[1], COOKIE + 3),
            encoder.packet_out(3, 0, b"frame", 9),
            encoder.packet_out(4, 77, b"other", 9),
            encoder.barrier(0),
            encoder.add(rules[2], COOKIE + 4),
            encoder.barrier(0),
            encoder.delete(COOKIE + 5),
        )
    )


def test_flush_zone_is_a_message_of_nicira():
    """NXT_CT_FLUSH_ZONE, nicira-ext.h: experimenter 0x2320, number 29, six zeros, the zone."""
    data = Encoder(PIPELINES[0]).flush_zone(0x0102)
    assert data.hex() == "04040018" + "00000102" + "00002320" + "0000001d" + "00" * 6 + "0102"


def test_no_effects_are_no_bytes():
    assert encode_effects(Effects(), Encoder(PIPELINES[0]), set()) == b""
    assert encode_effects(Effects(warnings=["w"]), Encoder(PIPELINES[0]), set()) == b""


def test_meters_are_known_from_one_effects_to_the_next():
    encoder = Encoder(PIPELINES[0])
    meters = {2}

    def commands(*wanted):
        data = encode_effects(Effects(meters=list(wanted)), encoder, meters)
        found = []
        while data:
            found.append(int.from_bytes(data[8:10], "big"))
            data = data[int.from_bytes(data[2:4], "big") :]
        return found

    add, modify, delete = ofproto.OFPMC_ADD, ofproto.OFPMC_MODIFY, ofproto.OFPMC_DELETE
    assert commands(SetMeter(1, 5, 1), SetMeter(2, 5, 1)) == [add, modify]
    # What it comes to in the end is all that is said.
    assert commands(SetMeter(1, 9, 1), SetMeter(1, 0, 0)) == [delete]
    assert commands(SetMeter(1, 5, 1), SetMeter(1, 6, 1)) == [add]
    assert commands(SetMeter(2, 0, 0), SetMeter(3, 0, 0)) == [delete, delete]
    assert meters == {1}


def test_what_cannot_be_encoded_leaves_the_known_meters_alone():
    encoder = Encoder(PIPELINES[0])
    meters = {2}
    effects = Effects(
        meters=[SetMeter(1, 5, 1), SetMeter(2, 0, 0)], packet_outs=[(1, 0, bytes(70000))]
    )
    with pytest.raises(EncodeError):
        encode_effects(effects, encoder, meters)
    assert meters == {2}
    effects.packet_outs.clear()
    assert encode_effects(effects, encoder, meters)
    assert meters == {1}


def test_a_meter_that_does_not_fit_openflow_is_refused():
    for meter in (SetMeter(-1, 5, 1), SetMeter(1, 1 << 32, 1), SetMeter(1, 5, -1)):
        with pytest.raises(EncodeError, match="meter"):
            Encoder(PIPELINES[0]).meter_mod(meter, exists=False)


def test_evictions_are_reported():
    theirs = parser.OFPSetAsync(
        DATAPATH,
        packet_in_mask=(0b000011, 0),
        port_status_mask=(0b111, 0),
        flow_removed_mask=(0b111111, 0),
    )
    assert Encoder(PIPELINES[0]).report_evictions() == serialized(theirs, xid=0)


def test_output_goes_to_the_port_and_asks_for_no_packet_in():
    out = shape([], [Output(Arg("port"))])
    data = Encoder(ShapesOf(out)).add(out.rule(port=0x12), COOKIE)
    assert data[56:].hex() == "00040018" + "00000000" + "00000010" + "00000012" + "0000" + "00" * 6

"""Packet-in, flow-removed, error and the cut into messages."""

import itertools
import struct

import pytest
from os_ken.ofproto import ofproto_v1_3 as ofproto
from os_ken.ofproto import ofproto_v1_3_parser as parser

from controller_app.decode import (
    ERROR_HEAD,
    FLOW_REMOVED_HEAD,
    MAX_PLANS,
    PACKET_IN_HEAD,
    MalformedMessage,
    PacketInDecoder,
    decode_error,
    decode_flow_removed,
    failed_cookie,
    flow_removed_cookie,
    packet_in_cookie,
    split,
)
from controller_app.encode import Encoder
from ondemand.messages import FlowRemoved
from ondemand.pipeline import Pipeline
from tests.support.os_ken_twin import DATAPATH, serialized
from tests.support.packet_in_bytes import (
    COOKIE,
    match_of,
    message,
    os_ken_match,
    oxm,
    packet_in,
)
from tests.support.shape_samples import sample_rules

ABSENT = {
    "vni": 0,
    "source_zone": 0,
    "target_zone": 0,
    "ct_state": 0,
    "ct_mark": 0,
    "ct_src": b"",
    "ct_dst": b"",
    "ct_proto": 0,
    "ct_tp_src": 0,
    "ct_tp_dst": 0,
}
FRAME = bytes(range(60))
V6_SRC, V6_DST = bytes.fromhex("fd00" + "00" * 13 + "01"), bytes.fromhex("fd00" + "00" * 13 + "02")


def decode(buf, decoder=None):
    return (decoder or PacketInDecoder()).decode(buf, 0, len(buf))


def fields(packet):
    return {name: getattr(packet, name) for name in ("in_port", *ABSENT)}


# What Open vSwitch 3.1 sends, recorded from its userspace datapath: the match and what it means.
RECORDED = {
    "v4 new": (
        (
            "00010055 8000000400000001 80000a020800 00010a0400001389 00010c0400000001"
            "0001d30800000021000000ff 0001d4020001 0001f0040a000001 0001f2040a000002 0001ee0111"
            "0001f8028d7e 0001fa020036 000000"
        ),
        {
            "in_port": 1,
            "vni": 5001,
            "source_zone": 1,
            "ct_state": 0x21,
            "ct_src": bytes([10, 0, 0, 1]),
            "ct_dst": bytes([10, 0, 0, 2]),
            "ct_proto": 17,
            "ct_tp_src": 0x8D7E,
            "ct_tp_dst": 54,
        },
    ),
    "v4 reply of a connection judged before": (
        (
            "00010065 8000000400000002 80000a020800 00010a0400001389 00010c0400000002"
            "00010e0400000001 0001d3080000002a000000ff 0001d4020001 0001d60400000001"
            "0001f0040a000001 0001f2040a000002 0001ee0106 0001f802e674 0001fa0201bb 000000"
        ),
        {
            "in_port": 2,
            "vni": 5001,
            "source_zone": 2,
            "target_zone": 1,
            "ct_state": 0x2A,
            "ct_mark": 1,
            "ct_src": bytes([10, 0, 0, 1]),
            "ct_dst": bytes([10, 0, 0, 2]),
            "ct_proto": 6,
            "ct_tp_src": 0xE674,
            "ct_tp_dst": 443,
        },
    ),
    "v6 new": (
        (
            "0001006d 8000000400000001 80000a0286dd 00010a0400001389 00010c0400000001"
            "0001d30800000021000000ff 0001d4020001"
            f"0001f410{V6_SRC.hex()} 0001f610{V6_DST.hex()} 0001ee013a 0001f8020080 0001fa020000 000000"
        ),
        {
            "in_port": 1,
            "vni": 5001,
            "source_zone": 1,
            "ct_state": 0x21,
            "ct_src": V6_SRC,
            "ct_dst": V6_DST,
            "ct_proto": 58,
            "ct_tp_src": 128,
        },
    ),
    "no conntrack": ("0001000c 8000000400000007 00000000", {"in_port": 7}),
}


@pytest.mark.parametrize("name", RECORDED)
def test_what_open_vswitch_sends(name):
    match, expected = RECORDED[name]
    decoder = PacketInDecoder()
    buf = packet_in(bytes.fromhex(match), FRAME, table=80)
    for _ in range(2):  # the first teaches the decoder, the second uses what it learned
        packet = decode(buf, decoder)
        assert fields(packet) == ABSENT | expected
        assert (packet.table, packet.cookie, packet.data) == (80, COOKIE, FRAME)
        assert type(packet.data) is bytes


@pytest.mark.parametrize("v6", [False, True])
def test_any_combination_of_fields_in_any_length(v6):
    """Each field there or not: 2**8 lists of headers, most of one length with others."""
    decoder = PacketInDecoder()
    suffix, src, dst = ("_v6", V6_SRC, V6_DST) if v6 else ("", b"\x0a\0\0\1", b"\x0a\0\0\2")
    choices = {
        "vni": 0x01020304,
        "source_zone": 0x05060708,
        "target_zone": 0x090A0B0C,
        "ct_mark": 0x0D0E0F10,
        "ct_src": src,
        "ct_dst": dst,
        "ct_tp_src": 0x1112,
        "ct_tp_dst": 0x1314,
    }
    for there in itertools.product((False, True), repeat=len(choices)):
        expected = {
            k: v for (k, v), is_there in zip(choices.items(), there, strict=True) if is_there
        }
        oxms = [
            oxm(name + suffix if name in {"ct_src", "ct_dst"} else name, value)
            for name, value in {"in_port": 3, **expected}.items()
        ]
        packet = decode(packet_in(os_ken_match(oxms), FRAME), decoder)
        assert fields(packet) == ABSENT | {"in_port": 3} | expected


def test_lists_of_one_length_are_told_apart():
    decoder = PacketInDecoder()
    for _ in range(3):
        for name in ("vni", "source_zone", "target_zone", "ct_mark"):
            match = os_ken_match([oxm("in_port", 3), oxm(name, 77)])
            assert fields(decode(packet_in(match, FRAME), decoder)) == ABSENT | {
                "in_port": 3,
                name: 77,
            }


def outcome(decoder, buf):
    try:
        packet = decode(buf, decoder)
    except MalformedMessage as error:
        return str(error)
    return fields(packet), packet.data


@pytest.mark.parametrize("name", RECORDED)
def test_a_changed_byte_of_a_header_is_never_overlooked(name):
    """Each byte of the match set to each value: what was learned before does not change the answer."""
    match = bytes.fromhex(RECORDED[name][0])
    whole = packet_in(match, FRAME)
    for at in range(24, 24 + len(match)):
        for value in range(256):
            learned = PacketInDecoder()
            decode(whole, learned)
            changed = whole[:at] + bytes([value]) + whole[at + 1 :]
            assert outcome(learned, changed) == outcome(PacketInDecoder(), changed), (at, value)


def test_the_number_of_plans_is_bounded():
    decoder = PacketInDecoder()
    for number in range(3 * MAX_PLANS):
        unknown = struct.pack(
            ">I", 0x0001_0000 | (30 + number % 60) << 9 | 1 + number // 60
        ) + bytes(1 + number // 60)
        packet = decode(
            packet_in(match_of(bytes.fromhex("8000000400000005") + unknown), FRAME), decoder
        )
        assert packet.in_port == 5
        assert sum(len(plans) for plans in decoder._plans.values()) <= MAX_PLANS


def test_a_message_amid_others_is_read_from_its_place():
    match = os_ken_match([oxm("in_port", 3), oxm("vni", 9)])
    one = packet_in(match, FRAME)
    buf = b"\xff" * 13 + one + b"\xff" * 40
    packet = PacketInDecoder().decode(buf, 13, 13 + len(one))
    assert (packet.in_port, packet.vni, packet.data) == (3, 9, FRAME)


def test_unknown_oxms_are_skipped():
    unknown = (
        bytes.fromhex("ffff0008 00002320 01020304"),  # experimenter class
        bytes.fromhex("00015000"),  # no payload
        bytes.fromhex("0001d4020001"),  # ct_zone
        bytes.fromhex("00015205 0102030405"),  # odd width
        bytes.fromhex("80004d10" + "00" * 8 + "ff" * 8),  # tun_id with a mask
    )
    in_port = bytes.fromhex("8000000400000003")
    for before, after in itertools.product(unknown, repeat=2):
        packet = decode(packet_in(match_of(before + in_port + after), FRAME))
        assert fields(packet) == ABSENT | {"in_port": 3}


def test_a_masked_value_is_read_without_its_mask():
    oxms = bytes.fromhex("8000000400000003 00010b08 0000000a 0000ffff 00010c04 0000000b")
    packet = decode(packet_in(match_of(oxms), FRAME))
    assert (packet.vni, packet.source_zone) == (10, 11)


def test_a_frame_may_be_empty():
    assert decode(packet_in(os_ken_match([oxm("in_port", 3)]), b"")).data == b""


IN_PORT = bytes.fromhex("8000000400000003")


@pytest.mark.parametrize(
    ("buf", "says"),
    [
        (message(10), "8 bytes"),
        (message(10, bytes(25)), "33 bytes"),
        (packet_in(struct.pack(">HH4x", 0, 4), FRAME), "type 0"),
        (packet_in(struct.pack(">HH4x", 1, 3), FRAME), "and 3 bytes"),
        (packet_in(struct.pack(">HH4x", 1, 100), b""), "and 100 bytes"),
        (packet_in(struct.pack(">HH4x", 1, 0xFFFF), FRAME), "and 65535 bytes"),
        (packet_in(struct.pack(">HH4x", 1, 4), FRAME), "in_port"),
        (packet_in(match_of(IN_PORT[:4]), FRAME), "behind its match"),
        (packet_in(match_of(IN_PORT[:-1]), FRAME), "behind its match"),
        (packet_in(match_of(IN_PORT + b"\x00\x01"), FRAME), "behind its match"),
        (packet_in(match_of(IN_PORT + IN_PORT), FRAME), "second OXM"),
        (packet_in(match_of(IN_PORT + bytes.fromhex("00010a020001")), FRAME), "4 bytes"),
        (packet_in(match_of(IN_PORT + bytes.fromhex("00010b0400000001")), FRAME), "4 bytes"),
        (
            packet_in(
                match_of(
                    IN_PORT
                    + bytes.fromhex("0001f004 0a000001")
                    + bytes.fromhex("0001f410")
                    + bytes(16)
                ),
                FRAME,
            ),
            "second OXM",
        ),
    ],
)
def test_a_malformed_packet_in_is_told(buf, says):
    decoder = PacketInDecoder()
    for _ in range(2):
        with pytest.raises(MalformedMessage, match=says):
            decode(buf, decoder)


def test_every_cut_of_a_packet_in_is_malformed_or_cuts_the_frame():
    match = bytes.fromhex(RECORDED["v4 new"][0])
    whole = packet_in(match, FRAME)
    decoder = PacketInDecoder()
    decode(whole, decoder)
    frame_at = len(whole) - len(FRAME)
    for end in range(len(whole)):
        if end < frame_at:
            with pytest.raises(MalformedMessage):
                decoder.decode(whole[:end], 0, end)
        else:
            assert decoder.decode(whole[:end], 0, end).data == FRAME[: end - frame_at]


def test_an_end_behind_the_buffer_is_malformed():
    buf = packet_in(os_ken_match([oxm("in_port", 3)]), FRAME)
    with pytest.raises(MalformedMessage):
        PacketInDecoder().decode(buf, 0, len(buf) + 1)


def test_cookies_are_read_without_decoding():
    buf = b"xx" + packet_in(os_ken_match([oxm("in_port", 3)]), FRAME)
    assert packet_in_cookie(buf, 2, len(buf)) == COOKIE
    assert packet_in_cookie(buf, 2, 25) == -1
    removed = b"x" + flow_removed(COOKIE, reason=0, table=30)
    assert flow_removed_cookie(removed, 1, len(removed)) == COOKIE
    assert flow_removed_cookie(removed, 1, 16) == -1


def flow_removed(cookie, *, reason, table):
    body = struct.pack(">QHBBIIHHQQ", cookie, 100, reason, table, 1, 2, 3, 4, 5, 6)
    return message(11, body + match_of(IN_PORT))


def test_flow_removed_agrees_with_os_ken():
    buf = flow_removed(COOKIE, reason=ofproto.OFPRR_HARD_TIMEOUT, table=80)
    theirs = parser.OFPFlowRemoved.parser(DATAPATH, 4, 11, len(buf), 0, buf)
    ours = decode_flow_removed(b"x" + buf, 1, 1 + len(buf))
    assert ours == FlowRemoved(cookie=COOKIE, table=80, reason=1)
    assert (theirs.cookie, theirs.table_id, theirs.reason) == (COOKIE, 80, 1)


def test_a_short_flow_removed_is_malformed():
    buf = flow_removed(COOKIE, reason=0, table=80)
    for end in range(56):
        with pytest.raises(MalformedMessage):
            decode_flow_removed(buf, 0, end)
    with pytest.raises(MalformedMessage):
        decode_flow_removed(buf, 0, len(buf) + 1)


def test_an_error_tells_which_rule_was_refused():
    pipeline = Pipeline()
    rule = next(sample_rules(pipeline))
    failed = Encoder(pipeline).add(rule, COOKIE)[:64]
    theirs = parser.OFPErrorMsg(
        DATAPATH, ofproto.OFPET_BAD_MATCH, ofproto.OFPBMC_BAD_PREREQ, data=failed
    )
    buf = serialized(theirs, xid=COOKIE & 0xFFFFFFFF)
    xid, kind, code, data = decode_error(b"x" + buf, 1, 1 + len(buf))
    assert (xid, kind, code) == (0x87654321, 4, 9)
    assert failed_cookie(data) == COOKIE


def test_an_experimenter_error_has_its_data_behind_the_experimenter():
    failed = Encoder(Pipeline()).delete(COOKIE)
    buf = message(1, struct.pack(">HHI", 0xFFFF, 23, 0x2320) + failed, xid=7)
    xid, kind, code, data = decode_error(buf, 0, len(buf))
    assert (xid, kind, code, data) == (7, 0xFFFF, 23, failed)
    assert failed_cookie(data) == COOKIE


@pytest.mark.parametrize(
    "data",
    [b"", bytes(64), message(14)[:16], message(13, bytes(32)), message(14, bytes(32), version=5)],
)
def test_no_cookie_where_no_flow_mod_failed(data):
    assert failed_cookie(data) is None


def test_a_short_error_is_malformed():
    for size in range(4):
        buf = message(1, bytes(size))
        with pytest.raises(MalformedMessage):
            decode_error(buf, 0, len(buf))
    with pytest.raises(MalformedMessage):
        decode_error(message(1, bytes(4)), 0, 13)


MESSAGES = [message(0), message(10, bytes(100)), message(1, bytes(7)), message(11, bytes(65527))]


def test_split_gives_the_whole_messages_and_leaves_the_rest():
    buf = b"".join(MESSAGES)
    ends = list(itertools.accumulate(len(m) for m in MESSAGES))
    heads = [0x0400, PACKET_IN_HEAD, ERROR_HEAD, FLOW_REMOVED_HEAD]
    whole = list(zip(heads, [0, *ends[:-1]], ends, strict=True))
    for cut in (*range(200), *range(len(buf) - 20, len(buf) + 1)):
        assert list(split(buf[:cut])) == [m for m in whole if m[2] <= cut]


@pytest.mark.parametrize("length", range(8))
def test_a_message_shorter_than_its_header_ends_the_split_after_the_good_ones(length):
    messages = split(MESSAGES[0] + MESSAGES[1] + struct.pack(">BBHI", 4, 10, length, 0))
    assert next(messages) == (0x0400, 0, 8)
    assert next(messages) == (PACKET_IN_HEAD, 8, 116)
    with pytest.raises(MalformedMessage, match=f"{length} bytes"):
        next(messages)

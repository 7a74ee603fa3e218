"""Rules read back from flow statistics: what is ours, what is not, what breaks the format."""

import random
import struct

import pytest
from os_ken.ofproto import ofproto_v1_3 as ofproto
from os_ken.ofproto import ofproto_v1_3_parser as parser

from controller_app import rule_reader
from controller_app.decode import MalformedMessage, split
from controller_app.encode import Encoder
from controller_app.flow_stats import (
    MULTIPART_REPLY_HEAD,
    flow_entries,
    flow_stats_reply,
    flow_stats_request,
)
from controller_app.rule_reader import RuleReader
from ondemand.pipeline import ICMP, L4, TCP, UDP, Pipeline
from ondemand.records import Direction
from rule_cache.cookie import MAGIC_MASK, MAGIC_VALUE
from rule_cache.rule import Rule
from tests.support.flow_stats_bytes import MOVING, entry_of, oxms_of, reply, with_oxms
from tests.support.os_ken_twin import DATAPATH, serialized
from tests.support.shape_samples import sample_rules

PIPELINE = Pipeline()
ENCODER = Encoder(PIPELINE)
COOKIE = MAGIC_VALUE | 0x0103_0000_0001
ZONE, VNI, MAC, REMOTE = 7, 5001, bytes.fromhex("02aabbccdd01"), bytes([10, 0, 0, 9])


def entry(rule, cookie=COOKIE, **counters):
    return entry_of(ENCODER.add(rule, cookie), **counters)


def read(data, reader=None):
    return (reader or RuleReader(PIPELINE)).read(data, 0, len(data))


def learned():
    """A reader that has seen a rule of every structure."""
    reader = RuleReader(PIPELINE)
    for rule in sample_rules(PIPELINE, per_shape=4):
        read(entry(rule), reader)
    return reader


def test_the_request_is_the_one_that_os_ken_writes():
    theirs = parser.OFPFlowStatsRequest(
        DATAPATH,
        *(0, ofproto.OFPTT_ALL, ofproto.OFPP_ANY, ofproto.OFPG_ANY),
        *(MAGIC_VALUE, MAGIC_MASK, parser.OFPMatch()),
    )
    assert flow_stats_request(77, MAGIC_VALUE, MAGIC_MASK) == serialized(theirs, xid=77)


@pytest.mark.parametrize("more", [False, True])
def test_a_reply_tells_its_xid_and_whether_more_follows(more):
    message = reply([], more=more, xid=0xDEAD_BEEF)
    assert [head for head, _, _ in split(message)] == [MULTIPART_REPLY_HEAD]
    assert flow_stats_reply(message, 0, len(message)) == (0xDEAD_BEEF, more)


def test_a_reply_to_another_question_is_not_ours():
    message = reply([], kind=ofproto.OFPMP_PORT_DESC)
    assert flow_stats_reply(message, 0, len(message)) is None


def test_a_reply_that_is_too_short_breaks_the_format():
    message = reply([])
    with pytest.raises(MalformedMessage, match="15 bytes"):
        flow_stats_reply(message, 0, 15)
    with pytest.raises(MalformedMessage, match="16 bytes"):
        flow_stats_reply(message[:-1], 0, 16)


def unprotected(zone):
    """A simple rule with a value: two fields, one action."""
    return Rule(PIPELINE.unprotected[4], (zone,))


def test_entries_are_walked_with_cookie_and_table():
    entries = [entry(unprotected(n), COOKIE + n) for n in (1, 2)]
    entries.append(entry(PIPELINE.to_arp.rule(), 0x77))
    before = b"what came before"
    buf = before + reply(entries) + b"what comes next"
    found = list(flow_entries(buf, len(before), len(buf) - 15))
    assert [(cookie, table) for cookie, table, _, _ in found] == [
        (COOKIE + 1, 50),
        (COOKIE + 2, 50),
        (0x77, 10),
    ]
    assert [buf[start:end] for _, _, start, end in found] == entries
    assert list(flow_entries(reply([]), 0, 16)) == []


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(lambda e: b"\0\0" + e[2:], id="length 0"),
        pytest.param(lambda e: b"\0\x30" + e[2:], id="shorter than its head"),
        pytest.param(lambda e: b"\xff\xf8" + e[2:], id="longer than the message"),
        pytest.param(lambda e: (len(e) - 1).to_bytes(2, "big") + e[2:-1], id="not padded"),
        pytest.param(lambda e: e[:-8], id="cut"),
        pytest.param(lambda e: e[:40], id="cut in its head"),
        pytest.param(lambda e: e[:1], id="one byte"),
    ],
)
def test_entries_that_break_the_format(second):
    first = entry(unprotected(1))
    message = reply([first, second(entry(unprotected(2)))])
    walk = flow_entries(message, 0, len(message))
    assert next(walk) == (COOKIE, 50, 16, 16 + len(first))
    with pytest.raises(MalformedMessage, match="flow statistics"):
        next(walk)
    with pytest.raises(MalformedMessage, match="cut"):
        next(flow_entries(message, 0, len(message) + 1))


@pytest.mark.parametrize("base", [0, 100])
def test_every_shape_is_read_back_the_first_time_and_by_a_plan(base):
    pipeline = Pipeline(base)
    encoder, reader = Encoder(pipeline), RuleReader(pipeline)
    for _ in range(2):
        for rule in sample_rules(pipeline, per_shape=5):
            data = b"junk" + entry_of(encoder.add(rule, COOKIE)) + b"junk"
            assert reader.read(data, 4, len(data) - 4) == rule, str(rule)


def test_values_have_the_types_that_rules_are_made_with():
    rule = PIPELINE.gateway_echo[4].rule(vni=VNI, mac=MAC, remote=REMOTE)
    found = read(entry(rule))
    assert found == rule
    assert [type(value) for value in found.values] == [int, bytes, bytes]
    assert (type(found.idle_timeout), found.shape) == (int, rule.shape)


def test_timeouts_are_read_and_age_and_counters_are_not():
    reader = RuleReader(PIPELINE)
    rule = Rule(PIPELINE.arp_deny, (ZONE, REMOTE), 60, 0xFFFF)
    assert read(entry(rule, age_s=1, packets=0), reader) == rule
    other = Rule(PIPELINE.arp_deny, (ZONE + 1, REMOTE), 0, 1)
    assert read(entry(other, 0x99, age_s=1 << 31, packets=1 << 40), reader) == other


def test_the_order_of_the_matched_fields_means_nothing():
    reader = learned()
    for rule in sample_rules(PIPELINE, per_shape=1):
        data = entry(rule)
        assert read(with_oxms(data, oxms_of(data)[::-1]), reader) == rule


@pytest.mark.parametrize("family", [4, 6])
def test_a_prefix_of_all_bits_is_reported_without_mask_and_of_none_not_at_all(family):
    shape = PIPELINE.allowed_source[family]
    size = 4 if family == 4 else 16
    address = b"\xfd" * size
    reader = RuleReader(PIPELINE)
    host = shape.rule(zone=ZONE, mac=MAC, source=address, source_mask=b"\xff" * size)
    data = entry(host)
    *others, source = oxms_of(data)
    exact = source[:2] + bytes([source[2] & ~1, size]) + source[4 : 4 + size]
    for fields in ([*others, source], [*others, exact], [exact, *others]):
        assert read(with_oxms(data, fields), reader) == host
    everything = shape.rule(zone=ZONE, mac=MAC, source=bytes(size), source_mask=bytes(size))
    assert read(with_oxms(data, others), reader) == everything
    assert read(entry(everything), reader) == everything


def test_open_vswitchs_words_for_tags_fragments_and_moves():
    tag = PIPELINE.no_vlan[0].rule()
    assert read(with_oxms(entry(tag), [bytes.fromhex("80000d0410001000")])) == tag
    assert read(with_oxms(entry(tag), [bytes.fromhex("80000c021000")])) is None
    later = PIPELINE.later_fragment[Direction.EGRESS, 4].rule()
    data = entry(later)
    others = [oxm for oxm in oxms_of(data) if not oxm.startswith(b"\0\x01\x35")]
    assert read(with_oxms(data, [*others, bytes.fromhex("0001340103")])) == later
    assert read(with_oxms(data, [*others, bytes.fromhex("0001340101")])) is None
    arp = PIPELINE.arp_reply.rule(zone=ZONE, target=REMOTE, mac=MAC)
    data = entry(arp)
    reported = data.replace(  # move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]
        bytes.fromhex("8000080680000606"), bytes.fromhex("0000040600000206")
    )
    assert reported != data
    assert read(reported) == arp
    assert read(data.replace(bytes.fromhex("8000080680000606"), bytes(8))) is None


def test_ports_and_icmp_of_one_connection_are_told_apart_by_the_protocol():
    reader = RuleReader(PIPELINE)
    ports = PIPELINE.verdict[Direction.EGRESS, 4, L4.PORT, False, True][0]
    icmp = PIPELINE.verdict[Direction.EGRESS, 4, L4.ICMP, False, True][0]
    local = bytes([10, 0, 0, 1])
    rules = [Rule(icmp, (ZONE, REMOTE, ICMP, 8, 0, local))]
    rules += [Rule(ports, (ZONE, REMOTE, protocol, 443, local, 1024)) for protocol in (TCP, UDP)]
    for rule in rules * 2:
        data = entry(rule)
        fields = sorted(oxms_of(data))
        assert read(with_oxms(data, fields), reader) == rule
    # Conntrack keeps no connection of any other protocol that would come here.
    assert read(entry(Rule(ports, (ZONE, REMOTE, 132, 443, local, 1024))), reader) is None


def test_an_argument_in_two_places_has_one_value():
    reader = RuleReader(PIPELINE)
    rule = PIPELINE.gateway_echo[4].rule(vni=VNI, mac=MAC, remote=REMOTE)
    data = entry(rule)
    at = data.rindex(REMOTE)
    tampered = data[:at] + bytes([10, 0, 0, 8]) + data[at + 4 :]
    assert read(tampered, reader) is None
    assert read(data, reader) == rule
    assert read(tampered, reader) is None  # now by the plan


def test_no_meter_is_meter_0_but_an_instruction_with_0_is_not():
    reader = RuleReader(PIPELINE)
    rules = [PIPELINE.location_miss.rule(zone=ZONE, meter=meter) for meter in (0, 5, 6)]
    for rule in rules:
        assert read(entry(rule), reader) == rule
    metered = entry(rules[1])
    zero = metered.replace(struct.pack(">HHI", 6, 8, 5), struct.pack(">HHI", 6, 8, 0))
    assert zero != metered
    assert read(zero, reader) is None
    assert read(zero) is None


def test_bits_outside_of_the_mask_are_not_ours():
    shape = PIPELINE.allowed_source[4]
    rule = shape.rule(zone=ZONE, mac=MAC, source=bytes([10, 0, 0, 0]), source_mask=b"\xff\0\0\0")
    reader = RuleReader(PIPELINE)
    data = entry(rule)
    assert read(data, reader) == rule
    tampered = data.replace(bytes([10, 0, 0, 0]), bytes([10, 0, 0, 1]))
    assert read(tampered, reader) is None
    assert read(tampered) is None


@pytest.mark.parametrize(
    ("shape", "flags"), [(PIPELINE.arp_deny, 0), (PIPELINE.arp_deny, 3), (PIPELINE.to_arp, 1)]
)
def test_a_rule_that_reports_its_removal_otherwise_is_not_ours(shape, flags):
    for reader in (RuleReader(PIPELINE), learned()):
        values = {"zone": ZONE, "target": REMOTE} if shape.args else {}
        data = entry(shape.rule(**values))
        assert read(data[:18] + flags.to_bytes(2, "big") + data[20:], reader) is None


def test_rules_of_another_block_of_tables_are_not_ours():
    other = Pipeline(1)
    encoder, reader = Encoder(other), learned()
    for rule in sample_rules(other, per_shape=1):
        assert read(entry_of(encoder.add(rule, COOKIE)), reader) is None


def varied(data, rng):
    """The entry with one bit changed, of each byte that says something of the rule."""
    for at in range(len(data)):
        if at not in MOVING:
            yield data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def test_padding_that_says_something_makes_a_rule_foreign():
    """A later version of the protocol may give it a meaning that we do not know."""
    data = entry(unprotected(1))
    assert read(data) == unprotected(1)
    for at in (3, *range(20, 24), *range(66, 72), *range(76, 80), *range(93, 96)):
        assert data[at] == 0
        tampered = data[:at] + b"\x01" + data[at + 1 :]
        assert read(tampered) is None, at
        assert read(tampered, learned()) is None, at


def sorted_match(data):
    return with_oxms(data, sorted(oxms_of(data)))


def outcome(data, reader):
    try:
        return read(data, reader)
    except MalformedMessage:
        return "malformed"


def test_whatever_bit_changes_the_rule_that_is_read_is_the_one_that_is_there(monkeypatch):
    """A rule is only ever read where the encoder, given that rule, makes the entry byte for byte.

    But for the order of the matched fields: one bit makes a source of a destination.
    """
    rng = random.Random(5)
    by_plan = learned()
    entries = [entry(rule) for rule in sample_rules(PIPELINE, per_shape=1)]
    tampered = [other for data in entries for other in varied(data, rng)]
    found = [outcome(data, by_plan) for data in tampered]
    monkeypatch.setattr(rule_reader, "MAX_PLANS", 0)
    slow = RuleReader(PIPELINE)
    for data, rule in zip(tampered, found, strict=True):
        assert outcome(data, slow) == rule
        if isinstance(rule, Rule):
            assert sorted_match(entry(rule)) == sorted_match(data), str(rule)
    assert {type(rule) for rule in found} == {Rule, type(None), str}


def test_each_tampered_action_makes_a_rule_foreign():
    shape = PIPELINE.verdict[Direction.EGRESS, 4, L4.PORT, False, False][0]
    rule = Rule(shape, (ZONE, REMOTE, TCP, 443), 60)
    reader = RuleReader(PIPELINE)
    data = entry(rule)
    assert read(data, reader) == rule
    size = len(data)
    (match_bytes,) = struct.unpack_from(">H", data, 50)
    begin = 48 + (match_bytes + 7 & ~7)
    assert all(
        outcome(other, reader) in (None, "malformed")
        for other in (
            data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :] for at in range(begin, size)
        )
    )
    extra = struct.pack(">HHIH6x", 0, 16, 1, 0)  # output:1 behind all that is there
    (length,) = struct.unpack_from(">H", data, begin + 2)
    longer = data[: begin + 2] + struct.pack(">H", length + 16) + data[begin + 4 :] + extra
    longer = struct.pack(">H", size + 16) + longer[2:]
    assert read(longer, reader) is None


def test_an_instruction_or_field_of_no_shape_is_foreign():
    data = entry(unprotected(1))
    goto = struct.pack(">HHB3x", 1, 8, 91)
    assert read(struct.pack(">H", len(data) + 8) + data[2:] + goto) is None
    experimenter = bytes.fromhex("ffff000800002320") + bytes(4)
    assert read(with_oxms(data, [*oxms_of(data), experimenter])) is None
    assert read(with_oxms(data, [])) is None
    assert read(with_oxms(data, [*oxms_of(data), bytes.fromhex("00010c0400000001")])) is None


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda e: e[:40], id="cut in its head"),
        pytest.param(lambda e: e[:-8], id="cut"),
        pytest.param(lambda e: e + bytes(8), id="longer than it says"),
        pytest.param(lambda e: b"\0\x68" + e[2:], id="shorter than it says"),
        pytest.param(lambda e: e[:48] + b"\0\0" + e[50:], id="match of another type"),
        pytest.param(lambda e: e[:50] + b"\0\3" + e[52:], id="match shorter than its head"),
        pytest.param(lambda e: e[:50] + b"\xff\xff" + e[52:], id="match longer than the entry"),
        pytest.param(lambda e: e[:55] + b"\xff" + e[56:], id="field longer than the match"),
        pytest.param(lambda e: with_oxms(e, oxms_of(e) * 2), id="a field twice"),
        pytest.param(lambda e: e[:74] + b"\0\0" + e[76:], id="instruction of length 0"),
        pytest.param(lambda e: e[:74] + b"\0\x20" + e[76:], id="instruction too long"),
        pytest.param(lambda e: e[:82] + b"\0\0" + e[84:], id="action of length 0"),
        pytest.param(lambda e: e[:82] + b"\0\x0c" + e[84:], id="action not padded"),
    ],
)
def test_an_entry_that_breaks_the_format(broken):
    data = entry(unprotected(1))
    for reader in (RuleReader(PIPELINE), learned()):
        with pytest.raises(MalformedMessage):
            read(broken(data), reader)


def test_a_reader_with_its_fill_of_plans_still_reads(monkeypatch):
    monkeypatch.setattr(rule_reader, "MAX_PLANS", 3)
    reader = RuleReader(PIPELINE)
    for _ in range(2):
        for rule in sample_rules(PIPELINE, per_shape=2):
            assert read(entry(rule), reader) == rule

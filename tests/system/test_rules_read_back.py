"""What a real switch reports of our rules is read back as the very same rules."""

import pytest

from controller_app.decode import decode_error, split
from controller_app.encode import Encoder, reports_removal
from controller_app.flow_stats import (
    MULTIPART_REPLY_HEAD,
    flow_entries,
    flow_stats_reply,
    flow_stats_request,
)
from controller_app.rule_reader import RuleReader
from mininet_topos.lab_run import LabRun
from mininet_topos.ovs_node import OvsNode
from ondemand.messages import SetMeter
from ondemand.pipeline import Pipeline
from rule_cache.cookie import MAGIC_MASK, MAGIC_VALUE, Cookies
from rule_cache.rule import Rule, format_rule
from tests.support.shape_samples import METERS, sample_rules
from tests.support.switch_client import SwitchClient

BRIDGE = "br-back"
ERROR, FLOW_REMOVED = 1, 11
ALL = (0, 0)
OURS = (MAGIC_VALUE, MAGIC_MASK)
COOKIE = MAGIC_VALUE | 0x0103_0000_0001


@pytest.fixture(scope="module")
def node(lab_machine):
    with LabRun() as run:
        node = OvsNode(run, "back")
        node.vsctl(
            *("add-br", BRIDGE, "--", "set", "Bridge", BRIDGE),
            *("datapath_type=netdev", "fail_mode=secure"),
        )
        yield node


@pytest.fixture
def client(node):
    node.ofctl("del-flows", BRIDGE)
    node.ofctl("del-meters", BRIDGE)
    with SwitchClient(node.directory / f"{BRIDGE}.mgmt") as client:
        for meter in METERS:
            client.send(Encoder(Pipeline()).meter_mod(SetMeter(meter, 10, 10), exists=False))
        yield client


def install(client, encoder, rules):
    client.send(b"".join(encoder.add(rule, cookie) for cookie, rule in rules.items()))
    errors = [decode_error(m, 0, len(m)) for m in client.barrier() if m[1] == ERROR]
    assert errors == []


def read_back(client, reader, which=OURS, xid=77):
    """Cookie -> rule of all entries of the answer; the flags of its messages say where it ends."""
    client.send(flow_stats_request(xid, *which))
    buf = b"".join(client.barrier())
    found, flags = {}, []
    for head, start, end in split(buf):
        assert head == MULTIPART_REPLY_HEAD
        answered, more = flow_stats_reply(buf, start, end)
        assert answered == xid
        flags.append(more)
        for cookie, table, entry_start, entry_end in flow_entries(buf, start, end):
            rule = reader.read(buf, entry_start, entry_end)
            assert rule is None or rule.shape.table == table
            assert cookie not in found
            found[cookie] = rule
    assert flags == [True] * (len(flags) - 1) + [False]
    return found


def numbered(rules, round_number=1):
    """Cookie -> rule, without those that would replace an earlier one."""
    cookies, occupied, chosen = Cookies(round_number), set(), {}
    for rule in rules:
        if rule.key not in occupied:
            occupied.add(rule.key)
            chosen[cookies.next(rule.shape.table)] = rule
    return chosen


@pytest.mark.parametrize("base", [0, 100])
def test_a_rule_of_every_shape_comes_back_as_it_was_sent(client, base):
    pipeline = Pipeline(base)
    encoder, reader = Encoder(pipeline), RuleReader(pipeline)
    seen = set()
    for turn in range(6):
        rules = numbered(list(sample_rules(pipeline, per_shape=turn + 1)), turn)
        install(client, encoder, rules)
        assert read_back(client, reader) == rules
        seen |= {(rule.shape, 0 in rule.values) for rule in rules.values()}
        client.send(encoder.delete_matching(*OURS))
        # With over 100 reports that nobody has read the switch reads no more either.
        reports = [rule for rule in rules.values() if reports_removal(rule.shape, pipeline)]
        assert len(client.wait_for(FLOW_REMOVED, len(reports))) == len(reports)
    assert {shape for shape, _ in seen} == set(pipeline.shapes)
    metered = {shape for shape in pipeline.shapes if "meter" in shape.args}
    assert metered
    assert {(shape, without) for shape in metered for without in (False, True)} <= seen
    assert read_back(client, reader) == {}


def test_another_reader_with_the_plans_of_none_reads_the_same(client):
    pipeline = Pipeline()
    rules = numbered(sample_rules(pipeline, per_shape=8))
    install(client, Encoder(pipeline), rules)
    reader = RuleReader(pipeline)
    assert read_back(client, reader) == rules
    assert read_back(client, reader) == rules  # each now by a plan
    assert set(read_back(client, RuleReader(Pipeline(1))).values()) == {None}


@pytest.mark.parametrize("family", [4, 6])
def test_prefixes_of_every_length(client, family):
    pipeline = Pipeline()
    bits = 32 if family == 4 else 128
    shape, size = pipeline.allowed_source[family], bits // 8
    rules = {}
    for length in range(bits + 1):
        mask = ((1 << length) - 1) << (bits - length)
        values = (length + 1, bytes(6), mask.to_bytes(size, "big"), mask.to_bytes(size, "big"))
        rules[COOKIE + length] = Rule(shape, values)
    install(client, Encoder(pipeline), rules)
    reader = RuleReader(pipeline)
    for _ in range(2):
        assert read_back(client, reader) == rules


def test_rules_of_others_are_none_of_ours(node, client):
    pipeline = Pipeline()
    rule = pipeline.unprotected[4].rule(zone=5)
    install(client, Encoder(pipeline), {COOKIE: rule})
    words = format_rule(rule)
    tampered = {
        # With another zone each, so that none takes the place of another.
        0x11: words.replace("reg7=0x5", "reg7=0x6") + ",resubmit(,10)",
        0x12: words.replace("reg7=0x5", "reg7=0x7").replace("(,90)", "(,80)"),
        0x13: words.replace("reg7=0x5", "reg7=0x8/0xff"),
        0x14: words.replace("reg7=0x5", "reg7=0x9,reg6=1"),
        0x15: words.replace("reg7=0x5", "send_flow_rem,reg7=0xa"),
        0x16: words.replace("priority=200", "priority=201"),
        0x17: words.replace("reg7=0x5", "reg7=0xb").replace("table=50", "table=51"),
        0x18: "table=90,priority=200,reg7=1 actions=drop",
        0x19: "table=0,priority=0 actions=NORMAL",
        0x1A: "table=50,priority=200,reg7=0xc actions=write_actions(output:1),goto_table:90",
        0x1B: "table=50,priority=200,reg7=0xd actions=meter:1,resubmit(,90)",
        0x1C: "table=50,priority=200,reg7=0xe actions=note:00.01,learn(table=3),output:NXM_NX_REG1[]",
        0x1D: "table=50,priority=200,reg7=0xf,ip actions=ct(commit,nat(src=10.0.0.1),table=60)",
    }
    node.add_flows(BRIDGE, *(f"cookie={cookie},{text}" for cookie, text in tampered.items()))
    reader = RuleReader(pipeline)
    for _ in range(2):
        found = read_back(client, reader, ALL)
        assert found == {COOKIE: rule, **dict.fromkeys(tampered)}
    assert read_back(client, reader) == {COOKIE: rule}


def test_on_demand_rules_that_do_not_report_their_removal_are_not_ours(node, client):
    pipeline = Pipeline()
    rule = pipeline.arp_deny.rule(zone=1, target=bytes([10, 0, 0, 1]))
    text = format_rule(rule, COOKIE)
    node.add_flows(BRIDGE, text)
    assert read_back(client, RuleReader(pipeline)) == {COOKIE: None}
    node.add_flows(BRIDGE, text.replace("table=", "send_flow_rem,table="))
    assert read_back(client, RuleReader(pipeline)) == {COOKIE: rule}


def test_an_answer_of_many_messages(client):
    pipeline = Pipeline()
    rules = {COOKIE + n: Rule(pipeline.unprotected[4], (n,)) for n in range(1, 3001)}
    install(client, Encoder(pipeline), rules)
    client.send(flow_stats_request(1, *OURS))
    assert len(client.barrier()) > 1
    assert read_back(client, RuleReader(pipeline)) == rules

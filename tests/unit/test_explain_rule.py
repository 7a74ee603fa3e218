"""``ondemand explain --rule`` and ``--rules``: what a rule is, whether it is true, what would remove it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller_app.cli import cli
from controller_app.encode import Encoder
from controller_app.explain_reads import reads_of
from controller_app.explain_rule_text import age_text
from controller_app.explain_rule_words import RuleWords
from controller_app.explain_switch import ServedPorts, SwitchView
from controller_app.goal_state_file import load_goal_state
from controller_app.sqlite_store import SqliteStore
from ondemand.addresses import parse_ip, parse_mac
from ondemand.decide import locate, resolve
from ondemand.local_ports import host_mark, port_mark
from ondemand.pipeline import Pipeline
from ondemand.read_back import FoundPort
from ondemand.rule_subjects import RuleSubjects
from ondemand.world import World
from rule_cache.cookie import Cookies
from rule_cache.fields import CtState
from rule_cache.rule import Rule
from tests.support.agent_on_store import AgentOnStore, missed
from tests.support.flow_stats_bytes import entry_of
from tests.support.frame_builder import (
    build_arp,
    build_icmp4,
    build_ipv4_raw,
    build_sctp4,
    build_tcp4,
)
from tests.support.shape_samples import sample_rules
from tests.support.switch_server import SwitchServer

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "two-subnets.yaml"
PIPELINE = Pipeline()
NEW = CtState.TRK | CtState.NEW
WEB_1, WEB_2, DATABASE = "10.0.1.10", "10.0.1.11", "10.0.2.10"
MAC_1, GATEWAY_MAC = "fa:16:3e:00:01:0a", "02:67:77:00:13:89"


def entries_of(rules, pipeline):
    encoder = Encoder(pipeline)
    return {
        cookie: (rule.shape.table, entry_of(encoder.add(rule, cookie), age_s=4, packets=1234))
        for cookie, rule in rules.items()
    }


def sent(table, target, tp_dst, *, source=WEB_1, eth_dst=GATEWAY_MAC, tp_src=40000):
    """A TCP packet of web-1 that missed."""
    frame = build_tcp4(src=source, dst=target, tp_src=tp_src, tp_dst=tp_dst, eth_src=MAC_1, eth_dst=eth_dst)  # fmt: skip
    return missed(table, frame, source=source, target=target, proto=6, ports=(tp_src, tp_dst), state=NEW, vni=5001, source_zone=1)  # fmt: skip


def received(source, tp_dst):
    frame = build_tcp4(src=source, dst=WEB_1, tp_src=40000, tp_dst=tp_dst, eth_src=GATEWAY_MAC, eth_dst=MAC_1)  # fmt: skip
    return missed(80, frame, source=source, target=WEB_1, proto=6, ports=(40000, tp_dst), state=NEW, target_zone=1, in_port=2)  # fmt: skip


class Site:
    """A store, the agent of host-1 with port web-1, and its switch."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.store_path = folder / "slices.db"
        self.socket = folder / "br-int.mgmt"
        self.store = SqliteStore(self.store_path, writer=True)
        self.store.publish(load_goal_state(EXAMPLE), replace_all=True)
        self.agent = AgentOnStore(self.store, "host-1", "192.0.2.11", "web-1", **settings)
        self.agent.engine.tunnel_plugged(2)
        self.agent.serve()

    @property
    def pipeline(self):
        """That of the agent, whose shapes its rules have."""
        return self.agent.engine.pipeline

    def cookie(self, rule_text):
        """The cookie of the one installed rule whose text has this."""
        (cookie,) = [c for c, rule in self.agent.installed.items() if rule_text in str(rule)]
        return cookie

    def run(self, *arguments, code=0, extra=None, conduct="answer"):
        rules = self.agent.installed | (extra or {})
        self.socket.unlink(missing_ok=True)
        with SwitchServer(self.socket, entries_of(rules, self.pipeline), conduct):
            result = CliRunner().invoke(
                cli,
                [
                    *("explain", "--store", str(self.store_path)),
                    *("--switch", f"unix:{self.socket}", *arguments),
                ],
            )
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    def explain(self, rule_text, *, code=0):
        """The explanation of an installed rule, as JSON and as text in one line."""
        cookie = hex(self.cookie(rule_text))
        found = json.loads(self.run("--rule", cookie, "--json", code=code).stdout)
        text = self.run("--rule", cookie, code=code).stdout
        assert found["rule"] in text
        assert found["cookie"] in text
        return found, " ".join(text.split())


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.store.close()


# -- rules that traffic made ---------------------------------------------------------------------


def test_a_rule_that_lets_a_packet_out(site):
    site.agent.rules_for(sent(30, DATABASE, 5432))
    found, text = site.explain("table=30,idle_timeout")
    assert found["what"] == "lets port web-1 send TCP to port 5432 of 10.0.2.10"
    assert (found["true"], found["port"], found["kind"]) == (True, "web-1", "on demand")
    assert (found["packets"], found["bytes"], found["age_s"]) == (1234, 1234 * 60, 4.0)
    assert found["why"]["security_rule"]["group"] == "web"
    assert found["why"]["security_rule"]["rule"] == "out"
    assert [read["what"] for read in found["depends_on"]] == [
        "port web-1 on this host: its record, its subnet, its interface",
        "the rules of security group operations (slice sg/operations)",
        "the rules of security group web (slice sg/web)",
    ]
    assert found["removed_by"][0] == "60 s without a packet"
    assert "50,000 rules or the host 200,000: the oldest goes" in found["removed_by"][1]
    assert "what it lets port web-1 send TCP to port 5432 of 10.0.2.10" in text
    assert "why allowed by rule web/out" in text
    assert "true yes: a fresh decision gives the same rule" in text
    assert "1,234 packets, 74,040 bytes, installed 4 s ago" in text


def test_where_packets_go_and_whom_that_depends_on(site):
    site.agent.rules_for(sent(30, DATABASE, 5432))
    found, text = site.explain("table=40,idle_timeout")
    assert found["what"] == (
        "sends packets of subnet front to 10.0.2.10 at 02:67:77:00:13:89"
        " by tunnel to host 192.0.2.13, VNI 5002, routed"
    )
    assert (found["port"], found["subnet"], found["true"]) == (None, "front", True)
    whats = [read["what"] for read in found["depends_on"]]
    assert "the subnets, routers and routes of VPC shop (slice vpc/shop)" in whats
    assert "neighbor 10.0.2.10 of VPC shop (slice nbr/shop/10.0.2.0, key ip/10.0.2.10)" in whats
    assert "whether port database-1 is on this host" in whats
    assert whats[0] == "the port of subnet front that asked, be it web-1 or another one"
    assert "why port database-1 by tunnel to 192.0.2.13, VNI 5002, routed" in text


def test_a_rule_that_lets_a_packet_in_for_a_group(tmp_path):
    site = Site(tmp_path)
    site.agent = AgentOnStore(site.store, "host-3", "192.0.2.13", "vpn", "database-1")
    site.agent.engine.tunnel_plugged(7)
    site.agent.serve()
    frame = build_tcp4(src=WEB_1, dst=DATABASE, tp_src=40000, tp_dst=5432, eth_src="02:00:5e:00:00:02", eth_dst="fa:16:3e:00:02:0a")  # fmt: skip
    site.agent.rules_for(missed(80, frame, source=WEB_1, target=DATABASE, proto=6, ports=(40000, 5432), state=NEW, target_zone=2, in_port=7))  # fmt: skip
    found, _ = site.explain("table=80,idle_timeout")
    assert found["what"] == "lets port database-1 receive TCP to its port 5432 from 10.0.1.10"
    assert found["host"] == "host-3"
    assert found["why"]["security_rule"]["rule"] == "sql"
    assert "neighbor 10.0.1.10 of VPC shop (slice nbr/shop/10.0.1.0, key ip/10.0.1.10)" in [
        read["what"] for read in found["depends_on"]
    ]
    site.store.close()


def test_a_drop_says_who_would_be_let_in(site):
    site.agent.rules_for(received("10.0.1.11", 22))
    found, text = site.explain("table=80,hard_timeout")
    assert found["what"] == "drops the TCP that comes to port web-1 to its port 22 from 10.0.1.11"
    assert (found["why"]["allowed"], found["why"]["reason"]) == (False, "no_rule")
    assert "10.0.2.0/24 (operations/ssh); 10.0.1.11 is none of them" in text
    assert found["removed_by"][0] == "10 s after it was installed, that is in 6 s"
    assert found["true"]


def test_answers_to_arp(site):
    for address in (WEB_2, "10.0.1.77", "10.0.1.1"):
        frame = build_arp(sha=MAC_1, spa=WEB_1, tpa=address)
        site.agent.rules_for(missed(5, frame, vni=5001, source_zone=1))
    answered, _ = site.explain("arp_tpa=10.0.1.11 ")
    assert answered["what"] == (
        "answers port web-1's ARP question for 10.0.1.11 with fa:16:3e:00:01:0b"
    )
    assert answered["why"]["sentence"].endswith("a neighbor")
    silent, _ = site.explain("arp_tpa=10.0.1.77 ")
    assert silent["what"] == "drops port web-1's ARP question for 10.0.1.77 without an answer"
    assert silent["why"]["reason"] == "unknown_neighbor"
    absent = [read for read in silent["depends_on"] if read["key"] == "ip/10.0.1.77"]
    assert [read["record"] for read in absent] == [None]
    assert "the address claims of VPC shop (slice vpc/shop)" in [
        read["what"] for read in silent["depends_on"]
    ]
    gateway, _ = site.explain("arp_tpa=10.0.1.1 ")
    assert gateway["why"]["sentence"].endswith("the gateway")


def test_ping_of_the_gateway_and_icmp(site):
    frame = build_icmp4(src=WEB_1, dst="10.0.1.1", eth_src=MAC_1, eth_dst=GATEWAY_MAC)
    site.agent.rules_for(missed(30, frame, source=WEB_1, target="10.0.1.1", proto=1, ports=(8, 0), state=NEW, vni=5001, source_zone=1))  # fmt: skip
    echo, _ = site.explain("table=40,idle_timeout")
    assert echo["what"] == "answers ping of gateway 10.0.1.1 in subnet front"
    verdict, _ = site.explain("table=30,idle_timeout")
    assert verdict["what"] == "lets port web-1 send ICMP echo request to 10.0.1.1"
    assert echo["true"]
    assert verdict["true"]


def test_both_rules_of_an_sctp_association(site):
    frame = build_sctp4(src=WEB_1, dst=WEB_2, tp_src=1000, tp_dst=3868, eth_src=MAC_1, eth_dst="fa:16:3e:00:01:0b")  # fmt: skip
    site.agent.rules_for(missed(30, frame, vni=5001, source_zone=1))
    out, _ = site.explain("table=30,idle_timeout")
    assert out["what"] == "lets port web-1 send SCTP to port 3868 of 10.0.1.11"
    back, _ = site.explain("table=80,idle_timeout")
    assert back["what"] == (
        "lets port web-1 receive the answers to the SCTP that it sends to port 3868 of 10.0.1.11"
    )
    assert out["true"]
    assert back["true"]


def test_rules_of_whole_connections_show_it_themselves(tmp_path):
    site = Site(tmp_path, match_connection=True)
    site.agent.rules_for(sent(30, DATABASE, 5432))
    found, _ = site.explain("table=30,idle_timeout")
    assert found["what"].endswith("5432 of 10.0.2.10, from port 40000 of 10.0.1.10")
    assert found["true"]
    # Unless it is said what the agent makes.
    cookie = hex(site.cookie("table=30,idle_timeout"))
    site.run("--rule", cookie, "--match", "connection")
    text = site.run("--rule", cookie, "--match", "service", code=1).stdout
    assert "a fresh decision gives another rule" in text
    site.store.close()


def test_what_a_rule_depends_on_is_what_its_agent_has_it_depend_on(site):
    vrrp = missed(30, build_ipv4_raw(112, bytes(20), src=WEB_1, dst=WEB_2, eth_src=MAC_1, eth_dst="02:00:00:00:00:77"), vni=5001, source_zone=1)  # fmt: skip
    for packet in (
        sent(30, DATABASE, 5432),
        sent(30, "172.16.9.9", 80),
        sent(30, "8.8.8.8", 80),
        sent(30, "10.0.1.77", 80, eth_dst="02:00:00:00:00:77"),
        received("10.0.1.11", 22),
        received("10.0.2.10", 22),
        received("10.0.1.100", 80),
        missed(5, build_arp(sha=MAC_1, spa=WEB_1, tpa="10.0.1.100"), vni=5001, source_zone=1),
        missed(5, build_arp(sha=MAC_1, spa=WEB_1, tpa="10.0.9.1"), vni=5001, source_zone=1),
        vrrp,
    ):
        site.agent.rules_for(packet)
    entries = list(site.agent.engine.installer.ledger)
    assert len(entries) > 14
    whats = set()
    for entry in entries:
        found = json.loads(site.run("--rule", hex(entry.cookie), "--json").stdout)
        assert {read["tag"] for read in found["depends_on"]} == set(entry.tags)
        whats |= {read["what"] for read in found["depends_on"]}
    mac = "02:00:00:00:00:77"
    words = rf"who takes packets for {mac} in subnet front of VPC shop \(slice nbr/shop/mac-\w+, key mac/front/{mac}\)"  # fmt: skip
    assert [what for what in whats if re.fullmatch(words, what)]


def test_an_agent_with_tables_of_its_own(tmp_path):
    site = Site(tmp_path, table_base=100)
    site.agent.rules_for(sent(130, DATABASE, 5432))
    cookie = hex(site.cookie("table=130,idle_timeout"))
    outside = site.run("--rule", cookie, code=2).stderr
    assert "in table 130 is outside the tables 0 to 90" in outside
    text = site.run("--rule", cookie, "--table-base", "100").stdout
    assert "lets port web-1 send TCP to port 5432 of 10.0.2.10" in text
    listed = json.loads(site.run("--rules", "--json", "--table-base", "100").stdout)
    assert len(listed["rules"]) == 2
    site.store.close()


# -- not true any more ---------------------------------------------------------------------------


def test_a_neighbor_that_moved(site):
    site.agent.rules_for(sent(30, DATABASE, 5432))
    document = EXAMPLE.read_text(encoding="utf-8").replace("192.0.2.13", "192.0.2.99")
    changed = site.folder / "changed.yaml"
    changed.write_text(document, encoding="utf-8")
    site.store.publish(load_goal_state(changed), replace_all=True)
    found, text = site.explain("table=40,idle_timeout", code=1)
    assert (found["true"], found["truth"]) == (False, "other")
    assert [rule for rule in found["fresh_rules"] if "192.0.2.99" in rule]
    assert "true not any more: a fresh decision gives another rule" in text
    assert "the agent has not applied yet what the store says, or no agent runs" in text
    assert "192.0.2.13" in found["what"]
    verdict, _ = site.explain("table=30,idle_timeout")
    assert verdict["true"]


def test_a_rule_that_policy_forbids_now_names_the_reason(site):
    site.agent.rules_for(sent(30, DATABASE, 5432))
    site.store.write("sg/web", {"rule/out": None})
    found, text = site.explain("table=30,idle_timeout", code=1)
    assert found["why"]["reason"] == "no_rule"
    assert found["fresh_rules"][0].endswith("actions=drop")
    assert "today no security rule allows it (no_rule)" in text
    assert "no egress IPv4 rule of operations, web is about this protocol and port" in text


def test_a_port_that_is_gone_or_has_no_port_security_any_more(site):
    site.agent.rules_for(sent(30, DATABASE, 5432))
    ports = dict(site.store.snapshot("hostgroup/rack-1").records)
    site.store.write("hostgroup/rack-1", {"port/web-1": None})
    cookie = hex(site.cookie("table=30,idle_timeout"))
    # Nothing in the store tells whose switch it is.
    assert "is this the store of its agent?" in site.run("--rule", cookie, code=2).stderr
    text = site.run("--rule", cookie, "--host", "host-1", code=1).stdout
    assert "lets the port of zone 1 send TCP to port 5432" in text
    assert "slice 'host/host-1' or 'hostgroup/rack-1' has no such port (any more)" in " ".join(
        text.split()
    )
    location = hex(site.cookie("table=40,idle_timeout"))
    text = site.run("--rule", location, "--host", "host-1", code=1).stdout
    assert "no port of the subnet with VNI 5001 is served here (any more)" in text
    site.store.write("hostgroup/rack-1", ports)
    site.store.write("vpc/shop", {"subnet/front": None})
    text = " ".join(site.run("--rule", cookie, code=1).stdout.split())
    assert "port 'web-1' is in subnet 'front', which slice 'vpc/shop' does not have" in text
    assert "lets the port of zone 1 send" in text


def test_port_security_that_is_switched_off(site):
    site.agent.rules_for(sent(30, DATABASE, 5432))
    document = EXAMPLE.read_text(encoding="utf-8").replace(
        "security_groups: [web, operations]\n        allowed_address_pairs:\n          - {ip: 10.0.1.100}                       # shared",
        "port_security: false\n        # shared",
        1,
    )
    changed = site.folder / "changed.yaml"
    changed.write_text(document, encoding="utf-8")
    site.store.publish(load_goal_state(changed), replace_all=True)
    found, _ = site.explain("table=30,idle_timeout", code=1)
    assert found["truth"] == "nobody"
    assert "has no port security (any more)" in found["sentence"]
    source, text = site.explain("reg6=0x1,dl_src=fa:16:3e:00:01:0a,dl_type=0x800,nw_src=10.0.1.10/", code=1)  # fmt: skip
    assert source["kind"] == "port"
    assert "none is made like it today" in text


def test_a_drop_of_the_time_when_the_source_was_away(site):
    drop = Rule(site.pipeline.arp_deny, (1, parse_ip(WEB_2)), 0, 2)
    site.agent.installed[0x0D5E_0105_0000_7777] = drop
    found, _ = site.explain("arp_tpa=10.0.1.11 ", code=1)
    assert found["sentence"].endswith("it was made while the slice source did not answer")


# -- rules that no traffic makes -------------------------------------------------------------------


def test_the_rules_of_a_port_and_of_the_frame_are_true_and_named(site):
    seen = set()
    for cookie, rule in sorted(site.agent.installed.items()):
        found = json.loads(site.run("--rule", hex(cookie), "--json").stdout)
        assert found["true"], rule
        assert found["why"] is None
        assert found["port"] == ("web-1" if "zone" in rule.shape.args else None)
        assert ("web-1" in found["what"]) == ("zone" in rule.shape.args)
        seen.add(found["kind"])
    assert seen == {"port", "frame"}


def test_an_epoch(site):
    found, text = site.explain("table=20,priority=200")
    epoch = site.agent.engine.world.ports["web-1"].epoch
    assert f"compares connections of what port web-1 sends with policy epoch {epoch:#x}" in text
    # An epoch that is compared with, and not stamped any more.
    old = site.pipeline.judged[1].rule(zone=1, epoch=epoch + 7)
    del site.agent.installed[site.cookie("table=20,priority=200")]
    site.agent.installed[0x0D5E_0114_0000_7777] = old
    found, _ = site.explain("table=20,priority=200", code=1)
    assert found["truth"] == "other"


def test_a_port_in_quarantine(site):
    for number, shape in enumerate(site.pipeline.quarantine):
        cookie = 0x0D5E_0100_0000_7000 | shape.table << 32 | number
        site.agent.installed[cookie] = Rule(shape, (1,), 0, 8)
        found = json.loads(site.run("--rule", hex(cookie), "--json").stdout)
        assert found["what"] == ("drops new flows of port web-1: it floods, and is in quarantine")
        assert found["removed_by"] == ["8 s after it was installed, that is in 4 s"]
    assert "is in quarantine" in site.run("--rules", "--port", "web-1").stdout


def test_every_shape_has_words():
    world, subjects = World(None, b""), RuleSubjects(PIPELINE)
    words = RuleWords(PIPELINE, world)
    served = ServedPorts((FoundPort(port_mark("x"), 1),), {1: 1}, 2)
    assert served.marks == {port_mark("x")}
    from controller_app.explain_rule import _nobody

    for rule in sample_rules(PIPELINE):
        subject = subjects.subject(rule, _nobody(1))
        said = words.static(rule) if subject is None else words.on_demand(rule, subject)
        assert re.fullmatch(r"(?!it )[a-z][^{}]*[^ .]", said), said
        if subject is not None and not rule.shape.actions:
            assert said.startswith("drops")
        if rule.shape.actions:
            assert not said.startswith("drops")


# -- questions that have no answer -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rule", "0x1234"], "cookie 0x1234 is not one of ours, which begin with 0xd5e"),
        (["--rule", "0"], "is not one of ours"),
        (["--rule", "web-1"], "'web-1' is no cookie; write it as ovs-ofctl dump-flows does"),
        (["--rule", "0x10d5e011e00000123"], "is no cookie"),
        (["--rule", "-5"], "is no cookie"),
        (["--rule", "0x0d5e011e0000ffff"], "has no rule with cookie 0xd5e011e0000ffff (any more)"),
        (["--rules", "--rule", "0x0d5e011e0000ffff"], "ask one thing at a time, not --rule and --rules"),
        (["--rules", "--port", "web-1", "tcp"], "ask one thing at a time, not FLOW and --rules"),
        (["--rules", "--reply"], "--reply goes with FLOW"),
        (["--rule", "0x0d5e011e0000ffff", "--port", "web-1"], "--port does not go with --rule"),
        (["--rules", "--port", "web-2"], "the switch serves no port 'web-2' of the store; did you mean 'web-1'?"),
        (["--rules", "--host", "host-9"], "the store has no host 'host-9'; did you mean"),
        (["--rules", "--table-base", "900"], "table_base = 900 is not in 0..163"),
        (["--rules", "--limit", "-1"], "--limit"),
        (["--rules", "--bridge", "a/b"], "--bridge a/b is a path"),
        (["--rules", "--switch", "x", "--bridge", "br-int"], "leave out --bridge"),
        (["--port", "web-1", "arp,arp_tpa=10.0.1.1", "--table-base", "3"], "go with --rule and --rules"),
        ([], "missing argument 'FLOW', or --rule COOKIE, or --rules"),
    ],
)  # fmt: skip
def test_errors_are_one_sentence_and_exit_2(site, arguments, sentence):
    if "--bridge" in arguments:
        result = CliRunner().invoke(cli, ["explain", "--store", str(site.store_path), *arguments])
        assert result.exit_code == 2
    else:
        result = site.run(*arguments, code=2)
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_rules_that_this_version_does_not_make(site):
    strange = Rule(site.pipeline.unprotected[4], (1,))
    moved = 0x0D5E_0128_0000_0001
    encoded = entries_of({moved: strange}, site.pipeline)[moved][1]
    other_table = 0x0D5E_01C8_0000_0001
    entries = entries_of(site.agent.installed, site.pipeline) | {
        # A rule of table 50 that stands in table 40, and one far outside.
        moved: (40, encoded[:2] + bytes([40]) + encoded[3:]),
        other_table: (200, encoded[:2] + bytes([200]) + encoded[3:]),
    }
    arguments = ["explain", "--store", str(site.store_path), "--switch", str(site.socket)]
    with SwitchServer(site.socket, entries):
        said = CliRunner().invoke(cli, [*arguments, "--rule", hex(moved)])
        outside = CliRunner().invoke(cli, [*arguments, "--rule", hex(other_table)])
        listed = CliRunner().invoke(cli, [*arguments, "--rules"])
    assert (said.exit_code, outside.exit_code, listed.exit_code) == (2, 2, 1)
    assert "in table 40 is none that this version makes" in said.stderr
    assert "is outside the tables 0 to 90: say where" in outside.stderr
    assert "--table-base" in outside.stderr
    assert "not understood: the rule with cookie 0xd5e012800000001 in table 40" in listed.stdout


def test_a_switch_that_cannot_be_asked(site):
    rule = ["--rule", "0x0d5e011e00000001"]
    assert "refused the question" in site.run(*rule, conduct="refuse", code=2).stderr
    arguments = ["explain", "--store", str(site.store_path), "--switch", "tcp:127.0.0.1:6640"]
    said = CliRunner().invoke(cli, [*arguments, *rule])
    assert "is no socket of this machine" in said.stderr


def test_a_switch_without_ports_does_not_say_whose_it_is(site):
    site.agent.installed.clear()
    assert "the switch serves no port" in site.run("--rules", code=2).stderr
    said = site.run("--rules", "--host", "host-1").stdout
    assert said == "the switch holds no rule that traffic made\n"


def test_a_switch_with_ports_of_two_hosts(site):
    cookies = Cookies(9)
    extra = {
        cookies.next(90): site.pipeline.deliver.rule(zone=40, port=port_mark("vpn"), ofport=40),
    }
    said = site.run("--rules", extra=extra, code=2).stderr
    assert "the switch serves ports of the hosts host-1, host-2, host-3: say which it is" in said


def test_hosts_of_a_group_share_ports_and_the_agent_s_signature_tells_which_it_is(site):
    site.agent.rules_for(sent(30, DATABASE, 5432))
    signed = json.loads(site.run("--rules", "--json").stdout)
    assert signed["host"] == "host-1"
    for cookie, rule in site.agent.installed.items():
        if rule.shape is site.pipeline.owner:
            other = {cookie: site.pipeline.owner.rule(host=host_mark("host-2"))}
    assert json.loads(site.run("--rules", "--json", extra=other).stdout)["host"] == "host-2"
    other = {cookie: site.pipeline.owner.rule(host=host_mark("host-3")) for cookie in other}
    said = site.run("--rules", extra=other, code=2).stderr
    assert "the switch serves ports of the hosts host-1, host-2: say which it is" in said


# -- the list ----------------------------------------------------------------------------------------


def test_the_list_and_its_bound(site):
    for tp_dst in range(8000, 8030):
        site.agent.rules_for(sent(30, DATABASE, tp_dst))
    site.agent.rules_for(received("10.0.1.11", 22))
    listed = json.loads(site.run("--rules", "--json").stdout)
    whats = [rule["what"] for rule in listed["rules"]]
    # 30 verdicts, one location for all of them; a drop.
    assert len(whats) == len(set(whats)) == 32
    assert sum("send TCP to port 80" in what for what in whats) == 30
    assert all(rule["true"] for rule in listed["rules"])
    assert not listed["has_more"]
    assert [rule["rule"] for rule in listed["rules"]] == sorted(
        (rule["rule"] for rule in listed["rules"]),
        key=lambda text: int(re.search(r"table=(\d+)", text)[1]),
    )
    text = site.run("--rules").stdout
    assert len(text.splitlines()) == 33
    assert text.splitlines()[0].split() == ["cookie", "port", "or", "subnet", "what", "packets", "age", "true"]  # fmt: skip
    assert re.search(r"0x0d5e0128\w{8} +\(front\) +sends packets .* 1,234 +4 s +yes", text)
    few = site.run("--rules", "--limit", "5").stdout.splitlines()
    assert len(few) == 7
    assert few[-1].startswith("5 rules are shown; the tables that traffic fills hold 41.")
    assert json.loads(site.run("--rules", "--limit", "5", "--json").stdout)["has_more"]
    all_of_them = site.run("--rules", "--limit", "0").stdout
    assert len(all_of_them.splitlines()) == 33


def test_the_list_of_a_port_has_no_locations_and_tells_what_is_not_true(site):
    site.agent.rules_for(sent(30, DATABASE, 5432))
    site.store.write("sg/web", {"rule/out": None})
    text = site.run("--rules", "--port", "web-1", code=1).stdout
    assert len(text.splitlines()) == 2
    assert "NO: a fresh decision gives another rule" in text
    assert "(front)" in site.run("--rules", code=1).stdout


def test_the_configuration_says_where_all_is(site, monkeypatch):
    site.agent.rules_for(sent(30, DATABASE, 5432))
    config = site.folder / "agent.toml"
    config.write_text(
        f"""[host]
id = "host-1"
tunnel_ip = "192.0.2.11"
[bridge]
name = "br-int"
ovsdb = "unix:{site.folder}/db.sock"
[source]
file = "slices.db"
[limits]
max_rules_per_port = 700
""",
        encoding="utf-8",
    )
    arguments = ["explain", "--config", str(config)]
    with SwitchServer(site.socket, entries_of(site.agent.installed, site.pipeline)):
        rules = CliRunner().invoke(cli, [*arguments, "--rules"])
        one = CliRunner().invoke(
            cli, [*arguments, "--rule", hex(site.cookie("table=30,idle_timeout"))]
        )
        other = CliRunner().invoke(cli, [*arguments, "--rules", "--bridge", "br-ext"])
        monkeypatch.setenv("OVS_RUNDIR", str(site.folder))
        default = CliRunner().invoke(cli, ["explain", "--store", str(site.store_path), "--rules"])
    assert (rules.exit_code, one.exit_code, other.exit_code, default.exit_code) == (0, 0, 2, 0)
    assert "once one port has 700 rules" in one.stdout
    assert "there is no bridge 'br-ext'" in other.stderr
    assert default.stdout == rules.stdout
    packet = CliRunner().invoke(
        cli, [*arguments, "--port", "web-1", "tcp,nw_dst=10.0.2.10,tp_dst=5432"]
    )
    assert "ALLOWED" in packet.stdout
    missing = CliRunner().invoke(cli, ["explain", "--rules"])
    assert "missing option '--store', or --config" in missing.output


# -- the view ------------------------------------------------------------------------------------


def test_the_view_has_the_switchs_numbers_and_decides_as_the_agent(site):
    served = ServedPorts((FoundPort(port_mark("web-1"), 33, 5),), {33: 17}, 4)
    view = SwitchView(site.store, "host-1", served)
    port = view.world.ports["web-1"]
    assert (port.zone, port.ofport, port.epoch) == (33, 17, 5)
    assert view.world.tunnel_ip == parse_ip("192.0.2.11")
    assert view.port_of_subnet(5001) is port
    assert view.port_of_subnet(5002) is None
    location = view.locate(port, parse_mac(GATEWAY_MAC), parse_ip(DATABASE))
    assert location == locate(view.world, port, parse_mac(GATEWAY_MAC), parse_ip(DATABASE))
    assert view.resolve(port, parse_ip(WEB_2)) == resolve(view.world, port, parse_ip(WEB_2))
    assert [read.key for read in reads_of(view, location.tags)][-1] == "port/database-1"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (200_000, "2 d")],
)
def test_ages(seconds, text):
    assert age_text(seconds) == text

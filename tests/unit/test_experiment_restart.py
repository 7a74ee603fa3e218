"""``restart`` and ``flood``: what is promised, which rules must go, and what is read from switches."""

from __future__ import annotations

import json
import re
import socket
import threading
import time

import pytest

from controller_app.config import load_config
from mininet_topos import experiment_flood, flood_seen, restart_seen, traffic_probe
from mininet_topos.agent_host import AgentOnHost
from mininet_topos.errors import CommandError, CommandTimeoutError
from mininet_topos.flood_state import SCANS
from mininet_topos.load import Loads
from mininet_topos.probe import Pulses, pulse, pulses
from mininet_topos.processes import Background
from mininet_topos.restart_state import CHANGED, GOAL, flow_specs, untrue
from mininet_topos.switch_cost import over_meter, parse_meters, parse_pmd_stats

TUNNELS = {f"h{number}": f"192.0.2.{number}" for number in (1, 2, 3)}


# Which rules must go --------------------------------------------------------------------------------


def verdict(table, port, *, source="10.0.1.21"):
    return (
        f"cookie=0x1, table={table}, idle_timeout=300, priority=100,ct_nw_src={source},"
        f"ct_nw_dst=10.0.1.11,ct_nw_proto=6,ct_tp_dst={port},reg7=0x1 actions=ct(commit)"
    )


def location(ip, tunnel):
    return (
        f"cookie=0x2, table=40, idle_timeout=300, priority=100,ip,nw_dst={ip} "
        f"actions=set_field:0x1389->tun_id,set_field:{tunnel}->tun_dst,output:1"
    )


@pytest.mark.parametrize("port", [81, 5001, 82, 5002])
def test_a_verdict_that_a_rule_or_a_group_had_allowed_is_untrue_at_who_is_asked(port):
    assert untrue([verdict(80, port)], "192.0.2.2") == [verdict(80, port)]
    # Who asks may still ask.
    assert untrue([verdict(30, port)], "192.0.2.2") == []


@pytest.mark.parametrize("port", [80, 5000, 8181, 815])
def test_all_other_verdicts_are_true(port):
    assert untrue([verdict(80, port)], "192.0.2.2") == []


def test_the_place_that_somebody_has_left_is_untrue():
    left = location("10.0.1.31", "192.0.2.2")
    true = [
        location("10.0.1.31", "192.0.2.3"),
        location("10.0.1.22", "192.0.2.2"),
        location("10.0.1.3", "192.0.2.2"),
        location("10.0.1.131", "192.0.2.2"),
    ]
    assert untrue([left, *true], "192.0.2.2") == [left]


def test_a_rule_a_group_and_a_neighbor_change_while_no_agent_runs():
    before, after = GOAL.payloads(TUNNELS), CHANGED.payloads(TUNNELS)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert "sg/service" in changed
    # The group leaves the port, so the group itself does not change.
    assert "sg/extra" not in changed
    assert any(name.startswith("nbr/") for name in changed)
    gone = set(before["sg/service"]) - set(after["sg/service"])
    assert len(gone) == 4  # TCP and UDP, IPv4 and IPv6


def test_the_streams_of_restart_are_of_each_kind_and_near_and_far():
    names = [spec.name for spec in flow_specs()]
    assert len(names) == len(set(names))
    for word in ("kept", "rule", "group"):
        for place in ("local", "VXLAN"):
            for protocol in ("TCP", "UDP"):
                assert any(name.startswith(f"{word} {place} {protocol} ") for name in names)


# An agent in another's place ------------------------------------------------------------------------


class AgentHost:
    """As much of a compute host as agents need; remembers what was started."""

    label, tunnel_ip, ovsdb_remote = "h1", "192.0.2.1", "unix:/tmp/h1/db.sock"

    def __init__(self, directory):
        self.directory = directory
        self.started = []

    def spawn(self, name, argv, *, env):
        process = Background(name, ["sleep", "30"], log=self.directory / f"{name}.log")
        self.started.append((name, argv, process))
        return process


@pytest.fixture
def agent_host(tmp_path):
    host = AgentHost(tmp_path)
    yield host
    for _, _, process in host.started:
        process.kill()


def test_an_agent_that_replaces_another_has_files_of_its_own(agent_host, tmp_path):
    agent = AgentOnHost(agent_host, tmp_path / "slices.db")
    agent.start()
    first_config, log = agent.config_file, tmp_path / "agent-events.log"
    log.write_text(json.dumps({"level": "error", "event": "early"}) + "\n")
    replaced = agent.replace()
    # What the first one says of its own end is no fault of the new one.
    log.write_text(log.read_text() + json.dumps({"level": "error", "event": "replaced"}) + "\n")
    (first, _, one), (second, argv, two) = agent_host.started
    assert (replaced, agent.process) == (one, two)
    assert first != second
    assert argv[-3:] == ["--config", str(agent.config_file), "--replace-agent"]
    assert agent.config_file != first_config
    old, new = load_config(first_config), load_config(agent.config_file)
    assert old.metrics_file != new.metrics_file
    assert (old.bridge, old.source_file) == (new.bridge, new.source_file)
    assert agent.errors() == ["early"]


@pytest.mark.parametrize(
    ("status", "ok"),
    [
        ({"connected": True, "adopting": False}, True),
        ({"connected": True, "adopting": True}, False),
        ({"connected": False, "adopting": False}, False),
        ({"connected": True}, False),
    ],
)
def test_rules_are_adopted_when_a_connected_agent_says_so(status, ok, agent_host, tmp_path):
    agent = AgentOnHost(agent_host, tmp_path / "slices.db")
    agent.start()
    (tmp_path / "agent-status.json").write_text(json.dumps(status))
    assert (agent.wait_adopted(timeout_s=0.1) is not None) is ok


# How restart judges ---------------------------------------------------------------------------------


def rule(cookie, match="ip,reg6=0x1"):
    return f"cookie={cookie:#x}, table=30, idle_timeout=300, priority=100,{match} actions=drop"


def kept(before, after, untrue_rules=()):
    return restart_seen.kept_seen(frozenset(before), frozenset(after), set(untrue_rules))


def test_a_rule_is_kept_with_its_cookie():
    many = [rule(n, f"ip,reg6={n:#x}") for n in range(1, 20)]
    assert kept(many, [*many, rule(77, "ip")]).ok
    assert not kept(many, many[1:]).ok
    assert kept(many, many[1:], many[:1]).ok
    assert not kept([], many).ok


def test_a_few_rules_may_be_sent_anew_but_not_all():
    many = [rule(n, f"ip,reg6={n:#x}") for n in range(1, 20)]
    anew = [rule(n + 100, f"ip,reg6={n:#x}") for n in range(1, 20)]
    few = restart_seen.ANEW
    assert kept(many, [*anew[:few], *many[few:]]).ok
    assert not kept(many, [*anew[: few + 1], *many[few + 1 :]]).ok
    assert not kept(many, anew).ok


def test_a_zone_that_lost_connections_was_flushed():
    judge = restart_seen.not_flushed_seen
    assert judge({"near": 3, "fast": 2}, {"near": 3, "fast": 4}).ok
    assert not judge({"near": 3, "fast": 2}, {"near": 9, "fast": 1}).ok
    assert not judge({"near": 3}, {}).ok
    assert not judge({}, {}).ok


PULSES = Pulses(((1.0, None), (1.02, 1.5), (1.04, None), (1.06, 1.07), (1.08, 1.09)))


def test_the_first_new_flow_is_the_first_that_came_back():
    assert PULSES.first_served_s(1.0) == 1.07
    assert PULSES.first_served_s(1.07) == 1.09
    assert PULSES.first_served_s(1.2) is None


def test_new_flows_are_served_for_good_when_none_is_lost_any_more():
    assert PULSES.served_for_good_s(1.0) == 1.07
    assert Pulses(((1.0, 1.1), (2.0, None))).served_for_good_s(1.0) is None


def test_a_gap_is_a_time_in_which_no_new_flow_came_back():
    assert PULSES.longest_gap_s(1.0, 1.6) == pytest.approx(0.41)
    assert Pulses(()).longest_gap_s(1.0, 3.0) == 2.0


# Pulses over loopback -------------------------------------------------------------------------------


class Node:
    """Stands for a VM: runs what it is told to on this machine."""

    def __init__(self, directory):
        self.label, self._directory = "vm", directory

    def spawn(self, name, argv):
        return Background(name, argv, log=self._directory / f"{name}.log")


def test_pulses_are_sent_at_a_pace_and_tell_which_came_back(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5.0)
        first = sock.getsockname()[1]
        start_s = time.monotonic()
        process = pulse(Node(tmp_path), "127.0.0.1", first=first, count=3, interval_s=0.05)

        def answer():
            data, peer = sock.recvfrom(64)
            sock.sendto(data, peer)

        thread = threading.Thread(target=answer)
        thread.start()
        found = pulses(process, timeout_s=10.0)
        thread.join()
    (first_sent, first_back), *others = found.moments
    assert start_s < first_sent < first_back < time.monotonic()
    assert [back for _, back in others] == [None, None]
    assert others[1][0] - first_sent >= 0.09


def test_a_pulse_that_fails_or_lasts_too_long_says_so(tmp_path):
    node = Node(tmp_path)
    with pytest.raises(CommandError, match="ports are"):
        pulses(pulse(node, "127.0.0.1", first=65535, count=5), timeout_s=10.0)
    slow = pulse(node, "127.0.0.1", first=1000, count=500, interval_s=1.0)
    try:
        with pytest.raises(CommandTimeoutError):
            pulses(slow, timeout_s=0.1)
    finally:
        slow.kill()


def test_fill_sends_one_datagram_to_each_port_from_one_port(capsys):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, socket.socket() as spare:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(2.0)
        spare.bind(("127.0.0.1", 0))
        source = spare.getsockname()[1]
        port = sock.getsockname()[1]
        words = ["fill", "127.0.0.1", str(port), "1", "--source-port", str(source)]
        assert traffic_probe.main(words) == 0
        assert sock.recvfrom(64)[1] == ("127.0.0.1", source)
    assert json.loads(capsys.readouterr().out)["sent"] == 1


@pytest.mark.parametrize(
    "words",
    [
        ["fill", "127.0.0.1", "1", "60001"],
        ["fill", "127.0.0.1", "1", "5", "--rate", "20001"],
        ["pulse", "127.0.0.1", "1", "5", "--interval-s", "0"],
        ["pulse", "127.0.0.1", "1", "20001"],
    ],
)
def test_traffic_without_bounds_is_refused(words, capsys):
    with pytest.raises(SystemExit) as ended:
        traffic_probe.main(words)
    assert ended.value.code == 2
    assert re.search("at most|a rate is|an interval is", capsys.readouterr().err)


def test_some_loads_may_have_an_interval_of_their_own(monkeypatch):
    started = {}
    monkeypatch.setattr(
        Loads, "_start", lambda self, source, every, for_s: started.update({source: every})
    )
    monkeypatch.setattr(Loads, "mark", lambda self: None)
    monkeypatch.setattr(Loads, "seen", lambda self: [])
    made = Loads({}, [spec for spec in flow_specs() if spec.source in {"near", "fast"}])
    made.start(interval_s=0.02, for_s=1.0, intervals={"fast": 0.001})
    assert started == {"near": 0.02, "fast": 0.001}


# How flood judges -----------------------------------------------------------------------------------


def interval(p99_ms, rate):
    return flood_seen.Interval(
        p99_ms={"local": p99_ms, "VXLAN": 2.0}, p50_ms={}, rate={"local": rate, "VXLAN": 900.0}
    )


def test_medians_of_quiet_and_flood_intervals_are_compared():
    quiet = [interval(2.0, 1000), interval(2.0, 1000), interval(50.0, 10)]
    form = flood_seen.FULL
    for p99_ms, ok in ((3.9, True), (4.1, False)):
        flood = [interval(p99_ms, 1000), interval(p99_ms, 1000), interval(0.1, 1000)]
        assert flood_seen.latency_seen(quiet, flood, form).ok is ok
    for rate, ok in ((910, True), (890, False)):
        flood = [interval(2.0, rate)] * 3
        assert flood_seen.rate_seen(quiet, flood, form).ok is ok


def test_a_flood_in_which_nothing_came_back_is_none_that_held():
    nothing = flood_seen.Interval(p99_ms={"local": float("inf")}, rate={"local": 0.0})
    usual = flood_seen.Interval(p99_ms={"local": 2.0}, rate={"local": 100.0})
    form = flood_seen.QUICK
    assert not flood_seen.latency_seen([usual], [nothing], form).ok
    assert not flood_seen.rate_seen([usual], [nothing], form).ok
    # Nor one without anything to compare it with.
    assert not flood_seen.latency_seen([nothing], [usual], form).ok
    assert not flood_seen.rate_seen([nothing], [usual], form).ok


def test_the_short_form_says_that_its_bounds_are_wider():
    for quick, form in ((True, flood_seen.QUICK), (False, flood_seen.FULL)):
        shown = experiment_flood.performance(quick=quick)
        clauses = " ".join(one.promised for phase in shown.phases for one in phase.promises)
        assert f"{form.latency:g} times" in clauses
        assert f"{form.rate:.0%} of the quiet rate" in clauses
    assert (flood_seen.FULL.latency, flood_seen.FULL.rate) == (2.0, 0.9)


def test_each_scan_is_aimed():
    assert [scan.kind for scan in SCANS] == ["arp", "ip", "ports"]
    assert all(scan.mac for scan in SCANS if scan.kind != "arp")


# What switches show ---------------------------------------------------------------------------------

PMD = """main thread:
  packets received: 1200
  packet recirculations: 2400
  avg. datapath passes per packet: 3.00
  phwol hits: 0
  emc hits: 3000
  miss with success upcall: 40
  miss with failed upcall: 2
  avg. packets per output batch: 1.00
  idle cycles: 0 (0.00%)
pmd thread numa_id 0 core_id 1:
  packets received: 5
"""


def test_packets_and_upcalls_are_summed_over_threads():
    found = parse_pmd_stats(PMD)
    assert (found["packets received"], found["miss with success upcall"]) == (1205, 40)
    assert found["packet recirculations"] == 2400


METERS = """OFPST_METER reply (OF1.3) (xid=0x2):
meter:1 flow_count:3 packet_in_count:10 byte_in_count:600 duration:5.1s bands:
0: packet_count:0 byte_count:0

meter:7 flow_count:3 packet_in_count:9000 byte_in_count:1 duration:5.1s bands:
0: packet_count:4000 byte_count:1
"""


def test_packets_over_a_meter_are_told_by_meter():
    assert parse_meters(METERS) == {1: 0, 7: 4000}


def test_packets_over_a_meter_are_told_by_port():
    class Host:
        def dump_flows(self):
            return [
                "cookie=0x1, table=5, priority=1,reg6=0x2 actions=meter:1,CONTROLLER:65535",
                "cookie=0x2, table=5, priority=1,reg6=0x3 actions=meter:7,CONTROLLER:65535",
            ]

        def ofctl(self, *words):
            return METERS

    assert over_meter(Host(), {2: "asker", 3: "scanner"}) == {"scanner": 4000}

"""The demo's checks can fail: on a lab where everything passes, and on one where nothing does."""

import time

import pytest

from mininet_topos.attempts import denied_seen, ping_seen, tcp_seen
from mininet_topos.demo import phases
from mininet_topos.demo_change import resumed_seen
from mininet_topos.demo_deny import Arrived, deny_trials, spoof_seen
from mininet_topos.demo_fleet import one_of, same_counts
from mininet_topos.demo_latency import round_trips
from mininet_topos.demo_on_demand import exactly_used, idle_trials, only_used
from mininet_topos.demo_reach import reach_trials
from mininet_topos.demo_rules import on_demand_rules, peers_asked_for, peers_of, rules_per_table
from mininet_topos.demo_state import VM
from mininet_topos.promises import Seen
from mininet_topos.traffic_node import PingResult, StreamState, TcpAttempt
from mininet_topos.trials import run_trial
from tests.support.flows import flow_seen

CONNECTED = TcpAttempt(connected=True, ms=1.0, error="")
TIMEOUT = TcpAttempt(connected=False, ms=None, error="timeout")
REFUSED = TcpAttempt(connected=False, ms=None, error="refused")


class FakeStream:
    def __init__(self, *, lives):
        self.lives = lives
        self._echoed = 64

    @property
    def now(self):
        self._echoed += 64 if self.lives else 0
        return StreamState("open", self._echoed, self._echoed, "")

    def wait_for_progress(self, *, timeout_s=3.0):
        return self.lives

    def stop(self):
        pass


class FakeVm:
    """Counts what it sends and receives, as the kernel of a VM does."""

    def __init__(self, lab):
        self.lab = lab
        self.sent = self.received_v4 = self.received_v6 = 0

    def ip(self, *commands):
        pass

    def tcp_attempts(self, address, port):
        """From inside the VM itself: its servers always listen."""
        return (CONNECTED,)

    def execute(self, argv, *, check=True):
        if argv[0] == "ping":
            self.sent += 5
            if self.lab.is_open:
                (target,) = (self.lab.vms[n] for n in VM if argv[-1] in VM[n].ips)
                target.received_v4 += 5 * (":" not in argv[-1])
                target.received_v6 += 5 * (":" in argv[-1])
            return None
        text = {
            "tx_packets": f"{self.sent}\n",
            "snmp": f"Icmp: InMsgs InEchos\nIcmp: 99 {self.received_v4}\nIcmpMsg: InType8\n",
            "snmp6": f"Ip6InReceives \t99\nIcmp6InEchos \t{self.received_v6}\n",
        }[argv[-1].rpartition("/")[2]]
        return type("Result", (), {"stdout": text})()


class FakeLab:
    """A lab in which everything gets through, or nothing does."""

    def __init__(self, *, is_open):
        self.is_open = is_open
        self.vms = {name: FakeVm(self) for name in VM}

    def ping(self, source, address, *, count=2):
        return PingResult(count, count if self.is_open else 0, (1.0,) * count)

    def udp(self, source, address, port, *, count, size):
        return self.ping(source, address, count=count)

    def tcp(self, source, address, port):
        return CONNECTED if self.is_open else TIMEOUT

    def stream(self, source, address, port):
        return FakeStream(lives=self.is_open)

    def note(self, source, address):
        pass


def outcomes(trials, lab):
    return {one.promise.name: one.seen.ok for trial in trials for one in run_trial(trial, lab)}


def test_where_everything_passes_all_that_must_reach_holds_and_nothing_that_must_not():
    lab = FakeLab(is_open=True)
    assert set(outcomes(reach_trials(), lab).values()) == {True}
    found = outcomes(deny_trials(), lab)
    assert found.pop("the reply")
    assert set(found.values()) == {False}


def test_where_nothing_passes_nothing_that_must_reach_holds():
    lab = FakeLab(is_open=False)
    assert set(outcomes(reach_trials(), lab).values()) == {False}
    found = outcomes(deny_trials(), lab)
    assert not found.pop("the reply")
    # A spoof is only told from a dead network by what arrives under the true name.
    assert not found.pop("a spoofed source address")
    assert not found.pop("a spoofed source MAC")
    assert set(found.values()) == {True}


def test_every_name_in_the_demo_is_its_own():
    plan = phases(1000, lambda done, total: None)
    names = [promise.name for phase in plan for promise in phase.promises]
    assert len(names) == len(set(names))
    assert len(phases(0, lambda done, total: None)) == len(plan) - 1


# Single observations --------------------------------------------------------------------------------


def test_a_lost_ping_does_not_hold():
    assert ping_seen("x", PingResult(3, 3, (1.0,) * 3)).ok
    assert not ping_seen("x", PingResult(3, 2, (1.0,) * 2)).ok
    assert not ping_seen("x", PingResult(0, 0, ())).ok


@pytest.mark.parametrize("attempt", [TIMEOUT, REFUSED])
def test_a_connection_that_fails_does_not_hold(attempt):
    assert tcp_seen("x", CONNECTED).ok
    assert not tcp_seen("x", attempt).ok


def test_denied_means_dropped_on_the_way_to_a_server_that_listens():
    assert denied_seen(CONNECTED, TIMEOUT, "x").ok
    assert not denied_seen(CONNECTED, CONNECTED, "x").ok
    assert not denied_seen(CONNECTED, REFUSED, "x").ok
    assert not denied_seen(REFUSED, TIMEOUT, "x").ok


def test_a_spoof_must_have_been_sent_and_nothing_of_it_arrive():
    true, lie = Arrived(5, 5), Arrived(6, 0)
    assert spoof_seen([true, true], [lie, lie]).ok
    assert not spoof_seen([true, true], [lie, Arrived(6, 1)]).ok
    assert not spoof_seen([true, Arrived(5, 4)], [lie, lie]).ok
    assert not spoof_seen([true, true], [lie, Arrived(2, 0)]).ok


def test_what_was_never_cut_does_not_come_back():
    cut, alive = Seen(ok=True, text=""), Seen(ok=False, text="")
    assert resumed_seen(cut, flow_seen(echoed=3)).ok
    assert not resumed_seen(cut, flow_seen(echoed=0)).ok
    assert not resumed_seen(cut, flow_seen(echoed=3, error="reset")).ok
    assert not resumed_seen(alive, flow_seen(echoed=3)).ok


def test_round_trips_are_split_into_first_and_later():
    def ping(*answers):
        lines = [f"64 bytes: icmp_seq={seq} ttl=63 time={ms} ms\n" for seq, ms in answers]
        return "PING 10.0.1.101 (10.0.1.101) 56(84) bytes of data.\n" + "".join(lines)

    text = ping((1, "1.25")) + ping((1, "0.9"), (2, "0.250"), (3, "0.2")) + "rtt min/avg = 1.0 ms\n"
    assert round_trips(text) == ([1.25], [0.25, 0.2])
    unanswered = ping() + ping((2, "0.3"))
    assert round_trips(text + unanswered) == ([1.25], [0.25, 0.2, 0.3])


# Rules ----------------------------------------------------------------------------------------------

STATIC = (
    "cookie=0x1, duration=1s, table=30, n_packets=0, n_bytes=0, priority=0,reg6=0x1 "
    "actions=meter:1,CONTROLLER:65535"
)


def rule(table, match, timeout="idle_timeout=6"):
    return f"cookie=0x1, table={table}, n_packets=0, {timeout}, priority=100,{match} actions=drop"


def test_only_rules_with_a_timeout_came_with_traffic():
    lines = [
        STATIC,
        rule(5, "arp,reg6=0x1,arp_tpa=10.0.1.11,arp_op=1"),
        rule(30, "ct_state=-rpl-inv+trk,ct_nw_dst=10.0.1.11,ct_nw_proto=6,ip", "hard_timeout=2"),
        rule(40, "ipv6,reg5=0x1389,dl_dst=02:00:00:00:01:11,ipv6_dst=fd00:1::11"),
        rule(80, "ct_ipv6_src=fd00:0001::21,ct_nw_proto=6,ct_tp_dst=80,ipv6,reg7=0x2"),
        rule(90, "reg7=0x2"),
    ]
    found = on_demand_rules(lines)
    assert [(one.table, *one.peers) for one in found] == [
        (5, "10.0.1.11"),
        (30, "10.0.1.11"),
        (40, "fd00:1::11"),
        (80, "fd00:1::21"),
    ]
    assert peers_of(found) == {"10.0.1.11", "fd00:1::11", "fd00:1::21"}
    assert rules_per_table({1: found, 2: []}) == {1: {5: 1, 30: 1, 40: 1, 80: 1}, 2: {}}


def test_what_traffic_asks_for_on_each_host():
    (switched, routed, to_gateway) = (
        ("client-1", VM["web-2"].ips[0]),
        ("batch-1", VM["web-2"].ips[1]),
        ("client-3", "10.0.1.1"),
    )
    assert peers_asked_for([switched]) == {1: {"10.0.1.12"}, 2: {"10.0.1.21"}, 3: set()}
    assert peers_asked_for([routed]) == {
        1: {"fd00:1::12", "fd00:2::1"},
        2: {"fd00:2::41", "fd00:1::1"},
        3: set(),
    }
    assert peers_asked_for([to_gateway])[3] == {"10.0.1.1"}


def test_rules_for_exactly_the_addresses_used():
    uses = [("client-1", VM["web-2"].ips[0])]
    here = on_demand_rules([rule(40, "ip,nw_dst=10.0.1.12")])
    there = on_demand_rules([rule(40, "ip,nw_dst=10.0.1.21")])
    strange = on_demand_rules([rule(40, "ip,nw_dst=10.0.1.99")])
    assert exactly_used(uses, {1: here, 2: there}).ok
    missing = exactly_used(uses, {1: here, 2: []})
    assert (missing.ok, "without a rule: 10.0.1.21" in missing.text) == (False, True)
    too_many = exactly_used(uses, {1: here + strange, 2: there})
    assert (too_many.ok, "not used: 10.0.1.99" in too_many.text) == (False, True)


def test_rules_for_no_address_that_was_not_used():
    uses = [("client-1", VM["web-2"].ips[0])]
    here = on_demand_rules([rule(40, "ip,nw_dst=10.0.1.12")])
    strange = on_demand_rules([rule(40, "ip,nw_dst=10.0.1.99")])
    assert only_used(uses, {1: here, 2: []}).ok
    assert not only_used(uses, {1: here, 2: strange}).ok
    assert not only_used(uses, {1: [], 2: []}).ok


def test_rules_or_books_that_do_not_empty_do_not_hold(monkeypatch):
    monkeypatch.setattr("mininet_topos.demo_on_demand.IDLE_S", 0)
    monkeypatch.setattr("mininet_topos.demo_on_demand._IDLE_ALLOWANCE_S", 0.0)

    class Lab:
        def __init__(self, rules, booked):
            self.last_traffic_s = time.monotonic() - 1
            self.agents = {1: type("Agent", (), {"status": {"on_demand_rules": booked}})()}
            self._rules = rules

        def rules(self):
            return {1: self._rules}

    left = on_demand_rules([rule(40, "ip,nw_dst=10.0.1.12")])
    for rules, booked, held in (([], 0, True), (left, 0, False), ([], 3, False)):
        (found,) = outcomes(idle_trials(), Lab(rules, booked)).values()
        assert found is held


def test_tables_that_grow_or_were_empty_do_not_hold():
    assert same_counts({1: {30: 2}, 2: {}}, {1: {30: 2}, 2: {}}).ok
    assert not same_counts({1: {30: 2}}, {1: {30: 3}}).ok
    assert not same_counts({1: {30: 2, 40: 1}}, {1: {30: 1, 40: 2}}).ok
    assert not same_counts({1: {}}, {1: {}}).ok


def test_one_neighbor_asked_for_is_the_one_with_rules():
    assert one_of(1000, "10.64.2.244", ["10.64.2.244"]).ok
    assert not one_of(1000, "10.64.2.244", []).ok
    assert not one_of(1000, "10.64.2.244", ["10.64.2.244", "10.64.2.245"]).ok
    assert not one_of(1000, "10.64.2.244", ["10.64.2.245"]).ok

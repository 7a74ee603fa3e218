"""The traffic model has the shape that it says, its switch ages rules as one does, and nobody beats the optimum."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from benchmarks import traffic
from benchmarks.report_svg import draw
from benchmarks.suite_views_traffic import traffic as view
from benchmarks.traffic_model import (
    Burst,
    Flow,
    Kind,
    Traffic,
    bounded_pareto,
    bounded_pareto_mean,
    generate,
    lognormal_of,
)
from benchmarks.traffic_optimum import Optimum, PriceList
from benchmarks.traffic_parameters import Parameters
from benchmarks.traffic_run import GUEST_KEEPS_S, UDP_KEPT_S, HostRun
from benchmarks.traffic_switch import HARD, IDLE, SwitchModel, SwitchModelError
from benchmarks.traffic_vpc import TrafficVpc
from ondemand.messages import Effects, FlowRemoved
from ondemand.pipeline import Pipeline
from ondemand.settings import Settings
from rule_cache.rule import Rule

SMALL = Parameters(
    duration_s=120.0,
    vms=4,
    neighbors=2_000,
    same_subnet=200,
    services=100,
    flows_per_vm_s=2.0,
    kept_connections=4,
    scan_rate=10.0,
)
PIPELINE = Pipeline(0)


@pytest.fixture(scope="module")
def small() -> Traffic:
    return generate(SMALL)


def settings(idle_s: int, **others: bool) -> Settings:
    return Settings(
        verdict_idle_s=idle_s,
        location_idle_s=idle_s,
        responder_idle_s=idle_s,
        neighbor_idle_s=0,
        **others,
    )


# ------------------------------------------------------------------------------------------- generator


def test_same_seed_same_traffic(small):
    assert generate(SMALL) == small
    other = Parameters(**{name: getattr(SMALL, name) for name in _names()} | {"seed": 2})
    assert generate(other).bursts != small.bursts


def _names() -> list[str]:
    return list(SMALL.__dataclass_fields__)


def test_bursts_are_in_order_and_within_the_time(small):
    times = [burst.time_s for burst in small.bursts]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] < SMALL.duration_s
    assert all(burst.packets >= 1 for burst in small.bursts)


def test_a_vm_talks_only_to_its_share_of_the_neighbors(small):
    shared = SMALL.shared_services
    for vm, peers in enumerate(small.peers):
        assert 0.16 * 2_000 <= len(peers) <= 0.16 * 2_000 + shared
        met = {one.remote for one in small.flows if one.vm == vm and one.kind is not Kind.SCAN}
        assert met
        assert met <= peers
    assert 0 < small.talked() < 4 * 2_000 * 0.16


def test_few_destinations_have_most_flows(small):
    outgoing = [one.remote for one in small.flows if one.kind is Kind.SHORT and not one.incoming]
    counts = sorted((outgoing.count(remote) for remote in set(outgoing)), reverse=True)
    tenth = max(1, len(counts) // 10)
    assert sum(counts[:tenth]) > 0.35 * len(outgoing)
    assert counts.count(1) > len(counts) / 4


def test_scan_is_of_one_vm_in_its_time_and_partly_in_vain(small):
    scan = {number for number, one in enumerate(small.flows) if one.kind is Kind.SCAN}
    assert len({small.flows[number].vm for number in scan}) == 1
    times = [burst.time_s for burst in small.bursts if burst.flow in scan]
    assert min(times) >= 40.0
    assert max(times) < 60.0
    vain = sum(small.flows[number].remote >= SMALL.neighbors for number in scan) / len(scan)
    assert vain == pytest.approx(0.2, abs=0.12)


def test_lengths_of_flows_have_the_published_quantiles():
    mu, sigma = lognormal_of((10.0, 0.2), (200.0, 0.001))
    chance = random.Random(3)
    lengths = [chance.lognormvariate(mu, sigma) for _ in range(40_000)]
    assert sum(one > 10.0 for one in lengths) / len(lengths) == pytest.approx(0.2, abs=0.01)
    assert sum(one > 200.0 for one in lengths) / len(lengths) == pytest.approx(0.001, abs=0.0006)


def test_packets_have_a_heavy_tail_within_bounds():
    chance = random.Random(3)
    found = sorted(bounded_pareto(chance, 1.2, 4, 100_000) for _ in range(40_000))
    assert found[0] >= 4
    assert found[-1] <= 100_000
    assert sum(found[-400:]) > 0.25 * sum(found), (
        "one flow in a hundred has a quarter of the packets"
    )
    chance = random.Random(3)
    periods = [bounded_pareto(chance, 1.5, 2, 300) for _ in range(40_000)]
    mean = sum(periods) / len(periods)
    assert mean == pytest.approx(bounded_pareto_mean(1.5, 2, 300), rel=0.05)


@pytest.mark.parametrize(
    "wrong", [{"scan_rate": 5_000.0}, {"services": 3_000, "neighbors": 2_000, "same_subnet": 0}]
)
def test_parameters_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Parameters(**wrong)


# ---------------------------------------------------------------------------------------------- switch


def location(idle_s: int, *, last: int = 1, drop: bool = False) -> Rule:
    values = (100, bytes(6), bytes((10, 0, 0, last)))
    if drop:
        return Rule(PIPELINE.location_deny[4], values, 0, idle_s)
    shape = PIPELINE.location_tunnel[4, 4, False]
    return Rule(shape, (*values, 100, bytes((192, 0, 2, 1)), 9), idle_s)


def holding(*rules: Rule) -> SwitchModel:
    switch = SwitchModel(PIPELINE)
    switch.apply(Effects(adds=list(enumerate(rules, start=1))), 0.0)
    return switch


def test_a_rule_that_is_used_stays_and_ages_from_then():
    rule = location(10)
    switch = holding(rule)
    assert switch.age(9.9) == []
    assert switch.use(rule.key, 9.9) is not None
    assert switch.age(19.8) == []
    assert switch.age(19.9) == [FlowRemoved(1, 40, IDLE)]
    assert switch.use(rule.key, 19.9) is None
    # It counts up to when it aged, however late one looks.
    assert switch.alive_s(100.0) == pytest.approx(19.9)


def test_a_hard_timeout_does_not_care_for_use():
    rule = location(10, drop=True)
    switch = holding(rule)
    assert switch.use(rule.key, 9.0) is not None
    assert switch.age(10.0) == [FlowRemoved(1, 40, HARD)]


def test_a_rule_that_takes_anothers_place_begins_anew_and_nobody_is_told():
    rule, drop = location(10), location(5, drop=True)
    assert rule.key == drop.key
    switch = holding(rule)
    switch.apply(Effects(adds=[(2, drop)]), 4.0)
    assert switch.age(8.9) == []
    assert len(switch.rules) == 1
    assert switch.age(9.0) == [FlowRemoved(2, 40, HARD)]
    assert switch.alive_s(9.0) == pytest.approx(9.0)


def test_a_deleted_rule_ages_no_more():
    switch = holding(location(10), location(10, last=2))
    assert switch.peak == 2
    switch.apply(Effects(deletes=[1]), 3.0)
    assert switch.age(10.0) == [FlowRemoved(2, 40, IDLE)]
    assert switch.alive_s(20.0) == pytest.approx(13.0)


def test_what_the_model_lacks_is_refused():
    shape = PIPELINE.quarantine[0]
    rule = Rule(shape, tuple(1 for _ in shape.args), 0, 1)
    with pytest.raises(SwitchModelError, match="scan_rate"):
        SwitchModel(PIPELINE).apply(Effects(adds=[(1, rule)]), 0.0)


# ----------------------------------------------------------------------------------------------- a run


def run_of(
    flow: Flow, *times: float, idle_s: int, kind: Kind = Kind.SHORT, match_connection: bool = False
) -> dict[str, int]:
    """Packet-ins by table of one flow, a packet at each time."""
    one = Parameters(
        duration_s=times[-1] + 1, vms=1, neighbors=50, same_subnet=10, services=2, shared_services=2
    )
    made = Traffic(one, [flow], [Burst(time_s, 0, 1) for time_s in times], [frozenset()])
    run = HostRun(TrafficVpc(one), settings(idle_s, match_connection=match_connection))
    return run.run(made).packet_ins_by_table


FAR = Flow(0, 20, 6, 40_000, 443, incoming=False, kind=Kind.SHORT)


def test_one_packet_in_brings_verdict_and_location_and_a_live_connection_needs_no_verdict():
    # The question for the gateway, then the connection; each gap is shorter than the timeout.
    assert run_of(FAR, 0, 9, 18, idle_s=10) == {"RESPONDER": 1, "EGRESS_VERDICT": 1}
    # After a longer one its place is asked for again, but nobody judges it again.
    assert run_of(FAR, 0, 11, idle_s=10) == {"RESPONDER": 1, "EGRESS_VERDICT": 1, "LOCATION": 1}


def test_a_neighbor_of_the_subnet_is_sent_to_at_its_own_mac():
    near = FAR._replace(remote=3)
    assert run_of(near, 0, 1, idle_s=10) == {"RESPONDER": 1, "EGRESS_VERDICT": 1}
    late = GUEST_KEEPS_S + 1
    assert run_of(near, 0, late, idle_s=10) == {
        "RESPONDER": 2,
        "EGRESS_VERDICT": 1,
        "LOCATION": 1,
    }


def test_conntrack_forgets_udp():
    dns = FAR._replace(protocol=17, remote_port=53)
    late = UDP_KEPT_S + 1
    assert run_of(dns, 0, late, idle_s=10) == {"RESPONDER": 1, "EGRESS_VERDICT": 2}
    assert run_of(dns, 0, late, idle_s=60) == {"RESPONDER": 1, "EGRESS_VERDICT": 1}


def test_a_connection_that_comes_in_brings_the_way_of_its_answer():
    incoming = Flow(0, 20, 6, 443, 40_000, incoming=True, kind=Kind.SHORT)
    assert run_of(incoming, 0, 1, idle_s=10) == {"RESPONDER": 1, "INGRESS_VERDICT": 1}


def test_what_is_denied_is_dropped_in_the_switch_for_a_while():
    closed = Flow(0, 20, 6, 23, 40_000, incoming=True, kind=Kind.CLOSED)
    assert run_of(closed, 0, 1, 3, 7, idle_s=300) == {"INGRESS_VERDICT": 1}
    assert run_of(closed, 0, 11, idle_s=300) == {"INGRESS_VERDICT": 2}


def test_an_address_that_nobody_has_is_dropped_for_a_while():
    nobody = FAR._replace(remote=55, kind=Kind.SCAN)
    assert run_of(nobody, 0, 1, idle_s=300) == {"RESPONDER": 1, "EGRESS_VERDICT": 1}


@pytest.mark.parametrize("match_connection", [False, True])
def test_engine_and_switch_agree_and_nobody_beats_the_optimum(small, match_connection):
    vpc, totals = TrafficVpc(SMALL), []
    needs: list[PriceList] = []
    for idle_s in (5, 60):
        needs.append(PriceList())
        run = HostRun(
            vpc, settings(idle_s, match_connection=match_connection), needs=needs[-1].needs
        )
        outcome = run.run(small)
        assert outcome.alive_end == outcome.ledger_end > 0
        assert set(run.switch.rules) == {entry.key for entry in run.engine.installer.ledger}
        assert sum(outcome.alive_by_table.values()) == pytest.approx(outcome.alive_mean)
        assert outcome.flows == len(small.flows)
        optimum = Optimum(needs[0].prices, needs[0].compulsory, SMALL.duration_s)
        assert optimum.requests == outcome.requests
        assert optimum.compulsory <= optimum.packet_ins(outcome.alive_mean) <= outcome.total
        best = optimum.rules(outcome.total)
        assert best is not None
        assert best <= outcome.alive_mean
        totals.append(outcome.total)
    assert totals[1] < totals[0]
    # What a packet needs does not depend on when rules leave.
    assert list(needs[0].prices) == list(needs[1].prices)
    assert needs[0].compulsory == needs[1].compulsory


# --------------------------------------------------------------------------------------------- optimum

Packets = list[tuple[float, tuple[str, ...]]]


def some_packets(seed: int) -> Packets:
    chance = random.Random(seed)
    times = sorted(chance.sample(range(1, 40), 6))
    return [(float(time_s), tuple(chance.sample("abc", chance.randint(1, 2)))) for time_s in times]


def every_cache(packets: Packets) -> list[tuple[float, int]]:
    """(rule-seconds, packet-ins) of each way to keep or let go every rule after each use."""
    last: dict[str, float] = {}
    gaps: list[tuple[int, str, float]] = []
    for number, (now_s, keys) in enumerate(packets):
        gaps += [(number, key, now_s - last[key]) for key in keys if key in last]
        last |= dict.fromkeys(keys, now_s)
    found = []
    for kept in itertools.product((False, True), repeat=len(gaps)):
        here = {gap[:2] for gap, is_kept in zip(gaps, kept, strict=True) if is_kept}
        paid_s = sum(gap[2] for gap, is_kept in zip(gaps, kept, strict=True) if is_kept)
        missed = [any((n, key) not in here for key in keys) for n, (_, keys) in enumerate(packets)]
        found.append((paid_s, sum(missed)))
    return found


def optimum_of(packets: Packets) -> Optimum:
    prices = PriceList()
    for now_s, keys in packets:
        prices.needs(now_s, [("slot", (key.encode(),)) for key in keys])
    return Optimum(prices.prices, prices.compulsory, duration_s=1.0)


@pytest.mark.parametrize("seed", range(12))
def test_optimum_is_the_best_of_all_caches(seed):
    packets = some_packets(seed)
    optimum, caches = optimum_of(packets), every_cache(packets)
    for budget_s in {paid_s for paid_s, _ in caches}:
        best = min(misses for paid_s, misses in caches if paid_s <= budget_s)
        assert optimum.packet_ins(budget_s) == best
    for misses in range(len(packets) + 1):
        possible = [paid_s for paid_s, others in caches if others <= misses]
        assert optimum.rules(misses) == (min(possible) if possible else None)


def test_an_idle_timeout_pays_itself_for_each_rule_that_ages_out():
    idle_s, chance = 10, random.Random(5)
    rules = [location(idle_s, last=number) for number in range(5)]
    switch, prices, misses = SwitchModel(PIPELINE), PriceList(), 0
    now_s = 0.0
    for cookie in range(1, 400):
        now_s += chance.expovariate(0.4)
        rule = chance.choice(rules)
        switch.age(now_s)
        prices.needs(now_s, (rule.key,))
        if switch.use(rule.key, now_s) is None:
            misses += 1
            switch.apply(Effects(adds=[(cookie, rule)]), now_s)
    end_s = now_s + idle_s
    switch.age(end_s)
    assert not switch.rules
    optimum = Optimum(prices.prices, prices.compulsory, end_s)
    best = optimum.rules(misses)
    assert best is not None
    paid_more_s = switch.alive_s(end_s) - best * end_s
    assert paid_more_s == pytest.approx(idle_s * switch.removed[IDLE])
    assert switch.removed[IDLE] == misses


def test_frontier_falls_from_all_to_the_compulsory():
    optimum = optimum_of(some_packets(1))
    points = optimum.frontier()
    assert points[0].rules == 0.0
    assert points[0].packet_ins == optimum.requests
    assert points[-1].packet_ins == optimum.compulsory
    assert [p.packet_ins for p in points] == sorted((p.packet_ins for p in points), reverse=True)
    assert [p.rules for p in points] == sorted(p.rules for p in points)


# ----------------------------------------------------------------------------------------- the command


def test_preloaded_is_counted_from_the_goal_state():
    found = TrafficVpc(SMALL).preloaded()
    assert (found.neighbors, found.by_member, found.egress) == (2_000, 4 * 3 * 2_000, 4)
    assert found.by_conjunction == 2_000 + 4 * 3 + 1


def test_command_writes_its_result_and_the_report_draws_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(traffic, "Parameters", _small)
    target = tmp_path / "traffic.json"
    assert traffic.main(["--quick", "--idle", "5,30", "--seed", "7", "--json", str(target)]) == 0
    result = json.loads(target.read_text())
    assert result["benchmark"] == "traffic"
    assert result["parameters"]["seed"] == 7
    assert result["parameters"]["match"] == "service"
    assert [row["idle_s"] for row in result["rows"]] == [5, 30, None]
    for row in result["rows"]:
        assert row["optimum_packet_ins_per_s"] <= row["packet_ins_per_s"]
        assert 0 < row["flow_hit_rate"] < row["packet_hit_rate"] < 1
    said = capsys.readouterr().out
    assert "idle 30 s" in said
    assert "preloaded" in said
    curve, numbers = view([result])
    assert draw(curve).startswith("<svg")
    assert all(
        len(row.values) == len(panel.columns) for panel in (curve, numbers) for row in panel.rows
    )


def _small(**given: object) -> Parameters:
    own = {name: getattr(SMALL, name) for name in _names()}
    return Parameters(**own | given | {"duration_s": 60.0})


@pytest.mark.parametrize(
    "wrong", [["--idle", "60,5"], ["--idle", "x"], ["--hours", "100"], ["--match", "mac"]]
)
def test_arguments_out_of_range_are_refused(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        traffic.main(wrong)
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err

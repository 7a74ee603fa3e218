"""Which cells the setup benchmark measures, what it says of them, and what its report shows."""

from __future__ import annotations

import pytest

from benchmarks import vpc
from benchmarks.setup_cells import KNOWN, NEW, Cell, main_cell, other_cells
from benchmarks.setup_contenders import FULL, LATENCY, NULL, STOCK, phases_of
from benchmarks.setup_rate import parse_arguments
from benchmarks.setup_result import mark_lower_bounds
from benchmarks.suite_views_setup import setup
from ondemand.goal_state import compile_goal_state

RULES, NEIGHBORS, MATCHES = (0, 10, 1_000), (1_000, 100_000, 1_000_000), ("service", "connection")


def spread(median):
    return {"median": median, "low": median, "high": median}


def phase(rate, *, window, busy=0.1):
    return {
        "window": window,
        "rate_per_s": spread(rate),
        "switch_busy": spread(busy),
        "p50_us": spread(1e6 * window / rate),
        "p90_us": spread(2e6 * window / rate),
        "p99_us": spread(3e6 * window / rate),
        "p999_us": spread(4e6 * window / rate),
        "controller_cpu_us_per_flow": spread(1e6 / rate),
    }


def contender(name, rate, **more):
    windows = {LATENCY: 1, "window-32": 32, FULL: 1000}
    return {
        "name": name,
        "faults": [],
        "controller_rss_mib": spread(60),
        "runs": [{"phases": {phase: {"answered": 10_000} for phase in windows}}],
        "summary": {name: phase(rate, window=window, **more) for name, window in windows.items()},
    }


def test_the_main_cell_is_the_largest_and_the_others_differ_in_one_number():
    main = main_cell(RULES, NEIGHBORS, MATCHES)
    others = other_cells(RULES, NEIGHBORS, MATCHES, product=False)

    assert main == Cell(1_000, 1_000_000, "service")
    assert main not in others
    assert len(others) == len(set(others)) == 8
    for cell in others:
        assert cell.rules == main.rules or cell.neighbors == main.neighbors
    # Without rules nothing is matched, so there is one cell for both matches.
    assert [cell for cell in others if not cell.rules] == [Cell(0, 1_000_000, "service")]


def test_the_product_has_every_cell_once():
    others = other_cells(RULES, NEIGHBORS, MATCHES, product=True)

    assert len(others) == 3 * 2 * 2 + 3 - 1


def test_what_can_be_asked_depends_on_the_cell():
    assert Cell(0, 1_000_000, "service").plans == (NEW,)
    assert Cell(0, 1_000_000, "service").expect == "location"
    assert Cell(10, 1_000, "connection").plans == (KNOWN,)
    assert Cell(10, 1_000, "connection").expect == "connection"
    assert Cell(10, 100_000, "service").plans == (NEW, KNOWN)


def test_no_rules_means_no_port_security():
    state = vpc.goal_state(vpc.VpcSize(2, 0, 10))

    compile_goal_state(state)
    [network] = state["vpcs"]
    for port in network["ports"]:
        assert port["port_security"] is False
        assert "security_groups" not in port


def test_phases_go_from_one_to_all_and_offer_no_more_than_there_is():
    class Plan:
        flows = range(10_000)
        neighbors = range(10_000)

    phases = phases_of(Plan, (2, 64), seconds=1.0, working_set=100)

    assert [one.window for one in phases] == [16, 1, 2, 64, 1000]
    assert sum(one.flows for one in phases[:-1]) < 10_000


@pytest.mark.parametrize(
    ("rate", "busy", "is_lower_bound"),
    [(50_000, 0.1, False), (95_000, 0.1, True), (50_000, 0.95, True)],
)
def test_a_rate_near_the_instruments_is_a_lower_bound(rate, busy, is_lower_bound):
    one = contender("x", rate, busy=busy)

    mark_lower_bounds(contender(NULL, 100_000), [one])

    assert {said["is_lower_bound"] for said in one["summary"].values()} == {is_lower_bound}


def result_with_cells():
    parameters = {"repetitions": 1, "rules": 1_000, "neighbors": 1_000_000, "match": "service"}
    contenders = [
        contender(NULL, 1_000_000),
        contender("agent, new destinations", 10_000),
        contender("agent, known destinations", 60_000),
        contender(STOCK, 3_000),
    ]
    cells = [
        {
            "rules": rules,
            "neighbors": neighbors,
            "match": match,
            "contenders": [contender("agent, new destinations", rate)],
        }
        for rules, neighbors, match, rate in (
            (0, 1_000_000, "service", 20_000),
            (10, 1_000_000, "connection", 12_000),
            (1_000, 100_000, "service", 11_000),
        )
    ]
    return {"parameters": parameters, "contenders": contenders, "cells": cells, "ratios": []}


def test_the_report_draws_windows_rules_and_neighbors():
    panels = {panel.title: panel for panel in setup([result_with_cells()])}

    windows = panels["New flows a second by packet-ins outstanding"]
    assert [column.at for column in windows.columns] == [1.0, 32.0, 1000.0]
    rules = panels["New flows a second by security rules"]
    assert [column.name for column in rules.columns] == ["0", "10", "1,000"]
    rows = {row.who: [v and v.median for v in row.values] for row in rules.rows}
    # One place without rules belongs to both lines; a line of one place is none.
    assert rows == {
        "agent, new destinations, match = connection": [20_000, 12_000, None],
        "agent, new destinations, match = service": [20_000, None, 10_000],
    }
    neighbors = panels["New flows a second by neighbors"]
    [row] = neighbors.rows
    assert [v.median for v in row.values if v] == [11_000, 10_000]


def test_the_report_shows_no_rate_that_the_instrument_limits():
    result = result_with_cells()
    mark_lower_bounds(contender(NULL, 61_000), result["contenders"][1:])

    rate = setup([result])[0]

    shown = {row.who: row.values[0] for row in rate.rows}
    assert shown["agent, known destinations"] is None
    assert shown["agent, new destinations"] is not None
    assert any("at least 60,000 flows/s" in words for words in rate.unsupported)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rules", "-1"], "rules: -1 is not in"),
        (["--rules", "10,x"], "invalid"),
        (["--match", "service,all"], "invalid"),
        (["--neighbors", "1000,2000000"], "neighbors: 2000000 is not in"),
    ],
)
def test_bad_lists_end_in_one_sentence(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_the_matrix_is_three_numbers_of_each():
    parameters, _ = parse_arguments(["--matrix"])

    assert parameters.cell == Cell(1_000, 1_000_000, "service")
    assert len(parameters.other_cells) == 8

"""Figures are summed up as a table says they are."""

from __future__ import annotations

import pytest

from benchmarks import vpc
from benchmarks.setup_rate import parse_arguments
from benchmarks.summary import Spread, ratio, table
from benchmarks.switch_run import percentile_us
from benchmarks.vpc import VpcSize


def test_spread_is_median_least_and_greatest():
    assert Spread.of([3.0, 1.0, 8.0]) == Spread(3.0, 1.0, 8.0)
    assert Spread.of([3.0, 1.0, 8.0]).text(1) == "3.0 (1.0-8.0)"


def test_ratio_pairs_the_repetitions():
    # Both were twice as slow in the second: the ratio did not move.
    assert ratio([10.0, 20.0], [5.0, 10.0]) == Spread(2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match=r"longer|shorter"):
        ratio([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50.0), (0.99, 99.0), (0.999, 100.0), (1.0, 100.0)]
)
def test_percentile_is_a_value_that_occurred(share, expected):
    assert percentile_us([1000 * number for number in range(1, 101)], share) == expected


def test_percentile_of_one_and_of_nothing():
    assert percentile_us([7000], 0.5) == percentile_us([7000], 1.0) == 7.0
    assert percentile_us([], 0.5) == 0.0


def test_table_aligns_columns():
    assert table(["", "n"], [["a", "1"], ["long", "22"]]) == (
        "       n\n--------\na      1\nlong  22"
    )


@pytest.mark.parametrize("rules", [1, 2, 7, 10, 1000, 3000])
def test_every_target_port_is_opened_by_exactly_one_egress_rule(rules):
    size = VpcSize(1, rules, 10)
    [network] = vpc.goal_state(size)["vpcs"]
    opened = [
        tuple(map(int, rule["ports"].split("-")))
        for group in network["security_groups"]
        for rule in group.get("rules", ())
        if rule["direction"] == "egress"
    ]
    ports = [port for low, high in opened for port in range(low, high + 1)]
    first = vpc.FIRST_TARGET_PORT
    assert sorted(ports) == list(range(first, first + size.target_ports))
    assert sum(len(group.get("rules", ())) for group in network["security_groups"]) == rules


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rules", "-1"], "rules: -1 is not in"),
        (["--neighbors", "2000000"], "neighbors: 2000000 is not in"),
        (["--seconds", "0.01"], "--seconds must be in"),
        (["--flows", "10"], "--flows must be at least"),
    ],
)
def test_bad_arguments_end_in_one_sentence(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err

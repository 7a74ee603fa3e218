"""Samples, lines, tables, plots and verdicts of the scale experiment."""

import xml.etree.ElementTree as ET

import pytest

from scale.charts import charts
from scale.contest import PULL, PUSH
from scale.growth import REGION_HOSTS, curves
from scale.measure import Result, Step
from scale.plot import Chart, Line, svg
from scale.push_wire import decode_entries, decode_records, encode_entry, join_entries
from scale.statistics import Times, fit_line, percentile
from scale.tables import goal_table, growth_table, seconds, size, step_table, text_table
from scale.verdict import Results, outcomes, promises

SVG = "{http://www.w3.org/2000/svg}"


def step(*, wall_s=0.1, sent=1000.0, cpu_s=0.02, rss=50_000_000):
    times = Times.of([wall_s / 2, wall_s])
    return Step("a step", 1, times, None, wall_s, sent / 100, sent, cpu_s, cpu_s, rss)


def result(hosts, contender=PULL, *, vpc=7000, **changed):
    made = Result(contender, hosts, 7000, vpc)
    made.steps = {
        "cold": step(wall_s=hosts / 100, sent=hosts * 100_000),
        "group": step(wall_s=hosts / 1000, sent=hosts * 300),
        "restart": step(wall_s=hosts / 200, sent=hosts * 50_000),
    }
    made.base_rss = 20_000_000
    made.expected = made.entered = hosts
    for name, value in changed.items():
        setattr(made, name, value)
    return made


# Samples and lines ----------------------------------------------------------------------------------


def test_percentiles_are_samples():
    ordered = [float(n) for n in range(1, 101)]
    assert [percentile(ordered, p) for p in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0], 99) == 3.0
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


def test_times_sum_up_samples_in_any_order():
    assert Times.of([3.0, 1.0, 2.0]) == Times(p50=2.0, p99=3.0, last=3.0, count=3)
    with pytest.raises(ValueError, match="no samples"):
        Times.of([])


def test_a_line_is_found_again():
    line = fit_line([(x, 3 + 2 * x) for x in (1.0, 10.0, 100.0)])
    assert (line.base, line.slope, line.r2) == pytest.approx((3, 2, 1))
    assert line.at(1000) == pytest.approx(2003)


def test_a_line_has_no_base_below_nothing():
    line = fit_line([(10.0, 0.0), (20.0, 30.0), (30.0, 60.0)])
    assert line.base == 0
    assert line.at(0) == 0
    assert line.r2 < 1


@pytest.mark.parametrize("points", [[], [(1.0, 2.0)], [(5.0, 1.0), (5.0, 2.0)]])
def test_one_place_makes_no_line(points):
    assert fit_line(points) is None


def test_a_flat_line_explains_all():
    assert fit_line([(1.0, 4.0), (2.0, 4.0)]).r2 == 1


# Growth ---------------------------------------------------------------------------------------------


def test_only_what_lies_beyond_the_measured_is_extrapolated():
    found = {
        (curve.figure.name, curve.contender): curve for curve in curves([result(100), result(300)])
    }
    curve = found["group change, bytes", PULL]
    assert curve.points == ((100, pytest.approx(30)), (300, pytest.approx(90)))
    assert curve.beyond([100, 300, 1000]) == [(1000, pytest.approx(300))]
    assert ("group change, bytes", PUSH) not in found
    assert not any(name.startswith("idle") for name, _ in found)


def test_of_one_size_nothing_is_extrapolated():
    assert all(curve.beyond([1000]) == [] for curve in curves([result(100)]))


def test_the_table_says_which_figures_were_not_measured():
    lines = growth_table(curves([result(100), result(300), result(100, PUSH)]), wanted=1000)
    assert lines[0].split()[-4:] == ["300", "~1,000", f"~{REGION_HOSTS:,}", "r2"]
    row = next(line for line in lines if line.startswith("group change, bytes") and PULL in line)
    assert "~300" in row
    assert "~300,000" in row
    lonely = next(line for line in lines if line.startswith("group change, bytes") and PUSH in line)
    assert "~" not in lonely


# Tables ---------------------------------------------------------------------------------------------


def test_columns_are_aligned():
    lines = text_table(("a", "b"), [("one", "1"), ("three", "22")])
    assert lines == ["a       b", "---------", "one     1", "three  22"]


def test_figures_come_in_the_unit_that_suits_them():
    assert [size(n) for n in (0, 999, 1500, 2_500_000, 12e9)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "12 GB",
    ]
    assert [seconds(s) for s in (0.0012, 0.25, 2.5, 31.04)] == [
        "1.2 ms",
        "250 ms",
        "2.50 s",
        "31.0 s",
    ]


def test_a_line_for_each_step():
    made = result(100, bare=step())
    lines = step_table([made], cpus=2)
    assert len(lines) == 2 + len(made.steps) + 1
    assert any("bare sockets" in line for line in lines)


def test_cpu_time_below_a_tick_is_no_zero():
    made = result(100)
    made.steps = {"group": step(cpu_s=0.0)}
    assert "< 10.0 ms" in step_table([made], cpus=2)[-1]


def test_goal_sizes_are_told_by_what_a_host_gets():
    lines = goal_table([result(50, vpc=1000), result(50, PUSH, vpc=1000)])
    assert len(lines) == 4
    assert "100 kB" not in lines[2]  # two samples: two hosts took part


# Plot -----------------------------------------------------------------------------------------------


def test_a_plot_is_sound_svg_with_all_points():
    lines = (
        Line("a <b>", ((1.0, 5.0), (100.0, 50.0))),
        Line("a <b>", ((100.0, 50.0), (1e6, 5e5)), is_drawn_out=True),
        Line("other", ((1.0, 1.0),)),
    )
    root = ET.fromstring(svg([Chart("A & B", "x", "ms", lines)], heading="<head>"))
    assert len(root.findall(f".//{SVG}circle")) == 5
    drawn = root.findall(f".//{SVG}polyline")
    assert [("stroke-dasharray" in one.attrib) for one in drawn] == [False, True, False]
    texts = {text.text for text in root.findall(f".//{SVG}text")}
    assert {"<head>", "A & B", "a <b>", "other", "1M"} <= texts
    width, height = float(root.get("width")), float(root.get("height"))
    for circle in root.findall(f".//{SVG}circle"):
        assert 0 <= float(circle.get("cx")) <= width
        assert 0 <= float(circle.get("cy")) <= height


def test_what_has_no_logarithm_is_left_out():
    chart = Chart("c", "x", "y", (Line("l", ((1.0, 0.0), (2.0, 3.0))), Line("m", ((0.0, 1.0),))))
    root = ET.fromstring(svg([chart, Chart("empty", "x", "y", ())], heading="h"))
    assert len(root.findall(f".//{SVG}circle")) == 1
    assert "empty" not in {text.text for text in root.findall(f".//{SVG}text")}


def test_results_become_charts_in_which_the_extrapolated_is_dashed():
    by_hosts = [result(n, who) for n in (100, 300) for who in (PULL, PUSH)]
    by_goal = [result(50, vpc=v) for v in (1000, 100_000)]
    found = charts(Results(by_hosts, by_goal))
    dashed = {line.name for chart in found for line in chart.lines if line.is_drawn_out}
    assert {PULL, PUSH} <= dashed
    last = found[-1].lines[0]
    assert [x for x, _ in last.points] == [1000, 100_000]
    assert "extrapolated" in found[0].x_label
    ET.fromstring(svg(found, heading="h"))


# The message of the push ----------------------------------------------------------------------------


def test_entries_are_joined_and_taken_apart_again():
    entries = [encode_entry("sg/a", 3, {"group": b"x"}), encode_entry("host/h1", 1, {})]
    found = decode_entries(join_entries(entries))
    assert [(name, version) for name, version, _ in found] == [("sg/a", 3), ("host/h1", 1)]
    assert decode_records(found[0][2]) == {"group": b"x"}
    assert decode_entries(join_entries([])) == []


# Verdict --------------------------------------------------------------------------------------------


def verdict(by_hosts, by_goal=()):
    tests = promises(has_slices=True, has_push=True, has_restart=True, has_goals=bool(by_goal))
    found = outcomes(tests, Results(list(by_hosts), list(by_goal)))
    return {outcome.promise.name: outcome.seen for outcome in found}


def test_sound_results_keep_every_promise():
    sizes = [result(50, vpc=v) for v in (1000, 100_000)]
    found = verdict([result(100), result(100, PUSH)], sizes)
    assert len(found) == 6
    assert all(seen.ok for seen in found.values()), found


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("changes", {"entered": 99}),
        ("changes", {"twice": 1}),
        ("the end", {"different": 1, "first": ["h3: sg/all"]}),
    ],
)
def test_each_promise_can_be_broken(name, wrong):
    found = verdict([result(100, **wrong), result(100, PUSH)])
    assert [broken for broken, seen in found.items() if not seen.ok] == [name]
    pushed = {"changes": "pushed changes", "the end": "the end of the push"}[name]
    found = verdict([result(100), result(100, PUSH, **wrong)])
    assert [broken for broken, seen in found.items() if not seen.ok] == [pushed]


def test_a_restart_must_be_cheaper_than_a_cold_start():
    dear = result(300)
    dear.steps["restart"] = dear.steps["cold"]
    assert not verdict([result(100), dear, result(100, PUSH)])["restart with what was saved"].ok


def test_a_change_must_not_grow_with_the_vpc():
    small, large = result(50, vpc=1000), result(50, vpc=10**6)
    large.steps["group"] = step(sent=50 * 700)
    found = verdict([result(100), result(100, PUSH)], [small, large])
    assert not found["a larger VPC"].ok
    assert "700 B with 1 MB" in found["a larger VPC"].text


def test_what_was_not_measured_is_not_held():
    found = verdict([result(100)])
    assert not found["pushed changes"].ok

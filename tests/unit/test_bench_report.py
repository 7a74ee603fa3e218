"""The report shows every contender, names its axes, needs nothing beside it, and claims nothing unsupported."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import click
import msgspec
import pytest
from click.testing import CliRunner

from benchmarks.cli_bench import command
from benchmarks.report import render, supported
from benchmarks.report_axes import log_axis, steps_from_zero
from benchmarks.report_svg import draw
from benchmarks.suite import Ran, section_of
from benchmarks.suite_registry import Benchmark, find
from benchmarks.suite_results import (
    FORMAT,
    Column,
    Panel,
    Ratio,
    Results,
    ResultsError,
    Row,
    Section,
    Value,
    read,
    write,
)
from benchmarks.suite_views_latency import quantiles

MACHINE = {"cpu": "Some <CPU>", "cpus": 2, "kernel": "6.1", "packages": {"os-ken": "4"}}
SVG = "{http://www.w3.org/2000/svg}"


def spread(median, reach=0.1):
    return {"median": median, "low": median * (1 - reach), "high": median * (1 + reach)}


def setup_result(*, wrong=()):
    names = {
        "null responder (C)": 20,
        "agent, new destinations": 140,
        "stock os-ken app": 330,
        "ovs-testcontroller (C)": 25,
    }
    phase = {"latency": {"answered": 5000}}
    contenders = [
        {
            "name": name,
            "faults": ["2 error messages"] if name in wrong else [],
            "controller_rss_mib": spread(60),
            "runs": [{"phases": phase}] * 2,
            "summary": {
                "latency": {
                    "p50_us": spread(us),
                    "p90_us": spread(us * 2),
                    "p99_us": spread(us * 3),
                    "p999_us": spread(us * 4),
                },
                "window-1000": {
                    "rate_per_s": spread(2e6 / us),
                    "controller_cpu_us_per_flow": spread(us / 2),
                },
            },
        }
        for name, us in names.items()
    ]
    ratios = [
        {
            "ours": "agent, new destinations",
            "theirs": theirs,
            "rate": spread(times),
            "latency_p50": spread(1 / times),
        }
        for theirs, times in (("stock os-ken app", 4.0), ("ovs-testcontroller (C)", 1.02))
        if theirs not in wrong
    ]
    return {
        "parameters": {"repetitions": 2, "seed": 7},
        "contenders": contenders,
        "ratios": ratios,
    }


def first_packet_result(*, faults=()):
    whos = {
        "on demand": 400,
        "preloaded": 100,
        "stock os-ken app": 800,
        "ovs-testcontroller (C)": 300,
    }
    return {
        "parameters": {"rounds": 3, "flows": 100},
        "faults": list(faults),
        "results": [
            {
                "who": who,
                "path": path,
                "first": {
                    "p50_us": spread(us),
                    "p90_us": spread(us * 2),
                    "p99_us": spread(us * 5),
                    "all_us": [us + number for number in range(300)],
                },
                "later": {"p50_us": spread(90)},
            }
            for path in ("local", "remote")
            for who, us in whos.items()
        ],
        "ratios": [
            {"path": "local", "ours": "on demand", "theirs": "preloaded", "p50": spread(4.0)},
            {
                "path": "local",
                "ours": "on demand",
                "theirs": "stock os-ken app",
                "p50": spread(0.5),
            },
        ],
    }


def cold_start_result(neighbors):
    start = {
        "served_s": 0.5,
        "full_s": None,
        "rss_mib": 60.0,
        "switch_rss_mib": 24.0,
        "switch_before_mib": 21.0,
        "rules": 2_084,
    }
    modes = {"boot": {"full_s": 1.0}, "saved": {}, "fresh": {}}
    return {
        "parameters": {"neighbors": [neighbors], "repetitions": 2},
        "sources": [
            {
                "source": kind,
                "neighbors": neighbors,
                "starts": [start | {"mode": mode} | more for mode, more in modes.items()] * 2,
            }
            for kind in ("sqlite", "nats")
        ],
        "expanded": [
            {
                "neighbors": neighbors,
                "served_s": 0.02,
                "full_s": neighbors / 1e5,
                "switch_rss_mib": 20.0 + neighbors / 1e3,
                "switch_before_mib": 20.0,
                "rules": neighbors,
            }
        ],
        "left_out": [],
    }


def memory_result():
    return {
        "parameters": {"repetitions": 3, "flows_per_neighbor": 4},
        "samples": [
            {"neighbors_in_store": n, "neighbors_in_use": u, "spread": spread(80)}
            for n, u in ((100_000, 1_000), (100_000, 10_000), (1_000, 1_000))
        ],
    }


def change_result(*, never=0):
    return {
        "parameters": {"repetitions": 5},
        "summary": [
            {
                "who": who,
                "change": what,
                "in_use": 20,
                "never": never if who == "expanded" else 0,
                "effective_ms": spread(5),
                "made_ms": spread(2),
            }
            for what in ("moved", "member left")
            for who in ("on demand", "expanded")
        ],
        "messages": [
            {
                "who": who,
                "change": "member left",
                "members": size,
                "total": size if who == "expanded" else 2,
            }
            for size in (20, 2000)
            for who in ("on demand", "expanded")
        ],
    }


def provision_result():
    return {
        "parameters": {"repetitions": 3},
        "summary": [
            {
                "who": who,
                "ports": 50,
                "neighbors": size,
                "never": 0,
                "served_ms": spread(40 if who == "on demand" else size / 10),
            }
            for size in (1_000, 100_000)
            for who in ("on demand", "expanded")
        ],
    }


def section(name, *results, code=0):
    one = find(name)
    return section_of(one, [f"ondemand bench {name}"], [Ran(code, r, "") for r in results], 3.0)


def everything(*sections):
    return Results(
        FORMAT,
        "make bench",
        False,
        600.0,
        MACHINE,
        list(sections)
        or [
            section("setup", setup_result()),
            section("first-packet", first_packet_result()),
            section("cold-start", cold_start_result(1_000), cold_start_result(1_000_000)),
            section("change", change_result()),
            section("provision", provision_result()),
            section("memory", memory_result()),
        ],
    )


def parsed(page):
    """The page as a tree; it is well-formed XML too, so that a missing end is found."""
    assert page.startswith("<!DOCTYPE html>")
    return ET.fromstring(page.partition("\n")[2])


def words_of(node):
    return [" ".join(text.itertext()).strip() for text in node.iter(f"{SVG}text")]


def panel(**changes):
    made = Panel(
        title="t",
        kind="lines",
        x_label="neighbors (ports)",
        y_label="memory (MiB)",
        repetitions="3",
        columns=[Column("10", "MiB", at=10.0), Column("1,000", "MiB", at=1000.0)],
        rows=[Row("mine", "ours", [Value(50, 49, 52), Value(60, 58, 61)])],
    )
    return msgspec.structs.replace(made, **changes)


def test_every_picture_has_all_contenders_and_both_axes_with_units():
    found = everything()
    pictures = list(parsed(render(found)).iter(f"{SVG}svg"))
    panels = [one for part in found.benchmarks for one in part.panels]
    assert len(pictures) == len(panels) == 12
    for picture, drawn in zip(pictures, panels, strict=True):
        words = words_of(picture)
        assert drawn.x_label in words
        assert any(word.startswith(drawn.y_label) for word in words), drawn.title
        assert re.search(r"\(.+\)", drawn.x_label), drawn.title
        for row in drawn.rows:
            assert row.is_drawn == any(word.startswith(row.who) for word in words), row.who
        # Every mark is inside.
        _, _, width, height = map(float, picture.get("viewBox").split())
        for node in picture.iter():
            for name, limit in (
                ("x", width),
                ("x1", width),
                ("cx", width),
                ("y", height),
                ("cy", height),
            ):
                assert 0 <= float(node.get(name, 0)) <= limit, (drawn.title, node.attrib)


def test_the_tables_have_medians_with_spread_of_every_contender():
    page = " ".join("".join(parsed(render(everything())).itertext()).split())
    for who in (
        *("null responder (C)", "agent, new destinations", "stock os-ken app"),
        *("ovs-testcontroller (C)", "on demand (the agent)", "same rules, preloaded"),
        *("sqlite, saved", "nats, boot", "agent, 10,000 neighbors in use"),
        *("member left, expanded", "on demand, 50 ports on the host"),
    ):
        assert who in page, who
    assert "400 (360 to 440)" in page
    assert "6,061 (5,455 to 6,667)" in page
    assert "seed 7" in page
    assert "make bench" in page
    assert "Some <CPU>" in page


def test_the_page_needs_nothing_beside_it_and_follows_the_reader_s_theme():
    page = render(everything())
    assert set(re.findall(r"https?://[^\"'<> ]+", page)) == {"http://www.w3.org/2000/svg"}
    for part in ("<script", "<link", "<img", "@import", "url(", "src="):
        assert part not in page
    assert "prefers-color-scheme: dark" in page
    used = set(re.findall(r'class="(?:key )?(series-[a-z]+-\d)"', page))
    assert used
    for name in used:
        # Once for a light page, once for a dark one.
        assert len(re.findall(rf"--{name}:#", page)) == 2


def test_names_are_text_and_not_markup():
    hostile = "<script>alert('x')</script> & \"co\""
    rows = [Row(hostile, "theirs", [Value(1, 1, 2), Value(2, 1, 3)])]
    made = panel(title=hostile, rows=rows, note=hostile, unsupported=[hostile])
    part = Section(
        hostile, hostile, "failed", 1.0, [hostile], hostile, [{hostile: hostile}], 1, [made]
    )
    page = render(everything(part))
    assert "<script" not in page
    assert hostile in "".join(parsed(page).itertext())


@pytest.mark.parametrize(
    ("low", "median", "high", "is_shown"),
    [(2.0, 3.0, 4.0, True), (0.2, 0.3, 0.9, True), (0.9, 1.5, 2.0, False), (3.0, 3.0, 3.0, False)],
)
def test_a_ratio_is_shown_only_if_all_repetitions_agree(low, median, high, is_shown):
    ratio = Ratio("rate", "mine", "someone else's", Value(median, low, high))
    assert supported(ratio) is is_shown
    page = render(everything(Section("x", "", "measured", 1, [], panels=[panel(ratios=[ratio])])))
    assert ("someone else&#x27;s" in page) is is_shown


def test_the_suite_keeps_a_ratio_that_is_not_shown():
    [rate, latency] = section("setup", setup_result()).panels
    assert [one.theirs for one in rate.ratios] == ["stock os-ken app", "ovs-testcontroller (C)"]
    assert [supported(one) for one in rate.ratios + latency.ratios] == [True, False, True, False]


def test_a_contender_with_wrong_answers_has_no_figure():
    found = section("setup", setup_result(wrong=["stock os-ken app"]), code=1)
    assert found.status == "not comparable"
    for one in found.panels:
        assert "stock os-ken app" not in [row.who for row in one.rows]
        assert one.unsupported == ["stock os-ken app: 2 error messages"]
    assert "not comparable: stock os-ken app: 2 error messages" in render(everything(found))


def test_lost_packets_take_the_figures_of_their_path_only():
    fault = "stock os-ken app, local: 3 frames of pass 1 were lost"
    local, remote = section("first-packet", first_packet_result(faults=[fault]), code=1).panels
    assert "stock os-ken app" not in [row.who for row in local.rows]
    assert [one.theirs for one in local.ratios] == ["same rules, preloaded"]
    assert local.unsupported == [fault]
    assert "stock os-ken app" in [row.who for row in remote.rows]
    assert remote.unsupported == []


def test_missing_rules_take_the_agents_figures_of_all_paths():
    fault = "the agents' switches hold 3 verdict rules, not 4"
    for one in section("first-packet", first_packet_result(faults=[fault]), code=1).panels:
        assert "on demand (the agent)" not in [row.who for row in one.rows]
        assert (one.unsupported, one.ratios) == ([fault], [])


def test_a_percentile_of_too_few_is_not_told():
    result = setup_result()
    for one in result["contenders"]:
        one["runs"] = [{"phases": {"latency": {"answered": 400}}}] * 2
    [_, latency] = section("setup", result).panels
    for row in latency.rows:
        p50, p90, p99, p999 = row.values
        assert p50 is not None
        assert p90 is not None
        assert (p99, p999) == (None, None)


def test_quantiles_end_where_the_samples_do():
    found = quantiles([float(number) for number in range(1000)])
    assert found[0] == (0.01, 10.0)
    assert found[49] == (0.5, 500.0)
    assert max(share for share, _ in found) == 0.994
    assert quantiles([]) == []
    assert quantiles([1.0, 2.0]) == []


def test_changes_that_were_never_effective_have_no_figure():
    found = section("change", change_result(never=1), code=1)
    assert [row.who for row in found.panels[0].rows] == [
        "moved, on demand",
        "member left, on demand",
    ]
    assert "never effective" in found.panels[0].unsupported[0]


def test_a_benchmark_without_a_view_shows_its_medians():
    one = Benchmark("other", "other", "Other.")
    raw = {"machine": {}, "rows": [{"name": "mine", "deep": [{"ms": spread(3.0)}]}, {"name": "n"}]}
    [made] = section_of(one, [], [Ran(0, raw, "")], 1.0).panels
    assert [row.who for row in made.rows] == ["rows / mine / deep / 0 / ms"]
    assert "3.000" in render(everything(Section("other", "", "measured", 1, [], panels=[made])))


def test_one_place_on_the_x_axis_is_drawn_as_bars():
    one = panel(
        columns=[Column("10 neighbors", "MiB", at=10.0)],
        rows=[Row("mine", "ours", [Value(5, 4, 6)])],
    )
    words = words_of(ET.fromstring(draw(one)))
    assert "memory (MiB), with 10 neighbors" in words
    assert "mine" in words


def test_values_far_apart_get_a_logarithmic_axis():
    far = panel(
        rows=[
            Row("a", "ours", [Value(5, 5, 5)] * 2),
            Row("b", "theirs", [Value(900, 900, 900)] * 2),
        ]
    )
    assert "memory (MiB), logarithmic" in words_of(ET.fromstring(draw(far)))
    assert "memory (MiB)" in words_of(ET.fromstring(draw(panel())))


@pytest.mark.parametrize("kind", ["bars", "percentiles", "lines", "table"])
def test_a_panel_without_figures_is_no_picture(kind):
    assert draw(panel(kind=kind, rows=[])) == ""
    assert draw(panel(kind=kind, rows=[Row("mine", "ours", [None, None])])) == ""


@pytest.mark.parametrize(
    ("low", "high"), [(7, 7), (0.3, 41), (1, 10), (25, 2_599_277), (999, 1001)]
)
def test_axes_reach_around_their_values(low, high):
    scale, ticks = log_axis(low, high, 0, 100)
    assert ticks[0] <= low * 1.001
    assert high <= ticks[-1] * 1.001
    assert -1 <= scale.at(low) <= scale.at(high) <= 101
    steps = steps_from_zero(high)
    assert (steps[0], steps[-1] >= high * 0.999) == (0, True)
    assert 2 <= len(steps) <= 9


def test_what_is_written_is_read_back(tmp_path):
    found = everything()
    write(found, tmp_path / "r.json")
    assert read(tmp_path / "r.json") == found
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["format"] == FORMAT
    assert document["benchmarks"][0]["seed"] == 7
    value = document["benchmarks"][0]["panels"][0]["rows"][0]["values"][0]
    assert value.keys() == {"median", "low", "high"}


def spoiled(change):
    document = json.loads(msgspec.json.encode(everything()))
    change(document)
    return json.dumps(document)


BAD = {
    "empty": "",
    "no JSON": "<html>",
    "a list": "[]",
    "another result": '{"benchmark": "setup_rate"}',
    "another format": spoiled(lambda d: d.update(format="ondemand-bench/9")),
    "no median": spoiled(
        lambda d: d["benchmarks"][0]["panels"][0]["rows"][0]["values"][0].pop("median")
    ),
    "a word for a number": spoiled(lambda d: d.update(took_s="long")),
    "a row too short": spoiled(
        lambda d: d["benchmarks"][0]["panels"][0]["rows"][0]["values"].pop()
    ),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_a_file_that_is_no_result_ends_in_one_sentence(tmp_path, text):
    source, target = tmp_path / "bad.json", tmp_path / "report.html"
    source.write_text(text)
    with pytest.raises(ResultsError):
        read(source)
    done = CliRunner().invoke(
        command, ["--report", str(source), "-o", str(target)], standalone_mode=False
    )
    assert isinstance(done.exception, click.ClickException)
    assert done.exception.exit_code == 2
    assert str(source) in done.exception.message
    assert "ondemand bench" in done.exception.message
    assert "\n" not in done.exception.message
    assert not target.exists()


def test_a_missing_or_binary_file_ends_in_one_sentence(tmp_path):
    with pytest.raises(ResultsError, match="cannot be read: No such file"):
        read(tmp_path / "lost.json")
    (tmp_path / "binary").write_bytes(b'{"format": "\xff\xfe"}')
    with pytest.raises(ResultsError, match="is no result of the suite"):
        read(tmp_path / "binary")


def test_rows_of_one_series_have_one_color():
    [few, _] = section("change", change_result()).panels
    picture = draw(few)
    assert set(re.findall(r"series-[a-z]+-\d", picture)) == {"series-ours-0", "series-theirs-0"}
    rows = [Row(who, "theirs", [Value(1, 1, 2)] * 2) for who in ("a", "b")]
    assert set(re.findall(r"series-[a-z]+-\d", draw(panel(rows=rows)))) == {
        "series-theirs-0",
        "series-theirs-1",
    }

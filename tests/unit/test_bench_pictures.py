"""The plots for README: files of their own, with everything in them, or a sentence that says what is missing."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.cli_bench import command
from benchmarks.report_pictures import PICTURES, NoPictureError, pictures
from benchmarks.suite_results import FORMAT, Column, Panel, Results, Row, Section, Value, write


def results(*, without: str = "") -> Results:
    sections: dict[str, list[Panel]] = {}
    for _, name, title in PICTURES:
        panel = Panel(
            title=f"{title}, and more",
            kind="lines",
            x_label="neighbors (ports)",
            y_label="time (s)",
            repetitions="1",
            columns=[Column("few", "s", at=10.0), Column("many", "s", at=1000.0)],
            rows=[
                Row("an agent", "ours", [Value(1, 1, 1), Value(1, 1, 1)]),
                Row("another", "theirs", [Value(1, 1, 1), Value(9, 9, 9)]),
            ],
        )
        sections.setdefault(name, []).append(panel)
    found = [
        Section(name, "", "measured", 1.0, [], panels=panels)
        for name, panels in sections.items()
        if name != without
    ]
    return Results(FORMAT, "make bench", False, 1.0, {"cpu": "some"}, found)


def test_each_is_one_svg_with_its_colors() -> None:
    drawn = pictures(results())
    assert len(drawn) == len(PICTURES)
    for text in drawn.values():
        root = ET.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        words = [one.text or "" for one in root.iter() if one.text]
        assert any("--series-ours-0:" in one for one in words), "the style sheet is inside"
        assert "time (s)" in words
        assert any("an agent" in one for one in words)
        assert "href" not in text


def test_what_is_not_measured_is_named() -> None:
    with pytest.raises(NoPictureError, match="--only cold-start"):
        pictures(results(without="cold-start"))


def test_the_command_writes_them_beside_the_report(tmp_path: Path) -> None:
    write(results(), tmp_path / "r.json")
    words = ["--report", str(tmp_path / "r.json"), "-o", str(tmp_path / "r.html")]
    done = CliRunner().invoke(command, [*words, "--plots", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert {one.name for one in tmp_path.glob("*.svg")} == {f"{one[0]}.svg" for one in PICTURES}


def test_plots_of_a_part_or_without_a_report_are_refused(tmp_path: Path) -> None:
    write(results(without="first-packet"), tmp_path / "r.json")
    words = ["--report", str(tmp_path / "r.json"), "-o", str(tmp_path / "r.html")]
    done = CliRunner().invoke(command, [*words, "--plots", str(tmp_path)])
    assert done.exit_code == 2
    assert "first-packet" in done.output
    done = CliRunner().invoke(command, ["--plots", str(tmp_path)])
    assert done.exit_code == 2
    assert "--plots goes with --report" in done.output

"""``ondemand bench`` lists and finds benchmarks, runs one or all, and survives the one that fails."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks import cli_bench, suite, suite_registry
from benchmarks.cli_bench import command
from benchmarks.suite_registry import BENCHMARKS, Benchmark, UnknownBenchmarkError, find
from benchmarks.suite_results import FORMAT, Results, Section, read
from benchmarks.suite_views import VIEWS

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("--records", "3", "--rounds", "2")
DECODE = Benchmark("record-decode", "record_decode", "Decode.", quick=(SHORT,))


def run_python(*arguments, code="from benchmarks.cli_bench import command; command()"):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def invoke(*arguments):
    return CliRunner().invoke(command, arguments, standalone_mode=False)


def test_each_line_of_the_table_is_a_module_with_a_view_of_its_own():
    names = [name for one in BENCHMARKS for name in {one.name, one.stem}]
    assert len(names) == len(set(names))
    for one in BENCHMARKS:
        assert importlib.util.find_spec(one.module), one.module
        assert one.stem in VIEWS
        assert one.runs(quick=True)
        assert one.runs(quick=False)
        assert one.summary.endswith(".")


def test_a_benchmark_is_found_by_its_name_and_by_its_module():
    assert find("first-packet") is find("first_packet")
    assert find("setup").stem == find("setup_rate").stem == "setup_rate"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("first-pocket", "did you mean 'first-packet'"),
        ("setup-rate", "did you mean 'setup_rate'"),
        ("zzz", "there are setup, first-packet, tcp-crr, cold-start"),
    ],
)
def test_an_unknown_name_gets_a_hint(name, words):
    with pytest.raises(UnknownBenchmarkError, match=words):
        find(name)
    for arguments in ([name], ["--only", name], ["--without", name]):
        caught = invoke(*arguments).exception
        assert isinstance(caught, click.UsageError)
        assert words in caught.message
        assert "\n" not in caught.message


def test_the_list_has_each_benchmark_and_imports_none_of_them():
    modules = [one.module for one in BENCHMARKS]
    code = f"""
import sys
from benchmarks.cli_bench import command
try:
    command(["--help"])
except SystemExit as end:
    assert not end.code
print([name for name in [*{modules!r}, "benchmarks.suite", "os_ken", "mininet"] if name in sys.modules])
"""
    done = run_python(code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    text = " ".join(done.stdout.split())
    for one in BENCHMARKS:
        assert f"{one.name} {one.summary}" in text
    assert "Exit code: 0" in text


def test_it_is_added_to_ondemand_by_an_entry_point():
    assert 'bench = "benchmarks.cli_bench:command"' in (ROOT / "pyproject.toml").read_text()
    assert command.name == "bench"


@pytest.mark.parametrize("before", [True, False])
def test_one_benchmark_gets_all_that_is_given(tmp_path, before):
    target = tmp_path / "decode.json"
    options = ["--json", str(target)]
    own = ["record-decode", *SHORT]
    done = run_python(*((*options, *own) if before else (*own, *options)))
    assert done.returncode == 0, done.stderr
    assert "us/record" in done.stdout
    result = json.loads(target.read_text())
    assert result["parameters"] == {"records": 3, "rounds": 2}


def test_help_and_errors_of_a_benchmark_are_its_own():
    done = run_python("record-decode", "--help")
    assert (done.returncode, "--records" in done.stdout) == (0, True)
    done = run_python("record-decode", "--records", "0")
    assert done.returncode == 2
    assert "--records and --rounds must be at least 1" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "memory", "setup"], "are for the suite"),
        (["-o", "x.html", "setup"], "are for the suite"),
        (["--report", "x.json", "--quick"], "--report measures nothing"),
        (["--only", "memory", "--without", "agent_memory"], "leave no benchmark"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_sentence(arguments, words):
    caught = invoke(*arguments).exception
    assert isinstance(caught, click.UsageError)
    assert words in caught.message


def test_a_missing_folder_is_told_before_anything_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(suite, "run_suite", None)
    for option in ("--json", "-o"):
        caught = invoke(option, str(tmp_path / "lost" / "file")).exception
        assert isinstance(caught, click.ClickException)
        assert "there is no folder" in caught.message


def test_the_suite_writes_figures_and_report(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(cli_bench, "BENCHMARKS", (DECODE,))
    figures, page = tmp_path / "results.json", tmp_path / "report.html"
    result = invoke("--quick", "--json", str(figures), "-o", str(page))
    assert result.exception is None
    assert result.return_value == 0
    found = read(figures)
    assert (found.quick, found.command) == (True, "make bench ARGS=--quick")
    [section] = found.benchmarks
    assert section.status == "measured"
    assert section.parameters == [{"records": 3, "rounds": 2}]
    assert section.commands == ["ondemand bench record-decode --records 3 --rounds 2"]
    assert "msgpack + dataclass" in page.read_text()
    assert {"cpu", "kernel", "python"} <= found.machine.keys()

    again = tmp_path / "again.html"
    assert invoke("--report", str(figures), "-o", str(again)).exception is None
    assert again.read_text() == page.read_text()
    # Said on the way: which of how many.
    assert "[1/1] record-decode" in capfd.readouterr().err + result.stderr


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["measured", "measured"], 0),
        (["measured", "not comparable"], 1),
        (["not comparable", "failed"], 2),
        (["measured", "left out"], 2),
    ],
)
def test_the_exit_code_says_whether_all_was_measured(monkeypatch, tmp_path, statuses, code):
    sections = [Section("x", "", status, 0.0, []) for status in statuses]
    results = Results(FORMAT, "make bench", False, 1.0, {}, sections)
    monkeypatch.setattr(suite, "run_suite", lambda *_, **__: results)
    figures = tmp_path / "results.json"
    assert invoke("--json", str(figures), "-o", str(tmp_path / "report.html")).return_value == code


def test_a_benchmark_that_fails_says_why_and_spoils_no_other(capfd):
    broken = Benchmark("broken", "record_decode", "", quick=(("--rounds", "0"),))
    found = suite.run_suite([broken, DECODE], quick=True, command="make bench")
    assert [one.status for one in found.benchmarks] == ["failed", "measured"]
    assert "--records and --rounds must be at least 1" in found.benchmarks[0].reason
    assert found.benchmarks[0].panels == []
    assert "--records and --rounds" in capfd.readouterr().err


def test_without_root_those_that_need_it_are_left_out(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    section = suite.run_benchmark(find("cold-start"), quick=False)
    assert (section.status, section.panels) == ("left out", [])
    assert "root" in section.reason


def test_a_benchmark_that_hangs_is_interrupted_so_that_it_can_clean_up(monkeypatch, tmp_path):
    (tmp_path / "hanging_benchmark.py").write_text(
        "import sys, time\n"
        "print('begun', file=sys.stderr, flush=True)\n"
        "try:\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('taken away', file=sys.stderr)\n    sys.exit(2)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ran = suite.run("hanging_benchmark", (), timeout_s=2.0)
    assert (ran.code, ran.result) == (2, None)
    assert ran.last_words == "ended after 2 s; taken away"


def test_a_result_that_no_view_expects_is_a_failure_not_a_crash():
    section = suite.section_of(find("setup"), ["x"], [suite.Ran(0, {"what": 1}, "")], 1.0)
    assert section.status == "failed"
    assert "suite_views" in section.reason


def test_the_table_may_be_another():
    assert suite_registry.find("record-decode", [DECODE]) is DECODE

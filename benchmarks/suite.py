"""Runs benchmarks in turn, each as a process of its own, and puts what they found together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import describe_machine
from benchmarks.suite_registry import Arguments, Benchmark
from benchmarks.suite_results import FORMAT, Panel, Results, Section, Status
from benchmarks.suite_views import panels

#: No benchmark takes that long; one that hangs must not keep the others from running.
TIMEOUT_S: Final = 1200.0
#: After an interrupt, for taking hosts and switches away again.
_CLEAN_UP_S: Final = 30.0
_CHECKOUT: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of a benchmark: its exit code, what it wrote, the last words of its standard error."""

    code: int
    result: dict[str, Any] | None
    last_words: str


def run_suite(benchmarks: Sequence[Benchmark], *, quick: bool, command: str) -> Results:
    """Each benchmark in turn, with progress on standard error."""
    machine = describe_machine()
    start_s = time.monotonic()
    sections = []
    for number, one in enumerate(benchmarks, 1):
        _say(f"[{number}/{len(benchmarks)}] {one.name}: {one.summary}")
        section = run_benchmark(one, quick=quick)
        reason = f": {section.reason}" if section.reason else ""
        _say(
            f"[{number}/{len(benchmarks)}] {one.name}: {section.status}, {section.took_s:.0f} s{reason}"
        )
        sections.append(section)
    took_s = round(time.monotonic() - start_s, 1)
    return Results(FORMAT, command, quick, took_s, machine, sections)


def run_benchmark(one: Benchmark, *, quick: bool) -> Section:
    """All runs of one benchmark; why there is nothing to show, where there is not."""
    runs = one.runs(quick=quick)
    commands = [" ".join(("ondemand bench", one.name, *arguments)) for arguments in runs]
    if one.needs_root and os.geteuid() != 0:
        reason = "it makes network namespaces, which needs root"
        return Section(one.name, one.summary, "left out", 0.0, commands, reason)
    start_s = time.monotonic()
    done = []
    for arguments in runs:
        done.append(run(one.module, arguments))
        if done[-1].result is None:
            break
    return section_of(one, commands, done, round(time.monotonic() - start_s, 1))


def section_of(
    one: Benchmark, commands: Sequence[str], done: Sequence[Ran], took_s: float
) -> Section:
    """What the runs of a benchmark come to."""
    results = [ran.result for ran in done if ran.result is not None]
    lost = [ran for ran in done if ran.result is None or ran.code not in (0, 1)]
    status: Status = "measured"
    reason = ""
    if lost:
        status, reason = "failed", lost[0].last_words or f"exit code {lost[0].code}"
    elif any(ran.code for ran in done):
        status, reason = "not comparable", "in part, as said below"
    found: list[Panel] = []
    if results:
        try:
            found = panels(one.stem, results)
        except (KeyError, TypeError, ValueError) as error:
            status = "failed"
            reason = f"its result is not as benchmarks/suite_views.py expects it: {error!r}"
    parameters = [result.get("parameters", {}) for result in results]
    return Section(
        name=one.name,
        summary=one.summary,
        status=status,
        took_s=took_s,
        commands=list(commands),
        reason=reason,
        parameters=parameters,
        seed=next((part["seed"] for part in parameters if "seed" in part), None),
        panels=found,
    )


def run(module: str, arguments: Arguments, *, timeout_s: float = TIMEOUT_S) -> Ran:
    """One benchmark as a process, whose output comes through as it is written."""
    with tempfile.TemporaryDirectory(prefix="ondemand-bench-") as folder:
        target = Path(folder) / "result.json"
        argv = [sys.executable, "-m", module, *arguments, "--json", str(target)]
        with subprocess.Popen(argv, cwd=_CHECKOUT, stderr=subprocess.PIPE, text=True) as process:
            late = threading.Event()
            timer = threading.Timer(timeout_s, _interrupt, (process, late))
            timer.start()
            try:
                last_words = _pass_on(process)
                process.wait()
            except KeyboardInterrupt:
                # The terminal has told it too: it takes down what it built.
                _end(process)
                raise
            finally:
                timer.cancel()
        if late.is_set():
            last_words = f"ended after {timeout_s:g} s; {last_words}"
        return Ran(process.returncode, _read(target), last_words)


def _pass_on(process: subprocess.Popen[str]) -> str:
    """Its standard error to ours; the last line of it."""
    last = ""
    for line in process.stderr or ():
        sys.stderr.write(line)
        sys.stderr.flush()
        last = line.strip() or last
    return last


def _interrupt(process: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_CLEAN_UP_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(_CLEAN_UP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read(target: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(target.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()

"""The experiment ``fanout``: thousands of hosts on the slice source, and on a push of goal state."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mininet_topos.errors import LabConfigError, LabUnavailableError
from mininet_topos.lab_run import LabRun
from mininet_topos.promises import Measurement as Measured
from mininet_topos.report import Report, check_place
from mininet_topos.screen import LabScreen
from mininet_topos.sweep import sweep
from scale.charts import charts
from scale.contest import Contest, goal_slices
from scale.facts import facts, read_results
from scale.goal import Payloads
from scale.growth import FIT, curves
from scale.machine import available_bytes, cpus, raise_file_limit
from scale.measure import Program, Result
from scale.origin import nats_server_program
from scale.plot import svg
from scale.settings import Settings, hosts_that_fit
from scale.tables import goal_table, growth_table, step_table
from scale.verdict import Results, outcomes, promises

#: More than a simulated host takes, with its share of the server (docs/scale.md).
_HOST_BYTES: Final = 600_000

_LEGEND: Final = """\
Measured. Times from publish, or start, to applied in the slice cache of each host. Origin: nats-server,
or the process that pushes. busy: the share of all processors' time that origin and hosts used together;
near 100 % more processors would be faster."""


def run_fanout(settings: Settings) -> int:
    """Measure, show, and write what was asked for.

    Returns:
        0 if every promise held, else 1.

    Raises:
        LabError: it cannot run here, or the files cannot be written.
        SourceError: the server does not do what it should.
    """
    for path in (settings.json_file, settings.plot_file):
        if path is not None:
            check_place(path)
    _check(settings)
    earlier = [read_results(path) for path in settings.earlier]
    sweep()
    with LabScreen() as screen:
        tests = promises(
            has_slices="slices" not in settings.without,
            has_push="push" not in settings.without,
            has_restart="restart" not in settings.without,
            has_goals="goal-sizes" not in settings.without,
        )
        screen.expect(len(tests))
        screen.say(
            "Simulated hosts: the agent's slice source, codec and cache, each with a connection of its own,"
        )
        screen.say(f"in {settings.drivers} processes. No switch, no packets.")
        with LabRun() as run:
            fanout = _Fanout(settings, screen, run)
            results = fanout.results()
        for one in reversed(earlier):
            results = results.joined(one)
        found = outcomes(tests, results)
        for outcome in found:
            screen.outcome(outcome)
        report = Report(
            promises=[test.promise for test in tests],
            outcomes=found,
            measurements=_measured(results.by_hosts),
            seconds=screen.seconds,
            facts=facts(settings, results, fanout.left_out),
        )
        screen.close()
        _show(screen, report, settings, results, fanout.left_out)
        if settings.json_file is not None:
            report.write(settings.json_file)
        if settings.plot_file is not None:
            _write(settings.plot_file, svg(charts(results), heading=_heading(settings)))
    return report.exit_code


def _check(settings: Settings) -> None:
    nats_server_program()
    if "push" not in settings.without and importlib.util.find_spec("grpc") is None:
        raise LabUnavailableError(
            "grpcio is not installed, which the push is built with: run 'scripts/setup.sh --bench',"
            " pip install 'ondemand-ovs[scale]', or leave the push out with --without push"
        )
    try:
        for hosts in settings.host_counts():
            settings.region(hosts).check()
    except ValueError as error:
        raise LabConfigError(f"no such region can be made: {error}") from error


class _Fanout:
    """Goes through the sizes."""

    def __init__(self, settings: Settings, screen: LabScreen, run: LabRun) -> None:
        self._settings = settings
        self._screen = screen
        self._contest = Contest(
            run, settings.drivers, settings.audit_s, screen.step, screen.published
        )
        self._end_s = time.monotonic() + settings.budget_s
        #: Why some numbers of hosts were not measured, "" when all were.
        self.left_out = ""

    def results(self) -> Results:
        settings = self._settings
        by_goal: list[Result] = []
        if "goal-sizes" not in settings.without:
            by_goal = self._by_goal()
        return Results(self._by_hosts() if self._has("hosts") else [], by_goal)

    def _by_hosts(self) -> list[Result]:
        settings = self._settings
        counts, self.left_out = hosts_that_fit(
            settings.host_counts(),
            drivers=settings.drivers,
            file_limit=raise_file_limit(),
            free_bytes=available_bytes() * 3 // 4,
            host_bytes=_HOST_BYTES,
        )
        if not counts:
            raise LabUnavailableError(f"not even the least number of hosts fits: {self.left_out}")
        found: list[Result] = []
        self._screen.step(f"making {settings.neighbors:,} neighbors")
        slices: dict[str, Payloads] = {}
        last: tuple[int, float] | None = None
        for count in counts:
            now_s = time.monotonic()
            if last is not None and now_s + last[1] * count / last[0] > self._end_s:
                self.left_out = f"the time of {settings.budget_s:.0f} s is used up (--budget)"
                break
            found += self._at(count, slices)
            last = (count, time.monotonic() - now_s)
        return found

    def _at(self, count: int, slices: dict[str, Payloads]) -> list[Result]:
        """Both contenders at a number of hosts; ``slices`` are kept from size to size."""
        settings = self._settings
        region = settings.region(count)
        # Neighbors are the same at all sizes; hosts are not.
        slices.update(goal_slices(region, neighbors=not slices))
        program = self._program(count)
        is_bare = "bare" not in settings.without
        found: list[Result] = []
        if self._has("slices"):
            found.append(self._contest.pull(region, slices, program, bare=is_bare))
        if self._has("push"):
            found.append(self._contest.push(region, slices, program))
        return found

    def _by_goal(self) -> list[Result]:
        found = []
        program = Program(group=3, port=3, move=3, rolling=False, restart=self._has("restart"))
        for goal in self._settings.goal_sizes():
            region = self._settings.goal_region(goal, everything=False)
            slices = goal_slices(region)
            if self._has("slices"):
                found.append(self._contest.pull(region, slices, program))
            region = self._settings.goal_region(goal, everything=True)
            if self._has("slices"):
                found.append(self._contest.pull(region, slices, program))
            if self._has("push"):
                found.append(self._contest.push(region, slices, program))
        return found

    def _has(self, step: str) -> bool:
        return step not in self._settings.without

    def _program(self, count: int) -> Program:
        settings = self._settings
        # In each period every host looks once.
        idle_s = 0.0 if settings.quick or not self._has("idle") else settings.audit_s
        return Program(
            group=5 if count <= 1000 else 3,
            port=10,
            move=10,
            idle_s=idle_s,
            restart=self._has("restart"),
            rolling=self._has("rolling"),
        )


def _measured(results: Sequence[Result]) -> list[Measured]:
    """The largest size in the table that every experiment ends with."""
    found: list[Measured] = []
    most = max((result.hosts for result in results), default=0)
    for result in results:
        if result.hosts == most:
            for name, step in result.steps.items():
                if name != "idle":
                    times = step.times
                    values = {
                        "p50": times.p50 * 1e3,
                        "p99": times.p99 * 1e3,
                        "last": times.last * 1e3,
                    }
                    found.append(Measured(f"{result.contender}, {step.title}", "ms", values))
    return found


def _show(
    screen: LabScreen, report: Report, settings: Settings, results: Results, left_out: str
) -> None:
    if results.by_hosts:
        screen.say()
        screen.say(_LEGEND)
        _lines(screen, step_table(results.by_hosts, cpus()))
        screen.say()
        screen.say(f"Growth. Measured, and behind a tilde extrapolated: {FIT}.")
        _lines(screen, growth_table(curves(results.by_hosts), settings.hosts))
    if left_out:
        screen.say(f"Not measured up to {settings.hosts:,} hosts: {left_out}.")
    if results.by_goal:
        screen.say()
        screen.say("By the size of the goal state. Median times; bytes for each host concerned.")
        _lines(screen, goal_table(results.by_goal))
    screen.table(report)
    screen.say(report.summary)


def _lines(screen: LabScreen, lines: Sequence[str]) -> None:
    for line in lines:
        screen.say(line)


def _heading(settings: Settings) -> str:
    return f"ondemand experiment fanout, {cpus()} processors, seed {settings.seed}"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise LabConfigError(f"{path} cannot be written: {error.strerror or error}") from error

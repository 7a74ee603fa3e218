"""What a viewer of a demo or an experiment sees: steps as they happen, then a table."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Final, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from controller_app.cli_support import console
from mininet_topos.promises import Measurement, Outcome
from mininet_topos.report import Report

_HELD: Final = Text("ok", style="green")
_FAILED: Final = Text("FAILED", style="bold red")

#: Columns of a table that goes to a file or a pipe.
_PIPE_COLUMNS: Final = 160


class LabScreen:
    """A context. On a terminal a line for each check and a bar below; else a line for each step."""

    def __init__(self) -> None:
        self._console = console()
        self._is_watched = self._console.is_terminal
        self._is_closed = False
        self._start_s = time.monotonic()
        self._bar = Progress(
            SpinnerColumn("line"),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=self._console,
            transient=True,
            disable=not self._is_watched,
            # Drawing takes time from the switches.
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("starting", total=None)
        self._publishing = self._bar.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._start_s

    def close(self) -> None:
        """Take the bar away and tell no more steps. May be called again."""
        self._bar.stop()
        self._is_closed = True

    def expect(self, checks: int) -> None:
        """Say how many promises there will be to look at."""
        self._bar.update(self._task, total=checks)

    def step(self, text: str) -> None:
        """Say what is being done."""
        if self._is_closed:
            return
        self.say(f"{self.seconds:5.1f} s  {text}")
        self._bar.update(self._task, description=text)

    def outcome(self, outcome: Outcome) -> None:
        """Show what came of a promise; to a pipe only what did not hold."""
        seen = outcome.seen
        if self._is_watched or not seen.ok:
            name = outcome.promise.name
            line = Text.assemble("         ", _verdict(outcome), f"  {name}: ", (seen.text, "dim"))
            self._console.print(line, soft_wrap=True)
        self._bar.advance(self._task)

    def published(self, done: int, total: int) -> None:
        """Progress of publishing records."""
        self._bar.update(
            self._publishing,
            description="publishing neighbors",
            completed=done,
            total=total,
            visible=done < total,
        )

    def table(self, report: Report) -> None:
        """All checks by theme, then the figures."""
        for made in (check_table(report.outcomes), measurement_table(report.measurements)):
            if made.row_count:
                self.say()
                self._print_table(made)
        self.say()

    def _print_table(self, made: Table) -> None:
        if self._is_watched:
            self._console.print(made)
            return
        options = self._console.options.update(width=_PIPE_COLUMNS)
        lines = self._console.render_lines(made, options, pad=False)
        for line in lines:
            self.say("".join(segment.text for segment in line).rstrip())

    def say(self, text: str = "") -> None:
        """A line of plain text."""
        self._console.print(text, soft_wrap=True)
        if not self._is_watched:
            # To a pipe Python would keep it back until the end.
            sys.stdout.flush()


def check_table(outcomes: Sequence[Outcome]) -> Table:
    made = _table("", "check", "promised", "seen")
    for theme in dict.fromkeys(outcome.promise.theme for outcome in outcomes):
        made.add_row("", Text(theme, style="bold"))
        for outcome in outcomes:
            promise = outcome.promise
            if promise.theme == theme:
                made.add_row(_verdict(outcome), promise.name, promise.promised, outcome.seen.text)
    return made


def measurement_table(measurements: Sequence[Measurement]) -> Table:
    made = _table("measured (no threshold)", "")
    for one in measurements:
        values = ", ".join(f"{what} {_number(value)}" for what, value in one.values.items())
        made.add_row(one.name, f"{values} {one.unit}")
    return made


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 and value != round(value) else f"{value:,.0f}"


def _table(*columns: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(name, overflow="fold")
    return made


def _verdict(outcome: Outcome) -> Text:
    return _HELD if outcome.seen.ok else _FAILED

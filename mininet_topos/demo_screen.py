"""What a viewer of the demo sees: steps as they happen, then a table."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Final, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from controller_app.cli_support import console
from mininet_topos.demo_model import Measurement, Outcome
from mininet_topos.demo_report import Report

_HELD: Final = Text("ok", style="green")
_FAILED: Final = Text("FAILED", style="bold red")

#: Columns of a table that goes to a file or a pipe.
_PIPE_COLUMNS: Final = 160


class DemoScreen:
    """A context. On a terminal a line for each check and a bar below; else a line for each step."""

    def __init__(self) -> None:
        self._console = console()
        self._is_watched = self._console.is_terminal
        self._start_s = time.monotonic()
        self._bar = Progress(
            SpinnerColumn(),
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
        """Take the bar away; what comes after is plain. May be called again."""
        self._bar.stop()

    def expect(self, checks: int) -> None:
        """Say how many promises there will be to look at."""
        self._bar.update(self._task, total=checks)

    def step(self, text: str) -> None:
        """Say what is being done."""
        self._say(f"{self.seconds:5.1f} s  {text}")
        self._bar.update(self._task, description=text)

    def outcome(self, outcome: Outcome) -> None:
        """Show what came of a promise; to a pipe only what did not hold."""
        seen = outcome.seen
        if self._is_watched or not seen.ok:
            name = outcome.promise.name
            line = Text.assemble("         ", _verdict(outcome), f"  {name}: ", (seen.text, "dim"))
            self._console.print(line)
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

    def say(self, text: str = "") -> None:
        self._say(text)

    def table(self, report: Report) -> None:
        """All checks by theme, then the figures."""
        self._say()
        self._console.print(check_table(report.outcomes), width=self._width)
        if report.measurements:
            self._say()
            self._console.print(measurement_table(report.measurements), width=self._width)
        self._say()

    @property
    def _width(self) -> int | None:
        return None if self._is_watched else _PIPE_COLUMNS

    def _say(self, text: str = "") -> None:
        self._console.print(text)
        if not self._is_watched:
            sys.stdout.flush()


def check_table(outcomes: Sequence[Outcome]) -> Table:
    made = _table("check", "promised", "seen", "")
    themes = dict.fromkeys(outcome.promise.theme for outcome in outcomes)
    for theme in themes:
        made.add_row(Text(theme, style="bold"))
        for outcome in outcomes:
            promise = outcome.promise
            if promise.theme == theme:
                made.add_row(
                    f"  {promise.name}", promise.promised, outcome.seen.text, _verdict(outcome)
                )
    return made


def measurement_table(measurements: Sequence[Measurement]) -> Table:
    made = _table("measured, without a threshold", "value", "")
    made.columns[1].justify = "right"
    for one in measurements:
        made.add_row(
            f"  {one.name}",
            f"{one.value:,.0f}" if one.value >= 100 else f"{one.value:.2f}",
            one.unit,
        )
    return made


def _table(*columns: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(name, overflow="fold")
    return made


def _verdict(outcome: Outcome) -> Text:
    return _HELD if outcome.seen.ok else _FAILED

"""``results.json``: what a run of the suite found, and all that its report needs.

A section is one benchmark. It holds panels, and a panel is a matrix: a row for each contender, a column
for each question, medians with their spread in it. How a panel is drawn is a word (``kind``), so that a
report needs to know nothing of any benchmark.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

import msgspec

FORMAT: Final = "ondemand-bench/1"

#: bars: the first column. percentiles: ``Column.at`` is a share, or the row's curve is drawn.
#: lines: ``Column.at`` is the place on the x axis. table: not drawn.
Kind = Literal["bars", "percentiles", "lines", "table"]
#: floor: makes no decision, so that nobody can be better.
Role = Literal["ours", "floor", "theirs"]
Status = Literal["measured", "not comparable", "failed", "left out"]


class ResultsError(Exception):
    """A file is no result of the suite, or cannot be read; the message says what to do."""


class Value(msgspec.Struct, frozen=True, gc=False):
    """Median, least and greatest of a panel's repetitions."""

    median: float
    low: float
    high: float


class Column(msgspec.Struct, frozen=True):
    """What is asked of each contender. ``unit`` is "" where a number counts things."""

    name: str
    unit: str
    digits: int = 0
    at: float | None = None


class Row(msgspec.Struct, frozen=True):
    """A contender's answers, one for each column; None where there is none.

    ``curve``: (share, value) of all repetitions together, for a panel of percentiles. What is far beyond
    the others and would press them together is in the table only (``is_drawn``). Rows of one ``series`` have
    one color.
    """

    who: str
    role: Role
    values: list[Value | None]
    curve: list[tuple[float, float]] = []
    is_drawn: bool = True
    series: str = ""


class Ratio(msgspec.Struct, frozen=True):
    """Ours divided by theirs, repetition by repetition."""

    what: str
    ours: str
    theirs: str
    value: Value


class Panel(msgspec.Struct, frozen=True):
    """One question, drawn and in numbers.

    ``x_label`` and ``y_label`` have the units. ``unsupported`` names the rows that are missing, and why.
    """

    title: str
    kind: Kind
    x_label: str
    y_label: str
    repetitions: str
    columns: list[Column]
    rows: list[Row]
    ratios: list[Ratio] = []
    unsupported: list[str] = []
    note: str = ""


class Section(msgspec.Struct, frozen=True):
    """One benchmark. ``seed`` is None where nothing is drawn by lot."""

    name: str
    summary: str
    status: Status
    took_s: float
    commands: list[str]
    reason: str = ""
    parameters: list[dict[str, Any]] = []
    seed: int | None = None
    panels: list[Panel] = []


class Results(msgspec.Struct, frozen=True):
    """A run of the suite."""

    format: Literal["ondemand-bench/1"]
    command: str
    quick: bool
    took_s: float
    machine: dict[str, Any]
    benchmarks: list[Section]


def write(results: Results, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def read(path: Path) -> Results:
    """What ``write`` wrote.

    Raises:
        ResultsError: there is no such file, or it holds something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}") from error
    try:
        found = msgspec.json.decode(data, type=Results)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultsError(
            f"{path} is no result of the suite ({error}); "
            "'ondemand bench' measures and writes one, results.json"
        ) from error
    for section in found.benchmarks:
        for panel in section.panels:
            if any(len(row.values) != len(panel.columns) for row in panel.rows):
                raise ResultsError(
                    f"{path}: in {section.name}, {panel.title!r}, a row has not as many values as "
                    "there are columns; 'ondemand bench' writes them whole"
                )
    return found

"""``report.html``: what a run of the suite found, as one page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

from benchmarks.report_style import style_sheet
from benchmarks.report_svg import ROLE_WORDS, draw, number, series_classes
from benchmarks.suite_results import Panel, Ratio, Results, Section, Value

#: Of the machine's description, in this order; what else it has comes after.
_MACHINE: Final = {
    "cpu": "CPU",
    "cpus": "CPUs usable",
    "memory_mib": "memory, MiB",
    "system": "system",
    "kernel": "Linux",
    "python": "Python",
    "open_vswitch": "Open vSwitch",
    "packages": "packages",
    "load_1min": "load before the run, 1 min",
    "measured_at": "measured at",
}


def render(results: Results) -> str:
    """The page as text of an HTML file."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        '<head><meta charset="utf-8"/>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        "<title>ondemand-ovs: benchmarks</title>",
        f"<style>{style_sheet()}</style></head>",
        "<body>",
        "<h1>ondemand-ovs: benchmarks</h1>",
        *_head(results),
        *(line for section in results.benchmarks for line in _section(section)),
        *_tail(results),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def supported(ratio: Ratio) -> bool:
    """Whether all repetitions agree on who is ahead; one repetition alone says nothing."""
    value = ratio.value
    return value.low != value.high and (value.low > 1 or value.high < 1)


def _head(results: Results) -> list[str]:
    machine = results.machine
    kind = (
        "This was the quick run: few repetitions, so its figures are rough."
        if results.quick
        else "This was the full run."
    )
    where = f"{machine.get('cpu', 'unknown CPU')}, {machine.get('cpus', '?')} CPUs"
    return [
        (
            f'<p class="dim">{escape(where)}; {escape(str(machine.get("measured_at", "")))}; '
            f"{_duration(results.took_s)}. {kind}</p>"
        ),
        (
            "<p>Contenders take turns in each repetition, on one machine. Tables have the median, and in "
            "parentheses the least and the greatest of the repetitions. Whiskers and bands in plots reach as far. "
            "A ratio is taken repetition by repetition, and is shown only when all repetitions agree on "
            "who is ahead. A contender whose answers were wrong or whose packets were lost has no figure. "
            "The figures are of this machine; ratios carry over better.</p>"
        ),
        "<p>"
        + " · ".join(
            f'<a href="#{escape(one.name)}">{escape(one.name)}</a>' for one in results.benchmarks
        )
        + "</p>",
    ]


def _section(section: Section) -> list[str]:
    parts = [
        f'<h2 id="{escape(section.name)}">{escape(section.name)}</h2>',
        f"<p>{escape(section.summary)}</p>",
    ]
    if section.status != "measured":
        reason = f": {section.reason}" if section.reason else ""
        parts.append(f'<p class="bad">{escape(section.status)}{escape(reason)}</p>')
    for panel in section.panels:
        parts += _panel(panel)
    if section.parameters:
        said = "; ".join(_parameters(one) for one in section.parameters)
        parts.append(f'<p class="dim">Parameters: {escape(said)}.</p>')
    parts.append(f"<pre>{escape(chr(10).join(section.commands))}</pre>")
    return parts


def _panel(panel: Panel) -> list[str]:
    picture = draw(panel)
    parts = [f"<h3>{escape(panel.title)}</h3>"]
    if picture:
        parts.append(f"<figure>{picture}</figure>")
    parts += [f'<p class="bad">not comparable: {escape(one)}</p>' for one in panel.unsupported]
    if panel.rows:
        parts += _table(panel, is_drawn=bool(picture))
    ratios = [one for one in panel.ratios if supported(one)]
    if ratios:
        parts += _ratios(ratios)
    if panel.note:
        parts.append(f'<p class="dim">{escape(panel.note)}</p>')
    return parts


def _table(panel: Panel, *, is_drawn: bool) -> list[str]:
    head = "".join(
        f"<th>{escape(column.name)}{', ' if column.unit else ''}{escape(column.unit)}</th>"
        for column in panel.columns
    )
    whose = len({row.role for row in panel.rows}) > 1
    rows = []
    for row, style in zip(panel.rows, series_classes(panel.rows), strict=True):
        key = f'<span class="key {style}"></span>' if is_drawn and row.is_drawn else ""
        cells = "".join(
            f"<td>{_cell(value, column.digits)}</td>"
            for value, column in zip(row.values, panel.columns, strict=True)
        )
        role = f'<td class="left">{ROLE_WORDS[row.role]}</td>' if whose else ""
        rows.append(f"<tr><td>{key}{escape(row.who)}</td>{role}{cells}</tr>")
    return [
        '<div class="scroll"><table>',
        f"<caption>median (least to greatest); repetitions: {escape(panel.repetitions)}</caption>",
        f"<thead><tr><th></th>{'<th></th>' if whose else ''}{head}</tr></thead>",
        "<tbody>",
        *rows,
        "</tbody></table></div>",
    ]


def _ratios(ratios: Sequence[Ratio]) -> list[str]:
    rows = [
        f'<tr><td>{escape(one.what)}</td><td class="left">{escape(one.ours)}</td>'
        f'<td class="left">{escape(one.theirs)}</td><td>{_cell(one.value, 2)}</td></tr>'
        for one in ratios
    ]
    return [
        '<div class="scroll"><table>',
        (
            '<thead><tr><th>ratio</th><th class="left">of ours</th><th class="left">to</th><th>times</th>'
            "</tr></thead>"
        ),
        "<tbody>",
        *rows,
        "</tbody></table></div>",
    ]


def _cell(value: Value | None, digits: int) -> str:
    if value is None:
        return '<span class="dim">-</span>'
    if value.low == value.high:
        return number(value.median, digits)
    return (
        f"{number(value.median, digits)} "
        f'<span class="dim">({number(value.low, digits)} to {number(value.high, digits)})</span>'
    )


def _parameters(parameters: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_said(one)}" for name, one in parameters.items())


def _said(found: object) -> str:
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, int):
        return f"{found:,}"
    if isinstance(found, list):
        return " / ".join(_said(one) for one in found)
    if isinstance(found, dict):
        return ", ".join(f"{name} {_said(one)}" for name, one in found.items())
    return str(found)


def _tail(results: Results) -> list[str]:
    machine = results.machine
    names = [*_MACHINE, *(name for name in machine if name not in _MACHINE)]
    rows = [
        f"<tr><td>{escape(_MACHINE.get(name, name))}</td>"
        f'<td class="left">{escape(_said(machine[name]))}</td></tr>'
        for name in names
        if name in machine
    ]
    return [
        '<h2 id="machine">The machine</h2>',
        f'<div class="scroll"><table><tbody>{"".join(rows)}</tbody></table></div>',
        '<h2 id="again">To make it again</h2>',
        "<p>In a checkout, as root or with sudo, on a machine that does nothing else meanwhile:</p>",
        f"<pre>{escape(results.command)}</pre>",
        (
            "<p>Each benchmark also runs by itself, with the command below its tables, and "
            "<code>ondemand bench NAME --help</code> says what it can vary. "
            "<code>ondemand bench --report results.json -o report.html</code> renders this page again "
            "without measuring.</p>"
        ),
    ]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"took {minutes} min {rest} s" if minutes else f"took {rest} s"


__all__ = ["render", "supported"]

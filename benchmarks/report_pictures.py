"""The plots that stand by themselves, each an SVG file that needs nothing beside it (README shows them)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.report_style import style_sheet
from benchmarks.report_svg import draw
from benchmarks.suite_results import Panel, Results

#: Name of the file, benchmark, and how the title of its panel begins.
PICTURES: Final = (
    ("first-packet", "first-packet", "First packet"),
    ("full-service", "cold-start", "From the start of the host to full service"),
    ("memory", "cold-start", "Memory of the host in service"),
)


class NoPictureError(Exception):
    """The results lack what a picture shows; the message says which benchmark is missing."""


def pictures(results: Results) -> dict[str, str]:
    """SVG files by name.

    Raises:
        NoPictureError: the results are of a part of the suite.
    """
    return {f"{name}.svg": _picture(results, section, title) for name, section, title in PICTURES}


def write(results: Results, folder: Path) -> None:
    """Write them into a folder that is there."""
    for name, text in pictures(results).items():
        (folder / name).write_text(text, encoding="utf-8")


def _picture(results: Results, section: str, title: str) -> str:
    panel = _panel(results, section, title)
    svg = draw(panel) if panel is not None else ""
    if not svg:
        raise NoPictureError(
            f"there is no plot {title!r}: the results need the benchmark {section}, measured "
            f"('ondemand bench --only {section}' for it alone)"
        )
    head, _, body = svg.partition("\n")
    look = f"{style_sheet()}\nsvg{{background:var(--page);font-family:sans-serif}}"
    return f"{head}\n<style>{look}</style>\n{body}\n"


def _panel(results: Results, section: str, title: str) -> Panel | None:
    for one in results.benchmarks:
        if one.name == section:
            for panel in one.panels:
                if panel.title.startswith(title):
                    return panel
    return None


__all__ = ["NoPictureError", "pictures", "write"]

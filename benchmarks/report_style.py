"""The look of the report: no script, no font and no file from elsewhere, light or dark as the reader's."""

from __future__ import annotations

from typing import Final

from benchmarks.suite_results import Role

#: By role, for a light page and for a dark one. After Okabe and Ito: told apart without red and green.
_LIGHT: Final[dict[Role, tuple[str, ...]]] = {
    "ours": ("#0067a5", "#0a8f86", "#5b4bbd", "#2f9fe0", "#0b5f58", "#8f84dd"),
    "floor": ("#6b6b6b", "#979797", "#4a4a4a", "#6b6b6b", "#979797", "#4a4a4a"),
    "theirs": ("#c24e00", "#b5478d", "#a87400", "#7d3410", "#d98cb9", "#8a6d1f"),
}
_DARK: Final[dict[Role, tuple[str, ...]]] = {
    "ours": ("#5eb8f2", "#3ecbbd", "#a99cf5", "#9ad3fa", "#86e0d6", "#cfc7ff"),
    "floor": ("#a3a3a3", "#787878", "#c6c6c6", "#a3a3a3", "#787878", "#c6c6c6"),
    "theirs": ("#ff9550", "#e88cc3", "#e6b33d", "#ffb98a", "#f2b8da", "#d6c184"),
}

_PAGE_LIGHT: Final = (
    "--page:#fff;--text:#1b1f24;--dim:#57606a;--edge:#d5dae0;--soft:#f4f6f8;--grid:#e3e7eb"
)
_PAGE_DARK: Final = (
    "--page:#14171b;--text:#e4e8ec;--dim:#a0a9b3;--edge:#363c44;--soft:#1d2126;--grid:#2c3239"
)

_RULES: Final = """
body { margin: 0 auto; padding: 24px 20px 60px; max-width: 960px; background: var(--page);
  color: var(--text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 44px 0 2px; padding-top: 14px; border-top: 1px solid var(--edge); }
h3 { font-size: 15px; margin: 22px 0 8px; }
p { margin: 6px 0; }
a { color: inherit; }
.dim, caption, figcaption { color: var(--dim); }
.bad { border-left: 4px solid var(--series-theirs-0); padding: 4px 0 4px 12px; }
code, pre { font: 13px/1.5 ui-monospace, monospace; background: var(--soft); border-radius: 4px; }
code { padding: 1px 5px; }
pre { padding: 8px 12px; overflow-x: auto; }
figure { margin: 0; overflow-x: auto; }
svg { display: block; width: 100%; min-width: 620px; height: auto; font-size: 12px; }
svg text { fill: var(--text); }
svg .axis { fill: var(--dim); }
svg .own, svg .value { font-weight: 600; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .fill { fill: var(--series); }
svg .stroke { stroke: var(--series); stroke-width: 2.2; fill: none; }
svg .reach { stroke: var(--series); stroke-width: 5; opacity: 0.35; }
svg .whisker { stroke: var(--text); stroke-width: 1.3; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 10px 0; font-size: 13.5px; }
caption { text-align: left; padding-bottom: 3px; }
th, td { padding: 4px 10px; border-bottom: 1px solid var(--edge); text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child, .left { text-align: left; }
td .dim { font-size: 12px; }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 7px;
  background: var(--series); }
"""


def style_sheet() -> str:
    return (
        f":root{{color-scheme:light dark;{_PAGE_LIGHT};{_colors(_LIGHT)}}}\n"
        f"@media (prefers-color-scheme: dark){{:root{{{_PAGE_DARK};{_colors(_DARK)}}}}}\n"
        + "\n".join(
            f".series-{role}-{n}{{--series:var(--series-{role}-{n})}}"
            for role, colors in _LIGHT.items()
            for n in range(len(colors))
        )
        + _RULES
    )


def _colors(palette: dict[Role, tuple[str, ...]]) -> str:
    return ";".join(
        f"--series-{role}-{n}:{color}"
        for role, colors in palette.items()
        for n, color in enumerate(colors)
    )

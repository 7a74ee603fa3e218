"""Experiments that other packages add to ``ondemand experiment``, with options of their own.

The name of an entry point in the group ``ondemand.experiments`` is the experiment's, and its value names a
click command. So nothing here imports what stands above this package.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any, Final

import click

from controller_app.cli_support import CommandError

ENTRY_POINT_GROUP: Final = "ondemand.experiments"

#: Where in the help of an ``ExperimentCommand`` the other experiments are listed.
OTHERS: Final = "{others}"
_NAME_WIDTH: Final = 13


def other_experiments() -> dict[str, importlib.metadata.EntryPoint]:
    """By name. They are not imported yet."""
    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    return {point.name: point for point in sorted(points)}


def load_other(point: importlib.metadata.EntryPoint) -> click.Command:
    """The command of an experiment; CommandError when there is none."""
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise CommandError(f"experiment {point.value} cannot be loaded: {error}") from error
    if not isinstance(found, click.Command):
        raise CommandError(f"experiment {point.name!r} is no click command but {found!r}")
    return found


class ExperimentCommand(click.Command):
    """Hands over to another package's experiment when the name of one comes first."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        point = other_experiments().get(args[0]) if args else None
        if point is None:
            return super().make_context(info_name, args, parent, **extra)
        return load_other(point).make_context(
            f"{info_name} {point.name}", args[1:], parent, **extra
        )

    def invoke(self, ctx: click.Context) -> Any:
        if ctx.command is not self:
            return ctx.command.invoke(ctx)
        return super().invoke(ctx)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, with the other experiments, which are looked up only now."""
        own, self.help = self.help, (self.help or "").replace(OTHERS, _listing())
        try:
            super().format_help_text(ctx, formatter)
        finally:
            self.help = own


def _listing() -> str:
    lines = []
    for name, point in other_experiments().items():
        try:
            summary = load_other(point).get_short_help_str(limit=100)
        except CommandError as error:
            summary = error.message
        lines.append(f"  {name:<{_NAME_WIDTH}}  {summary}\n")
    head = "\n\b\nWith options of their own (ondemand experiment NAME --help), and without root:\n"
    return head + "".join(lines) if lines else ""


__all__ = ["ENTRY_POINT_GROUP", "OTHERS", "ExperimentCommand", "load_other", "other_experiments"]

"""What the commands share: errors with exit code 2, output for people and for programs.

Importing this needs click alone: rich and YAML, which take longer, come with the first use.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import click

from ondemand.publishing import Progress, PublishConflictError
from ondemand.slices import SliceNameError, SourceError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: ``context_settings`` of each command. click keeps a command's help option as it is asked for first, so
#: one that is also used alone must not take these from the group that it stands in.
HELP: Final[Mapping[str, list[str]]] = MappingProxyType({"help_option_names": ["-h", "--help"]})

#: Wide enough that nothing is cut where the output goes to a file or a pipe.
_PIPE_WIDTH = 10_000


class CommandError(click.ClickException):
    """The command could not do what was asked. 1 is left to commands that answer with it."""

    exit_code = 2


@contextlib.contextmanager
def errors_to_exit() -> Iterator[None]:
    """Turn the errors that a person can mend into one message and exit code 2."""
    from controller_app.goal_state_file import GoalStateFileError

    try:
        yield
    except (SourceError, GoalStateFileError, PublishConflictError, SliceNameError) as error:
        raise CommandError(str(error)) from error


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def console(*, stderr: bool = False) -> Console:
    """Where people read. Identifiers are shown as they are, never taken for markup or emoji."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream,
        width=None if stream.isatty() else _PIPE_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )


def table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table; the columns named in ``numbers`` are right-aligned."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    return made


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Progress]:
    """A bar on standard error while a person watches it, nothing otherwise."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as ProgressBar

    screen = console(stderr=True)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ProgressBar(
        *columns, console=screen, transient=True, disable=not screen.is_terminal
    ) as bar:
        task = bar.add_task(label, total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield tell

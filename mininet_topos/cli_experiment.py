"""``ondemand experiment NAME``: what a promise is worth when something goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from controller_app.cli_support import HELP, CommandError, errors_to_exit
from mininet_topos.experiment_registry import EXPERIMENTS
from mininet_topos.other_experiments import OTHERS, ExperimentCommand, other_experiments
from ondemand.goal_problems import did_you_mean

if TYPE_CHECKING:
    from mininet_topos.lab_source import SourceKind

    _NameType = click.ParamType[str]
else:
    # It has no type arguments when a program runs with click 8.1.
    _NameType = click.ParamType

_HELP: Final = """Break something on real Open vSwitch under live traffic, and see what holds.

Each experiment builds compute hosts in network namespaces, each with an Open vSwitch and an agent of
its own and VXLAN between them, keeps streams running, and does one thing to them. In the end a table
says what was promised and what was seen. Nothing of this machine is touched, and nothing stays. Needs
root.

\b
Experiments:
{experiments}
{others}
\b
How to read the table:
  A TCP stream has one message under way at a time, so what a loss costs is one retransmission,
  and "no retransmission" (both ends are asked) means that no packet of it was lost. UDP messages
  are numbered, and one without an echo is lost. "The last byte 12 ms after" a moment is
  the last that a stream got through, counted from when publishing the new goal state began, or the
  agent's process was started.
  flood compares medians of quiet intervals and of intervals with the scan, which take turns.
  With --quick the promises of flood and restart are wider than in the full form: they allow more time,
  and flood a lower rate; the table says how much. The others promise the same, look for a shorter
  time, and migrate does not move the VM back. A line below the table says so again.

\b
Examples:
  sudo ondemand experiment policy-cut
  sudo ondemand experiment migrate --quick --json migrate.json
  sudo ondemand experiment source-outage --keep     look around in it afterwards
  sudo ondemand experiment policy-cut --source nats

Exit code: 0 every promise held, 1 some did not, 2 error, 130 interrupted (143 by SIGTERM).
"""


def _listing() -> str:
    width = max(map(len, EXPERIMENTS))
    return "\n".join(f"  {name:<{width}}  {one.summary}" for name, one in EXPERIMENTS.items())


class ExperimentName(_NameType):
    """The name of an experiment of this package. Errors name those of other packages too."""

    name = "name"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002
        ctx: click.Context | None,
    ) -> str:
        if value in EXPERIMENTS:
            return str(value)
        hint = did_you_mean(str(value), _names()) or f"; there are {', '.join(_names())}"
        raise click.UsageError(f"there is no experiment {value!r}{hint}", ctx)

    def get_missing_message(
        self,
        param: click.Parameter,  # noqa: ARG002
        ctx: click.Context | None = None,  # noqa: ARG002
    ) -> str:
        return f"It is one of {', '.join(_names())}"


def _names() -> list[str]:
    return [*EXPERIMENTS, *other_experiments()]


@click.command(
    "experiment",
    cls=ExperimentCommand,
    context_settings=HELP,
    help=_HELP.format(experiments=_listing(), others=OTHERS),
    short_help="Break something on real Open vSwitch under live traffic, and see what holds.",
)
@click.argument("name", type=ExperimentName(), metavar="NAME")
@click.option(
    "--source",
    type=click.Choice(["sqlite", "nats"]),
    default="sqlite",
    show_default=True,
    help="What the agents read: one SQLite file, or a NATS server that the experiment starts.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write all checks and measurements to FILE.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="The short form: fewer streams, shorter looks; flood and restart promise less than in the full form.",
)
@click.option("--keep", is_flag=True, help="Leave the lab running until Enter is pressed.")
def command(
    *, name: str, source: SourceKind, json_file: Path | None, quick: bool, keep: bool
) -> None:
    # Late, so that --help needs nothing but click.
    from mininet_topos.errors import LabError  # noqa: PLC0415
    from mininet_topos.experiment import run_experiment  # noqa: PLC0415

    try:
        with errors_to_exit():
            code = run_experiment(name, quick=quick, json_file=json_file, keep=keep, source=source)
    except LabError as error:
        raise CommandError(str(error)) from error
    click.get_current_context().exit(code)

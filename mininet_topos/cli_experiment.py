"""``ondemand experiment NAME``: what a promise is worth when something goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from controller_app.cli_support import HELP, CommandError, errors_to_exit
from mininet_topos.experiment_registry import EXPERIMENTS
from mininet_topos.other_experiments import OTHERS, ExperimentCommand

if TYPE_CHECKING:
    from mininet_topos.lab_source import SourceKind

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
  are numbered, and one without an echo is lost. "The last byte after 12 ms" counts from the moment
  that publishing the new goal state began, or the agent's process was started.
  flood compares medians of quiet intervals and of intervals with the scan, which take turns.
  With --quick, flood and restart allow more time, and flood a lower rate: the table says how much.

\b
Examples:
  sudo ondemand experiment policy-cut
  sudo ondemand experiment migrate --quick --json migrate.json
  sudo ondemand experiment source-outage --keep     look around in it afterwards
  sudo ondemand experiment policy-cut --source nats

Exit code: 0 every promise held, 1 some did not, 2 error, 130 interrupted.
"""


def _listing() -> str:
    width = max(map(len, EXPERIMENTS))
    return "\n".join(f"  {name:<{width}}  {one.summary}" for name, one in EXPERIMENTS.items())


@click.command(
    "experiment",
    cls=ExperimentCommand,
    context_settings=HELP,
    help=_HELP.format(experiments=_listing(), others=OTHERS),
    short_help="Break something on real Open vSwitch under live traffic, and see what holds.",
)
@click.argument("name", type=click.Choice(tuple(EXPERIMENTS)), metavar="NAME")
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
@click.option("--quick", is_flag=True, help="The short form: fewer streams, shorter looks.")
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

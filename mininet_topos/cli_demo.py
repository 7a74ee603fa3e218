"""``ondemand demo``: three compute hosts on one machine, watched while they work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller_app.cli_support import HELP, CommandError, errors_to_exit

if TYPE_CHECKING:
    from mininet_topos.lab_source import SourceKind

#: Room in the demo's prefix for four times as many; publishing them takes half a minute.
_MAX_NEIGHBORS = 1_000_000


@click.command("demo", context_settings=HELP)
@click.option(
    "--neighbors",
    type=click.IntRange(0, _MAX_NEIGHBORS),
    default=0,
    metavar="N",
    help="Fill the VPC with N neighbors more, and see that the tables do not grow.",
)
@click.option(
    "--source",
    type=click.Choice(["sqlite", "nats"]),
    default="sqlite",
    show_default=True,
    help="What the agents read: one SQLite file, or a NATS server that the demo starts.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write all checks and measurements to FILE.",
)
@click.option("--keep", is_flag=True, help="Leave the lab running until Enter is pressed.")
def command(*, neighbors: int, source: SourceKind, json_file: Path | None, keep: bool) -> None:
    """Run three compute hosts on real Open vSwitch, and check what they promise.

    Each host is a network namespace with an Open vSwitch and an agent of its own; VXLAN runs between
    them. Twelve VMs in two dual-stack subnets talk to each other, or are kept from it by three
    security groups. Nothing of this machine is touched, and nothing stays. Needs root.

    \b
    Examples:
      sudo ondemand demo
      sudo ondemand demo --neighbors 100000 --json demo.json
      sudo ondemand demo --source nats      slices from a NATS server in a namespace of its own
      sudo ondemand demo --keep             look around in it afterwards

    Exit code: 0 every check held, 1 some check did not, 2 error, 130 interrupted
    (143 by SIGTERM).
    """  # noqa: D301 - click reads the \b
    # Late, so that --help needs nothing but click.
    from mininet_topos.demo import DemoOptions, run_demo  # noqa: PLC0415
    from mininet_topos.errors import LabError  # noqa: PLC0415

    try:
        with errors_to_exit():
            code = run_demo(
                DemoOptions(neighbors=neighbors, json_file=json_file, keep=keep, source=source)
            )
    except LabError as error:
        raise CommandError(str(error)) from error
    click.get_current_context().exit(code)

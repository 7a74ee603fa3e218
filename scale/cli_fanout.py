"""``ondemand experiment fanout``."""

from __future__ import annotations

from pathlib import Path

import click

from controller_app.cli_support import CommandError, errors_to_exit
from scale.settings import STEPS, Settings

_FILE = click.Path(path_type=Path, dir_okay=False)


def _counts(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in value.split(",") if part)
    except ValueError:
        found = (0,)
    if any(count < 1 for count in found):
        raise click.BadParameter("give numbers above 0 with commas between, as 100,1000")
    return found


def _steps(
    _context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]
) -> frozenset[str]:
    return frozenset(value)


@click.command(
    "fanout",
    short_help="Thousands of hosts on the slice source, and on a push: what changes and restarts cost.",
)
@click.option(
    "--hosts", type=click.IntRange(1), default=None, help="Hosts at most (10000; quick: 300)."
)
@click.option(
    "--at",
    default="",
    callback=_counts,
    metavar="N,N,...",
    help="Measure at these numbers of hosts, in place of 100, 300, 1000, ...",
)
@click.option("--ports-per-host", type=click.IntRange(1), default=20, show_default=True)
@click.option(
    "--neighbors",
    type=click.IntRange(1),
    default=None,
    help="Ports of the VPC in its neighbor shards (1000000; quick: 20000).",
)
@click.option(
    "--rules", type=click.IntRange(1), default=100, show_default=True, help="Of each group."
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--without",
    type=click.Choice(STEPS),
    multiple=True,
    callback=_steps,
    help="Leave a part out; may be given several times.",
)
@click.option(
    "--drivers", type=click.IntRange(1), default=2, show_default=True, help="Processes of hosts."
)
@click.option(
    "--audit",
    "audit_s",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    help="Seconds between a host's looks whether it missed something.",
)
@click.option(
    "--budget",
    "budget_s",
    type=click.FloatRange(1),
    default=900.0,
    show_default=True,
    help="Seconds; no further number of hosts is begun that would end later.",
)
@click.option(
    "--with",
    "earlier",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    multiple=True,
    metavar="FILE",
    help="Show the figures of an earlier run's --json FILE, too; may be given several times.",
)
@click.option("--quick", is_flag=True, help="The short form: half a minute, few hundred hosts.")
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Write all figures to FILE.")
@click.option("--plot", "plot_file", type=_FILE, metavar="FILE", help="Draw the curves (SVG).")
def command(
    *,
    hosts: int | None,
    at: tuple[int, ...],
    ports_per_host: int,
    neighbors: int | None,
    rules: int,
    seed: int,
    without: frozenset[str],
    drivers: int,
    audit_s: float,
    budget_s: float,
    earlier: tuple[Path, ...],
    quick: bool,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Measure what many hosts cost: changes, cold starts and restarts, by slices and by a push.

    Thousands of simulated hosts, each with the agent's own slice source, codec and cache and a connection
    of its own, but without switch and packets, follow a nats-server on loopback that the experiment
    starts and ends. In turn with it, one process pushes the full goal state to the same hosts over gRPC
    streams. Needs no root and no Open vSwitch, but nats-server, and grpcio for the push.

    \b
    What is the same for both: hosts, records, codec, cache, processes of hosts, machine. What is not:
      slices   a host holds its own slice, the VPC, its groups, and reads the neighbors it uses
      push     it is sent just these (no push can know them; it is given them), and all of them at
               each change and each restart; entries are encoded once, unchanged ones not decoded
      by size  few hosts in a VPC that grows: the push sends all neighbors, the slice source is
               measured with those in use and with all

    \b
    Examples:
      ondemand experiment fanout --quick
      ondemand experiment fanout --hosts 10000 --json fanout.json --plot fanout.svg
      ondemand experiment fanout --at 10000 --without push --without rolling --with fanout.json

    Exit code: 0 every promise held, 1 some did not, 2 error, 130 interrupted.
    """  # noqa: D301 - click reads the \b
    # Late, so that --help needs nothing but click.
    from mininet_topos.errors import LabError  # noqa: PLC0415
    from scale.fanout import run_fanout  # noqa: PLC0415

    settings = Settings(
        hosts=hosts or (max(at) if at else 300 if quick else 10_000),
        at=at,
        ports_per_host=ports_per_host,
        neighbors=neighbors or (20_000 if quick else 1_000_000),
        rules=rules,
        seed=seed,
        quick=quick,
        without=without,
        drivers=drivers,
        budget_s=budget_s,
        audit_s=audit_s,
        earlier=earlier,
        json_file=json_file,
        plot_file=plot_file,
    )
    try:
        with errors_to_exit():
            code = run_fanout(settings)
    except LabError as error:
        raise CommandError(str(error)) from error
    click.get_current_context().exit(code)

"""``ondemand demo``, which this package adds to the command by an entry point."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from mininet_topos.demo_options import DemoOptions


@click.command("demo")
@click.option(
    "--neighbors",
    type=click.IntRange(0, 1_000_000),
    default=0,
    show_default=True,
    metavar="N",
    help="Fill the VPC with N neighbors more; the tables do not grow with them.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write every check and what was measured to FILE.",
)
@click.option(
    "--keep-going/--stop-at-first",
    default=True,
    show_default=True,
    help="After a check that did not hold, go on with the others.",
)
@click.option("-v", "--verbose", is_flag=True, help="Also show what the agents log.")
def command(neighbors: int, json_file: Path | None, *, keep_going: bool, verbose: bool) -> None:
    """Watch three compute hosts at work: real Open vSwitch, real VXLAN, real agents.

    Each host is a network namespace with an Open vSwitch and an agent of its own, and four VMs in
    two subnets with a router between them. Before your eyes: traffic within a host, across hosts and
    across subnets, IPv4 and IPv6; what must be denied is denied; a rule is removed while a connection
    lives, and the connection is cut; rules come with traffic and leave with it. Takes about a
    minute, needs root, and leaves nothing behind.

    \b
    Examples:
      sudo ondemand demo
      sudo ondemand demo --neighbors 100000 --json demo.json

    Exit code: 0 every check held, 1 some did not, 2 the demo cannot run here.
    """  # noqa: D301 - click reads the \b
    options = DemoOptions(
        neighbors=neighbors, json_file=json_file, keep_going=keep_going, verbose=verbose
    )
    # Late, so that --help needs nothing but click.
    demo = importlib.import_module("mininet_topos.demo")
    click.get_current_context().exit(demo.run_demo(options))

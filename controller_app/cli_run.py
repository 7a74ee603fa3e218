"""``ondemand run``: the agent in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from controller_app.cli_support import HELP, CommandError
from controller_app.config import ConfigError, load_config
from controller_app.logs import LogError, set_up_logs
from controller_app.ovsdb_errors import OvsdbError
from ondemand.slices import SourceError

DEFAULT_CONFIG = "/etc/ondemand/agent.toml"


@click.command("run", context_settings=HELP)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    metavar="FILE",
    help="The configuration; 'ondemand config --example' writes one.",
)
@click.option(
    "--replace-agent",
    is_flag=True,
    help="If an agent serves the bridge already, end that one and go on in its place. (What others"
    " have set on the bridge is another matter: take_over in FILE.)",
)
@click.option(
    "--fresh",
    is_flag=True,
    help="Forget what an earlier agent held: read all slices anew, and have live connections judged"
    " again.",
)
def command(config_path: Path, *, replace_agent: bool, fresh: bool) -> None:
    """Run the agent of this host, in the foreground, until SIGTERM or Ctrl-C.

    It creates or adopts its bridge, follows the host's ports and slices, and answers the switch.
    Neither a missing slice store nor a stopped Open vSwitch ends it: it waits for them and says so.
    When it ends, the rules stay in the switch and live connections go on. One agent serves a bridge;
    a second one is refused, unless it is to replace the first.

    \b
    Examples:
      ondemand run --config agent.toml
      ondemand run --replace-agent
      systemd-run --unit ondemand ondemand run --config /etc/ondemand/agent.toml

    Exit code: 0 ended by a signal, 2 error (a mistake in FILE, the bridge is somebody else's, another
    agent has replaced this one, ...).
    """  # noqa: D301 - click reads the \b
    try:
        config = load_config(config_path)
        set_up_logs(config.log)
        from controller_app.run import run_agent

        code = run_agent(config_path, replace=replace_agent, fresh=fresh)
    except (ConfigError, LogError, OvsdbError, SourceError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"the agent cannot start: {error}") from error
    click.get_current_context().exit(code)

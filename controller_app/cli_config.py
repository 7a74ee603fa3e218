"""``ondemand config``: write an example configuration, or check one."""

from __future__ import annotations

from pathlib import Path

import click

from controller_app.cli_support import HELP, CommandError, print_json
from controller_app.config import ConfigError, checked_values
from controller_app.config_example import effective, effective_json, example


@click.command("config", context_settings=HELP)
@click.argument("config_path", metavar="[FILE]", type=click.Path(path_type=Path), required=False)
@click.option("--example", "as_example", is_flag=True, help="Print a commented configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def command(config_path: Path | None, *, as_example: bool, as_json: bool) -> None:
    """Check the configuration FILE and print what is in force, or print an example.

    The example has every key with its meaning, unit, range and default. A file is checked as a
    whole: all of its mistakes are told at once.

    \b
    Examples:
      ondemand config --example > agent.toml
      ondemand config agent.toml

    Exit code: 0 the file is sound, 2 it is not.
    """  # noqa: D301 - click reads the \b
    if as_example:
        if config_path is not None or as_json:
            raise click.UsageError("--example goes alone")
        click.echo(example(), nl=False)
        return
    if config_path is None:
        raise click.UsageError("give a FILE to check, or --example")
    try:
        values = checked_values(config_path)
    except ConfigError as error:
        raise CommandError(str(error)) from error
    if as_json:
        print_json(effective_json(values))
    else:
        click.echo(effective(values), nl=False)

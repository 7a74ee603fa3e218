"""The command ``ondemand``.

A command's module is imported when the command runs, so that ``ondemand --help`` needs click alone.
Other packages of the project, and yours, add commands through the entry point group
``ondemand.commands``: the name of an entry point is the command's, and its value names a click
command. So nothing here imports what stands above it.

Exit codes: 0 done, 2 error, 130 interrupted (129 by SIGHUP, 143 by SIGTERM, where a command ends in good
order on these); 1 is left to commands that answer with it.
"""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, Final

import click

DISTRIBUTION: Final = "ondemand-ovs"
ENTRY_POINT_GROUP: Final = "ondemand.commands"

#: Exit code -> the signal that it is for, besides Ctrl-C.
_SIGNAL_NAMES: Final = {128 + one: one.name for one in (signal.SIGHUP, signal.SIGTERM)}

#: Name -> (module, attribute, one line for --help), in the order of --help.
COMMANDS: Final = {
    "run": ("controller_app.cli_run", "command", "Run the agent of this host."),
    "slices": (
        "controller_app.cli_slices",
        "slices",
        "Write goal state into a slice store, and see what is there.",
    ),
    "explain": (
        "controller_app.cli_explain",
        "command",
        "Say what becomes of a packet that a port sends, or why a rule is in the switch.",
    ),
    "doctor": (
        "controller_app.cli_doctor",
        "command",
        "Check this host: what would fail, and how to mend it.",
    ),
    "config": (
        "controller_app.cli_config",
        "command",
        "Write an example configuration, or check one.",
    ),
}


class UnexpectedError(click.ClickException):
    """An error that no command has foreseen."""

    exit_code = 2


class CommandGroup(click.Group):
    """Imports commands late, and ends each error in one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [*COMMANDS, *(name for name in sorted(_plugins()) if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name in COMMANDS:
            module, attribute, _ = COMMANDS[cmd_name]
            command = getattr(importlib.import_module(module), attribute)
        elif cmd_name in _plugins():
            command = _load(_plugins()[cmd_name])
        else:
            return None
        if not isinstance(command, click.Command):
            raise UnexpectedError(f"command {cmd_name!r} is no click command but {command!r}")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            from ondemand.goal_problems import did_you_mean

            hint = did_you_mean(name, self.list_commands(ctx))
            if not hint and not _plugins():
                hint = (
                    "; those of other packages are there once the project is installed: make setup"
                )
            raise click.UsageError(f"there is no command {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, without importing the commands of this package."""
        rows = []
        for name in self.list_commands(ctx):
            if name in COMMANDS:
                rows.append((name, COMMANDS[name][2]))
                continue
            try:
                command = self.get_command(ctx, name)
            except UnexpectedError as error:
                rows.append((name, error.message))
            else:
                rows.append((name, command.get_short_help_str(limit=100) if command else ""))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        debug = bool(ctx.params.get("debug"))
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):
            raise
        except click.ClickException as error:
            if debug and error.__cause__ is not None:
                traceback.print_exception(error.__cause__)
            raise
        except OSError as error:
            if debug:
                traceback.print_exception(error)
            if error.errno == errno.EPIPE:
                raise
            raise UnexpectedError(str(error)) from error
        except Exception as error:  # the border: whatever it is, it ends in a sentence and a 2
            if debug:
                traceback.print_exception(error)
            hint = "" if debug else "; 'ondemand --debug ...' shows where"
            raise UnexpectedError(
                f"a mistake of this program, {type(error).__name__}: {error}{hint}"
            ) from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - the signature is click's
        **extra: Any,
    ) -> Any:
        """As click's, with errors in one sentence on standard error."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.Abort:
            click.echo("ondemand: interrupted", err=True)
            sys.exit(130)
        except SystemExit as end:
            # A signal that a command turned into an orderly end, as shells number it.
            if isinstance(end.code, int) and end.code in _SIGNAL_NAMES:
                click.echo(f"ondemand: interrupted ({_SIGNAL_NAMES[end.code]})", err=True)
            raise
        except click.UsageError as error:
            _show_usage_error(error)
            sys.exit(error.exit_code)
        except click.ClickException as error:
            click.echo(f"ondemand: {error.format_message()}", err=True)
            sys.exit(error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)


def _show_usage_error(error: click.UsageError) -> None:
    message = error.format_message()
    if error.ctx is not None and message.strip() == error.ctx.get_help().strip():
        # A group without a command: its help is the whole answer.
        click.echo(message, err=True)
        return
    sentence = message[:1].lower() + message[1:]
    where = "" if error.ctx is None else f" (see '{error.ctx.command_path} --help')"
    click.echo(f"ondemand: {sentence.rstrip('.')}{where}", err=True)


def _plugins() -> dict[str, importlib.metadata.EntryPoint]:
    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    return {point.name: point for point in points}


def _load(point: importlib.metadata.EntryPoint) -> Any:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise UnexpectedError(f"{point.value} cannot be loaded: {error}") from error


def _show_version(ctx: click.Context, _parameter: click.Parameter, value: object) -> None:
    if not value or ctx.resilient_parsing:
        return
    try:
        version = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        version = "(run from its source, without being installed)"
    click.echo(f"ondemand {version}")
    ctx.exit()


@click.group("ondemand", cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.option("--debug", is_flag=True, help="Show where an error comes from (a traceback).")
def cli(*, debug: bool) -> None:
    """On-demand OpenFlow for a compute host: rules in Open vSwitch for the traffic that is there.

    The agent holds what the host's ports may do and whom they talk to. A flow that no rule knows
    comes to the agent, which decides and installs rules for it; they leave when the traffic ends.

    \b
    A first look, with Open vSwitch but without a network of your own:
      ondemand demo                         three hosts, watched while they work (root)
      ondemand experiment migrate           what holds when something goes wrong (root)

    \b
    On a host:
      ondemand doctor                       is everything there?
      ondemand slices publish state.yaml --store slices.db
      ondemand config --example > agent.toml
      ondemand run --config agent.toml

    \b
    Why does my packet not arrive?
      ondemand explain --store slices.db --port web-1 'tcp,nw_dst=10.0.1.7,tp_dst=443'

    \b
    Why is this rule in my switch?
      ondemand explain --store slices.db --rule 0x0d5e011e00000123

    Each command has its own --help, with examples. Exit code: 0 done, 1 an answer of "no" (explain,
    doctor, slices diff, demo, experiment), 2 error.
    """  # noqa: D301 - click reads the \b


def main() -> None:
    """The console script."""
    # python-ovs imports eventlet when it is there, which os-ken requires; neither is run on it.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    cli.main(prog_name="ondemand")


if __name__ == "__main__":
    main()

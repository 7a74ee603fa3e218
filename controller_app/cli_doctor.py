"""``ondemand doctor``: one line for each thing that must be right."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from controller_app.cli_support import HELP, print_json
from controller_app.doctor import run_checks
from controller_app.doctor_check import Check, Status

_STYLES = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}
_NAME_WIDTH = 18
_WIDTH = 100


@click.command("doctor", context_settings=HELP)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Configuration of the agent; without it, defaults are checked.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def command(config_path: Path | None, *, as_json: bool) -> None:
    """Check this host: what is there, what would fail, and how to mend it.

    Looks at Python and its packages, privileges, Open vSwitch and its database, the datapath and
    what its conntrack can do, the bridge and its tunnel, the slice store (and the NATS server that it
    is on), and what the demo needs. Reads only; what needs root is left out without it.

    \b
    Examples:
      ondemand doctor
      sudo ondemand doctor --config /etc/ondemand/agent.toml
      ondemand doctor --json | jq '.checks[] | select(.status != "ok")'

    Exit code: 0 nothing fails, 1 something does, 2 error.
    """  # noqa: D301 - click reads the \b
    checks: list[Check] = []
    for check in run_checks(config_path):
        checks.append(check)
        if not as_json:
            for line in _lines(check):
                click.echo(line)
    counts = {status: sum(check.status is status for check in checks) for status in Status}
    if as_json:
        print_json(
            {
                "ok": not counts[Status.FAIL],
                "checks": [
                    {"name": c.name, "status": c.status.value, "found": c.found, "mend": c.mend}
                    for c in checks
                ],
            }
        )
    else:
        click.echo(", ".join(f"{count} {status.value}" for status, count in counts.items()))
    click.get_current_context().exit(1 if counts[Status.FAIL] else 0)


def _lines(check: Check) -> Iterator[str]:
    word = click.style(f"{check.status.value:4}", fg=_STYLES[check.status])
    indent = " " * 5
    lines = list(_found_lines(check))
    yield f"{word} {lines[0]}"
    for line in lines[1:]:
        yield indent + line
    if check.mend:
        yield f"{indent}{'':{_NAME_WIDTH}} -> {check.mend}"


def _found_lines(check: Check) -> Iterator[str]:
    """Name and detail. What stands on a line of its own, as each mistake of a file does, keeps it."""
    column = " " * (_NAME_WIDTH + 1)
    head = f"{check.name:{_NAME_WIDTH}} "
    for line in check.found.splitlines() or [""]:
        text = line.lstrip()
        inset = " " * (len(line) - len(text))
        yield from textwrap.wrap(
            text,
            _WIDTH - 5,
            initial_indent=head + inset,
            # One step further in than the next mistake begins.
            subsequent_indent=column + inset * 2,
            break_on_hyphens=False,
            break_long_words=False,
        ) or [head.rstrip()]
        head = column

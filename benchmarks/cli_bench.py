"""``ondemand bench [NAME]``: one benchmark, or all of them with a report."""

from __future__ import annotations

import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from benchmarks.suite_registry import BENCHMARKS, Benchmark, UnknownBenchmarkError, find
from controller_app.cli_support import HELP, CommandError

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
#: What ``click`` must not take for itself: all of it is the benchmark's.
_PASSED_ON: Final[dict[str, Any]] = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "help_option_names": [],
}


class BenchmarkGroup(click.Group):
    """Has a command for each benchmark, and imports none of them to list them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [one.name for one in BENCHMARKS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        try:
            one = find(cmd_name)
        except UnknownBenchmarkError as error:
            raise click.UsageError(str(error), ctx) from None
        return click.Command(
            one.name,
            callback=lambda arguments: run_one(one, arguments),
            params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
            context_settings=_PASSED_ON,
            short_help=one.summary,
            add_help_option=False,
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        rows = [
            (one.name, one.summary + (" (root)" if one.needs_root else "")) for one in BENCHMARKS
        ]
        with formatter.section("Benchmarks"):
            formatter.write_dl(rows)


def run_one(one: Benchmark, arguments: Sequence[str]) -> None:
    """As ``python -m`` runs its module, with what was given before the name too."""
    context = click.get_current_context()
    given = context.parent.params if context.parent is not None else {}
    if given.get("only") or given.get("without") or given.get("output") or given.get("results"):
        raise click.UsageError(
            "--only, --without, --output and --report are for the suite, which has no NAME",
            context.parent,
        )
    words = [*arguments]
    if given.get("quick"):
        # The one that knows no short form says so itself.
        words.insert(0, "--quick")
    if given.get("json_file") is not None:
        words += ["--json", str(given["json_file"])]
    sys.argv = [f"ondemand bench {one.name}", *words]
    runpy.run_module(one.module, run_name="__main__", alter_sys=True)


def _known(
    context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]
) -> list[Benchmark]:
    try:
        return [find(name) for name in names]
    except UnknownBenchmarkError as error:
        raise click.UsageError(str(error), context) from None


@click.group(
    "bench",
    cls=BenchmarkGroup,
    context_settings=HELP,
    invoke_without_command=True,
    subcommand_metavar="[NAME [ARGUMENTS]...]",
    short_help="Measure: first packets, set-up rate, cold start, memory; ours and others'.",
)
@click.option("--quick", is_flag=True, help="The short form, about three minutes for all; rough.")
@click.option(
    "--json",
    "json_file",
    type=_FILE,
    metavar="FILE",
    help="Write the figures to FILE (the suite: results.json).",
)
@click.option(
    "-o",
    "--output",
    type=_FILE,
    metavar="FILE",
    help="Write the report, one HTML page, to FILE (report.html).",
)
@click.option(
    "--report",
    "results",
    type=_FILE,
    metavar="FILE",
    help="Measure nothing: render the report of this results.json.",
)
@click.option(
    "--plots",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="FOLDER",
    help="With --report: write the plots that README shows into FOLDER, as SVG files.",
)
@click.option(
    "--only", multiple=True, callback=_known, metavar="NAME", help="Of the suite, only this one."
)
@click.option(
    "--without", multiple=True, callback=_known, metavar="NAME", help="Leave this one out."
)
@click.pass_context
def command(
    context: click.Context,
    *,
    quick: bool,
    json_file: Path | None,
    output: Path | None,
    results: Path | None,
    plots: Path | None,
    only: list[Benchmark],
    without: list[Benchmark],
) -> None:
    """Measure, and write down what was measured on what.

    Without NAME all benchmarks run in turn, about twelve minutes (--quick: three), and results.json
    and report.html are written here. With NAME one of them runs, with its own options and table:
    'ondemand bench NAME --help'. Nothing else should run on the machine meanwhile.

    Those marked with (root) build compute hosts in network namespaces; without root the suite leaves them
    out and says so. Nothing of this machine is touched, and nothing stays.

    \b
    Examples:
      sudo ondemand bench                               everything, and the report
      sudo ondemand bench --quick --without cold-start
      sudo ondemand bench first-packet --rounds 10 --json first.json
      ondemand bench setup --quick --rules 10
      ondemand bench --report results.json -o report.html --plots .

    Exit code: 0 measured, 1 some figures are not comparable, 2 error or some could not be measured, 130
    interrupted.
    """  # noqa: D301 - click reads the \b
    if context.invoked_subcommand is not None:
        return
    if results is not None:
        if quick or only or without or json_file is not None:
            raise click.UsageError(
                "--report measures nothing; it goes with --output alone", context
            )
        _render(results, output or Path("report.html"), plots)
        return
    if plots is not None:
        raise click.UsageError("--plots goes with --report", context)
    chosen = [one for one in only or BENCHMARKS if one not in without]
    if not chosen:
        raise click.UsageError("--only and --without leave no benchmark", context)
    context.exit(
        _run_suite(
            chosen,
            quick=quick,
            json_file=json_file or Path("results.json"),
            output=output or Path("report.html"),
        )
    )


def _run_suite(chosen: Sequence[Benchmark], *, quick: bool, json_file: Path, output: Path) -> int:
    # Late, so that --help needs nothing but click.
    from benchmarks import suite, suite_results  # noqa: PLC0415

    for target in (json_file, output):
        if not target.parent.is_dir():
            raise CommandError(f"{target} cannot be written: there is no folder {target.parent}")
    words = ["make", "bench"]
    options = ["--quick"] if quick else []
    if len(chosen) < len(BENCHMARKS):
        options += [word for one in chosen for word in ("--only", one.name)]
    if options:
        words.append(
            f"ARGS={shlex.quote(' '.join(options))}" if len(options) > 1 else f"ARGS={options[0]}"
        )
    found = suite.run_suite(chosen, quick=quick, command=" ".join(words))
    suite_results.write(found, json_file)
    click.echo(f"\nfigures: {json_file}", err=True)
    _render(json_file, output)
    statuses = {one.status for one in found.benchmarks}
    if statuses & {"failed", "left out"}:
        return 2
    return 1 if "not comparable" in statuses else 0


def _render(source: Path, target: Path, plots: Path | None = None) -> None:
    from benchmarks import report_pictures  # noqa: PLC0415
    from benchmarks.report import render  # noqa: PLC0415
    from benchmarks.suite_results import ResultsError, read  # noqa: PLC0415

    try:
        found = read(source)
    except ResultsError as error:
        raise CommandError(str(error)) from error
    try:
        target.write_text(render(found), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{target} cannot be written: {error.strerror}") from error
    click.echo(f"report: {target}", err=True)
    if plots is None:
        return
    try:
        report_pictures.write(found, plots)
    except (report_pictures.NoPictureError, OSError) as error:
        raise CommandError(str(error)) from error
    click.echo(f"plots: {plots}", err=True)


__all__ = ["command", "run_one"]

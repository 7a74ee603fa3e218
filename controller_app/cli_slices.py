"""``ondemand slices``: goal state in and out of a slice store."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import click

from controller_app.cli_slices_options import json_option, store_option
from controller_app.cli_slices_verify import verify
from controller_app.cli_slices_watch import watch
from controller_app.cli_support import HELP, CommandError, console, errors_to_exit, progress_bar
from controller_app.goal_state_file import load_goal_state
from controller_app.slice_plan import plans, scope
from controller_app.slice_report import (
    report_diff,
    report_written,
    show_all,
    show_record,
    show_slice,
)
from controller_app.source_factory import open_store
from ondemand.goal_problems import did_you_mean
from ondemand.publishing import Payloads, SliceCounts
from ondemand.slices import SliceRefusedError, kind_of

_state_argument = click.argument(
    "state_path", metavar="STATE.yaml", type=click.Path(path_type=Path)
)


@click.group(context_settings=HELP)
def slices() -> None:
    """Write goal state into a slice store, and see what is there.

    A goal state is a YAML file that says which hosts, subnets, routers, security groups and ports
    there shall be. Agents on all hosts that read the store follow its changes at once.

    \b
    Publish, change the file, see what that means, publish again:
      ondemand slices publish state.yaml --store /var/lib/ondemand/slices.db
      ondemand slices diff    state.yaml --store /var/lib/ondemand/slices.db
      ondemand slices publish state.yaml --store /var/lib/ondemand/slices.db

    \b
    See changes as agents hear them, and whether an agent holds what the store says:
      ondemand slices watch  --store /var/lib/ondemand/slices.db
      ondemand slices verify --config /etc/ondemand/agent.toml
    """  # noqa: D301 - click reads the \b


slices.add_command(watch)
slices.add_command(verify)


@slices.command(context_settings=HELP)
@_state_argument
@store_option
@click.option(
    "--keep-others",
    is_flag=True,
    help="Leave slices alone that STATE does not name, instead of emptying them.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@json_option
def publish(
    state_path: Path, place: str, *, keep_others: bool, dry_run: bool, as_json: bool
) -> None:
    """Make the store hold what STATE.yaml says.

    STATE.yaml is checked as a whole first; with any mistake in it nothing is written. Only what
    differs is written, so publishing twice is harmless: into a file in one transaction, into NATS in one
    for each slice. The store is created when there is none. What STATE.yaml does not say is removed, unless --keep-others is given.

    \b
    Examples:
      ondemand slices publish examples/two-subnets.yaml --store /tmp/slices.db
      ondemand slices publish tenant-a.yaml --store slices.db --keep-others
      ondemand slices publish state.yaml --store slices.db --dry-run --json
      ondemand slices publish state.yaml --store nats://192.0.2.1:4222

    Exit code: 0 published (or nothing to do), 2 error.
    """  # noqa: D301 - click reads the \b
    with errors_to_exit():
        refused = "so publishing would be refused" if dry_run else "nothing was published"
        desired: Mapping[str, Payloads] = _load(state_path, refused)
        if dry_run:
            written = _would_write(place, desired, keep_others=keep_others)
        else:
            with (
                open_store(place, writer=True) as store,
                progress_bar("publishing") as progress,
            ):
                if keep_others and store.is_there():
                    desired = scope(store, desired, keep_others=True)
                result = store.publish(desired, replace_all=not keep_others, progress=progress)
            written = {name: one for name, one in result.slices.items() if one.written}
    report_written(place, dict(sorted(written.items())), is_dry_run=dry_run, as_json=as_json)


@slices.command(context_settings=HELP)
@_state_argument
@store_option
@click.option("--keep-others", is_flag=True, help="Do not count slices that STATE does not name.")
@json_option
def diff(state_path: Path, place: str, *, keep_others: bool, as_json: bool) -> None:
    """Show by which records the store differs from STATE.yaml.

    \b
    + a record that publishing would add
    ~ a record that it would change, with what was and what would be
    - a record that it would remove

    \b
    Example, as a check in a script:
      ondemand slices diff state.yaml --store slices.db || echo 'not published yet'

    Exit code: 0 no difference, 1 difference, 2 error.
    """  # noqa: D301 - click reads the \b
    with errors_to_exit():
        desired = _load(state_path, "so it was not compared")
        with open_store(place) as store:
            found = list(plans(store, scope(store, desired, keep_others=keep_others)))
    report_diff(state_path, place, found, as_json=as_json)
    click.get_current_context().exit(1 if found else 0)


@slices.command(context_settings=HELP)
@store_option
@click.argument("name", metavar="[SLICE]", required=False)
@click.option("--key", metavar="KEY", help="Show this record of SLICE only.")
@json_option
def show(place: str, name: str | None, key: str | None, *, as_json: bool) -> None:
    """List the slices of a store, or the records of one SLICE.

    \b
    Slices are named after what they hold:
      host/HOST          ports bound on a host
      hostgroup/GROUP    ports bound on the hosts of a host group
      vpc/VPC            subnets, routers, routes, address claims
      sg/GROUP           a security group and its rules
      nbr/VPC/BLOCK      who holds the addresses of a block, and where
      nbr/VPC/mac-N      which address a MAC has, by a hash N of the MAC

    \b
    Examples:
      ondemand slices show --store slices.db
      ondemand slices show --store slices.db sg/web
      ondemand slices show --store slices.db nbr/blue/10.0.1.0 --key ip/10.0.1.7 --json

    Exit code: 0 shown, 2 error (also when there is no such slice or record).
    """  # noqa: D301 - click reads the \b
    if key is not None and name is None:
        raise click.UsageError("--key needs the SLICE that the record is in")
    with errors_to_exit(), open_store(place) as store:
        if name is None:
            show_all(store.place, store.summaries(), as_json=as_json)
            return
        kind_of(name)
        snapshot = store.snapshot(name)
        if snapshot.version == 0:
            hint = ""
            with contextlib.suppress(SliceRefusedError):
                hint = did_you_mean(name, [one.name for one in store.summaries()])
            raise CommandError(f"{store.place} has no slice {name!r}{hint}")
        if key is None:
            show_slice(snapshot, as_json=as_json)
            return
        payload = snapshot.records.get(key)
        if payload is None:
            # Of addresses, the one that looks alike is another one's.
            is_address = key.startswith(("ip/", "mac/"))
            hint = "" if is_address else did_you_mean(key, snapshot.records)
            raise CommandError(f"slice {name!r} has no record {key!r}{hint}")
        show_record(name, key, snapshot.version, payload, as_json=as_json)


def _load(path: Path, refused: str) -> dict[str, dict[str, bytes]]:
    """``refused``: what the command has to say of a file with mistakes."""
    with console(stderr=True).status(f"reading {path}"):
        return load_goal_state(path, refused)


def _would_write(
    place: str, desired: Mapping[str, Payloads], *, keep_others: bool
) -> dict[str, SliceCounts]:
    """As publishing would tell it; a store that is not there yet is one without slices."""
    with open_store(place) as store:
        if store.is_there():
            found = list(plans(store, scope(store, desired, keep_others=keep_others)))
        else:
            found = list(plans(None, desired))
    return {plan.name: plan.counts() for plan in found}

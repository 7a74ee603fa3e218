"""``ondemand slices verify``: whether an agent holds what the source has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from controller_app.cli_slices_options import STORE_HELP, json_option
from controller_app.cli_support import (
    HELP,
    CommandError,
    console,
    errors_to_exit,
    print_json,
    table,
)
from controller_app.config import AgentConfig, ConfigError, load_config
from controller_app.slice_verify import SliceDifference, Verified, VerifyError, verify_holdings
from controller_app.slice_words import changed_line, count_text, fields_of
from controller_app.source_factory import SliceStore, open_source, open_store
from ondemand.record_text import fields_line

#: A person reads no longer table; the rest is counted, and JSON has it.
_SHOWN_ROWS = 500


@click.command(context_settings=HELP)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="AGENT.toml",
    help="The agent's configuration: its host, its source and its saved holdings.",
)
@click.option(
    "--holdings",
    "holdings_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Its saved holdings, when not as in --config.",
)
@click.option("--store", "place", metavar="FILE|URL", help=f"{STORE_HELP[:-1]}; as --holdings.")
@click.option("--host", metavar="HOST", help="Whose holdings they must be; as --holdings.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="What differs is looked at again for so long before it counts.",
)
@json_option
def verify(
    config_path: Path | None,
    holdings_path: Path | None,
    place: str | None,
    host: str | None,
    *,
    wait_s: float,
    as_json: bool,
) -> None:
    """Compare what an agent holds with what the source has.

    An agent writes down what it holds (docs/saved-holdings.md). Each slice in that file is compared
    with the source: its version, each record of a slice held whole, and of a neighbor block each
    record that is held, and each that is known to be absent. The agent may run, or not.

    \b
    behind, ahead      the version held is not the source's
    missing            the source has the record, and it is not held
    differs            the record is not the same, held -> source
    gone               it is held, and the source has it no more
    appeared           it is held as absent, and the source has it
    not held           the slice of the host itself is not held

    A change on its way is no difference: what differs is looked at again until it does not, or --wait is
    over.

    \b
    Examples:
      sudo ondemand slices verify --config /etc/ondemand/agent.toml
      ondemand slices verify --holdings host-1.holdings --store slices.db
      ondemand slices verify --config agent.toml --json | jq .differences

    Exit code: 0 equal, 1 something differs, 2 error (also when nothing can be compared).
    """  # noqa: D301 - click reads the \b
    if config_path is None and (holdings_path is None or place is None):
        raise click.UsageError("give --config, or --holdings and --store")
    config = None if config_path is None else _load(config_path)
    with errors_to_exit(), _errors_of_verify(), _open(config, place) as store:
        found = verify_holdings(
            holdings_path or _holdings_path(config),
            store,
            host=host or (None if config is None else config.host_id),
            wait_s=wait_s,
        )
    _report(store.place, found, as_json=as_json)
    click.get_current_context().exit(1 if found.differences else 0)


def _load(path: Path) -> AgentConfig:
    try:
        return load_config(path)
    except ConfigError as error:
        raise CommandError(str(error)) from error


@contextlib.contextmanager
def _errors_of_verify() -> Iterator[None]:
    try:
        yield
    except VerifyError as error:
        raise CommandError(str(error)) from error


def _open(config: AgentConfig | None, place: str | None) -> SliceStore:
    if place is not None:
        return open_store(place)
    if config is None:
        raise CommandError("no store is given: give --store")
    return open_source(config)


def _holdings_path(config: AgentConfig | None) -> Path:
    if config is None or config.holdings_file is None:
        raise CommandError(
            'the agent saves no holdings: give [state] holdings_file another value than "", and restart'
            " the agent"
        )
    return config.holdings_file


def _report(store: str, found: Verified, *, as_json: bool) -> None:
    if as_json:
        print_json(_json(store, found))
        return
    screen = console()
    rows = [row for one in found.differences for row in _rows(one)]
    if rows:
        listing = table("", "slice", "record", "held -> source")
        for row in rows[:_SHOWN_ROWS]:
            listing.add_row(*row)
        screen.print(listing)
        if len(rows) > _SHOWN_ROWS:
            screen.print(f"... and {len(rows) - _SHOWN_ROWS} differences more; --json has them all")
    for name in found.moving:
        screen.print(f"{name} changes faster than it can be compared; the agent keeps up with it")
    held = ", ".join(
        (
            count_text(found.slices, "slice"),
            count_text(found.records, "record"),
            count_text(found.absences, "known absence"),
            f"{found.payload_bytes} bytes",
        )
    )
    screen.print(f"host {found.host} holds {held} ({found.file_bytes} bytes in the file)")
    if found.differences:
        screen.print(f"{count_text(len(found.differences), 'slice')} not as in {store}")
    else:
        screen.print(f"no difference: that is what {store} has")


def _rows(one: SliceDifference) -> Iterator[tuple[str, str, str, str]]:
    if one.held_version is None:
        yield "not held", one.name, "", f"version {one.source_version}"
    elif one.has_other_version:
        word = "behind" if one.held_version < one.source_version else "ahead"
        yield word, one.name, "", f"version {one.held_version} -> {one.source_version}"
    for key in one.missing:
        yield "missing", one.name, key, _line(one.name, key, one.source[key])
    for key in one.differing:
        old, new = (fields_of(one.name, key, side[key]) for side in (one.held, one.source))
        yield "differs", one.name, key, changed_line(old, new)
    for key in one.gone:
        yield "gone", one.name, key, _line(one.name, key, one.held[key])
    for key in one.appeared:
        yield "appeared", one.name, key, _line(one.name, key, one.source[key])


def _line(name: str, key: str, payload: bytes) -> str:
    return fields_line(fields_of(name, key, payload))


def _json(store: str, found: Verified) -> dict[str, Any]:
    return {
        "equal": not found.differences,
        "store": store,
        "host": found.host,
        "slices": found.slices,
        "records": found.records,
        "absences": found.absences,
        "payload_bytes": found.payload_bytes,
        "file_bytes": found.file_bytes,
        "differences": {one.name: _difference_json(one) for one in found.differences},
        "moving": list(found.moving),
    }


def _difference_json(one: SliceDifference) -> dict[str, Any]:
    def source(key: str) -> dict[str, Any]:
        return fields_of(one.name, key, one.source[key])

    def held(key: str) -> dict[str, Any]:
        return fields_of(one.name, key, one.held[key])

    return {
        "held_version": one.held_version,
        "source_version": one.source_version,
        "missing": {key: source(key) for key in one.missing},
        "differing": {key: {"held": held(key), "source": source(key)} for key in one.differing},
        "gone": {key: held(key) for key in one.gone},
        "appeared": {key: source(key) for key in one.appeared},
    }

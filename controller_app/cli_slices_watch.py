"""``ondemand slices watch``: changes as they come."""

from __future__ import annotations

import datetime as dt
import json
import select
import sys
from collections.abc import Iterator
from typing import Any

import click

from controller_app.cli_slices_options import store_option
from controller_app.cli_support import HELP, errors_to_exit
from controller_app.slice_watch import (
    HistoryLost,
    Mark,
    OtherStore,
    RecordChanged,
    SeenEvent,
    SliceFollower,
    SourceBack,
    SourceLost,
)
from controller_app.slice_words import changed_line, count_text, fields_of
from controller_app.source_factory import open_store
from ondemand.record_text import fields_line
from ondemand.slices import kind_of

_STYLES = {Mark.ADDED: "green", Mark.CHANGED: "yellow", Mark.REMOVED: "red", Mark.WRITTEN: "cyan"}


@click.command(context_settings=HELP)
@store_option
@click.argument("names", metavar="[SLICE]...", nargs=-1)
@click.option(
    "--all", "wants_all", is_flag=True, help="All slices, also those to come; so without SLICE."
)
@click.option(
    "--since",
    type=click.IntRange(min=0),
    metavar="VERSION",
    help="First tell what changed after this version; 0: all that is there.",
)
@click.option(
    "--for", "for_s", type=click.FloatRange(min=0), metavar="SECONDS", help="End after so long."
)
@click.option(
    "--count", type=click.IntRange(min=1), metavar="N", help="End after N changed records."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def watch(
    place: str,
    names: tuple[str, ...],
    *,
    wants_all: bool,
    since: int | None,
    for_s: float | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Follow slices live, and print each changed record as it comes.

    It follows as an agent does, so it shows what agents hear, and when. A line has the time of this
    host, a mark, the slice and its version, the key of the record, and the record:

    \b
    + a record that is new
    ~ one that has changed, with what was and what is
    - one that is gone, with what it was
    = one that was written, with --since: whether it was there before is not known any more
    ! the source is lost, back, or another one

    Slices that appear later are found by a listing, each second, less often where that takes long.
    A SLICE need not be there yet. While the source is away the command waits, and then prints what was
    missed, each record as it is then.

    \b
    Examples:
      ondemand slices watch --store /var/lib/ondemand/slices.db
      ondemand slices watch --store nats://192.0.2.1:4222 sg/web host/host-1
      ondemand slices watch --store slices.db --json | jq 'select(.change == "removed")'
      ondemand slices watch --store slices.db sg/web --count 1 --for 60    wait for a change

    Exit code: 0 ended by Ctrl-C, --for or --count, 2 error.
    """  # noqa: D301 - click reads the \b
    if wants_all and names:
        raise click.UsageError("give --all or names of slices, not both")
    with errors_to_exit():
        for name in names:
            kind_of(name)
        try:
            with (
                open_store(place) as store,
                SliceFollower(store, names, since=since) as follower,
            ):
                _tell_begin(store.place, follower, as_json=as_json)
                events = follower.events(for_s=for_s, is_wanted=_has_reader)
                for event in _first(events, count):
                    click.echo(_json_line(event) if as_json else _text_line(event))
        except KeyboardInterrupt:
            return


def _first(events: Iterator[SeenEvent], count: int | None) -> Iterator[SeenEvent]:
    """Events up to the ``count``-th change of a record; None: all."""
    seen = 0
    for event in events:
        yield event
        seen += isinstance(event, RecordChanged)
        if seen == count:
            return


def _has_reader() -> bool:
    """Whether somebody may read standard output; without, nothing would end this before a next line."""
    try:
        output = sys.stdout.fileno()
    except OSError:  # a buffer in memory, as tests have it
        return True
    watched = select.poll()
    watched.register(output, 0)
    return not watched.poll(0)


def _tell_begin(place: str, follower: SliceFollower, *, as_json: bool) -> None:
    if as_json:
        facts = {"store": place, "slices": follower.slices, "records": follower.records}
        click.echo(_dumped({"event": "following", **facts}))
        return
    slices = count_text(follower.slices, "slice")
    records = count_text(follower.records, "record")
    click.echo(f"following {slices} with {records} in {place}; Ctrl-C ends it", err=True)


def _text_line(event: SeenEvent) -> str:
    match event:
        case RecordChanged():
            mark = click.style(event.mark.value, fg=_STYLES[event.mark])
            return f"{_clock()} {mark} {event.slice} {event.version} {event.key}  {_words(event)}"
        case SourceLost():
            said = f"source lost: {event.error}"
        case SourceBack():
            said = "source back"
        case OtherStore():
            said = f"{event.slice} is of another store now, {event.identity}"
        case HistoryLost():
            said = f"{event.slice}: what changed after {event.since} is not known any more; it has"
    return f"{_clock()} {click.style('!', fg='red', bold=True)} {said}"


def _words(event: RecordChanged) -> str:
    def fields(payload: bytes) -> dict[str, Any]:
        return fields_of(event.slice, event.key, payload)

    if event.was is not None and event.payload is not None:
        return changed_line(fields(event.was), fields(event.payload))
    payload = event.was if event.payload is None else event.payload
    return "" if payload is None else fields_line(fields(payload))


def _json_line(event: SeenEvent) -> str:
    match event:
        case RecordChanged():
            told: dict[str, Any] = {
                "event": "change",
                "slice": event.slice,
                "version": event.version,
                "key": event.key,
                "change": event.mark.name.lower(),
            }
            for name, payload in (("was", event.was), ("record", event.payload)):
                if payload is not None:
                    told[name] = fields_of(event.slice, event.key, payload)
        case SourceLost():
            told = {"event": "lost", "error": event.error}
        case SourceBack():
            told = {"event": "back"}
        case OtherStore():
            told = {"event": "other store", "slice": event.slice, "identity": event.identity}
        case HistoryLost():
            told = {"event": "history lost", "slice": event.slice, "since": event.since}
    return _dumped(told)


def _dumped(told: dict[str, Any]) -> str:
    now = dt.datetime.now(tz=dt.UTC)
    return json.dumps({"time": now.isoformat(timespec="milliseconds"), **told}, ensure_ascii=False)


def _clock() -> str:
    now = dt.datetime.now(tz=dt.UTC).astimezone()
    return now.strftime("%H:%M:%S.") + f"{now.microsecond // 1000:03}"

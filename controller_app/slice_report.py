"""What the ``slices`` commands print, as tables for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from controller_app.cli_support import console, print_json, table
from controller_app.slice_plan import SlicePlan
from controller_app.slice_words import changed_line, count_text, fields_of
from controller_app.sqlite_store import SliceSummary
from ondemand.publishing import SliceCounts
from ondemand.record_text import Plain, fields_line
from ondemand.slices import Snapshot

#: A person reads no longer table; the rest is counted, and JSON has it.
_SHOWN_ROWS = 500


def report_written(
    store: str, written: Mapping[str, SliceCounts], *, is_dry_run: bool, as_json: bool
) -> None:
    """What a publish did, or would do, to each slice that it touches."""
    total = sum(one.written for one in written.values())
    if as_json:
        rows = {
            name: {
                "version": one.version,
                "added": one.added,
                "changed": one.changed,
                "removed": one.removed,
            }
            for name, one in written.items()
        }
        print_json({"store": store, "dry_run": is_dry_run, "written": total, "slices": rows})
        return
    screen = console()
    if not written:
        screen.print(f"nothing to do: {store} holds this goal state already")
        return
    numbers = ("version", "added", "changed", "removed")
    listing = table("slice", *numbers, numbers=numbers)
    for name, one in list(written.items())[:_SHOWN_ROWS]:
        listing.add_row(name, *(str(getattr(one, number)) for number in numbers))
    screen.print(listing)
    if len(written) > _SHOWN_ROWS:
        screen.print(f"... and {len(written) - _SHOWN_ROWS} slices more")
    verb = "would be written" if is_dry_run else "written"
    screen.print(
        f"{count_text(total, 'record')} {verb} in {count_text(len(written), 'slice')} of {store}"
    )


def report_diff(state: Path, store: str, found: Sequence[SlicePlan], *, as_json: bool) -> None:
    """By which records a store differs from a goal state."""
    if as_json:
        print_json({"differs": bool(found), "slices": {one.name: _diff_json(one) for one in found}})
        return
    screen = console()
    if not found:
        screen.print(f"no difference: {store} holds what {state} says")
        return
    listing = table("", "slice", "record", "holds")
    rows = [row for plan in found for row in _diff_rows(plan)]
    for row in rows[:_SHOWN_ROWS]:
        listing.add_row(*row)
    screen.print(listing)
    if len(rows) > _SHOWN_ROWS:
        screen.print(f"... and {len(rows) - _SHOWN_ROWS} records more; --json has them all")
    screen.print(f"{count_text(len(rows), 'record')} in {count_text(len(found), 'slice')} differ")


def show_all(store: str, found: Sequence[SliceSummary], *, as_json: bool) -> None:
    """All slices of a store."""
    if as_json:
        rows = [
            {
                "name": one.name,
                "version": one.version,
                "records": one.records,
                "payload_bytes": one.payload_bytes,
            }
            for one in found
        ]
        print_json({"store": store, "slices": rows})
        return
    numbers = ("version", "records", "bytes")
    listing = table("slice", *numbers, numbers=numbers)
    for one in found:
        listing.add_row(one.name, str(one.version), str(one.records), str(one.payload_bytes))
    screen = console()
    screen.print(listing)
    records = sum(one.records for one in found)
    screen.print(f"{count_text(len(found), 'slice')}, {count_text(records, 'record')}")


def show_slice(snapshot: Snapshot, *, as_json: bool) -> None:
    """All records of a slice."""
    name = snapshot.slice
    records = {
        key: fields_of(name, key, payload) for key, payload in sorted(snapshot.records.items())
    }
    if as_json:
        print_json({"slice": name, "version": snapshot.version, "records": records})
        return
    listing = table("record", "holds")
    for key, fields in records.items():
        listing.add_row(key, fields_line(fields))
    screen = console()
    screen.print(listing)
    screen.print(f"{name} at version {snapshot.version}, {count_text(len(records), 'record')}")


def show_record(name: str, key: str, version: int, payload: bytes, *, as_json: bool) -> None:
    """One record, field by field."""
    fields = fields_of(name, key, payload)
    if as_json:
        print_json({"slice": name, "version": version, "key": key, "record": fields})
        return
    listing = table("field", "value")
    for field, value in fields.items():
        listing.add_row(field, fields_line({field: value}, names=False))
    console().print(listing)


def _diff_json(plan: SlicePlan) -> dict[str, object]:
    def fields(payloads: Mapping[str, bytes], keys: Sequence[str]) -> dict[str, dict[str, Plain]]:
        return {key: fields_of(plan.name, key, payloads[key]) for key in keys}

    was, becomes = (
        fields(plan.current, plan.keys.changed),
        fields(plan.desired, plan.keys.changed),
    )
    return {
        "version": plan.version,
        "added": fields(plan.desired, plan.keys.added),
        "changed": {key: {"from": was[key], "to": becomes[key]} for key in plan.keys.changed},
        "removed": fields(plan.current, plan.keys.removed),
    }


def _diff_rows(plan: SlicePlan) -> Iterator[tuple[str, str, str, str]]:
    for key in plan.keys.added:
        yield "+", plan.name, key, fields_line(fields_of(plan.name, key, plan.desired[key]))
    for key in plan.keys.changed:
        old = fields_of(plan.name, key, plan.current[key])
        new = fields_of(plan.name, key, plan.desired[key])
        yield "~", plan.name, key, changed_line(old, new)
    for key in plan.keys.removed:
        yield "-", plan.name, key, fields_line(fields_of(plan.name, key, plan.current[key]))

"""Records of slices in words: what the ``slices`` commands print of one."""

from __future__ import annotations

from ondemand.codec import RecordError, decode_record
from ondemand.record_text import Plain, fields_line, record_fields

Fields = dict[str, Plain]


def fields_of(name: str, key: str, payload: bytes) -> Fields:
    """The record as JSON may hold it, or ``{"error": reason}`` for one that readers will refuse."""
    try:
        return record_fields(decode_record(name, key, payload))
    except RecordError as error:
        return {"error": error.reason}


def changed_line(old: Fields, new: Fields) -> str:
    """``field=old -> new`` of the fields that differ."""
    parts = []
    for name in {**old, **new}:
        before, after = old.get(name), new.get(name)
        if before != after:
            texts = (fields_line({name: value}, names=False) for value in (before, after))
            parts.append(f"{name}={' -> '.join(texts)}")
    # Two payloads may differ where no field does: another release wrote the same otherwise.
    return "  ".join(parts) or "written anew with the same meaning"


def count_text(number: int, what: str) -> str:
    """``1 record``, ``2 records``."""
    return f"{number} {what}{'' if number == 1 else 's'}"

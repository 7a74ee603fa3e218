"""What came of a delta, a snapshot or a lookup that entered the slice cache."""

from __future__ import annotations

from dataclasses import dataclass, field

from ondemand.codec import RecordError, decode_record
from ondemand.messages import Heal
from ondemand.records import Record
from rule_cache.tags import Tag


def record_tag(slice_name: str, key: str) -> Tag:
    """The tag of one record, present or absent."""
    return f"{slice_name} {key}"


@dataclass(frozen=True, slots=True)
class RecordChange:
    """A record that this host holds has changed. None: it was or is absent."""

    slice: str
    key: str
    old: Record | None
    new: Record | None


@dataclass(slots=True)
class Applied:
    """What came of a delta, snapshot or lookup."""

    changes: list[RecordChange] = field(default_factory=list)
    #: Ask for the delta: a version was missed.
    heal: Heal | None = None
    #: Records that count as missing because they cannot be used.
    errors: list[RecordError] = field(default_factory=list)
    #: Tags of records that left the cache for want of room; nobody will tell of their changes now.
    forgotten: list[Tag] = field(default_factory=list)
    #: The groups that such records made somebody a member of, by VPC.
    forgotten_groups: dict[str, set[str]] = field(default_factory=dict)

    def decode(self, slice_name: str, key: str, payload: bytes | None) -> Record | None:
        """The record in ``payload``; None for an absence and, told in ``errors``, for a bad one."""
        if payload is None:
            return None
        try:
            return decode_record(slice_name, key, payload)
        except RecordError as error:
            self.errors.append(error)
            return None


__all__ = ["Applied", "RecordChange", "record_tag"]

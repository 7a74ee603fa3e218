"""What publishing a goal state would change, told before or instead of doing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from controller_app.source_factory import SliceStore
from ondemand.publishing import Difference, Payloads, SliceCounts, difference
from ondemand.slices import SliceKind


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """One slice: what it holds, what it shall hold, and the keys by which these differ."""

    name: str
    version: int
    current: Payloads
    desired: Payloads
    keys: Difference

    def counts(self) -> SliceCounts:
        """As publishing would report it. The version is the one that the slice has now."""
        return SliceCounts(
            version=self.version,
            added=len(self.keys.added),
            changed=len(self.keys.changed),
            removed=len(self.keys.removed),
            unchanged=self.keys.unchanged,
        )


def scope(
    store: SliceStore | None, desired: Mapping[str, Payloads], *, keep_others: bool
) -> dict[str, Payloads]:
    """``desired`` with an empty set for each slice of the store that publishing shall empty.

    ``keep_others`` leaves slices alone that the goal state has nothing to do with. A neighbor shard
    of one of its VPCs is not among these: the goal state tells all neighbors of a VPC. ``store`` is
    None where no store is yet.
    """
    slices = dict(desired)
    vpcs = {
        name.partition("/")[2] for name in desired if name.startswith(f"{SliceKind.VPC.value}/")
    }
    for summary in store.summaries() if store is not None else ():
        kind, _, rest = summary.name.partition("/")
        own_shard = kind == SliceKind.NEIGHBORS.value and rest.partition("/")[0] in vpcs
        if summary.records and (own_shard or not keep_others):
            slices.setdefault(summary.name, {})
    return slices


def plans(store: SliceStore | None, slices: Mapping[str, Payloads]) -> Iterator[SlicePlan]:
    """The slices that publishing would change, in the order of their names."""
    for name in sorted(slices):
        desired = slices[name]
        if store is None:
            version, current = 0, dict[str, bytes]()
        else:
            held = store.snapshot(name)
            version, current = held.version, dict(held.records)
        keys = difference(current, desired)
        if keys:
            yield SlicePlan(name, version, current, desired, keys)

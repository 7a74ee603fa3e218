"""The slice cache: what this host holds of the goal state, with the version it held it at.

Two ways of holding a slice:

*whole*    the host's own slice, the VPCs and security groups of its ports: all records;
*in part*  neighbor shards: only records that a packet asked for, absences included. Bounded in
           bytes; each record is on the account of the port whose packet asked for it first, and the
           port that holds most gives up its least recently used one. A change to a record not held
           is ignored. Each says when it was used last (``idle_sweep`` lets go of what is not).

An older version never overwrites a newer one: a whole slice has one version, a record held in part
has the version of the slice when it was read. A gap between versions is reported, never guessed over.
Only when the store itself is another one do versions of before mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ondemand.applied import Applied, RecordChange, record_tag
from ondemand.fair_cache import NOBODY
from ondemand.holdings import Holdings, SliceDropped, SourceChanged, Write, WriteLog
from ondemand.part_slices import ENTRY_OVERHEAD_BYTES, Held, PartSlices
from ondemand.records import Neighbor, Record, mac_key, neighbor_key
from ondemand.slices import (
    Delta,
    Lookup,
    SliceKind,
    SliceNameError,
    Snapshot,
    kind_of,
    mac_slice,
    neighbor_slice,
)
from ondemand.whole_slices import WholeSlices
from rule_cache.tags import Tag


class Restored(NamedTuple):
    """A slice that is held again, to be followed with ``since=version``."""

    slice: str
    version: int
    is_whole: bool


class Restoration(NamedTuple):
    """What came of saved holdings.

    ``is_complete``: everything that was saved is held, so that each change since will be told as one.
    """

    slices: list[Restored]
    is_complete: bool


class SliceCache:
    """All slices of one host.

    ``saving``: collect what has to be written down so that the holdings outlive the process; whoever
    asks for it must call ``take_writes`` after each call that may change something.
    """

    def __init__(self, max_neighbor_bytes: int, *, saving: bool = False) -> None:
        self._log = WriteLog(is_on=saving)
        self._whole = WholeSlices(self._log)
        self._part = PartSlices(max_neighbor_bytes, self._log)
        self._held = self._part.held
        #: Slices of which the versions are of an earlier store: any snapshot is newer.
        self._distrusted: set[str] = set()
        #: The store that took the place of the earlier one.
        self._store = ""
        #: Records that counted as missing.
        self.bad_records = 0

    # -- reading ---------------------------------------------------------------------------------

    def whole(self, name: str) -> dict[str, Record] | None:
        """Records of a slice held whole by key; None until its snapshot came."""
        held = self._whole.get(name)
        return held.records if held is not None and held.loaded else None

    def neighbor(self, vpc: str, ip: bytes) -> Held | None:
        """The neighbor record of an address, or its known absence; None: the source must be asked.

        It counts as a use.
        """
        held = self._held.get((vpc, ip))
        if held is not None:
            held.used_s = self._part.clock_s
        return held

    def mac_pointer(self, vpc: str, subnet: str, mac: bytes) -> Held | None:
        """As ``neighbor``, for a MAC pointer."""
        held = self._held.get((vpc, subnet, mac))
        if held is not None:
            held.used_s = self._part.clock_s
        return held

    def version(self, name: str) -> int | None:
        """The version held of a slice, None when nothing is."""
        whole = self._whole.get(name)
        if whole is not None:
            return whole.version
        return self._part.version(name) if name in self._part else None

    def is_held(self, name: str) -> bool:
        """Whether records of the slice are here: all of it, or some of a neighbor shard."""
        return self.whole(name) is not None or name in self._part

    def versions(self) -> dict[str, int]:
        """All slices held, with their versions."""
        names = [*self._whole, *self._part]
        return {name: self.version(name) or 0 for name in names}

    @property
    def neighbors_held(self) -> int:
        return len(self._held)

    @property
    def neighbor_bytes(self) -> int:
        return self._held.used_bytes

    def neighbor_bytes_by_owner(self) -> dict[int, int]:
        """What is on the account of each port (its zone), 0 for what is on nobody's."""
        return self._held.bytes_by_owner()

    # -- what is held ----------------------------------------------------------------------------

    def hold(self, name: str) -> bool:
        """Begin to hold a slice whole; True when it was not held yet and must be followed."""
        return self._whole.hold(name)

    def release(self, name: str) -> None:
        """Hold a whole slice no more."""
        self._whole.release(name)
        self._distrusted.discard(name)

    def release_owner(self, owner: int) -> None:
        """A port has gone: what is on its account leaves first when room is needed."""
        self._held.release_owner(owner)

    # -- changes ---------------------------------------------------------------------------------

    def put(self, lookup: Lookup, owner: int = NOBODY) -> tuple[Applied, bool]:
        """Enter the answer of a fetch; also whether its slice must be followed from now on.

        ``owner`` is the zone of the port whose packet asked. A record that is held stays on the
        account that it is on, unless that is nobody's.
        """
        applied = Applied()
        fresh = self._part.put(lookup, owner, applied)
        self.bad_records += len(applied.errors)
        return applied, fresh

    def apply(self, event: Delta | Snapshot) -> Applied:
        """Enter what a watch delivered. Duplicates and what is not held are ignored."""
        applied = Applied()
        name = event.slice
        holder = self._whole if name in self._whole else self._part if name in self._part else None
        if isinstance(event, Delta):
            if holder is not None:
                holder.delta(event, applied)
        else:
            if event.store is not None and (
                name not in self._distrusted or event.store != self._store
            ):
                self.distrust(event.store)
            if holder is not None:
                holder.snapshot(event, applied, anew=name in self._distrusted)
            self._distrusted.discard(name)
        self.bad_records += len(applied.errors)
        return applied

    def distrust(self, store: str) -> None:
        """The source's store is another one now, ``store`` by its identity.

        What is held stays until a snapshot of its slice comes, which is taken whatever its version.
        """
        self._store = store
        self._distrusted = {*self._whole, *self._part}
        self._whole.unsave_all()
        self._part.unsave_all()
        if self._log.is_on:
            self._log.writes.append(SourceChanged(store))

    # -- what is used ----------------------------------------------------------------------------

    def set_clock(self, now_s: float) -> None:
        """What is read from now on counts as used at this moment."""
        self._part.clock_s = now_s

    def part_names(self) -> list[str]:
        """The neighbor shards that are followed."""
        return list(self._part)

    def held_of(self, name: str) -> list[Held]:
        """What is held of a neighbor shard, without counting as a use."""
        return self._part.held_of(name)

    def drop_record(self, tag: Tag, may_go: Callable[[Held], bool]) -> Held | None:
        """Hold the record of a neighbor shard that has this tag no more, if it is held and ``may_go``.

        What was held. Nobody will tell of its changes now; its shard is followed until ``drop_part``.
        """
        return self._part.drop_record(tag, may_go)

    def idle_parts(self) -> list[str]:
        """Neighbor shards of which nothing is held any more; they need not be followed."""
        return [name for name in self._part if self._part.is_idle(name)]

    def parts_of(self, vpc: str) -> list[str]:
        """The neighbor shards of a VPC that are followed."""
        return [name for name in self._part if name.split("/", 2)[1] == vpc]

    def is_idle(self, name: str) -> bool:
        """Whether a neighbor shard is followed of which nothing is held any more."""
        return self._part.is_idle(name)

    def drop_part(self, name: str) -> None:
        """Follow a neighbor shard no more, forgetting what is held of it."""
        self._part.drop(name)
        self._distrusted.discard(name)

    # -- saving ----------------------------------------------------------------------------------

    def take_writes(self) -> list[Write]:
        """What to write down since the last call, as one batch; [] when nothing is to be saved."""
        return self._log.take()

    def stop_saving(self) -> None:
        """Collect no more writes: nobody writes them down."""
        self._whole.unsave_all()
        self._part.unsave_all()
        self._log.stop()

    def restore(self, holdings: Holdings) -> Restoration:
        """Hold what was saved, as before the restart; call it before anything is held.

        A slice held whole in which a record is bad is not taken over, nor is a bad record of a slice
        held in part, nor what there is no room for. What is returned must be followed; what is not
        needed any more must be released.
        """
        if self.versions():
            raise ValueError("holdings are restored into a cache that holds slices already")
        restored: list[Restored] = []
        is_complete = True
        for name, saved in holdings.slices.items():
            applied = Applied()
            holder = self._whole if saved.is_whole else self._part
            try:
                held = holder.restore(name, saved, applied)
            except SliceNameError:
                held = False
            self.bad_records += len(applied.errors)
            if not held or applied.errors or applied.forgotten:
                is_complete = False
            if held:
                restored.append(Restored(name, saved.version, saved.is_whole))
            elif self._log.is_on:
                self._log.writes.append(SliceDropped(name))
        for name in self.idle_parts():
            self.drop_part(name)
        restored = [slice_ for slice_ in restored if self.version(slice_.slice) is not None]
        return Restoration(restored, is_complete)


def neighbor_place(vpc: str, ip: bytes) -> tuple[str, str]:
    """(slice, key) of an address's neighbor record."""
    return neighbor_slice(vpc, ip), neighbor_key(ip)


def mac_place(vpc: str, subnet: str, mac: bytes) -> tuple[str, str]:
    """(slice, key) of a MAC pointer."""
    return mac_slice(vpc, mac), mac_key(subnet, mac)


__all__ = [
    "ENTRY_OVERHEAD_BYTES",
    "Applied",
    "Held",
    "Neighbor",
    "RecordChange",
    "Restoration",
    "Restored",
    "SliceCache",
    "SliceKind",
    "kind_of",
    "mac_place",
    "neighbor_place",
    "record_tag",
]

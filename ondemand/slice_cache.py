"""The slice cache: what this host holds of the goal state, with the version it held it at.

Two ways of holding a slice:

*whole*    the host's own slice, the VPCs and security groups of its ports: all records;
*in part*  neighbor shards: only records that a packet asked for, absences included. Bounded in
           bytes, least recently used first; a change to a record not held is ignored.

An older version never overwrites a newer one: a whole slice has one version, a record held in part
has the version of the slice when it was read. A gap between versions is reported, never guessed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cachetools import LRUCache

from ondemand.addresses import parse_ip, parse_mac
from ondemand.codec import RecordError, decode_record
from ondemand.messages import Heal
from ondemand.records import Neighbor, Record, mac_key, neighbor_key
from ondemand.slices import (
    Delta,
    Lookup,
    SliceKind,
    Snapshot,
    kind_of,
    mac_slice,
    neighbor_slice,
)
from rule_cache.tags import Tag

#: What an entry costs beside its payload: the objects around it, measured with tracemalloc.
ENTRY_OVERHEAD_BYTES = 700


def record_tag(slice_name: str, key: str) -> Tag:
    """The tag of one record, present or absent."""
    return f"{slice_name} {key}"


class Held:
    """A record held in part; ``record`` None is a known absence."""

    __slots__ = ("as_of", "record", "size", "tag")

    def __init__(self, record: Record | None, as_of: int, tag: Tag, size: int) -> None:
        self.record = record
        self.as_of = as_of
        self.tag = tag
        self.size = size


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


_CacheKey = tuple[str, bytes] | tuple[str, str, bytes]


class _Whole:
    __slots__ = ("loaded", "records", "version")

    def __init__(self) -> None:
        self.loaded = False
        self.version = 0
        self.records: dict[str, Record] = {}


class _Part:
    __slots__ = ("keys", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        #: Cache keys of what is held of it, by record key.
        self.keys: dict[str, _CacheKey] = {}


class _BoundedCache(LRUCache[_CacheKey, Held]):
    """Least recently used first, and says what it dropped."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda held: held.size)
        self.dropped: list[tuple[_CacheKey, Held]] = []

    def popitem(self) -> tuple[_CacheKey, Held]:
        item = super().popitem()
        self.dropped.append(item)
        return item


class SliceCache:
    """All slices of one host."""

    def __init__(self, max_neighbor_bytes: int) -> None:
        self._whole: dict[str, _Whole] = {}
        self._part: dict[str, _Part] = {}
        self._held = _BoundedCache(max_neighbor_bytes)
        #: Records that counted as missing.
        self.bad_records = 0

    # -- reading ---------------------------------------------------------------------------------

    def whole(self, name: str) -> dict[str, Record] | None:
        """Records of a slice held whole by key; None until its snapshot came."""
        held = self._whole.get(name)
        return held.records if held is not None and held.loaded else None

    def neighbor(self, vpc: str, ip: bytes) -> Held | None:
        """The neighbor record of an address, or its known absence; None: the source must be asked."""
        return self._held.get((vpc, ip))

    def mac_pointer(self, vpc: str, subnet: str, mac: bytes) -> Held | None:
        return self._held.get((vpc, subnet, mac))

    def version(self, name: str) -> int | None:
        """The version held of a slice, None when nothing is."""
        if name in self._whole:
            return self._whole[name].version
        return self._part[name].version if name in self._part else None

    def versions(self) -> dict[str, int]:
        """All slices held, with their versions."""
        names = [*self._whole, *self._part]
        return {name: self.version(name) or 0 for name in names}

    @property
    def neighbors_held(self) -> int:
        return len(self._held)

    @property
    def neighbor_bytes(self) -> int:
        return int(self._held.currsize)

    # -- what is held ----------------------------------------------------------------------------

    def hold(self, name: str) -> bool:
        """Begin to hold a slice whole; True when it was not held yet and must be followed."""
        if name in self._whole:
            return False
        self._whole[name] = _Whole()
        return True

    def release(self, name: str) -> None:
        """Hold a whole slice no more."""
        self._whole.pop(name, None)

    # -- changes ---------------------------------------------------------------------------------

    def put(self, lookup: Lookup) -> tuple[Applied, bool]:
        """Enter the answer of a fetch; also whether its slice must be followed from now on."""
        applied = Applied()
        part = self._part.get(lookup.slice)
        fresh = part is None
        if part is None:
            part = self._part[lookup.slice] = _Part(lookup.version)
        cache_key = _cache_key(lookup.slice, lookup.key)
        old = self._held.get(cache_key)
        if old is None or old.as_of < lookup.version:
            self._store(
                part, cache_key, lookup.slice, lookup.key, lookup.payload, lookup.version, applied
            )
            if lookup.version < part.version:
                # Changes overtook the answer, and went by because nobody held the record yet.
                applied.heal = Heal(lookup.slice, lookup.version)
        self._forget_dropped(applied)
        return applied, fresh

    def apply(self, event: Delta | Snapshot) -> Applied:
        """Enter what a watch delivered. Duplicates and what is not held are ignored."""
        applied = Applied()
        whole = self._whole.get(event.slice)
        part = self._part.get(event.slice)
        if isinstance(event, Snapshot):
            if whole is not None:
                self._snapshot_whole(whole, event, applied)
            elif part is not None:
                self._snapshot_part(part, event, applied)
        elif whole is not None:
            if whole.loaded:
                self._delta_whole(whole, event, applied)
        elif part is not None:
            self._delta_part(part, event, applied)
        self._forget_dropped(applied)
        return applied

    def _snapshot_whole(self, whole: _Whole, event: Snapshot, applied: Applied) -> None:
        if whole.loaded and event.version < whole.version:
            return
        fresh: dict[str, Record] = {}
        for key, payload in event.records.items():
            record = self._decode(event.slice, key, payload, applied)
            if record is not None:
                fresh[key] = record
        old = whole.records
        for key in old.keys() | fresh.keys():
            before, after = old.get(key), fresh.get(key)
            if before != after:
                applied.changes.append(RecordChange(event.slice, key, before, after))
        applied.changes.sort(key=lambda change: change.key)
        whole.records, whole.version, whole.loaded = fresh, event.version, True

    def _delta_whole(self, whole: _Whole, event: Delta, applied: Applied) -> None:
        for change in event.changes:
            if change.version <= whole.version:
                continue
            if change.previous > whole.version:
                applied.heal = Heal(event.slice, whole.version)
                return
            old = whole.records.get(change.key)
            new = self._decode(event.slice, change.key, change.payload, applied)
            if new is None:
                whole.records.pop(change.key, None)
            else:
                whole.records[change.key] = new
            whole.version = change.version
            if old != new:
                applied.changes.append(RecordChange(event.slice, change.key, old, new))
        if event.since > whole.version:
            applied.heal = Heal(event.slice, whole.version)
        else:
            whole.version = max(whole.version, event.version)

    # What is held in part has versions of its own, which ``_store`` looks at; the version of the
    # slice tells gaps only. So a heal mends a record that came late, though it is no news otherwise.

    def _snapshot_part(self, part: _Part, event: Snapshot, applied: Applied) -> None:
        for key, cache_key in list(part.keys.items()):
            if cache_key in self._held:  # not dropped just now to make room
                payload = event.records.get(key)
                self._store(part, cache_key, event.slice, key, payload, event.version, applied)
        part.version = max(part.version, event.version)

    def _delta_part(self, part: _Part, event: Delta, applied: Applied) -> None:
        for change in event.changes:
            if change.previous > part.version:
                applied.heal = Heal(event.slice, part.version)
                return
            part.version = max(part.version, change.version)
            cache_key = part.keys.get(change.key)
            if cache_key is not None and cache_key in self._held:
                self._store(
                    part,
                    cache_key,
                    event.slice,
                    change.key,
                    change.payload,
                    change.version,
                    applied,
                )
        if event.since > part.version:
            applied.heal = Heal(event.slice, part.version)
        else:
            part.version = max(part.version, event.version)

    def _store(
        self,
        part: _Part,
        cache_key: _CacheKey,
        slice_name: str,
        key: str,
        payload: bytes | None,
        version: int,
        applied: Applied,
    ) -> None:
        old = self._held.get(cache_key)
        if old is not None and old.as_of >= version:
            return
        record = self._decode(slice_name, key, payload, applied)
        size = ENTRY_OVERHEAD_BYTES
        if record is not None and payload is not None:
            size += len(payload)
            if size > self._held.maxsize:
                reason = f"{len(payload)} bytes are more than the neighbor cache holds"
                self._count_bad(RecordError(slice_name, key, reason), applied)
                record, size = None, ENTRY_OVERHEAD_BYTES
        if old is not None:
            del self._held[cache_key]  # so that it cannot be dropped to make room for itself
        self._held[cache_key] = Held(record, version, record_tag(slice_name, key), size)
        part.keys[key] = cache_key
        # A record that was not held is no change: no decision can have been made without it.
        if old is not None and old.record != record:
            applied.changes.append(RecordChange(slice_name, key, old.record, record))

    def _decode(
        self, slice_name: str, key: str, payload: bytes | None, applied: Applied
    ) -> Record | None:
        if payload is None:
            return None
        try:
            return decode_record(slice_name, key, payload)
        except RecordError as error:
            self._count_bad(error, applied)
            return None

    def _count_bad(self, error: RecordError, applied: Applied) -> None:
        self.bad_records += 1
        applied.errors.append(error)

    def _forget_dropped(self, applied: Applied) -> None:
        for _, held in self._held.dropped:
            applied.forgotten.append(held.tag)
            slice_name, key = held.tag.split(" ", 1)
            if isinstance(held.record, Neighbor) and held.record.groups:
                vpc = slice_name.split("/", 2)[1]
                applied.forgotten_groups.setdefault(vpc, set()).update(held.record.groups)
            self._part[slice_name].keys.pop(key, None)
        self._held.dropped.clear()

    def idle_parts(self) -> list[str]:
        """Neighbor shards of which nothing is held any more; they need not be followed."""
        return [name for name, part in self._part.items() if not part.keys]

    def parts_of(self, vpc: str) -> list[str]:
        """The neighbor shards of a VPC that are followed."""
        return [name for name in self._part if name.split("/", 2)[1] == vpc]

    def is_idle(self, name: str) -> bool:
        """Whether a neighbor shard is followed of which nothing is held any more."""
        part = self._part.get(name)
        return part is not None and not part.keys

    def drop_part(self, name: str) -> None:
        """Follow a neighbor shard no more, forgetting what is held of it."""
        part = self._part.pop(name, None)
        for key in part.keys if part is not None else ():
            self._held.pop(_cache_key(name, key), None)


def _cache_key(slice_name: str, key: str) -> _CacheKey:
    """From the names of the wire to what the hot path looks up by, without making text."""
    vpc = slice_name.split("/", 2)[1]
    kind, _, rest = key.partition("/")
    if kind == "ip":
        return vpc, parse_ip(rest)
    subnet, _, mac = rest.partition("/")
    return vpc, subnet, parse_mac(mac)


def neighbor_place(vpc: str, ip: bytes) -> tuple[str, str]:
    """(slice, key) of an address's neighbor record."""
    return neighbor_slice(vpc, ip), neighbor_key(ip)


def mac_place(vpc: str, subnet: str, mac: bytes) -> tuple[str, str]:
    """(slice, key) of a MAC pointer."""
    return mac_slice(vpc, mac), mac_key(subnet, mac)


__all__ = [
    "Applied",
    "Held",
    "Neighbor",
    "RecordChange",
    "SliceCache",
    "SliceKind",
    "kind_of",
    "mac_place",
    "neighbor_place",
    "record_tag",
]

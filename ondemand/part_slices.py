"""Slices held in part: of the neighbor shards, only the records that a packet asked for.

What is held has versions of its own: a record that is newer than what arrives stays as it is. The
version of the slice tells gaps only, so a heal mends a record that came late, though it is no news
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ondemand.addresses import parse_ip, parse_mac
from ondemand.applied import Applied, RecordChange, record_tag
from ondemand.codec import RecordError
from ondemand.fair_cache import NOBODY, FairCache
from ondemand.holdings import (
    PartHeld,
    RecordDropped,
    RecordHeld,
    SavedSlice,
    SliceDropped,
    VersionMoved,
    WriteLog,
)
from ondemand.messages import Heal
from ondemand.records import Neighbor, Record
from ondemand.slices import Delta, Lookup, SliceKind, Snapshot, kind_of
from rule_cache.tags import Tag

#: What an entry costs beside its payload: the objects around it, measured with tracemalloc.
ENTRY_OVERHEAD_BYTES = 1000

#: (VPC, address) of a neighbor, (VPC, subnet, MAC) of a MAC pointer.
CacheKey = tuple[str, bytes] | tuple[str, str, bytes]


class Held:
    """A record held in part; ``record`` None is a known absence."""

    __slots__ = ("as_of", "record", "size", "tag", "used_s")

    def __init__(
        self, record: Record | None, as_of: int, tag: Tag, size: int, used_s: float
    ) -> None:
        self.record = record
        self.as_of = as_of
        self.tag = tag
        self.size = size
        #: When a packet asked for it last, by the clock of the cache.
        self.used_s = used_s


class _Part:
    __slots__ = ("is_saved", "keys", "owed", "saved_version", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        #: Cache keys of what is held of it, by record key.
        self.keys: dict[str, CacheKey] = {}
        #: Changes after the first version and up to the second may be missing: a heal is on its way.
        self.owed: tuple[int, int] | None = None
        #: Whether the saved holdings have it, and at which version.
        self.is_saved = False
        self.saved_version = version

    def owe(self, since: int) -> None:
        self.owed = (min(since, self.owed[0]) if self.owed else since, self.version)

    def settle(self, since: int, version: int) -> None:
        """Everything that changed after ``since`` and up to ``version`` has been entered."""
        if self.owed is not None and since <= self.owed[0] and version >= self.owed[1]:
            self.owed = None


def _size(held: Held) -> int:
    return held.size


class PartSlices:
    """The neighbor shards of which something is held."""

    def __init__(self, max_bytes: int, log: WriteLog) -> None:
        self._log = log
        self._parts: dict[str, _Part] = {}
        #: Monotonic seconds, as of the last time that somebody told.
        self.clock_s = 0.0
        self.held: FairCache[CacheKey, Held] = FairCache(max_bytes, _size)

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def version(self, name: str) -> int:
        return self._parts[name].version

    def is_idle(self, name: str) -> bool:
        """Whether a shard is followed of which nothing is held any more."""
        part = self._parts.get(name)
        return part is not None and not part.keys

    def held_of(self, name: str) -> list[Held]:
        """What is held of a shard."""
        part = self._parts.get(name)
        if part is None:
            return []
        peek = self.held.peek
        return [held for key in part.keys.values() if (held := peek(key)) is not None]

    def drop_record(self, tag: Tag, may_go: Callable[[Held], bool]) -> Held | None:
        """Hold a record no more, if it is held and ``may_go``: what was held."""
        name, _, key = tag.partition(" ")
        part = self._parts.get(name)
        cache_key = part.keys.get(key) if part is not None else None
        held = self.held.peek(cache_key) if cache_key is not None else None
        if part is None or cache_key is None or held is None or not may_go(held):
            return None
        self.held.pop(cache_key)
        self._leave(part, name, key)
        return held

    def _leave(self, part: _Part, name: str, key: str) -> None:
        part.keys.pop(key, None)
        if part.is_saved:
            self._log.writes.append(RecordDropped(name, key))

    def drop(self, name: str) -> None:
        """Follow a shard no more, forgetting what is held of it."""
        part = self._parts.pop(name, None)
        if part is None:
            return
        for cache_key in part.keys.values():
            self.held.pop(cache_key)
        if part.is_saved:
            self._log.writes.append(SliceDropped(name))

    # -- changes ---------------------------------------------------------------------------------

    def put(self, lookup: Lookup, owner: int, applied: Applied) -> bool:
        """Enter the answer of a fetch; whether its slice must be followed from now on."""
        name, version = lookup.slice, lookup.version
        part = self._parts.get(name)
        fresh = part is None
        if part is None:
            part = self._parts[name] = _Part(version)
            self._begin_saving(name, part)
        cache_key = _cache_key(name, lookup.key)
        old = self.held.peek(cache_key)
        if old is None or old.as_of < version:
            self._store(part, cache_key, name, lookup.key, lookup.payload, version, applied, owner)
            if version < part.version:
                # Changes overtook the answer, and went by because nobody held the record yet.
                applied.heal = Heal(name, version)
                part.owe(version)
        self._forget_dropped(applied)
        self._save_version(name, part)
        return fresh

    def snapshot(self, event: Snapshot, applied: Applied, *, anew: bool) -> None:
        """Take what a snapshot says of what is held; ``anew``: it is of another store."""
        name = event.slice
        part = self._parts[name]
        if anew:
            part.version, part.owed = event.version, None
            self._begin_saving(name, part)
        for key, cache_key in list(part.keys.items()):
            old = self.held.peek(cache_key)
            # What was dropped just now to make room stays away.
            if old is not None and (anew or old.as_of < event.version):
                payload = event.records.get(key)
                self._store(part, cache_key, name, key, payload, event.version, applied)
        part.version = max(part.version, event.version)
        part.settle(0, event.version)
        self._forget_dropped(applied)
        self._save_version(name, part)

    def delta(self, event: Delta, applied: Applied) -> None:
        part = self._parts[event.slice]
        self._enter(part, event, applied)
        self._forget_dropped(applied)
        self._save_version(event.slice, part)

    def _enter(self, part: _Part, event: Delta, applied: Applied) -> None:
        name = event.slice
        for change in event.changes:
            if change.previous > part.version:
                applied.heal = Heal(name, part.version)
                return
            part.version = max(part.version, change.version)
            cache_key = part.keys.get(change.key)
            if cache_key is None:
                continue
            old = self.held.peek(cache_key)
            if old is not None and old.as_of < change.version:
                self._store(
                    part, cache_key, name, change.key, change.payload, change.version, applied
                )
        if event.since > part.version:
            applied.heal = Heal(name, part.version)
        else:
            part.version = max(part.version, event.version)
            part.settle(event.since, event.version)

    def _store(
        self,
        part: _Part,
        cache_key: CacheKey,
        name: str,
        key: str,
        payload: bytes | None,
        version: int,
        applied: Applied,
        owner: int = NOBODY,
    ) -> None:
        record = applied.decode(name, key, payload)
        size = ENTRY_OVERHEAD_BYTES
        if record is not None and payload is not None:
            size += len(payload)
            if size > self.held.max_bytes:
                applied.errors.append(self._too_big(name, key, payload))
                record, size = None, ENTRY_OVERHEAD_BYTES
        old = self.held.peek(cache_key)
        # A change is no use.
        used_s = self.clock_s if old is None else old.used_s
        held = Held(record, version, record_tag(name, key), size, used_s)
        self.held.put(cache_key, held, owner)
        part.keys[key] = cache_key
        if part.is_saved:
            if record is None and payload is not None:
                # A bad payload is kept nowhere: after a restart the record is asked for again.
                self._log.writes.append(RecordDropped(name, key))
            else:
                self._log.writes.append(RecordHeld(name, key, version, payload))
        # A record that was not held is no change: no decision can have been made without it.
        if old is not None and old.record != record:
            applied.changes.append(RecordChange(name, key, old.record, record))

    @staticmethod
    def _too_big(name: str, key: str, payload: bytes) -> RecordError:
        return RecordError(
            name, key, f"{len(payload)} bytes are more than the neighbor cache holds"
        )

    def _forget_dropped(self, applied: Applied) -> None:
        for _, held in self.held.dropped:
            applied.forgotten.append(held.tag)
            name, key = held.tag.split(" ", 1)
            if isinstance(held.record, Neighbor) and held.record.groups:
                vpc = name.split("/", 2)[1]
                applied.forgotten_groups.setdefault(vpc, set()).update(held.record.groups)
            self._leave(self._parts[name], name, key)
        self.held.dropped.clear()

    # -- saving ----------------------------------------------------------------------------------

    def restore(self, name: str, saved: SavedSlice, applied: Applied) -> bool:
        """Hold what was saved of a shard, on nobody's account; False when none of it can be held."""
        if kind_of(name) is not SliceKind.NEIGHBORS:
            return False
        part = self._parts[name] = _Part(saved.version)
        part.is_saved = self._log.is_on
        for key, (version, payload) in saved.records.items():
            held = self._as_saved(name, key, version, payload, applied)
            if held is not None:
                cache_key = part.keys[key] = _cache_key(name, key)
                self.held.put(cache_key, held, NOBODY)
            elif part.is_saved:
                self._log.writes.append(RecordDropped(name, key))
        self._forget_dropped(applied)
        return True

    def _as_saved(
        self, name: str, key: str, version: int, payload: bytes | None, applied: Applied
    ) -> Held | None:
        """The entry for a record that was saved; None when it is bad or too big."""
        size = ENTRY_OVERHEAD_BYTES
        record = applied.decode(name, key, payload)
        if payload is not None:
            size += len(payload)
            if record is None:
                return None
            if size > self.held.max_bytes:
                applied.errors.append(self._too_big(name, key, payload))
                return None
        else:
            try:
                _cache_key(name, key)
            except ValueError as error:
                applied.errors.append(RecordError(name, key, str(error)))
                return None
        return Held(record, version, record_tag(name, key), size, self.clock_s)

    def unsave_all(self) -> None:
        """The saved holdings have none of it any more."""
        for part in self._parts.values():
            part.is_saved = False

    def _begin_saving(self, name: str, part: _Part) -> None:
        part.is_saved = self._log.is_on
        if part.is_saved:
            part.saved_version = part.version
            self._log.writes.append(PartHeld(name, part.version))

    def _save_version(self, name: str, part: _Part) -> None:
        version = part.owed[0] if part.owed is not None else part.version
        if part.is_saved and version != part.saved_version:
            part.saved_version = version
            self._log.writes.append(VersionMoved(name, version))


def _cache_key(name: str, key: str) -> CacheKey:
    """From the names of the wire to what the hot path looks up by, without making text."""
    vpc = name.split("/", 2)[1]
    kind, _, rest = key.partition("/")
    if kind == "ip":
        return vpc, parse_ip(rest)
    subnet, _, mac = rest.partition("/")
    return vpc, subnet, parse_mac(mac)


__all__ = ["ENTRY_OVERHEAD_BYTES", "CacheKey", "Held", "PartSlices"]

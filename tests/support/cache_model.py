"""A source, a slice cache, and a transport between them that loses, repeats and reorders.

The model keeps all the source ever was, so that each step can be checked: what the cache holds is what
the source had at the version that the cache names.
"""

from __future__ import annotations

from ondemand.codec import RecordError, decode_record, encode_record
from ondemand.messages import Heal
from ondemand.records import Direction, Neighbor, Record, Router, SecurityRule
from ondemand.slice_cache import ENTRY_OVERHEAD_BYTES, Applied, Held, SliceCache, record_tag
from ondemand.slices import Delta, Lookup, Snapshot
from tests.support.slice_store import SliceStore

WHOLE = ("vpc/v1", "sg/g1")
#: Two shards of neighbors.
PARTS = ("nbr/v1/10.0.0.0", "nbr/v1/10.0.1.0")
SLICES = (*WHOLE, *PARTS)
_HOST = b"\xc0\0\x02\x01"
#: Room for four neighbors without groups of the six that there are; groups make them bigger.
MAX_BYTES = 4 * (ENTRY_OVERHEAD_BYTES + 40)


def _ip(name: str, number: int) -> bytes:
    return bytes((10, 0, PARTS.index(name), number))


def _key(name: str, number: int) -> str:
    """One of three keys of a slice."""
    return _record(name, number, 0).key


def _record(name: str, number: int, value: int) -> Record:
    """The record at a key, in one of several versions of it."""
    if name in PARTS:
        mac = bytes((2, 0, 0, 0, 0, value))
        return Neighbor(_ip(name, number), mac, "net", f"p{number}", _HOST, ("g",) * (value % 3))
    if name == WHOLE[1]:
        return SecurityRule(f"r{number}", Direction.INGRESS, 4, 6, value, value)
    return Router(f"r{number}", ("net",) * value)


OPS = (
    "write",
    "write",
    "write badly",
    "remove",
    "take snapshot",
    "fetch",
    "fetch at once",
    "forget history",
    "hold",
    "release",
    "tidy",
    "deliver",
    "deliver",
    "deliver early",
    "deliver early",
    "repeat early",
    "lose",
    "lose early",
)


class Model:
    """The source with all its history, the cache, and what is on its way between them."""

    def __init__(self) -> None:
        self.store = SliceStore()
        self.cache = SliceCache(MAX_BYTES)
        self.flying: list[Delta | Snapshot | Lookup] = []
        #: Records of each slice at each version.
        self.history: dict[str, list[dict[str, Record]]] = {name: [{}] for name in SLICES}

    # -- the source ------------------------------------------------------------------------------

    def write(self, name: str, number: int, payload: bytes | None) -> None:
        key = _key(name, number)
        self.flying.append(self.store.write(name, {key: payload}))
        now = dict(self.history[name][-1])
        now.pop(key, None)
        try:
            if payload is not None:
                now[key] = decode_record(name, key, payload)
        except RecordError:
            pass
        self.history[name].append(now)

    def ask(self, heal: Heal | None) -> None:
        if heal is not None:
            self.flying.append(self.store.heal(heal.slice, heal.since))

    # -- the cache -------------------------------------------------------------------------------

    def held(self, name: str) -> dict[str, Held]:
        """What is held of a shard, without counting as a use."""
        held = {}
        for number in range(3):
            record = self.cache._held.peek(("v1", _ip(name, number)))
            if record is not None:
                held[_key(name, number)] = record
        return held

    def all_held(self) -> dict[str, Held]:
        return {
            record_tag(name, key): held for name in PARTS for key, held in self.held(name).items()
        }

    def deliver(self, event: Delta | Snapshot | Lookup) -> None:
        cache, name = self.cache, event.slice
        version = cache.version(name)
        whole = cache.whole(name)
        before = self.all_held()
        if isinstance(event, Lookup):
            applied, follow = cache.put(event)
            if follow:
                self.flying.append(self.store.heal(name, event.version))
        else:
            applied = cache.apply(event)
        after = self.all_held()
        self.check_order(name, version, before, after)
        self.check_truth()
        assert {tag for tag in before if tag not in after} <= set(applied.forgotten)
        assert not set(applied.forgotten) & set(after)
        self.check_changes(applied, before, after)
        takes_deltas = whole is not None or (name in PARTS and version is not None)
        if isinstance(event, Delta) and takes_deltas and version is not None:
            assert (applied.heal is not None) == (event.since > version), "a gap is reported"
        self.ask(applied.heal)

    def check_order(
        self, name: str, version: int | None, before: dict[str, Held], after: dict[str, Held]
    ) -> None:
        assert (self.cache.version(name) or 0) >= (version or 0)
        for tag in before.keys() & after.keys():
            assert after[tag].as_of >= before[tag].as_of

    def check_truth(self) -> None:
        for name in WHOLE:
            records = self.cache.whole(name)
            if records is not None:
                assert records == self.history[name][self.cache.version(name) or 0]
        for name in PARTS:
            for key, held in self.held(name).items():
                assert held.record == self.history[name][held.as_of].get(key)
        assert self.cache.neighbor_bytes <= MAX_BYTES

    @staticmethod
    def check_changes(applied: Applied, before: dict[str, Held], after: dict[str, Held]) -> None:
        """What is said to have changed is what did."""
        told = {
            record_tag(change.slice, change.key): change
            for change in applied.changes
            if change.slice in PARTS
        }
        for tag, held in after.items():
            if tag in before and before[tag].record != held.record:
                assert (told[tag].old, told[tag].new) == (before[tag].record, held.record)
            elif tag in before:
                assert tag not in told or told[tag].old != told[tag].new

    def run(self, op: str, choice: int) -> None:
        name = SLICES[choice % 4]
        number, value = choice // 4 % 3, choice // 12
        if op == "write":
            self.write(name, number, encode_record(_record(name, number, value)))
        elif op == "write badly":
            self.write(name, number, b"\xc1")
        elif op == "remove":
            self.write(name, number, None)
        elif op == "take snapshot":
            self.flying.append(self.store.snapshot(name))
        elif op == "fetch":
            name = PARTS[choice % 2]
            self.flying.append(self.store.get(name, _key(name, number)))
        elif op == "fetch at once":
            name = PARTS[choice % 2]
            self.deliver(self.store.get(name, _key(name, number)))
        elif op == "forget history":
            self.store.forget_changes(name)
        elif op == "hold":
            self.hold(WHOLE[choice % 2])
        elif op == "release":
            self.cache.release(WHOLE[choice % 2])
        elif op == "tidy":
            for idle in self.cache.idle_parts():
                self.cache.drop_part(idle)
        elif self.flying:
            at = min(value, len(self.flying) - 1) if op.endswith("early") else 0
            if op == "repeat early":
                self.deliver(self.flying[at])
            elif op.startswith("deliver"):
                self.deliver(self.flying.pop(at))
            else:
                self.lose(self.flying.pop(at))

    def lose(self, event: Delta | Snapshot | Lookup) -> None:
        """Who asked for a snapshot asks again when none comes; for a delta nobody asked."""
        if isinstance(event, Snapshot):
            self.flying.append(self.store.snapshot(event.slice))

    def hold(self, name: str) -> None:
        if self.cache.hold(name):
            self.flying.append(self.store.snapshot(name))

    def finish(self) -> None:
        """The source says one more thing of each slice, and all that is on its way arrives."""
        for name in WHOLE:
            self.hold(name)
        for name in SLICES:
            self.write(name, 0, None)
        for _ in range(1000):
            if not self.flying:
                break
            self.deliver(self.flying.pop(0))
        assert not self.flying, "healing ends"
        for name in WHOLE:
            assert self.cache.whole(name) == self.history[name][-1]
        for name in PARTS:
            for key, held in self.held(name).items():
                assert held.record == self.history[name][-1].get(key), (name, key)

"""The model of a slice cache and its source, with a journal of the holdings, kills and restarts."""

from __future__ import annotations

from dataclasses import dataclass, field

from ondemand.codec import RecordError, decode_record
from ondemand.holdings import Holdings, Identity, Write
from ondemand.journal import encode_batch, encode_header, replay
from ondemand.messages import Heal
from ondemand.records import Record
from ondemand.slice_cache import SliceCache
from ondemand.slices import Delta, Lookup, Snapshot
from tests.support.cache_model import MAX_BYTES, OPS, PARTS, SLICES, WHOLE, Model

IDENTITY = Identity("h1", "store-1")
SAVED_OPS = (*OPS, "write down", "write down", "restart", "kill")


@dataclass(slots=True)
class State:
    """What a cache would hold after a restart."""

    whole: dict[str, tuple[int, dict[str, Record]]] = field(default_factory=dict)
    #: By shard: (version to follow it from, as_of and record by key).
    part: dict[str, tuple[int, dict[str, tuple[int, Record | None]]]] = field(default_factory=dict)


class SavedModel(Model):
    """``frames`` is the journal; ``states[n]`` is what must be held after n batches of it."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = SliceCache(MAX_BYTES, saving=True)
        self.frames: list[bytes] = []
        self.states = [State()]
        self.asked: list[Delta | Snapshot] = []
        #: Keys of bad records of each slice at each version.
        self.bad: dict[str, list[frozenset[str]]] = {name: [frozenset()] for name in SLICES}

    @property
    def journal(self) -> bytes:
        return encode_header(IDENTITY) + b"".join(self.frames)

    def write(self, name: str, number: int, payload: bytes | None) -> None:
        super().write(name, number, payload)
        (change,) = self.store.delta(name, self.store.version(name) - 1).changes  # type: ignore[union-attr]
        bad = set(self.bad[name][-1]) - {change.key}
        try:
            if payload is not None:
                decode_record(name, change.key, payload)
        except RecordError:
            bad.add(change.key)
        self.bad[name].append(frozenset(bad))

    def ask(self, heal: Heal | None) -> None:
        super().ask(heal)
        if heal is not None:
            self.asked.append(self.flying[-1])  # type: ignore[arg-type]

    def lose(self, event: Delta | Snapshot | Lookup) -> None:
        """An answer that was asked for is asked for again."""
        if any(event is asked for asked in self.asked):
            self.ask(Heal(event.slice, getattr(event, "since", 0)))
        else:
            super().lose(event)

    def state(self) -> State:
        state = State()
        for name in WHOLE:
            records = self.cache.whole(name)
            version = self.cache.version(name) or 0
            if records is not None and not self.bad[name][version]:
                state.whole[name] = (version, dict(records))
        for name in PARTS:
            part = self.cache._part._parts.get(name)
            if part is not None:
                # With a heal on its way, the older version is the one to follow from.
                version = part.owed[0] if part.owed is not None else part.version
                state.part[name] = (
                    version,
                    {
                        key: (held.as_of, held.record)
                        for key, held in self.held(name).items()
                        if key not in self.bad[name][held.as_of]
                    },
                )
        return state

    def write_down(self) -> None:
        writes: list[Write] = self.cache.take_writes()
        if writes:
            self.frames.append(encode_batch(writes))
            self.states.append(self.state())

    def run(self, op: str, choice: int) -> None:
        if op == "write down":
            self.write_down()
        elif op == "restart":
            self.write_down()
            self.kill()
        elif op == "kill":
            self.kill()
        else:
            super().run(op, choice)

    def kill(self) -> None:
        """End without a word and begin anew from the journal; what is on its way is lost."""
        held = [name for name in WHOLE if self.cache.version(name) is not None]
        self.flying.clear()
        self.asked.clear()
        holdings, end = replay(self.journal, "test")
        assert end == len(self.journal)
        self.cache = restore(holdings, self.states[-1])
        for name, version in self.cache.versions().items():
            self.flying.append(self.store.heal(name, version))
        for name in held:
            self.hold(name)
        self.check_truth()


def restore(holdings: Holdings, expected: State) -> SliceCache:
    """A cache made of holdings, which holds what is expected and goes on saving."""
    cache = SliceCache(MAX_BYTES, saving=True)
    restored, is_complete = cache.restore(holdings)
    spoiled = {name for name, saved in holdings.slices.items() if saved.is_whole} - set(
        expected.whole
    )
    assert is_complete == (not spoiled)
    parts = {name: part for name, part in expected.part.items() if part[1]}
    assert {slice_.slice: (slice_.version, slice_.is_whole) for slice_ in restored} == {
        **{name: (version, True) for name, (version, _) in expected.whole.items()},
        **{name: (version, False) for name, (version, _) in parts.items()},
    }
    for name in WHOLE:
        assert cache.whole(name) == expected.whole.get(name, (0, None))[1]
    found = {}
    for place, held in cache._held.items():
        assert cache._held.peek(place) is held
        slice_name, _, key = held.tag.partition(" ")
        found.setdefault(slice_name, {})[key] = (held.as_of, held.record)
    assert found == {name: records for name, (_, records) in parts.items()}
    assert cache.versions() == {slice_.slice: slice_.version for slice_ in restored}
    return cache

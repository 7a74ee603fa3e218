"""What the slice cache has written down, and how it begins anew from that, case by case."""

from __future__ import annotations

import pytest

from ondemand.addresses import parse_ip
from ondemand.codec import encode_record
from ondemand.holdings import (
    Holdings,
    Identity,
    PartHeld,
    RecordDropped,
    RecordHeld,
    SavedSlice,
    SliceDropped,
    SourceChanged,
    VersionMoved,
    WholeHeld,
)
from ondemand.records import Group, Neighbor
from ondemand.slice_cache import ENTRY_OVERHEAD_BYTES, Restoration, Restored, SliceCache
from ondemand.slices import Change, Delta, Lookup, Snapshot

SG, SHARD = "sg/web", "nbr/v1/10.0.0.0"
IDENTITY = Identity("h1", "s1")
WEB = encode_record(Group("web"))
BIG = 1 << 20


def _payload(number: int, *groups: str) -> bytes:
    return encode_record(_neighbor(number, *groups))


def _neighbor(number: int, *groups: str) -> Neighbor:
    mac = bytes((2, 0, 0, 0, 0, number))
    return Neighbor(bytes((10, 0, 0, number)), mac, "net", f"p{number}", bytes(4), groups)


def _ip(number: int) -> str:
    return f"ip/10.0.0.{number}"


def _lookup(number: int, version: int) -> Lookup:
    return Lookup(SHARD, _ip(number), version, _payload(number))


def _held() -> SliceCache:
    """A group at version 4; of a shard neighbor 1 and the absence of neighbor 2."""
    cache = SliceCache(BIG, saving=True)
    cache.hold(SG)
    cache.apply(Snapshot(SG, 4, {"group": WEB}))
    cache.put(_lookup(1, 7), 5)
    cache.put(Lookup(SHARD, _ip(2), 7, None), 5)
    return cache


def _saved(cache: SliceCache) -> Holdings:
    holdings = Holdings(IDENTITY)
    holdings.apply(cache.take_writes())
    return holdings


def _restored(holdings: Holdings, *, max_bytes: int = BIG, is_complete: bool = True) -> SliceCache:
    cache = SliceCache(max_bytes, saving=True)
    assert cache.restore(holdings).is_complete == is_complete
    return cache


def test_nothing_is_collected_unless_asked_for() -> None:
    cache = SliceCache(BIG)
    cache.hold(SG)
    cache.apply(Snapshot(SG, 4, {"group": WEB}))
    cache.put(_lookup(1, 7))
    cache.distrust("s2")
    cache.drop_part(SHARD)
    assert cache.take_writes() == []


def test_what_is_held_is_written_and_taken_once() -> None:
    cache = _held()
    assert cache.take_writes() == [
        WholeHeld(SG, 4, {"group": WEB}),
        PartHeld(SHARD, 7),
        RecordHeld(SHARD, _ip(1), 7, _payload(1)),
        RecordHeld(SHARD, _ip(2), 7, None),
    ]
    assert cache.take_writes() == []


def test_changes_are_written_with_the_version_that_they_lead_to() -> None:
    cache = _held()
    cache.take_writes()
    changes = (Change(5, 4, "group", None), Change(6, 5, "junk", b"\xc1"))
    cache.apply(Delta(SG, 4, 6, changes))
    cache.apply(Delta(SHARD, 7, 8, (Change(8, 7, _ip(2), _payload(2)),)))
    cache.apply(Delta(SHARD, 8, 9, (Change(9, 8, _ip(3), _payload(3)),)))
    assert cache.take_writes() == [
        RecordHeld(SG, "group", 5, None),
        RecordHeld(SG, "junk", 6, b"\xc1"),
        VersionMoved(SG, 6),
        RecordHeld(SHARD, _ip(2), 8, _payload(2)),
        VersionMoved(SHARD, 8),
        VersionMoved(SHARD, 9),
    ]
    cache.apply(Delta(SG, 6, 6, ()))
    cache.apply(Delta(SHARD, 11, 12, (Change(12, 11, _ip(1), None),)))
    assert cache.take_writes() == [], "a repetition and a gap move nothing"


def test_what_leaves_is_written() -> None:
    cache = _held()
    cache.take_writes()
    cache.release(SG)
    cache.drop_part(SHARD)
    cache.release("sg/other")
    cache.drop_part("nbr/v1/10.0.9.0")
    assert cache.take_writes() == [SliceDropped(SG), SliceDropped(SHARD)]


def test_a_slice_that_never_came_is_not_written() -> None:
    cache = SliceCache(BIG, saving=True)
    cache.hold(SG)
    cache.release(SG)
    assert cache.take_writes() == []


def test_an_eviction_is_written() -> None:
    cache = SliceCache(ENTRY_OVERHEAD_BYTES + 100, saving=True)
    cache.put(_lookup(1, 7))
    cache.take_writes()
    cache.put(_lookup(2, 7))
    assert cache.take_writes() == [
        RecordHeld(SHARD, _ip(2), 7, _payload(2)),
        RecordDropped(SHARD, _ip(1)),
    ]


def test_a_bad_neighbor_is_asked_for_again() -> None:
    cache = _held()
    cache.take_writes()
    cache.put(Lookup(SHARD, _ip(1), 8, b"\xc1"))
    assert cache.take_writes() == [RecordDropped(SHARD, _ip(1))]


def test_nothing_is_collected_once_saving_ends() -> None:
    cache = _held()
    cache.stop_saving()
    cache.put(_lookup(3, 7))
    cache.apply(Delta(SG, 4, 5, (Change(5, 4, "group", None),)))
    cache.apply(Snapshot(SG, 6, {"group": WEB}))
    cache.drop_part(SHARD)
    cache.release(SG)
    assert cache.take_writes() == []


# -- beginning anew ----------------------------------------------------------------------------------


def test_everything_answers_as_before() -> None:
    holdings = _saved(_held())
    cache = SliceCache(BIG, saving=True)
    slices = [Restored(SG, 4, True), Restored(SHARD, 7, False)]
    assert cache.restore(holdings) == Restoration(slices, is_complete=True)
    assert cache.whole(SG) == {"group": Group("web")}
    one, two = (cache.neighbor("v1", parse_ip(f"10.0.0.{number}")) for number in (1, 2))
    assert one is not None
    assert two is not None
    assert (one.record, one.as_of) == (_neighbor(1), 7)
    assert (two.record, two.as_of) == (None, 7)
    assert cache.versions() == {SG: 4, SHARD: 7}
    assert not cache.hold(SG)
    assert cache.neighbor_bytes_by_owner() == {0: cache.neighbor_bytes}
    assert cache.neighbor_bytes == _held().neighbor_bytes
    assert cache.take_writes() == [], "the file says so already"
    _, fresh = cache.put(_lookup(3, 7), 5)
    assert not fresh
    applied = cache.apply(Delta(SG, 4, 5, (Change(5, 4, "group", None),)))
    assert len(applied.changes) == 1
    assert [type(write) for write in cache.take_writes()] == [RecordHeld, RecordHeld, VersionMoved]


def test_a_slice_in_which_a_record_is_bad_comes_anew() -> None:
    cache = _held()
    cache.apply(Delta(SG, 4, 5, (Change(5, 4, "rule/x", b"\xc1"),)))
    holdings = _saved(cache)
    cache = SliceCache(BIG, saving=True)
    slices, is_complete = cache.restore(holdings)
    assert ([restored.slice for restored in slices], is_complete) == ([SHARD], False)
    assert (cache.whole(SG), cache.bad_records) == (None, 1)
    assert cache.hold(SG)
    assert cache.take_writes() == [SliceDropped(SG)]


def test_a_bad_record_that_was_mended_is_no_hindrance() -> None:
    cache = _held()
    cache.apply(Delta(SG, 4, 5, (Change(5, 4, "rule/x", b"\xc1"),)))
    cache.apply(Delta(SG, 5, 6, (Change(6, 5, "rule/x", None),)))
    assert _restored(_saved(cache)).whole(SG) == {"group": Group("web")}


@pytest.mark.parametrize("key", [_ip(3), "ip/nonsense", "what", "mac/net/02:00:00:00:00"])
@pytest.mark.parametrize("payload", [b"\xc1", None])
def test_a_bad_record_held_in_part_counts_as_not_held(key: str, payload: bytes | None) -> None:
    holdings = _saved(_held())
    holdings.slices[SHARD].records[key] = (7, payload)
    good = key == _ip(3) and payload is None
    cache = _restored(holdings, is_complete=good)
    assert cache.neighbors_held == 2 + good
    assert cache.take_writes() == ([] if good else [RecordDropped(SHARD, key)])
    assert cache.bad_records == (not good)


@pytest.mark.parametrize(
    ("name", "is_whole"), [(SG, False), ("nonsense", False), ("nonsense", True), ("nbr/v1", False)]
)
def test_a_slice_that_cannot_be_held_so_is_dropped(name: str, is_whole: bool) -> None:
    holdings = Holdings(IDENTITY, {name: SavedSlice(is_whole, 3, {"k": (3, WEB)})})
    cache = _restored(holdings, is_complete=False)
    assert cache.versions() == {}
    assert cache.take_writes() == [SliceDropped(name)]


def test_what_there_is_no_room_for_is_dropped() -> None:
    cache = SliceCache(BIG, saving=True)
    for number in range(1, 6):
        cache.put(_lookup(number, 7))
    cache.put(Lookup("nbr/v1/10.0.1.0", "ip/10.0.1.1", 3, None))
    holdings = _saved(cache)
    cache = _restored(holdings, max_bytes=ENTRY_OVERHEAD_BYTES * 2, is_complete=False)
    assert cache.neighbors_held == 2 - 1, "one with a payload does not fit beside another"
    assert cache.versions() == {"nbr/v1/10.0.1.0": 3}
    holdings.apply(cache.take_writes())
    assert set(holdings.slices) == {"nbr/v1/10.0.1.0"}


def test_holdings_are_for_an_empty_cache() -> None:
    cache = _held()
    with pytest.raises(ValueError, match="holds slices already"):
        cache.restore(Holdings(IDENTITY))


# -- a heal on its way -------------------------------------------------------------------------------


def _overtaken() -> SliceCache:
    """Neighbor 3 was read at version 6, and the shard is at 9: a heal since 6 is on its way."""
    cache = _held()
    cache.apply(Delta(SHARD, 7, 9, ()))
    applied, _ = cache.put(_lookup(3, 6))
    assert applied.heal is not None
    return cache


def _follows_from(cache: SliceCache) -> int:
    return _saved(cache).slices[SHARD].version


def test_what_a_heal_was_to_bring_is_asked_for_after_a_restart() -> None:
    cache = _overtaken()
    assert cache.version(SHARD) == 9
    assert _follows_from(cache) == 6


@pytest.mark.parametrize(
    ("since", "version", "expected"),
    [(6, 9, 9), (5, 10, 10), (6, 8, 6), (7, 9, 6), (9, 10, 6), (9, 9, 6)],
)
def test_only_all_of_it_will_do(since: int, version: int, expected: int) -> None:
    cache = _overtaken()
    changes = (Change(version, since, _ip(9), None),) if version > since else ()
    cache.apply(Delta(SHARD, since, version, changes))
    assert _follows_from(cache) == expected


def test_a_second_one_counts_with_the_first() -> None:
    cache = _overtaken()
    cache.apply(Delta(SHARD, 9, 10, ()))
    cache.put(_lookup(4, 8))
    cache.apply(Delta(SHARD, 8, 10, ()))
    assert _follows_from(_overtaken()) == 6
    cache.apply(Delta(SHARD, 6, 9, ()))
    assert _follows_from(cache) == 6


@pytest.mark.parametrize(("version", "expected"), [(8, 6), (9, 9), (11, 11)])
def test_a_snapshot_brings_it_too(version: int, expected: int) -> None:
    cache = _overtaken()
    cache.apply(Snapshot(SHARD, version, {}))
    assert _follows_from(cache) == expected


# -- another store -----------------------------------------------------------------------------------


def test_holdings_of_another_store_are_forgotten_until_they_come_anew() -> None:
    cache = _held()
    cache.hold("sg/db")
    cache.apply(Snapshot("sg/db", 4, {}))
    holdings = _saved(cache)
    cache.apply(Snapshot(SG, 2, {}, "s2"))
    cache.apply(Delta("sg/db", 4, 5, (Change(5, 4, "group", WEB),)))
    cache.put(_lookup(4, 2))
    writes = cache.take_writes()
    assert writes == [SourceChanged("s2"), WholeHeld(SG, 2, {})]
    holdings.apply(writes)
    assert holdings.identity == Identity("h1", "s2")
    assert set(holdings.slices) == {SG}
    cache.apply(Snapshot(SHARD, 3, {_ip(1): _payload(1, "g")}, "s2"))
    cache.apply(Snapshot("sg/db", 1, {}, "s2"))
    assert cache.take_writes() == [
        PartHeld(SHARD, 3),
        RecordHeld(SHARD, _ip(1), 3, _payload(1, "g")),
        RecordHeld(SHARD, _ip(2), 3, None),
        RecordHeld(SHARD, _ip(4), 3, None),
        WholeHeld("sg/db", 1, {}),
    ]


def test_a_store_that_changes_twice() -> None:
    cache = _held()
    holdings = _saved(cache)
    cache.apply(Snapshot(SG, 2, {}, "s2"))
    cache.apply(Snapshot(SG, 1, {}, "s3"))
    cache.apply(Snapshot(SHARD, 1, {}, "s3"))
    holdings.apply(cache.take_writes())
    assert holdings.identity.source == "s3"
    assert set(holdings.slices) == {SG, SHARD}


def test_a_store_that_changes_before_all_came_anew() -> None:
    cache = _held()
    holdings = _saved(cache)
    cache.apply(Snapshot(SG, 2, {}, "s2"))
    cache.apply(Snapshot(SHARD, 1, {}, "s3"))
    holdings.apply(cache.take_writes())
    assert (holdings.identity.source, set(holdings.slices)) == ("s3", {SHARD})


def test_a_heal_of_the_other_store_is_not_owed() -> None:
    cache = _overtaken()
    cache.apply(Snapshot(SHARD, 3, {}, "s2"))
    assert _follows_from(cache) == 3

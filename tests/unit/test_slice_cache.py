"""The slice cache, case by case; the property test has the sequences."""

from __future__ import annotations

import pytest

from ondemand.addresses import parse_ip, parse_mac
from ondemand.codec import encode_record
from ondemand.messages import Heal
from ondemand.records import Group, MacPointer, Neighbor, Record
from ondemand.slice_cache import (
    ENTRY_OVERHEAD_BYTES,
    RecordChange,
    SliceCache,
    mac_place,
    neighbor_place,
    record_tag,
)
from ondemand.slices import Change, Delta, Lookup, Snapshot
from tests.support.slice_store import SliceStore
from tests.support.world_builder import allow

SG = "sg/web"
SHARD = "nbr/v1/10.0.0.0"
GROUP = Group("web")
SSH = allow("ingress", "tcp", 22, rule_id="ssh")
HTTP = allow("ingress", "tcp", 80, rule_id="http")


def _neighbor(number: int, *groups: str) -> Neighbor:
    return Neighbor(
        ip=bytes((10, 0, 0, number)),
        mac=bytes((2, 0, 0, 0, 0, number)),
        subnet="net",
        port=f"p{number}",
        host=parse_ip("192.0.2.1"),
        groups=groups,
    )


def _cache(entries: int = 100) -> SliceCache:
    size = ENTRY_OVERHEAD_BYTES + len(encode_record(_neighbor(1)))
    return SliceCache(entries * size)


def _lookup(version: int, record: Record | None, key: str = "", name: str = SHARD) -> Lookup:
    payload = None if record is None else encode_record(record)
    return Lookup(name, record.key if record is not None else key, version, payload)


def _snapshot(version: int, *records: Record, name: str = SG) -> Snapshot:
    return Snapshot(name, version, {record.key: encode_record(record) for record in records})


def _delta(since: int, *records: Record | str, name: str = SG) -> Delta:
    """One change after another; text is the key of a record that is removed."""
    changes = tuple(
        Change(since + number + 1, since + number, record, None)
        if isinstance(record, str)
        else Change(since + number + 1, since + number, record.key, encode_record(record))
        for number, record in enumerate(records)
    )
    return Delta(name, since, since + len(records), changes)


def _loaded() -> SliceCache:
    cache = _cache()
    cache.hold(SG)
    cache.apply(_snapshot(4, GROUP, SSH))
    return cache


# -- slices held whole -------------------------------------------------------------------------------


def test_a_whole_slice_is_there_when_its_snapshot_came() -> None:
    cache = _cache()
    assert cache.hold(SG)
    assert not cache.hold(SG), "it is held already"
    assert cache.whole(SG) is None
    assert cache.version(SG) == 0
    applied = cache.apply(_snapshot(4, GROUP, SSH))
    assert cache.whole(SG) == {"group": GROUP, "rule/ssh": SSH}
    assert cache.version(SG) == 4
    assert applied.changes == [
        RecordChange(SG, "group", None, GROUP),
        RecordChange(SG, "rule/ssh", None, SSH),
    ]


def test_an_empty_slice_is_there_too() -> None:
    cache = _cache()
    cache.hold(SG)
    assert cache.apply(_snapshot(0)).changes == []
    assert cache.whole(SG) == {}


def test_a_slice_not_held_is_ignored() -> None:
    cache = _cache()
    assert cache.apply(_snapshot(4, GROUP)).changes == []
    assert cache.apply(_delta(4, HTTP)).heal is None
    assert cache.whole(SG) is None
    assert cache.version(SG) is None
    assert cache.versions() == {}


def test_a_released_slice_is_gone() -> None:
    cache = _loaded()
    cache.release(SG)
    cache.release(SG)
    assert cache.whole(SG) is None
    assert cache.hold(SG)
    assert cache.whole(SG) is None


def test_a_delta_before_the_snapshot_changes_nothing() -> None:
    cache = _cache()
    cache.hold(SG)
    applied = cache.apply(_delta(4, HTTP))
    assert (applied.changes, applied.heal) == ([], None)
    assert cache.version(SG) == 0


def test_a_delta_adds_changes_and_removes() -> None:
    cache = _loaded()
    narrower = allow("ingress", "tcp", 22, prefix="10.0.0.0/8", rule_id="ssh")
    applied = cache.apply(_delta(4, HTTP, narrower, "group", "rule/none"))
    assert applied.changes == [
        RecordChange(SG, "rule/http", None, HTTP),
        RecordChange(SG, "rule/ssh", SSH, narrower),
        RecordChange(SG, "group", GROUP, None),
    ]
    assert cache.whole(SG) == {"rule/ssh": narrower, "rule/http": HTTP}
    assert cache.version(SG) == 8


def test_a_delta_that_is_known_in_part_brings_only_what_is_new() -> None:
    cache = _loaded()
    cache.apply(_delta(4, HTTP))
    applied = cache.apply(_delta(4, HTTP, "rule/ssh"))
    assert applied.changes == [RecordChange(SG, "rule/ssh", SSH, None)]
    assert cache.version(SG) == 6


def test_an_older_delta_changes_nothing() -> None:
    cache = _loaded()
    applied = cache.apply(_delta(1, "rule/ssh", "group"))
    assert (applied.changes, applied.heal) == ([], None)
    assert cache.version(SG) == 4


@pytest.mark.parametrize(
    "delta",
    [
        _delta(5, HTTP),
        Delta(SG, 5, 7, ()),
        Delta(SG, 9, 9, ()),
    ],
)
def test_a_gap_is_reported_and_never_guessed_over(delta: Delta) -> None:
    cache = _loaded()
    applied = cache.apply(delta)
    assert applied.heal == Heal(SG, 4)
    assert cache.version(SG) == 4
    assert cache.whole(SG) == {"group": GROUP, "rule/ssh": SSH}


def test_a_gap_inside_a_delta_is_reported_and_what_came_before_it_is_kept() -> None:
    cache = _loaded()
    changes = (*_delta(4, HTTP).changes, *_delta(7, "group").changes)
    applied = cache.apply(Delta(SG, 4, 8, changes))
    assert applied.changes == [RecordChange(SG, "rule/http", None, HTTP)]
    assert applied.heal == Heal(SG, 5)


def test_a_heal_mends_the_gap() -> None:
    store = SliceStore()
    store.put(SG, GROUP)
    cache = _cache()
    cache.hold(SG)
    cache.apply(store.snapshot(SG))
    store.put(SG, SSH)
    heal = cache.apply(store.put(SG, HTTP)).heal
    assert heal is not None
    cache.apply(store.heal(heal.slice, heal.since))
    assert set(cache.whole(SG) or ()) == {"group", "rule/ssh", "rule/http"}
    assert cache.version(SG) == store.version(SG)


def test_an_empty_delta_moves_the_version() -> None:
    cache = _loaded()
    assert cache.apply(Delta(SG, 4, 6, ())).changes == []
    assert cache.version(SG) == 6


def test_an_older_snapshot_is_ignored_and_a_newer_one_says_what_differs() -> None:
    cache = _loaded()
    assert cache.apply(_snapshot(3, GROUP, HTTP)).changes == []
    assert cache.version(SG) == 4
    applied = cache.apply(_snapshot(6, GROUP, HTTP))
    assert applied.changes == [
        RecordChange(SG, "rule/http", None, HTTP),
        RecordChange(SG, "rule/ssh", SSH, None),
    ]
    assert cache.apply(_snapshot(6, GROUP, HTTP)).changes == []


def test_a_bad_record_counts_as_missing_and_is_reported() -> None:
    cache = _loaded()
    bad = Change(5, 4, "rule/ssh", b"\xc1")
    applied = cache.apply(Delta(SG, 4, 5, (bad,)))
    assert applied.changes == [RecordChange(SG, "rule/ssh", SSH, None)]
    assert [(error.slice_name, error.key) for error in applied.errors] == [(SG, "rule/ssh")]
    assert cache.bad_records == 1
    assert cache.version(SG) == 5
    applied = cache.apply(Snapshot(SG, 6, {"group": b"junk", "rule/ssh": encode_record(SSH)}))
    assert cache.whole(SG) == {"rule/ssh": SSH}
    assert (len(applied.errors), cache.bad_records) == (1, 2)


# -- slices held in part -----------------------------------------------------------------------------


def test_what_was_never_asked_for_is_not_known() -> None:
    cache = _cache()
    assert cache.neighbor("v1", parse_ip("10.0.0.1")) is None
    assert cache.mac_pointer("v1", "net", parse_mac("02:00:00:00:00:01")) is None


def test_a_neighbor_and_its_absence_are_held() -> None:
    cache = _cache()
    applied, fresh = cache.put(_lookup(3, _neighbor(1)))
    assert fresh, "the slice must be followed now"
    assert applied.changes == [], "nothing can have been decided without it"
    _, fresh = cache.put(_lookup(3, None, "ip/10.0.0.2"))
    assert not fresh
    one = cache.neighbor("v1", parse_ip("10.0.0.1"))
    two = cache.neighbor("v1", parse_ip("10.0.0.2"))
    assert one is not None
    assert two is not None
    assert (one.record, one.as_of) == (_neighbor(1), 3)
    assert (two.record, two.tag) == (None, record_tag(SHARD, "ip/10.0.0.2"))
    assert cache.neighbors_held == 2
    assert cache.neighbor("v2", parse_ip("10.0.0.1")) is None, "another tenant's is another one"
    assert cache.versions() == {SHARD: 3}


def test_a_mac_pointer_is_held() -> None:
    pointer = MacPointer(parse_mac("02:00:00:00:00:01"), "net", "p1", parse_ip("192.0.2.1"))
    name, key = mac_place("v1", "net", pointer.mac)
    cache = _cache()
    cache.put(_lookup(1, pointer, name=name))
    held = cache.mac_pointer("v1", "net", pointer.mac)
    assert held is not None
    assert (held.record, held.tag) == (pointer, record_tag(name, key))
    assert cache.mac_pointer("v1", "other", pointer.mac) is None


def test_places_of_neighbors() -> None:
    assert neighbor_place("v1", parse_ip("10.0.0.7")) == (SHARD, "ip/10.0.0.7")


def test_changes_reach_what_is_held_and_nothing_else() -> None:
    cache = _cache()
    cache.put(_lookup(3, _neighbor(1)))
    cache.put(_lookup(3, None, "ip/10.0.0.2"))
    applied = cache.apply(_delta(3, _neighbor(1, "web"), _neighbor(2), _neighbor(3), name=SHARD))
    assert applied.changes == [
        RecordChange(SHARD, "ip/10.0.0.1", _neighbor(1), _neighbor(1, "web")),
        RecordChange(SHARD, "ip/10.0.0.2", None, _neighbor(2)),
    ]
    assert cache.neighbor("v1", parse_ip("10.0.0.3")) is None
    assert cache.version(SHARD) == 6
    assert cache.apply(_delta(6, _neighbor(2), name=SHARD)).changes == [], "nothing changed"


def test_a_gap_in_a_shard_is_reported() -> None:
    cache = _cache()
    cache.put(_lookup(3, _neighbor(1)))
    applied = cache.apply(_delta(5, _neighbor(1, "web"), name=SHARD))
    assert (applied.heal, applied.changes) == (Heal(SHARD, 3), [])
    assert cache.apply(Delta(SHARD, 5, 5, ())).heal == Heal(SHARD, 3)


def test_an_older_answer_does_not_overwrite() -> None:
    cache = _cache()
    cache.put(_lookup(3, _neighbor(1)))
    cache.apply(_delta(3, _neighbor(1, "web"), name=SHARD))
    applied, _ = cache.put(_lookup(3, _neighbor(1)))
    assert (applied.changes, applied.heal) == ([], None)
    held = cache.neighbor("v1", parse_ip("10.0.0.1"))
    assert held is not None
    assert held.record == _neighbor(1, "web")


def test_a_newer_answer_overwrites_and_an_older_delta_does_not() -> None:
    cache = _cache()
    cache.put(_lookup(3, _neighbor(1)))
    cache.put(_lookup(5, _neighbor(1, "web")))
    applied = cache.apply(_delta(3, _neighbor(1, "old"), name=SHARD))
    assert applied.changes == []
    assert cache.version(SHARD) == 4, "version 5 was seen of one record only"
    held = cache.neighbor("v1", parse_ip("10.0.0.1"))
    assert held is not None
    assert (held.record, held.as_of) == (_neighbor(1, "web"), 5)


@pytest.mark.parametrize("history", ["kept", "forgotten"])
def test_an_answer_that_changes_overtook_is_mended(history: str) -> None:
    """Asked at version 2, changed at 3, when nobody held it, and answered after that."""
    store, cache = SliceStore(), _cache()
    store.put(SHARD, _neighbor(1))
    cache.put(store.get(SHARD, "ip/10.0.0.1"))
    store.put(SHARD, _neighbor(2, "web"))
    late = store.get(SHARD, "ip/10.0.0.2")
    cache.apply(store.delta(SHARD, 1))  # type: ignore[arg-type]
    cache.apply(store.put(SHARD, _neighbor(2)))
    applied, _ = cache.put(late)
    assert applied.heal == Heal(SHARD, 2)
    if history == "forgotten":
        store.forget_changes(SHARD)
    applied = cache.apply(store.heal(SHARD, 2))
    assert applied.changes == [
        RecordChange(SHARD, "ip/10.0.0.2", _neighbor(2, "web"), _neighbor(2))
    ]


def test_a_snapshot_of_a_shard_settles_what_is_held() -> None:
    cache = _cache()
    cache.put(_lookup(3, _neighbor(1)))
    cache.put(_lookup(3, _neighbor(2)))
    applied = cache.apply(_snapshot(9, _neighbor(2, "web"), _neighbor(3), name=SHARD))
    assert applied.changes == [
        RecordChange(SHARD, "ip/10.0.0.1", _neighbor(1), None),
        RecordChange(SHARD, "ip/10.0.0.2", _neighbor(2), _neighbor(2, "web")),
    ]
    assert cache.version(SHARD) == 9
    assert cache.apply(_snapshot(8, _neighbor(1), name=SHARD)).changes == []
    assert cache.version(SHARD) == 9


def test_a_bad_neighbor_counts_as_absent() -> None:
    cache = _cache()
    applied, _ = cache.put(Lookup(SHARD, "ip/10.0.0.1", 1, b"\xc1" * 5000))
    assert [error.key for error in applied.errors] == ["ip/10.0.0.1"]
    held = cache.neighbor("v1", parse_ip("10.0.0.1"))
    assert held is not None
    assert (held.record, cache.bad_records) == (None, 1)
    assert cache.neighbor_bytes == ENTRY_OVERHEAD_BYTES, "what was bad is not kept"


# -- the bound ---------------------------------------------------------------------------------------


def test_the_least_recently_used_leaves_and_is_named() -> None:
    cache = _cache(entries=2)
    cache.put(_lookup(1, _neighbor(1)))
    cache.put(_lookup(1, _neighbor(2)))
    cache.neighbor("v1", parse_ip("10.0.0.1"))
    applied, _ = cache.put(_lookup(1, _neighbor(3)))
    assert applied.forgotten == [record_tag(SHARD, "ip/10.0.0.2")]
    assert cache.neighbor("v1", parse_ip("10.0.0.2")) is None
    assert cache.neighbors_held == 2
    applied = cache.apply(_delta(1, _neighbor(2, "web"), name=SHARD))
    assert applied.changes == [], "nobody holds it any more"


def test_the_groups_of_a_member_that_left_are_named() -> None:
    """Nobody will tell when it leaves them, and live connections hang on that."""
    cache = _cache(entries=1)
    cache.put(_lookup(1, _neighbor(1)))
    assert cache.put(_lookup(1, None, "ip/10.0.0.9"))[0].forgotten_groups == {}
    cache = SliceCache(ENTRY_OVERHEAD_BYTES + len(encode_record(_neighbor(1, "web", "db"))))
    cache.put(_lookup(1, _neighbor(1, "web", "db")))
    applied, _ = cache.put(_lookup(1, None, "ip/10.0.0.9"))
    assert applied.forgotten_groups == {"v1": {"web", "db"}}
    assert cache.put(_lookup(1, _neighbor(2)))[0].forgotten_groups == {}, "an absence has none"


def test_a_record_that_grows_may_push_others_out() -> None:
    cache = _cache(entries=2)
    cache.put(_lookup(1, _neighbor(1)))
    cache.put(_lookup(1, _neighbor(2)))
    applied = cache.apply(
        _delta(1, _neighbor(2, "a-group", "another-group"), _neighbor(1, "web"), name=SHARD)
    )
    assert applied.forgotten == [record_tag(SHARD, "ip/10.0.0.1")]
    assert [change.key for change in applied.changes] == ["ip/10.0.0.2"]
    assert cache.idle_parts() == []


def test_a_snapshot_does_not_bring_back_what_it_pushed_out() -> None:
    cache = _cache(entries=2)
    cache.put(_lookup(1, _neighbor(1)))
    cache.put(_lookup(1, _neighbor(2)))
    groups = ("a-group", "another-group")
    applied = cache.apply(_snapshot(2, _neighbor(1, *groups), _neighbor(2, *groups), name=SHARD))
    assert applied.forgotten == [record_tag(SHARD, "ip/10.0.0.2")]
    assert [change.key for change in applied.changes] == ["ip/10.0.0.1"]


def test_a_record_that_makes_room_for_its_own_new_version_is_still_followed() -> None:
    cache = _cache(entries=2)
    groups = tuple(f"group-{number:02}" for number in range(60))
    cache.put(_lookup(1, _neighbor(1, *groups)))
    applied = cache.apply(_delta(1, _neighbor(1, *groups, "more"), name=SHARD))
    assert applied.forgotten == []
    applied = cache.apply(_delta(2, _neighbor(1), name=SHARD))
    assert [change.new for change in applied.changes] == [_neighbor(1)]


def test_a_record_bigger_than_the_cache_counts_as_bad() -> None:
    cache = _cache(entries=2)
    groups = tuple(f"group-{number:03}" for number in range(200))
    applied, _ = cache.put(_lookup(1, _neighbor(1, *groups)))
    held = cache.neighbor("v1", parse_ip("10.0.0.1"))
    assert held is not None
    assert held.record is None
    assert "bytes are more than the neighbor cache holds" in str(applied.errors[0])
    assert cache.bad_records == 1


def test_a_shard_of_which_nothing_is_held_can_be_dropped() -> None:
    cache = _cache(entries=1)
    cache.put(_lookup(1, _neighbor(1)))
    assert cache.idle_parts() == []
    other = Lookup("nbr/v1/10.0.1.0", "ip/10.0.1.1", 1, None)
    cache.put(other)
    assert cache.idle_parts() == [SHARD]
    assert cache.is_idle(SHARD)
    assert not cache.is_idle(other.slice), "one record of it is held"
    assert not cache.is_idle("nbr/v1/10.9.9.0"), "it is not followed"
    cache.drop_part(SHARD)
    cache.drop_part(SHARD)
    assert cache.idle_parts() == []
    assert cache.version(SHARD) is None
    cache.drop_part("nbr/v1/10.0.1.0")
    assert (cache.neighbors_held, cache.neighbor_bytes) == (0, 0)
    _, fresh = cache.put(other)
    assert fresh


# -- accounts ----------------------------------------------------------------------------------------


def test_a_port_that_scans_loses_its_own_records() -> None:
    cache = _cache(entries=6)
    cache.put(_lookup(1, _neighbor(1)), 7)
    cache.put(_lookup(1, _neighbor(2)), 7)
    forgotten = []
    for number in range(100, 150):
        forgotten += cache.put(_lookup(1, None, f"ip/10.0.0.{number}"), 8)[0].forgotten
    assert cache.neighbor("v1", parse_ip("10.0.0.1")) is not None
    assert cache.neighbor("v1", parse_ip("10.0.0.2")) is not None
    assert forgotten == [record_tag(SHARD, f"ip/10.0.0.{number}") for number in range(100, 146)]
    assert set(cache.neighbor_bytes_by_owner()) == {7, 8}


def test_a_change_leaves_a_record_on_its_account() -> None:
    cache = _cache()
    cache.put(_lookup(1, _neighbor(1)), 7)
    cache.put(_lookup(2, _neighbor(1, "web")), 8)
    cache.apply(_delta(1, _neighbor(1), _neighbor(1, "db"), name=SHARD))
    assert cache.neighbor_bytes_by_owner() == {7: cache.neighbor_bytes}


def test_the_records_of_a_port_that_has_gone_leave_first() -> None:
    cache = _cache(entries=3)
    cache.put(_lookup(1, _neighbor(1)), 7)
    cache.put(_lookup(1, _neighbor(2)), 8)
    cache.put(_lookup(1, _neighbor(3)), 8)
    cache.release_owner(7)
    assert cache.neighbor("v1", parse_ip("10.0.0.1")) is not None, "it is held as before"
    applied, _ = cache.put(_lookup(1, _neighbor(4)), 8)
    assert applied.forgotten == [record_tag(SHARD, "ip/10.0.0.1")]
    assert set(cache.neighbor_bytes_by_owner()) == {8}


# -- another store -----------------------------------------------------------------------------------


def test_the_snapshot_of_another_store_counts_whatever_its_version() -> None:
    cache = _loaded()
    cache.hold("sg/db")
    cache.apply(_snapshot(9, SSH, name="sg/db"))
    cache.put(_lookup(8, _neighbor(1)))
    cache.put(_lookup(8, _neighbor(2)))
    applied = cache.apply(Snapshot(SG, 2, {"rule/http": encode_record(HTTP)}, "new"))
    assert [change.key for change in applied.changes] == ["group", "rule/http", "rule/ssh"]
    assert (cache.version(SG), cache.whole(SG)) == (2, {"rule/http": HTTP})
    payloads = {"ip/10.0.0.2": encode_record(_neighbor(2, "web"))}
    applied = cache.apply(Snapshot(SHARD, 3, payloads, "new"))
    assert applied.changes == [
        RecordChange(SHARD, "ip/10.0.0.1", _neighbor(1), None),
        RecordChange(SHARD, "ip/10.0.0.2", _neighbor(2), _neighbor(2, "web")),
    ]
    assert cache.version(SHARD) == 3
    applied = cache.apply(_delta(3, _neighbor(1), name=SHARD))
    assert applied.changes == [RecordChange(SHARD, "ip/10.0.0.1", None, _neighbor(1))]
    assert cache.apply(_snapshot(1, name=SG)).changes == [], "it is trusted again"
    cache.apply(_snapshot(1, name="sg/db"))
    assert cache.whole("sg/db") == {}, "of a slice that was not renewed yet any snapshot is"


def test_a_record_read_before_the_snapshot_of_another_store_is_mended_by_the_delta() -> None:
    cache = _cache()
    cache.put(_lookup(8, _neighbor(1)))
    cache.put(_lookup(4, _neighbor(2)))
    cache.apply(Snapshot(SHARD, 3, {}, "new"))
    assert cache.neighbor("v1", parse_ip("10.0.0.2")).record is None  # type: ignore[union-attr]
    cache.apply(_delta(3, _neighbor(2), name=SHARD))
    assert cache.neighbor("v1", parse_ip("10.0.0.2")).record == _neighbor(2)  # type: ignore[union-attr]


def test_distrust_lets_the_next_snapshot_count() -> None:
    cache = _loaded()
    cache.distrust("new")
    assert cache.whole(SG) == {"group": GROUP, "rule/ssh": SSH}, "until it comes all stays"
    cache.apply(_snapshot(1, GROUP))
    assert (cache.whole(SG), cache.version(SG)) == ({"group": GROUP}, 1)

"""What the contract of sources does not say: the file itself, and what it can be instead of a store."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from controller_app.sqlite_file import FORMAT, StoreOptions
from controller_app.sqlite_store import SliceSummary, SqliteStore
from ondemand.codec import encode_record
from ondemand.records import Group, Neighbor
from ondemand.slice_cache import SliceCache
from ondemand.slices import Delta, Snapshot, SourceError, SourceState, TooOld
from tests.contract.backend import Recorder, settle

A, B = "sg/a", "sg/b"
NEIGHBOR = Neighbor(
    bytes((10, 0, 0, 1)), bytes((2, 0, 0, 0, 0, 1)), "net", "p", bytes((192, 0, 2, 1))
)
FAST = StoreOptions(write_timeout_s=0.1, read_timeout_s=0.1, retry_min_s=0.01, retry_max_s=0.05)


def _empty_wal(path):
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "slices.db"


@pytest.fixture
def stores():
    opened = []
    yield opened
    for store in opened:
        store.close()


@pytest.fixture
def open_store(path, stores):
    def open_(*, writer=False, at=None, options=FAST):
        stores.append(SqliteStore(at or path, writer=writer, options=options))
        return stores[-1]

    return open_


@pytest.fixture
def filled(open_store):
    """A store with one record, and nobody connected to it."""
    store = open_store(writer=True)
    store.publish({A: {"k": b"1"}}, replace_all=True)
    store.close()


def read_error(store):
    with pytest.raises(SourceError) as caught:
        store.get(A, "k")
    with pytest.raises(SourceError):
        store.check()
    return str(caught.value)


class TestFile:
    def test_a_reader_never_creates_the_file(self, path, open_store):
        message = read_error(open_store())
        assert str(path) in message
        assert "ondemand slices publish" in message
        assert not path.exists()

    def test_a_reader_cannot_write(self, filled, open_store):
        store = open_store()
        with pytest.raises(SourceError, match="reading only"):
            store.write(A, {"k": b"2"})
        assert store.get(A, "k").payload == b"1"

    def test_a_writer_creates_the_file_but_no_folder(self, path, open_store):
        open_store(writer=True).write(A, {"k": b"1"})
        assert path.exists()
        lost = open_store(writer=True, at=path.parent / "none" / "slices.db")
        with pytest.raises(
            SourceError, match=r"none does not exist; make it with 'mkdir -p /.*none'"
        ):
            lost.write(A, {"k": b"1"})

    def test_after_a_publish_the_file_alone_holds_everything(self, path, open_store, tmp_path):
        writer = open_store(writer=True)
        writer.publish({A: {"k": b"1"}}, replace_all=True)
        copy = tmp_path / "copy.db"
        copy.write_bytes(path.read_bytes())
        assert open_store(at=copy).snapshot(A).records == {"k": b"1"}

    def test_awkward_file_names(self, tmp_path, open_store):
        for name in ("a?mode=memory", "a#b%20", "ä ö.db"):
            open_store(writer=True, at=tmp_path / name).write(A, {"k": name.encode()})
            assert (tmp_path / name).exists()
            assert open_store(at=tmp_path / name).get(A, "k").payload == name.encode()

    def test_summaries(self, open_store):
        store = open_store(writer=True)
        assert store.publish({A: {"k": b"123", "l": b""}, B: {}}, replace_all=True).written == 2
        version = store.write(A, {"l": None})
        assert store.summaries() == [SliceSummary(A, version, 1, 3)]

    def test_versions_grow_by_one_for_each_changed_record(self, open_store):
        store = open_store(writer=True)
        first = store.write(A, {"k": b"1"})
        assert store.write(A, {"k": b"2", "l": b"3"}) == first + 2
        assert store.write(A, {"k": None, "l": b"3"}) == first + 3

    def test_the_newest_tombstones_are_kept(self, open_store):
        store = open_store(writer=True, options=StoreOptions(tombstones_per_slice=3))
        start = store.write(A, {str(number): b"x" for number in range(6)})
        versions = [store.write(A, {str(number): None}) for number in range(6)]
        assert store.delta(A, start) == TooOld(A, start, versions[2])
        assert store.delta(A, versions[1]) == TooOld(A, versions[1], versions[2])
        delta = store.delta(A, versions[2])
        assert isinstance(delta, Delta)
        assert [change.key for change in delta.changes] == ["3", "4", "5"]

    def test_a_failing_publish_leaves_nothing(self, open_store):
        store = open_store(writer=True)
        store.write(A, {"k": b"1"})

        def stop(done, total):
            raise KeyboardInterrupt

        desired = {A: {"k": b"2"}, "nbr/v/10.0.0.0": {str(n): b"x" for n in range(20_000)}}
        with pytest.raises(KeyboardInterrupt):
            store.publish(desired, replace_all=True, progress=stop)
        assert [one.name for one in store.summaries()] == [A]
        assert store.get(A, "k").payload == b"1"
        assert store.publish(desired, replace_all=True).written == 20_001

    def test_a_store_without_identity_gets_one_with_the_next_write(self, path, filled, open_store):
        db = sqlite3.connect(path)
        db.execute("DELETE FROM meta WHERE name = 'store'")
        db.commit()
        db.close()
        reader = open_store()
        assert reader.identity() == ""
        open_store(writer=True).write(A, {"k": b"2"})
        identity = reader.identity()
        assert len(identity) == 32
        open_store(writer=True).write(A, {"k": b"3"})
        assert open_store().identity() == identity

    def test_a_copy_has_the_identity_of_what_it_was_copied_from(
        self, path, filled, open_store, tmp_path
    ):
        (tmp_path / "copy.db").write_bytes(path.read_bytes())
        assert open_store(at=tmp_path / "copy.db").identity() == open_store().identity()

    def test_concurrent_creation_ends_in_one_store(self, path, open_store):
        options = StoreOptions()
        writers = [open_store(writer=True, options=options) for _ in range(4)]
        barrier = threading.Barrier(4)

        def work(number):
            barrier.wait()
            writers[number].write(A, {str(number): b"x"})

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(open_store().snapshot(A).records) == ["0", "1", "2", "3"]

    def test_another_process_writes_while_this_one_reads(self, path, filled, open_store):
        reader = open_store()
        recorder = Recorder()
        reader.watch(recorder).follow(A, reader.snapshot(A).version)
        script = (
            "import sys; from controller_app.sqlite_store import SqliteStore\n"
            "with SqliteStore(sys.argv[1], writer=True) as store:\n"
            "    for number in range(100): store.write('sg/a', {'k': b'%d' % number})\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script, str(path)])
        reads = 0
        while process.poll() is None:
            assert reader.get(A, "k").payload is not None
            reads += 1
        assert process.returncode == 0
        assert reads > 0
        final = reader.snapshot(A)
        assert final.records == {"k": b"99"}
        recorder.wait_for(lambda events: events and events[-1].version == final.version)


class TestBadFile:
    @pytest.mark.parametrize("content", [b"hosts: []\n" * 200, b"\0" * 5000, os.urandom(4096)])
    def test_a_file_that_is_not_sqlite(self, path, open_store, content):
        path.write_bytes(content)
        assert "not an SQLite file" in read_error(open_store())
        with pytest.raises(SourceError, match="not an SQLite file"):
            open_store(writer=True).write(A, {"k": b"1"})
        assert path.read_bytes() == content

    def test_the_database_of_another_program_is_left_alone(self, path, open_store):
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE bookmark (url TEXT)")
        db.close()
        content = path.read_bytes()
        assert "another program" in read_error(open_store())
        with pytest.raises(SourceError, match="another program"):
            open_store(writer=True).publish({A: {"k": b"1"}}, replace_all=True)
        assert path.read_bytes() == content

    @pytest.mark.parametrize("make", [Path.touch, _empty_wal])
    def test_an_empty_file_is_filled_by_a_writer(self, path, open_store, make):
        """Left behind by a writer that was killed while it created the store."""
        make(path)
        assert "is empty" in read_error(open_store())
        open_store(writer=True).write(A, {"k": b"1"})
        assert open_store().get(A, "k").payload == b"1"

    def test_a_newer_format(self, path, filled, open_store):
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA user_version = {FORMAT + 1}")
        db.close()
        assert f"format {FORMAT + 1}" in read_error(open_store())
        with pytest.raises(SourceError, match="upgrade this program"):
            open_store(writer=True).write(A, {"k": b"2"})

    def test_a_folder(self, tmp_path, open_store):
        with pytest.raises(SourceError, match="is a folder"):
            open_store(at=tmp_path).get(A, "k")
        with pytest.raises(SourceError, match="is a folder"):
            open_store(at=tmp_path, writer=True).write(A, {"k": b"1"})

    def test_a_damaged_file(self, path, filled, open_store):
        content = bytearray(path.read_bytes())
        content[4096:] = b"\xff" * (len(content) - 4096)
        path.write_bytes(bytes(content))
        message = read_error(open_store())
        assert "is damaged" in message
        assert "publish again" in message

    def test_a_cut_file(self, path, filled, open_store):
        path.write_bytes(path.read_bytes()[:6000])
        assert str(path) in read_error(open_store())

    def test_a_writer_that_finds_it_locked_says_so_and_goes_on_later(
        self, path, filled, open_store
    ):
        writer, reader = open_store(writer=True), open_store()
        with _exclusive(path, "BEGIN IMMEDIATE"):
            with pytest.raises(SourceError, match="is locked by another process") as caught:
                writer.publish({A: {"k": b"2"}}, replace_all=True)
            assert str(path) in str(caught.value)
            assert reader.get(A, "k").payload == b"1"
        assert writer.publish({A: {"k": b"2"}}, replace_all=True).written == 1

    def test_a_writer_waits_for_another(self, path, filled, open_store):
        writer = open_store(writer=True, options=StoreOptions(write_timeout_s=20))
        with _exclusive(path, "BEGIN IMMEDIATE") as other:
            threading.Timer(0.3, other.rollback).start()
            assert writer.publish({A: {"k": b"2"}}, replace_all=True).written == 1

    def test_a_reader_of_a_wholly_locked_file_says_so(self, path, filled, open_store):
        reader = open_store()
        with _exclusive(path, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"):
            assert "is locked by another process" in read_error(reader)
        assert reader.get(A, "k").payload == b"1"

    def test_a_read_only_file_system(self, path, filled, open_store, read_only):
        read_only(path.parent)
        with pytest.raises(SourceError, match=r"is not writable|cannot be opened"):
            open_store(writer=True).write(A, {"k": b"2"})


class TestLostAndFound:
    """A watch outlives what happens to the file."""

    @pytest.fixture
    def watched(self, filled, open_store):
        reader = open_store()
        recorder = Recorder()
        watch = reader.watch(recorder)
        start = reader.snapshot(A)
        watch.follow(A, start.version)
        watch.follow(B, 0)
        settle()
        assert recorder.events == []
        return reader, recorder, start

    def test_a_watch_may_begin_before_the_store_is_there(self, path, open_store):
        reader, recorder = open_store(), Recorder()
        reader.watch(recorder).follow(A, 0)
        recorder.wait_for(len)
        assert "does not exist" in recorder.states()[0].error
        open_store(writer=True).write(A, {"k": b"1"})
        recorder.wait_for(lambda events: any(isinstance(event, Delta) for event in events))
        assert recorder.states()[-1] == SourceState(None)
        assert recorder.of(A)[0].changes[0].payload == b"1"

    def test_a_store_made_anew_comes_as_snapshots_above_the_old_versions(
        self, path, open_store, watched
    ):
        reader, recorder, start = watched
        for leftover in path.parent.iterdir():
            leftover.unlink()
        recorder.wait_for(len)
        assert "does not exist" in recorder.events[0].error
        with pytest.raises(SourceError, match="does not exist"):
            reader.get(A, "k")
        open_store(writer=True).publish({B: {"l": b"2"}}, replace_all=True)
        version = reader.snapshot(B).version
        recorder.wait_for(lambda events: recorder_version(events, B) == version)
        recorder.wait_for(lambda _: recorder.of(A))
        (gone,) = recorder.of(A)
        assert isinstance(gone, Snapshot)
        assert (gone.records, gone.store) == ({}, reader.identity())
        assert gone.version > start.version
        assert reader.get(B, "l").payload == b"2"
        version = open_store(writer=True).write(A, {"k": b"3"})
        recorder.wait_for(lambda events: recorder_version(events, A) == version)

    def test_removing_the_file_alone_leaves_nothing_of_it_behind(self, path, open_store, watched):
        """Its side files stay, are still open here, and must not be taken for the new store's."""
        reader, recorder, _ = watched
        writer = open_store(writer=True)
        for number in range(20):
            writer.write(A, {f"old{number}": b"x" * 5000})
        writer.close()
        path.unlink()
        recorder.wait_for(lambda events: any(isinstance(e, SourceState) for e in events))
        script = (
            "import sys; from controller_app.sqlite_store import SqliteStore\n"
            "with SqliteStore(sys.argv[1], writer=True) as store:\n"
            "    store.publish({'sg/a': {'new': b'1'}}, replace_all=True)\n"
        )
        subprocess.run([sys.executable, "-c", script, str(path)], check=True)
        recorder.wait_for(
            lambda events: [e for e in events if getattr(e, "records", None) == {"new": b"1"}]
        )
        assert reader.snapshot(A).records == {"new": b"1"}
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()

    def test_a_file_put_in_its_place_comes_as_snapshots(self, path, open_store, watched, tmp_path):
        reader, recorder, start = watched
        other = open_store(writer=True, at=tmp_path / "other.db")
        other.publish({A: {"k": b"other"}, B: {"l": b"other"}}, replace_all=True)
        other.close()
        (tmp_path / "other.db").replace(path)
        recorder.wait_for(lambda events: len(recorder.of(A)) and len(recorder.of(B)))
        assert recorder.of(A) == [replace(reader.snapshot(A), store=reader.identity())]
        assert recorder.of(A)[0].records == {"k": b"other"}
        assert recorder.of(A)[0].version > start.version
        assert recorder.of(B)[0].records == {"l": b"other"}
        assert reader.get(A, "k").payload == b"other"

    def test_a_cache_follows_a_file_whose_versions_are_lower(
        self, path, open_store, tmp_path, monkeypatch
    ):
        """An older store put in the place of a newer one: what agents hold counts for nothing."""
        shard, key = "nbr/v/10.0.0.0", "ip/10.0.0.1"
        gone = encode_record(Group("a", "gone"))
        early = open_store(writer=True, at=tmp_path / "early.db")
        early.publish({A: {"group": encode_record(Group("a", "early"))}}, replace_all=True)
        early.close()
        time.sleep(0.002)
        late = open_store(writer=True)
        late.publish(
            {A: {"group": gone}, B: {"group": encode_record(Group("b"))}}, replace_all=True
        )
        late.write(shard, {"ip/10.0.0.9": b"junk"})
        reader, recorder, cache = open_store(), Recorder(), SliceCache(1 << 20)
        watch = reader.watch(recorder)
        for name in (A, B):
            cache.hold(name)
            cache.apply(reader.snapshot(name))
            watch.follow(name, cache.version(name))
        cache.put(reader.get(shard, key))
        watch.follow(shard, cache.version(shard))
        settle()
        late.close()
        for leftover in path.parent.glob(path.name + "*"):
            leftover.unlink()
        (tmp_path / "early.db").rename(path)
        recorder.wait_for(lambda _: recorder.of(A) and recorder.of(B) and recorder.of(shard))
        early = open_store(writer=True)
        early.write(A, {"group": encode_record(Group("a", "now"))})
        version = early.write(shard, {key: encode_record(NEIGHBOR)})
        recorder.wait_for(lambda events: recorder_version(events, shard) == version)
        recorder.wait_for(lambda _: isinstance(recorder.of(A)[-1], Delta))
        for event in recorder.events:
            if not isinstance(event, SourceState):
                assert cache.apply(event).heal is None
        assert cache.whole(A) == {"group": Group("a", "now")}
        assert cache.whole(B) == {}
        assert cache.neighbor("v", NEIGHBOR.ip).record == NEIGHBOR

    def test_following_from_a_version_that_the_store_never_had(self, filled, open_store):
        """As after a restart, with holdings of a store that was another one."""
        reader, recorder = open_store(), Recorder()
        start = reader.snapshot(A)
        reader.watch(recorder).follow(A, start.version + 1000)
        recorder.wait_for(len)
        assert recorder.events == [replace(start, store=reader.identity())]

    def test_following_a_slice_again_that_a_store_made_anew_never_had(
        self, path, open_store, watched
    ):
        reader, recorder, _ = watched
        for leftover in path.parent.iterdir():
            leftover.unlink()
        open_store(writer=True).publish({}, replace_all=True)
        recorder.wait_for(lambda _: recorder.of(A))
        (gone,) = recorder.of(A)
        again = Recorder()
        reader.watch(again).follow(A, gone.version)
        settle()
        assert again.events == []

    def test_a_damaged_file_is_told_and_healed(self, path, open_store, watched):
        reader, recorder, _ = watched
        good = path.read_bytes()
        path.write_bytes(b"garbage" * 1000)
        recorder.wait_for(len)
        assert str(path) in recorder.events[0].error
        path.write_bytes(good)
        recorder.wait_for(lambda events: SourceState(None) in events)
        version = open_store(writer=True).write(A, {"k": b"2"})
        recorder.wait_for(lambda events: recorder_version(events, A) == version)
        assert reader.get(A, "k").payload == b"2"

    def test_an_older_copy_put_back_into_the_file_is_noticed(self, path, open_store, watched):
        reader, recorder, start = watched
        identity = reader.identity()
        old = path.read_bytes()
        writer = open_store(writer=True)
        writer.publish({A: {"k": b"2"}, B: {"l": b"2"}}, replace_all=True)
        writer.close()
        recorder.wait_for(lambda _: recorder.of(A) and recorder.of(B))
        path.write_bytes(old)
        again = replace(start, store=identity)
        recorder.wait_for(lambda _: recorder.of(A)[-1] == again)
        recorder.wait_for(lambda _: getattr(recorder.of(B)[-1], "records", None) == {})

    def test_pauses_between_attempts_are_bounded(self, path, open_store, watched):
        _, recorder, _ = watched
        path.rename(path.with_suffix(".away"))
        recorder.wait_for(len)
        time.sleep(0.3)
        assert len(recorder.events) == 1
        path.with_suffix(".away").rename(path)
        recorder.wait_for(lambda events: SourceState(None) in events)

    def test_a_writer_does_not_write_into_a_file_that_was_removed(self, path, open_store):
        writer = open_store(writer=True)
        writer.publish({A: {"k": b"1"}}, replace_all=True)
        for leftover in path.parent.iterdir():
            leftover.unlink()
        writer.write(B, {"l": b"2"})
        assert [one.name for one in open_store().summaries()] == [B]


def recorder_version(events, name):
    return max(
        (event.version for event in events if getattr(event, "slice", "") == name), default=0
    )


class _exclusive:  # noqa: N801 - reads as a statement
    """Another connection that holds the file in the meantime."""

    def __init__(self, path, *statements):
        self._path = path
        self._statements = statements

    def __enter__(self):
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        for statement in self._statements:
            self._db.execute(statement)
        return self._db

    def __exit__(self, *_):
        if self._db.in_transaction:
            self._db.rollback()
        self._db.close()


@pytest.fixture
def read_only(tmp_path):
    """Makes a folder read-only, also for root, for whom permissions are no obstacle."""
    mounted = []

    def make(folder):
        if os.geteuid() != 0:
            folder.chmod(0o555)
            return
        done = subprocess.run(["mount", "--bind", folder, folder], check=False)
        if done.returncode:
            pytest.skip("this machine lets root make no bind mount")
        mounted.append(folder)
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)

    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)
    tmp_path.chmod(0o755)

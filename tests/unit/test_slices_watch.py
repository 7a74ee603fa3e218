"""``ondemand slices watch``: what is told of changes, of a source that is lost, and how it ends."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller_app.cli_slices import slices
from controller_app.nats_options import parse_store_url
from controller_app.nats_store import NatsStore
from controller_app.slice_watch import (
    HistoryLost,
    Mark,
    OtherStore,
    RecordChanged,
    SliceFollower,
    SourceBack,
    SourceLost,
)
from controller_app.sqlite_file import StoreOptions
from controller_app.sqlite_store import SqliteStore
from ondemand.codec import encode_record
from ondemand.records import Group
from tests.support.nats_server import NatsServer, needs_nats_server

ROOT = Path(__file__).resolve().parents[2]
A, B = "sg/a", "sg/b"
PATIENCE_S = 20.0


def group(name):
    return encode_record(Group(id="a", name=name))


class SqliteSite:
    def __init__(self, folder):
        self.path = folder / "slices.db"
        self.place = str(self.path)

    def open(self, *, writer=False):
        return SqliteStore(self.path, writer=writer, options=StoreOptions(poll_interval_s=0.01))

    def take_away(self):
        self.path.rename(self.path.with_suffix(".away"))

    def bring_back(self):
        self.path.with_suffix(".away").rename(self.path)

    def close(self):
        pass


class NatsSite:
    def __init__(self, folder):
        self.server = NatsServer(folder)
        self.server.start()
        self.place = self.server.url

    def open(self, *, writer=False):
        return NatsStore(parse_store_url(self.place), writer=writer)

    def take_away(self):
        self.server.stop()

    def bring_back(self):
        self.server.start()

    def close(self):
        self.server.stop()


@pytest.fixture(params=[SqliteSite, pytest.param(NatsSite, marks=needs_nats_server)])
def site(request, tmp_path):
    made = request.param(tmp_path)
    yield made
    made.close()


@pytest.fixture
def writer(site):
    with site.open(writer=True) as store:
        store.write(A, {"group": group("one")})
        yield store


@pytest.fixture
def reader(site, writer):
    with site.open() as store:
        yield store


def take(follower, count, kind=RecordChanged):
    """The next events of a kind."""
    found = (one for one in follower.events(for_s=PATIENCE_S) if isinstance(one, kind))
    return list(itertools.islice(found, count))


class TestFollower:
    def test_a_change_has_what_was_and_what_is(self, reader, writer):
        with SliceFollower(reader, [A]) as follower:
            assert (follower.slices, follower.records) == (1, 1)
            version = writer.write(A, {"group": group("two")})
            assert take(follower, 1) == [
                RecordChanged(A, version, "group", Mark.CHANGED, group("one"), group("two"))
            ]
            version = writer.write(A, {"group": None})
            assert take(follower, 1) == [
                RecordChanged(A, version, "group", Mark.REMOVED, group("two"), None)
            ]
            version = writer.write(A, {"group": group("three")})
            assert take(follower, 1) == [
                RecordChanged(A, version, "group", Mark.ADDED, None, group("three"))
            ]

    def test_slices_not_named_are_not_told(self, reader, writer):
        with SliceFollower(reader, [A]) as follower:
            writer.write(B, {"group": group("b")})
            writer.write(A, {"group": group("two")})
            assert [one.slice for one in take(follower, 1)] == [A]

    def test_without_names_slices_that_come_later_are_followed_too(self, reader, writer):
        with SliceFollower(reader, []) as follower:
            version = writer.write(B, {"group": group("b")})
            assert take(follower, 1) == [
                RecordChanged(B, version, "group", Mark.ADDED, None, group("b"))
            ]
            assert follower.slices == 2
            writer.write(B, {"group": group("c")})
            assert [one.mark for one in take(follower, 1)] == [Mark.CHANGED]

    def test_a_slice_that_is_not_there_yet(self, reader, writer):
        with SliceFollower(reader, [B]) as follower:
            assert (follower.slices, follower.records) == (1, 0)
            writer.write(B, {"group": group("b")})
            assert [one.mark for one in take(follower, 1)] == [Mark.ADDED]

    def test_since_tells_first_what_came_after(self, reader, writer):
        since = writer.write(A, {"group": group("two"), "rule/x": b"1"})
        writer.write(A, {"group": group("three")})
        writer.write(A, {"rule/x": None})
        with SliceFollower(reader, [A], since=since) as follower:
            marks = {one.key: one.mark for one in take(follower, 2)}
            assert marks == {"group": Mark.WRITTEN, "rule/x": Mark.REMOVED}
            writer.write(A, {"group": group("four")})
            (later,) = take(follower, 1)
            assert (later.mark, later.was) == (Mark.CHANGED, group("three"))

    def test_since_0_tells_all_that_is_there(self, reader, writer):
        writer.write(A, {"rule/x": b"1", "rule/y": b"2"})
        writer.write(A, {"rule/x": None})
        with SliceFollower(reader, [], since=0) as follower:
            found = take(follower, 2)
        assert {(one.key, one.mark) for one in found} == {
            ("group", Mark.ADDED),
            ("rule/y", Mark.ADDED),
        }

    def test_since_the_newest_version_tells_nothing_of_before(self, reader, writer):
        since = writer.write(A, {"group": group("two")})
        with SliceFollower(reader, [], since=since) as follower:
            assert list(follower.events(for_s=0.3)) == []

    def test_the_source_is_lost_and_back_and_what_was_missed_is_told(self, site, reader, writer):
        with SliceFollower(reader, [A]) as follower:
            writer.write(A, {"group": group("two")})
            assert len(take(follower, 1)) == 1
            writer.close()
            site.take_away()
            (lost,) = take(follower, 1, SourceLost)
            assert lost.error
            site.bring_back()
            with site.open(writer=True) as again:
                again.write(A, {"group": group("three")})
                seen = []
                for event in follower.events(for_s=PATIENCE_S):
                    seen.append(event)
                    if isinstance(event, RecordChanged):
                        break
        kinds = [type(one) for one in seen]
        assert SourceBack in kinds
        assert (seen[-1].was, seen[-1].payload) == (group("two"), group("three"))


def test_another_store_is_told_and_compared(tmp_path):
    here, other = SqliteSite(tmp_path), tmp_path / "other.db"
    with here.open(writer=True) as store:
        store.write(A, {"group": group("one")})
    with SqliteStore(other, writer=True) as store:
        store.write(A, {"group": group("other"), "rule/x": b"1"})
        identity = store.identity()
    with here.open() as reader, SliceFollower(reader, [A]) as follower:
        other.replace(here.path)
        # Whether the file is looked at while it takes the other's place is up to chance.
        seen = take(follower, 3, (OtherStore, RecordChanged))
    assert seen[0] == OtherStore(A, identity)
    assert {(one.key, one.mark) for one in seen[1:]} == {
        ("group", Mark.CHANGED),
        ("rule/x", Mark.ADDED),
    }


def test_a_history_that_is_not_known_any_more_is_told(tmp_path):
    options = StoreOptions(tombstones_per_slice=1)
    with SqliteStore(tmp_path / "s.db", writer=True, options=options) as store:
        since = store.write(A, {"x": b"1", "y": b"2", "group": group("one")})
        store.write(A, {"x": None})
        store.write(A, {"y": None})
        with SliceFollower(store, [A], since=since) as follower:
            seen = list(itertools.islice(follower.events(for_s=PATIENCE_S), 2))
    assert seen[0] == HistoryLost(A, since)
    assert (seen[1].key, seen[1].mark) == ("group", Mark.WRITTEN)


# The command ----------------------------------------------------------------------------------------


def run(*arguments, code=0):
    result = CliRunner().invoke(slices, ["watch", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


class TestCommand:
    def test_a_line_has_a_mark_slice_version_key_and_words(self, site, writer):
        version = writer.write(A, {"group": group("two")})
        told = run("--store", site.place, "--since", 0, "--count", 1)
        clock, *rest = told.stdout.split()
        assert len(clock) == len("12:34:56.789")
        assert rest == ["+", A, str(version), "group", "name=two"]
        assert told.stderr == f"following 1 slice with 1 record in {site.place}; Ctrl-C ends it\n"

    def test_json_is_one_object_per_line(self, site, writer):
        told = run("--store", site.place, "--since", 0, "--count", 1, "--json")
        begin, change = map(json.loads, told.stdout.splitlines())
        assert (begin["event"], begin["slices"], begin["records"]) == ("following", 1, 1)
        assert change["time"] >= begin["time"]
        assert (change["event"], change["change"], change["key"]) == ("change", "added", "group")
        assert change["record"]["name"] == "one"
        assert "was" not in change

    def test_it_ends_after_a_while(self, site, writer):
        assert run("--store", site.place, A, "--for", 0.1).stdout == ""

    def test_a_source_that_is_not_there_is_2(self, tmp_path):
        assert "does not exist" in run("--store", tmp_path / "none.db", code=2).stderr
        assert "does not answer" in run("--store", "nats://127.0.0.1:4", code=2).stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [(["what"], "'what' is no slice name"), ([A, "--all"], "not both")],
    )
    def test_bad_arguments_are_2(self, site, writer, arguments, message):
        assert message in run("--store", site.place, *arguments, code=2).stderr


def test_a_live_change_is_printed_at_once_and_ctrl_c_is_a_clean_end(tmp_path):
    path = tmp_path / "slices.db"
    with SqliteStore(path, writer=True) as store:
        store.write(A, {"group": group("one")})
        command = [sys.executable, "-m", "controller_app.cli", "slices", "watch", "--json"]
        with subprocess.Popen(
            [*command, "--store", str(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert json.loads(process.stdout.readline())["event"] == "following"
            version = store.write(A, {"group": group("two")})
            told = json.loads(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE_S)
    assert (told["change"], told["version"]) == ("changed", version)
    assert (told["was"]["name"], told["record"]["name"]) == ("one", "two")
    assert (process.returncode, out, err) == (0, "", "")


def test_it_ends_when_its_reader_has(tmp_path):
    path = tmp_path / "slices.db"
    with SqliteStore(path, writer=True) as store:
        store.write(A, {"group": group("one")})
    command = [sys.executable, "-m", "controller_app.cli", "slices", "watch", "--json"]
    with subprocess.Popen(
        [*command, "--store", str(path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(PATIENCE_S)

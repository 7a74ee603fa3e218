"""The version messages of slices: what a restart with nothing changed moves, and publishers that meet or die.

All orders in which publishers can meet are in tests/unit/test_nats_version.py; here it is a real server.
"""

from __future__ import annotations

import asyncio
import threading
import time

import nats
import pytest

from controller_app.nats_client import NatsClient
from controller_app.nats_commit import encode
from controller_app.nats_options import NatsAddress, NatsOptions
from controller_app.nats_store import NatsStore
from controller_app.nats_version import encode_version
from controller_app.nats_writer import NatsWriter
from controller_app.source_link import SourceLink
from ondemand.messages import Follow
from ondemand.slices import Delta, Snapshot, SourceError, SourceState, TooOld
from tests.contract.backend import Recorder, Replica, apply_changes, check_chain, reaches, settle
from tests.support.nats_server import NatsServer, needs_nats_server

pytestmark = needs_nats_server

A, B = "sg/a", "sg/b"
LOG_A, VER_A = "ondemand.log.sg.a", "ondemand.ver.sg.a"


@pytest.fixture(scope="module")
def any_server(tmp_path_factory):
    made = NatsServer(tmp_path_factory.mktemp("nats"))
    yield made
    made.stop()


@pytest.fixture
def server(any_server):
    """Running and empty."""
    any_server.start()

    async def empty():
        client = await nats.connect(any_server.url)
        await client.request("$JS.API.STREAM.DELETE.ondemand", b"", timeout=5)
        await client.close()

    asyncio.run(empty())
    return any_server


@pytest.fixture
def open_store(server):
    stores = []

    def make(*, writer=False, **options):
        made = NatsStore(NatsAddress((server.url,)), writer=writer, options=NatsOptions(**options))
        stores.append(made)
        return made

    yield make
    for store in stores:
        store.close()


def announced(store, name=A):
    return store._link.call(lambda: store._reader.announced(name)).version


def put(store, subject, data, headers=None):
    return store._link.call(lambda: store._link.request(subject, data, headers))


def purge(store, subject):
    call = "STREAM.PURGE.ondemand"
    assert store._link.call(lambda: store._link.api(call, {"filter": subject}))["success"]


def write_twice(store):
    return [store.write(A, {"o": payload}) for payload in (b"1", b"2")]


class DeadError(Exception):
    """What ends a publisher in the middle."""


def dies_before_the_commit(monkeypatch, store):
    put_it = NatsWriter._put

    async def put_or_die(self, subject, data, headers):
        if self is store._writer and ".log." in subject:
            raise DeadError
        return await put_it(self, subject, data, headers)

    monkeypatch.setattr(NatsWriter, "_put", put_or_die)


class Traffic:
    """Counts the payloads and headers that all connections of this process receive."""

    def __init__(self, monkeypatch):
        self.bytes = self.messages = 0
        process = NatsClient._process_msg

        async def count(client, sid, subject, reply, data, headers):
            self.bytes += len(data) + len(headers or b"")
            self.messages += 1
            await process(client, sid, subject, reply, data, headers)

        monkeypatch.setattr(NatsClient, "_process_msg", count)


class TestNothingChanged:
    def test_a_restart_moves_a_few_bytes_a_slice_and_the_changes(self, open_store, monkeypatch):
        publisher = open_store(writer=True)
        names = [f"nbr/v/10.0.{number}.0" for number in range(40)]
        records = {f"nbr/10.0.0.{number}": bytes(60) for number in range(250)}
        result = publisher.publish(dict.fromkeys(names, records), replace_all=True)
        held = {name: result.slices[name].version for name in names}
        publisher.write(names[0], {"nbr/10.0.0.7": b"moved"})
        traffic = Traffic(monkeypatch)
        identity = publisher.identity()
        before = traffic.bytes
        reader, recorder = open_store(audit_s=1000.0), Recorder()
        link = SourceLink(reader, recorder, identity=identity)
        for name in names:
            link.ask(Follow(name, held[name]))
        recorder.wait_for(lambda _: recorder.of(names[0]))
        watch = next(iter(reader._watches))
        while len(watch._subscriptions) < len(names) or watch._behind or watch._reading:
            time.sleep(0.01)
        link.close()
        assert [one.slice for one in recorder.of(names[0])] == [names[0]]
        assert not [one for name in names[1:] for one in recorder.of(name)]
        assert recorder.of(names[0])[0].changes[0].payload == b"moved"
        moved = traffic.bytes - before
        assert moved < 400 * len(names), f"{moved} bytes, {traffic.messages} messages"

    def test_a_delta_of_nothing_is_one_small_answer(self, open_store, monkeypatch):
        publisher, reader = open_store(writer=True), open_store()
        version = publisher.write(A, {f"k{number}": bytes(100) for number in range(100)})
        reader.identity()
        assert reader.delta(A, version) == Delta(A, version, version, ())
        traffic = Traffic(monkeypatch)
        assert reader.delta(A, version) == Delta(A, version, version, ())
        assert (traffic.messages, traffic.bytes < 300) == (1, True)
        reader.get(A, "k1")
        reader.snapshot(A)
        assert traffic.messages == 3, "one answer each, as ever"

    def test_an_audit_moves_a_few_bytes(self, open_store, monkeypatch):
        publisher = open_store(writer=True)
        version = publisher.write(A, {f"k{number}": bytes(100) for number in range(100)})
        reader, recorder = open_store(audit_s=0.1), Recorder()
        reader.watch(recorder).follow(A, version)
        settle()
        traffic = Traffic(monkeypatch)
        rounds = Recorder()
        watch = next(iter(reader._watches))
        audit = watch._audit
        monkeypatch.setattr(watch, "_audit", lambda: (audit(), rounds(SourceState(None))))
        rounds.wait_for(lambda events: len(events) > 5)
        assert 0 < traffic.bytes < len(rounds.events) * 600
        assert recorder.events == []

    def test_it_is_known_after_purge_and_anew_which_store_it_is(self, open_store):
        publisher, reader = open_store(writer=True), open_store()
        version = publisher.write(A, {"k": b"1"})
        assert reader.delta(A, version) == Delta(A, version, version, ())
        purge(publisher, "ondemand.>")
        with pytest.raises(SourceError, match="holds no slices"):
            reader.delta(A, version)
        publisher.write(B, {"k": b"1"})
        assert isinstance(reader.delta(A, version), TooOld)
        again = publisher.write(A, {"k": b"2"})
        found = reader.delta(A, version)
        assert isinstance(found, TooOld) or found.version == again


class TestPublishersThatMeet:
    def test_a_reader_of_deltas_is_never_behind_what_was_confirmed(self, open_store):
        first, second, reader = open_store(writer=True), open_store(writer=True), open_store()
        start = Snapshot(A, first.write(A, {"k": b"0"}), {"k": b"0"})
        confirmed = [start.version]
        failures = []

        def write(publisher, letter):
            try:
                for number in range(150):
                    key = f"{letter}{number % 20}"
                    confirmed.append(publisher.write(A, {key: b"%d" % number}))
            except Exception as error:
                failures.append(error)
                raise

        threads = [
            threading.Thread(target=write, args=(publisher, letter))
            for publisher, letter in ((first, "x"), (second, "y"))
        ]
        for thread in threads:
            thread.start()
        held, records, asked, nothing = start.version, dict(start.records), 0, 0
        while any(thread.is_alive() for thread in threads) or held < max(confirmed):
            least = max(confirmed)
            found = reader.delta(A, held)
            assert isinstance(found, Delta)
            assert found.version >= least, "what was confirmed before the question"
            check_chain(found)
            apply_changes(records, found)
            held = found.version
            asked += 1
            nothing += not found.changes
        for thread in threads:
            thread.join()
        assert failures == []
        assert asked > 10
        final = reader.snapshot(A)
        assert (final.version, final.records) == (held, records)
        assert {f"x{n}": b"%d" % (140 + n if n < 10 else 120 + n) for n in range(20)}.items() <= (
            records.items()
        )
        assert len(set(confirmed)) == len(confirmed)
        assert announced(reader) == final.version

    def test_a_late_one_writes_over_nobody(self, open_store, monkeypatch):
        """Both have read everything; then the other one writes first, twice."""
        late, other, reader = open_store(writer=True), open_store(writer=True), open_store()
        held = late.write(A, {"k": b"0"})
        announce = NatsWriter._announce
        versions = []

        async def too_late(self, commit, before):
            if self is late._writer and not versions:
                versions.extend(await asyncio.to_thread(write_twice, other))
            return await announce(self, commit, before)

        monkeypatch.setattr(NatsWriter, "_announce", too_late)
        version = late.write(A, {"l": b"3"})
        assert [*versions, version] == [held + 1, held + 2, held + 3]
        assert announced(reader) == version
        assert reader.snapshot(A).records == {"k": b"0", "o": b"2", "l": b"3"}
        for since in (held, *versions):
            assert reader.delta(A, since).version == version

    def test_one_that_is_late_with_its_commit_leaves_a_true_number(self, open_store, monkeypatch):
        late, other, reader = open_store(writer=True), open_store(writer=True), open_store()
        held = late.write(A, {"k": b"0"})
        put_it = NatsWriter._put
        versions = []

        async def too_late(self, subject, data, headers):
            if self is late._writer and subject == LOG_A and not versions:
                versions.extend(await asyncio.to_thread(write_twice, other))
                assert reader.delta(A, held).version == versions[-1]
            return await put_it(self, subject, data, headers)

        monkeypatch.setattr(NatsWriter, "_put", too_late)
        assert late.write(A, {"l": b"3"}) == held + 3
        assert announced(reader) == held + 3


class TestPublishersThatDie:
    def test_what_was_announced_and_never_came_is_harmless(self, open_store, monkeypatch):
        dying, publisher, reader = open_store(writer=True), open_store(writer=True), open_store()
        held = dying.write(A, {"k": b"1"})
        recorder = Recorder()
        reader.watch(recorder).follow(A, held)
        settle()
        with monkeypatch.context() as patch:
            dies_before_the_commit(patch, dying)
            with pytest.raises(DeadError):
                dying.write(A, {"k": b"2"})
        assert announced(reader) == held + 1
        assert reader.delta(A, held) == Delta(A, held, held, ())
        assert publisher.publish({A: {"k": b"1"}}, replace_all=False).written == 0
        assert announced(reader) == held + 1, "the commit may still be on its way"
        version = publisher.write(A, {"k": b"3"})
        assert version == held + 1 == announced(reader)
        assert reader.delta(A, held).changes[0].payload == b"3"
        recorder.wait_for(lambda events: any(reaches(event, A, version) for event in events))
        assert [one.version for one in recorder.of(A)] == [version]

    @pytest.mark.parametrize("how", ["write", "publish"])
    def test_of_a_slice_that_was_to_be_new(self, open_store, monkeypatch, how):
        dying, publisher, reader = open_store(writer=True), open_store(writer=True), open_store()
        publisher.write(B, {"k": b"1"})
        with monkeypatch.context() as patch:
            dies_before_the_commit(patch, dying)
            with pytest.raises(DeadError):
                dying.publish({A: {"k": b"2"}}, replace_all=False)
        assert announced(reader) > 0
        assert reader.snapshot(A) == Snapshot(A, 0, {})
        if how == "write":
            version = publisher.write(A, {"k": b"3"})
        else:
            found = publisher.publish({A: {"k": b"3"}}, replace_all=True)
            version = found.slices[A].version
        assert announced(reader) == version
        assert reader.snapshot(A) == Snapshot(A, version, {"k": b"3"})


FOREIGN = {
    "none": None,
    "nothing": b"",
    "text": b"hello",
    "a commit": encode((("k", 4, b"w"),)),
    "another slice's": encode_version(B, 7),
    "a number beyond all": encode_version(A, (1 << 63) - 1),
}


class TestForeignVersions:
    @pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
    def test_what_tells_no_version_leads_to_the_commit_and_is_mended(self, open_store, data):
        publisher, reader = open_store(writer=True), open_store()
        first = publisher.write(A, {"k": b"1"})
        held = publisher.write(A, {"k": b"2"})
        if data is None:
            purge(publisher, VER_A)
        else:
            put(publisher, VER_A, data)
        assert reader.delta(A, held) == Delta(A, held, held, ())
        assert reader.delta(A, first).version == held
        recorder = Recorder()
        watch = reader.watch(recorder)
        watch.follow(A, first)
        recorder.wait_for(lambda events: any(reaches(event, A, held) for event in events))
        version = publisher.publish({A: {"k": b"3"}}, replace_all=True).slices[A].version
        assert version == held + 1 == announced(reader)
        recorder.wait_for(lambda events: any(reaches(event, A, version) for event in events))
        assert reader.delta(A, held).changes[0].payload == b"3"
        state = publisher._link.call(
            lambda: publisher._link.api("STREAM.INFO.ondemand", {"subjects_filter": VER_A})
        )["state"]
        assert state["subjects"] == {VER_A: 1}

    def test_a_commit_that_only_mends_leaves_the_number(self, open_store):
        publisher, reader = open_store(writer=True), open_store()
        held = publisher.write(A, {"k": b"1"})
        put(publisher, LOG_A, b"hello")
        assert publisher.publish({A: {"k": b"1"}}, replace_all=False).written == 0
        assert announced(reader) == held == reader.snapshot(A).version
        assert reader.delta(A, held) == Delta(A, held, held, ())


def test_watches_that_start_together_do_not_look_together(open_store, monkeypatch):
    publisher, reader = open_store(writer=True), open_store(audit_s=0.8)
    publisher.write(A, {"k": b"1"})
    first = {}
    looked = Recorder()
    watches = [reader.watch(Recorder()) for _ in range(12)]
    for watch in watches:

        def audit(watch=watch):
            first.setdefault(watch, asyncio.get_running_loop().time())
            looked(SourceState(None))

        monkeypatch.setattr(watch, "_audit", audit)
    looked.wait_for(lambda _: len(first) == len(watches))
    assert max(first.values()) - min(first.values()) > 0.1


PORT = {"port/p": b"p"}
ROOM = {"port/other": b"o"}


class Holder:
    """The places of one port as a follower of two slices has them."""

    def __init__(self, store, versions):
        self.recorder = Recorder()
        self.watch = store.watch(self.recorder)
        self.replicas = {}
        for name, version in versions.items():
            snapshot = store.snapshot(name)
            assert snapshot.version == version
            self.replicas[name] = Replica(snapshot)
            self.watch.follow(name, version)

    def wait(self, versions):
        self.recorder.wait_for(
            lambda events: all(
                any(reaches(event, name, version) for event in events)
                for name, version in versions.items()
            )
        )

    def places(self):
        """After each event, the slices that have the port."""
        found = []
        for event in self.recorder.events:
            self.replicas[event.slice].apply(event)
            found.append({n for n, one in self.replicas.items() if "port/p" in one.records})
        return found


class TestTheOrderOfAPublish:
    @pytest.mark.parametrize(
        ("leaves", "comes"),
        [
            ("host/h1", "hostgroup/g1"),
            ("hostgroup/g1", "host/h1"),
            ("hostgroup/g1", "hostgroup/g2"),
            ("host/h1", "host/h2"),
        ],
    )
    @pytest.mark.parametrize("left", [ROOM, {}, None], ids=["others-stay", "empty", "not-wanted"])
    def test_a_port_that_moves_is_never_nowhere(self, open_store, leaves, comes, left):
        publisher, reader = open_store(writer=True), open_store(audit_s=1000.0)
        crowd = {f"host/z{number}": ROOM for number in range(80)}
        before = {leaves: {**ROOM, **PORT}, comes: {"port/gone": b"g", "port/third": b"1"}}
        result = publisher.publish({**crowd, **before}, replace_all=True)
        holder = Holder(reader, {n: result.slices[n].version for n in before})
        settle()
        after = {comes: {**PORT, "port/third": b"2"}}
        if left is not None:
            after[leaves] = left
        for attempt in range(3):
            moved = publisher.publish({**crowd, **after}, replace_all=True).slices
            holder.wait({name: moved[name].version for name in before})
            back = publisher.publish({**crowd, **before}, replace_all=True).slices
            holder.wait({name: back[name].version for name in before})
            assert moved[comes].added == 1, attempt
            assert moved[comes].removed == moved[comes].changed == 1
            assert moved[leaves].removed == (2 if not left else 1)
        places = holder.places()
        assert all(places), places
        assert {leaves} in places
        assert {comes} in places
        assert {leaves, comes} in places

    def test_what_loses_nothing_is_written_once(self, open_store):
        publisher = open_store(writer=True)
        first = publisher.publish({"host/h1": ROOM}, replace_all=True).slices["host/h1"]
        found = publisher.publish({"host/h1": {**ROOM, **PORT}}, replace_all=True).slices["host/h1"]
        assert (found.added, found.changed, found.removed, found.unchanged) == (1, 0, 0, 1)
        assert found.version == first.version + 1

    def test_an_expected_version_is_that_before_the_first_step(self, open_store):
        publisher = open_store(writer=True)
        first = publisher.publish({"host/h1": ROOM}, replace_all=True).slices["host/h1"]
        found = publisher.publish(
            {"host/h1": PORT}, replace_all=True, expected={"host/h1": first.version}
        ).slices["host/h1"]
        assert (found.added, found.changed, found.removed, found.unchanged) == (1, 0, 1, 0)
        assert publisher.snapshot("host/h1") == Snapshot("host/h1", found.version, PORT)

    def test_other_slices_come_between(self, open_store, monkeypatch):
        publisher = open_store(writer=True)
        publisher.publish({"host/h1": ROOM, A: {"k": b"1"}, B: {"k": b"1"}}, replace_all=True)
        put_it = NatsWriter._put
        order = []

        async def note(self, subject, data, headers):
            order.append(subject)
            return await put_it(self, subject, data, headers)

        monkeypatch.setattr(NatsWriter, "_put", note)
        publisher.publish({A: {"k": b"2"}, "host/h1": PORT}, replace_all=True)
        slices = ["host.h1", "sg.a", "host.h1", "sg.b"]
        assert order == [f"ondemand.{kind}.{one}" for one in slices for kind in ("ver", "log")]

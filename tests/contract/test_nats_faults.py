"""Servers that are full, links that are slow or stop, floods of changes, and clocks that are wrong."""

from __future__ import annotations

import asyncio
import time

import nats
import pytest

from controller_app.nats_commit import SliceState, by_key, encode, next_commit
from controller_app.nats_options import NatsAddress, NatsOptions
from controller_app.nats_store import NatsStore
from controller_app.nats_version import encode_version
from controller_app.source_link import SourceLink
from ondemand.codec import encode_record
from ondemand.messages import Fetch, Follow
from ondemand.records import Group
from ondemand.slice_cache import SliceCache
from ondemand.slices import Lookup, Snapshot, SourceError, SourceState
from tests.contract.backend import Recorder, Replica, follow_until, reaches, settle
from tests.support.nats_server import NatsServer, free_port, needs_nats_server
from tests.support.nats_slow_link import SlowLink

pytestmark = needs_nats_server

A, B = "sg/a", "sg/b"
HOUR_MS = 3_600_000


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(configuration="", port=None):
        servers.append(NatsServer(tmp_path, configuration=configuration, port=port))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def open_store():
    stores = []

    def make(server, *, writer=False, clock_ms=None, **options):
        clock = {} if clock_ms is None else {"clock_ms": clock_ms}
        address = NatsAddress((server.url,))
        made = NatsStore(address, writer=writer, options=NatsOptions(**options), **clock)
        stores.append(made)
        return made

    yield make
    for store in stores:
        store.close()


def api(store, call, arguments=None):
    return store._link.call(lambda: store._link.api(call, arguments or {}))


def arrived(slice_name, version):
    return lambda events: any(reaches(event, slice_name, version) for event in events)


class TestFullServers:
    def test_a_stream_that_is_full_refuses_what_is_new_and_heals_with_room(self, serve, open_store):
        server = serve()
        publisher, reader = open_store(server, writer=True), open_store(server)
        held = publisher.write(A, {"k": b"1"})
        recorder = Recorder()
        reader.watch(recorder).follow(A, held)
        settle()
        config = api(publisher, "STREAM.INFO.ondemand")["config"]
        answer = api(publisher, "STREAM.UPDATE.ondemand", {**config, "max_bytes": 50_000})
        assert "error" not in answer
        many = {f"k{number}": bytes(1000) for number in range(100)}
        with pytest.raises(SourceError) as caught:
            publisher.publish({B: many}, replace_all=False)
        assert "maximum bytes exceeded" in str(caught.value)
        assert "raise its limits with 'nats stream edit', or remove slices" in str(caught.value)
        assert reader.get(A, "k").payload == b"1"
        assert reader.snapshot(B) == Snapshot(B, 0, {})
        version = publisher.write(A, {"k": b"2"})
        recorder.wait_for(arrived(A, version))
        api(publisher, "STREAM.UPDATE.ondemand", {**config, "max_bytes": -1})
        assert publisher.publish({B: many}, replace_all=False).written == 100
        assert reader.snapshot(B).records == many
        assert recorder.states() == []

    def test_a_server_whose_storage_is_full_says_so(self, serve, open_store, tmp_path):
        limited = 'jetstream {{ store_dir: "{}", max_file_store: {} }}\n'
        server = serve(limited.format(tmp_path / "jetstream", "100KB"))
        publisher, reader = open_store(server, writer=True), open_store(server)
        publisher.write(A, {"k": b"1"})
        with pytest.raises(SourceError) as caught:
            for number in range(20):
                publisher.publish({f"sg/s{number}": {"k": bytes(20_000)}}, replace_all=False)
        assert "the server is full; raise max_file_store" in str(caught.value)
        assert reader.get(A, "k").payload == b"1"
        server.stop()
        serve(limited.format(tmp_path / "jetstream", "10MB"), port=server.port)
        assert publisher.write(B, {"k": b"1"})
        assert reader.get(B, "k").payload == b"1"

    def test_a_slice_larger_than_a_message_of_the_server_goes_in_parts(self, serve, open_store):
        server = serve("max_payload: 8KB\n")
        publisher, reader = open_store(server, writer=True), open_store(server)
        many = {f"k{number}": bytes(100) for number in range(1000)}
        publisher.publish({A: many}, replace_all=False)
        assert reader.snapshot(A).records == many

    def test_a_record_that_no_message_can_hold_goes_in_parts_too(self, serve, open_store):
        server = serve("max_payload: 8KB\n")
        publisher, reader = open_store(server, writer=True), open_store(server)
        start = Snapshot(A, publisher.write(A, {"k": b"1"}), {"k": b"1"})
        recorder = Recorder()
        reader.watch(recorder).follow(A, start.version)
        settle()
        version = publisher.write(A, {"large": bytes(100_000)})
        replica = Replica(start)
        follow_until(recorder, replica, version)
        assert replica.records == {"k": b"1", "large": bytes(100_000)}


class TestConnections:
    def test_what_an_agent_asks_waits_through_refused_connections(self, tmp_path, open_store):
        """A server that is not there yet, and one that goes while it is asked."""
        server = NatsServer(tmp_path)
        source, recorder = open_store(server, timeout_s=0.2), Recorder()
        link = SourceLink(source, recorder)
        try:
            link.ask(Follow(A, None))
            link.ask(Fetch(B, "k"))
            recorder.wait_for(lambda _: recorder.states())
            assert "Connection refused" in recorder.states()[0].error
            server.start()
            publisher = open_store(server, writer=True)
            publisher.publish({A: {"k": b"1"}, B: {"k": b"1"}}, replace_all=True)
            recorder.wait_for(lambda events: any(isinstance(one, Lookup) for one in events))
            server.stop()
            recorder.wait_for(lambda _: recorder.states()[-1].error)
            link.ask(Fetch(B, "other"))
            time.sleep(0.3)
            server.start()
            recorder.wait_for(
                lambda events: (
                    sum(isinstance(one, Lookup) for one in events) == 2
                    and recorder.states()[-1] == SourceState(None)
                )
            )
            version = publisher.write(A, {"k": b"2"})
            recorder.wait_for(arrived(A, version))
        finally:
            link.close()
            server.stop()

    def test_a_link_that_stops_fails_calls_in_time_and_heals_when_it_goes_on(
        self, serve, open_store
    ):
        server = serve()
        publisher = open_store(server, writer=True)
        start = Snapshot(A, publisher.write(A, {"k": b"1"}), {"k": b"1"})
        slow = SlowLink(server.port)
        try:
            reader, recorder = open_store(slow, timeout_s=0.5, audit_s=0.5), Recorder()
            reader.watch(recorder).follow(A, start.version)
            assert reader.get(A, "k").payload == b"1"
            slow.is_stalled = True
            for ask in (lambda: reader.get(A, "k"), lambda: reader.snapshot(A), reader.identity):
                began = time.monotonic()
                with pytest.raises(SourceError, match="does not answer"):
                    ask()
                # Once for the question, and once to see whether the stream is there at all.
                assert time.monotonic() - began < 3 * 0.5
            version = publisher.write(A, {"k": b"2"})
            recorder.wait_for(lambda _: recorder.states())
            slow.is_stalled = False
            replica = Replica(start)
            follow_until(recorder, replica, version)
            assert replica.records == {"k": b"2"}
            recorder.wait_for(lambda _: recorder.states()[-1] == SourceState(None))
            assert slow.accepted == 1, "the connection was never lost"
        finally:
            slow.close()

    def test_a_connection_on_which_reading_fails_is_replaced(self, serve, open_store, monkeypatch):
        """As after an error in the library's own parser, which it would not survive."""
        server = serve()
        publisher, reader = open_store(server, writer=True), open_store(server)
        held = publisher.write(A, {"k": b"1"})
        recorder = Recorder()
        reader.watch(recorder).follow(A, held)
        settle()

        async def fail(data):
            monkeypatch.undo()
            raise ArithmeticError

        monkeypatch.setattr(reader._link._client._ps, "parse", fail)
        version = publisher.write(A, {"k": b"2"})
        recorder.wait_for(arrived(A, version))
        recorder.wait_for(lambda _: recorder.states()[-1:] == [SourceState(None)])

    def test_a_receiver_that_the_server_cuts_off_as_too_slow_ends_with_the_same(
        self, serve, open_store
    ):
        server = serve('max_payload: 32KB\nmax_pending: 64KB\nwrite_deadline: "100ms"\n')
        publisher = open_store(server, writer=True)
        start = Snapshot(A, publisher.write(A, {"k": b"1"}), {"k": b"1"})
        slow = SlowLink(server.port, bytes_per_s=400_000)
        try:
            reader, recorder = open_store(slow, audit_s=1.0), Recorder()
            reader.watch(recorder).follow(A, start.version)
            settle()
            for number in range(300):
                publisher.write(A, {f"k{number % 5}": bytes([number % 256]) * 5_000})
            final = publisher.snapshot(A)
            replica = Replica(start)
            follow_until(recorder, replica, final.version)
            assert replica.records == final.records
            assert slow.accepted > 1, "it was cut off"
        finally:
            slow.close()


class TestFloods:
    @pytest.mark.parametrize("pending", [{}, {"pending_messages": 5}, {"pending_bytes": 20_000}])
    def test_10_000_changes_end_in_the_state_of_the_store(self, serve, open_store, pending):
        """As fast as the server takes them; with small limits the client drops most of them."""
        server = serve()
        publisher = open_store(server, writer=True)
        reader = open_store(server, audit_s=30.0, **pending)
        start = Snapshot(A, publisher.write(A, {"k0": b"0"}), {"k0": b"0"})
        recorder, dropped = Recorder(), []
        reader.watch(recorder).follow(A, start.version)
        settle()
        reader._link.on_missed.add(dropped.append)
        first = publisher._link.call(lambda: publisher._reader.load(A))
        announced = encode_version(A, first.version + 10_000)

        async def flood():
            client = await nats.connect(server.url)
            state = first
            await client.publish("ondemand.ver.sg.a", announced, headers={"Nats-Rollup": "sub"})
            for number in range(10_000):
                commit = next_commit(
                    state,
                    [(f"k{number % 20}", b"%d" % number)],
                    start=1,
                    tombstones=100,
                    whole_below=1 << 20,
                )
                state = SliceState(A, 0, commit, by_key(commit.records))
                await client.publish(
                    "ondemand.log.sg.a", encode(commit), headers={"Nats-Rollup": "sub"}
                )
                if number % 100 == 99:
                    await client.flush()
            await client.close()
            return state

        final = asyncio.run(flood())
        replica = Replica(start)
        follow_until(recorder, replica, final.version)
        assert replica.records == final.live()
        assert reader.snapshot(A) == Snapshot(A, final.version, final.live())
        assert bool(dropped) == bool(pending), f"{len(dropped)} dropped"


class TestClocks:
    """Versions begin at the publisher's clock, in milliseconds; the server's clock is not used."""

    def test_a_publisher_whose_clock_went_back_gives_no_lower_version(self, serve, open_store):
        server = serve()
        now = time.time_ns() // 1_000_000
        before = open_store(server, writer=True, clock_ms=lambda: now)
        behind = open_store(server, writer=True, clock_ms=lambda: now - HOUR_MS)
        reader = open_store(server)
        held = before.write(A, {"k": b"1"})
        assert held > now
        recorder = Recorder()
        watch = reader.watch(recorder)
        watch.follow(A, held)
        watch.follow(B, 0)
        settle()
        version = behind.write(A, {"k": b"2"})
        assert version == held + 1
        other = behind.write(B, {"k": b"1"})
        assert other > now, "a slice that is new is above all that a reader was told of it before"
        recorder.wait_for(lambda events: arrived(A, version)(events) and arrived(B, other)(events))
        assert all(getattr(one, "store", None) is None for one in recorder.events)

    @pytest.mark.parametrize("purged", ["", "ondemand.log.sg.a", "ondemand.*.sg.a"])
    def test_what_is_made_anew_with_such_a_clock_is_known_as_another_history(
        self, serve, open_store, purged
    ):
        """All of the store, or one slice by hand; lower versions count then, since the store says so."""
        server = serve()
        now = time.time_ns() // 1_000_000
        before = open_store(server, writer=True, clock_ms=lambda: now)
        behind = open_store(server, writer=True, clock_ms=lambda: now - HOUR_MS)
        reader = open_store(server, audit_s=0.2)
        held = before.write(A, {"group": encode_record(Group("web"))})
        held = before.write(A, {"group": encode_record(Group("was"))})
        cache = SliceCache(1 << 20)
        cache.hold(A)
        cache.apply(reader.snapshot(A))
        recorder = Recorder()
        reader.watch(recorder, reader.identity()).follow(A, held)
        settle()
        filtered = {"filter": purged} if purged else {}
        assert api(before, "STREAM.PURGE.ondemand", filtered)["success"]
        version = behind.write(A, {"group": encode_record(Group("new"))})
        recorder.wait_for(
            lambda events: any(getattr(one, "version", 0) == version for one in events)
        )
        for event in recorder.of(A):
            assert cache.apply(event).heal is None
        assert cache.whole(A) == {"group": Group("new")}
        assert cache.version(A) == version
        assert purged or version < held

    def test_a_jump_of_a_day_ahead_is_no_trouble_when_it_is_taken_back(self, serve, open_store):
        server = serve()
        now = time.time_ns() // 1_000_000
        clock = [now + 24 * HOUR_MS]
        publisher = open_store(server, writer=True, clock_ms=lambda: clock[0])
        versions = [publisher.write(A, {"k": b"1"})]
        clock[0] = now
        versions += [publisher.write(A, {"k": b"%d" % number}) for number in range(2, 5)]
        assert versions == sorted(set(versions))
        assert publisher.write(B, {"k": b"1"}) > now + 24 * HOUR_MS
        assert open_store(server).get(A, "k").payload == b"4"


def test_a_port_that_nobody_listens_on_fails_in_the_time_that_is_allowed(open_store):
    class Nobody:
        url = f"nats://127.0.0.1:{free_port()}"

    began = time.monotonic()
    with pytest.raises(SourceError, match="Connection refused"):
        open_store(Nobody, timeout_s=0.5).get(A, "k")
    assert time.monotonic() - began < 2.0

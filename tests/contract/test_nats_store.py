"""What a NATS store does beyond the contract: servers that go, come and refuse, and foreign messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import threading
import time

import nats
import pytest

from controller_app.nats_commit import Commit, encode
from controller_app.nats_options import NatsAddress, NatsOptions
from controller_app.nats_store import NatsStore
from controller_app.nats_writer import NatsWriter
from ondemand.publishing import PublishConflictError
from ondemand.slices import Delta, Snapshot, SourceError, SourceState
from tests.contract.backend import Recorder, Replica, follow_until, reaches, settle
from tests.support.nats_server import NatsServer, free_port, needs_nats_server

pytestmark = needs_nats_server

A, B = "sg/a", "sg/b"
LOG_A = "ondemand.log.sg.a"


@pytest.fixture(scope="module")
def any_server(tmp_path_factory):
    made = NatsServer(tmp_path_factory.mktemp("nats"))
    yield made
    made.stop()


@pytest.fixture
def server(any_server):
    """Running and empty; a test may stop it."""
    any_server.start()
    api(any_server, "STREAM.DELETE.ondemand")
    return any_server


@pytest.fixture
def open_store():
    stores = []

    def make(server, *, writer=False, **options):
        url = server if isinstance(server, str) else server.url
        made = NatsStore(NatsAddress((url,)), writer=writer, options=NatsOptions(**options))
        stores.append(made)
        return made

    yield make
    for store in stores:
        store.close()


def raw(server, *messages):
    """Publish (subject, headers, data) as any client may, and return the answers."""

    async def run():
        client = await nats.connect(server.url)
        try:
            return [
                (await client.request(subject, data, timeout=5, headers=headers)).data
                for subject, headers, data in messages
            ]
        finally:
            await client.close()

    return asyncio.run(run())


def api(server, call, arguments=None):
    answer = raw(server, (f"$JS.API.{call}", None, json.dumps(arguments or {}).encode()))
    return json.loads(answer[0])


def raw_headers(server, subject, headers, data=b""):
    """As ``raw``, with header bytes that no client library would send."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as link:
        link.settimeout(5)
        block = b"NATS/1.0\r\n" + headers + b"\r\n\r\n"
        link.sendall(
            b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n'
            + b"HPUB %s %d %d\r\n" % (subject.encode(), len(block), len(block) + len(data))
            + block
            + data
            + b"\r\nPING\r\n"
        )
        said = b""
        while b"PONG" not in said:
            said += link.recv(4096)


class TestServersThatDoNotAnswer:
    def test_a_refused_connection_names_the_server_and_the_reason(self, open_store):
        url = f"nats://127.0.0.1:{free_port()}"
        store = open_store(url, timeout_s=0.3)
        with pytest.raises(SourceError) as caught:
            store.get(A, "k")
        assert url in str(caught.value)
        assert "Connection refused" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_watch_says_so_once_and_waits_for_the_server(self, tmp_path, open_store):
        server = NatsServer(tmp_path)
        store, recorder = open_store(server, timeout_s=0.2), Recorder()
        store.watch(recorder).follow(A, 0)
        recorder.wait_for(len)
        server.start()
        try:
            time.sleep(0.3)
            version = open_store(server, writer=True).write(A, {"k": b"1"})
            recorder.wait_for(lambda events: any(reaches(event, A, version) for event in events))
            lost, back = recorder.states()
            assert "does not answer" in lost.error
            assert back == SourceState(None)
        finally:
            server.stop()

    def test_a_server_without_jetstream_is_told(self, tmp_path, open_store):
        server = NatsServer(tmp_path, configuration="")
        text = server._configuration.read_text().splitlines()
        server._configuration.write_text(text[0] + "\n")
        server.start()
        try:
            with pytest.raises(SourceError, match="nats-server -js"):
                open_store(server).snapshot(A)
        finally:
            server.stop()

    def test_a_stream_that_is_not_there_says_how_to_make_it(self, server, open_store):
        store = open_store(server)
        assert not store.is_there()
        with pytest.raises(SourceError, match=f"slices publish STATE.yaml --store {server.url}"):
            store.snapshot(A)

    def test_a_login_that_is_refused_is_told_and_taken_when_it_is_right(self, tmp_path):
        users = 'authorization { users: [ {user: "host", password: "right"} ] }\n'
        server = NatsServer(tmp_path, configuration=users)
        server.start()
        secret = tmp_path / "password"
        secret.write_text("wrong\n")
        address = NatsAddress((server.url,), user="host", password_file=secret)
        try:
            told = ""
            with NatsStore(address, writer=True, options=NatsOptions(timeout_s=0.5)) as store:
                for _ in range(20):
                    # The end of the connection may overtake what the server says before it.
                    with pytest.raises(SourceError) as caught:
                        store.write(A, {"k": b"1"})
                    told = str(caught.value).lower()
                    if "authorization" in told:
                        break
                secret.write_text("right\n")
                for _ in range(20):
                    if store._link.is_connected:
                        break
                    with contextlib.suppress(SourceError):
                        store.write(A, {"k": b"1"})
                store.write(A, {"k": b"1"})
                assert store.get(A, "k").payload == b"1"
            assert "authorization" in told
        finally:
            server.stop()

    def test_a_password_file_that_is_not_there_is_told(self, server, tmp_path):
        address = NatsAddress((server.url,), user="host", password_file=tmp_path / "none")
        with NatsStore(address, options=NatsOptions(timeout_s=0.3)) as store:
            with pytest.raises(SourceError, match=r"(?i)no such file"):
                store.identity()

    def test_hosts_that_may_only_read_follow_and_cannot_write(self, tmp_path):
        """In one account, with leave to read everything; see test_nats_security for less."""
        server = NatsServer(
            tmp_path,
            configuration="""authorization { users: [
                {user: "publisher", password: "p"}
                {user: "host", password: "h", permissions: {
                    publish: ["$JS.API.DIRECT.GET.ondemand.>", "$JS.API.DIRECT.GET.ondemand",
                              "$JS.API.STREAM.INFO.ondemand",
                              "$JS.API.STREAM.MSG.GET.ondemand"]
                    subscribe: ["ondemand.live.>", "_INBOX.host.>"] }} ] }\n""",
        )
        server.start()
        hosts = server.url.replace("//", "//host:h@")
        publishers = server.url.replace("//", "//publisher:p@")
        try:
            with (
                NatsStore(NatsAddress((publishers,)), writer=True) as publisher,
                NatsStore(NatsAddress((hosts,))) as reader,
                NatsStore(
                    NatsAddress((hosts,)), writer=True, options=NatsOptions(timeout_s=0.3)
                ) as intruder,
            ):
                publisher.write(A, {"k": b"1"})
                recorder = Recorder()
                reader.watch(recorder).follow(A, 0)
                recorder.wait_for(len)
                with pytest.raises(SourceError, match="does not let this user publish"):
                    intruder.write(A, {"k": b"evil"})
                version = publisher.write(A, {"k": b"2"})
                recorder.wait_for(
                    lambda _: any(reaches(one, A, version) for one in recorder.events)
                )
                assert reader.get(A, "k").payload == b"2"
                assert [one.name for one in reader.summaries()] == [A]
                assert ":h@" not in reader.place
                with NatsStore(NatsAddress((publishers,))) as admin:
                    purge = b'{"filter": "ondemand.*.sg.a"}'
                    admin._link.call(
                        lambda: admin._link.request("$JS.API.STREAM.PURGE.ondemand", purge)
                    )
                held = len(recorder.events)
                watch = reader.watch(recorder)
                watch.follow(A, version)
                recorder.wait_for(lambda events: len(events) > held)
                assert recorder.events[-1].records == {}
        finally:
            server.stop()


class TestServersThatComeAndGo:
    def test_restarts_in_the_middle_of_writes_lose_nothing_that_was_confirmed(
        self, server, open_store
    ):
        publisher, reader = open_store(server, writer=True), open_store(server, audit_s=0.3)
        start = Snapshot(A, publisher.write(A, {"k": b"0"}), {"k": b"0"})
        recorder = Recorder()
        reader.watch(recorder).follow(A, start.version)
        stop = threading.Event()
        confirmed: dict[str, bytes] = {}

        def write() -> None:
            number = 0
            is_sure = True
            while not stop.is_set() or not is_sure:
                number += 1
                is_sure = False
                key, payload = f"k{number % 40}", b"%d" % number
                try:
                    publisher.write(A, {key: payload})
                except SourceError:
                    # Perhaps it is there and only its confirmation was lost: say it again.
                    number -= 1
                    continue
                confirmed[key] = payload
                is_sure = True
                time.sleep(0.002)

        thread = threading.Thread(target=write)
        thread.start()
        for _ in range(3):
            time.sleep(0.4)
            server.stop()
            time.sleep(0.2)
            server.start()
        time.sleep(0.5)
        stop.set()
        thread.join()
        final = reader.snapshot(A)
        assert {key: final.records[key] for key in confirmed} == confirmed
        replica = Replica(start)
        follow_until(recorder, replica, final.version)
        assert replica.records == final.records
        states = recorder.states()
        assert all((state.error is None) == bool(at % 2) for at, state in enumerate(states))

    def test_a_connection_that_dies_without_a_word_is_noticed_by_a_request(
        self, server, open_store
    ):
        """Nothing answers at the other end, as when a machine loses its power."""
        listener = socket.create_server(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with pytest.raises(SourceError, match="does not answer"):
                open_store(url, timeout_s=0.3).identity()
        finally:
            listener.close()

    def test_a_client_that_closes_itself_is_replaced(self, server, open_store):
        """As after an error that the library takes for final, 'maximum connections exceeded' say."""
        publisher, reader = open_store(server, writer=True), open_store(server, timeout_s=0.3)
        recorder = Recorder()
        held = publisher.write(A, {"k": b"1"})
        reader.watch(recorder).follow(A, held)
        settle()
        link = reader._link
        link.post(lambda: link.spawn(link._client.close()))
        recorder.wait_for(lambda _: len(recorder.states()) == 2)
        version = publisher.write(A, {"k": b"2"})
        recorder.wait_for(lambda events: any(reaches(event, A, version) for event in events))
        assert reader.get(A, "k").payload == b"2"

    def test_a_question_ends_with_the_connection(self, server, open_store):
        reader = open_store(server, timeout_s=60.0)
        open_store(server, writer=True).write(A, {"k": b"1"})
        reader.get(A, "k")
        failures = []

        def ask():
            try:
                # Nobody answers on this subject, but somebody listens.
                reader._link.call(lambda: reader._link.request("somewhere"))
            except SourceError as error:
                failures.append(error)

        async def listen():
            client = await nats.connect(server.url)
            heard = await client.subscribe("somewhere")
            await client.flush()
            thread = threading.Thread(target=ask)
            thread.start()
            await heard.next_msg(timeout=10)
            reader._link.post(lambda: reader._link.spawn(reader._link._client.force_reconnect()))
            await asyncio.to_thread(thread.join)
            await client.close()

        asyncio.run(listen())
        assert len(failures) == 1
        assert reader.get(A, "k").payload == b"1"

    def test_a_message_that_was_dropped_by_the_client_is_looked_up(
        self, server, open_store, monkeypatch
    ):
        publisher, reader = open_store(server, writer=True), open_store(server, audit_s=1000.0)
        recorder = Recorder()
        held = publisher.write(A, {"k": b"1"})
        watch = reader.watch(recorder)
        watch.follow(A, held)
        settle()
        monkeypatch.setattr(watch, "_receive", lambda name, data: None)
        version = publisher.write(A, {"k": b"2"})
        settle()
        assert recorder.events == []
        error = nats.errors.SlowConsumerError("ondemand.live.sg.a", "", 1, None)
        reader._link.post(lambda: reader._link.spawn(reader._link._failed(error)))
        recorder.wait_for(len)
        assert recorder.of(A)[0].version == version

    def test_a_message_that_was_lost_unseen_is_found_by_the_audit(
        self, server, open_store, monkeypatch
    ):
        publisher, reader = open_store(server, writer=True), open_store(server, audit_s=0.2)
        recorder = Recorder()
        held = publisher.write(A, {"k": b"1"})
        watch = reader.watch(recorder)
        watch.follow(A, held)
        settle()
        monkeypatch.setattr(watch, "_receive", lambda name, data: None)
        version = publisher.write(A, {"k": b"2"})
        recorder.wait_for(len)
        assert recorder.of(A)[0].version == version
        assert recorder.states() == []


class TestStreamsThatAreTamperedWith:
    def test_an_emptied_stream_is_no_store_without_slices(self, server, open_store):
        """What the reader holds stays; and the store that is published then is another one."""
        publisher = open_store(server, writer=True)
        reader = open_store(server, audit_s=0.1)
        recorder = Recorder()
        held = publisher.write(A, {"k": b"1"})
        reader.watch(recorder).follow(A, held)
        settle()
        identity = reader.identity()
        assert api(server, "STREAM.PURGE.ondemand")["success"]
        for ask in (
            lambda: reader.get(A, "k"),
            lambda: reader.snapshot(A),
            lambda: reader.delta(A, 0),
            reader.identity,
        ):
            with pytest.raises(SourceError, match="holds no slices"):
                ask()
        recorder.wait_for(lambda _: recorder.states())
        assert recorder.of(A) == []
        publisher.write(B, {"k": b"2"})
        recorder.wait_for(lambda _: recorder.of(A))
        assert reader.identity() != identity
        snapshot = recorder.of(A)[0]
        assert (snapshot.records, snapshot.store) == ({}, reader.identity())
        version = publisher.write(A, {"k": b"3"})
        recorder.wait_for(lambda events: any(reaches(event, A, version) for event in events))

    def test_a_stream_that_is_deleted_under_a_reader_is_told(self, server, open_store):
        publisher = open_store(server, writer=True)
        reader = open_store(server, timeout_s=0.5, audit_s=0.1)
        recorder = Recorder()
        held = publisher.write(A, {"k": b"1"})
        reader.watch(recorder).follow(A, held)
        settle()
        assert api(server, "STREAM.DELETE.ondemand")["success"]
        with pytest.raises(SourceError, match="does not exist"):
            reader.get(A, "k")
        recorder.wait_for(lambda _: recorder.states())
        publisher.publish({A: {"k": b"2"}}, replace_all=True)
        recorder.wait_for(lambda _: recorder.of(A))
        assert recorder.of(A)[0] == Snapshot(
            A, reader.snapshot(A).version, {"k": b"2"}, reader.identity()
        )

    def test_one_slice_that_is_taken_away_is_seen_at_the_audit(self, server, open_store):
        publisher, reader = open_store(server, writer=True), open_store(server, audit_s=0.1)
        recorder = Recorder()
        held = publisher.write(A, {"k": b"1"})
        reader.watch(recorder).follow(A, held)
        settle()
        assert api(server, "STREAM.PURGE.ondemand", {"filter": "ondemand.*.sg.a"})["success"]
        recorder.wait_for(lambda _: recorder.of(A))
        assert recorder.of(A)[0].records == {}
        version = publisher.write(A, {"k": b"2"})
        assert version > held
        recorder.wait_for(lambda events: any(reaches(event, A, version) for event in events))
        assert reader.get(A, "k").payload == b"2"

    def test_a_stream_of_another_program_is_left_alone(self, server, open_store):
        config = {"name": "ondemand", "subjects": ["orders.>"], "storage": "memory"}
        assert "error" not in api(server, "STREAM.CREATE.ondemand", config)
        with pytest.raises(SourceError, match="cannot hold slices, because its subjects"):
            open_store(server, writer=True).write(A, {"k": b"1"})
        assert api(server, "STREAM.INFO.ondemand")["state"]["messages"] == 0

    def test_a_newer_format_is_told(self, server, open_store):
        open_store(server, writer=True).write(A, {"k": b"1"})
        raw(server, ("ondemand.log.store", None, b"\x93\x63\xa1x\x01"))
        with pytest.raises(SourceError, match="format 99, written by a newer release"):
            open_store(server).get(A, "k")


def commit(version=1 << 50, *records, name=A, base_version=0, base="", parts=0, oldest=1):
    return encode(Commit(name, version, 4, oldest, base_version, base, parts, records))


GARBAGE = {
    "nothing": b"",
    "text": b"hello",
    "another type": b"\x98\xa4sg/a\xa1x\x00\x00\x00\xa0\x00\x90",
    "half a commit": commit(5, ("k", 5, b"v"))[:-2],
    "another slice's": commit(1 << 50, ("k", 5, b"v"), name=B),
    "a key twice": commit(1 << 50, ("k", 5, b"v"), ("k", 6, b"w")),
    "versions backwards": commit(1 << 50, ("k", 6, b"v"), ("l", 5, b"")),
    "a version above its own": commit(5, ("k", 6, b"v")),
    "a base of other subjects": commit(1 << 50, base_version=3, base="0.*.>", parts=1),
    "a base without an end": commit(1 << 50, base_version=3, base="abc", parts=1)[:-4]
    + b"\xcd\xff\xff\x90",
    "deep": b"\x91" * 100_000,
    "an array that promises 4 billion": commit(1 << 50)[:-1] + b"\xdd\xff\xff\xff\xff",
    "a text that promises 4 GB": b"\x98\xdb\xff\xff\xff\xff",
    "a million small records": commit(1 << 50)[:-1]
    + b"\xdd\x00\x03\x00\x00"
    + b"\x93\xa0\x01\xc0" * 0x30000,
    "the largest version": commit((1 << 64) - 1),
}


class TestForeignMessages:
    @pytest.mark.parametrize(
        "part", [None, b"", b"hello", b"\x91" * 1000, encode((("k", 4, b"w"),))]
    )
    def test_a_commit_whose_base_is_not_there_or_is_something_else_is_passed_over(
        self, server, open_store, part
    ):
        publisher, reader = open_store(server, writer=True), open_store(server)
        version = publisher.write(A, {"k": b"1"})
        if part is not None:
            raw(server, ("ondemand.part.sg.a.abc.0", None, part))
        raw(server, (LOG_A, None, commit(base_version=3, base="abc", parts=1)))
        assert reader.snapshot(A) == Snapshot(A, version, {"k": b"1"})
        assert reader.get(A, "k").payload == b"1"
        version = publisher.write(A, {"k": b"2"})
        assert reader.snapshot(A) == Snapshot(A, version, {"k": b"2"})

    def test_a_base_of_more_bytes_than_a_slice_may_have_is_not_read_to_its_end(
        self, server, open_store, monkeypatch
    ):
        monkeypatch.setattr("controller_app.nats_reader.MAX_BASE_BYTES", 5000)
        publisher, reader = open_store(server, writer=True), open_store(server)
        version = publisher.write(A, {"k": b"1"})
        parts = [(f"ondemand.part.sg.a.abc.{n}", None, bytes(1000)) for n in range(40)]
        raw(server, *parts, (LOG_A, None, commit(base_version=3, base="abc", parts=40)))
        assert reader.snapshot(A) == Snapshot(A, version, {"k": b"1"})

    @pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
    def test_what_is_no_commit_is_passed_over_and_mended_by_the_next_publish(
        self, server, open_store, garbage
    ):
        publisher, reader = open_store(server, writer=True), open_store(server)
        version = publisher.write(A, {"k": b"1"})
        other = publisher.write(B, {"k": b"1"})
        recorder = Recorder()
        watch = reader.watch(recorder)
        watch.follow(A, version)
        watch.follow(B, other)
        settle()
        raw(server, (LOG_A, None, garbage))
        assert reader.snapshot(A) == Snapshot(A, version, {"k": b"1"})
        assert reader.get(A, "k").payload == b"1"
        assert reader.delta(A, version) == Delta(A, version, version, ())
        other = publisher.write(B, {"k": b"2"})
        recorder.wait_for(lambda events: any(reaches(event, B, other) for event in events))
        assert recorder.of(A) == []
        result = publisher.publish({A: {"k": b"1", "l": b"2"}}, replace_all=False)
        recorder.wait_for(lambda _: recorder.of(A))
        assert recorder.of(A)[-1].version == result.slices[A].version
        assert reader.snapshot(A).records == {"k": b"1", "l": b"2"}
        messages = api(server, "STREAM.INFO.ondemand", {"subjects_filter": LOG_A})
        assert messages["state"]["subjects"][LOG_A] == 1
        assert recorder.states() == []

    @pytest.mark.parametrize(
        "headers",
        [
            b"no colon",
            b": empty",
            b"\xff\xfe: \xff",
            b"Status: 503",
            b" 503 gone",
            b"Nats-Sequence: 7",
        ],
    )
    def test_hostile_headers_stop_nobody(self, server, open_store, headers):
        publisher, reader = open_store(server, writer=True), open_store(server)
        version = publisher.write(A, {"k": b"1"})
        recorder = Recorder()
        reader.watch(recorder).follow(A, version)
        settle()
        raw_headers(server, LOG_A, headers, b"x")
        settle()
        assert reader.snapshot(A) == Snapshot(A, version, {"k": b"1"})
        version = publisher.write(A, {"k": b"2"})
        recorder.wait_for(lambda events: any(reaches(event, A, version) for event in events))
        assert reader.get(A, "k").payload == b"2"
        assert recorder.states() == []

    def test_publishing_what_is_there_mends_too(self, server, open_store):
        publisher, reader = open_store(server, writer=True), open_store(server)
        version = publisher.write(A, {"k": b"1"})
        raw(server, (LOG_A, None, b"hello"))
        assert publisher.publish({A: {"k": b"1"}}, replace_all=False).written == 0
        messages = api(server, "STREAM.INFO.ondemand", {"subjects_filter": LOG_A})
        assert messages["state"]["subjects"][LOG_A] == 1
        assert reader.snapshot(A) == Snapshot(A, version, {"k": b"1"})

    def test_only_garbage_is_a_slice_that_was_never_written(self, server, open_store):
        publisher, reader = open_store(server, writer=True), open_store(server)
        publisher.write(B, {"k": b"1"})
        raw(server, (LOG_A, None, b"hello"), ("ondemand.log.what.is.this", None, b"x"))
        assert reader.snapshot(A) == Snapshot(A, 0, {})
        assert reader.get(A, "k").payload is None
        assert [one.name for one in reader.summaries()] == [B]
        publisher.publish({B: {"k": b"1"}}, replace_all=True)
        publisher.write(A, {"k": b"2"})
        assert reader.snapshot(A).records == {"k": b"2"}

    @pytest.mark.parametrize("garbage", [b"", b"hello", b"\x80", b"\x93\x01\x02\x03"])
    def test_a_live_message_that_did_not_come_from_the_stream_changes_nothing(
        self, server, open_store, garbage
    ):
        publisher, reader = open_store(server, writer=True), open_store(server)
        version = publisher.write(A, {"k": b"1"})
        recorder = Recorder()
        reader.watch(recorder).follow(A, version)
        settle()

        async def forge():
            client = await nats.connect(server.url)
            for subject in ("ondemand.live.sg.a", "ondemand.live.store"):
                await client.publish(subject, garbage)
            await client.close()

        asyncio.run(forge())
        settle()
        assert recorder.events == []
        version = publisher.write(A, {"k": b"2"})
        recorder.wait_for(lambda events: any(reaches(event, A, version) for event in events))


class TestForks:
    def test_a_commit_that_was_let_through_beside_another_leads_to_the_leaders_state(
        self, server, open_store
    ):
        """As a server of a cluster lets two commits follow the same one: here told by hand."""
        publisher, reader = open_store(server, writer=True), open_store(server)
        version = publisher.write(A, {"k": b"1"})
        recorder = Recorder()
        reader.watch(recorder).follow(A, version)
        settle()
        data = encode(
            Commit(A, version, version - 1, version - 1, 0, "", 0, (("k", version, b"2"),))
        )
        # Takes the place of the one before it, at the same version.
        raw(server, (LOG_A, {"Nats-Rollup": "sub"}, data))
        settle()
        assert recorder.of(A) == [], "no version tells it"

        async def tell():
            client = await nats.connect(server.url)
            headers = {"Nats-Expected-Last-Subject-Sequence": "1", "Nats-Last-Sequence": "2"}
            await client.publish("ondemand.live.sg.a", data, headers=headers)
            await client.close()

        asyncio.run(tell())
        recorder.wait_for(len)
        assert recorder.events == [Snapshot(A, version, {"k": b"2"}, reader.identity())]
        version = publisher.write(A, {"k": b"3"})
        recorder.wait_for(lambda events: any(reaches(event, A, version) for event in events))
        assert isinstance(recorder.events[-1], Delta)


class TestPublishers:
    def test_a_store_is_not_seen_before_its_first_publish_is_complete(
        self, server, open_store, monkeypatch
    ):
        """Or agents would drop what they hold of slices that are not there yet."""
        publisher, reader = open_store(server, writer=True), open_store(server)
        seen = []
        commit = NatsWriter._commit

        async def look(self, *arguments):
            version = await commit(self, *arguments)
            seen.append(await asyncio.to_thread(reader.is_there))
            return version

        monkeypatch.setattr(NatsWriter, "_commit", look)
        publisher.publish({A: {"k": b"1"}, B: {"k": b"2"}}, replace_all=True)
        assert seen == [False, False]
        assert reader.snapshot(B).records == {"k": b"2"}

    def test_what_an_expected_version_meets_too_late_is_a_conflict(
        self, server, open_store, monkeypatch
    ):
        """Another publisher comes between the look and the write."""
        publisher, other = open_store(server, writer=True), open_store(server, writer=True)
        version = publisher.write(A, {"k": b"1"})
        commit = NatsWriter._commit

        async def late(self, *arguments):
            if self is publisher._writer:
                await asyncio.to_thread(other.write, A, {"k": b"2"})
            return await commit(self, *arguments)

        monkeypatch.setattr(NatsWriter, "_commit", late)
        with pytest.raises(PublishConflictError) as caught:
            publisher.publish({A: {"k": b"3"}}, replace_all=False, expected={A: version})
        assert caught.value.expected == version
        assert publisher.get(A, "k").payload == b"2"

    def test_parts_of_older_and_of_unfinished_commits_are_dropped(self, server, open_store):
        small = {"part_bytes": 1000, "whole_below": 0}
        publisher, reader = open_store(server, writer=True, **small), open_store(server)
        publisher.write(B, {"k": b""})
        raw(server, ("ondemand.part.sg.a.ab.0", None, b"x"))
        rng = random.Random(1)
        for _ in range(30):
            records = {f"k{number}": rng.randbytes(100) for number in range(50)}
            publisher.publish({A: records}, replace_all=False)
            assert reader.snapshot(A).records == records
        state = api(server, "STREAM.INFO.ondemand", {"subjects_filter": "ondemand.part.>"})["state"]
        assert len(state["subjects"]) <= 8
        assert "ondemand.part.sg.a.ab.0" not in state["subjects"]
        publisher.publish({A: {"k": b"1"}}, replace_all=False)
        state = api(server, "STREAM.INFO.ondemand", {"subjects_filter": "ondemand.part.>"})["state"]
        assert "subjects" not in state
        assert reader.snapshot(A).records == {"k": b"1"}

    def test_a_slice_stays_a_few_messages_whatever_is_done_to_it(self, server, open_store):
        publisher, reader = open_store(server, writer=True), open_store(server)
        records = {f"k{number}": b"x" * 100 for number in range(1000)}
        publisher.publish({A: records}, replace_all=False)
        for number in range(200):
            records[f"k{number}"] = b"y"
            publisher.write(A, {f"k{number}": b"y"})
        assert reader.snapshot(A).records == records
        state = api(server, "STREAM.INFO.ondemand", {"subjects_filter": LOG_A})["state"]
        assert state["subjects"][LOG_A] == 1
        assert state["bytes"] < 5 * 1000 * 120

    def test_a_reader_cannot_write(self, server, open_store):
        with pytest.raises(SourceError, match="reading only"):
            open_store(server).write(A, {"k": b"1"})

    def test_asking_from_inside_the_call_is_refused_instead_of_waiting_for_ever(
        self, server, open_store
    ):
        publisher, reader = open_store(server, writer=True), open_store(server)
        publisher.write(A, {"k": b"1"})
        met = threading.Event()

        def receive(_):
            with pytest.raises(RuntimeError, match="inside the call"):
                reader.get(A, "k")
            met.set()

        reader.watch(receive).follow(A, 0)
        assert met.wait(10)

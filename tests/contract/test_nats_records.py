"""Single records from a NATS server by the short way, beside the reader's, which makes sense of everything."""

from __future__ import annotations

import threading
import time

import nats
import pytest

from controller_app.nats_options import NatsAddress, NatsOptions
from controller_app.nats_store import NatsStore
from ondemand.slices import SourceError
from tests.support.nats_server import NatsServer, needs_nats_server
from tests.support.nats_slow_link import SlowLink

pytestmark = needs_nats_server

SHARD, OTHER, EMPTY = "nbr/v/10.0.0.0", "nbr/v/10.0.1.0", "nbr/v/10.0.2.0"
ROWS = {f"10.0.0.{number}": bytes([number]) * 70 for number in range(200)}


@pytest.fixture
def server(tmp_path):
    server = NatsServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def open_store():
    stores = []

    def make(server, *, writer=False, **options):
        address = NatsAddress((server.url,))
        stores.append(NatsStore(address, writer=writer, options=NatsOptions(**options)))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def by_the_reader(store, places):
    return store._link.call(lambda: store._reader.get_many(places))


@pytest.fixture
def left_to_the_reader(monkeypatch):
    """The places of which the reader was asked to make sense."""
    asked = []

    def watch(store):
        get_many = store._reader.get_many

        async def told(places):
            asked.extend(places)
            return await get_many(places)

        monkeypatch.setattr(store._reader, "get_many", told)
        return asked

    return watch


class TestAnswers:
    def test_a_commit_tells_records_with_and_without_its_base(
        self, server, open_store, left_to_the_reader
    ):
        publisher, reader = open_store(server, writer=True), open_store(server)
        publisher.write(SHARD, ROWS)
        reader.get(SHARD, "10.0.0.1")
        places = [(SHARD, key) for key in (*ROWS, "10.0.0.250", "10.0.0.251")]
        asked = left_to_the_reader(reader)
        found = [reader.get_many(places)]
        # New, changed and gone since the base; and what is only in the base, or nowhere.
        version = publisher.write(
            SHARD, {"10.0.0.250": b"new", "10.0.0.3": b"changed", "10.0.0.4": None}
        )
        commit = reader._link.call(lambda: reader._reader.load(SHARD)).head
        assert commit.parts == 1
        assert [reader.get(SHARD, key).payload for key in ("10.0.0.250", "10.0.0.3")] == [
            b"new",
            b"changed",
        ]
        assert [reader.get(SHARD, key).payload for key in ("10.0.0.4", "10.0.0.251")] == [None] * 2
        assert reader.get(SHARD, "10.0.0.5").payload == ROWS["10.0.0.5"]
        found.append(reader.get_many(places))
        assert asked == []
        assert {one.version for one in found[1]} == {version}
        held = [reader.snapshot(SHARD).records.get(key) for _, key in places]
        assert [one.payload for one in found[1]] == held
        assert found[1] == by_the_reader(reader, places)
        assert found[0] != found[1]

    def test_a_base_in_pieces_and_a_slice_that_is_not_there_are_left_to_the_reader(
        self, server, open_store, left_to_the_reader
    ):
        publisher, reader = open_store(server, writer=True, part_bytes=4096), open_store(server)
        publisher.write(SHARD, ROWS)
        publisher.write(SHARD, {"10.0.0.3": b"changed"})
        publisher.write(OTHER, {"10.0.1.1": b"other"})
        reader.get(OTHER, "10.0.1.1")
        asked = left_to_the_reader(reader)
        places = [(EMPTY, "10.0.2.1"), (SHARD, "10.0.0.5"), (OTHER, "10.0.1.1")]
        found = reader.get_many(places)
        assert [one.payload for one in found] == [None, ROWS["10.0.0.5"], b"other"]
        assert found[0].version == 0
        assert asked == places[:2]

    def test_more_slices_than_may_be_asked_at_once(self, server, open_store):
        publisher, reader = open_store(server, writer=True), open_store(server, in_flight=4)
        slices = {f"nbr/v/10.1.{number}.0": {"k": bytes([number])} for number in range(23)}
        publisher.publish(slices, replace_all=False)
        places = [(name, "k") for name in slices]
        for _ in range(2):
            found = reader.get_many([*places, places[0]])
            assert [one.payload for one in found] == [*(bytes([n]) for n in range(23)), b"\0"]

    def test_what_is_no_commit_is_passed_over(self, server, open_store):
        publisher, reader = open_store(server, writer=True), open_store(server)
        publisher.write(SHARD, {"k": b"1"})
        assert reader.get(SHARD, "k").payload == b"1"
        link, subject = publisher._link, publisher._reader.subjects.log(SHARD)
        link.call(lambda: link.request(subject, b"garbage"))
        assert reader.get(SHARD, "k").payload == b"1"

    def test_a_message_with_the_header_of_nobody_answers_is_no_lost_stream(
        self, server, open_store
    ):
        publisher, reader = open_store(server, writer=True), open_store(server)
        publisher.write(SHARD, {"k": b"1"})
        assert reader.get(SHARD, "k").payload == b"1"
        link, subject = publisher._link, publisher._reader.subjects.log(SHARD)
        link.call(lambda: link.request(subject, b"garbage", {"Status": "503"}))
        assert reader.get(SHARD, "k").payload == b"1"


class TestLostAnswers:
    """Reads that are on their way, of which the server never hears or whose answer never comes."""

    @pytest.fixture
    def stalled(self, server, open_store):
        """Gives a store, made so that nothing comes from its server any more, and the link to it."""
        open_store(server, writer=True).write(SHARD, {"k": b"1"})
        slow = SlowLink(server.port)

        def stall(**options):
            reader = open_store(slow, **options)
            assert reader.get(SHARD, "k").payload == b"1"
            slow.is_stalled = True
            return reader, slow

        yield stall
        slow.close()

    @staticmethod
    def begin(reader):
        """A read in another thread that waits for its answer, and the list of its error."""
        errors = []

        def ask():
            try:
                reader.get(SHARD, "k")
            except SourceError as error:
                errors.append(str(error))

        thread = threading.Thread(target=ask)
        thread.start()
        end_s = time.monotonic() + 10.0
        while not reader._link.questions._open:
            assert time.monotonic() < end_s, "it was not asked"
            time.sleep(0.001)
        return thread, errors

    def test_a_read_ends_with_the_connection(self, stalled):
        reader, slow = stalled(timeout_s=60.0)
        thread, errors = self.begin(reader)
        link = reader._link
        link.post(lambda: link.spawn(link._client.force_reconnect()))
        thread.join(10.0)
        assert len(errors) == 1
        assert "does not answer" in errors[0]
        slow.is_stalled = False
        assert reader.get(SHARD, "k").payload == b"1"

    def test_a_read_ends_with_the_store(self, stalled):
        reader, _ = stalled(timeout_s=60.0)
        thread, errors = self.begin(reader)
        reader.close()
        thread.join(10.0)
        assert len(errors) == 1
        with pytest.raises(SourceError, match="was closed by this program"):
            reader.get(SHARD, "k")

    def test_what_nobody_waits_for_any_more_is_forgotten(self, stalled):
        reader, slow = stalled(timeout_s=0.3)
        with pytest.raises(SourceError, match="does not answer"):
            reader.get(SHARD, "k")
        assert reader._link.questions._open == {}
        # The answers that come late are nobody's.
        slow.is_stalled = False
        assert reader.get(SHARD, "k").payload == b"1"


def test_a_stream_that_is_gone_is_said_to_be_gone(server, open_store):
    publisher, reader = open_store(server, writer=True), open_store(server, timeout_s=0.3)
    publisher.write(SHARD, {"k": b"1"})
    assert reader.get(SHARD, "k").payload == b"1"
    link = publisher._link
    assert link.call(lambda: link.api("STREAM.DELETE.ondemand", {}))["success"]
    with pytest.raises(SourceError, match="does not exist"):
        reader.get(SHARD, "k")


def test_answers_do_not_come_to_others(server, open_store):
    """Each client has an inbox of its own, which is not told to anybody but the server."""
    publisher, reader = open_store(server, writer=True), open_store(server)
    publisher.write(SHARD, {"k": b"1"})
    inboxes = {store._link.questions._inbox for store in (publisher, reader) if store.is_there()}
    assert len(inboxes) == 2
    assert all(
        one.startswith(f"{nats.aio.client.DEFAULT_INBOX_PREFIX.decode()}.") for one in inboxes
    )

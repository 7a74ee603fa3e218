"""Three replicas, servers that are killed and come back, and a publisher that goes on all the time."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from controller_app.nats_options import NatsOptions
from controller_app.nats_store import NatsStore
from ondemand.codec import encode_record
from ondemand.records import Group
from ondemand.slice_cache import SliceCache
from ondemand.slices import SourceError, SourceState
from tests.contract.backend import Recorder
from tests.support.nats_cluster import NatsCluster, wait_for
from tests.support.nats_server import needs_nats_server
from tests.support.world_builder import allow

pytestmark = needs_nats_server

SG = "sg/web"
KEYS = 40
OPTIONS = NatsOptions(audit_s=1.0)


@pytest.fixture
def cluster(tmp_path):
    made = NatsCluster(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def record(number):
    """The change with this number: no other one has the same record."""
    return allow("ingress", "tcp", number, rule_id=f"r{number % KEYS}")


class Follower:
    """A source that follows one slice into a cache, as an agent does."""

    def __init__(self, cluster):
        self.store = NatsStore(cluster.address(), options=OPTIONS)
        self.cache = SliceCache(1 << 20)
        self.cache.hold(SG)
        self.recorder = Recorder()
        self.watch = self.store.watch(self.recorder)
        snapshot = self.store.snapshot(SG)
        self.applied = Counter()
        self.enter(snapshot)
        self.watch.follow(SG, snapshot.version)
        self.seen = 0

    def enter(self, event):
        applied = self.cache.apply(event)
        assert applied.heal is None, "a gap"
        assert not applied.errors
        self.applied.update((change.key, change.new) for change in applied.changes)

    def catch_up(self, version):
        """Let the cache have all that came, until it is at ``version``."""

        def is_there(events):
            for event in events[self.seen :]:
                if not isinstance(event, SourceState):
                    before = self.cache.version(SG)
                    assert event.version > before, "a change that was told before"
                    self.enter(event)
            self.seen = len(events)
            return self.cache.version(SG) >= version

        self.recorder.wait_for(is_there)


class Writer:
    """Writes one change after another, and each again until it is confirmed."""

    def __init__(self, cluster):
        self.store = NatsStore(cluster.address(), writer=True, options=OPTIONS)
        self.store.write(SG, {"group": encode_record(Group("web"))})
        self.confirmed = 0
        self.retried = 0
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        number, start = 1, time.monotonic()
        while not (self._stop.is_set() and self.confirmed == number - 1):
            one = record(number)
            try:
                self.store.write(SG, {one.key: encode_record(one)})
            except SourceError:
                self.retried += 1
                time.sleep(0.05)
                continue
            self.confirmed = number
            self.longest_s = max(self.longest_s, time.monotonic() - start)
            number += 1
            time.sleep(0.002)
            start = time.monotonic()

    def wait(self, more):
        """Until so many changes more are confirmed."""
        until = self.confirmed + more
        wait_for(lambda: self.confirmed >= until)

    def stop(self):
        self._stop.set()
        self._thread.join()


def test_no_change_is_lost_or_told_twice_while_servers_die(cluster):
    """One that only follows, the one that leads the stream, and the one that a source is connected to."""
    writer = Writer(cluster)
    followers = [Follower(cluster) for _ in range(3)]
    reader = NatsStore(cluster.address(), options=OPTIONS)
    stop, answers, refusals = threading.Event(), [], []

    def read():
        while not stop.is_set():
            try:
                answers.append(reader.get(SG, "group").payload)
            except SourceError as error:
                refusals.append(str(error))
            time.sleep(0.005)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        writer.wait(50)
        for victim in ("follower", "leader", "connected"):
            leader = cluster.leader()
            connected = cluster.name_of(reader._link._client.connected_url.port)
            name = {
                "leader": leader,
                "connected": connected,
                "follower": next(one for one in cluster.servers if one not in (leader, connected)),
            }[victim]
            cluster.servers[name].stop()
            writer.wait(20)
            cluster.servers[name].start()
            cluster.wait_current()
            writer.wait(20)
    finally:
        writer.stop()
        stop.set()
        thread.join()
    try:
        final = writer.store.snapshot(SG)
        expected = {
            record(number).key: encode_record(record(number))
            for number in range(1, writer.confirmed + 1)
        }
        assert final.records == {"group": encode_record(Group("web")), **expected}
        for follower in followers:
            follower.catch_up(final.version)
            assert follower.cache.version(SG) == final.version
            held = follower.cache.whole(SG)
            assert {key: encode_record(one) for key, one in held.items()} == final.records
            assert set(follower.applied.values()) == {1}, "applied twice"
            assert all(state.error is None for state in follower.recorder.states()[-1:])
            follower.store.close()
        assert set(answers) == {encode_record(Group("web"))}
        assert reader.get(SG, "group").payload == answers[0]
    finally:
        writer.store.close()
        reader.close()
        for follower in followers:
            follower.store.close()

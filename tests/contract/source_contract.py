"""The contract of a source of slices, as tests. A source's own test module derives from the classes
here and brings a ``backend`` fixture; nothing here knows what the source is.
"""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest

from ondemand.publishing import PublishConflictError, SliceCounts
from ondemand.slices import Delta, SliceNameError, Snapshot, SourceError, SourceState, TooOld
from tests.contract.backend import (
    Recorder,
    Replica,
    apply_changes,
    check_chain,
    follow_until,
    reaches,
    settle,
)

A, B, C = "sg/a", "sg/b", "nbr/v/10.0.0.0"


class ReadingContract:
    """get, snapshot and delta."""

    def test_a_slice_that_was_never_written_is_empty_at_version_0(self, backend):
        backend.publisher().write(B, {"k": b"1"})
        source = backend.source()
        assert source.get(A, "k").version == 0
        assert source.get(A, "k").payload is None
        assert source.snapshot(A) == Snapshot(A, 0, {})
        assert source.delta(A, 0) == Delta(A, 0, 0, ())

    def test_get_gives_a_record_or_its_absence_with_the_version_of_the_slice(self, backend):
        version = backend.publisher().write(A, {"k": b"1", "empty": b""})
        source = backend.source()
        found = source.get(A, "k")
        assert (found.slice, found.key, found.version, found.payload) == (A, "k", version, b"1")
        assert source.get(A, "empty").payload == b""
        absent = source.get(A, "other")
        assert (absent.version, absent.payload) == (version, None)

    def test_get_many_answers_as_get_does_in_the_order_asked(self, backend):
        publisher = backend.publisher()
        publisher.write(A, {"k": b"1", "l": b"2"})
        publisher.write(B, {"k": b"3"})
        source = backend.source()
        places = [(B, "k"), (A, "l"), (A, "gone"), (A, "k"), (A, "l")]
        assert source.get_many(places) == [source.get(*place) for place in places]
        assert source.get_many([]) == []

    def test_a_removed_record_is_absent_at_the_version_of_its_removal(self, backend):
        publisher, source = backend.publisher(), backend.source()
        first = publisher.write(A, {"k": b"1", "l": b"2"})
        second = publisher.write(A, {"k": None})
        assert second > first
        assert source.get(A, "k").payload is None
        assert source.get(A, "k").version == second
        assert source.snapshot(A) == Snapshot(A, second, {"l": b"2"})

    def test_keys_and_payloads_come_back_as_they_went(self, backend):
        records = {
            "ip/fd00::1": bytes(range(256)),
            "route/r/10.0.0.0/8": b"\0",
            "claim/10.0.0.0/24/p/02:00:00:00:00:01": b"x" * 70_000,
        }
        backend.publisher().publish({C: records}, replace_all=False)
        source = backend.source()
        assert source.snapshot(C).records == records
        assert {key: source.get(C, key).payload for key in records} == records

    def test_slices_do_not_mix(self, backend):
        publisher, source = backend.publisher(), backend.source()
        publisher.write(A, {"k": b"a"})
        publisher.write(B, {"k": b"b"})
        assert source.get(A, "k").payload == b"a"
        assert source.get(B, "k").payload == b"b"

    def test_a_delta_lists_changes_in_order_each_following_the_one_before(self, backend):
        publisher, source = backend.publisher(), backend.source()
        since = publisher.write(A, {"k": b"1"})
        publisher.write(A, {"l": b"2"})
        publisher.write(A, {"m": b"3"})
        version = publisher.write(A, {"k": b"4"})
        delta = source.delta(A, since)
        assert isinstance(delta, Delta)
        assert [(change.key, change.payload) for change in delta.changes] == [
            ("l", b"2"),
            ("m", b"3"),
            ("k", b"4"),
        ]
        assert (delta.since, delta.version) == (since, version)
        check_chain(delta)
        assert delta.changes[-1].version == version

    def test_a_delta_from_the_current_version_is_empty(self, backend):
        version = backend.publisher().write(A, {"k": b"1"})
        assert backend.source().delta(A, version) == Delta(A, version, version, ())

    def test_a_delta_from_version_0_gives_all_records(self, backend):
        publisher, source = backend.publisher(), backend.source()
        publisher.write(A, {"k": b"1", "l": b"2"})
        version = publisher.write(A, {"k": None, "m": b"3"})
        delta = source.delta(A, 0)
        assert isinstance(delta, Delta)
        check_chain(delta)
        records: dict[str, bytes] = {}
        apply_changes(records, delta)
        assert records == {"l": b"2", "m": b"3"}
        assert delta.version == version

    def test_a_delta_holds_tombstones_and_what_came_back(self, backend):
        publisher, source = backend.publisher(), backend.source()
        since = publisher.write(A, {"k": b"1", "l": b"2"})
        publisher.write(A, {"k": None, "l": None})
        publisher.write(A, {"l": b"3"})
        delta = source.delta(A, since)
        assert isinstance(delta, Delta)
        assert {change.key: change.payload for change in delta.changes} == {"k": None, "l": b"3"}

    def test_a_version_that_is_too_old_is_told_and_the_snapshot_helps(self, backend):
        since = backend.publisher().write(A, {"k": b"1"})
        backend.forget_history(A)
        source = backend.source()
        answer = source.delta(A, since)
        assert isinstance(answer, TooOld)
        assert (answer.slice, answer.since) == (A, since)
        assert answer.oldest > since
        snapshot = source.snapshot(A)
        assert source.delta(A, snapshot.version) == Delta(A, snapshot.version, snapshot.version, ())

    def test_a_version_that_the_slice_never_had_is_too_old(self, backend):
        version = backend.publisher().write(A, {"k": b"1"})
        source = backend.source()
        assert isinstance(source.delta(A, version + 1), TooOld)
        assert isinstance(source.delta(B, 7), TooOld)

    def test_several_threads_read_while_one_writes_and_see_whole_versions(self, backend):
        """Every publish writes the same number into all records, so a mixture shows."""
        keys = [f"k{number}" for number in range(20)]
        publisher, source = backend.publisher(), backend.source()
        publisher.publish({A: dict.fromkeys(keys, b"0")}, replace_all=False)
        stop = threading.Event()
        failures: list[str] = []

        def read() -> None:
            last = 0
            while not stop.is_set():
                snapshot = source.snapshot(A)
                if len(set(snapshot.records.values())) != 1 or len(snapshot.records) != 20:
                    failures.append(f"mixed: {snapshot}")
                if snapshot.version < last:
                    failures.append(f"version went back from {last} to {snapshot.version}")
                last = snapshot.version
                if source.get(A, "k3").version < last:
                    failures.append("get is older than the snapshot before it")

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1, 60):
            publisher.publish({A: dict.fromkeys(keys, b"%d" % number)}, replace_all=False)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert set(source.snapshot(A).records.values()) == {b"59"}

    @pytest.mark.parametrize("seed", range(5))
    def test_deltas_from_any_version_lead_to_the_snapshot(self, backend, seed):
        rng = random.Random(seed)
        publisher, source = backend.publisher(), backend.source()
        seen = [source.snapshot(A)]
        for _ in range(40):
            changes = {
                rng.choice("abcdef"): rng.choice([None, b"1", b"2", b"3"])
                for _ in range(rng.randint(1, 3))
            }
            publisher.write(A, changes)
            seen.append(source.snapshot(A))
        last = seen[-1]
        for snapshot in seen:
            records = dict(snapshot.records)
            delta = source.delta(A, snapshot.version)
            if isinstance(delta, Delta):
                check_chain(delta)
                apply_changes(records, delta)
                assert (records, delta.version) == (last.records, last.version)
            else:
                assert snapshot.version < delta.oldest

    def test_a_closed_source_says_so(self, backend):
        backend.publisher().write(A, {"k": b"1"})
        source = backend.source()
        source.get(A, "k")
        source.close()
        for ask in (
            lambda: source.get(A, "k"),
            lambda: source.snapshot(A),
            lambda: source.delta(A, 0),
        ):
            with pytest.raises(SourceError, match="closed"):
                ask()

    def test_a_lost_source_raises_and_answers_again_when_it_is_back(self, backend):
        backend.publisher().write(A, {"k": b"1"})
        source = backend.source()
        assert source.get(A, "k").payload == b"1"
        backend.lose()
        with pytest.raises(SourceError):
            source.get(A, "k")
        with pytest.raises(SourceError):
            source.snapshot(A)
        backend.restore()
        assert source.get(A, "k").payload == b"1"


class IdentityContract:
    """identity, and what another store means to who holds slices."""

    def test_all_readers_see_one_identity_that_no_write_changes(self, backend):
        publisher, source = backend.publisher(), backend.source()
        identity = source.identity()
        assert identity
        publisher.publish({A: {"k": b"1"}}, replace_all=True)
        publisher.write(A, {"k": None})
        assert source.identity() == backend.source().identity() == identity

    def test_a_store_made_anew_has_another_identity(self, backend):
        source = backend.source()
        identity = source.identity()
        backend.make_anew()
        assert source.identity() == backend.source().identity() != identity

    def test_a_lost_store_has_its_identity_when_it_is_back(self, backend):
        source = backend.source()
        identity = source.identity()
        backend.lose()
        with pytest.raises(SourceError):
            source.identity()
        backend.restore()
        assert source.identity() == identity

    def test_a_closed_source_has_none(self, backend):
        source = backend.source()
        source.close()
        with pytest.raises(SourceError, match="closed"):
            source.identity()

    def test_a_store_made_anew_is_told_with_the_snapshots_of_all_that_is_followed(self, backend):
        publisher, source = backend.publisher(), backend.source()
        recorder = Recorder()
        watch = source.watch(recorder)
        for name in (A, B):
            watch.follow(name, publisher.write(name, {"k": b"1"}))
        settle()
        backend.make_anew()
        recorder.wait_for(lambda _: recorder.of(A) and recorder.of(B))
        for name in (A, B):
            snapshot = recorder.of(name)[0]
            assert isinstance(snapshot, Snapshot)
            assert (snapshot.records, snapshot.store) == ({}, source.identity())
        version = backend.publisher().write(A, {"l": b"2"})
        recorder.wait_for(lambda events: any(reaches(event, A, version) for event in events))
        replica = Replica(recorder.of(A)[0])
        for event in recorder.of(A)[1:]:
            replica.apply(event)
        assert (replica.version, replica.records) == (version, {"l": b"2"})

    @pytest.mark.parametrize("since", [0, 1, 1 << 60])
    def test_versions_of_another_store_lead_to_snapshots_that_say_so(self, backend, since):
        """As when the store was made anew while the agent was away, or just before it followed."""
        backend.publisher().write(A, {"k": b"1"})
        source, recorder = backend.source(), Recorder()
        watch = source.watch(recorder, "the identity of another store")
        watch.follow(A, since)
        (event,) = recorder.wait_for(len)
        assert event == replace(source.snapshot(A), store=source.identity())
        version = backend.publisher().write(A, {"k": b"2"})
        recorder.wait_for(lambda events: any(reaches(event, A, version) for event in events))
        assert isinstance(recorder.events[-1], Delta), "it is known now"

    def test_versions_of_the_same_store_are_followed_from(self, backend):
        publisher, source, recorder = backend.publisher(), backend.source(), Recorder()
        since = publisher.write(A, {"k": b"1"})
        version = publisher.write(A, {"k": b"2"})
        source.watch(recorder, source.identity()).follow(A, since)
        (event,) = recorder.wait_for(len)
        assert event == source.delta(A, since)
        assert event.version == version

    def test_a_snapshot_of_the_same_store_says_nothing_of_another(self, backend):
        since = backend.publisher().write(A, {"k": b"1"})
        backend.forget_history(A)
        source = backend.source()
        assert source.snapshot(A).store is None
        recorder = Recorder()
        source.watch(recorder).follow(A, since)
        (event,) = recorder.wait_for(len)
        assert event == source.snapshot(A)


class PublishingContract:
    """publish and write."""

    def test_publishing_again_writes_nothing(self, backend):
        publisher, source = backend.publisher(), backend.source()
        desired = {A: {"k": b"1"}, B: {"l": b"2"}}
        assert publisher.publish(desired, replace_all=True).written == 2
        before = source.snapshot(A), source.snapshot(B)
        again = publisher.publish(desired, replace_all=True)
        assert again.written == 0
        assert again.slices[A] == SliceCounts(before[0].version, 0, 0, 0, 1)
        assert (source.snapshot(A), source.snapshot(B)) == before

    def test_only_the_difference_is_written_and_counted(self, backend):
        publisher, source = backend.publisher(), backend.source()
        publisher.publish({A: {"same": b"1", "new": b"2", "gone": b"3"}}, replace_all=False)
        since = source.snapshot(A).version
        result = publisher.publish(
            {A: {"same": b"1", "new": b"4", "more": b"5"}}, replace_all=False
        )
        version = source.snapshot(A).version
        assert result.slices == {
            A: SliceCounts(version, added=1, changed=1, removed=1, unchanged=1)
        }
        delta = source.delta(A, since)
        assert {change.key: change.payload for change in delta.changes} == {
            "new": b"4",
            "more": b"5",
            "gone": None,
        }

    @pytest.mark.parametrize("replace_all", [False, True])
    def test_slices_not_named_are_emptied_only_when_asked(self, backend, replace_all):
        publisher, source = backend.publisher(), backend.source()
        publisher.publish({A: {"k": b"1"}, B: {"l": b"2"}}, replace_all=False)
        before = source.snapshot(B)
        result = publisher.publish({A: {"k": b"1"}}, replace_all=replace_all)
        after = source.snapshot(B)
        if replace_all:
            assert after.records == {}
            assert after.version > before.version
            assert result.slices[B].removed == 1
        else:
            assert after == before
            assert B not in result.slices

    def test_a_slice_named_without_records_is_emptied(self, backend):
        publisher, source = backend.publisher(), backend.source()
        publisher.write(A, {"k": b"1"})
        publisher.publish({A: {}}, replace_all=False)
        assert source.snapshot(A).records == {}

    def test_writing_what_is_there_already_is_no_change(self, backend):
        publisher = backend.publisher()
        version = publisher.write(A, {"k": b"1"})
        assert publisher.write(A, {"k": b"1"}) == version
        assert publisher.write(A, {"absent": None}) == version
        assert publisher.write(B, {"absent": None}) == 0

    def test_an_unexpected_version_stops_the_whole_publish(self, backend):
        publisher, source = backend.publisher(), backend.source()
        version = publisher.write(A, {"k": b"1"})
        publisher.write(A, {"k": b"2"})
        before = source.snapshot(A)
        with pytest.raises(PublishConflictError, match=A) as caught:
            publisher.publish(
                {A: {"k": b"3"}, B: {"l": b"4"}}, replace_all=True, expected={A: version}
            )
        assert (caught.value.expected, caught.value.found) == (version, before.version)
        assert source.snapshot(A) == before
        assert source.snapshot(B).version == 0
        done = publisher.publish(
            {A: {"k": b"3"}}, replace_all=True, expected={A: before.version, B: 0}
        )
        assert done.written == 1

    @pytest.mark.parametrize("name", ["", "sg", "sg/", "sg/a/b", "nbr/v", "what/a", "sg/ä"])
    def test_a_name_that_is_no_slice_name_is_refused(self, backend, name):
        publisher = backend.publisher()
        with pytest.raises(SliceNameError):
            publisher.write(name, {"k": b"1"})
        with pytest.raises(SliceNameError):
            publisher.publish({A: {"k": b"1"}, name: {}}, replace_all=True)
        publisher.write(B, {"k": b"1"})
        assert backend.source().snapshot(A).version == 0

    def test_progress_is_told_and_reaches_the_end(self, backend):
        told: list[tuple[int, int]] = []
        desired = {f"nbr/v/10.0.{n}.0": {f"ip/{i}": b"x" for i in range(250)} for n in range(100)}
        backend.publisher().publish(
            desired, replace_all=True, progress=lambda done, total: told.append((done, total))
        )
        assert told[-1] == (25_000, 25_000)
        assert len(told) > 1
        assert told == sorted(told)

    def test_concurrent_publishers_lose_nothing(self, backend):
        publishers = [backend.publisher() for _ in range(3)]
        recorder = Recorder()
        watch = backend.source().watch(recorder)
        watch.follow(A, 0)

        def work(number: int) -> None:
            for step in range(40):
                publishers[number].write(A, {f"{number}": b"%d" % step, f"{number}/{step}": b"x"})

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        final = backend.source().snapshot(A)
        assert len(final.records) == 3 + 3 * 40
        assert all(final.records[f"{number}"] == b"39" for number in range(3))
        replica = Replica(Snapshot(A, 0, {}))
        follow_until(recorder, replica, final.version)
        assert replica.records == final.records


class WatchContract:
    """watch, follow, forget."""

    def test_a_change_is_delivered_with_what_it_follows(self, backend):
        publisher, source = backend.publisher(), backend.source()
        start = publisher.write(A, {"k": b"1"})
        recorder = Recorder()
        source.watch(recorder).follow(A, start)
        version = publisher.write(A, {"k": b"2"})
        recorder.wait_for(len)
        settle()
        assert len(recorder.events) == 1
        (delta,) = recorder.of(A)
        assert isinstance(delta, Delta)
        assert (delta.since, delta.version) == (start, version)
        assert [(c.key, c.payload, c.previous) for c in delta.changes] == [("k", b"2", start)]

    def test_following_the_current_version_delivers_nothing(self, backend):
        version = backend.publisher().write(A, {"k": b"1"})
        recorder = Recorder()
        backend.source().watch(recorder).follow(A, version)
        settle()
        assert recorder.events == []

    def test_following_a_slice_before_it_is_written(self, backend):
        publisher = backend.publisher()
        publisher.write(B, {"k": b"1"})
        recorder = Recorder()
        backend.source().watch(recorder).follow(A, 0)
        version = publisher.write(A, {"k": b"1"})
        replica = Replica(Snapshot(A, 0, {}))
        follow_until(recorder, replica, version)
        assert replica.records == {"k": b"1"}

    def test_other_slices_are_not_delivered(self, backend):
        publisher = backend.publisher()
        recorder = Recorder()
        backend.source().watch(recorder).follow(A, 0)
        publisher.write(B, {"k": b"1"})
        version = publisher.write(A, {"k": b"1"})
        recorder.wait_for(lambda events: any(reaches(event, A, version) for event in events))
        settle()
        assert recorder.of(B) == []

    def test_what_lies_between_since_and_the_follow_comes_first(self, backend):
        publisher = backend.publisher()
        publisher.write(A, {"k": b"1", "gone": b"2"})
        start = backend.source().snapshot(A)
        publisher.write(A, {"gone": None})
        between = publisher.write(A, {"k": b"3"})
        recorder = Recorder()
        backend.source().watch(recorder).follow(A, start.version)
        replica = Replica(start)
        follow_until(recorder, replica, between)
        assert replica.records == {"k": b"3"}

    def test_a_since_that_is_too_old_brings_the_snapshot_and_then_deltas(self, backend):
        publisher = backend.publisher()
        publisher.write(A, {"k": b"1"})
        start = backend.source().snapshot(A)
        backend.forget_history(A)
        recorder = Recorder()
        source = backend.source()
        source.watch(recorder).follow(A, start.version)
        recorder.wait_for(len)
        assert isinstance(recorder.events[0], Snapshot)
        version = publisher.write(A, {"k": b"2"})
        replica = Replica(start)
        follow_until(recorder, replica, version)
        assert replica.records == source.snapshot(A).records

    def test_nothing_is_lost_when_following_in_the_middle_of_writes(self, backend):
        publisher, source = backend.publisher(), backend.source()
        publisher.write(A, {"k": b"start"})
        recorder = Recorder()
        watch = source.watch(recorder)
        half = threading.Event()

        def write() -> None:
            for number in range(150):
                changes = {f"k{number % 7}": b"%d" % number, f"k{(number + 3) % 7}": None}
                publisher.write(A, changes)
                if number == 50:
                    half.set()

        thread = threading.Thread(target=write)
        thread.start()
        half.wait()
        start = source.snapshot(A)
        watch.follow(A, start.version)
        thread.join()
        final = source.snapshot(A)
        replica = Replica(start)
        follow_until(recorder, replica, final.version)
        assert replica.records == final.records

    def test_many_slices_of_one_publish_all_arrive(self, backend):
        publisher, source = backend.publisher(), backend.source()
        names = [f"nbr/v/10.0.{number}.0" for number in range(200)]
        recorder = Recorder()
        watch = source.watch(recorder)
        for name in names[::2]:
            watch.follow(name, 0)
        result = publisher.publish({name: {"k": b"1"} for name in names}, replace_all=True)
        recorder.wait_for(lambda events: len(events) >= 100)
        settle()
        arrived = {(event.slice, event.version) for event in recorder.events}
        assert arrived == {(name, result.slices[name].version) for name in names[::2]}
        assert len(recorder.events) == 100

    def test_a_forgotten_slice_is_delivered_no_more(self, backend):
        publisher, source = backend.publisher(), backend.source()
        recorder = Recorder()
        watch = source.watch(recorder)
        watch.follow(A, 0)
        watch.follow(B, 0)
        first = publisher.write(A, {"k": b"1"})
        recorder.wait_for(lambda events: any(reaches(event, A, first) for event in events))
        watch.forget(A)
        watch.forget(C)
        settle()
        second = publisher.write(A, {"k": b"2"})
        version = publisher.write(B, {"k": b"1"})
        recorder.wait_for(lambda events: any(reaches(event, B, version) for event in events))
        settle()
        assert not any(reaches(event, A, second) for event in recorder.events)
        watch.follow(A, first)
        recorder.wait_for(lambda events: any(reaches(event, A, second) for event in events))

    def test_following_again_starts_from_the_new_since(self, backend):
        """How a reader that saw a gap is healed."""
        publisher = backend.publisher()
        start = publisher.write(A, {"k": b"1"})
        version = publisher.write(A, {"k": b"2"})
        recorder = Recorder()
        watch = backend.source().watch(recorder)
        watch.follow(A, version)
        settle()
        assert recorder.events == []
        watch.follow(A, start)
        recorder.wait_for(len)
        (delta,) = recorder.of(A)
        assert (delta.since, delta.version) == (start, version)

    def test_watches_are_independent(self, backend):
        publisher, source = backend.publisher(), backend.source()
        one, two = Recorder(), Recorder()
        first, second = source.watch(one), source.watch(two)
        first.follow(A, 0)
        second.follow(B, 0)
        publisher.write(A, {"k": b"1"})
        publisher.write(B, {"k": b"1"})
        one.wait_for(len)
        two.wait_for(len)
        first.close()
        version = publisher.write(B, {"k": b"2"})
        two.wait_for(lambda events: any(reaches(event, B, version) for event in events))
        assert one.of(B) == []
        assert two.of(A) == []

    def test_after_close_nothing_is_delivered(self, backend):
        publisher = backend.publisher()
        recorder = Recorder()
        watch = backend.source().watch(recorder)
        watch.follow(A, 0)
        publisher.write(A, {"k": b"1"})
        recorder.wait_for(len)
        watch.close()
        count = len(recorder.events)
        publisher.write(A, {"k": b"2"})
        settle()
        assert len(recorder.events) == count
        watch.close()

    def test_closing_the_source_ends_its_watches(self, backend):
        publisher, source = backend.publisher(), backend.source()
        recorder = Recorder()
        source.watch(recorder).follow(A, 0)
        publisher.write(A, {"k": b"1"})
        recorder.wait_for(len)
        source.close()
        count = len(recorder.events)
        publisher.write(A, {"k": b"2"})
        settle()
        assert len(recorder.events) == count

    def test_the_receiver_may_follow_forget_and_close(self, backend):
        """A receiver that must ask for more does so from inside the call."""
        publisher, source = backend.publisher(), backend.source()
        publisher.write(A, {"k": b"1"})
        publisher.write(B, {"k": b"1"})
        recorder = Recorder()

        def receive(event: Delta | Snapshot | SourceState) -> None:
            recorder(event)
            if isinstance(event, SourceState):
                return
            if event.slice == A:
                watch.follow(B, 0)
                watch.forget(A)
            else:
                watch.close()

        watch = source.watch(receive)
        watch.follow(A, 0)
        recorder.wait_for(lambda events: len(events) == 2)
        publisher.write(A, {"k": b"2"})
        publisher.write(B, {"k": b"2"})
        settle()
        assert [event.slice for event in recorder.events] == [A, B]

    def test_losing_the_source_is_told_once_and_nothing_is_lost(self, backend):
        publisher, source = backend.publisher(), backend.source()
        start = Snapshot(A, publisher.write(A, {"k": b"1"}), {"k": b"1"})
        recorder = Recorder()
        watch = source.watch(recorder)
        watch.follow(A, start.version)
        settle()
        backend.lose()
        recorder.wait_for(lambda events: [e for e in events if isinstance(e, SourceState)])
        watch.follow(B, 0)
        settle()
        (lost,) = recorder.states()
        assert lost.error
        backend.restore()
        recorder.wait_for(lambda events: SourceState(None) in events)
        publisher = backend.publisher()
        other = publisher.write(B, {"l": b"1"})
        version = publisher.write(A, {"k": b"2"})
        replica, second = Replica(start), Replica(Snapshot(B, 0, {}))
        follow_until(recorder, replica, version)
        follow_until(recorder, second, other)
        assert replica.records == {"k": b"2"}
        assert second.records == {"l": b"1"}
        assert recorder.states() == [lost, SourceState(None)]


class SourceContract(ReadingContract, IdentityContract, PublishingContract, WatchContract):
    """All of it."""

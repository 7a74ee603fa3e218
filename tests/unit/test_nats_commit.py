"""Commits of the NATS store: what is written, what is read, and what is refused. No server is needed."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_app.nats_commit import (
    Commit,
    CommitError,
    SliceState,
    StoreInfo,
    decode_commit,
    decode_store,
    delta,
    encode,
    in_order,
    next_commit,
    state_of,
    with_parts,
)
from controller_app.nats_options import (
    NatsAddress,
    address_problem,
    is_store_url,
    parse_servers,
    parse_store_url,
)
from controller_app.nats_subjects import Subjects, name_of, tokens
from ondemand.slices import Delta, TooOld

NAME = "sg/a"


class Log:
    """A stream of one slice as the server keeps it: a whole commit drops all before it."""

    def __init__(self, *, tombstones=1000, whole_below=0):
        self.messages: dict[int, bytes] = {}
        self.options = {"tombstones": tombstones, "whole_below": whole_below}
        self.sequence = 0

    def load(self):
        if not self.messages:
            return SliceState(NAME)
        head = decode_commit(self.messages[self.sequence])
        base = None if head.is_whole else decode_commit(self.messages[head.base])
        return state_of(NAME, self.sequence, head, base)

    def write(self, changes):
        commit = next_commit(self.load(), list(changes.items()), start=1000, **self.options)
        if commit.is_whole:
            self.messages.clear()
        self.sequence += 1
        self.messages[self.sequence] = encode(commit)
        return commit


CHANGES = st.lists(
    st.dictionaries(
        st.sampled_from([f"k{number}" for number in range(60)]),
        st.none() | st.binary(max_size=3),
        min_size=1,
        max_size=8,
    ),
    max_size=40,
)


class TestHistory:
    @given(CHANGES, st.sampled_from([0, 4096]), st.sampled_from([0, 3, 1000]))
    def test_any_history_is_kept_and_told_from_any_version(self, steps, whole_below, tombstones):
        log = Log(tombstones=tombstones, whole_below=whole_below)
        log.write({"first": b"1"})
        truth = {"first": b"1"}
        seen = {0: {}, log.load().version: dict(truth)}
        live = dict(truth)
        live_version = log.load().version
        for step in steps:
            commit = log.write(step)
            truth = {
                key: payload for key, payload in {**truth, **step}.items() if payload is not None
            }
            seen[commit.version] = dict(truth)
            # Who follows applies each commit as it comes.
            told = delta(NAME, live_version, commit, commit.records)
            if isinstance(told, Delta):
                live = applied(live, told)
            else:
                assert commit.is_whole
                live = state_of(NAME, 1, commit, None).live()
            live_version = commit.version
            assert live == truth
        state = log.load()
        assert state.live() == truth
        for version, records in seen.items():
            told = delta(NAME, version, state.head, in_order(state.records))
            if isinstance(told, TooOld):
                assert 0 < version < told.oldest
            else:
                assert (applied(records, told), told.version) == (truth, state.version)

    def test_the_cost_of_a_commit_is_the_root_of_the_slice(self):
        log = Log()
        log.write({f"k{number}": b"x" * 50 for number in range(2000)})
        sizes = []
        for number in range(500):
            log.write({f"k{number}": b"y"})
            sizes.append(len(log.messages[log.sequence]))
        whole = 2000 * 60
        assert sum(sizes) / len(sizes) < whole / 10
        assert max(len(data) for data in log.messages.values()) < 2 * whole

    def test_a_small_slice_is_always_one_message(self):
        log = Log(whole_below=4096)
        for number in range(50):
            assert log.write({f"k{number}": b"x"}).is_whole
            assert len(log.messages) == 1

    def test_tombstones_beyond_the_bound_go_the_oldest_first(self):
        log = Log(tombstones=3, whole_below=4096)
        start = log.write({f"k{number}": b"x" for number in range(6)}).version
        for number in range(6):
            log.write({f"k{number}": None})
        state = log.load()
        assert sorted(state.records) == ["k3", "k4", "k5"]
        assert state.head.oldest == start + 3
        assert isinstance(delta(NAME, start + 2, state.head, in_order(state.records)), TooOld)
        told = delta(NAME, start + 3, state.head, in_order(state.records))
        assert [change.key for change in told.changes] == ["k3", "k4", "k5"]

    def test_nothing_to_change_folds_what_is_there(self):
        log = Log()
        log.write({f"k{number}": b"x" * 50 for number in range(2000)})
        assert not log.write({"k1": b"y"}).is_whole
        state = msgspec.structs.replace(log.load().head)
        damaged = SliceState(NAME, 9, 2, state, log.load().records, is_damaged=True)
        commit = next_commit(damaged, [], start=1, **log.options)
        assert commit.is_whole
        assert (commit.version, commit.previous) == (state.version, state.version)


def applied(records, told):
    found = dict(records)
    previous = told.since
    for change in told.changes:
        assert change.previous == previous < change.version <= told.version
        previous = change.version
        if change.payload is None:
            found.pop(change.key, None)
        else:
            found[change.key] = change.payload
    return found


SOUND = Commit(12, 10, 5, 3, 9, (), (("k", 11, b"v"), ("l", 12, None)))


class TestBytes:
    def test_a_commit_comes_back_as_it_went(self):
        assert decode_commit(encode(SOUND)) == SOUND
        info = StoreInfo(1, "id", 7)
        assert decode_store(encode(info)) == info

    def test_fields_of_a_later_release_at_the_end_are_passed_over(self):
        fields = [*msgspec.structs.astuple(SOUND), "more"]
        assert decode_commit(msgspec.msgpack.encode(fields)) == SOUND

    @given(st.binary(max_size=200))
    def test_any_bytes_are_a_commit_or_an_error(self, data):
        for decode in (decode_commit, decode_store):
            try:
                found = decode(data)
            except CommitError:
                continue
            assert isinstance(found, Commit | StoreInfo)

    @given(st.integers(0, 60), st.integers(0, 255))
    def test_any_changed_byte_is_a_commit_that_keeps_its_rules_or_an_error(self, at, byte):
        data = bytearray(encode(SOUND))
        data[at % len(data)] = byte
        try:
            found = decode_commit(bytes(data))
        except CommitError:
            return
        versions = [version for _, version, _ in found.records]
        assert versions == sorted(set(versions))
        assert all(found.base_version < version <= found.version for version in versions)
        assert len({key for key, _, _ in found.records}) == len(versions)

    @pytest.mark.parametrize(
        "changed",
        [
            {"version": 0, "previous": 0, "oldest": 0, "base": 0, "base_version": 0, "records": ()},
            {"previous": 13},
            {"oldest": 13},
            {"base": 0},
            {"base_version": 0},
            {"base_version": 13},
            {"parts": (1,)},
            {"records": (("k", 9, b""),)},
            {"records": (("k", 13, b""),)},
            {"records": (("k", 12, b""), ("l", 11, b""))},
            {"records": (("k", 11, b""), ("k", 12, b""))},
            {"version": -1},
            {"version": 1 << 63},
        ],
    )
    def test_a_commit_that_breaks_a_rule_is_refused(self, changed):
        with pytest.raises(CommitError):
            decode_commit(encode(msgspec.structs.replace(SOUND, **changed)))

    def test_parts_must_hold_records_of_their_commit(self):
        commit = msgspec.structs.replace(SOUND, parts=(4, 5), records=())
        assert with_parts(commit, encode(SOUND.records)).records == SOUND.records
        for data in (b"", b"\x91", encode((("k", 13, b""),))):
            with pytest.raises(CommitError):
                with_parts(commit, data)

    def test_a_step_on_another_base_is_refused(self):
        base = Commit(9, 8, 5, 0, 0, (), (("k", 9, b""),))
        assert state_of(NAME, 4, SOUND, base).live() == {"k": b"v"}
        for other in (None, SOUND, msgspec.structs.replace(base, version=10)):
            with pytest.raises(CommitError):
                state_of(NAME, 4, SOUND, other)


class TestSubjects:
    @given(st.text(max_size=20))
    def test_any_text_is_one_legal_subject_of_its_own(self, text):
        found = tokens(text)
        assert all(part and not set(part) & set(" .*>\t\r\n") for part in found.split("."))
        assert found.isascii()
        assert tokens(text + "x") != found

    @pytest.mark.parametrize(
        "name", ["sg/web", "nbr/v/10.0.0.0", "nbr/v/fd00::", "host/a.b-c_d:e", "nbr/v/mac-7"]
    )
    def test_a_name_comes_back(self, name):
        assert name_of(tokens(name)) == name
        assert Subjects("s").slice_of(Subjects("s").log(name)) == name

    @pytest.mark.parametrize(
        "text", ["", "store", "sg", "sg.a.b", "sg.%61", "sg.%", "what.a", "sg.%FF"]
    )
    def test_what_is_no_slice_is_none(self, text):
        assert name_of(text) is None

    def test_two_names_share_no_subject(self):
        names = ["nbr/v/a.b", "nbr/v/a/b", "nbr/v.a/b", "nbr/v/a%2Eb", "nbr/v/"]
        assert len({tokens(name) for name in names}) == len(names)


class TestAddress:
    def test_urls(self):
        one = parse_store_url("nats://h:1")
        assert (one.servers, one.stream, one.url) == (("nats://h:1",), "ondemand", "nats://h:1")
        two = parse_store_url("tls://u:p@h,g:2/blue")
        assert two.servers == ("tls://u:p@h:4222", "tls://g:2")
        assert (two.stream, two.uses_tls, two.url) == ("blue", True, "tls://h:4222,g:2/blue")
        assert "p@" not in two.title
        assert is_store_url("nats://h")
        assert not is_store_url("/var/lib/slices.db")
        assert not is_store_url("nats.db")

    def test_servers(self):
        assert parse_servers(" a, nats://b:1 ,tls://c,") == (
            "nats://a:4222",
            "nats://b:1",
            "tls://c:4222",
        )

    @pytest.mark.parametrize(
        ("servers", "stream"),
        [
            ((), "s"),
            (("http://h:1",), "s"),
            (("nats://",), "s"),
            (("nats://h:0",), "s"),
            (("nats://h:99999",), "s"),
            (("nats://h:1/x",), "s"),
            (("nats://h:1",), ""),
            (("nats://h:1",), "a.b"),
            (("nats://h:1",), "a b"),
            (("nats://h:1",), "a>"),
        ],
    )
    def test_what_is_no_address_is_one_sentence(self, servers, stream):
        assert address_problem(servers, stream)
        with pytest.raises(ValueError, match="; "):
            NatsAddress(servers, stream)

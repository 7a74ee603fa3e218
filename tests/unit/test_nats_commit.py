"""Commits of the NATS store: what is written, what is read, and what is refused. No server is needed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller_app.nats_commit import (
    MAX_RECORDS,
    Commit,
    CommitError,
    SliceState,
    StoreInfo,
    decode_base,
    decode_commit,
    decode_store,
    delta,
    encode,
    in_order,
    needs_base,
    next_commit,
    placed,
    state_of,
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
    """A stream of one slice as the server keeps it: each commit drops the one before it."""

    def __init__(self, *, tombstones=1000, whole_below=0, most=1 << 30):
        self.message = b""
        self.bases: dict[str, bytes] = {}
        self.options = {"tombstones": tombstones, "whole_below": whole_below}
        self.most = most
        self.sequence = 0

    def load(self):
        if not self.message:
            return SliceState(NAME)
        head = decode_commit(NAME, self.message)
        base = {} if head.is_whole else decode_base(head, self.bases[head.base])
        return state_of(NAME, self.sequence, head, base)

    def write(self, changes):
        state = self.load()
        commit = next_commit(state, list(changes.items()), start=1000, **self.options)
        self.sequence += 1
        token = f"{self.sequence:x}"
        if needs_base(commit):
            self.bases[token] = encode(state.head.records)
            commit = placed(commit, token, 1)
        elif commit.is_whole and len(encode(commit)) > self.most:
            self.bases[token] = encode(commit.records)
            commit = placed(commit, token, 1)
        self.message = encode(commit)
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
    @given(
        CHANGES,
        st.sampled_from([0, 4096]),
        st.sampled_from([0, 3, 1000]),
        st.sampled_from([0, 1 << 30]),
    )
    def test_any_history_is_kept_and_told_from_any_version(
        self, steps, whole_below, tombstones, most
    ):
        log = Log(tombstones=tombstones, whole_below=whole_below, most=most)
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
            told = None
            if commit.tells_since(live_version):
                told = delta(NAME, live_version, commit, commit.records)
            if isinstance(told, Delta):
                live = applied(live, told)
            else:
                assert commit.is_whole or commit.base_version == commit.version
                live = log.load().live()
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
            sizes.append(len(log.message))
        whole = 2000 * 60
        assert sum(sizes) / len(sizes) < whole / 10
        assert all(len(data) < 2 * whole for data in log.bases.values())
        assert len(log.bases) < 20

    def test_a_small_slice_is_always_one_message(self):
        log = Log(whole_below=4096)
        for number in range(50):
            assert log.write({f"k{number}": b"x"}).is_whole
            assert not log.bases

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
        damaged = SliceState(NAME, 9, state, log.load().records, is_damaged=True)
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


SOUND = Commit(NAME, 12, 10, 5, 9, "ab12", 2, (("k", 11, b"v"), ("l", 12, None)))


class TestBytes:
    def test_a_commit_comes_back_as_it_went(self):
        assert decode_commit(NAME, encode(SOUND)) == SOUND
        info = StoreInfo(1, "id", 7)
        assert decode_store(encode(info)) == info

    def test_fields_of_a_later_release_at_the_end_are_passed_over(self):
        fields = [*msgspec.structs.astuple(SOUND), "more"]
        assert decode_commit(NAME, msgspec.msgpack.encode(fields)) == SOUND

    @given(st.binary(max_size=200))
    def test_any_bytes_are_a_commit_or_an_error(self, data):
        for decode in (lambda data: decode_commit(NAME, data), decode_store):
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
            found = decode_commit(NAME, bytes(data))
        except CommitError:
            return
        versions = [version for _, version, _ in found.records]
        assert versions == sorted(set(versions))
        assert all(found.base_version < version <= found.version for version in versions)
        assert len({key for key, _, _ in found.records}) == len(versions)

    @pytest.mark.parametrize(
        "changed",
        [
            {"slice": "sg/b"},
            {
                "version": 0,
                "previous": 0,
                "oldest": 0,
                "base": "",
                "base_version": 0,
                "parts": 0,
                "records": (),
            },
            {"previous": 13},
            {"oldest": 13},
            {"base": ""},
            {"base": "x.>"},
            {"base": "a" * 65},
            {"base_version": 0},
            {"base_version": 13},
            {"parts": 0},
            {"parts": 4097},
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
            decode_commit(NAME, encode(msgspec.structs.replace(SOUND, **changed)))

    def test_a_base_must_hold_records_of_its_commit(self):
        records = (("k", 3, b"v"), ("l", 9, None))
        base = decode_base(SOUND, encode(records))
        assert base == {"k": (3, b"v"), "l": (9, None)}
        assert state_of(NAME, 4, SOUND, base).live() == {"k": b"v"}
        for data in (
            b"",
            b"\x91",
            encode((("k", 10, b""),)),
            encode((("k", 3, b""), ("k", 4, b""))),
        ):
            with pytest.raises(CommitError):
                decode_base(SOUND, data)

    @pytest.mark.parametrize("count", [MAX_RECORDS + 1, (1 << 32) - 1])
    def test_an_array_that_promises_more_than_it_holds_is_refused(self, count):
        bomb = b"\xdd" + count.to_bytes(4, "big") + b"\x93\xa0\x01\xc0" * 1000
        with pytest.raises(CommitError):
            decode_base(SOUND, bomb)
        head = encode(SOUND)[: -len(encode(SOUND.records))]
        with pytest.raises(CommitError):
            decode_commit(NAME, head + bomb)


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
        three = parse_store_url("tls://h/blue?tls_ca=/ca.pem&user=u&password_file=p&credentials=c")
        assert (three.user, three.tls_ca, three.password_file) == ("u", Path("/ca.pem"), Path("p"))
        assert three.credentials == Path("c")
        assert three.url == "tls://h:4222/blue?tls_ca=/ca.pem"
        assert parse_store_url(three.url).tls_ca == Path("/ca.pem")
        assert is_store_url("nats://h")
        assert not is_store_url("/var/lib/slices.db")
        assert not is_store_url("nats.db")

    @pytest.mark.parametrize(
        ("query", "sentence"),
        [
            ("password=x", "it may have user, password_file"),
            ("user=u", "user needs password_file or tls_cert"),
            ("tls_cert=c", "tls_cert needs tls_key"),
            ("tls_ca=", "tls_ca= is nothing"),
        ],
    )
    def test_a_query_that_means_nothing_is_told(self, query, sentence):
        with pytest.raises(ValueError, match=sentence):
            parse_store_url(f"tls://h?{query}")

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

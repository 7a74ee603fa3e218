"""What stands in the stream of slices: commits, and the states that they make. Values only.

A *commit* is one message and one step of one slice, so a reader sees all of it or nothing. It holds what
changed since its *base*: the slice at an earlier version, in messages of its own (*parts*), which many
commits share; or it has no base and holds the slice whole. So a reader that missed some commits needs no
more than the last one, and every message is the last one of its subject.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ondemand.slices import Change, Delta, Lookup, Snapshot, TooOld

#: Format of all messages of a store; in the message that says which store it is.
FORMAT: Final = 1
#: A commit whose base is in more pieces than this is nobody's, nor is a base of more bytes,
MAX_PARTS: Final = 4096
MAX_BASE_BYTES: Final = 64 << 20
#: nor one of more records: what a few bytes each promise is not made into objects.
MAX_RECORDS: Final = 500_000

_Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]

#: Key, version of its last change, and payload; None is a tombstone.
Record = tuple[str, _Number, bytes | None]
_Records = Annotated[tuple[Record, ...], Meta(max_length=MAX_RECORDS)]

#: More bytes than any slice has: see ``next_commit``.
ALWAYS: Final = 1 << 62

#: Of each key the version of its last change, and payload or tombstone.
Records = Mapping[str, tuple[int, bytes | None]]


class CommitError(ValueError):
    """Bytes that are no commit."""


class StoreInfo(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Which store a stream holds.

    ``born`` is when it was made, in milliseconds of the clock: below every version in it, and above
    all that an earlier store of the same name gave out.
    """

    format: _Number
    identity: str
    born: _Number


class Commit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message of a slice.

    Attributes:
        slice: its name, so that a commit that stands elsewhere is known as foreign.
        version: of the slice after this commit.
        previous: the one before it; the same when this commit only folds older ones.
        oldest: a delta can be given from here on (and from 0).
        base_version: the slice's version in the base; 0 when there is none.
        base: by which the parts of the base are called; "" when there is none.
        parts: how many these are.
        records: what changed after ``base_version``, in the order of versions.
    """

    slice: str
    version: _Number
    previous: _Number
    oldest: _Number
    base_version: _Number
    base: Annotated[str, Meta(max_length=64, pattern="^[0-9a-f]*$")]
    parts: Annotated[int, Meta(ge=0, le=MAX_PARTS)]
    records: _Records

    @property
    def is_whole(self) -> bool:
        """Whether the slice is as it is without what stands in other messages."""
        return self.base_version == 0

    def tells_since(self, since: int) -> bool:
        """Whether this commit alone says what changed after ``since``, or that it is too old."""
        return self.base_version <= since


_commits = msgspec.msgpack.Decoder(Commit)
_record_lists = msgspec.msgpack.Decoder(_Records)
_stores = msgspec.msgpack.Decoder(StoreInfo)
_encoder = msgspec.msgpack.Encoder()


def encode(value: Commit | StoreInfo | Sequence[Record]) -> bytes:
    return _encoder.encode(value)


def decode_store(data: bytes) -> StoreInfo:
    """Raises CommitError."""
    try:
        return _stores.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CommitError(str(error)) from None


def decode_commit(name: str, data: bytes) -> Commit:
    """A commit of the slice ``name`` that keeps its own rules.

    Raises:
        CommitError: these bytes are none.
    """
    try:
        commit = _commits.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CommitError(str(error)) from None
    if commit.slice != name:
        raise CommitError("it is of another slice")
    if not commit.previous <= commit.version or commit.version == 0:
        raise CommitError("versions do not grow")
    if len({commit.base_version == 0, commit.base == "", commit.parts == 0}) != 1:
        raise CommitError("it has half a base")
    if commit.oldest > commit.version:
        raise CommitError("oldest is above the version")
    _check_records(commit.records, commit.base_version, commit.version)
    return commit


def decode_base(commit: Commit, data: bytes) -> Records:
    """The records that the parts of a commit's base hold, joined.

    Raises:
        CommitError: the parts are not of this commit.
    """
    try:
        records = _record_lists.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CommitError(str(error)) from None
    _check_records(records, 0, commit.base_version)
    return by_key(records)


def _check_records(records: Sequence[Record], after: int, up_to: int) -> None:
    last = after
    keys = set()
    for key, version, _ in records:
        if version <= last:
            raise CommitError("records are not in the order of their versions")
        last = version
        keys.add(key)
    if max(last, after) > up_to or len(keys) != len(records):
        raise CommitError("records are above the version, or one is there twice")


@dataclass(frozen=True, slots=True)
class SliceState:
    """A slice as its last commit, and the base of that, tell it; ``version`` 0: never written.

    Attributes:
        sequence: of the last message in the slice's subject; 0 when there is none.
        head: the last commit.
        records: of all keys, tombstones included.
        is_damaged: what is no commit, or does not follow, stands after ``head``.
    """

    name: str
    sequence: int = 0
    head: Commit | None = None
    records: Records = field(default_factory=dict)
    is_damaged: bool = False

    @property
    def version(self) -> int:
        return 0 if self.head is None else self.head.version

    @property
    def has_parts(self) -> bool:
        return self.head is not None and self.head.parts > 0

    def live(self) -> dict[str, bytes]:
        return {key: payload for key, (_, payload) in self.records.items() if payload is not None}


def lookup(name: str, key: str, version: int, records: Records) -> Lookup:
    found = records.get(key)
    return Lookup(name, key, version, None if found is None else found[1])


def snapshot(state: SliceState) -> Snapshot:
    return Snapshot(state.name, state.version, state.live())


def by_key(records: Iterable[Record]) -> dict[str, tuple[int, bytes | None]]:
    return {key: (version, payload) for key, version, payload in records}


def state_of(name: str, sequence: int, head: Commit, base: Records) -> SliceState:
    """The slice at ``head``, which stands at ``sequence``; ``base``: as ``decode_base`` gives it."""
    return SliceState(name, sequence, head, {**base, **by_key(head.records)})


def delta(name: str, since: int, head: Commit | None, records: Iterable[Record]) -> Delta | TooOld:
    """What changed after ``since``, of ``records`` that have all of it.

    Version 0 is the empty slice, so the answer to it needs no tombstone and is never too old. A version
    above the slice's own is of another store, and too old as well.
    """
    version, oldest = (0, 0) if head is None else (head.version, head.oldest)
    if since > version or 0 < since < oldest:
        return TooOld(name, since, oldest)
    changes = []
    previous = since
    for key, changed_at, payload in records:
        if changed_at > since and (since or payload is not None):
            changes.append(Change(changed_at, previous, key, payload))
            previous = changed_at
    return Delta(name, since, version, tuple(changes))


def in_order(records: Records) -> tuple[Record, ...]:
    """Records as a commit lists them."""
    rows = [(key, version, payload) for key, (version, payload) in records.items()]
    rows.sort(key=lambda row: row[1])
    return tuple(rows)


def next_commit(
    state: SliceState,
    changes: Sequence[tuple[str, bytes | None]],
    *,
    start: int,
    tombstones: int,
    whole_below: int,
) -> Commit:
    """The commit that brings ``state`` to what it is after ``changes``.

    With n records changed since the base and N in the slice, every commit costs n and every new base N.
    A new base when n * n > 2 * N keeps their sum per commit the least, about the root of 2 * N. A slice
    of less than ``whole_below`` bytes is always written whole.

    A commit on a base that is still to be placed has ``base_version`` and neither ``base`` nor ``parts``:
    the base is then what ``state.head`` holds, which is whole. ``placed`` completes it.

    Args:
        state: what the slice is.
        changes: what is to be different; empty to fold what is there.
        start: version from which a slice begins that was never written.
        tombstones: as many are remembered.
        whole_below: bytes; ``ALWAYS`` for a commit without base in any case.
    """
    version = state.version or start
    new = {
        key: (version + number, payload) for number, (key, payload) in enumerate(changes, start=1)
    }
    version += len(changes)
    everything = {**state.records, **new}
    head = state.head
    if head is not None and not state.is_damaged:
        since_base = new if head.is_whole else {**by_key(head.records), **new}
        size = sum(len(key) + len(payload or b"") + 16 for key, (_, payload) in everything.items())
        if size > whole_below and len(since_base) ** 2 <= 2 * len(everything):
            return Commit(
                state.name,
                version,
                head.version,
                head.oldest,
                head.base_version or head.version,
                head.base,
                head.parts,
                in_order(since_base),
            )
    oldest = start if head is None else head.oldest
    removed = sorted(at for at, payload in everything.values() if payload is None)
    if len(removed) > tombstones:
        oldest = removed[-tombstones - 1]
        everything = {
            key: row for key, row in everything.items() if row[1] is not None or row[0] > oldest
        }
    return Commit(state.name, version, state.version, oldest, 0, "", 0, in_order(everything))


def needs_base(commit: Commit) -> bool:
    """Whether the base of what ``next_commit`` gave is still to be placed."""
    return commit.base_version > 0 and not commit.parts


def placed(commit: Commit, base: str, parts: int) -> Commit:
    """``commit`` on a base that was placed: the one that it needs, or all that it holds itself."""
    if commit.is_whole:
        return msgspec.structs.replace(
            commit, base_version=commit.version, base=base, parts=parts, records=()
        )
    return msgspec.structs.replace(commit, base=base, parts=parts)

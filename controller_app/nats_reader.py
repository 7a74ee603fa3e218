"""Reading slices from the stream, all on the loop of the link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from controller_app.nats_commit import (
    MAX_BASE_BYTES,
    Commit,
    CommitError,
    Records,
    SliceState,
    StoreInfo,
    decode_base,
    decode_commit,
    delta,
    in_order,
    lookup,
    snapshot,
    state_of,
)
from controller_app.nats_faults import NotPermittedError
from controller_app.nats_link import NatsLink
from controller_app.nats_messages import NatsMessages, SliceDamagedError, api_error
from controller_app.nats_stream import error_code
from controller_app.nats_version import NEVER, Announced, decode_version
from ondemand.slices import Delta, Lookup, Snapshot, TooOld

T = TypeVar("T")

#: The base of a commit that was just read may be dropped before it is asked for; not often in a row.
_ATTEMPTS: Final = 8
_PAUSE_S: Final = 0.002
#: Messages of one slice that are looked through for the last sound one.
_SEARCHED: Final = 10_000


class _GoneError(Exception):
    """A part that a commit refers to is there no more."""


@dataclass(frozen=True, slots=True)
class _Head:
    """The last message of a slice; ``commit`` None: it is no commit."""

    sequence: int
    commit: Commit | None


class NatsReader:
    """Gives answers as the contract asks for them, each as of one commit.

    ``is_founded`` False is for the writer, who reads before it is said which store this is.
    """

    def __init__(self, link: NatsLink, *, is_founded: bool = True) -> None:
        self._link = link
        self._is_founded = is_founded
        self.messages = NatsMessages(link)
        self.subjects = self.messages.subjects
        self._checked = 0

    async def store(self) -> StoreInfo:
        """As ``NatsMessages.store``."""
        info = await self.messages.store()
        self._checked = self._link.generation
        return info

    async def get_many(self, places: Sequence[tuple[str, str]]) -> list[Lookup]:
        keys: dict[str, list[str]] = {}
        for name, key in places:
            keys.setdefault(name, []).append(key)
        found: dict[tuple[str, str], Lookup] = {}

        async def get(name: str) -> None:
            for one in await self._get_keys(name, keys[name]):
                found[name, one.key] = one

        await self.in_parallel(get, keys)
        return [found[place] for place in places]

    async def _get_keys(self, name: str, keys: Sequence[str]) -> list[Lookup]:
        """Records of one slice, as of one moment."""
        head = await self._head(name)
        if head is None:
            return [Lookup(name, key, 0, None) for key in keys]
        state = await self._load_from(name, head)
        return [lookup(name, key, state.version, state.records) for key in keys]

    async def snapshot(self, name: str, *, is_fresh: bool = False) -> Snapshot:
        """``is_fresh``: as the leader of the stream has it, where replicas may lag behind."""
        head = await self._head(name, is_fresh=is_fresh)
        return snapshot(await self._load_from(name, head))

    async def delta(self, name: str, since: int) -> Delta | TooOld:
        """That nothing changed is said by a message of a few bytes (see ``nats_version``)."""
        if since > 0 and await self._is_announced(name, since):
            return Delta(name, since, since, ())
        head = await self._head(name)
        if head is not None and head.commit is not None and head.commit.tells_since(since):
            return delta(name, since, head.commit, head.commit.records)
        state = await self._load_from(name, head)
        return delta(name, since, state.head, in_order(state.records))

    async def _is_announced(self, name: str, version: int) -> bool:
        try:
            return (await self.announced(name)).version == version
        except NotPermittedError:
            return False

    async def announced(self, name: str) -> Announced:
        """Which version a slice has, as its publisher said before the commit."""
        await self._verify()
        stored = await self.messages.last(self.subjects.version(name))
        if stored is None:
            return NEVER
        return Announced(stored.sequence, decode_version(name, stored.data))

    async def load(self, name: str, *, is_fresh: bool = False) -> SliceState:
        """A slice with all that it remembers; ``is_fresh`` as in ``snapshot``."""
        head = await self._head(name, is_fresh=is_fresh)
        return await self._load_from(name, head, is_fresh=is_fresh)

    async def _load_from(
        self, name: str, head: _Head | None, *, is_fresh: bool = False
    ) -> SliceState:
        for _ in range(_ATTEMPTS):
            if head is None:
                return SliceState(name)
            if head.commit is None:
                break
            try:
                base = await self._base(name, head.commit)
                return state_of(name, head.sequence, head.commit, base)
            except _GoneError:
                # A newer base took its place meanwhile, or a replica does not have it yet.
                await asyncio.sleep(_PAUSE_S)
                head = await self._head(name, is_fresh=is_fresh)
            except CommitError:
                break
        return await self._search(name)

    async def names(self) -> list[str]:
        """All slices that were ever written, by name."""
        await self._verify()
        found: set[str] = set()
        offset = 0
        while True:
            answer = await self._link.api(
                f"STREAM.INFO.{self.subjects.stream}",
                {"subjects_filter": self.subjects.logs, "offset": offset},
            )
            if error_code(answer):
                raise api_error(self._link, answer)
            subjects = (answer.get("state") or {}).get("subjects") or {}
            found.update(name for name in map(self.subjects.slice_of, subjects) if name)
            offset += len(subjects)
            if not subjects or offset >= int(answer.get("total", 0)):
                return sorted(found)

    async def in_parallel(
        self, work: Callable[[T], Coroutine[Any, Any, object]], items: Iterable[T]
    ) -> None:
        """Do all of it, a bounded number at a time; the first error ends the rest."""
        todo = list(items)
        left = iter(todo)

        async def worker() -> None:
            for item in left:
                await work(item)

        count = min(self._link.options.in_flight, len(todo))
        workers = [asyncio.create_task(worker()) for _ in range(count)]
        try:
            await asyncio.gather(*workers)
        finally:
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    # Messages

    async def _head(self, name: str, *, is_fresh: bool = False) -> _Head | None:
        """The last message of a slice, None when it was never written."""
        await self._verify()
        subject = self.subjects.log(name)
        messages = self.messages
        stored = await (messages.freshest(subject) if is_fresh else messages.last(subject))
        if stored is None:
            # Never written; or the stream was emptied, which must not look like that.
            if self._is_founded:
                await self.store()
            return None
        try:
            return _Head(stored.sequence, decode_commit(name, stored.data))
        except CommitError:
            return _Head(stored.sequence, None)

    async def _base(self, name: str, commit: Commit) -> Records:
        """What a commit's base holds.

        Raises:
            CommitError: something else.
        """
        if commit.is_whole:
            return {}
        pieces: dict[int, bytes] = {}
        size = 0

        async def fetch(number: int) -> None:
            nonlocal size
            stored = await self.messages.last(self.subjects.part(name, commit.base, number))
            if stored is None:
                raise _GoneError
            size += len(stored.data)
            if size > MAX_BASE_BYTES:
                raise CommitError("the base is too large")
            pieces[number] = stored.data

        await self.in_parallel(fetch, range(commit.parts))
        return decode_base(commit, b"".join(pieces[number] for number in range(commit.parts)))

    async def _search(self, name: str) -> SliceState:
        """The last state of a slice that can be read, in whose subject stands what is no commit.

        Such messages are passed over: whoever wrote them, they are no reason to lose what was there.
        """
        subject = self.subjects.log(name)
        found = SliceState(name, is_damaged=True)
        last = 0
        for _ in range(_SEARCHED):
            try:
                stored = await self.messages.next(subject, last)
            except NotPermittedError:
                raise SliceDamagedError(
                    f"slice {name!r} of {self._link.address.title} ends with what is no commit, and"
                    " this user may not look behind it: publish the slice again"
                ) from None
            if stored is None:
                break
            last = stored.sequence
            try:
                commit = decode_commit(name, stored.data)
                state = state_of(name, last, commit, await self._base(name, commit))
            except (CommitError, _GoneError):
                continue
            if state.version >= found.version:
                found = state
        return replace(found, sequence=last, is_damaged=True)

    async def _verify(self) -> None:
        """Once for each connection, see that there is a store that this release can read."""
        await self._link.ready()
        if not self.is_verified:
            await self.store()

    @property
    def is_verified(self) -> bool:
        """Whether that was seen on the connection that there is now."""
        return not self._is_founded or self._checked == self._link.generation

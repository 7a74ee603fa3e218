"""Writing slices into the stream, all on the loop of the link.

Each commit tells the server which message it follows, and the server takes it only if that is still the
last one of the slice. So publishers need no lock: who comes second looks again. Before a commit its version
is announced, see ``nats_version``.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from controller_app.nats_commit import (
    ALWAYS,
    FORMAT,
    MAX_BASE_BYTES,
    MAX_PARTS,
    MAX_RECORDS,
    Commit,
    Record,
    SliceState,
    StoreInfo,
    encode,
    needs_base,
    next_commit,
    placed,
)
from controller_app.nats_faults import StreamMissingError
from controller_app.nats_link import NatsLink
from controller_app.nats_messages import StoreEmptyError, api_error
from controller_app.nats_publication import Changes, Publication
from controller_app.nats_reader import NatsReader
from controller_app.nats_stream import (
    STREAM_NAME_IN_USE,
    WRONG_LAST_SEQUENCE,
    error_code,
    stream_config,
)
from controller_app.nats_version import NEVER, Announced, encode_version
from ondemand.publishing import Payloads, Progress, PublishConflictError, PublishResult
from ondemand.slices import SourceError

#: Publishers that write one slice at the same time let each other pass so often.
_ATTEMPTS: Final = 200
_PAUSE_MIN_S: Final = 0.001
_PAUSE_MAX_S: Final = 0.05
#: The last message of its subject that one follows; 0: none.
_FOLLOWS: Final = "Nats-Expected-Last-Subject-Sequence"


class NatsWriter:
    """What ``NatsStore`` needs for writing. One for each store."""

    def __init__(self, link: NatsLink, clock_ms: Callable[[], int]) -> None:
        """``clock_ms``: milliseconds since 1970."""
        self._link = link
        self._clock_ms = clock_ms
        self._reader = NatsReader(link, is_founded=False)
        self._subjects = self._reader.subjects
        #: What this writer announced last of each slice, and then committed.
        self._last: dict[str, Announced] = {}

    async def publish(
        self,
        desired: Mapping[str, Payloads],
        *,
        replace_all: bool,
        expected: Mapping[str, int],
        progress: Progress | None,
    ) -> PublishResult:
        """As ``Publisher.publish``; each slice is one transaction."""
        info, is_new = await self._ensure()
        there = await self._reader.names()
        await self._check(expected)

        async def bring(
            name: str,
            differing: Callable[[SliceState], Changes],
            *,
            is_new: bool,
            expected: int | None,
        ) -> tuple[SliceState, int]:
            known = SliceState(name) if is_new else None
            return await self._bring(info, name, differing, known=known, expected=expected)

        publication = Publication(
            bring,
            self._reader.in_parallel,
            desired,
            there=there,
            expected=expected,
            progress=progress,
        )
        await publication.run(replace_all=replace_all)
        if is_new:
            await self._found(info)
        return publication.result()

    async def write(self, name: str, changes: Mapping[str, bytes | None]) -> int:
        """As ``Publisher.write``. What is there already is not written again."""
        info, is_new = await self._ensure()

        def differing(state: SliceState) -> Changes:
            held = state.live()
            return [(key, payload) for key, payload in changes.items() if held.get(key) != payload]

        _, version = await self._bring(info, name, differing, known=None, expected=None)
        if is_new:
            await self._found(info)
        return version

    async def _check(self, expected: Mapping[str, int]) -> None:
        async def check(name: str) -> None:
            found = (await self._reader.snapshot(name)).version
            if found != expected[name]:
                raise PublishConflictError(name, expected[name], found)

        await self._reader.in_parallel(check, expected)

    async def _bring(
        self,
        info: StoreInfo,
        name: str,
        differing: Callable[[SliceState], Changes],
        *,
        known: SliceState | None,
        expected: int | None,
    ) -> tuple[SliceState, int]:
        """Write what differs: the state before, and the version after it.

        ``known``: the slice was never written, so it need not be read.
        """
        announced = None if known is None else NEVER
        state = known or await self._reader.load(name)
        for attempt in range(_ATTEMPTS):
            if expected is not None and state.version != expected:
                raise PublishConflictError(name, expected, state.version)
            changes = differing(state)
            is_mending = state.is_damaged and state.version > 0
            if not changes and not is_mending:
                return state, state.version
            if changes and announced is None:
                announced = self._last.pop(name, NEVER)
                if announced.sequence == 0 or announced.version != state.version:
                    announced = await self._reader.announced(name)
                if announced.version != state.version:
                    # Somebody is about to write, or came to nothing, or a replica is behind.
                    state = await self._reader.load(name, is_fresh=True)
                    continue
            version = await self._commit(info, state, changes, announced)
            if version is not None:
                return state, version
            pause = min(_PAUSE_MIN_S * 2 ** min(attempt, 10), _PAUSE_MAX_S)
            await asyncio.sleep(random.uniform(0, pause))
            announced = None
            state = await self._reader.load(name)
        raise SourceError(
            f"slice {name!r} of {self._link.address.title} is written by others all the time:"
            " publish again when they are done"
        )

    async def _commit(
        self, info: StoreInfo, state: SliceState, changes: Changes, announced: Announced | None
    ) -> int | None:
        """The version after it; None when somebody else was faster.

        ``announced``: what stood there when ``state`` was the newest (see ``nats_version``); None for a
        commit that changes no version.
        """
        commit, first_part = await self._made(info, state, changes)
        last = None
        if announced is not None:
            last = await self._announce(commit, announced)
            if last is None:
                return None
        sequence = await self._put(
            self._subjects.log(state.name), encode(commit), _in_place_of(state.sequence)
        )
        if sequence is None:
            return None
        if last is not None:
            self._last[state.name] = last
        if first_part or (commit.is_whole and state.has_parts):
            await self._drop_parts(state.name, first_part or sequence)
        return commit.version

    async def _announce(self, commit: Commit, announced: Announced) -> Announced | None:
        """Say which version comes: what stands there then; None when somebody else was faster."""
        name = commit.slice
        sequence = await self._put(
            self._subjects.version(name),
            encode_version(name, commit.version),
            _in_place_of(announced.sequence),
        )
        return None if sequence is None else Announced(sequence, commit.version)

    async def _made(
        self, info: StoreInfo, state: SliceState, changes: Changes
    ) -> tuple[Commit, int]:
        """The commit to write, its base being there, and where that begins when it is a new one."""
        options = self._link.options

        def make(whole_below: int) -> Commit:
            return next_commit(
                state,
                changes,
                # Never below what a reader was told that came before the slice was there.
                start=max(self._clock_ms(), info.born),
                tombstones=options.tombstones_per_slice,
                whole_below=whole_below,
            )

        commit = make(options.whole_below)
        most = await self._link.part_bytes()
        if not commit.is_whole and len(encode(commit)) > most:
            commit = make(ALWAYS)
        if commit.is_whole and len(encode(commit)) > most:
            return await self._on_base(commit, commit.records)
        if needs_base(commit) and state.head is not None:
            return await self._on_base(commit, state.head.records)
        return commit, 0

    async def _on_base(self, commit: Commit, records: Sequence[Record]) -> tuple[Commit, int]:
        """``commit`` with its base, and where that begins in the stream."""
        name = commit.slice
        base = uuid.uuid4().hex
        data = encode(records)
        size = await self._link.part_bytes()
        if len(data) > min(size * MAX_PARTS, MAX_BASE_BYTES) or len(records) > MAX_RECORDS:
            raise SourceError(
                f"slice {name!r} of {self._link.address.title} is too large with {len(records)} records"
                f" in {len(data)} bytes: it may have {MAX_RECORDS}, and"
                f" {min(size * MAX_PARTS, MAX_BASE_BYTES)} bytes"
            )
        first = 0

        async def put(number: int) -> None:
            nonlocal first
            piece = data[number * size : (number + 1) * size]
            sequence = await self._put(self._subjects.part(name, base, number), piece, {})
            first = first or sequence or 0

        # The first one alone: it has the lowest place, and older ones are known by that.
        await put(0)
        parts = -(-len(data) // size)
        await self._reader.in_parallel(put, range(1, parts))
        return placed(commit, base, parts), first

    async def _drop_parts(self, name: str, before: int) -> None:
        """Remove the bases of older commits, and those of writers that never came to their commit."""
        if before <= 1:
            # Nothing can be there; and nats-server 2.9 would take it for "all".
            return
        answer = await self._link.api(
            f"STREAM.PURGE.{self._subjects.stream}",
            {"filter": self._subjects.parts_of(name), "seq": before},
        )
        if error_code(answer):
            raise api_error(self._link, answer)

    async def _put(self, subject: str, data: bytes, headers: Mapping[str, str]) -> int | None:
        """Store a message: its place in the stream; None when it does not follow the last one."""
        answer = await self._link.request(subject, data, headers)
        try:
            found = json.loads(answer.data)
            code = error_code(found)
            if code in WRONG_LAST_SEQUENCE:
                return None
            if not code:
                return int(found["seq"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SourceError(
                f"{self._link.address.title} did not confirm what was written: another program"
                f" answers to {subject!r}"
            ) from None
        raise api_error(self._link, found)

    # The stream

    async def _ensure(self) -> tuple[StoreInfo, bool]:
        """Which store it is, and whether it is still to be founded."""
        try:
            return await self._reader.store(), False
        except StreamMissingError:
            await self._create()
        except StoreEmptyError:
            pass
        return StoreInfo(FORMAT, uuid.uuid4().hex, self._clock_ms()), True

    async def _found(self, info: StoreInfo) -> None:
        """Say which store this is, once the first publish is complete.

        Until then readers do not take it for one: they would see slices that are not there yet as empty,
        and drop what they hold. Another writer may be faster.
        """
        headers = {_FOLLOWS: "0"}
        await self._put(self._subjects.store, encode(info), headers)

    async def _create(self) -> None:
        stream = self._subjects.stream
        answer = await self._link.api(f"STREAM.CREATE.{stream}", stream_config(self._subjects))
        if error_code(answer) == STREAM_NAME_IN_USE:
            # Somebody else was faster.
            await self._reader.messages.require_stream()
        elif error_code(answer):
            raise api_error(self._link, answer)


def _in_place_of(sequence: int) -> dict[str, str]:
    """Headers of a message that follows the last one of its subject, and is then the only one.

    For a commit: all that came before is in it, or in its base; the server drops it in the same step.
    """
    return {_FOLLOWS: str(sequence), "Nats-Rollup": "sub"}

"""Writing slices into the stream, all on the loop of the link.

Each commit tells the server which message it follows, and the server takes it only if that is still the
last one of the slice. So publishers need no lock: who comes second looks again.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from controller_app.nats_commit import (
    FORMAT,
    MAX_PARTS,
    SliceState,
    StoreInfo,
    encode,
    next_commit,
)
from controller_app.nats_link import NatsLink, StreamMissingError
from controller_app.nats_messages import StoreEmptyError, api_error
from controller_app.nats_reader import NatsReader
from controller_app.nats_stream import (
    STREAM_NAME_IN_USE,
    WRONG_LAST_SEQUENCE,
    error_code,
    stream_config,
)
from ondemand.publishing import (
    Payloads,
    Progress,
    PublishConflictError,
    PublishResult,
    SliceCounts,
    difference,
)
from ondemand.slices import SourceError

#: Publishers that write one slice at the same time let each other pass so often.
_ATTEMPTS: Final = 200
_PAUSE_MIN_S: Final = 0.001
_PAUSE_MAX_S: Final = 0.05
#: Progress is told each time so many records more are done.
_PROGRESS_EVERY: Final = 10_000

Changes = Sequence[tuple[str, bytes | None]]


class NatsWriter:
    """What ``NatsStore`` needs for writing. One for each store."""

    def __init__(self, link: NatsLink) -> None:
        self._link = link
        self._reader = NatsReader(link, is_founded=False)
        self._subjects = self._reader.subjects

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
        there = set(await self._reader.names())
        await self._check(expected)
        counts: dict[str, SliceCounts] = {}
        total = sum(map(len, desired.values()))
        done = told = 0

        async def replace(name: str) -> None:
            nonlocal done, told
            known = None if name in there else SliceState(name)
            counts[name] = await self._replace(
                info, name, desired[name], known=known, expected=expected.get(name)
            )
            done += len(desired[name])
            if progress is not None and done - told >= _PROGRESS_EVERY:
                progress(done, total)
                told = done

        async def empty(name: str) -> None:
            made = await self._replace(info, name, {}, known=None, expected=expected.get(name))
            if made.written:
                counts[name] = made

        await self._reader.in_parallel(replace, desired)
        if replace_all:
            await self._reader.in_parallel(empty, there - desired.keys())
        if is_new:
            await self._found(info)
        if progress is not None:
            progress(total, total)
        return PublishResult(counts)

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

    async def _replace(
        self,
        info: StoreInfo,
        name: str,
        records: Payloads,
        *,
        known: SliceState | None,
        expected: int | None,
    ) -> SliceCounts:
        def differing(state: SliceState) -> Changes:
            found = difference(state.live(), records)
            changes: list[tuple[str, bytes | None]] = []
            changes += [(key, records[key]) for key in found.added]
            changes += [(key, records[key]) for key in found.changed]
            changes += [(key, None) for key in found.removed]
            return changes

        before, version = await self._bring(info, name, differing, known=known, expected=expected)
        found = difference(before.live(), records)
        return SliceCounts(
            version=version,
            added=len(found.added),
            changed=len(found.changed),
            removed=len(found.removed),
            unchanged=found.unchanged,
        )

    async def _bring(
        self,
        info: StoreInfo,
        name: str,
        differing: Callable[[SliceState], Changes],
        *,
        known: SliceState | None,
        expected: int | None,
    ) -> tuple[SliceState, int]:
        """Write what differs: the state before, and the version after it."""
        for attempt in range(_ATTEMPTS):
            state = known or await self._reader.load(name)
            known = None
            if expected is not None and state.version != expected:
                raise PublishConflictError(name, expected, state.version)
            changes = differing(state)
            is_mending = state.is_damaged and state.version > 0
            if not changes and not is_mending:
                return state, state.version
            version = await self._commit(info, state, changes)
            if version is not None:
                return state, version
            pause = min(_PAUSE_MIN_S * 2 ** min(attempt, 10), _PAUSE_MAX_S)
            await asyncio.sleep(random.uniform(0, pause))
        raise SourceError(
            f"slice {name!r} of {self._link.address.title} is written by others all the time:"
            " publish again when they are done"
        )

    async def _commit(self, info: StoreInfo, state: SliceState, changes: Changes) -> int | None:
        """The version after it; None when somebody else was faster."""
        options = self._link.options
        commit = next_commit(
            state,
            changes,
            # Never below what a reader was told that came before the slice was there.
            start=max(time.time_ns() // 1_000_000, info.born),
            tombstones=options.tombstones_per_slice,
            whole_below=options.whole_below,
        )
        data = encode(commit)
        if len(data) > await self._link.part_bytes():
            parts = await self._put_parts(state.name, encode(commit.records))
            commit = msgspec.structs.replace(commit, parts=parts, records=())
            data = encode(commit)
        headers = {"Nats-Expected-Last-Subject-Sequence": str(state.sequence)}
        if commit.is_whole:
            # All that came before is in it; the server drops it in the same step.
            headers["Nats-Rollup"] = "sub"
        sequence = await self._put(self._subjects.log(state.name), data, headers)
        if sequence is None:
            return None
        if commit.is_whole and (commit.parts or state.has_parts):
            await self._drop_parts(state.name, commit.parts[0] if commit.parts else sequence)
        return commit.version

    async def _put_parts(self, name: str, data: bytes) -> tuple[int, ...]:
        size = await self._link.part_bytes()
        if len(data) > size * MAX_PARTS:
            raise SourceError(
                f"slice {name!r} of {len(data)} bytes is too large for {self._link.address.title}:"
                " raise max_payload of the server"
            )
        placed: dict[int, int] = {}

        async def put(start: int) -> None:
            sequence = await self._put(self._subjects.part(name), data[start : start + size], {})
            if sequence is not None:
                placed[start] = sequence

        # The first one alone: it has the lowest place, and older ones are known by that.
        await put(0)
        await self._reader.in_parallel(put, range(size, len(data), size))
        return tuple(placed[start] for start in sorted(placed))

    async def _drop_parts(self, name: str, before: int) -> None:
        """Remove the parts of older commits, and those of writers that never came to their commit."""
        answer = await self._link.api(
            f"STREAM.PURGE.{self._subjects.stream}",
            {"filter": self._subjects.part(name), "seq": before},
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
        return StoreInfo(FORMAT, uuid.uuid4().hex, time.time_ns() // 1_000_000), True

    async def _found(self, info: StoreInfo) -> None:
        """Say which store this is, once the first publish is complete.

        Until then readers do not take it for one: they would see slices that are not there yet as empty,
        and drop what they hold. Another writer may be faster.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": "0"}
        await self._put(self._subjects.store, encode(info), headers)

    async def _create(self) -> None:
        stream = self._subjects.stream
        answer = await self._link.api(f"STREAM.CREATE.{stream}", stream_config(self._subjects))
        if error_code(answer) == STREAM_NAME_IN_USE:
            # Somebody else was faster.
            await self._reader.messages.require_stream()
        elif error_code(answer):
            raise api_error(self._link, answer)

"""Single messages of the stream, and which store it holds, all on the loop of the link."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from nats.aio.msg import Msg

from controller_app.nats_commit import FORMAT, CommitError, StoreInfo, decode_store
from controller_app.nats_faults import NotPermittedError, StreamMissingError
from controller_app.nats_link import NatsLink
from controller_app.nats_stream import (
    MESSAGE_NOT_FOUND,
    STREAM_NOT_FOUND,
    config_problem,
    error_code,
    error_text,
    mend_of,
)
from controller_app.nats_subjects import Subjects
from ondemand.slices import SliceRefusedError, SourceError

#: Who cannot ask the leader asks so often, with such pauses; a replica is not longer behind.
_ASKED_AGAIN: Final = 10
_AGAIN_S: Final = 0.1


class StoreEmptyError(SourceError):
    """The stream is there, and nothing in it says which store it is: it is new, or was emptied."""


class SliceDamagedError(SliceRefusedError):
    """What stands last in a slice is no commit, and this user may not look at what is before it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message and its place in the stream."""

    sequence: int
    data: bytes


class NatsMessages:
    """Reads what stands at a place of the stream; None when nothing does."""

    def __init__(self, link: NatsLink) -> None:
        self._link = link
        self.subjects = Subjects(link.address.stream)
        self._direct = f"$JS.API.DIRECT.GET.{self.subjects.stream}"
        self._there = 0

    async def store(self) -> StoreInfo:
        """Which store this is now.

        Raises:
            SourceError: there is none, or one that this release cannot read.
        """
        link = self._link
        await link.ready()
        if self._there != link.generation:
            await self.require_stream()
            self._there = link.generation
        try:
            stored = await self.last(self.subjects.store)
        except SourceError:
            self._there = 0
            raise
        if stored is None:
            raise StoreEmptyError(f"{link.address.title} holds no slices: {self._how_to_fill()}")
        try:
            info = decode_store(stored.data)
        except CommitError:
            raise SourceError(
                f"{link.address.title} is no stream of slices: give another name, or delete it with"
                f" 'nats stream rm {self.subjects.stream}' and publish again"
            ) from None
        if info.format > FORMAT:
            raise SourceError(
                f"{link.address.title} is of format {info.format}, written by a newer release, and"
                f" this one reads up to {FORMAT}: upgrade this program"
            )
        return info

    def _how_to_fill(self) -> str:
        address = self._link.address
        return f"publish into it with 'ondemand slices publish STATE.yaml --store {address.url}'"

    async def last(self, subject: str) -> Stored | None:
        """The last message of a subject, from any server that has the stream.

        The subject that is read is a part of the one that is asked, so that the server can say who may
        read what.
        """
        return await self._read(self.question(subject), {"last_by_subj": subject}, b"")

    def question(self, subject: str) -> str:
        """The subject that asks for the last message of another one."""
        return f"{self._direct}.{subject}"

    async def next(self, subject: str, after: int) -> Stored | None:
        """The message of a subject that follows a place in the stream.

        Raises:
            NotPermittedError: this user may read by subject only.
        """
        place: dict[str, object] = {"seq": after + 1, "next_by_subj": subject}
        return await self._read(self._direct, place, json.dumps(place).encode())

    async def _read(
        self, subject: str, place: Mapping[str, object], payload: bytes
    ) -> Stored | None:
        try:
            answer = await self._link.request(subject, payload)
        except StreamMissingError:
            # Or the message itself carries the header by which the client knows that nobody answers.
            await self.require_stream()
            try:
                return await self.read_leader(place)
            except NotPermittedError:
                return Stored(0, b"")
        except SourceError as error:
            await self._explain(error)
            raise
        stored = stored_in(answer)
        if stored is not None:
            return stored
        status = (answer.headers or {}).get("Status", "")
        if status == "404":
            return None
        raise SourceError(
            f"{self._link.address.title} cannot be read (status {status or 'unknown'}):"
            " see the log of the server"
        )

    async def unanswered(self, question: str) -> NoReturn:
        """Raise what ``last`` raises when nothing came in time to what ``question`` gave."""
        error = self._link.no_answer(question)
        await self._explain(error)
        raise error

    async def _explain(self, error: SourceError) -> None:
        """Raise what is known better; the server does not answer for a stream that it does not have."""
        if self._link.is_connected and not isinstance(error, NotPermittedError):
            await self.require_stream()

    async def freshest(self, subject: str) -> Stored | None:
        """As ``last``, where a replica that lags behind would be taken for a store that went back.

        The leader of the stream is asked; and who may not do that asks whoever answers several times.
        """
        try:
            return await self.read_leader({"last_by_subj": subject})
        except NotPermittedError:
            found = None
            for _ in range(_ASKED_AGAIN):
                stored = await self.last(subject)
                if stored is not None and (found is None or stored.sequence > found.sequence):
                    found = stored
                await asyncio.sleep(_AGAIN_S)
            return found

    async def read_leader(self, place: Mapping[str, object]) -> Stored | None:
        """As ``read``, from the leader of the stream, which has the last word; it is slower."""
        link = self._link
        answer = await link.api(f"STREAM.MSG.GET.{self.subjects.stream}", place)
        code = error_code(answer)
        if code == MESSAGE_NOT_FOUND:
            return None
        if code:
            raise api_error(link, answer)
        try:
            message = answer["message"]
            return Stored(int(message["seq"]), base64.b64decode(message.get("data", "")))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SourceError(
                f"{link.address.title} cannot be read: the server's answer makes no sense"
            ) from None

    async def require_stream(self) -> None:
        """Raise StreamMissingError when there is no stream, SourceError when it is another program's.

        This is asked before anything is read, and not by reading: nats-server 2.9 dies when a message is
        asked for by STREAM.MSG.GET while the stream is being made, as those ask who wait for it.
        """
        link = self._link
        try:
            answer = await link.api(f"STREAM.INFO.{self.subjects.stream}", {})
        except NotPermittedError:
            # Then what is asked next will tell.
            return
        code = error_code(answer)
        if code == STREAM_NOT_FOUND:
            raise StreamMissingError(f"{link.address.title} does not exist: {self._how_to_fill()}")
        if code:
            raise api_error(link, answer)
        problem = config_problem(self.subjects, answer)
        if problem:
            raise SourceError(
                f"{link.address.title} cannot hold slices, because {problem}: give another name, or"
                " change it"
            )


def stored_in(answer: Msg) -> Stored | None:
    """The message that an answer to a direct get holds, None when it says why there is none."""
    sequence = (answer.headers or {}).get("Nats-Sequence", "")
    return Stored(int(sequence), answer.data) if sequence.isdigit() else None


def api_error(link: NatsLink, answer: Mapping[str, Any]) -> SourceError:
    return SourceError(f"{link.address.title} refused: {error_text(answer)}{mend_of(answer)}")

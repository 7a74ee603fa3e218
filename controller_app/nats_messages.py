"""Single messages of the stream, and which store it holds, all on the loop of the link."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller_app.nats_commit import FORMAT, CommitError, StoreInfo, decode_store
from controller_app.nats_link import NatsLink, StreamMissingError
from controller_app.nats_stream import (
    MESSAGE_NOT_FOUND,
    STREAM_NOT_FOUND,
    config_problem,
    error_code,
    error_text,
)
from controller_app.nats_subjects import Subjects
from ondemand.slices import SourceError


class StoreEmptyError(SourceError):
    """The stream is there, and nothing in it says which store it is: it is new, or was emptied."""


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
            stored = await self.read({"last_by_subj": self.subjects.store})
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

    async def read(self, place: Mapping[str, object]) -> Stored | None:
        """The message at a place, from any server that has the stream."""
        try:
            answer = await self._link.request(self._direct, json.dumps(place).encode())
        except StreamMissingError:
            # Or the message itself carries the header by which the client knows that nobody answers.
            await self.require_stream()
            return await self.read_leader(place)
        except SourceError:
            if self._link.is_connected:
                # The server does not answer for a stream that it does not have: say that.
                await self.require_stream()
            raise
        headers = answer.headers or {}
        sequence = headers.get("Nats-Sequence", "")
        if sequence.isdigit():
            return Stored(int(sequence), answer.data)
        status = headers.get("Status", "")
        if status == "404":
            return None
        raise SourceError(
            f"{self._link.address.title} cannot be read (status {status or 'unknown'}):"
            " see the log of the server"
        )

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
        answer = await link.api(f"STREAM.INFO.{self.subjects.stream}", {})
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


def api_error(link: NatsLink, answer: Mapping[str, Any]) -> SourceError:
    return SourceError(f"{link.address.title} refused: {error_text(answer)}")

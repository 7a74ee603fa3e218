"""Questions that wait for the server's answer, and the way from an answer to who asked.

The library's own ``request`` is made for any program: it sends from one task, and queues answers for
another, which wakes up who asked, so that the loop turns more often than it must. Here a question is written
where it is asked, and its answer goes to a plain callback where it is parsed. A snapshot of a shard takes
0.49 ms instead of 0.57 ms, a delta without changes 0.34 ms instead of 0.38 ms (both ways in turn, on
loopback). Connection, login, TLS, reconnecting and parsing are the library's.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from nats.aio.msg import Msg

from controller_app.nats_client import NatsClient
from ondemand.slices import SourceError

#: What becomes of a question: the answer, or why none will come.
Outcome = Msg | SourceError
#: Is told it, on the loop, at most once.
Asker = Callable[[Outcome], object]


class _Inbox(asyncio.Future[Any]):
    """The library takes this for the future of one answer, and so hands over each without a queue."""

    def __init__(self, receive: Callable[[Msg], object]) -> None:
        super().__init__()
        self._receive = receive

    def set_result(self, message: Msg, /) -> None:
        self._receive(message)


class Questions:
    """Those on one client, which keeps the subscription to their answers over all its connections."""

    def __init__(self, client: NatsClient) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._numbers = itertools.count()
        #: By the subject that the answer comes to: the subject that was asked, and who asked.
        self._open: dict[str, tuple[str, Asker]] = {}

    async def listen(self) -> None:
        """Subscribe to the answers. Once, before anything is asked."""
        await self._client.subscribe(f"{self._inbox}.*", future=_Inbox(self._receive))

    def add(self, subject: str, asker: Asker) -> str:
        """Expect an answer: the subject that it is to come to. Who asks sends the question itself."""
        reply = f"{self._inbox}.{next(self._numbers)}"
        self._open[reply] = (subject, asker)
        return reply

    def ask(self, subject: str, asker: Asker) -> str:
        """Ask a question without body, at once: the subject that the answer is to come to."""
        reply = self.add(subject, asker)
        self._client.publish_now(subject, reply)
        return reply

    def drop(self, replies: Iterable[str]) -> None:
        """Nobody waits for these any more."""
        for reply in replies:
            self._open.pop(reply, None)

    def refuse(self, subject: str, error_for: Callable[[str], SourceError]) -> None:
        """The server let the questions to a subject fall, which is given in lower case."""
        for reply, (asked, asker) in tuple(self._open.items()):
            if asked.lower() == subject:
                self.drop((reply,))
                asker(error_for(asked))

    def fail(self, error: SourceError) -> None:
        """No answer will come to any of them."""
        questions, self._open = self._open, {}
        for _, asker in questions.values():
            asker(error)

    def _receive(self, message: Msg) -> None:
        # One that was given up may be answered still.
        question = self._open.pop(message.subject, None)
        if question is not None:
            question[1](message)

"""From an answer of a NATS server to who asked."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from nats.aio.msg import Msg

from controller_app.nats_client import NatsClient
from controller_app.nats_questions import Outcome, Questions
from ondemand.slices import SourceError


class Wire:
    """Stands for the client: what was asked, and the subscription by which answers come."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.subject = ""
        self._future: asyncio.Future[Any] | None = None

    def new_inbox(self) -> str:
        return "_INBOX.me.1"

    async def subscribe(self, subject: str, *, future: asyncio.Future[Any]) -> None:
        self.subject, self._future = subject, future

    def publish_now(self, subject: str, reply: str) -> None:
        self.asked.append((subject, reply))

    def answer(self, reply: str, data: bytes) -> None:
        """As the library does with a message for a subscription that has a future."""
        assert self._future is not None
        assert not self._future.cancelled()
        self._future.set_result(Msg(cast("Any", self), reply, "", data))


def run(play: Any) -> None:
    async def main() -> None:
        wire = Wire()
        questions = Questions(cast("NatsClient", wire))
        await questions.listen()
        play(wire, questions)

    asyncio.run(main())


def data_of(outcomes: list[Outcome]) -> list[bytes | str]:
    return [str(one) if isinstance(one, SourceError) else one.data for one in outcomes]


def test_each_answer_comes_to_who_asked_in_whatever_order_they_come() -> None:
    def play(wire: Wire, questions: Questions) -> None:
        outcomes: dict[str, list[Outcome]] = {"a": [], "b": []}
        questions.ask("get.a", outcomes["a"].append)
        questions.ask("get.b", outcomes["b"].append)
        (a, reply_a), (b, reply_b) = wire.asked
        assert (a, b) == ("get.a", "get.b")
        assert wire.subject == "_INBOX.me.1.*"
        assert {reply.rpartition(".")[0] for reply in (reply_a, reply_b)} == {"_INBOX.me.1"}
        wire.answer(reply_b, b"of b")
        wire.answer(reply_a, b"of a")
        assert data_of(outcomes["a"]) == [b"of a"]
        assert data_of(outcomes["b"]) == [b"of b"]

    run(play)


def test_a_second_answer_and_one_to_what_was_given_up_are_nobodys() -> None:
    def play(wire: Wire, questions: Questions) -> None:
        outcomes: list[Outcome] = []
        reply = questions.ask("get.a", outcomes.append)
        dropped = questions.ask("get.a", outcomes.append)
        questions.drop((dropped, "_INBOX.me.1.nobody"))
        for subject in (reply, reply, dropped, "_INBOX.me.1.77", "_INBOX.other"):
            wire.answer(subject, b"answer")
        assert data_of(outcomes) == [b"answer"]

    run(play)


def test_a_refusal_ends_the_questions_to_its_subject_only() -> None:
    def play(wire: Wire, questions: Questions) -> None:
        refused: list[Outcome] = []
        others: list[Outcome] = []
        questions.ask("get.A", refused.append)
        questions.ask("get.AB", others.append)
        questions.ask("get.A", refused.append)
        questions.refuse("get.a", lambda subject: SourceError(f"not {subject}"))
        assert data_of(refused) == ["not get.A"] * 2, "as it was written"
        wire.answer(wire.asked[1][1], b"allowed")
        wire.answer(wire.asked[0][1], b"late")
        assert data_of(others) == [b"allowed"]
        assert len(refused) == 2

    run(play)


def test_all_end_with_the_connection_and_later_ones_are_answered_again() -> None:
    def play(wire: Wire, questions: Questions) -> None:
        lost: list[Outcome] = []
        later: list[Outcome] = []

        def ask_again(outcome: Outcome) -> None:
            lost.append(outcome)
            questions.ask("get.a", later.append)

        for _ in range(2):
            questions.ask("get.a", ask_again)
        questions.fail(SourceError("gone"))
        assert data_of(lost) == ["gone"] * 2
        assert later == []
        wire.answer(wire.asked[-1][1], b"back")
        assert data_of(later) == [b"back"]

    run(play)

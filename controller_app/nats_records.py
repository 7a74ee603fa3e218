"""Single records, for a packet that waits for them on another thread.

This is ``NatsReader.get_many`` without its coroutines. The calling thread has its questions sent from one
callback on the loop, waits on a lock, and makes sense of the answers itself: no task, no future, no further
turn of the loop. A record of a shard takes 0.51 ms where it took 0.62 ms (``docs/nats-source.md``). Sound
answers only are understood here; for whatever else comes, the reader is asked, which asks again and knows
what it means.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

from controller_app.nats_commit import Commit, CommitError, Records, decode_base, decode_commit
from controller_app.nats_link import NatsLink
from controller_app.nats_messages import stored_in
from controller_app.nats_questions import Outcome
from controller_app.nats_reader import NatsReader
from ondemand.slices import Lookup, SourceError

Place = tuple[str, str]


class _Round:
    """Questions that are asked together by a thread that waits for all of their answers."""

    def __init__(self, count: int) -> None:
        self.outcomes: list[Outcome | None] = [None] * count
        self._left = count
        # A plain lock is what a thread wakes up from soonest.
        self._done = threading.Lock()
        self._done.acquire()

    def put(self, number: int, outcome: Outcome) -> None:
        """On the loop, once for each question."""
        self.outcomes[number] = outcome
        self._left -= 1
        if not self._left:
            self._done.release()

    def give_up(self) -> None:
        """On the loop, instead of asking."""
        self._done.release()

    def wait(self, timeout_s: float) -> bool:
        """Whether all came, or were given up, in time."""
        return self._done.acquire(timeout=timeout_s)


class NatsRecords:
    """``get_many`` is for any thread but the link's own."""

    def __init__(self, link: NatsLink, reader: NatsReader) -> None:
        self._link = link
        self._reader = reader

    def get_many(self, places: Sequence[Place]) -> list[Lookup]:
        """As ``SliceSource.get_many``; records of one slice are as of one moment."""
        wanted: dict[str, dict[str, None]] = {}
        for name, key in places:
            wanted.setdefault(name, {})[key] = None
        found: dict[Place, Lookup] = {}
        # Before there is a connection there is no thread that takes questions.
        slices = iter(wanted.items() if self._is_ready() else ())
        while some := dict(itertools.islice(slices, self._link.options.in_flight)):
            self._find(some, found)
        left = [place for place in places if place not in found]
        if left:
            for one in self._link.call(lambda: self._reader.get_many(left)):
                found[one.slice, one.key] = one
        return [found[place] for place in places]

    def _find(self, wanted: Mapping[str, Collection[str]], found: dict[Place, Lookup]) -> None:
        """Ask for slices once, and for the bases of those commits that need theirs."""
        subjects = self._reader.subjects
        based: dict[str, Commit] = {}
        for name, data in self._ask({name: subjects.log(name) for name in wanted}):
            with contextlib.suppress(CommitError):
                commit = decode_commit(name, data)
                if not _take(commit, None, wanted[name], found) and commit.parts == 1:
                    based[name] = commit
        parts = {name: subjects.part(name, commit.base, 0) for name, commit in based.items()}
        for name, data in self._ask(parts):
            with contextlib.suppress(CommitError):
                _take(based[name], decode_base(based[name], data), wanted[name], found)

    def _ask(self, subjects: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
        """The last message of each subject, by the name of its slice, of those that have one.

        Raises:
            SourceError: as ``NatsMessages.last``.
        """
        if not subjects:
            return
        link, messages = self._link, self._reader.messages
        link.check_may_wait()
        questions = [messages.question(subject) for subject in subjects.values()]
        asked = _Round(len(questions))
        replies: list[str] = []

        def send() -> None:
            if link.questions is None or not self._is_ready():
                asked.give_up()
                return
            for number, question in enumerate(questions):
                replies.append(link.questions.ask(question, partial(asked.put, number)))

        def drop() -> None:
            if link.questions is not None:
                link.questions.drop(replies)

        link.post(send)
        # Once it is closed nobody takes what is posted.
        link.check_open()
        in_time = False
        try:
            in_time = asked.wait(link.options.timeout_s)
        finally:
            if not in_time:
                link.post(drop)
        for name, question, outcome in zip(subjects, questions, asked.outcomes, strict=True):
            if isinstance(outcome, SourceError):
                raise outcome
            if outcome is None and not in_time:
                link.call(partial(messages.unanswered, question))
            stored = None if outcome is None else stored_in(outcome)
            if stored is not None:
                yield name, stored.data

    def _is_ready(self) -> bool:
        return self._link.is_connected and self._reader.is_verified


def _take(
    commit: Commit, base: Records | None, wanted: Collection[str], found: dict[Place, Lookup]
) -> bool:
    """Find what a commit tells, with its base; False when it tells nothing of some without one."""
    payloads = {key: payload for key, _, payload in commit.records if key in wanted}
    if not commit.is_whole and base is None and len(payloads) < len(wanted):
        return False
    for key in wanted:
        if key not in payloads and base is not None and key in base:
            payloads[key] = base[key][1]
        found[commit.slice, key] = Lookup(commit.slice, key, commit.version, payloads.get(key))
    return True

"""Slices over NATS JetStream: one stream that any number of hosts follow.

``docs/nats-source.md`` tells the design. Nothing here blocks the loop: every method hands its work to
the thread of the link and waits for the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from controller_app.nats_commit import FORMAT
from controller_app.nats_faults import StreamMissingError
from controller_app.nats_link import NatsLink
from controller_app.nats_messages import StoreEmptyError
from controller_app.nats_options import NatsAddress, NatsOptions
from controller_app.nats_reader import NatsReader
from controller_app.nats_records import NatsRecords
from controller_app.nats_watch import NatsWatch
from controller_app.nats_writer import NatsWriter
from controller_app.sqlite_store import SliceSummary
from ondemand.publishing import Payloads, Progress, PublishResult
from ondemand.slices import Deliver, Delta, Lookup, Snapshot, SourceError, TooOld, kind_of


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


class NatsStore:
    """A ``SliceSource`` and, with ``writer`` set, its ``Publisher``.

    Nothing is connected before it is used, so a server that is not there is an error of the call, not
    of the constructor, and a watch waits for it. A reader never makes the stream. All methods may be
    called from any thread but not from inside ``deliver``.
    """

    #: The format that this release writes, and the newest that it reads.
    format = FORMAT
    is_local = False

    def __init__(
        self,
        address: NatsAddress,
        *,
        writer: bool = False,
        options: NatsOptions | None = None,
        clock_ms: Callable[[], int] = _clock_ms,
    ) -> None:
        """``clock_ms``: milliseconds since 1970, from which a new store and new slices count."""
        self._link = NatsLink(address, options or NatsOptions())
        self._reader = NatsReader(self._link)
        self._records = NatsRecords(self._link, self._reader)
        self._writer = NatsWriter(self._link, clock_ms) if writer else None
        self._watches: set[NatsWatch] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def place(self) -> str:
        """What people call it by: its URL."""
        return self._link.address.url

    def is_there(self) -> bool:
        """Whether there is something to read from; SourceError when the server does not say."""
        try:
            self.check()
        except (StreamMissingError, StoreEmptyError):
            return False
        return True

    def check(self) -> None:
        """Raise the SourceError that reading would raise now."""
        self.identity()

    # Reading

    def identity(self) -> str:
        """As ``SliceSource.identity``; a stream that has none yet is an error."""
        return self._link.call(self._reader.store).identity

    def get(self, name: str, key: str) -> Lookup:
        return self._records.get_many([(name, key)])[0]

    def get_many(self, places: Sequence[tuple[str, str]]) -> list[Lookup]:
        """As ``SliceSource.get_many``; records of one slice are as of one moment."""
        return self._records.get_many(places)

    def snapshot(self, name: str) -> Snapshot:
        return self._link.call(lambda: self._reader.snapshot(name))

    def delta(self, name: str, since: int) -> Delta | TooOld:
        return self._link.call(lambda: self._reader.delta(name, since))

    def watch(self, deliver: Deliver, identity: str | None = None) -> NatsWatch:
        """As ``SliceSource.watch``. That the server is not there is told as a SourceState."""
        watch = NatsWatch(
            self._link,
            self._reader,
            deliver,
            identity=identity,
            on_close=self._watches.discard,
        )
        self._watches.add(watch)
        watch.start()
        return watch

    def summaries(self) -> list[SliceSummary]:
        """All slices that were ever written, by name."""
        return self._link.call(self._summaries)

    async def _summaries(self) -> list[SliceSummary]:
        names = await self._reader.names()
        found: dict[str, SliceSummary] = {}

        async def read(name: str) -> None:
            snapshot = await self._reader.snapshot(name)
            sizes = [len(payload) for payload in snapshot.records.values()]
            found[name] = SliceSummary(name, snapshot.version, len(sizes), sum(sizes))

        await self._reader.in_parallel(read, names)
        return [found[name] for name in names if found[name].version]

    # Writing

    def publish(
        self,
        desired: Mapping[str, Payloads],
        *,
        replace_all: bool,
        expected: Mapping[str, int] | None = None,
        progress: Progress | None = None,
    ) -> PublishResult:
        """As ``Publisher.publish``. Each slice is one transaction.

        Versions that are expected are looked at before anything is written. When somebody else
        publishes at the same moment, PublishConflictError may come after other slices were written;
        publishing again is harmless, since only what differs is written. ``progress`` is called from
        a thread of the store.
        """
        for name in desired:
            kind_of(name)
        writer = self._open_writer()
        return self._link.call(
            lambda: writer.publish(
                desired, replace_all=replace_all, expected=expected or {}, progress=progress
            )
        )

    def write(self, name: str, changes: Mapping[str, bytes | None]) -> int:
        """As ``Publisher.write``. What is there already is not written again."""
        kind_of(name)
        writer = self._open_writer()
        return self._link.call(lambda: writer.write(name, changes))

    def _open_writer(self) -> NatsWriter:
        if self._writer is None:
            raise SourceError(f"{self._link.address.title} was opened for reading only")
        return self._writer

    def close(self) -> None:
        """End all watches and the connection; every later call raises SourceError."""
        for watch in tuple(self._watches):
            watch.close()
        self._link.close()

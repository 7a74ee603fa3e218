"""One connection to NATS and the thread whose event loop it lives on.

Callers are on other threads: ``call`` runs a coroutine on the loop and waits for it. The connection
is made at the first call and then kept up for ever; what is asked meanwhile waits a moment for it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Server
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from controller_app.nats_client import NatsClient
from controller_app.nats_faults import (
    HANG_UPS,
    UNKNOWN,
    Fault,
    Refusal,
    StreamMissingError,
    fault_of,
    refusal_of,
)
from controller_app.nats_login import INBOX, login_options, tls_context
from controller_app.nats_options import NatsAddress, NatsOptions
from controller_app.nats_questions import Outcome, Questions
from ondemand.slices import SourceError

LOG = logging.getLogger(__name__)

T = TypeVar("T")

#: How often the connection is tried with a ping; two that stay unanswered end it.
_PING_S = 10
_CONNECT_S = 2
_CLOSE_S = 1
_CANCEL_S = 0.05
_CANCEL_ROUNDS = 100
#: Status of the answer that the server gives when nobody listens.
_NOBODY = "503"


class NatsLink:
    """``call`` and ``close`` are for other threads; everything else belongs to the loop.

    ``on_change`` are told, on the loop, that the connection came or went, ``on_missed`` the subject of
    a message that was dropped because the receiver was too slow.
    """

    def __init__(self, address: NatsAddress, options: NatsOptions) -> None:
        self.address = address
        self.options = options
        self.on_change: set[Callable[[], object]] = set()
        self.on_missed: set[Callable[[str], object]] = set()
        #: Counts connections, so that who depends on one sees that it is another one.
        self.generation = 0
        #: Counts clients; the subscriptions of one end with it.
        self.clients = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        # Of the loop:
        self._client: NatsClient | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._fault = UNKNOWN
        self._tasks: set[asyncio.Task[None]] = set()
        #: Those that wait for an answer; None before there is a connection.
        self.questions: Questions | None = None
        #: Subjects of subscriptions that the server let fall, in lower case.
        self._unheard: dict[str, Refusal] = {}

    # For other threads

    def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the coroutine returns or raises; SourceError when this link is closed."""
        self.check_may_wait()
        loop = self._started()
        coroutine = make()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError:  # closed meanwhile
            coroutine.close()
            raise self._closed_error() from None
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise self._closed_error() from None
        except BaseException:
            future.cancel()
            raise

    def post(self, callback: Callable[[], object]) -> None:
        """Run something on the loop soon; nothing happens once this link is closed."""
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(callback)
            except RuntimeError:
                return

    def is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def check_may_wait(self) -> None:
        """Raise RuntimeError on the thread of the link, where a wait would be for itself, for ever."""
        if self.is_own_thread():
            raise RuntimeError("a receiver of slices called the source from inside the call")

    def check_open(self) -> None:
        if self._closed:
            raise self._closed_error()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            thread, loop = self._thread, self._loop
        if loop is None or thread is None or not thread.is_alive():
            return
        self.post(loop.stop)
        if threading.current_thread() is not thread:
            thread.join()

    def _closed_error(self) -> SourceError:
        return SourceError(f"{self.address.title} was closed by this program")

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            self.check_open()
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._run, args=(self._loop,), name="nats", daemon=True
                )
                self._thread.start()
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(self._end())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    async def _end(self) -> None:
        self.on_change.clear()
        client, self._client = self._client, None
        if self._connecting is not None:
            self._connecting.cancel()
        if client is not None:
            # A task of its own, because what is cancelled in the client may cancel who waits for it.
            closing = asyncio.create_task(client.close())
            await asyncio.wait((closing,), timeout=_CLOSE_S)
            if closing.done() and not closing.cancelled() and (error := closing.exception()):
                LOG.debug("closing the connection to NATS failed: %s", error)
        me = asyncio.current_task()
        for _ in range(_CANCEL_ROUNDS):
            others = [task for task in asyncio.all_tasks() if task is not me]
            if not others:
                break
            # Again and again: asyncio.wait_for of Python 3.11 swallows a cancellation that comes
            # together with its result.
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=_CANCEL_S)

    # On the loop

    @property
    def is_connected(self) -> bool:
        return self._connected.is_set()

    def lost_error(self) -> SourceError:
        return SourceError(f"{self.address.title} {self._fault}")

    async def ready(self) -> NatsClient:
        """The connection, once there is one; SourceError when there is none in time."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        if not self._connected.is_set():
            try:
                await asyncio.wait_for(self._connected.wait(), self.options.timeout_s)
            except TimeoutError:
                raise self.lost_error() from None
        if self._client is None:
            raise self._closed_error()
        return self._client

    async def request(
        self, subject: str, payload: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Msg:
        """The answer of the server; SourceError when it does not come."""
        client = await self.ready()
        questions = self.questions
        if questions is None:
            raise self.lost_error()
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        reply = questions.add(subject, partial(_settle, answer))
        try:
            if payload or headers:
                await client.publish(subject, payload, reply, dict(headers) if headers else None)
            else:
                client.publish_now(subject, reply)
            async with asyncio.timeout(self.options.timeout_s):
                outcome = await answer
        except TimeoutError:
            raise self.no_answer(subject) from None
        except (nats.errors.Error, OSError) as error:
            self._fault = fault_of(error)
            raise self.lost_error() from None
        finally:
            questions.drop((reply,))
        if isinstance(outcome, SourceError):
            raise outcome
        if (outcome.headers or {}).get("Status") == _NOBODY:
            raise StreamMissingError(
                f"{self.address.title}: nobody answers to {subject!r}; start the server with"
                " JetStream (nats-server -js), or enough servers of the cluster"
            )
        return outcome

    def no_answer(self, subject: str) -> SourceError:
        """Why nothing came to a question in time."""
        for heard, refusal in self._unheard.items():
            if heard.startswith(INBOX.lower()):
                return refusal.error(self.address.title, heard)
        if not self.is_connected:
            return self.lost_error()
        # The connection may be gone without a word, or the servers elect a leader, or there is no stream
        # and this user may not ask for it.
        reason = f"nothing to {subject!r} in {self.options.timeout_s} s"
        mend = "see that the stream is there and has a leader, and whether this host reaches the server"
        return SourceError(f"{self.address.title} {Fault(UNKNOWN.what, reason, mend)}")

    async def api(self, call: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        """A call of the JetStream API: its answer, which may hold an "error"."""
        answer = await self.request(f"$JS.API.{call}", json.dumps(arguments).encode())
        try:
            found = json.loads(answer.data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise SourceError(f"{self.address.title} gave no sense to $JS.API.{call}: is it NATS?")
        return found

    async def subscribe(
        self, subject: str, receive: Callable[[Msg], Awaitable[None]]
    ) -> Subscription:
        """Receive what is published to a subject, also over later connections."""
        client = await self.ready()
        options = self.options
        try:
            return await client.subscribe(
                subject,
                cb=receive,
                pending_msgs_limit=options.pending_messages,
                pending_bytes_limit=options.pending_bytes,
            )
        except (nats.errors.Error, OSError) as error:
            self._fault = fault_of(error)
            raise self.lost_error() from None

    async def unsubscribe(self, subscription: Subscription) -> None:
        # Without a connection there is nothing to end: a new one only brings what is still wanted.
        with contextlib.suppress(nats.errors.Error):
            await subscription.unsubscribe()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done on the loop without waiting for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def flush(self) -> None:
        """Wait until the server knows of all subscriptions so far."""
        client = await self.ready()
        try:
            await client.flush(timeout=max(1, round(self.options.timeout_s)))
        except (nats.errors.Error, OSError) as error:
            self._fault = fault_of(error)
            raise self.lost_error() from None

    async def flush_for(self, subject: str) -> None:
        """Wait until the server knows of a subscription; NotPermittedError when it let it fall."""
        self._unheard.pop(subject.lower(), None)
        await self.flush()
        refusal = self._unheard.get(subject.lower())
        if refusal is not None:
            raise refusal.error(self.address.title, subject)

    def is_let_fall(self, subject: str) -> bool:
        """Whether the server refused the subscription, also one that was taken before it came back."""
        return subject.lower() in self._unheard

    async def part_bytes(self) -> int:
        """A message may be so long."""
        client = await self.ready()
        return min(self.options.part_bytes, client.max_payload - 1024)

    async def _connect(self) -> None:
        address = self.address
        client = NatsClient(partial(tls_context, address) if address.uses_tls else None)
        try:
            options = await asyncio.to_thread(login_options, address)
            self._client = client
            self._unheard.clear()
            self.clients += 1
            # Does not return before it is connected, however long that takes.
            await client.connect(
                list(address.servers),
                name="ondemand",
                error_cb=self._failed,
                disconnected_cb=self._lost,
                reconnected_cb=self._back,
                closed_cb=self._gave_up,
                reconnect_to_server_handler=self._pick,
                reconnect_time_wait=1,
                max_reconnect_attempts=-1,
                connect_timeout=_CONNECT_S,
                ping_interval=_PING_S,
                max_outstanding_pings=2,
                **options,
            )
            self.questions = Questions(client)
            await self.questions.listen()
        except (OSError, ValueError, ImportError, nats.errors.Error) as error:
            # A file that is not there, say. Whoever asks next tries again.
            self._fault = fault_of(error)
            self._connecting = None
            return
        await self._back()

    async def _gave_up(self) -> None:
        """The client closes itself for good after some errors; begin anew when somebody asks."""
        if self._client is not None:
            self._connecting = None

    async def _failed(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            for told in tuple(self.on_missed):
                told(error.subject)
            return
        refusal = refusal_of(error)
        if refusal is not None:
            self._let_fall(refusal)
            return
        # A server that refuses a login says so and hangs up; what it said is the better reason.
        if not (isinstance(error, HANG_UPS) and self._fault.reason):
            self._fault = fault_of(error)

    def _let_fall(self, refusal: Refusal) -> None:
        """The server refused a message or a subscription, and will say nothing more of it."""
        if refusal.is_subscription:
            self._unheard[refusal.subject] = refusal
            return
        if self.questions is not None:
            title = self.address.title
            self.questions.refuse(refusal.subject, partial(refusal.error, title))

    async def _lost(self) -> None:
        self._connected.clear()
        self._unheard.clear()
        if self.questions is not None:
            # The connection ended, and with it the hope for an answer.
            self.questions.fail(self.lost_error())
        self._tell()

    async def _back(self) -> None:
        self._fault = UNKNOWN
        self.generation += 1
        self._connected.set()
        self._tell()

    def _tell(self) -> None:
        for told in tuple(self.on_change):
            told()

    def _pick(self, servers: list[Server], _: dict[str, Any]) -> tuple[Server, float]:
        """The server to try next, and in how many seconds."""
        server = min(servers, key=lambda one: one.reconnects)
        options = self.options
        pause = min(options.retry_min_s * 2 ** min(server.reconnects, 10), options.retry_max_s)
        return server, pause * random.uniform(0.5, 1.0)


def _settle(answer: asyncio.Future[Outcome], outcome: Outcome) -> None:
    # It may be given up in the same turn of the loop.
    if not answer.done():
        answer.set_result(outcome)

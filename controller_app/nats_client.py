"""The client library's connection, with what is mended in it.

Seen with nats-py 2.16. All of it is in the library's private methods, whose changes the tests tell
(``test_nats_security.py`` and ``test_nats_faults.py`` in ``tests/contract``).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import ParseResult

import nats.errors
from nats.aio.client import Client, Srv
from nats.aio.transport import TcpTransport
from nats.protocol.command import pub_cmd

_BUFFER_BYTES: Final = 1 << 18


class NatsTransport(TcpTransport):
    """Lets go of connections that came to nothing.

    The library waits for ever for the end of one whose TLS handshake failed, and never connects again;
    and it forgets the one before when it connects anew, which stays open.
    """

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,
        connect_timeout: int,
    ) -> None:
        try:
            await super().connect_tls(uri, ssl_context, buffer_size, connect_timeout)
        except BaseException:
            self.let_go()
            raise

    def let_go(self) -> None:
        """End the connection at once, if there is one."""
        writer, self._io_writer = self._io_writer, None
        if writer is not None:
            writer.transport.abort()


class NatsClient(Client):
    """Never goes without TLS where TLS is wanted, nor deaf; ``flush`` waits for all that was sent before.

    ``make_tls`` is called for each connection, so that files that were renewed need no restart.
    """

    def __init__(self, make_tls: Callable[[], ssl.SSLContext] | None = None) -> None:
        super().__init__()
        self._make_tls = make_tls

    @property
    def ssl_context(self) -> ssl.SSLContext:
        return super().ssl_context if self._make_tls is None else self._make_tls()

    def publish_now(self, subject: str, reply: str) -> None:
        """Send a message without body, and before it all that waits to be sent.

        ``publish`` leaves the sending to another task, a turn of the loop later. This does not wait for
        a server that takes nothing, so the number of such messages must be bounded by who sends them.
        """
        command = pub_cmd(subject, reply, b"")
        self.stats["out_msgs"] += 1
        self._pending.append(command)
        self._pending_data_size += len(command)
        if self.is_connected:
            waiting, self._pending = self._pending, []
            self._pending_data_size = 0
            self._transport.writelines(waiting)  # type: ignore[union-attr]

    async def _connect_to_server(self, s: Srv) -> None:
        if isinstance(self._transport, NatsTransport):
            self._transport.let_go()
        s.last_attempt = time.monotonic()
        self._transport = NatsTransport()  # type: ignore[no-untyped-call]
        await self._transport.connect(
            s.uri, buffer_size=_BUFFER_BYTES, connect_timeout=self.options["connect_timeout"]
        )

    def _connect_command(self) -> bytes:
        """The library takes a server at its word that it has no TLS, and would send it the password."""
        if self._make_tls is not None and not self._server_info.get("tls_required"):
            raise nats.errors.SecureConnRequiredError
        return super()._connect_command()

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """The library lets a ping overtake what waits to be sent, so its answer would say nothing."""
        await self._flush_pending(force_flush=True)
        await super()._send_ping(future)

    async def _process_pong(self) -> None:
        """The library stops reading for good when an answer comes after its question was given up."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _read_loop(self) -> None:
        """It ends by itself only after an error that nobody thought of; then begin anew."""
        await super()._read_loop()
        if self.is_connected and asyncio.current_task() is self._reading_task:
            await self._process_op_err(nats.errors.ProtocolError())

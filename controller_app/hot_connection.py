"""A connection to a switch that serves packet-ins fast and leaves all else to os-ken.

os-ken reads 8 bytes, then the rest of a message, makes objects of it and hands them over through
queues. Here one thread reads up to 256 KiB at once; packet-ins and flow-removed messages whose cookie
is ours go straight to the owner, and what the owner wants sent leaves in one write. Handshake, echo,
multipart, and everything of other apps take os-ken's way: its parser, its handlers, its observers.

os-ken's send queue and its thread are not used: ``SocketWriter`` is the only one who writes.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import ssl
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from os_ken import exception as os_ken_exception
from os_ken.controller import controller, ofp_event
from os_ken.controller.handler import (
    DEAD_DISPATCHER,
    HANDSHAKE_DISPATCHER,
    MAIN_DISPATCHER,
)
from os_ken.lib import hub
from os_ken.ofproto import ofproto_parser

from controller_app.decode import (
    ERROR_HEAD,
    FLOW_REMOVED_HEAD,
    PACKET_IN_HEAD,
    MalformedMessage,
    PacketInDecoder,
    decode_error,
    decode_flow_removed,
    packet_in_cookie,
    split,
)
from controller_app.flow_mod import VERSION
from controller_app.owner import Owner, OwnerLoan
from controller_app.socket_writer import HIGH_WATER_BYTES, SocketWriter
from rule_cache.cookie import is_ours

LOG = logging.getLogger(__name__)

#: Most bytes of one read.
READ_BYTES: Final = 256 * 1024
#: Messages to the owner after which what it wants sent is sent, so that the first packet of a large
#: read does not wait for the last.
BATCH_MESSAGES: Final = 64
#: Seconds between ticks when nothing comes.
TICK_S: Final = 0.05
#: Seconds between looks at a connection that no owner has.
_IDLE_S: Final = 1.0
#: With much to write the switch is left to read it first; after so many seconds without a byte taken
#: it is read from all the same, because it may be waiting for that.
_STANDSTILL_S: Final = 0.1
_HELLO: Final = 0


class HotConnectionError(Exception):
    """The hot connection cannot be used here; our fault."""


@dataclass(slots=True)
class Counters:
    """What one installation has seen, over all its connections."""

    #: Packet-ins and flow-removed messages with our cookie that break the format.
    malformed: int = 0
    #: Packet-ins thrown away because the switch took nothing of what there was to write.
    overload_drops: int = 0
    #: Errors of handlers that os-ken runs inside the reading thread.
    handler_errors: int = 0


class _ConnectionEnd(Exception):  # noqa: N818 - a reason, not a mistake
    """Why the connection is to be closed, as a sentence for the log."""


class _LocalSocket(socket.socket):
    """A Unix domain socket that forgives os-ken for setting TCP_NODELAY on it."""

    def setsockopt(self, level: int, *arguments: Any) -> None:
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, *arguments)


class HotDatapath(controller.Datapath):
    """A switch's connection; for os-ken and its apps a Datapath like any other."""

    def __init__(
        self,
        sock: socket.socket,
        address: Any,
        *,
        loan: OwnerLoan,
        counters: Counters,
        tick_s: float = TICK_S,
    ) -> None:
        if sock.family == socket.AF_UNIX:
            sock = _LocalSocket(fileno=sock.detach())
        super().__init__(sock, address)
        self._timeout_s = float(controller.CONF.socket_timeout)
        sock.setblocking(False)
        self._counters = counters
        self._tick_s = tick_s
        self._loan = loan
        #: The owner while this connection has it.
        self._owner: Owner | None = None
        self._owner_asked = False
        self._writer = SocketWriter(sock, on_waiting=self.wake)
        self._decoder = PacketInDecoder()
        self._thread_id: int | None = None
        self._wake_lock = threading.Lock()
        self._wake_fd: int | None = None
        self._next_probe_s = 0.0

    # ------------------------------------------------------------------------- for any thread

    def send(self, buf: bytes, close_socket: bool = False) -> bool:  # noqa: FBT001, FBT002 - os-ken's
        """Write whole messages, with ``close_socket`` as the last ones.

        Another thread than the connection's own may have to wait while much is yet to be written.

        Returns:
            False when the connection is dying and they will not be written.
        """
        data = bytes(buf)
        if threading.get_ident() == self._thread_id:
            accepted = self._writer.write(data)
        else:
            accepted = self._writer.write_when_room(data, self._timeout_s)
        if close_socket:
            self._writer.end()
        return accepted

    def wake(self) -> None:
        """Have the owner's ``collect`` called soon."""
        with self._wake_lock:
            if self._wake_fd is not None:
                os.eventfd_write(self._wake_fd, 1)

    def close(self) -> None:
        """End the connection; its thread does the rest."""
        super().close()
        self.wake()

    # ----------------------------------------------------------------- the connection's thread

    def serve(self) -> None:
        """Serve the connection until its end."""
        self._thread_id = threading.get_ident()
        with self._wake_lock:
            self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self.send_msg(self.ofproto_parser.OFPHello(self))
            self._recv_loop()
        finally:
            self.is_active = False
            with self._wake_lock:
                os.close(self._wake_fd)
                self._wake_fd = None
            self.socket.close()

    def _recv_loop(self) -> None:
        try:
            self._read_until_end()
        except (_ConnectionEnd, MalformedMessage, os_ken_exception.OSKenException) as reason:
            LOG.warning("%s closed: %s", self, reason)
        except OSError as error:
            LOG.warning("%s lost: %s", self, error)
        else:
            LOG.info("%s ended", self)
        finally:
            self._writer.fail(ConnectionAbortedError("the connection is closed"))
            self._release_owner()

    def _read_until_end(self) -> None:
        buffer = memoryview(bytearray(READ_BYTES))
        rest = b""
        poller = select.poll()
        poller.register(self._wake_fd, select.POLLIN)
        socket_fd = self.socket.fileno()
        while self.state != DEAD_DISPATCHER:
            poller.register(socket_fd, self._interest(time.monotonic()))
            ready = dict(poller.poll(self._wait_ms()))
            if self._wake_fd in ready:
                os.eventfd_read(self._wake_fd)
            events = ready.get(socket_fd, 0)
            if events & select.POLLOUT:
                self._writer.flush()
            self._check_writer()
            if events & ~select.POLLOUT:
                count = self._read_into(buffer)
                if count == 0:
                    return
                rest = self._take(rest + bytes(buffer[:count]) if rest else bytes(buffer[:count]))
            self._collect()
            self._probe()

    def _interest(self, now_s: float) -> int:
        """What to wait for: first write, then read, unless the switch seems to wait for us."""
        waiting = self._writer.waiting_bytes
        if waiting == 0:
            return select.POLLIN
        if waiting < HIGH_WATER_BYTES or self._writer.standstill_s(now_s) > _STANDSTILL_S:
            return select.POLLIN | select.POLLOUT
        return select.POLLOUT

    def _wait_ms(self) -> int:
        return int(1000 * (_IDLE_S if self._owner is None else self._tick_s)) or 1

    def _read_into(self, buffer: memoryview) -> int:
        """How many bytes came, -1 for none yet, 0 at the end."""
        try:
            return self.socket.recv_into(buffer)
        except BlockingIOError:
            return -1

    def _check_writer(self) -> None:
        if self._writer.failure is not None:
            raise self._writer.failure
        if self._writer.oldest_wait_s(time.monotonic()) > self._timeout_s:
            raise _ConnectionEnd(
                f"the switch read nothing of {self._writer.waiting_bytes} bytes "
                f"for {self._timeout_s:g} s"
            )

    def _take(self, buf: bytes) -> bytes:
        """Handle the whole messages in ``buf`` and return what follows them."""
        overloaded = self._writer.waiting_bytes >= HIGH_WATER_BYTES
        end, batch = 0, 0
        for head, start, end in split(buf):
            owner = self._owner
            if owner is not None:
                if head == PACKET_IN_HEAD and is_ours(packet_in_cookie(buf, start, end)):
                    ...
            self._dispatch(buf[start:end])
        return buf[end:]

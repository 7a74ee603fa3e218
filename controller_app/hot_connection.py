"""A connection to a switch that serves packet-ins fast and leaves all else to os-ken.

os-ken reads 8 bytes, then the rest of a message, makes objects of it and hands them over through
queues. Here one thread reads up to 256 KiB at once; packet-ins and flow-removed messages whose cookie
is ours go straight to the owner, and what the owner wants sent leaves in one write. Handshake, echo,
multipart, and everything of other apps take os-ken's way: its parser, its handlers, its observers.

os-ken's send queue and its thread are not used: ``SocketWriter`` is the only one who writes.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import os_ken.base.app_manager  # noqa: F401 - os_ken.controller.controller needs it first
from os_ken import exception as os_ken_exception
from os_ken.controller import controller, ofp_event
from os_ken.controller.handler import DEAD_DISPATCHER, HANDSHAKE_DISPATCHER, MAIN_DISPATCHER
from os_ken.lib.dpid import dpid_to_str
from os_ken.ofproto import get_ofp_modules, ofproto_parser

from controller_app.decode import (
    ERROR_HEAD,
    FLOW_REMOVED_HEAD,
    HEADER_BYTES,
    PACKET_IN_HEAD,
    MalformedMessage,
    PacketInDecoder,
    decode_error,
    decode_flow_removed,
    flow_removed_cookie,
    packet_in_cookie,
    split,
    xid_of,
)
from controller_app.fair_order import Place, in_turns
from controller_app.flow_mod import VERSION
from controller_app.flow_stats import MULTIPART_REPLY_HEAD
from controller_app.owner import Owner, OwnerLoan, is_owners
from controller_app.socket_writer import HIGH_WATER_BYTES, SocketWriter
from controller_app.wake_fd import WakeFd
from rule_cache.cookie import is_ours

LOG = logging.getLogger(__name__)

#: Most bytes of one read.
READ_BYTES: Final = 256 * 1024
#: Messages to the owner after which what it wants sent is sent, so that the first packet of a large
#: read does not wait for the last.
BATCH_MESSAGES: Final = 64
#: Seconds between ticks of an owner to whom nothing comes.
TICK_S: Final = 0.05
#: Seconds between looks at a connection that no owner has.
_IDLE_S: Final = 0.2
#: With much to write the switch is left to read it first; after so many seconds without a byte taken
#: it is read from all the same, because it may be waiting for that.
_STANDSTILL_S: Final = 0.1
_HELLO: Final = 0
_KNOWN_VERSIONS: Final = frozenset(get_ofp_modules())


class _ConnectionEnd(Exception):  # noqa: N818 - a reason, not a mistake
    """Why the connection is to be closed, as half a sentence for the log."""


@dataclass(slots=True)
class Counters:
    """What one installation has seen, over all its connections."""

    #: Messages to the owner that break the format.
    malformed: int = 0
    #: Packet-ins thrown away because the switch took nothing of what there was to write.
    overload_drops: int = 0
    #: Errors of handlers that os-ken runs inside the reading thread.
    handler_errors: int = 0


class _LocalSocket(socket.socket):
    """A Unix domain socket that forgives os-ken for setting TCP_NODELAY on it."""

    def setsockopt(self, level: int, *arguments: Any) -> None:
        if level != socket.IPPROTO_TCP:
            super().setsockopt(level, *arguments)


def _check_hello(data: bytes) -> None:
    """os-ken goes round for ever at an element of length 0 (OpenFlow 1.3.5 section 7.5.1)."""
    at = HEADER_BYTES
    while at < len(data):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 4:
            raise _ConnectionEnd(f"its hello has an element of {length} bytes")
        at += length + 7 & ~7


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
        sock.settimeout(0)
        self._timeout_s = float(controller.CONF.socket_timeout)
        self._tick_s = tick_s
        self._loan = loan
        #: The owner while this connection has it.
        self._owner: Owner | None = None
        self._counters = counters
        self._writer = SocketWriter(sock, on_waiting=self.wake)
        self._decoder = PacketInDecoder()
        self._next_probe_s = 0.0
        self._thread_id: int | None = None
        self._wake = WakeFd()

    def __str__(self) -> str:
        switch = "a switch" if self.id is None else f"switch {dpid_to_str(self.id)}"
        return f"OpenFlow connection of {switch} from {self.address or 'this host'}"

    # ------------------------------------------------------------------------- for any thread

    def send(self, buf: bytes, close_socket: bool = False) -> bool:  # noqa: FBT001, FBT002 - os-ken's
        """Write whole messages, with ``close_socket`` as the last ones.

        A thread other than the connection's own may have to wait while much is yet to be written.

        Returns:
            False when the connection is dying and they will not be written.
        """
        if threading.get_ident() == self._thread_id:
            accepted = self._writer.write(bytes(buf))
        else:
            accepted = self._writer.write_when_room(bytes(buf), self._timeout_s)
        if close_socket:
            self._writer.end()
        return accepted

    def wake(self) -> None:
        """Have the owner's ``collect`` called soon."""
        self._wake.set()

    def close(self) -> None:
        """End the connection; its thread does the rest."""
        super().close()
        self.wake()

    # ----------------------------------------------------------------- the connection's thread

    def serve(self) -> None:
        """Serve the connection until its end."""
        self._thread_id = threading.get_ident()
        try:
            self.send_msg(self.ofproto_parser.OFPHello(self))
            self._recv_loop()
        finally:
            self.is_active = False
            self._wake.close()
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
        socket_fd = self.socket.fileno()
        wake_fd = self._wake.open()
        poller = select.poll()
        poller.register(wake_fd, select.POLLIN)
        while self.state != DEAD_DISPATCHER:
            poller.register(socket_fd, self._interest())
            ready = dict(poller.poll(self._wait_ms()))
            if wake_fd in ready:
                self._wake.clear()
            events = ready.get(socket_fd, 0)
            if events & select.POLLOUT:
                self._writer.flush()
            self._check_writer()
            if events & ~select.POLLOUT:
                data = self._read(buffer)
                if data == b"":
                    return
                if data is not None:
                    rest = self._take(rest + data)
            # Asked again and again: an owner may learn only later which switch is its own.
            self._offer_to_owner()
            self._collect()
            self._probe()

    def _read(self, buffer: memoryview) -> bytes | None:
        """What has come: b"" at the end, None when it was a false alarm."""
        try:
            return bytes(buffer[: self.socket.recv_into(buffer)])
        except BlockingIOError:
            return None

    def _interest(self) -> int:
        """What to wait for: with much to write only for that, unless the switch waits for us."""
        waiting = self._writer.waiting_bytes
        if waiting == 0:
            return select.POLLIN
        if waiting < HIGH_WATER_BYTES:
            return select.POLLIN | select.POLLOUT
        if self._writer.standstill_s(time.monotonic()) > _STANDSTILL_S:
            return select.POLLIN | select.POLLOUT
        return select.POLLOUT

    def _wait_ms(self) -> int:
        busy = self._owner is not None or self._writer.waiting_bytes > 0
        return max(1, int(1000 * (self._tick_s if busy else _IDLE_S)))

    def _check_writer(self) -> None:
        if self._writer.failure is not None:
            raise self._writer.failure
        if self._writer.standstill_s(time.monotonic()) > self._timeout_s:
            raise _ConnectionEnd(
                f"the switch has read nothing of {self._writer.waiting_bytes} bytes "
                f"for {self._timeout_s:g} s"
            )

    def _take(self, buf: bytes) -> bytes:
        """Handle the whole messages in ``buf`` and return what follows them.

        The owner's packet-ins come last, the ports by turns.
        """
        overloaded = self._writer.waiting_bytes >= HIGH_WATER_BYTES
        end = 0
        packet_ins: list[Place] = []
        broken: MalformedMessage | _ConnectionEnd | None = None
        try:
            for head, start, end in split(buf):
                owner = self._owner
                if (
                    owner is not None
                    and head == PACKET_IN_HEAD
                    and is_ours(packet_in_cookie(buf, start, end))
                ):
                    packet_ins.append((start, end))
                else:
                    self._take_one(owner, head, buf, start, end)
        except (MalformedMessage, _ConnectionEnd) as error:
            # What came before is good.
            broken = error
        if overloaded:
            self._counters.overload_drops += len(packet_ins)
        elif packet_ins:
            self._take_packet_ins(buf, packet_ins)
        if broken is not None:
            raise broken
        rest = buf[end:]
        if rest:
            self._check_version(rest[0], rest[1] if len(rest) > 1 else _HELLO)
        return rest

    def _take_one(self, owner: Owner | None, head: int, buf: bytes, start: int, end: int) -> None:
        """Any message but a packet-in of the owner's."""
        if owner is None:
            self._dispatch(buf[start:end])
            return
        try:
            if head == FLOW_REMOVED_HEAD and is_ours(flow_removed_cookie(buf, start, end)):
                owner.flow_removed(decode_flow_removed(buf, start, end))
            elif head == MULTIPART_REPLY_HEAD and is_owners(xid_of(buf, start)):
                owner.statistics(buf[start:end])
            else:
                if head == ERROR_HEAD:
                    owner.error(*decode_error(buf, start, end))
                self._dispatch(buf[start:end])
        except MalformedMessage as error:
            self._tell_malformed(error)

    def _take_packet_ins(self, buf: bytes, places: list[Place]) -> None:
        owner = self._owner
        decode = self._decoder.decode
        ordered = in_turns(buf, places) if len(places) > BATCH_MESSAGES else places
        for number, (start, end) in enumerate(ordered, 1):
            if owner is None:
                return
            try:
                owner.packet_in(decode(buf, start, end))
            except MalformedMessage as error:
                self._tell_malformed(error)
            if number % BATCH_MESSAGES == 0:
                self._collect()

    def _tell_malformed(self, error: MalformedMessage) -> None:
        """One message, of known length: what follows it is good again."""
        self._counters.malformed += 1
        LOG.warning("%s sent %s", self, error)

    def _check_version(self, version: int, kind: int) -> None:
        """All messages have the negotiated version, but for hello (OpenFlow 1.3.5 section 6.3.1)."""
        if kind == _HELLO or self.state == HANDSHAKE_DISPATCHER:
            if version in _KNOWN_VERSIONS:
                return
        elif version == self.ofproto.OFP_VERSION:
            return
        raise _ConnectionEnd(f"the switch sent a message of version 0x{version:02x}")

    def _dispatch(self, data: bytes) -> None:
        """Give one message to os-ken, as its own loop does."""
        version, kind, length, xid = ofproto_parser.header(data)
        self._check_version(version, kind)
        if kind == _HELLO:
            _check_hello(data)
        message = ofproto_parser.msg(self, version, kind, length, xid, data)
        if message:
            self._handle(ofp_event.ofp_msg_to_ev(message))
        self._offer_to_owner()

    def _handle(self, event: Any) -> None:
        brick = self.ofp_brick
        if brick is None:
            return
        brick.send_event_to_observers(event, self.state)
        for handler in list(brick.get_handlers(event, self.state)):
            try:
                handler(event)
            except Exception:
                # A foreign handler's mistake; it must not cost the switch its connection.
                self._counters.handler_errors += 1
                LOG.exception("%s: a handler of %s failed", self, type(event).__name__)

    # -------------------------------------------------------------------------------- the owner

    def _offer_to_owner(self) -> None:
        loan = self._loan
        if self.id is None or self._owner is not None or not loan.owner.wants(self.id):
            return
        if self.ofproto.OFP_VERSION != VERSION:
            raise _ConnectionEnd(
                f"the switch speaks version 0x{self.ofproto.OFP_VERSION:02x}: "
                "let its bridge have protocols=OpenFlow13"
            )
        if not loan.take(self, self._timeout_s):
            raise _ConnectionEnd("the former connection of the same switch does not end")
        self._owner = loan.owner
        loan.owner.connected(self)

    def _collect(self) -> None:
        if self._owner is not None:
            out = self._owner.collect(time.monotonic())
            if out:
                self._writer.write(out)

    def _release_owner(self) -> None:
        owner = self._owner
        if owner is None:
            return
        self._owner = None
        try:
            owner.disconnected()
        finally:
            self._loan.give_back(self)

    def _probe(self) -> None:
        """Echo requests, when os-ken's configuration asks for them."""
        limit = self.max_unreplied_echo_requests
        if not limit or self.state != MAIN_DISPATCHER or time.monotonic() < self._next_probe_s:
            return
        if len(self.unreplied_echo_requests) > limit:
            raise _ConnectionEnd(f"the switch did not answer {limit} echo requests")
        request = self.ofproto_parser.OFPEchoRequest(self)
        self.unreplied_echo_requests.append(self.set_xid(request))
        self.send_msg(request)
        self._next_probe_s = time.monotonic() + self.echo_request_interval

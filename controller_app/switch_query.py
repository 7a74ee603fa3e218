"""Questions to a running bridge over its management socket: which rules it holds, and what they did.

Open vSwitch serves OpenFlow to any local program at ``<run directory>/<bridge>.mgmt``, beside the
connection of the agent, which is not disturbed. This asks and waits, one question after the other.

Open vSwitch makes the answer to a question in one go and forwards nothing meanwhile on the userspace
datapath. So whoever wants many rules asks for a few at a time.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from controller_app.decode import ERROR, MalformedMessage, decode_error, split, xid_of
from controller_app.flow_mod import ANY, VERSION
from controller_app.flow_stats import (
    MULTIPART_REPLY,
    flow_entries,
    flow_stats_reply,
    flow_stats_request,
)
from controller_app.ovsdb_errors import START_OVS
from ondemand.goal_problems import did_you_mean

#: Seconds to wait for an answer, in all.
TIMEOUT_S: Final = 10.0
ALL_TABLES: Final = 0xFF
#: Seconds to look for what was said before a connection was closed; it is here already.
_LAST_WORDS_S: Final = 0.1

_HELLO, _ECHO_REQUEST, _ECHO_REPLY, _MULTIPART_REQUEST = 0, 2, 3, 18
_AGGREGATE, _AGGREGATE_BYTES = 2, 40
_HELLO_FAILED: Final = 0
_READ_BYTES: Final = 1 << 18
#: OpenFlow 1.3.5 section 7.5.1: a bitmap of versions, in which bit 4 is OpenFlow 1.3.
_VERSION_BITMAP: Final = struct.pack(">HHI", 1, 8, 1 << VERSION)
# Version, type, length, xid.
_pack_header = struct.Struct(">BBHI").pack
# Duration, priority, timeouts, flags, cookie, counters (section 7.3.5.2).
_read_statistics = struct.Struct(">4xIIH18xQQ").unpack_from
# As a request for flow statistics, and the number of rules in its answer (section 7.3.5.3).
_pack_aggregate = struct.Struct(">BBHIHH4xB3xII4xQQHH4x").pack
_read_count = struct.Struct(">8xH6x16xI").unpack_from


class SwitchQueryError(Exception):
    """The switch cannot be asked or does not answer; the message says why, and the mend."""


@dataclass(frozen=True, slots=True)
class FlowEntry:
    """A rule as the switch reports it: ``data`` is for ``RuleReader``. Age is in seconds."""

    cookie: int
    table: int
    priority: int
    age_s: float
    packet_count: int
    byte_count: int
    data: bytes


class SwitchQuery:
    """A connection to one bridge."""

    def __init__(self, path: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        """Connect to the management socket ``path``.

        Raises:
            SwitchQueryError: nobody is there, or it may not be asked.
        """
        self._path = path
        self._timeout_s = timeout_s
        self._rest = b""
        self._xid = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise SwitchQueryError(_cannot_connect(path, error)) from error
        hello = _pack_header(VERSION, _HELLO, 8 + len(_VERSION_BITMAP), 0) + _VERSION_BITMAP
        try:
            self._send(hello)
        except SwitchQueryError:
            self._socket.close()
            raise

    def flows(self, cookie: int, mask: int, table: int = ALL_TABLES) -> list[FlowEntry]:
        """The rules whose cookie equals ``cookie`` where ``mask`` has ones.

        Raises:
            SwitchQueryError: it does not answer, or not in OpenFlow 1.3.
        """
        xid = self._next_xid()
        self._send(flow_stats_request(xid, cookie, mask, table))
        found: list[FlowEntry] = []
        try:
            for message in self._answers(xid):
                is_last = _take_entries(message, found)
                if is_last:
                    break
        except MalformedMessage as error:
            raise self._malformed(error) from error
        return found

    def count(self, cookie: int, mask: int, table: int = ALL_TABLES) -> int:
        """How many rules ``flows`` would find; the switch counts them itself.

        Raises:
            SwitchQueryError: as ``flows``.
        """
        xid = self._next_xid()
        kind = (VERSION, _MULTIPART_REQUEST, 56, xid, _AGGREGATE, 0)
        self._send(_pack_aggregate(*kind, table, ANY, ANY, cookie, mask, 1, 4))
        try:
            return _flow_count(next(self._answers(xid)))
        except MalformedMessage as error:
            raise self._malformed(error) from error

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- inside ----------------------------------------------------------------------------------

    def _next_xid(self) -> int:
        self._xid += 1
        return self._xid

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise SwitchQueryError(self._last_words() or self._hung_up(error)) from error

    def _answers(self, xid: int) -> Iterator[bytes]:
        """The multipart replies to ``xid``, as they come."""
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            for message in self._receive(deadline_s):
                version, kind = message[0], message[1]
                if kind == _ECHO_REQUEST:
                    self._send(
                        _pack_header(VERSION, _ECHO_REPLY, len(message), xid_of(message, 0))
                        + message[8:]
                    )
                elif kind == ERROR:
                    raise SwitchQueryError(self._refusal(message, version))
                elif kind == MULTIPART_REPLY and xid_of(message, 0) == xid:
                    yield message

    def _receive(self, deadline_s: float) -> list[bytes]:
        """The whole messages of the next read."""
        try:
            # Never 0, which would mean not to wait at all.
            self._socket.settimeout(max(deadline_s - time.monotonic(), 0.001))
            data = self._socket.recv(_READ_BYTES)
        except TimeoutError as error:
            raise SwitchQueryError(
                f"the switch at {self._path} did not answer within {self._timeout_s:g} s;"
                " is ovs-vswitchd stuck?"
            ) from error
        except OSError as error:
            raise SwitchQueryError(self._hung_up(error)) from error
        if not data:
            raise SwitchQueryError(self._hung_up())
        buf, end = self._rest + data, 0
        found = []
        for _, start, end in split(buf):
            found.append(buf[start:end])
        self._rest = buf[end:]
        return found

    def _last_words(self) -> str:
        """What a switch that closed the connection said before, when it was a refusal."""
        try:
            while True:
                for message in self._receive(time.monotonic() + _LAST_WORDS_S):
                    if message[1] == ERROR:
                        return self._refusal(message, message[0])
        except (SwitchQueryError, MalformedMessage):
            return ""

    def _hung_up(self, error: OSError | None = None) -> str:
        reason = "" if error is None else f" ({error.strerror or error})"
        return f"the switch at {self._path} closed the connection{reason}"

    def _refusal(self, message: bytes, version: int) -> str:
        _, kind, code, _ = decode_error(message, 0, len(message))
        if kind == _HELLO_FAILED or version != VERSION:
            bridge = self._path.stem
            return (
                f"bridge {bridge!r} does not speak OpenFlow 1.3: no agent serves it; if one should,"
                f" ovs-vsctl add bridge {bridge} protocols OpenFlow13"
            )
        return f"the switch at {self._path} refused the question (error type {kind} code {code})"

    def _malformed(self, error: MalformedMessage) -> SwitchQueryError:
        return SwitchQueryError(f"what answers at {self._path} is no OpenFlow switch: {error}")


def _take_entries(message: bytes, found: list[FlowEntry]) -> bool:
    """Add what a reply tells to ``found``; whether it is the last one."""
    reply = flow_stats_reply(message, 0, len(message))
    if reply is None:
        raise MalformedMessage("a multipart reply that is no flow statistics")
    for cookie, table, start, end in flow_entries(message, 0, len(message)):
        seconds, nanoseconds, priority, packets, size = _read_statistics(message, start)
        age_s = seconds + nanoseconds / 1e9
        data = message[start:end]
        found.append(FlowEntry(cookie, table, priority, age_s, packets, size, data))
    return not reply[1]


def _flow_count(message: bytes) -> int:
    if len(message) < _AGGREGATE_BYTES or _read_count(message, 0)[0] != _AGGREGATE:
        raise MalformedMessage("a multipart reply that is no aggregate flow statistics")
    counted: int = _read_count(message, 0)[1]
    return counted


def _cannot_connect(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        bridges = _bridges(path.parent)
        if not bridges:
            return (
                f"{path} is not there, nor the socket of any other bridge, so Open vSwitch does not run:"
                f" {START_OVS}; if its run directory is another one, name it: OVS_RUNDIR=DIRECTORY, or"
                f" --switch unix:/DIRECTORY/{path.name} of explain"
            )
        hint = did_you_mean(path.stem, bridges) or f"; there is {', '.join(bridges[:10])}"
        return f"there is no bridge {path.stem!r} in {path.parent}{hint}"
    if isinstance(error, PermissionError):
        return f"no permission to ask the switch at {path}; run this as root"
    if isinstance(error, ConnectionRefusedError):
        return f"nobody answers at {path}: ovs-vswitchd does not run: {START_OVS}"
    return f"the switch at {path} cannot be asked: {error.strerror or error}"


def _bridges(folder: Path) -> list[str]:
    """Bridges whose socket is there, by name."""
    try:
        return sorted(path.stem for path in folder.glob("*.mgmt"))
    except OSError:
        return []

"""A switch's management socket: it answers questions about rules as Open vSwitch does, and can misbehave."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from controller_app.decode import split
from tests.support.flow_stats_bytes import reply
from tests.support.packet_in_bytes import message

#: Entries in one message of an answer, few so that an answer has several.
PER_MESSAGE = 5
_HELLO, _ERROR, _ECHO_REQUEST, _MULTIPART_REQUEST, _MULTIPART_REPLY = 0, 1, 2, 18, 19
_FLOW, _AGGREGATE = 1, 2
_read_request = struct.Struct(">4xIH6xB3x8x4xQQ").unpack_from


class SwitchServer:
    """``entries``: cookie -> (table, entry of the flow statistics).

    ``conduct`` is what it does with a question: "answer", "hang up", "be silent", "refuse" (an error),
    "refuse hello", "talk nonsense", "cut" (an entry that is longer than its message).
    """

    def __init__(
        self, path: Path, entries: Mapping[int, tuple[int, bytes]], conduct: str = "answer"
    ) -> None:
        self.entries = dict(entries)
        self.conduct = conduct
        self.questions: list[tuple[int, int, int]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(4)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # close() alone would leave accept() waiting.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5.0)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5.0)
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        # Open vSwitch offers its highest version, whatever the bridge then agrees on.
        connection.sendall(message(_HELLO, version=6))
        buf = b""
        while True:
            try:
                data = connection.recv(65536)
            except OSError:
                return
            if not data:
                return
            buf += data
            end = 0
            for _, start, end in split(buf):
                if not self._answer(connection, buf[start:end]):
                    return
            buf = buf[end:]

    def _answer(self, connection: socket.socket, asked: bytes) -> bool:
        """Whether the connection goes on."""
        if asked[1] == _HELLO and self.conduct == "refuse hello":
            connection.sendall(message(_ERROR, struct.pack(">HH", 0, 0), version=1))
            return False
        if asked[1] != _MULTIPART_REQUEST or self.conduct == "be silent":
            return True
        if self.conduct == "hang up":
            return False
        xid, kind, table, cookie, mask = _read_request(asked)
        if self.conduct == "refuse":
            connection.sendall(message(_ERROR, struct.pack(">HH", 1, 4) + asked[:64], xid=xid))
            return True
        if self.conduct == "talk nonsense":
            connection.sendall(b"\4\x13\0\4nonsense")
            return True
        self.questions.append((table, cookie, mask))
        found = [
            entry
            for of_rule, (of_table, entry) in self.entries.items()
            if not (of_rule ^ cookie) & mask and table in {0xFF, of_table}
        ]
        connection.sendall(message(_ECHO_REQUEST, b"are you there", xid=9))
        if kind == _AGGREGATE:
            body = struct.pack(">HH4xQQI4x", _AGGREGATE, 0, 0, 0, len(found))
            connection.sendall(message(_MULTIPART_REPLY, body, xid=xid))
            return True
        # An answer to a question of before, which nobody waits for any more.
        connection.sendall(reply([], xid=xid + 1000))
        pieces = [found[at : at + PER_MESSAGE] for at in range(0, len(found), PER_MESSAGE)] or [[]]
        out = b"".join(
            reply(piece, xid=xid, more=number < len(pieces))
            for number, piece in enumerate(pieces, start=1)
        )
        if self.conduct == "cut":
            out = reply([found[0][:-8]], xid=xid)
        # In odd pieces, as a stream may come.
        for at in range(0, len(out), 1000):
            connection.sendall(out[at : at + 1000])
        return True

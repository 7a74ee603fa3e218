"""A plain OpenFlow 1.3 connection to a bridge's management socket: bytes in, messages out."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from controller_app.decode import split
from tests.support.packet_in_bytes import message

_HELLO, _ECHO_REQUEST, _ECHO_REPLY = 0, 2, 3
_SET_CONFIG, _BARRIER_REQUEST, _BARRIER_REPLY = 9, 20, 21
_TIMEOUT_S = 10.0


class SwitchClient:
    """``barrier`` returns what the switch sent until it had done all that was sent to it."""

    def __init__(self, management_socket: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.connect(str(management_socket))
        self._rest = b""
        self._xid = 0
        self.send(message(_HELLO))
        # Such a connection gets packet-ins only once it has set a length (ovs-ofctl(8), "snoop").
        self.send(message(_SET_CONFIG, b"\0\0\xff\xff"))
        self.barrier()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> list[bytes]:
        """The whole messages of the next read, without echo requests, which are answered."""
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionResetError("the switch closed the connection")
        buf, end = self._rest + data, 0
        found = []
        for _, start, end in split(buf):
            found.append(buf[start:end])
        self._rest = buf[end:]
        for echo in (m for m in found if m[1] == _ECHO_REQUEST):
            self.send(message(_ECHO_REPLY, echo[8:], xid=int.from_bytes(echo[4:8], "big")))
        return [m for m in found if m[1] != _ECHO_REQUEST]

    def barrier(self) -> list[bytes]:
        """All messages up to the answer of a barrier, but hello and the answer."""
        self._xid += 1
        xid = 0xBA << 24 | self._xid
        self.send(message(_BARRIER_REQUEST, xid=xid))
        found: list[bytes] = []
        answer = message(_BARRIER_REPLY, xid=xid)
        while answer not in found:
            found += self.receive()
        return [m for m in found if m != answer and m[1] != _HELLO]

    def wait_for(self, kind: int, count: int = 1) -> list[bytes]:
        """The messages up to the ``count``-th of this type, of which only those are returned.

        Some come after the answer to a barrier: the switch reports a removal when its threads have
        forgotten the rule.
        """
        found: list[bytes] = []
        while len(found) < count:
            found += [m for m in self.receive() if m[1] == kind]
        return found

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

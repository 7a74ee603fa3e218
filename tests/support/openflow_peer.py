"""The switch's side of a connection, in real bytes, for tests of the controller's side."""

from __future__ import annotations

import socket
import struct
import time

from tests.support.packet_in_bytes import message

HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY = 0, 1, 2, 3
FEATURES_REQUEST, FEATURES_REPLY = 5, 6
MULTIPART_REQUEST, MULTIPART_REPLY, BARRIER_REQUEST = 18, 19, 20
TIMEOUT_S = 5.0
DATAPATH_ID = 0x0000_0A0B_0C0D_0E0F


class OpenFlowPeer:
    """Speaks OpenFlow 1.3 as a switch would; ``received`` are all whole messages so far."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.socket.settimeout(TIMEOUT_S)
        self.received: list[bytes] = []
        self._rest = b""

    def handshake(self, datapath_id: int = DATAPATH_ID, *, version: int = 4) -> None:
        """Up to the answer on the ports, after which os-ken's state is MAIN."""
        self.send(message(HELLO, version=version))
        self.expect(HELLO)
        self.answer_features(datapath_id, version=version)
        self.answer_ports(version=version)

    def answer_features(self, datapath_id: int = DATAPATH_ID, *, version: int = 4) -> None:
        request = self.expect(FEATURES_REQUEST)
        body = struct.pack(">QIBBHII", datapath_id, 0, 254, 0, 0, 0x4F, 0)
        self.send(message(FEATURES_REPLY, body, version=version, xid=xid_of(request)))

    def answer_ports(self, *, version: int = 4) -> None:
        request = self.expect(MULTIPART_REQUEST)
        body = request[8:10] + bytes(6)
        self.send(message(MULTIPART_REPLY, body, version=version, xid=xid_of(request)))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def expect(self, kind: int) -> bytes:
        """The next message of this type; what comes before it stays in ``received``."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline_s:
            data = self.receive()
            if data[1] == kind:
                return data
        raise TimeoutError(f"no message of type {kind}: {self.received}")

    def receive(self) -> bytes:
        """The next message.

        Raises:
            EOFError: the other side has closed the connection.
        """
        while len(self._rest) < 8 or len(self._rest) < int.from_bytes(self._rest[2:4], "big"):
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError(f"closed with {len(self._rest)} bytes of a message")
            self._rest += data
        length = int.from_bytes(self._rest[2:4], "big")
        whole, self._rest = self._rest[:length], self._rest[length:]
        self.received.append(whole)
        return whole

    def wait_until_closed(self) -> None:
        """Read until the other side has closed the connection."""
        while True:
            try:
                self.receive()
            except EOFError:
                return


def xid_of(data: bytes) -> int:
    return int.from_bytes(data[4:8], "big")

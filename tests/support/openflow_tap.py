"""Packet-ins of a real bridge, read from its management socket in OpenFlow 1.3."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Final

from ondemand.messages import PacketIn

_HELLO, _ECHO_REQUEST, _ECHO_REPLY = 0, 2, 3
_SET_CONFIG, _PACKET_IN, _BARRIER_REQUEST, _BARRIER_REPLY = 9, 10, 20, 21
_VERSION: Final = 4
_TIMEOUT_S: Final = 5.0

#: OXM class and field (meta-flow.h of Open vSwitch 3.1) to the attribute of PacketIn.
_NUMBERS: Final = {
    (0x8000, 0): "in_port",
    (0x0001, 5): "vni",
    (0x0001, 6): "source_zone",
    (0x0001, 7): "target_zone",
    (0x0001, 105): "ct_state",
    (0x0001, 107): "ct_mark",
    (0x0001, 119): "ct_proto",
    (0x0001, 124): "ct_tp_src",
    (0x0001, 125): "ct_tp_dst",
}
_ADDRESSES: Final = {
    (0x0001, 120): "ct_src",
    (0x0001, 121): "ct_dst",
    (0x0001, 122): "ct_src",
    (0x0001, 123): "ct_dst",
}


class OpenFlowTap:
    """A controller that never answers: it only asks for whole packets and keeps them."""

    def __init__(self, management_socket: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.connect(str(management_socket))
        self._buffer = b""
        self._send(_HELLO, b"")
        # A management connection gets packet-ins only once it has set a length (ovs-ofctl(8)).
        self._send(_SET_CONFIG, struct.pack(">HH", 0, 0xFFFF))
        self.wait_for_barrier()

    def close(self) -> None:
        self._socket.close()

    def wait_for_barrier(self) -> list[PacketIn]:
        """Packet-ins that came before the switch answered a barrier."""
        self._send(_BARRIER_REQUEST, b"")
        found: list[PacketIn] = []
        while True:
            kind, body = self._receive()
            if kind == _BARRIER_REPLY:
                return found
            if kind == _PACKET_IN:
                found.append(parse_packet_in(body))

    def next_packet_in(self) -> PacketIn:
        while True:
            kind, body = self._receive()
            if kind == _PACKET_IN:
                return parse_packet_in(body)

    def _send(self, kind: int, body: bytes) -> None:
        self._socket.sendall(struct.pack(">BBHI", _VERSION, kind, 8 + len(body), 0) + body)

    def _receive(self) -> tuple[int, bytes]:
        """The next message that is no echo request, without its header."""
        while True:
            while len(self._buffer) < 8 or len(self._buffer) < self._length():
                data = self._socket.recv(65536)
                if not data:
                    raise ConnectionResetError("the switch closed the management connection")
                self._buffer += data
            kind, length = self._buffer[1], self._length()
            body = self._buffer[8:length]
            self._buffer = self._buffer[length:]
            if kind != _ECHO_REQUEST:
                return kind, body
            self._send(_ECHO_REPLY, body)

    def _length(self) -> int:
        return int.from_bytes(self._buffer[2:4], "big")


def parse_packet_in(body: bytes) -> PacketIn:
    """OFPT_PACKET_IN without the OpenFlow header (OpenFlow 1.3.5 section 7.4.1)."""
    table, cookie = struct.unpack_from(">B Q", body, 7)
    match_length = int.from_bytes(body[18:20], "big")
    numbers: dict[str, int] = {}
    addresses: dict[str, bytes] = {}
    at, end = 20, 16 + match_length
    while at < end:
        oxm_class, field_and_mask, length = struct.unpack_from(">HBB", body, at)
        masked = field_and_mask & 1
        value = body[at + 4 : at + 4 + (length // 2 if masked else length)]
        key = oxm_class, field_and_mask >> 1
        if key in _NUMBERS:
            numbers[_NUMBERS[key]] = int.from_bytes(value, "big")
        elif key in _ADDRESSES:
            addresses[_ADDRESSES[key]] = value
        at += 4 + length
    data = body[16 + (match_length + 7) // 8 * 8 + 2 :]
    in_port = numbers.pop("in_port")
    return PacketIn(
        table=table,
        cookie=cookie,
        in_port=in_port,
        data=data,
        vni=numbers.get("vni", 0),
        source_zone=numbers.get("source_zone", 0),
        target_zone=numbers.get("target_zone", 0),
        ct_state=numbers.get("ct_state", 0),
        ct_mark=numbers.get("ct_mark", 0),
        ct_proto=numbers.get("ct_proto", 0),
        ct_tp_src=numbers.get("ct_tp_src", 0),
        ct_tp_dst=numbers.get("ct_tp_dst", 0),
        ct_src=addresses.get("ct_src", b""),
        ct_dst=addresses.get("ct_dst", b""),
    )

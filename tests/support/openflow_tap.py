"""What a real bridge says in OpenFlow 1.3, read from its management socket."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ondemand.messages import FlowRemoved, PacketIn

_HELLO, _ERROR, _ECHO_REQUEST, _ECHO_REPLY = 0, 1, 2, 3
_SET_CONFIG, _PACKET_IN, _FLOW_REMOVED, _BARRIER_REQUEST, _BARRIER_REPLY = 9, 10, 11, 20, 21
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


@dataclass(slots=True)
class Said:
    """Messages in order: packet-ins, rules that left, errors as (type, code)."""

    packet_ins: list[PacketIn] = field(default_factory=list)
    removed: list[FlowRemoved] = field(default_factory=list)
    errors: list[tuple[int, int]] = field(default_factory=list)


class OpenFlowTap:
    """A controller that does nothing by itself: it asks for whole packets and keeps what comes."""

    def __init__(self, management_socket: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.connect(str(management_socket))
        self._buffer = b""
        self._said = Said()
        self._send(_HELLO, b"")
        # A management connection gets packet-ins only once it has set a length (ovs-ofctl(8)).
        self._send(_SET_CONFIG, struct.pack(">HH", 0, 0xFFFF))
        self.ask()

    def close(self) -> None:
        self._socket.close()

    def ask(self, *messages: bytes) -> Said:
        """Send whole messages and wait until the switch is done with them: what it said."""
        self._socket.sendall(b"".join(messages))
        self._send(_BARRIER_REQUEST, b"")
        while self._receive() != _BARRIER_REPLY:
            pass
        return self._take()

    def wait_for(self, frame: bytes) -> Said:
        """What the switch said before the packet-in with this frame, which is left out."""
        while not self._said.packet_ins or self._said.packet_ins[-1].data != frame:
            self._receive()
        del self._said.packet_ins[-1]
        return self._take()

    def _take(self) -> Said:
        said, self._said = self._said, Said()
        return said

    def _send(self, kind: int, body: bytes) -> None:
        self._socket.sendall(struct.pack(">BBHI", _VERSION, kind, 8 + len(body), 0) + body)

    def _receive(self) -> int:
        """Read one message, keep it if it is one of those wanted; its type."""
        while len(self._buffer) < 8 or len(self._buffer) < self._length():
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("the switch closed the management connection")
            self._buffer += data
        kind, length = self._buffer[1], self._length()
        body = self._buffer[8:length]
        self._buffer = self._buffer[length:]
        if kind == _ECHO_REQUEST:
            self._send(_ECHO_REPLY, body)
        elif kind == _PACKET_IN:
            self._said.packet_ins.append(parse_packet_in(body))
        elif kind == _FLOW_REMOVED:
            cookie, reason, table = struct.unpack_from(">QxxBB", body)
            self._said.removed.append(FlowRemoved(cookie, table, reason))
        elif kind == _ERROR:
            self._said.errors.append(struct.unpack_from(">HH", body))
        return kind

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

"""What connection tracking reads of a packet, and which packets it calls invalid.

Checksums are verified, because the switch does so where the sender's NIC has not vouched for them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from rule_cache.fields import Field
from tests.support.fake_flow import ICMP, ICMPV6, TCP, UDP, Headers, extract, number
from tests.support.packet_parts import internet_checksum

#: Queries that have an id, and their answers (RFC 792, RFC 4443).
_REVERSE_TYPE: Final = {
    ICMP: {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15},
    ICMPV6: {128: 129, 129: 128},
}
#: Messages that quote the packet that they are about.
_ERRORS: Final = {ICMP: (3, 4, 5, 11, 12), ICMPV6: (1, 2, 3, 4)}
_LEAST_BYTES: Final = {TCP: 20, UDP: 8, ICMP: 8, ICMPV6: 8}


@dataclass(frozen=True, slots=True)
class ConnectionKey:
    """One direction of a connection.

    ``src`` and ``dst`` are 4 or 16 bytes. ``tp_src`` and ``tp_dst`` are ports (of TCP and UDP only;
    no others are read), or ``type << 16 | id`` of an ICMP query and of its answer.
    """

    proto: int
    src: bytes
    dst: bytes
    tp_src: int = 0
    tp_dst: int = 0

    def reverse(self) -> ConnectionKey:
        return ConnectionKey(self.proto, self.dst, self.src, self.tp_dst, self.tp_src)

    @property
    def tp_fields(self) -> tuple[int, int]:
        """ct_tp_src and ct_tp_dst: ports, or ICMP type and code (0)."""
        if self.proto in {ICMP, ICMPV6}:
            return self.tp_src >> 16, 0
        return self.tp_src, self.tp_dst


@dataclass(frozen=True, slots=True)
class TrackedPacket:
    """``key``: of the packet, or for an error the way back of the packet that it quotes."""

    key: ConnectionKey
    is_error: bool = False
    tcp_flags: int = 0


def read_key(frame: bytes) -> TrackedPacket | None:
    """What a whole IP packet belongs to; None when it is invalid to connection tracking."""
    headers = extract(frame)
    fields = headers.fields
    if fields.get(Field.IP_FRAG) or Field.IP_PROTO not in fields:
        return None
    v4 = Field.IPV4_SRC in fields
    if v4 and internet_checksum(frame[headers.l3 : headers.l4]):
        return None
    proto = fields[Field.IP_PROTO]
    src_field, dst_field = (
        (Field.IPV4_SRC, Field.IPV4_DST) if v4 else (Field.IPV6_SRC, Field.IPV6_DST)
    )
    key = ConnectionKey(
        proto,
        fields[src_field].to_bytes(src_field.width, "big"),
        fields[dst_field].to_bytes(dst_field.width, "big"),
    )
    data = frame[headers.l4 : headers.end]
    if (proto == ICMP and not v4) or (proto == ICMPV6 and v4):
        return None
    if len(data) < _LEAST_BYTES.get(proto, 0):
        return None
    if proto in _LEAST_BYTES and not _checksum_is_right(key, data, v4=v4):
        return None
    if proto in _ERRORS and data[0] in _ERRORS[proto]:
        return _read_quoted(data[8:], key, v4=v4)
    key_or_none = _with_transport(key, data)
    flags = data[13] if proto == TCP else 0
    return None if key_or_none is None else TrackedPacket(key_or_none, tcp_flags=flags)


def _with_transport(key: ConnectionKey, data: bytes) -> ConnectionKey | None:
    if key.proto == TCP and not 20 <= (data[12] >> 4) * 4 <= len(data):
        return None
    if key.proto == UDP and not 8 <= number(data, 4, 2) <= len(data):
        return None
    return _with_ports(key, data)


def _with_ports(key: ConnectionKey, data: bytes) -> ConnectionKey | None:
    if key.proto in {TCP, UDP}:
        return replace(key, tp_src=number(data, 0, 2), tp_dst=number(data, 2, 2))
    if key.proto in _REVERSE_TYPE:
        answer = _REVERSE_TYPE[key.proto].get(data[0])
        if answer is None or data[1]:
            return None
        query_id = number(data, 4, 2)
        return replace(key, tp_src=data[0] << 16 | query_id, tp_dst=answer << 16 | query_id)
    return key


def _read_quoted(quoted: bytes, outer: ConnectionKey, *, v4: bool) -> TrackedPacket | None:
    """In IPv4 the quoted packet may end behind the first 8 bytes of what it carries (RFC 792)."""
    headers = _quoted_headers(quoted, v4=v4)
    if headers is None:
        return None
    proto, src, dst, data = headers
    least = _LEAST_BYTES.get(proto, 0)
    # The error goes to whoever sent the quoted packet.
    if src != outer.dst or len(data) < (min(8, least) if v4 else least):
        return None
    key = _with_ports(ConnectionKey(proto, src, dst), data)
    return None if key is None else TrackedPacket(key.reverse(), is_error=True)


def _quoted_headers(quoted: bytes, *, v4: bool) -> tuple[int, bytes, bytes, bytes] | None:
    """Protocol, addresses and data of a quoted packet, which may be cut."""
    if v4:
        header_bytes = (quoted[0] & 0x0F) * 4 if quoted else 0
        if header_bytes < 20 or len(quoted) < header_bytes or number(quoted, 6, 2) & 0x3FFF:
            return None
        return quoted[9], quoted[12:16], quoted[16:20], quoted[header_bytes:]
    if len(quoted) < 40:
        return None
    # Complete it, so that the extension headers are read like those of any packet.
    body = quoted[40:]
    whole = bytes(12) + b"\x86\xdd" + quoted[:4] + len(body).to_bytes(2, "big") + quoted[6:]
    headers: Headers = extract(whole)
    if Field.IP_PROTO not in headers.fields or headers.fields[Field.IP_FRAG]:
        return None
    return headers.fields[Field.IP_PROTO], quoted[8:24], quoted[24:40], whole[headers.l4 :]


def _checksum_is_right(key: ConnectionKey, data: bytes, *, v4: bool) -> bool:
    if key.proto == UDP and v4 and data[6:8] == b"\0\0":  # RFC 768: the sender made none
        return True
    if key.proto == UDP and not v4 and data[6:8] == b"\0\0":  # RFC 8200 section 8.1
        return False
    pseudo = b""
    if key.proto != ICMP:
        pseudo = key.src + key.dst + len(data).to_bytes(4, "big") + key.proto.to_bytes(4, "big")
    return not internet_checksum(pseudo + data)

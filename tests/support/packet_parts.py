"""What Ethernet frames carry, with every length and checksum right: segments, messages, options and
IPv6 extension headers. ``frame_builder`` puts them into frames.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ondemand.addresses import parse_ip, parse_mac

Address = str | bytes

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
HOP_BY_HOP, ROUTING, FRAGMENT, AH, NO_NEXT_HEADER, DESTINATION = 0, 43, 44, 51, 59, 60
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10


@dataclass(frozen=True, slots=True)
class Extension:
    """An IPv6 extension header: its number, and its bytes behind the next header field."""

    number: int
    rest: bytes


def mac_bytes(address: Address) -> bytes:
    return parse_mac(address) if isinstance(address, str) else address


def ip_bytes(address: Address) -> bytes:
    return parse_ip(address) if isinstance(address, str) else address


# -------------------------------------------------------------------------- what IP packets carry


def tcp_segment(
    src: Address,
    dst: Address,
    tp_src: int,
    tp_dst: int,
    *,
    flags: int = SYN,
    options: bytes = b"",
    payload: bytes = b"",
) -> bytes:
    """``options`` are filled up to a multiple of 4."""
    options += bytes(-len(options) % 4)
    words = 5 + len(options) // 4
    header = struct.pack(">HHIIBBHHH", tp_src, tp_dst, 1, 0, words << 4, flags, 65535, 0, 0)
    segment = header + options + payload
    return with_checksum(segment, at=16, pseudo=_pseudo_header(src, dst, TCP, len(segment)))


def udp_datagram(
    src: Address, dst: Address, tp_src: int, tp_dst: int, *, payload: bytes = b""
) -> bytes:
    length = 8 + len(payload)
    datagram = struct.pack(">HHHH", tp_src, tp_dst, length, 0) + payload
    datagram = with_checksum(datagram, at=6, pseudo=_pseudo_header(src, dst, UDP, length))
    if datagram[6:8] == b"\0\0":  # zero would mean "no checksum" (RFC 768)
        return datagram[:6] + b"\xff\xff" + datagram[8:]
    return datagram


def sctp_packet(tp_src: int, tp_dst: int, *, chunks: bytes = b"", tag: int = 0) -> bytes:
    """The common header with its CRC-32c (RFC 9260 section 6.8) and ``chunks`` behind it."""
    ports = struct.pack(">HHI", tp_src, tp_dst, tag)
    crc = _crc32c(ports + bytes(4) + chunks)
    return ports + crc.to_bytes(4, "little") + chunks


def icmp_message(icmp_type: int, icmp_code: int, body: bytes = bytes(4)) -> bytes:
    return with_checksum(struct.pack(">BBH", icmp_type, icmp_code, 0) + body, at=2)


def icmp6_message(
    src: Address, dst: Address, icmp_type: int, icmp_code: int, body: bytes = bytes(4)
) -> bytes:
    message = struct.pack(">BBH", icmp_type, icmp_code, 0) + body
    return with_checksum(message, at=2, pseudo=_pseudo_header(src, dst, ICMPV6, len(message)))


def nd_option(option: int, value: bytes) -> bytes:
    """An option of neighbor discovery, filled up to a multiple of 8."""
    body = value + bytes(-(len(value) + 2) % 8)
    return bytes((option, (len(body) + 2) // 8)) + body


# ------------------------------------------------------------------------- IPv6 extension headers


def hop_by_hop(size: int = 8) -> Extension:
    return _padding_options(HOP_BY_HOP, size)


def destination_options(size: int = 8) -> Extension:
    return _padding_options(DESTINATION, size)


def routing_header() -> Extension:
    """Of an experimental type (RFC 4727), with no segments left and nothing in it."""
    return Extension(ROUTING, bytes((0, 253, 0)) + bytes(4))


def authentication_header(icv: bytes = bytes(12)) -> Extension:
    """RFC 4302; the integrity value's length must be a multiple of 4."""
    words = 3 + len(icv) // 4
    return Extension(AH, struct.pack(">BHII", words - 2, 0, 256, 1) + icv)


def fragment_header(
    *, offset: int = 0, more_fragments: bool = False, identification: int = 1
) -> Extension:
    return Extension(FRAGMENT, struct.pack(">BHI", 0, offset | more_fragments, identification))


def _padding_options(number: int, size: int) -> Extension:
    """``size`` bytes (a multiple of 8) of options that say nothing: PadN (RFC 8200 section 4.2)."""
    length = bytes((size // 8 - 1,))
    filled = size - 2
    pads = b""
    while filled:
        pad = min(filled, 256)
        pads += b"\0" if pad == 1 else bytes((1, pad - 2)) + bytes(pad - 2)
        filled -= pad
    return Extension(number, length + pads)


# ------------------------------------------------------------------------------------------ plumbing


def internet_checksum(data: bytes) -> int:
    """RFC 1071; over data that contains its right checksum it is 0."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def with_checksum(data: bytes, *, at: int, pseudo: bytes = b"") -> bytes:
    """``data`` with the checksum put into its two zero bytes ``at``."""
    return data[:at] + internet_checksum(pseudo + data).to_bytes(2, "big") + data[at + 2 :]


def _pseudo_header(src: Address, dst: Address, proto: int, length: int) -> bytes:
    """RFC 9293 section 3.1 for IPv4, RFC 8200 section 8.1 for IPv6."""
    addresses = ip_bytes(src) + ip_bytes(dst)
    if len(addresses) == 8:
        return addresses + struct.pack(">BBH", 0, proto, length)
    return addresses + struct.pack(">IxxxB", length, proto)


def _crc32c(data: bytes) -> int:
    """Castagnoli's polynomial, reflected, bit by bit: test frames are short."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF

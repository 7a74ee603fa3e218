"""Packet-in messages as bytes, their match encoded by os-ken."""

from __future__ import annotations

import base64
import struct
from typing import Any

from os_ken.ofproto import ofproto_v1_3_parser as parser

COOKIE = 0x0D5E_0103_8765_4321
#: Fields of a packet-in by the names that PacketIn gives them: os-ken's name and width in bytes. os-ken
#: has no name for conntrack's original tuple and takes "field_<class << 7 | number>" in base64.
OXMS = {
    "in_port": ("in_port", 4),
    "vni": ("reg5", 4),
    "source_zone": ("reg6", 4),
    "target_zone": ("reg7", 4),
    "ct_state": ("ct_state", 4),
    "ct_mark": ("ct_mark", 4),
    "ct_proto": ("field_247", 1),
    "ct_src": ("field_248", 4),
    "ct_dst": ("field_249", 4),
    "ct_src_v6": ("field_250", 16),
    "ct_dst_v6": ("field_251", 16),
    "ct_tp_src": ("field_252", 2),
    "ct_tp_dst": ("field_253", 2),
}


def oxm(name: str, value: int | bytes) -> tuple[str, Any]:
    """One OXM, for ``os_ken_match``."""
    os_ken_name, width = OXMS[name]
    if isinstance(value, bytes):
        return os_ken_name, base64.b64encode(value).decode()
    if os_ken_name.startswith("field_"):
        return os_ken_name, base64.b64encode(value.to_bytes(width, "big")).decode()
    return os_ken_name, value


def os_ken_match(fields: list[tuple[str, Any]]) -> bytes:
    """A match with its padding, the OXMs in the order given."""
    buf = bytearray()
    parser.OFPMatch(_ordered_fields=fields).serialize(buf, 0)
    return bytes(buf)


def match_of(oxms: bytes) -> bytes:
    """A match with its padding around OXMs given as bytes."""
    return struct.pack(">HH", 1, 4 + len(oxms)) + oxms + bytes(-(4 + len(oxms)) % 8)


def packet_in(match: bytes, data: bytes, *, table: int = 30, cookie: int = COOKIE) -> bytes:
    """OFPT_PACKET_IN (OpenFlow 1.3.5 section 7.4.1) with the whole frame."""
    body = struct.pack(">IHBBQ", 0xFFFFFFFF, len(data), 1, table, cookie) + match + b"\0\0" + data
    return message(10, body)


def message(kind: int, body: bytes = b"", *, version: int = 4, xid: int = 0) -> bytes:
    """Any OpenFlow message."""
    return struct.pack(">BBHI", version, kind, 8 + len(body), xid) + body

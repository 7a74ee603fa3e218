"""OpenFlow 1.3 messages from the switch, from bytes to values.

Only what comes often or carries our cookies is decoded here: packet-in, flow-removed, error. A switch
that sends what breaks the format gets ``MalformedMessage`` and nothing else. Offsets are those of
OpenFlow 1.3.5 sections 7.1 (header), 7.4.1 (packet-in), 7.4.2 (flow-removed) and 7.4.4 (error).

The match of a packet-in is a list of OXMs. Open vSwitch sends them in one order and leaves out those
whose value is 0, so that only few lists of *headers* ever occur, each with its values at fixed places.
A ``PacketInDecoder`` learns these lists: a *plan* holds the headers of one, and is applied only after
each header byte of the message has been compared with it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, Final

from controller_app.flow_mod import FLOW_MOD, VERSION
from controller_app.oxm import OXM, struct_code
from ondemand.messages import FlowRemoved, PacketIn
from rule_cache.fields import Field

HEADER_BYTES: Final = 8
ERROR, PACKET_IN, FLOW_REMOVED = 1, 10, 11
#: The first two bytes of a message, version and type, as ``split`` gives them.
PACKET_IN_HEAD: Final = VERSION << 8 | PACKET_IN
FLOW_REMOVED_HEAD: Final = VERSION << 8 | FLOW_REMOVED
ERROR_HEAD: Final = VERSION << 8 | ERROR

#: Most plans that a decoder keeps. Open vSwitch needs about ten for one pipeline (with and without
#: registers, conntrack, tunnel, for two families); over the bound it starts to learn anew.
MAX_PLANS: Final = 64

_MATCH_OXM: Final = 1
_MATCH_OFFSET: Final = 24
#: The least that a packet-in has: all up to the match, an empty match, two bytes of padding.
_PACKET_IN_BYTES: Final = 34
_FLOW_REMOVED_BYTES: Final = 56
_ERROR_BYTES: Final = 12
#: OFPET_EXPERIMENTER: experimenter id and type of error follow.
_EXPERIMENTER_ERROR: Final = 0xFFFF

_read_header = struct.Struct(">HH").unpack_from
# Table, cookie, type and length of the match.
_read_packet_in = struct.Struct(">15xBQHH").unpack_from
# Cookie, reason, table.
_read_flow_removed = struct.Struct(">8xQxxBB").unpack_from
_read_error = struct.Struct(">4xIHH").unpack_from
_read_cookie = struct.Struct(">BB6xQ").unpack_from

# What a plan reads, in the order of PacketIn's optional fields, and the value when it is absent.
_WANTED: Final = (
    ((Field.IN_PORT,), None),
    ((Field.REG5,), 0),
    ((Field.REG6,), 0),
    ((Field.REG7,), 0),
    ((Field.CT_STATE,), 0),
    ((Field.CT_MARK,), 0),
    ((Field.CT_NW_SRC, Field.CT_IPV6_SRC), b""),
    ((Field.CT_NW_DST, Field.CT_IPV6_DST), b""),
    ((Field.CT_NW_PROTO,), 0),
    ((Field.CT_TP_SRC,), 0),
    ((Field.CT_TP_DST,), 0),
)
_CLASS_AND_FIELD: Final = 0xFFFFFE00
_HAS_MASK: Final = 0x100
#: OXM class and field -> place in _WANTED, width in bytes, struct code.
_KNOWN: Final = {
    OXM[field].header & _CLASS_AND_FIELD: (place, field.width, struct_code(field))
    for place, (fields, _) in enumerate(_WANTED)
    for field in fields
}


class MalformedMessage(Exception):  # noqa: N818 - what the message is; our own errors end in Error
    """The switch sent what is not OpenFlow."""


def split(buf: bytes) -> Iterator[tuple[int, int, int]]:
    """The whole messages in ``buf``: version << 8 | type, where it starts, where it ends.

    What follows the last one is the beginning of a message whose rest has not come yet.

    Raises:
        MalformedMessage: after the good ones, at a message that is shorter than its own header.
    """
    start, size = 0, len(buf)
    while size - start >= HEADER_BYTES:
        head, length = _read_header(buf, start)
        if length < HEADER_BYTES:
            raise MalformedMessage(f"a message of {length} bytes, shorter than its header")
        end = start + length
        if end > size:
            return
        yield head, start, end
        start = end


class _Plan:
    """How to read the values of one list of OXM headers."""

    __slots__ = ("header_bits", "headers", "pick", "unpack")

    def __init__(self, oxms: bytes) -> None:
        mask = bytearray(len(oxms))
        code, at, width_read = ">", 0, 0
        places: dict[int, int] = {}
        while at < len(oxms):
            header_end = at + 4
            header = int.from_bytes(oxms[at:header_end], "big")
            end = header_end + (header & 0xFF)
            if end > len(oxms):
                raise MalformedMessage(f"an OXM that ends {end - len(oxms)} bytes behind its match")
            mask[at:header_end] = b"\xff" * 4
            known = _KNOWN.get(header & _CLASS_AND_FIELD)
            if known is not None:
                place, width, value_code = known
                if (header & 0xFF) != (width * 2 if header & _HAS_MASK else width):
                    raise MalformedMessage(f"an OXM 0x{header:08x}: its value has {width} bytes")
                if place in places:
                    raise MalformedMessage(f"a second OXM 0x{header:08x} in one match")
                places[place] = len(places)
                code += f"{header_end - width_read}x{value_code}"
                width_read = header_end + width
            at = end
        code += f"{len(oxms) - width_read}x"
        if 0 not in places:
            raise MalformedMessage("a packet-in that does not tell its in_port")
        self.header_bits = int.from_bytes(mask, "big")
        self.headers = int.from_bytes(oxms, "big") & self.header_bits
        self.unpack: Callable[[bytes], tuple[Any, ...]] = struct.Struct(code).unpack
        # Behind the values that are there stand the two that absent ones have.
        zero, empty = len(places), len(places) + 1
        self.pick: Callable[[tuple[Any, ...]], tuple[Any, ...]] = itemgetter(
            *(
                places.get(place, empty if absent == b"" else zero)
                for place, (_, absent) in enumerate(_WANTED)
            )
        )


class PacketInDecoder:
    """Decodes packet-ins, faster when it has seen the like before. For one thread."""

    __slots__ = ("_plan_count", "_plans")

    def __init__(self) -> None:
        #: Length of the OXMs -> plans.
        self._plans: dict[int, list[_Plan]] = {}
        self._plan_count = 0

    def decode(self, buf: bytes, start: int, end: int) -> PacketIn:
        """The packet-in at ``buf[start:end]``.

        Raises:
            MalformedMessage: it breaks the format.
        """
        if end - start < _PACKET_IN_BYTES or end > len(buf):
            raise MalformedMessage(f"a packet-in of {end - start} bytes")
        table, cookie, match_type, match_bytes = _read_packet_in(buf, start)
        data_start = start + _MATCH_OFFSET + (match_bytes + 7 & ~7) + 2
        if match_type != _MATCH_OXM or match_bytes < 4 or data_start > end:
            raise MalformedMessage(
                f"a packet-in of {end - start} bytes with a match of type {match_type} "
                f"and {match_bytes} bytes"
            )
        oxms = buf[start + _MATCH_OFFSET + 4 : start + _MATCH_OFFSET + match_bytes]
        number = int.from_bytes(oxms, "big")
        for plan in self._plans.get(match_bytes, ()):
            if number & plan.header_bits == plan.headers:
                break
        else:
            plan = self._learn(oxms)
        (
            in_port,
            vni,
            source_zone,
            target_zone,
            ct_state,
            ct_mark,
            ct_src,
            ct_dst,
            ct_proto,
            ct_tp_src,
            ct_tp_dst,
        ) = plan.pick((*plan.unpack(oxms), 0, b""))
        return PacketIn(
            table=table,
            in_port=in_port,
            data=buf[data_start:end],
            cookie=cookie,
            vni=vni,
            source_zone=source_zone,
            target_zone=target_zone,
            ct_state=ct_state,
            ct_mark=ct_mark,
            ct_src=ct_src,
            ct_dst=ct_dst,
            ct_proto=ct_proto,
            ct_tp_src=ct_tp_src,
            ct_tp_dst=ct_tp_dst,
        )

    def _learn(self, oxms: bytes) -> _Plan:
        plan = _Plan(oxms)
        if self._plan_count >= MAX_PLANS:
            self._plans.clear()
            self._plan_count = 0
        self._plans.setdefault(len(oxms) + 4, []).append(plan)
        self._plan_count += 1
        return plan


def xid_of(buf: bytes, start: int) -> int:
    """The transaction id of the message that starts there."""
    return int.from_bytes(buf[start + 4 : start + 8], "big")


def packet_in_cookie(buf: bytes, start: int, end: int) -> int:
    """The cookie of the rule that sent a packet-in, -1 when the message is too short for one."""
    return int.from_bytes(buf[start + 16 : start + 24], "big") if end - start >= 24 else -1


def flow_removed_cookie(buf: bytes, start: int, end: int) -> int:
    """The cookie of the rule that was removed, -1 when the message is too short for one."""
    return int.from_bytes(buf[start + 8 : start + 16], "big") if end - start >= 16 else -1


def decode_flow_removed(buf: bytes, start: int, end: int) -> FlowRemoved:
    """The flow-removed at ``buf[start:end]``.

    Raises:
        MalformedMessage: it is too short.
    """
    if end - start < _FLOW_REMOVED_BYTES or end > len(buf):
        raise MalformedMessage(f"a flow-removed of {end - start} bytes")
    cookie, reason, table = _read_flow_removed(buf, start)
    return FlowRemoved(cookie, table, reason)


def decode_error(buf: bytes, start: int, end: int) -> tuple[int, int, int, bytes]:
    """Xid, type, code and data of the error at ``buf[start:end]``.

    The data is the beginning of the message that failed. Of an experimenter's error (type 0xffff) the
    code is the experimenter's.

    Raises:
        MalformedMessage: it is too short.
    """
    if end - start < _ERROR_BYTES or end > len(buf):
        raise MalformedMessage(f"an error message of {end - start} bytes")
    xid, kind, code = _read_error(buf, start)
    experimenter_id = 4 if kind == _EXPERIMENTER_ERROR else 0
    return xid, kind, code, buf[start + _ERROR_BYTES + experimenter_id : end]


def failed_cookie(data: bytes) -> int | None:
    """The cookie in the data of an error, None when what failed was not a flow-mod."""
    if len(data) < 16:
        return None
    version, kind, cookie = _read_cookie(data, 0)
    return cookie if (version, kind) == (VERSION, FLOW_MOD) else None

"""A rule in the words of Open vSwitch, brought back to those that the encoder uses.

Open vSwitch keeps what a flow-mod means, not its bytes. What it reports differs in these places, all of
them seen on version 3.1: OXMs come in an order of its own; a mask of all ones is left out, and so is a
field whose mask is 0; ``vlan_tci`` becomes OXM's ``vlan_vid``; a ``move`` names its fields by the older
NXM headers. Everything else of an instruction comes back byte for byte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from controller_app.decode import MalformedMessage
from controller_app.oxm import BASIC, NXM_0, NXM_1, OXM, Oxm
from rule_cache.fields import Field

_HAS_MASK: Final = 0x100
_MATCH_OXM: Final = 1
_APPLY_ACTIONS: Final = 4
#: Experimenter action of Nicira, NXAST_REG_MOVE: type, length, experimenter, subtype.
_MOVE_HEAD: Final = struct.pack(">HHIH", 0xFFFF, 24, 0x00002320, 6)
_MOVE_SOURCE, _MOVE_TARGET = 16, 20

_read_head = struct.Struct(">HH").unpack_from

#: What ovs-fields(7) numbers the fields that ``move`` copies, besides the numbers of ``oxm.OXM``.
_NXM_NUMBERS: Final = {
    Field.ETH_DST: (NXM_0, 1),
    Field.ETH_SRC: (NXM_0, 2),
    Field.IPV4_SRC: (NXM_0, 7),
    Field.IPV4_DST: (NXM_0, 8),
    Field.ARP_SPA: (NXM_0, 16),
    Field.ARP_TPA: (NXM_0, 17),
    Field.TUN_ID: (NXM_1, 16),
    Field.ARP_SHA: (NXM_1, 17),
    Field.ARP_THA: (NXM_1, 18),
    Field.IPV6_SRC: (NXM_1, 19),
    Field.IPV6_DST: (NXM_1, 20),
    Field.ND_TARGET: (NXM_1, 23),
    Field.ND_SLL: (NXM_1, 24),
    Field.ND_TLL: (NXM_1, 25),
}
_AS_OXM: Final = {
    Oxm(*number, field.width).header.to_bytes(4, "big"): OXM[field].header.to_bytes(4, "big")
    for field, number in _NXM_NUMBERS.items()
}

_FIELDS: Final = {
    header: field
    for field, oxm in OXM.items()
    for header in (oxm.header, oxm.masked_header)
    # Without a mask it would match the priority bits too, which no report of OpenFlow 1.3 has.
    if field is not Field.VLAN_TCI or header == oxm.masked_header
}
# OFPVID_PRESENT is the bit of the tag's CFI, so 13 bits of vlan_vid stand where vlan_tci has them.
_FIELDS[Oxm(BASIC, 6, 2).masked_header] = Field.VLAN_TCI

#: Of these fields only some bits exist (ovs-fields(7)), so a mask of those is a mask of all.
_EXISTING_BITS: Final = {Field.IP_FRAG: b"\x03"}


@dataclass(frozen=True, slots=True)
class Reported:
    """One matched field: value and mask, and where they begin in the entry.

    ``mask`` is None when all bits are matched; then ``mask_at`` means nothing.
    """

    value: bytes
    mask: bytes | None
    value_at: int
    mask_at: int


def normal_mask(field: Field, mask: bytes) -> bytes | None:
    """None for a mask of all the bits that the field has."""
    ones = b"\xff" * field.width
    return None if mask in (ones, _EXISTING_BITS.get(field)) else mask


def parse_match(entry: bytes, at: int) -> tuple[dict[Field, Reported] | None, int]:
    """The match that begins at ``at``, and where what follows it begins.

    The match is None when it has a field that no shape can have, or padding that is not 0.

    Raises:
        MalformedMessage: it breaks the format.
    """
    kind, length = _read_head(entry, at)
    after = at + (length + 7 & ~7)
    if kind != _MATCH_OXM or length < 4 or after > len(entry):
        raise MalformedMessage(f"a rule whose match has type {kind} and {length} bytes")
    end, at = at + length, at + 4
    found: dict[Field, Reported] = {}
    known = not any(entry[end:after])
    while at < end:
        header = int.from_bytes(entry[at : at + 4], "big")
        value_at = at + 4
        at = value_at + (header & 0xFF)
        if at > end:
            raise MalformedMessage(f"an OXM that ends {at - end} bytes behind its match")
        field = _FIELDS.get(header)
        if field is None:
            known = False
            continue
        if field in found:
            raise MalformedMessage(f"a second OXM 0x{header:08x} in one match")
        mask_at = value_at + field.width
        mask = normal_mask(field, entry[mask_at:at]) if header & _HAS_MASK else None
        found[field] = Reported(entry[value_at:mask_at], mask, value_at, mask_at)
    return (found if known else None), after


def normal_instructions(instructions: bytes) -> bytes:
    """The same with the headers that the encoder uses in each ``move``; nothing changes its place.

    Raises:
        MalformedMessage: an instruction or an action does not end where another begins.
    """
    normal = bytearray(instructions)
    for kind, start, end in _walk(instructions, 0, len(instructions)):
        if kind != _APPLY_ACTIONS:
            continue
        for _, at, _ in _walk(instructions, start + 8, end):
            if instructions.startswith(_MOVE_HEAD, at):
                for header_at in (at + _MOVE_SOURCE, at + _MOVE_TARGET):
                    header = instructions[header_at : header_at + 4]
                    normal[header_at : header_at + 4] = _AS_OXM.get(header, header)
    return bytes(normal)


def _walk(buf: bytes, start: int, end: int) -> list[tuple[int, int, int]]:
    """Type, start and end of what begins with type and length, at least 8 bytes each."""
    found = []
    while start < end:
        kind, length = _read_head(buf, start) if end - start >= 8 else (0, 0)
        if length < 8 or length & 7 or start + length > end:
            raise MalformedMessage(
                f"an instruction or action of {length} bytes, {end - start} are left"
            )
        found.append((kind, start, start + length))
        start += length
    return found

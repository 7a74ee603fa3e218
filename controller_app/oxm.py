"""OXM headers: the number that OpenFlow 1.3 gives each field, as Open vSwitch takes it.

A header is 32 bits: class, field, has-mask, payload length (OpenFlow 1.3.5 section 7.2.3.2). Where
ovs-fields(7) names an OpenFlow basic field it is used; registers, conntrack, tunnel addresses and a
few others exist only as Nicira fields (NXM), and the neighbor discovery extensions only in Ericsson's
class. All of them are 32 bit headers, which ``move`` needs and the experimenter class has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from rule_cache.fields import Field, Format

#: Classes, ovs-fields(7) "Fields by class": NXM_OF, NXM_NX, ERICOXM_OF, OXM_OF.
NXM_0: Final = 0x0000
NXM_1: Final = 0x0001
ERICSSON: Final = 0x1000
BASIC: Final = 0x8000

_HAS_MASK: Final = 0x100
_NUMBER_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True, slots=True)
class Oxm:
    """Class, field number in that class, and width in bytes of a value."""

    oxm_class: int
    number: int
    width: int

    @property
    def header(self) -> int:
        """The header of the field without a mask."""
        return self.oxm_class << 16 | self.number << 9 | self.width

    @property
    def masked_header(self) -> int:
        """The header of the field with a mask, which is as wide as the value and follows it."""
        return self.oxm_class << 16 | self.number << 9 | _HAS_MASK | self.width * 2


_NUMBERS: Final = {
    Field.IN_PORT: (BASIC, 0),
    Field.REG2: (NXM_1, 2),
    Field.REG3: (NXM_1, 3),
    Field.REG4: (NXM_1, 4),
    Field.REG5: (NXM_1, 5),
    Field.REG6: (NXM_1, 6),
    Field.REG7: (NXM_1, 7),
    Field.TUN_ID: (BASIC, 38),
    Field.TUN_SRC: (NXM_1, 31),
    Field.TUN_DST: (NXM_1, 32),
    Field.TUN_IPV6_DST: (NXM_1, 110),
    Field.ETH_DST: (BASIC, 3),
    Field.ETH_SRC: (BASIC, 4),
    Field.ETH_TYPE: (BASIC, 5),
    Field.VLAN_TCI: (NXM_0, 4),
    Field.IP_PROTO: (BASIC, 10),
    Field.IP_TTL: (NXM_1, 29),
    Field.IP_FRAG: (NXM_1, 26),
    Field.IPV4_SRC: (BASIC, 11),
    Field.IPV4_DST: (BASIC, 12),
    Field.IPV6_SRC: (BASIC, 26),
    Field.IPV6_DST: (BASIC, 27),
    Field.TCP_SRC: (BASIC, 13),
    Field.TCP_DST: (BASIC, 14),
    Field.UDP_SRC: (BASIC, 15),
    Field.UDP_DST: (BASIC, 16),
    Field.SCTP_SRC: (BASIC, 17),
    Field.SCTP_DST: (BASIC, 18),
    Field.ICMP_TYPE: (BASIC, 19),
    Field.ICMP_CODE: (BASIC, 20),
    Field.ICMPV6_TYPE: (BASIC, 29),
    Field.ICMPV6_CODE: (BASIC, 30),
    Field.ARP_OP: (BASIC, 21),
    Field.ARP_SPA: (BASIC, 22),
    Field.ARP_TPA: (BASIC, 23),
    Field.ARP_SHA: (BASIC, 24),
    Field.ARP_THA: (BASIC, 25),
    Field.ND_TARGET: (BASIC, 31),
    Field.ND_SLL: (BASIC, 32),
    Field.ND_TLL: (BASIC, 33),
    Field.ND_RESERVED: (ERICSSON, 1),
    Field.ND_OPTIONS_TYPE: (ERICSSON, 2),
    Field.CT_STATE: (NXM_1, 105),
    Field.CT_MARK: (NXM_1, 107),
    Field.CT_NW_SRC: (NXM_1, 120),
    Field.CT_NW_DST: (NXM_1, 121),
    Field.CT_IPV6_SRC: (NXM_1, 122),
    Field.CT_IPV6_DST: (NXM_1, 123),
    Field.CT_NW_PROTO: (NXM_1, 119),
    Field.CT_TP_SRC: (NXM_1, 124),
    Field.CT_TP_DST: (NXM_1, 125),
}

#: Every field of rule_cache.fields.
OXM: Final[Mapping[Field, Oxm]] = MappingProxyType(
    {field: Oxm(*number, field.width) for field, number in _NUMBERS.items()}
)


def struct_code(field: Field) -> str:
    """The ``struct`` code of a value of the field: addresses are bytes, all else is a number."""
    if field.form in {Format.MAC, Format.IP}:
        return f"{field.width}s"
    return _NUMBER_CODES[field.width]

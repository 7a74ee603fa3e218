"""Match and action fields, by the names that ovs-fields(7) gives them.

A field has a width in bytes on the wire and a way to be written in ``ovs-ofctl`` text. What number
OpenFlow gives it is the encoder's business, not the rule's.
"""

from __future__ import annotations

import enum
import ipaddress


class Format(enum.Enum):
    """How a value is written in text."""

    NUMBER = "number"
    HEX = "hex"
    MAC = "mac"
    IP = "ip"
    CT_STATE = "ct_state"
    FRAGMENT = "fragment"


class Field(enum.Enum):
    """A field: text name, width in bytes, text format."""

    IN_PORT = ("in_port", 4, Format.NUMBER)
    REG2 = ("reg2", 4, Format.HEX)
    REG3 = ("reg3", 4, Format.HEX)
    REG4 = ("reg4", 4, Format.HEX)
    REG5 = ("reg5", 4, Format.HEX)
    REG6 = ("reg6", 4, Format.HEX)
    REG7 = ("reg7", 4, Format.HEX)
    TUN_ID = ("tun_id", 8, Format.HEX)
    TUN_SRC = ("tun_src", 4, Format.IP)
    TUN_DST = ("tun_dst", 4, Format.IP)
    TUN_IPV6_DST = ("tun_ipv6_dst", 16, Format.IP)
    ETH_DST = ("dl_dst", 6, Format.MAC)
    ETH_SRC = ("dl_src", 6, Format.MAC)
    ETH_TYPE = ("dl_type", 2, Format.HEX)
    VLAN_TCI = ("vlan_tci", 2, Format.HEX)
    IP_PROTO = ("nw_proto", 1, Format.NUMBER)
    IP_TTL = ("nw_ttl", 1, Format.NUMBER)
    IP_FRAG = ("ip_frag", 1, Format.FRAGMENT)
    IPV4_SRC = ("nw_src", 4, Format.IP)
    IPV4_DST = ("nw_dst", 4, Format.IP)
    IPV6_SRC = ("ipv6_src", 16, Format.IP)
    IPV6_DST = ("ipv6_dst", 16, Format.IP)
    TCP_SRC = ("tcp_src", 2, Format.NUMBER)
    TCP_DST = ("tcp_dst", 2, Format.NUMBER)
    UDP_SRC = ("udp_src", 2, Format.NUMBER)
    UDP_DST = ("udp_dst", 2, Format.NUMBER)
    SCTP_SRC = ("sctp_src", 2, Format.NUMBER)
    SCTP_DST = ("sctp_dst", 2, Format.NUMBER)
    ICMP_TYPE = ("icmp_type", 1, Format.NUMBER)
    ICMP_CODE = ("icmp_code", 1, Format.NUMBER)
    ICMPV6_TYPE = ("icmpv6_type", 1, Format.NUMBER)
    ICMPV6_CODE = ("icmpv6_code", 1, Format.NUMBER)
    ARP_OP = ("arp_op", 2, Format.NUMBER)
    ARP_SPA = ("arp_spa", 4, Format.IP)
    ARP_TPA = ("arp_tpa", 4, Format.IP)
    ARP_SHA = ("arp_sha", 6, Format.MAC)
    ARP_THA = ("arp_tha", 6, Format.MAC)
    ND_TARGET = ("nd_target", 16, Format.IP)
    ND_SLL = ("nd_sll", 6, Format.MAC)
    ND_TLL = ("nd_tll", 6, Format.MAC)
    ND_RESERVED = ("nd_reserved", 4, Format.HEX)
    ND_OPTIONS_TYPE = ("nd_options_type", 1, Format.NUMBER)
    CT_STATE = ("ct_state", 4, Format.CT_STATE)
    CT_MARK = ("ct_mark", 4, Format.HEX)
    CT_NW_SRC = ("ct_nw_src", 4, Format.IP)
    CT_NW_DST = ("ct_nw_dst", 4, Format.IP)
    CT_IPV6_SRC = ("ct_ipv6_src", 16, Format.IP)
    CT_IPV6_DST = ("ct_ipv6_dst", 16, Format.IP)
    CT_NW_PROTO = ("ct_nw_proto", 1, Format.NUMBER)
    CT_TP_SRC = ("ct_tp_src", 2, Format.NUMBER)
    CT_TP_DST = ("ct_tp_dst", 2, Format.NUMBER)

    def __init__(self, text: str, width: int, form: Format) -> None:
        self.text = text
        self.width = width
        self.form = form


class CtState:
    """Bits of ct_state, ovs-fields(7) "Connection Tracking Fields"."""

    NEW = 0x01
    EST = 0x02
    REL = 0x04
    RPL = 0x08
    INV = 0x10
    TRK = 0x20


_CT_NAMES = (
    (CtState.NEW, "new"),
    (CtState.EST, "est"),
    (CtState.REL, "rel"),
    (CtState.RPL, "rpl"),
    (CtState.INV, "inv"),
    (CtState.TRK, "trk"),
)

#: nw_frag as OVS numbers it: bit 0 any fragment, bit 1 not the first.
FRAG_ANY, FRAG_LATER = 0x01, 0x02
_FRAG_NAMES = {
    (0x00, 0x03): "no",
    (0x01, 0x03): "first",
    (0x03, 0x03): "later",
    (0x00, 0x02): "not_later",
}

Value = int | bytes


def format_value(field: Field, value: Value) -> str:
    """One value as ``ovs-ofctl`` writes it: ``10.0.0.1``, ``0x5``, ``443``."""
    form = field.form
    if form is Format.MAC:
        return to_bytes(field, value).hex(":")
    if form is Format.IP:
        return str(ipaddress.ip_address(to_bytes(field, value)))
    number = to_int(value)
    return hex(number) if form is Format.HEX else str(number)


def format_match(field: Field, value: Value, mask: Value | None) -> str:
    """One match item: ``ct_state=-inv+trk``, ``nw_dst=10.0.0.0/255.255.255.0``."""
    if field.form is Format.CT_STATE:
        bits, care = to_int(value), 0xFFFFFFFF if mask is None else to_int(mask)
        flags = [("+" if bits & bit else "-") + name for bit, name in _CT_NAMES if care & bit]
        return field.text + "=" + "".join(flags)
    if field.form is Format.FRAGMENT:
        care = 0x03 if mask is None else to_int(mask)
        return field.text + "=" + _FRAG_NAMES[to_int(value), care]
    text = f"{field.text}={format_value(field, value)}"
    return text if mask is None else f"{text}/{format_value(field, mask)}"


def to_bytes(field: Field, value: Value) -> bytes:
    """The value in network order, ``field.width`` bytes long."""
    return value if isinstance(value, bytes) else value.to_bytes(field.width, "big")


def to_int(value: Value) -> int:
    return int.from_bytes(value, "big") if isinstance(value, bytes) else value

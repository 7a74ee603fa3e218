"""Flow text, as ovs-ofctl(8) writes matches, to the packet that a person asks about.

The ``ovs`` package reads the syntax; here it becomes one packet: fields that a packet has, each once,
with one value and no mask.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ovs.flow.kv import KVDecoders, KVParser, ParseError
from ovs.flow.ofp_fields import field_decoders

from ondemand.addresses import AddressError, parse_ip, parse_mac
from ondemand.frames import ETH_ARP, ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, SCTP, TCP, UDP
from ondemand.goal_problems import did_you_mean


class FlowError(ValueError):
    """The flow text says no packet; the message names the field and the mend."""


#: Shorthands of ovs-fields(7), and sctp6: (ethertype, IP protocol or None).
SHORTHANDS: Final[dict[str, tuple[int, int | None]]] = {
    "ip": (ETH_IPV4, None),
    "ipv6": (ETH_IPV6, None),
    "arp": (ETH_ARP, None),
    "tcp": (ETH_IPV4, TCP),
    "tcp6": (ETH_IPV6, TCP),
    "udp": (ETH_IPV4, UDP),
    "udp6": (ETH_IPV6, UDP),
    "sctp": (ETH_IPV4, SCTP),
    "sctp6": (ETH_IPV6, SCTP),
    "icmp": (ETH_IPV4, ICMP),
    "icmp6": (ETH_IPV6, ICMPV6),
}
_PORTED: Final = (TCP, UDP, SCTP)
_ICMPS: Final = (ICMP, ICMPV6)
_ONE_ADDRESS: Final = "a packet has one address, so leave out the mask"


@dataclass(frozen=True, slots=True)
class _FieldUse:
    """What a field of the text is in the packet, and which packets have it."""

    meaning: str
    eth_types: tuple[int, ...] = ()
    protocols: tuple[int, ...] = ()


_V4, _V6, _ARP = (ETH_IPV4,), (ETH_IPV6,), (ETH_ARP,)
_FIELDS: Final = {
    "dl_src": _FieldUse("eth_src"),
    "eth_src": _FieldUse("eth_src"),
    "dl_dst": _FieldUse("eth_dst"),
    "eth_dst": _FieldUse("eth_dst"),
    "dl_type": _FieldUse("eth_type"),
    "eth_type": _FieldUse("eth_type"),
    "nw_src": _FieldUse("src", (ETH_IPV4, ETH_ARP)),
    "ip_src": _FieldUse("src", _V4),
    "nw_dst": _FieldUse("dst", (ETH_IPV4, ETH_ARP)),
    "ip_dst": _FieldUse("dst", _V4),
    "ipv6_src": _FieldUse("src", _V6),
    "ipv6_dst": _FieldUse("dst", _V6),
    "arp_spa": _FieldUse("src", _ARP),
    "arp_tpa": _FieldUse("dst", _ARP),
    "nd_target": _FieldUse("target", _V6, (ICMPV6,)),
    "nw_proto": _FieldUse("protocol", (ETH_IPV4, ETH_IPV6)),
    "ip_proto": _FieldUse("protocol", (ETH_IPV4, ETH_IPV6)),
    "tp_src": _FieldUse("first", (), _PORTED),
    "tp_dst": _FieldUse("second", (), _PORTED),
    "tcp_src": _FieldUse("first", (), (TCP,)),
    "tcp_dst": _FieldUse("second", (), (TCP,)),
    "udp_src": _FieldUse("first", (), (UDP,)),
    "udp_dst": _FieldUse("second", (), (UDP,)),
    "sctp_src": _FieldUse("first", (), (SCTP,)),
    "sctp_dst": _FieldUse("second", (), (SCTP,)),
    "icmp_type": _FieldUse("first", (), _ICMPS),
    "icmp_code": _FieldUse("second", (), _ICMPS),
    "icmpv6_type": _FieldUse("first", _V6, (ICMPV6,)),
    "icmpv6_code": _FieldUse("second", _V6, (ICMPV6,)),
}

#: Fields that a switch keeps beside a packet.
_METADATA: Final = re.compile(
    r"x{0,2}reg\d+|ct_.*|tun_.*|tunnel_id|metadata|recirc_id|dp_hash|conj_id|packet_type"
    r"|actset_output|pkt_mark|skb_priority"
)
#: Fields that the pipeline does read, with the one value that explain asks about.
_FIXED: Final = {
    **dict.fromkeys(
        ("vlan_tci", "dl_vlan", "vlan_vid", "dl_vlan_pcp", "vlan_pcp"),
        "the pipeline drops frames with a VLAN tag, and explain asks about one without",
    ),
    **dict.fromkeys(("ip_frag", "nw_frag"), "explain asks about a packet that is no fragment"),
    "arp_op": "explain asks about an ARP request",
}


@dataclass(frozen=True, slots=True)
class FlowText:
    """What the text says. None: it does not say.

    ``protocol`` is the IP protocol, None for ARP; ``first`` and ``second`` are source and destination
    port, or ICMP type and code; ``target`` is what neighbor discovery asks for. ``dst`` is what ARP
    asks for. Addresses are bytes, of the length that ``eth_type`` has.
    """

    eth_type: int
    protocol: int | None
    dst: bytes | None
    src: bytes | None = None
    eth_src: bytes | None = None
    eth_dst: bytes | None = None
    first: int | None = None
    second: int | None = None
    target: bytes | None = None


def parse_flow(text: str) -> FlowText:
    """What a flow such as ``tcp,nw_dst=10.0.1.7,tp_dst=443`` says.

    Raises:
        FlowError: with the first mistake.
    """
    said: dict[str, tuple[str, Any]] = {}
    kinds: dict[str, tuple[int, int | None]] = {}
    for name, value in _split(text):
        if name in SHORTHANDS and not value:
            kinds[name] = SHORTHANDS[name]
            continue
        use = _FIELDS.get(name)
        if use is None:
            raise _unknown(name, value)
        if use.meaning in said:
            raise FlowError(f"{name}={value} says again what {said[use.meaning][0]} says already")
        said[use.meaning] = (name, _decode(name, value, use))
    eth_type = _eth_type(said, kinds)
    protocol = _protocol(said, kinds, eth_type)
    for name, _ in said.values():
        _check_has(name, eth_type, protocol)
    given = {meaning: value for meaning, (_, value) in said.items()}
    given |= {"eth_type": eth_type, "protocol": protocol}
    given.setdefault("dst", None)
    return FlowText(**given)


def _split(text: str) -> list[tuple[str, str]]:
    """The (field, value) pairs; the value of a shorthand is empty."""
    parser = KVParser(
        # ovs-ofctl takes blanks between fields, which this parser takes for a part of the name.
        ",".join(re.split(r"[\s,]+", text.strip())),
        KVDecoders(default=lambda name, value: (name, value)),
    )
    try:
        parser.parse()
    except ParseError as error:
        raise FlowError(f"{text!r} is no flow: {error}") from None
    pairs = []
    for item in parser:
        name, value, delimiter = item.meta.kstring, item.meta.vstring, item.meta.delim
        if name == "actions":
            raise FlowError("leave out actions=: explain says what is done with the packet")
        if delimiter not in ("=", "", ","):
            raise FlowError(f"{name}{delimiter}...: write {name}=VALUE")
        if delimiter == "=" and not value:
            raise FlowError(f"{name}= has no value")
        pairs.append((name, value))
    if not pairs:
        raise FlowError("the flow is empty; write for example tcp,nw_dst=10.0.1.7,tp_dst=443")
    return pairs


def _unknown(name: str, value: str) -> FlowError:
    if name in _FIXED:
        return FlowError(f"field {name}: {_FIXED[name]}; leave it out")
    if name in field_decoders and _METADATA.fullmatch(name) is None:
        return FlowError(f"field {name} is read by no decision; leave it out")
    if name in field_decoders:
        return FlowError(
            f"field {name} is nothing that a packet of a VM has; give addresses, protocol and ports"
            " (see ondemand explain --help)"
        )
    if not value:
        return FlowError(
            f"{name!r} is no field=VALUE and no protocol{did_you_mean(name, SHORTHANDS)}"
        )
    return FlowError(f"unknown field {name!r}{did_you_mean(name, _FIELDS)}")


def _decode(name: str, text: str, use: _FieldUse) -> bytes | int:
    if not text:
        raise FlowError(f"{name} has no value; write {name}=VALUE")
    if use.meaning in ("eth_src", "eth_dst"):
        return _checked(name, text, _mac)
    if use.meaning in ("src", "dst", "target"):
        return _checked(name, text, _address)
    if "/" in text:
        raise FlowError(f"{name}={text}: a packet has one value, so leave out the mask")
    widest = 0xFF if use.meaning == "protocol" or name.startswith("icmp") else 0xFFFF
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= widest:
        raise FlowError(f"{name}={text} is no number in 0..{widest}")
    return number


def _checked(name: str, text: str, parse: Callable[[str], bytes]) -> bytes:
    try:
        value = parse(text)
    except AddressError as error:
        raise FlowError(f"{name}={error}") from None
    if len(value) == 16 and name in ("nw_src", "nw_dst", "ip_src", "ip_dst", "arp_spa", "arp_tpa"):
        v6 = "ipv6" + name[-4:] if not name.startswith("arp") else "nd_target"
        raise FlowError(f"{name}={text} is an IPv6 address; write {v6}={text}")
    if len(value) == 4 and name in ("ipv6_src", "ipv6_dst", "nd_target"):
        v4 = "nw" + name[-4:] if name != "nd_target" else "arp_tpa"
        raise FlowError(f"{name}={text} is an IPv4 address; write {v4}={text}")
    return value


def _address(text: str) -> bytes:
    address, slash, length = text.partition("/")
    if slash:
        # A mask that leaves one address is no mistake.
        whole = "128" if ":" in address else "32"
        if length != whole:
            raise AddressError(text, _ONE_ADDRESS)
    return parse_ip(address)


def _mac(text: str) -> bytes:
    if "/" in text:
        raise AddressError(text, _ONE_ADDRESS)
    return parse_mac(text)


def _eth_type(said: dict[str, tuple[str, Any]], kinds: dict[str, tuple[int, int | None]]) -> int:
    found = {name: eth_type for name, (eth_type, _) in kinds.items()}
    if "eth_type" in said:
        name, number = said["eth_type"]
        found[f"{name}=0x{number:04x}"] = number
    if not found:
        # Without a word that says it, the fields do: nw_dst means IPv4, ipv6_dst IPv6.
        found = {
            name: use.eth_types[0]
            for name, _ in said.values()
            if (use := _FIELDS[name]).eth_types and use.meaning != "protocol"
        }
    if len(set(found.values())) > 1:
        raise FlowError(f"{' and '.join(found)} exclude each other: a packet is of one kind")
    if not found:
        raise FlowError("say what the packet is: tcp, udp, icmp, tcp6, udp6, icmp6, ip, arp, ...")
    eth_type = next(iter(found.values()))
    if eth_type not in (ETH_IPV4, ETH_IPV6, ETH_ARP):
        raise FlowError(
            f"{next(iter(found))}: only IPv4 (0x0800), IPv6 (0x86dd) and ARP (0x0806) are forwarded;"
            " the pipeline drops everything else"
        )
    return eth_type


def _protocol(
    said: dict[str, tuple[str, Any]], kinds: dict[str, tuple[int, int | None]], eth_type: int
) -> int | None:
    found = {name: protocol for name, (_, protocol) in kinds.items() if protocol is not None}
    if "protocol" in said:
        name, number = said["protocol"]
        found[f"{name}={number}"] = number
    if not found:
        # tcp_dst says that it is TCP, where tp_dst could be three protocols.
        found = {
            name: use.protocols[0]
            for name, _ in said.values()
            if len((use := _FIELDS[name]).protocols) == 1
        }
    if len(set(found.values())) > 1:
        raise FlowError(f"{' and '.join(found)} exclude each other: a packet has one protocol")
    if eth_type == ETH_ARP:
        if found:
            raise FlowError(f"arp has no {next(iter(found))}")
        return None
    if not found:
        raise FlowError("say the IP protocol: tcp, udp, sctp, icmp, icmp6 or nw_proto=NUMBER")
    return next(iter(found.values()))


def _check_has(name: str, eth_type: int, protocol: int | None) -> None:
    use = _FIELDS[name]
    if use.eth_types and eth_type not in use.eth_types:
        raise FlowError(f"{name} does not go with {_name_of(eth_type, protocol)}{_hint(eth_type)}")
    if use.protocols and protocol not in use.protocols:
        raise FlowError(f"{name} does not go with {_name_of(eth_type, protocol)}")


def _hint(eth_type: int) -> str:
    if eth_type == ETH_IPV4:
        return ", which is IPv4; for IPv6 write tcp6, udp6, icmp6, ... with ipv6_src and ipv6_dst"
    if eth_type == ETH_IPV6:
        return ", which is IPv6; for IPv4 write tcp, udp, icmp, ... with nw_src and nw_dst"
    return "; write arp,arp_tpa=ADDRESS"


def _name_of(eth_type: int, protocol: int | None) -> str:
    for name, kind in SHORTHANDS.items():
        if kind == (eth_type, protocol):
            return name
    return f"nw_proto={protocol}"

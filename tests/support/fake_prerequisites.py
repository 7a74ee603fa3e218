"""Which matches Open vSwitch refuses (OFPBMC_BAD_PREREQ; ovs-fields(7), "Prerequisites").

The rules for ct_state are not in the manual; they were observed: ``+trk`` alone does not make the
original tuple a thing to match, since an invalid packet has none. One refusal is the fake's own: a
match on ct_tp_src or ct_tp_dst without ct_nw_proto is taken by the switch, which then leaves the port
out and matches more than was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rule_cache.fields import CtState, Field
from tests.support.fake_flow import ETH_ARP, ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, SCTP, TCP, UDP

#: What a rule matches: field to (value, mask).
Match = Mapping[Field, tuple[int, int]]
_Wanted = tuple[tuple[Field, tuple[int, ...]], ...]

_IPV4: Final[_Wanted] = ((Field.ETH_TYPE, (ETH_IPV4,)),)
_IPV6: Final[_Wanted] = ((Field.ETH_TYPE, (ETH_IPV6,)),)
_IP: Final[_Wanted] = ((Field.ETH_TYPE, (ETH_IPV4, ETH_IPV6)),)
_ARP: Final[_Wanted] = ((Field.ETH_TYPE, (ETH_ARP,)),)


def _protocol(number: int, family: _Wanted = _IP) -> _Wanted:
    return (*family, (Field.IP_PROTO, (number,)))


def _discovery(*types: int) -> _Wanted:
    return (*_protocol(ICMPV6, _IPV6), (Field.ICMPV6_TYPE, types))


_WANTED: Final[dict[Field, _Wanted]] = {
    Field.IP_PROTO: _IP,
    Field.IP_TTL: _IP,
    Field.IP_FRAG: _IP,
    Field.IPV4_SRC: _IPV4,
    Field.IPV4_DST: _IPV4,
    Field.IPV6_SRC: _IPV6,
    Field.IPV6_DST: _IPV6,
    Field.TCP_SRC: _protocol(TCP),
    Field.TCP_DST: _protocol(TCP),
    Field.UDP_SRC: _protocol(UDP),
    Field.UDP_DST: _protocol(UDP),
    Field.SCTP_SRC: _protocol(SCTP),
    Field.SCTP_DST: _protocol(SCTP),
    Field.ICMP_TYPE: _protocol(ICMP, _IPV4),
    Field.ICMP_CODE: _protocol(ICMP, _IPV4),
    Field.ICMPV6_TYPE: _protocol(ICMPV6, _IPV6),
    Field.ICMPV6_CODE: _protocol(ICMPV6, _IPV6),
    Field.ARP_OP: _ARP,
    Field.ARP_SPA: _ARP,
    Field.ARP_TPA: _ARP,
    Field.ARP_SHA: _ARP,
    Field.ARP_THA: _ARP,
    Field.ND_TARGET: _discovery(135, 136),
    Field.ND_SLL: _discovery(135),
    Field.ND_TLL: _discovery(136),
    Field.ND_RESERVED: _discovery(135, 136),
    Field.ND_OPTIONS_TYPE: _discovery(135, 136),
    Field.CT_NW_SRC: _IPV4,
    Field.CT_NW_DST: _IPV4,
    Field.CT_IPV6_SRC: _IPV6,
    Field.CT_IPV6_DST: _IPV6,
    Field.CT_NW_PROTO: _IP,
    Field.CT_TP_SRC: _IP,
    Field.CT_TP_DST: _IP,
}
_TUPLE: Final = (
    Field.CT_NW_SRC,
    Field.CT_NW_DST,
    Field.CT_IPV6_SRC,
    Field.CT_IPV6_DST,
    Field.CT_NW_PROTO,
    Field.CT_TP_SRC,
    Field.CT_TP_DST,
)
#: Any of them set says that there is a connection, or that one could be committed.
_VALID_STATES: Final = CtState.NEW | CtState.EST | CtState.REL | CtState.RPL


def missing_prerequisite(match: Match) -> str:
    """A sentence about the first field that may not be matched so; empty when all may."""
    for matched in match:
        for wanted, values in _WANTED.get(matched, ()):
            value, mask = match.get(wanted, (0, 0))
            full = (1 << 8 * wanted.width) - 1
            if mask != full or value not in values:
                allowed = " or ".join(f"{wanted.text}={number:#x}" for number in values)
                return f"a match on {matched.text} needs {allowed}"
        if matched in _TUPLE and not _implies_connection(match):
            return f"a match on {matched.text} needs a ct_state that is not invalid, as -inv+trk"
        if matched in {Field.CT_TP_SRC, Field.CT_TP_DST} and Field.CT_NW_PROTO not in match:
            return f"a match on {matched.text} needs ct_nw_proto"
    return ""


def _implies_connection(match: Match) -> bool:
    state, mask = match.get(Field.CT_STATE, (0, 0))
    known_valid = mask & CtState.INV and not state & CtState.INV and state & CtState.TRK
    return bool(state & _VALID_STATES or known_valid)

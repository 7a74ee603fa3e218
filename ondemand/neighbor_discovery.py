"""The neighbor discovery messages of ICMPv6 (RFC 4861), checked as a host has to check them."""

from __future__ import annotations

import msgspec

from ondemand.malformed import Malformed, Reason

#: ICMPv6 types.
ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
NEIGHBOR_SOLICITATION = 135
NEIGHBOR_ADVERTISEMENT = 136
REDIRECT = 137

#: ICMPv6 type -> bytes before the options (RFC 4861 section 4).
_OPTIONS_AT = {
    ROUTER_SOLICITATION: 8,
    ROUTER_ADVERTISEMENT: 16,
    NEIGHBOR_SOLICITATION: 24,
    NEIGHBOR_ADVERTISEMENT: 24,
    REDIRECT: 40,
}
MESSAGE_TYPES = frozenset(_OPTIONS_AT)

# Link-layer address options: the sender's own, or that of the address the message is about.
_SOURCE, _TARGET = 1, 2
_OPTION_WANTED = {
    ROUTER_SOLICITATION: _SOURCE,
    ROUTER_ADVERTISEMENT: _SOURCE,
    NEIGHBOR_SOLICITATION: _SOURCE,
    NEIGHBOR_ADVERTISEMENT: _TARGET,
    REDIRECT: _TARGET,
}
_SOLICITED_FLAG = 0x40
_UNSPECIFIED = bytes(16)
#: ff02::1:ff00:0/104 (RFC 4291 section 2.7.1).
_SOLICITED_NODE = b"\xff\x02" + bytes(9) + b"\x01\xff"


class NeighborDiscovery(msgspec.Struct, frozen=True, gc=False):
    """A neighbor solicitation or advertisement: the address asked for or advertised (16 bytes), and
    the MAC in its source or target link-layer address option (6 bytes), None without one.
    """

    target: bytes
    link_layer: bytes | None


def parse_neighbor_discovery(
    message: bytes, src: bytes, dst: bytes, hop_limit: int
) -> NeighborDiscovery | None:
    """What a solicitation or advertisement says; None for the other MESSAGE_TYPES, which are only
    checked. ``message`` is the ICMPv6 message, not a fragment, of one of MESSAGE_TYPES.

    Raises:
        Malformed: RFC 4861 sections 6.1, 7.1 and 8.1 have a host discard the message.
    """
    nd_type = message[0]
    if hop_limit != 255:  # it has crossed a router, so it is no neighbor's
        raise Malformed(Reason.ND_HOP_LIMIT)
    if message[1]:
        raise Malformed(Reason.ND_CODE)
    options_at = _OPTIONS_AT[nd_type]
    if len(message) < options_at:
        raise Malformed(Reason.ND_LENGTH)
    link_layer = _link_layer(message, options_at, _OPTION_WANTED[nd_type])
    unspecified = src == _UNSPECIFIED
    if unspecified and link_layer is not None:
        raise Malformed(Reason.ND_OPTION)
    if nd_type not in (NEIGHBOR_SOLICITATION, NEIGHBOR_ADVERTISEMENT):
        return None
    target = message[8:24]
    if target[0] == 0xFF:  # multicast
        raise Malformed(Reason.ND_ADDRESS)
    if nd_type == NEIGHBOR_SOLICITATION:
        # Duplicate address detection (RFC 4862) goes to the group of the address it asks for.
        if unspecified and not dst.startswith(_SOLICITED_NODE):
            raise Malformed(Reason.ND_ADDRESS)
    elif dst[0] == 0xFF and message[4] & _SOLICITED_FLAG:
        raise Malformed(Reason.ND_ADDRESS)
    return NeighborDiscovery(target, link_layer)


def _link_layer(message: bytes, at: int, wanted: int) -> bytes | None:
    """The MAC in the option ``wanted``, given once at most; all options are checked for length."""
    link_layer = None
    size = len(message)
    while at < size:
        if at + 2 > size or not message[at + 1]:
            raise Malformed(Reason.ND_OPTION)
        following = at + message[at + 1] * 8
        if following > size:
            raise Malformed(Reason.ND_OPTION)
        if message[at] == wanted:
            # One unit of 8 holds a MAC (RFC 2464 section 6); two of them would leave open which.
            if following != at + 8 or link_layer is not None:
                raise Malformed(Reason.ND_OPTION)
            link_layer = message[at + 2 : at + 8]
        at = following
    return link_layer

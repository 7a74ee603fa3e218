"""A flow as policy sees it: one connection, in its original direction, at one local port."""

from __future__ import annotations

import enum

import msgspec

from ondemand.frames import Fragment, Frame, Kind
from ondemand.messages import PacketIn
from ondemand.pipeline import ICMP, ICMPV6, L4, SCTP, TCP, UDP
from ondemand.records import Direction
from rule_cache.fields import CtState

# Until Python 3.12 a member costs 90 ns when it is read through its class.
_INGRESS, _EGRESS = Direction.INGRESS, Direction.EGRESS
_OTHER = {_INGRESS: _EGRESS, _EGRESS: _INGRESS}
_LATER = Fragment.LATER
_IPV4, _IPV6 = Kind.IPV4, Kind.IPV6
_STATE_TRK, _STATE_INV, _STATE_RPL = CtState.TRK, CtState.INV, CtState.RPL


class Flow(msgspec.Struct, frozen=True, gc=False):
    """What a security rule may read, and what a rule of the switch has to match.

    ``direction`` is the original one, as seen from the port: EGRESS when the port began. ``first`` and
    ``second`` are source and destination port, or ICMP type and code, or 0 and 0. ``reply`` says that
    the packet at hand travels the other way. ``l4`` says which fields a rule must match.
    """

    direction: Direction
    family: int
    local: bytes
    remote: bytes
    protocol: int
    first: int
    second: int
    reply: bool
    l4: L4

    @property
    def table_direction(self) -> Direction:
        """In which direction the packet at hand passes the port."""
        return _OTHER[self.direction] if self.reply else self.direction


class NoFlow(enum.StrEnum):
    """Why a packet makes no flow; the value is the name of its counter."""

    NOT_IP = "not_ip"
    INVALID_STATE = "invalid_state"
    LATER_FRAGMENT = "later_fragment"


#: By family and protocol; each has an entry in ``pipeline.TRACKED``.
_TRACKED_L4 = {
    (4, TCP): L4.PORT,
    (4, UDP): L4.PORT,
    (4, ICMP): L4.ICMP,
    (6, TCP): L4.PORT,
    (6, UDP): L4.PORT,
    (6, ICMPV6): L4.ICMP,
}


def flow_of(packet: PacketIn, frame: Frame, at: Direction) -> Flow | NoFlow:
    """The flow of a packet that missed while passing a port in direction ``at``.

    A packet that conntrack knows is judged by the original tuple of its connection, which for an
    ICMP error is the connection that it is about; any other by its own headers.
    """
    if packet.ct_state & _STATE_TRK:
        if packet.ct_state & _STATE_INV:
            return NoFlow.INVALID_STATE
        return _tracked(packet, frame, at)
    return stateless_flow(frame, at)


def _tracked(packet: PacketIn, frame: Frame, at: Direction) -> Flow | NoFlow:
    source, target = packet.ct_src, packet.ct_dst
    # What is not so, no switch sends; but a rule made of it would match nobody's connection.
    if frame.kind is _IPV4:
        family, size = 4, 4
    elif frame.kind is _IPV6:
        family, size = 6, 16
    else:
        return NoFlow.NOT_IP
    if len(source) != size or len(target) != size:
        return NoFlow.INVALID_STATE
    l4 = _TRACKED_L4.get((family, packet.ct_proto))
    if l4 is None:
        return NoFlow.INVALID_STATE
    if frame.fragment is _LATER:
        return NoFlow.LATER_FRAGMENT
    reply = packet.ct_state & _STATE_RPL != 0
    began_here = (at is _EGRESS) != reply
    return Flow(
        direction=_EGRESS if began_here else _INGRESS,
        family=family,
        local=source if began_here else target,
        remote=target if began_here else source,
        protocol=packet.ct_proto,
        first=packet.ct_tp_src,
        second=packet.ct_tp_dst,
        reply=reply,
        l4=l4,
    )


def stateless_flow(frame: Frame, at: Direction) -> Flow | NoFlow:
    """The flow of a packet by its own headers."""
    if frame.kind is Kind.IPV4:
        family = 4
    elif frame.kind is Kind.IPV6:
        family = 6
    else:
        return NoFlow.NOT_IP
    l4 = L4.SCTP if frame.proto == SCTP else _TRACKED_L4.get((family, frame.proto), L4.NONE)
    if frame.fragment is Fragment.LATER and (family == 6 or l4 is not L4.NONE):
        # No ports; and of IPv6 OVS matches nw_proto 44 here, so that no rule of ours would.
        return NoFlow.LATER_FRAGMENT
    egress = at is Direction.EGRESS
    return Flow(
        direction=at,
        family=family,
        local=frame.src if egress else frame.dst,
        remote=frame.dst if egress else frame.src,
        protocol=frame.proto,
        first=max(frame.tp_src, 0),
        second=max(frame.tp_dst, 0),
        reply=False,
        l4=l4,
    )

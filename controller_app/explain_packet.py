"""The packet that a VM would send: what the flow text says, and for the rest what a VM would choose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from controller_app.explain_flow import FlowError, FlowText
from ondemand.addresses import solicited_node
from ondemand.flow import Flow, NoFlow, flow_of
from ondemand.frames import ABSENT, ETH_ARP, ETH_IPV4, ETH_IPV6, Frame, Kind
from ondemand.local_ports import LocalPort
from ondemand.messages import PacketIn
from ondemand.pipeline import ICMP, ICMPV6, NEIGHBOR_SOLICITATION, SCTP, TCP, TRACKED, UDP
from ondemand.records import Direction
from rule_cache.fields import CtState, Field, to_int
from rule_cache.rule import Arg, Rule

#: First ephemeral port (RFC 6335 section 6), for a client's port that nobody said.
EPHEMERAL_PORT: Final = 49152
ECHO_REQUEST: Final = {ICMP: 8, ICMPV6: 128}
_ECHO_REPLY: Final = {ICMP: 0, ICMPV6: 129}
#: Type of a reply to the type of its request (RFC 792, RFC 4443).
_REQUEST_OF: Final = {(ICMP, 0): 8, (ICMP, 14): 13, (ICMP, 16): 15, (ICMPV6, 129): 128}
#: Messages with which a connection may begin: on every datapath, and on the kernel's alone.
_BEGINS: Final = {(ICMP, 8), (ICMPV6, 128)}
_BEGINS_IN_KERNEL: Final = {(ICMP, 13), (ICMP, 15), (ICMP, 17), (ICMPV6, 139)}
_PORTED: Final = (TCP, UDP, SCTP)
_KINDS: Final = {ETH_IPV4: Kind.IPV4, ETH_IPV6: Kind.IPV6, ETH_ARP: Kind.ARP}


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet as it leaves a VM.

    ``eth_dst`` is b"" while nobody has said where it goes. ``first`` and ``second`` are source and
    destination port or ICMP type and code, else ABSENT; ``target`` is what ARP or neighbor discovery
    asks for, else b"". ``reply``: it belongs to a connection that the other side began.
    """

    eth_type: int
    eth_src: bytes
    eth_dst: bytes
    src: bytes
    dst: bytes
    protocol: int
    first: int
    second: int
    target: bytes
    reply: bool

    @property
    def family(self) -> int:
        return 6 if self.eth_type == ETH_IPV6 else 4

    @property
    def is_tracked(self) -> bool:
        """Whether conntrack tells the connections of its protocol apart."""
        return self.protocol in TRACKED[self.family]

    @property
    def is_echo_request(self) -> bool:
        """Whether the gateway answers it, if it is for the gateway."""
        return ECHO_REQUEST.get(self.protocol) == self.first and self.second == 0

    def moved(self, rewrite: tuple[bytes, bytes] | None) -> Packet:
        """As the router sends it on; ``rewrite`` is (source MAC, destination MAC)."""
        if rewrite is None:
            return self
        return replace(self, eth_src=rewrite[0], eth_dst=rewrite[1])

    def flow_at(self, at: Direction) -> Flow | NoFlow:
        """Its flow at the port that it passes in direction ``at``, made as for a packet-in."""
        return flow_of(self._packet_in(), self._frame(), at)

    def _frame(self) -> Frame:
        return Frame(
            kind=_KINDS[self.eth_type],
            eth_dst=self.eth_dst,
            eth_src=self.eth_src,
            vlan=ABSENT,
            eth_type=self.eth_type,
            src=self.src,
            dst=self.dst,
            proto=self.protocol,
            tp_src=self.first,
            tp_dst=self.second,
        )

    def _packet_in(self) -> PacketIn:
        packet_in = PacketIn(table=0, in_port=0, data=b"")
        if not self.is_tracked:
            return packet_in
        source, target, first, second = self.src, self.dst, self.first, self.second
        packet_in.ct_state = CtState.TRK | CtState.NEW
        if self.reply:
            packet_in.ct_state = CtState.TRK | CtState.EST | CtState.RPL
            source, target = target, source
            if self.protocol in ECHO_REQUEST:
                first = _REQUEST_OF[self.protocol, first]
            else:
                first, second = second, first
        packet_in.ct_src, packet_in.ct_dst, packet_in.ct_proto = source, target, self.protocol
        packet_in.ct_tp_src, packet_in.ct_tp_dst = first, second
        return packet_in

    def fields(self) -> dict[Field, int]:
        """What the tables in front of conntrack may match."""
        found: dict[Field, bytes | int] = {
            Field.VLAN_TCI: 0,
            Field.ETH_SRC: self.eth_src,
            Field.ETH_TYPE: self.eth_type,
        }
        if self.eth_type == ETH_ARP:
            return {field: to_int(value) for field, value in found.items()}
        v4 = self.eth_type == ETH_IPV4
        found |= {
            (Field.IPV4_SRC if v4 else Field.IPV6_SRC): self.src,
            (Field.IPV4_DST if v4 else Field.IPV6_DST): self.dst,
            Field.IP_PROTO: self.protocol,
        }
        if self.protocol == UDP:
            found |= {Field.UDP_SRC: self.first, Field.UDP_DST: self.second}
        elif self.protocol == ICMPV6:
            found |= {Field.ICMPV6_TYPE: self.first, Field.ICMPV6_CODE: self.second}
        return {field: to_int(value) for field, value in found.items()}


def complete(text: FlowText, port: LocalPort, *, reply: bool) -> Packet:
    """The packet that ``port`` would send.

    Raises:
        FlowError: something is missing that a VM cannot choose for itself.
    """
    protocol = ABSENT if text.protocol is None else text.protocol
    asks = text.eth_type == ETH_ARP or (protocol == ICMPV6 and text.first == NEIGHBOR_SOLICITATION)
    if asks and reply:
        raise FlowError("--reply goes with connections; ARP and neighbor discovery have none")
    target = b""
    if asks:
        asked = text.dst if text.eth_type == ETH_ARP else text.target
        if asked is None:
            name = "arp_tpa" if text.eth_type == ETH_ARP else "nd_target"
            raise FlowError(f"say for which address it asks: {name}=ADDRESS")
        target = asked
    dst = text.dst
    if dst is None and asks:
        dst = solicited_node(target)
    if dst is None:
        name = "nw_dst" if text.eth_type == ETH_IPV4 else "ipv6_dst"
        raise FlowError(f"say where the packet goes: {name}=ADDRESS")
    first, second = _transport(text, protocol, reply=reply)
    return Packet(
        eth_type=text.eth_type,
        eth_src=text.eth_src or port.record.mac,
        eth_dst=text.eth_dst or _group_mac(dst),
        src=text.src or _own_address(text, port),
        dst=dst,
        protocol=protocol,
        first=first,
        second=second,
        target=target,
        reply=reply,
    )


def conntrack_refuses(packet: Packet) -> tuple[str | None, str | None]:
    """(why conntrack takes the packet for invalid on every datapath, a remark otherwise)."""
    if packet.protocol not in ECHO_REQUEST or packet.reply:
        return None, None
    kind = (packet.protocol, packet.first)
    if kind in _REQUEST_OF:
        return "it answers a request, and no request is known; explain an answer with --reply", None
    if kind in _BEGINS:
        remark = "userspace conntrack takes an echo request with a code for invalid"
        return None, remark if packet.second else None
    if kind in _BEGINS_IN_KERNEL:
        return None, "userspace conntrack takes this ICMP type for invalid, the kernel's does not"
    refusal = (
        "an ICMP message of this type begins no connection; an error passes only with the connection"
        " that it is about, and is judged like it"
    )
    return refusal, None


def lookup(rules: list[Rule], table: int, packet: dict[Field, int]) -> Rule | None:
    """The rule of a table that the switch would choose for a packet with these fields."""
    matching = [rule for rule in rules if rule.shape.table == table and _matches(rule, packet)]
    return max(matching, key=lambda rule: rule.shape.priority, default=None)


def _matches(rule: Rule, packet: dict[Field, int]) -> bool:
    bound = dict(zip(rule.shape.args, rule.values, strict=True))
    for item in rule.shape.match:
        value = bound[item.value.name] if isinstance(item.value, Arg) else item.value
        mask = bound[item.mask.name] if isinstance(item.mask, Arg) else item.mask
        found = packet.get(item.field)
        care = -1 if mask is None else to_int(mask)
        if found is None or (found ^ to_int(value)) & care:
            return False
    return True


def _transport(text: FlowText, protocol: int, *, reply: bool) -> tuple[int, int]:
    if protocol in (ICMP, ICMPV6):
        kind = text.first
        if kind is None:
            kind = _ECHO_REPLY[protocol] if reply else ECHO_REQUEST[protocol]
        if reply and (protocol, kind) not in _REQUEST_OF:
            raise FlowError(
                f"ICMP type {kind} answers no request, so it cannot be explained --reply"
            )
        return kind, text.second or 0
    if protocol not in _PORTED:
        if reply:
            raise FlowError(
                "--reply goes with connections; packets of this protocol are judged one by one,"
                " in each direction for itself"
            )
        return ABSENT, ABSENT
    if reply and protocol == SCTP:
        raise FlowError(
            "--reply goes with connections that conntrack tells apart, which it does not for SCTP;"
            " explain the association's first packet: its rules have the way back"
        )
    if reply:
        if text.first is None:
            raise FlowError("say from which port the answer comes, as policy reads it: tp_src=PORT")
        return text.first, EPHEMERAL_PORT if text.second is None else text.second
    if text.second is None:
        raise FlowError("say to which port the packet goes, as policy reads it: tp_dst=PORT")
    return EPHEMERAL_PORT if text.first is None else text.first, text.second


def _own_address(text: FlowText, port: LocalPort) -> bytes:
    size = 16 if text.eth_type == ETH_IPV6 else 4
    for ip in port.record.fixed_ips:
        if len(ip) == size:
            return ip
    family, name = (6, "ipv6_src") if size == 16 else (4, "nw_src")
    if text.eth_type == ETH_ARP:
        name = "arp_spa"
    raise FlowError(
        f"port {port.record.id!r} has no IPv{family} address of its own; say from which it sends:"
        f" {name}=ADDRESS"
    )


def _group_mac(dst: bytes) -> bytes:
    """The MAC of a broadcast or multicast address (RFC 1112, RFC 2464); b"" for one host's."""
    if len(dst) == 16:
        return b"\x33\x33" + dst[12:] if dst[0] == 0xFF else b""
    if dst == b"\xff" * 4:
        return b"\xff" * 6
    if dst[0] & 0xF0 == 0xE0:
        return b"\x01\x00\x5e" + bytes((dst[1] & 0x7F,)) + dst[2:]
    return b""

"""The same rule as os-ken's own objects, which os-ken's encoder turns into bytes."""

from __future__ import annotations

import base64
import ipaddress
from typing import Any

from os_ken.ofproto import ofproto_v1_3 as ofproto
from os_ken.ofproto import ofproto_v1_3_parser as parser
from os_ken.ofproto.ofproto_protocol import ProtocolDesc

from rule_cache.fields import Field, Format, Value, to_bytes, to_int
from rule_cache.rule import (
    Action,
    Arg,
    Ct,
    DecTtl,
    Meter,
    Move,
    Operand,
    Output,
    OutputInPort,
    Resubmit,
    Rule,
    SetField,
    ToController,
)

DATAPATH = ProtocolDesc(ofproto.OFP_VERSION)

NAMES = {
    Field.IN_PORT: "in_port",
    Field.REG2: "reg2",
    Field.REG3: "reg3",
    Field.REG4: "reg4",
    Field.REG5: "reg5",
    Field.REG6: "reg6",
    Field.REG7: "reg7",
    Field.TUN_ID: "tunnel_id",
    Field.TUN_SRC: "tun_ipv4_src",
    Field.TUN_DST: "tun_ipv4_dst",
    Field.TUN_IPV6_DST: "tun_ipv6_dst",
    Field.ETH_DST: "eth_dst",
    Field.ETH_SRC: "eth_src",
    Field.ETH_TYPE: "eth_type",
    Field.VLAN_TCI: "vlan_tci",
    Field.IP_PROTO: "ip_proto",
    Field.IP_TTL: "nw_ttl",
    Field.IP_FRAG: "ip_frag",
    Field.IPV4_SRC: "ipv4_src",
    Field.IPV4_DST: "ipv4_dst",
    Field.IPV6_SRC: "ipv6_src",
    Field.IPV6_DST: "ipv6_dst",
    Field.TCP_SRC: "tcp_src",
    Field.TCP_DST: "tcp_dst",
    Field.UDP_SRC: "udp_src",
    Field.UDP_DST: "udp_dst",
    Field.SCTP_SRC: "sctp_src",
    Field.SCTP_DST: "sctp_dst",
    Field.ICMP_TYPE: "icmpv4_type",
    Field.ICMP_CODE: "icmpv4_code",
    Field.ICMPV6_TYPE: "icmpv6_type",
    Field.ICMPV6_CODE: "icmpv6_code",
    Field.ARP_OP: "arp_op",
    Field.ARP_SPA: "arp_spa",
    Field.ARP_TPA: "arp_tpa",
    Field.ARP_SHA: "arp_sha",
    Field.ARP_THA: "arp_tha",
    Field.ND_TARGET: "ipv6_nd_target",
    Field.ND_SLL: "ipv6_nd_sll",
    Field.ND_TLL: "ipv6_nd_tll",
    Field.CT_STATE: "ct_state",
    Field.CT_MARK: "ct_mark",
}
#: Fields that os-ken has no name for: OXM class and number, from ovs-fields(7). It encodes any field
#: called "field_<class and number>" from base64.
UNNAMED = {
    Field.ND_RESERVED: (0x1000, 1),
    Field.ND_OPTIONS_TYPE: (0x1000, 2),
    Field.CT_NW_PROTO: (0x0001, 119),
    Field.CT_NW_SRC: (0x0001, 120),
    Field.CT_NW_DST: (0x0001, 121),
    Field.CT_IPV6_SRC: (0x0001, 122),
    Field.CT_IPV6_DST: (0x0001, 123),
    Field.CT_TP_SRC: (0x0001, 124),
    Field.CT_TP_DST: (0x0001, 125),
}


def os_ken_add(rule: Rule, cookie: int, *, flags: int) -> bytes:
    """The flow-mod that adds the rule, encoded by os-ken; its xid is the cookie's low half."""
    shape = rule.shape
    bound = dict(zip(shape.args, rule.values, strict=True))

    def value(operand: Operand) -> Value:
        return bound[operand.name] if isinstance(operand, Arg) else operand

    fields = []
    for item in shape.match:
        user = _user(item.field, value(item.value))
        if item.mask is not None:
            user = (user, _user(item.field, value(item.mask)))
        fields.append((_name(item.field), user))
    instructions = []
    actions = []
    for action in shape.actions:
        if isinstance(action, Meter):
            meter = to_int(value(action.meter))
            if meter:
                instructions.append(parser.OFPInstructionMeter(meter))
        else:
            actions.append(_action(action, value))
    if actions:
        instructions.append(parser.OFPInstructionActions(ofproto.OFPIT_APPLY_ACTIONS, actions))
    return serialized(
        parser.OFPFlowMod(
            DATAPATH,
            cookie=cookie,
            table_id=shape.table,
            command=ofproto.OFPFC_ADD,
            idle_timeout=rule.idle_timeout,
            hard_timeout=rule.hard_timeout,
            priority=shape.priority,
            buffer_id=ofproto.OFP_NO_BUFFER,
            out_port=ofproto.OFPP_ANY,
            out_group=ofproto.OFPG_ANY,
            flags=flags,
            match=parser.OFPMatch(_ordered_fields=fields),
            instructions=instructions,
        ),
        xid=cookie & 0xFFFFFFFF,
    )


def serialized(message: Any, *, xid: int) -> bytes:
    """Any os-ken message as bytes."""
    message.set_xid(xid)
    message.serialize()
    return bytes(message.buf)


def _action(action: Action, value: Any) -> Any:
    match action:
        case SetField():
            return parser.OFPActionSetField(
                **{_name(action.field): _user(action.field, value(action.value))}
            )
        case Move():
            return _move(action.source, action.target)
        case Output():
            return parser.OFPActionOutput(to_int(value(action.port)), max_len=0)
        case OutputInPort():
            return parser.OFPActionOutput(ofproto.OFPP_IN_PORT, max_len=0)
        case ToController():
            return parser.OFPActionOutput(ofproto.OFPP_CONTROLLER, max_len=action.max_len)
        case Resubmit():
            return parser.NXActionResubmitTable(table_id=action.table)
        case Ct():
            nested = [] if action.mark is None else [_move(action.mark, Field.CT_MARK)]
            return parser.NXActionCT(
                flags=1 if action.commit else 0,
                zone_src=_name(action.zone),
                zone_ofs_nbits=15,
                recirc_table=0xFF if action.table is None else action.table,
                alg=0,
                actions=nested,
            )
        case DecTtl():
            return parser.OFPActionDecNwTtl()
    raise AssertionError(f"os_ken_twin does not know {action}")


def _move(source: Field, target: Field) -> Any:
    return parser.NXActionRegMove(_name(source), _name(target), n_bits=source.width * 8)


def _name(field: Field) -> str:
    if field in NAMES:
        return NAMES[field]
    oxm_class, number = UNNAMED[field]
    return f"field_{oxm_class << 7 | number}"


def _user(field: Field, value: Value) -> Any:
    """A value as os-ken's callers write it."""
    data = to_bytes(field, value)
    if field in UNNAMED:
        return base64.b64encode(data).decode()
    if field.form is Format.MAC:
        return data.hex(":")
    if field.form is Format.IP:
        return str(ipaddress.ip_address(data))
    return to_int(value)

"""The OVS pipeline, declared as data: tables, registers, priorities and every shape of rule.

Nothing else in the program makes up a match or an action. docs/pipeline.md walks a packet through it.

==  ==================  ===========================================================  =============
id  table               what it does                                                 filled
==  ==================  ===========================================================  =============
0   CLASSIFY            where from: reg5 = VNI, reg6 or reg7 = zone of a local port  per local port
5   RESPONDER           answers ARP and ND from the slices                           on demand
6   ND_REPLY            turns a solicitation that 5 answered into an advertisement   once
10  PORT_SECURITY       (MAC, IP) of the port, or dropped                            per local port
15  EGRESS_ENTRY        conntrack where it can tell connections apart                once
20  EGRESS_STATE        ct_mark = policy epoch: judged before, straight on           per local port
30  EGRESS_VERDICT      the port's egress policy                                     on demand
40  LOCATION            where the destination is                                     on demand
50  INGRESS_ENTRY       as 15, for reg7                                              once
60  INGRESS_STATE       as 20, for reg7                                              per local port
80  INGRESS_VERDICT     as 30, for reg7                                              on demand
90  DELIVER             reg7 -> the port                                             per local port
==  ==================  ===========================================================  =============

The policy epoch of a port stands in its two rules of a state table and nowhere else: ``judged``
compares it with the connection's ct_mark, ``not_judged`` puts it into reg4, from where a commit stamps
it. So moving an epoch costs four rules, however many verdicts are installed. Where only one remote
address has to be looked at again, ``judged_remote`` and ``not_judged_remote`` do the same for that
address with an epoch of its own, and all other connections stay as they are.

Verdict rules match the *original* tuple of the connection (ct_nw_dst, ct_tp_dst, ...), so that a reply
whose connection is judged again, and an ICMP error related to it, meet the rule of the connection and
not one of their own.
"""

from __future__ import annotations

import enum

from ondemand.records import Direction
from rule_cache.fields import FRAG_ANY, FRAG_LATER, CtState, Field
from rule_cache.rule import (
    Action,
    Arg,
    Ct,
    DecTtl,
    Eq,
    Meter,
    Move,
    Output,
    OutputInPort,
    Resubmit,
    SetField,
    Shape,
    ToController,
)

ETH_IPV4, ETH_IPV6, ETH_ARP, ETH_RARP = 0x0800, 0x86DD, 0x0806, 0x8035
ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132

#: Protocols whose connections OVS conntrack tells apart. Of SCTP its userspace conntrack reads no
#: ports, and of protocols without ports it knows one connection per address pair in which the other
#: direction counts as the reply: both would be let through by state where no rule allows it.
TRACKED = {4: (TCP, UDP, ICMP), 6: (TCP, UDP, ICMPV6)}
#: What OVS takes for the protocol of a later IPv6 fragment, whatever it is a part of. It goes to
#: conntrack too, where it waits for the first one; that of an untracked protocol waits in vain.
IPV6_LATER_FRAGMENT = 44
_MEETS_CONNTRACK = {4: TRACKED[4], 6: (*TRACKED[6], IPV6_LATER_FRAGMENT)}

#: ICMPv6 that never leaves the local link and that the fabric answers or ignores: MLD (RFC 2710,
#: RFC 3810), router and neighbor discovery, redirect (RFC 4861). 135 is answered in RESPONDER.
LINK_LOCAL_ICMPV6 = (130, 131, 132, 133, 134, 136, 137, 143)
NEIGHBOR_SOLICITATION, NEIGHBOR_ADVERTISEMENT = 135, 136
#: RFC 4861 section 4.6.1: the option with the target's MAC.
ND_TARGET_LINK_LAYER = 2
#: ff02::1 and its MAC, RFC 4291 section 2.7.1 and RFC 2464 section 7.
ALL_NODES = b"\xff\x02" + bytes(13) + b"\x01"
ALL_NODES_MAC = b"\x33\x33\x00\x00\x00\x01"

#: nd_reserved of an advertisement, RFC 4861 section 4.4: router, solicited, override.
ND_ROUTER, ND_SOLICITED, ND_OVERRIDE = 0x80000000, 0x40000000, 0x20000000


class Table(enum.IntEnum):
    """Tables relative to the block's base."""

    CLASSIFY = 0
    RESPONDER = 5
    ND_REPLY = 6
    PORT_SECURITY = 10
    EGRESS_ENTRY = 15
    EGRESS_STATE = 20
    EGRESS_VERDICT = 30
    LOCATION = 40
    INGRESS_ENTRY = 50
    INGRESS_STATE = 60
    INGRESS_VERDICT = 80
    DELIVER = 90


#: The last table a block with base 0 uses; the base may go up to 253 - LAST_TABLE (OpenFlow 1.3.5:
#: OFPTT_MAX is 0xfe, and OVS hides 254).
LAST_TABLE = max(Table)
#: Tables whose rules come and go with traffic.
ON_DEMAND = (Table.RESPONDER, Table.EGRESS_VERDICT, Table.LOCATION, Table.INGRESS_VERDICT)


class L4(enum.IntEnum):
    """What a verdict reads of the transport header."""

    PORT = 0  # tcp, udp: the destination port
    ICMP = 1  # icmp, icmpv6: type and code
    SCTP = 2  # both ports, because it is judged without conntrack
    NONE = 3  # any other protocol: its number, without conntrack


# Priorities within a table. A higher one is more specific.
P_GUARD = 300
P_PORT = 200
P_EXACT = 100
P_DEFAULT = 1
P_MISS = 0

#: The bit of a MAC that tells a group from one station (IEEE 802-2014 section 8.2).
_GROUP_BIT = bytes((0x01, 0, 0, 0, 0, 0))

_ZONE, _EPOCH, _VNI, _MAC, _REMOTE = (
    Arg("zone"),
    Arg("epoch"),
    Arg("vni"),
    Arg("mac"),
    Arg("remote"),
)

#: ct_state values and the mask of the bits that matter.
_STATE_MASK = CtState.INV | CtState.TRK
_VALID = CtState.TRK
_DIRECTED_MASK = _STATE_MASK | CtState.RPL


def _commit(zone: Field) -> Ct:
    """Store the connection, stamped with the policy epoch that the state table put into reg4."""
    return Ct(zone=zone, commit=True, mark=Field.REG4)


def _eth(family: int) -> Eq:
    return Eq(Field.ETH_TYPE, ETH_IPV4 if family == 4 else ETH_IPV6)


class Pipeline:
    """All shapes, for a block of tables that starts at ``base``."""

    def __init__(self, base: int = 0) -> None:
        if not 0 <= base <= 253 - LAST_TABLE:
            raise ValueError(f"table base {base} is not in 0..{253 - LAST_TABLE}")
        self.base = base
        #: Every shape, so that an encoder can prepare them and a test can check them.
        self.shapes: list[Shape] = []
        self._classify()
        self._port_security()
        self._entries()
        self._states()
        self._verdicts()
        self._locations()
        self._responders()
        self._nd_reply()
        self._quarantine()
        self._deliver()

    def number(self, table: Table) -> int:
        return self.base + table

    def table_of(self, number: int) -> Table | None:
        """The table a number stands for, None when it is not of this block."""
        try:
            return Table(number - self.base)
        except ValueError:
            return None

    def _shape(
        self, name: str, table: Table, priority: int, match: list[Eq], actions: list[Action]
    ) -> Shape:
        shape = Shape(name, self.number(table), priority, tuple(match), tuple(actions))
        self.shapes.append(shape)
        return shape

    def _to(self, table: Table) -> Resubmit:
        return Resubmit(self.number(table))

    def _classify(self) -> None:
        self.from_port = self._shape(
            "from_port",
            Table.CLASSIFY,
            P_PORT,
            [Eq(Field.IN_PORT, Arg("ofport"))],
            [
                SetField(Field.REG5, _VNI),
                SetField(Field.REG6, _ZONE),
                self._to(Table.PORT_SECURITY),
            ],
        )
        # Only what is addressed to a MAC of a local port, in its own VNI, comes in from a tunnel.
        self.from_tunnel = self._shape(
            "from_tunnel",
            Table.CLASSIFY,
            P_PORT,
            [
                Eq(Field.IN_PORT, Arg("tunnel_port")),
                Eq(Field.TUN_ID, _VNI),
                Eq(Field.ETH_DST, _MAC),
            ],
            [SetField(Field.REG7, _ZONE), self._to(Table.INGRESS_ENTRY)],
        )

    def _port_security(self) -> None:
        table = Table.PORT_SECURITY
        # OVS matches what follows a tag, so without this rule a tagged frame would pass untagged.
        self.no_vlan = tuple(
            self._shape("no_vlan", guarded, P_GUARD + 2, [Eq(Field.VLAN_TCI, 0x1000, 0x1000)], [])
            for guarded in (table, Table.INGRESS_ENTRY)
        )
        self.to_arp = self._shape(
            "to_arp",
            table,
            P_GUARD,
            [Eq(Field.ETH_TYPE, ETH_ARP)],
            [self._to(Table.RESPONDER)],
        )
        self.to_nd = self._shape(
            "to_nd",
            table,
            P_GUARD,
            [
                _eth(6),
                Eq(Field.IP_PROTO, ICMPV6),
                Eq(Field.ICMPV6_TYPE, NEIGHBOR_SOLICITATION),
            ],
            [self._to(Table.RESPONDER)],
        )
        self.no_link_local = {
            direction: self._shape(
                f"no_link_local_{direction.name.lower()}",
                Table.PORT_SECURITY if direction is Direction.EGRESS else Table.INGRESS_ENTRY,
                P_GUARD,
                [_eth(6), Eq(Field.IP_PROTO, ICMPV6), Eq(Field.ICMPV6_TYPE, Arg("icmp_type"))],
                [],
            )
            for direction in Direction
        }
        src = {4: Field.IPV4_SRC, 6: Field.IPV6_SRC}
        self.allowed_source = {
            family: self._shape(
                f"allowed_source_v{family}",
                table,
                P_PORT,
                [
                    Eq(Field.REG6, _ZONE),
                    Eq(Field.ETH_SRC, _MAC),
                    _eth(family),
                    Eq(src[family], Arg("source"), Arg("source_mask")),
                ],
                [self._to(Table.EGRESS_ENTRY)],
            )
            for family in (4, 6)
        }
        # RFC 2131 section 4.1: a client without an address sends from 0.0.0.0, port 68.
        self.allowed_dhcp = self._shape(
            "allowed_dhcp",
            table,
            P_PORT,
            [
                Eq(Field.REG6, _ZONE),
                Eq(Field.ETH_SRC, _MAC),
                _eth(4),
                Eq(Field.IP_PROTO, UDP),
                Eq(Field.IPV4_SRC, bytes(4)),
                Eq(Field.UDP_SRC, 68),
                Eq(Field.UDP_DST, 67),
            ],
            [self._to(Table.EGRESS_ENTRY)],
        )
        # RFC 903; a hypervisor sends it for a VM that has just come by migration.
        self.announcement = self._shape(
            "announcement",
            table,
            P_PORT,
            [Eq(Field.REG6, _ZONE), Eq(Field.ETH_SRC, _MAC), Eq(Field.ETH_TYPE, ETH_RARP)],
            [Meter(Arg("meter")), ToController()],
        )
        self.any_source = {
            family: self._shape(
                f"any_source_v{family}",
                table,
                P_PORT,
                [Eq(Field.REG6, _ZONE), _eth(family)],
                [self._to(Table.LOCATION)],
            )
            for family in (4, 6)
        }

    def _entries(self) -> None:
        # ARP and the like from a tunnel is for nobody.
        self.unprotected = {
            family: self._shape(
                f"unprotected_v{family}",
                Table.INGRESS_ENTRY,
                P_PORT,
                [Eq(Field.REG7, _ZONE), _eth(family)],
                [self._to(Table.DELIVER)],
            )
            for family in (4, 6)
        }
        self.tracked: dict[Direction, tuple[Shape, ...]] = {}
        self.untracked: dict[Direction, tuple[Shape, ...]] = {}
        for direction, entry, state, verdict, register in (
            (
                Direction.EGRESS,
                Table.EGRESS_ENTRY,
                Table.EGRESS_STATE,
                Table.EGRESS_VERDICT,
                Field.REG6,
            ),
            (
                Direction.INGRESS,
                Table.INGRESS_ENTRY,
                Table.INGRESS_STATE,
                Table.INGRESS_VERDICT,
                Field.REG7,
            ),
        ):
            name = direction.name.lower()
            self.tracked[direction] = tuple(
                self._shape(
                    f"tracked_{name}_v{family}_{protocol}",
                    entry,
                    P_EXACT,
                    [_eth(family), Eq(Field.IP_PROTO, protocol)],
                    [Ct(zone=register, table=self.number(state))],
                )
                for family in (4, 6)
                for protocol in _MEETS_CONNTRACK[family]
            )
            self.untracked[direction] = tuple(
                self._shape(
                    f"untracked_{name}_v{family}",
                    entry,
                    P_DEFAULT,
                    [_eth(family)],
                    [self._to(verdict)],
                )
                for family in (4, 6)
            )

    def _states(self) -> None:
        self.invalid: dict[Direction, Shape] = {}
        self.judged: dict[Direction, Shape] = {}
        self.not_judged: dict[Direction, Shape] = {}
        #: By direction of the table, family, and whether packets travel in the reply direction.
        self.judged_remote: dict[tuple[Direction, int, bool], Shape] = {}
        self.not_judged_remote: dict[tuple[Direction, int, bool], Shape] = {}
        for direction, table, verdict, onward, register in (
            (
                Direction.EGRESS,
                Table.EGRESS_STATE,
                Table.EGRESS_VERDICT,
                Table.LOCATION,
                Field.REG6,
            ),
            (
                Direction.INGRESS,
                Table.INGRESS_STATE,
                Table.INGRESS_VERDICT,
                Table.DELIVER,
                Field.REG7,
            ),
        ):
            name = direction.name.lower()
            # Without asking for +trk: fragments that waited in vain are let go as +inv-trk, inside
            # the next packet of whatever port meets conntrack.
            invalid = CtState.INV
            self.invalid[direction] = self._shape(
                f"invalid_{name}", table, P_GUARD, [Eq(Field.CT_STATE, invalid, invalid)], []
            )
            # The mark is on the connection only after a commit under this epoch, so it says "judged"
            # for +new packets (a UDP stream without an answer, later fragments) as for +est.
            self.judged[direction] = self._shape(
                f"judged_{name}",
                table,
                P_PORT,
                [
                    Eq(register, _ZONE),
                    Eq(Field.CT_STATE, _VALID, _STATE_MASK),
                    Eq(Field.CT_MARK, _EPOCH),
                ],
                [self._to(onward)],
            )
            self.not_judged[direction] = self._shape(
                f"not_judged_{name}",
                table,
                P_EXACT,
                [Eq(register, _ZONE)],
                [SetField(Field.REG4, _EPOCH), self._to(verdict)],
            )
            for family in (4, 6):
                for reply in (False, True):
                    remote = self._remote(direction, family, reply=reply)
                    match = [
                        Eq(register, _ZONE),
                        Eq(
                            Field.CT_STATE,
                            _VALID | (CtState.RPL if reply else 0),
                            _DIRECTED_MASK,
                        ),
                        _eth(family),
                        Eq(remote, _REMOTE),
                    ]
                    which = f"{name}_v{family}_{'reply' if reply else 'original'}"
                    self.judged_remote[direction, family, reply] = self._shape(
                        f"judged_remote_{which}",
                        table,
                        P_PORT + 20,
                        [*match, Eq(Field.CT_MARK, _EPOCH)],
                        [self._to(onward)],
                    )
                    self.not_judged_remote[direction, family, reply] = self._shape(
                        f"not_judged_remote_{which}",
                        table,
                        P_PORT + 10,
                        match,
                        [SetField(Field.REG4, _EPOCH), self._to(verdict)],
                    )

    @staticmethod
    def _remote(direction: Direction, family: int, *, reply: bool) -> Field:
        """Where the original tuple has the remote end: it is the destination of what the port began,
        the source of what it received.
        """
        begun_by_port = (direction is Direction.EGRESS) != reply
        if family == 4:
            return Field.CT_NW_DST if begun_by_port else Field.CT_NW_SRC
        return Field.CT_IPV6_DST if begun_by_port else Field.CT_IPV6_SRC

    def _verdicts(self) -> None:
        """``verdict[table's direction, family, l4, reply, connection]`` -> (allow, deny).

        ``reply`` tells packets in the connection's reply direction; their original direction, and
        so the policy that judges them, is the other one.
        """
        self.verdict: dict[tuple[Direction, int, L4, bool, bool], tuple[Shape, Shape]] = {}
        #: Later fragments carry no ports. OVS holds all fragments of a datagram in ct(commit) until
        #: the first one came there too, which only an allow verdict lets it do; if it does not, they
        #: wait there until they expire. So this rule needs no verdict of its own.
        self.later_fragment: dict[tuple[Direction, int], Shape] = {}
        #: The way back of an allowed SCTP association, which no conntrack remembers.
        self.reflexive: dict[tuple[Direction, int], Shape] = {}
        for direction in Direction:
            for family in (4, 6):
                for l4 in (L4.PORT, L4.ICMP):
                    for reply in (False, True):
                        for connection in (False, True):
                            self.verdict[direction, family, l4, reply, connection] = self._stateful(
                                direction, family, l4, reply=reply, connection=connection
                            )
                for l4 in (L4.SCTP, L4.NONE):
                    pair = self._stateless(direction, family, l4)
                    for connection in (False, True):
                        self.verdict[direction, family, l4, False, connection] = pair
                self.later_fragment[direction, family] = self._later_fragment(direction, family)
                self.reflexive[direction, family] = self._reflexive(direction, family)
        self.verdict_miss = {
            direction: self._shape(
                f"{direction.name.lower()}_verdict_miss",
                self._verdict_table(direction),
                P_MISS,
                [Eq(self._register(direction), _ZONE)],
                [Meter(Arg("meter")), ToController()],
            )
            for direction in Direction
        }

    @staticmethod
    def _register(direction: Direction) -> Field:
        return Field.REG6 if direction is Direction.EGRESS else Field.REG7

    @staticmethod
    def _verdict_table(direction: Direction) -> Table:
        return Table.EGRESS_VERDICT if direction is Direction.EGRESS else Table.INGRESS_VERDICT

    def _onward(self, direction: Direction) -> Resubmit:
        return self._to(Table.LOCATION if direction is Direction.EGRESS else Table.DELIVER)

    def _stateful(
        self, direction: Direction, family: int, l4: L4, *, reply: bool, connection: bool
    ) -> tuple[Shape, Shape]:
        remote = self._remote(direction, family, reply=reply)
        local = self._remote(direction, family, reply=not reply)
        register = self._register(direction)
        state = _VALID | (CtState.RPL if reply else 0)
        match = [
            Eq(register, _ZONE),
            Eq(Field.CT_STATE, state, _DIRECTED_MASK),
            _eth(family),
            Eq(remote, _REMOTE),
            Eq(Field.CT_NW_PROTO, Arg("proto")),
        ]
        if l4 is L4.ICMP:
            match += [Eq(Field.CT_TP_SRC, Arg("icmp_type")), Eq(Field.CT_TP_DST, Arg("icmp_code"))]
        else:
            match.append(Eq(Field.CT_TP_DST, Arg("tp_dst")))
        if connection:
            match.append(Eq(local, Arg("local")))
            if l4 is L4.PORT:
                match.append(Eq(Field.CT_TP_SRC, Arg("tp_src")))
        name = "_".join(
            (
                direction.name.lower(),
                f"v{family}",
                l4.name.lower(),
                "reply" if reply else "original",
                "connection" if connection else "service",
            )
        )
        priority = P_EXACT + 10 if connection else P_EXACT
        table = self._verdict_table(direction)
        return (
            self._shape(
                name + "_allow",
                table,
                priority,
                match,
                [_commit(register), self._onward(direction)],
            ),
            self._shape(name + "_deny", table, priority, match, []),
        )

    def _stateless(self, direction: Direction, family: int, l4: L4) -> tuple[Shape, Shape]:
        match = self._stateless_match(direction, family, l4)
        name = f"{direction.name.lower()}_v{family}_{l4.name.lower()}_stateless"
        table = self._verdict_table(direction)
        return (
            self._shape(name + "_allow", table, P_EXACT, match, [self._onward(direction)]),
            self._shape(name + "_deny", table, P_EXACT, match, []),
        )

    def _reflexive(self, direction: Direction, family: int) -> Shape:
        return self._shape(
            f"{direction.name.lower()}_v{family}_reflexive",
            self._verdict_table(direction),
            P_EXACT + 10,
            self._stateless_match(direction, family, L4.SCTP),
            [self._onward(direction)],
        )

    def _stateless_match(self, direction: Direction, family: int, l4: L4) -> list[Eq]:
        if direction is Direction.EGRESS:
            remote = Field.IPV4_DST if family == 4 else Field.IPV6_DST
        else:
            remote = Field.IPV4_SRC if family == 4 else Field.IPV6_SRC
        match = [
            Eq(self._register(direction), _ZONE),
            Eq(Field.CT_STATE, 0, CtState.TRK),
            _eth(family),
            Eq(Field.IP_PROTO, SCTP if l4 is L4.SCTP else Arg("proto")),
            Eq(remote, _REMOTE),
        ]
        if l4 is L4.SCTP:
            match += [Eq(Field.SCTP_SRC, Arg("tp_src")), Eq(Field.SCTP_DST, Arg("tp_dst"))]
        return match

    def _later_fragment(self, direction: Direction, family: int) -> Shape:
        return self._shape(
            f"{direction.name.lower()}_v{family}_later_fragment",
            self._verdict_table(direction),
            P_PORT,
            [
                Eq(Field.CT_STATE, _VALID, _STATE_MASK),
                _eth(family),
                Eq(Field.IP_FRAG, FRAG_LATER | FRAG_ANY, FRAG_LATER | FRAG_ANY),
            ],
            [_commit(self._register(direction)), self._onward(direction)],
        )

    def _locations(self) -> None:
        """``location_*[family]``: keyed by the sender's subnet (its VNI) and the destination."""
        self.location_tunnel: dict[tuple[int, int, bool], Shape] = {}
        self.location_local: dict[tuple[int, bool], Shape] = {}
        self.location_deny: dict[int, Shape] = {}
        self.gateway_echo: dict[int, Shape] = {}
        rewrite: list[Action] = [
            DecTtl(),
            SetField(Field.ETH_SRC, Arg("gateway_mac")),
            SetField(Field.ETH_DST, Arg("next_mac")),
        ]
        for family in (4, 6):
            ip_dst = Field.IPV4_DST if family == 4 else Field.IPV6_DST
            match = [
                Eq(Field.REG5, _VNI),
                Eq(Field.ETH_DST, _MAC),
                _eth(family),
                Eq(ip_dst, _REMOTE),
            ]
            for routed in (False, True):
                before = rewrite if routed else []
                name = f"v{family}_{'routed' if routed else 'switched'}"
                for underlay in (4, 6):
                    self.location_tunnel[family, underlay, routed] = self._shape(
                        f"location_tunnel{underlay}_{name}",
                        Table.LOCATION,
                        P_EXACT,
                        match,
                        [
                            *before,
                            SetField(Field.TUN_ID, Arg("tun_id")),
                            SetField(
                                Field.TUN_DST if underlay == 4 else Field.TUN_IPV6_DST, Arg("host")
                            ),
                            Output(Arg("tunnel_port")),
                        ],
                    )
                self.location_local[family, routed] = self._shape(
                    f"location_local_{name}",
                    Table.LOCATION,
                    P_EXACT,
                    match,
                    [*before, SetField(Field.REG7, _ZONE), self._to(Table.INGRESS_ENTRY)],
                )
            self.location_deny[family] = self._shape(
                f"location_deny_v{family}", Table.LOCATION, P_EXACT, match, []
            )
            self.gateway_echo[family] = self._gateway_echo(family)
        self.location_miss = self._shape(
            "location_miss",
            Table.LOCATION,
            P_MISS,
            [Eq(Field.REG6, _ZONE)],
            [Meter(Arg("meter")), ToController()],
        )

    def _gateway_echo(self, family: int) -> Shape:
        v4 = family == 4
        src, dst = (Field.IPV4_SRC, Field.IPV4_DST) if v4 else (Field.IPV6_SRC, Field.IPV6_DST)
        kind = Field.ICMP_TYPE if v4 else Field.ICMPV6_TYPE
        return self._shape(
            f"gateway_echo_v{family}",
            Table.LOCATION,
            P_EXACT + 10,
            [
                Eq(Field.REG5, _VNI),
                Eq(Field.ETH_DST, _MAC),
                _eth(family),
                Eq(Field.IP_PROTO, ICMP if v4 else ICMPV6),
                Eq(kind, 8 if v4 else 128),
                Eq(Field.ICMP_CODE if v4 else Field.ICMPV6_CODE, 0),
                Eq(dst, _REMOTE),
            ],
            [
                Move(Field.ETH_SRC, Field.ETH_DST),
                SetField(Field.ETH_SRC, _MAC),
                Move(src, dst),
                SetField(src, _REMOTE),
                SetField(kind, 0 if v4 else 129),
                SetField(Field.IP_TTL, 64),
                OutputInPort(),
            ],
        )

    def _responders(self) -> None:
        table = Table.RESPONDER
        arp = [
            Eq(Field.REG6, _ZONE),
            Eq(Field.ETH_TYPE, ETH_ARP),
            Eq(Field.ARP_OP, 1),
        ]
        nd = [
            Eq(Field.REG6, _ZONE),
            _eth(6),
            Eq(Field.IP_PROTO, ICMPV6),
            Eq(Field.ICMPV6_TYPE, NEIGHBOR_SOLICITATION),
            Eq(Field.ICMPV6_CODE, 0),
        ]
        arp_target = [*arp, Eq(Field.ARP_TPA, Arg("target"))]
        nd_target = [*nd, Eq(Field.ND_TARGET, Arg("target"))]
        self.arp_reply = self._shape(
            "arp_reply",
            table,
            P_EXACT,
            arp_target,
            [
                Move(Field.ETH_SRC, Field.ETH_DST),
                SetField(Field.ETH_SRC, _MAC),
                SetField(Field.ARP_OP, 2),
                Move(Field.ARP_SHA, Field.ARP_THA),
                SetField(Field.ARP_SHA, _MAC),
                Move(Field.ARP_SPA, Field.ARP_TPA),
                SetField(Field.ARP_SPA, Arg("target")),
                OutputInPort(),
            ],
        )
        self.arp_deny = self._shape("arp_deny", table, P_EXACT, arp_target, [])
        self.nd_reply = self._shape(
            "nd_reply",
            table,
            P_EXACT,
            nd_target,
            [
                Move(Field.ETH_SRC, Field.ETH_DST),
                SetField(Field.ETH_SRC, _MAC),
                SetField(Field.ND_RESERVED, Arg("flags")),
                SetField(Field.ICMPV6_TYPE, NEIGHBOR_ADVERTISEMENT),
                self._to(Table.ND_REPLY),
            ],
        )
        self.nd_deny = self._shape("nd_deny", table, P_EXACT, nd_target, [])
        miss: list[Action] = [Meter(Arg("meter")), ToController()]
        self.arp_miss = self._shape("arp_miss", table, P_DEFAULT, arp, miss)
        self.nd_miss = self._shape("nd_miss", table, P_DEFAULT, nd, miss)

    def _nd_reply(self) -> None:
        # OVS lets nd_tll be written only where the match says "advertisement", hence a second table.
        advertisement = [
            _eth(6),
            Eq(Field.IP_PROTO, ICMPV6),
            Eq(Field.ICMPV6_TYPE, NEIGHBOR_ADVERTISEMENT),
            Eq(Field.ICMPV6_CODE, 0),
        ]
        self.nd_solicited = self._shape(
            "nd_solicited",
            Table.ND_REPLY,
            P_EXACT,
            advertisement,
            [
                Move(Field.IPV6_SRC, Field.IPV6_DST),
                Move(Field.ND_TARGET, Field.IPV6_SRC),
                SetField(Field.ND_OPTIONS_TYPE, ND_TARGET_LINK_LAYER),
                Move(Field.ETH_SRC, Field.ND_TLL),
                OutputInPort(),
            ],
        )
        # Duplicate address detection asks from "::"; RFC 4861 section 7.2.4: answer to all nodes.
        self.nd_duplicate = self._shape(
            "nd_duplicate",
            Table.ND_REPLY,
            P_EXACT + 10,
            [*advertisement, Eq(Field.IPV6_SRC, bytes(16))],
            [
                SetField(Field.ETH_DST, ALL_NODES_MAC),
                SetField(Field.IPV6_DST, ALL_NODES),
                Move(Field.ND_TARGET, Field.IPV6_SRC),
                SetField(Field.ND_RESERVED, ND_OVERRIDE),
                OutputInPort(),
            ],
        )

    def _quarantine(self) -> None:
        """Drops all new flows of one port by few and coarse matches, so that they meet few megaflows.

        Above the exact answers in RESPONDER, the epochs in EGRESS_STATE and the verdicts of untracked
        flows. Not for connections that are judged, or to be judged again: they have a mark.
        """
        new = CtState.NEW | CtState.TRK
        zone = Eq(Field.REG6, _ZONE)
        # A datapath flow made for one address before stays as long as what it does is still right and
        # matches no less than it must (revalidate_ukey in Open vSwitch), and a scan that comes round
        # again keeps thousands of them alive. Nothing else on the way of these packets reads the group
        # bit of their destination, so no such flow matches it, and all go.
        kinds = (("group", _GROUP_BIT), ("unicast", bytes(6)))
        questions = (("arp", Eq(Field.ETH_TYPE, ETH_ARP)), ("nd", _eth(6)))
        self.quarantine = (
            *(
                self._shape(
                    f"quarantine_{name}_{kind}",
                    Table.RESPONDER,
                    P_GUARD,
                    [zone, question, Eq(Field.ETH_DST, bit, _GROUP_BIT)],
                    [],
                )
                for name, question in questions
                for kind, bit in kinds
            ),
            self._shape(
                "quarantine_new",
                Table.EGRESS_STATE,
                P_GUARD,
                [zone, Eq(Field.CT_STATE, new, new), Eq(Field.CT_MARK, 0)],
                [],
            ),
            self._shape(
                "quarantine_untracked",
                Table.EGRESS_VERDICT,
                P_GUARD,
                [zone, Eq(Field.CT_STATE, 0, CtState.TRK)],
                [],
            ),
        )

    def _deliver(self) -> None:
        self.deliver = self._shape(
            "deliver",
            Table.DELIVER,
            P_PORT,
            [Eq(Field.REG7, _ZONE)],
            # reg2 is for nobody to read but an agent that starts: it says whose zone this is.
            [SetField(Field.REG2, Arg("port")), Output(Arg("ofport"))],
        )
        # Matches no packet: it says whose agent made all these rules, for an agent that starts.
        self.owner = self._shape(
            "owner",
            Table.DELIVER,
            P_GUARD,
            [Eq(Field.REG7, 0xFFFFFFFF)],
            [SetField(Field.REG2, Arg("host"))],
        )

"""The walk of one packet: from the miss to the rules that the next packet will meet.

One packet-in settles all that the packet will meet on this host: the egress verdict, the location,
the ingress verdict of a local destination, and the location of the way back.
"""

from __future__ import annotations

from ondemand.admission import TokenBucket
from ondemand.announcements import Announcements
from ondemand.counters import Counters
from ondemand.decide import judge, locate, resolve, way_back
from ondemand.flow import Flow, NoFlow, flow_of
from ondemand.frames import Arp, Fragment, Frame, Kind, NeighborDiscovery, parse
from ondemand.installer import Installer
from ondemand.local_ports import LocalPort
from ondemand.malformed import Malformed
from ondemand.messages import Fetch, PacketIn
from ondemand.pipeline import ICMP, ICMPV6, Pipeline, Table
from ondemand.quarantine import FRUITLESS, Quarantine
from ondemand.records import Direction
from ondemand.rules import RuleMaker
from ondemand.settings import Settings
from ondemand.subjects import LocationSubject, ResolveSubject, VerdictSubject
from ondemand.verdict import (
    Allow,
    Answer,
    Deny,
    GatewayEcho,
    Local,
    Need,
    NoLocation,
    Reason,
    Tunnel,
)
from ondemand.waiting_room import WaitingRoom
from ondemand.world import World

ARP_REQUEST = 1
_ECHO_REQUEST = {ICMP: 8, ICMPV6: 128}

# Until Python 3.12 a member costs 90 ns when it is read through its class.
_RESPONDER, _EGRESS_VERDICT = Table.RESPONDER, Table.EGRESS_VERDICT
_INGRESS_VERDICT, _PORT_SECURITY = Table.INGRESS_VERDICT, Table.PORT_SECURITY
_EGRESS, _INGRESS = Direction.EGRESS, Direction.INGRESS
_NOT_FRAGMENT = Fragment.NOT_FRAGMENT

#: What a packet-in that leads nowhere costs its port on top.
_VAIN = FRUITLESS - 1


class PacketHandler:
    """Handles packet-ins. It decides by the world and installs through the installer."""

    def __init__(
        self,
        *,
        world: World,
        installer: Installer,
        maker: RuleMaker,
        pipeline: Pipeline,
        settings: Settings,
        waiting: WaitingRoom,
        counters: Counters,
        announcements: Announcements,
        quarantine: Quarantine,
    ) -> None:
        self._world = world
        self._installer = installer
        self._maker = maker
        self._settings = settings
        self._waiting = waiting
        self._counters = counters
        self._announcements = announcements
        self._quarantine = quarantine
        self._buckets: dict[int, TokenBucket] = {}
        #: Zones of which the switch refused a rule, and until when their packet-ins are dropped.
        self._held_back_s: dict[int, float] = {}
        self._location_table = pipeline.number(Table.LOCATION)
        self._ingress_verdict_table = pipeline.number(Table.INGRESS_VERDICT)
        #: By length of address; both underlays and both ways of getting there share a slot.
        self._tunnel_slots = {
            4: pipeline.location_tunnel[4, 4, False].slot,
            16: pipeline.location_tunnel[6, 4, False].slot,
        }
        self._tables = {pipeline.number(table): table for table in Table}

    def knows(self, packet: PacketIn) -> bool:
        """Whether the packet's port is here."""
        table = self._tables.get(packet.table)
        zone = packet.target_zone if table is _INGRESS_VERDICT else packet.source_zone
        return zone in self._world.by_zone

    def handle(self, packet: PacketIn, now_s: float) -> None:
        """A packet-in as it comes from the switch."""
        table = self._tables.get(packet.table)
        zone = packet.target_zone if table is _INGRESS_VERDICT else packet.source_zone
        port = self._world.by_zone.get(zone)
        if port is None or table is None:
            self._counters.add("packet_in.unknown_port")
            return
        bucket = self._buckets.get(zone)
        if bucket is None:
            settings = self._settings
            bucket = TokenBucket(settings.admission_rate, settings.admission_burst, now_s)
            self._buckets[zone] = bucket
        if not bucket.take(now_s):
            self._counters.add("packet_in.over_rate", port.record.id)
            return
        if self._held_back_s and now_s < self._held_back_s.get(zone, now_s):
            self._counters.add("packet_in.refused", port.record.id)
            return
        if table is not _INGRESS_VERDICT:
            # What comes to a port is not its doing.
            if self._quarantine.holds(zone):
                self._counters.add("packet_in.quarantined", port.record.id)
                return
            self._quarantine.charge(port, 1, now_s)
        self._counters.add("packet_in", port.record.id)
        self._walk(packet, table, port, now_s)

    def resume(self, packet: PacketIn, now_s: float) -> None:
        """A packet that waited for a record, which is here now."""
        table = self._tables[packet.table]
        zone = packet.target_zone if table is _INGRESS_VERDICT else packet.source_zone
        port = self._world.by_zone.get(zone)
        if port is not None:
            self._walk(packet, table, port, now_s)

    def hold_back(self, zone: int, until_s: float) -> None:
        """Handle no packet-in of a port for a while: the switch refused a rule of it.

        A packet without its rule would miss again, be decided again and sent again, without end.
        """
        self._held_back_s[zone] = until_s

    def forget_port(self, zone: int) -> None:
        self._announcements.forget_port(zone)
        self._quarantine.forget_port(zone)
        self._buckets.pop(zone, None)
        self._held_back_s.pop(zone, None)

    def _walk(self, packet: PacketIn, table: Table, port: LocalPort, now_s: float) -> None:
        try:
            frame = parse(packet.data)
        except Malformed as error:
            self._counters.add(f"malformed.{error.reason.value}", port.record.id)
            if table is not _INGRESS_VERDICT:
                self._quarantine.charge(port, _VAIN, now_s)
            return
        if table is _RESPONDER:
            self._answer(packet, frame, port, now_s)
        elif table is _INGRESS_VERDICT:
            self._ingress(packet, frame, port, now_s)
        elif table is _PORT_SECURITY:
            self._announcements.heard(port, now_s)
        else:
            self._egress(packet, frame, port, table, now_s)

    def _egress(
        self, packet: PacketIn, frame: Frame, port: LocalPort, table: Table, now_s: float
    ) -> None:
        flow: Flow | None = None
        # A packet that got as far as LOCATION was judged, by a rule or by the state of its connection.
        # Behind a commit it no longer says which that is (ovs-actions(7), "ct"), so a reply would be
        # taken for a connection of its own: only its place is asked for.
        if port.record.port_security and table is _EGRESS_VERDICT:
            found = flow_of(packet, frame, _EGRESS)
            if isinstance(found, NoFlow):
                self._counters.add(f"no_flow.{found.value}", port.record.id)
                self._quarantine.charge(port, _VAIN, now_s)
                return
            flow = found
            if not self._verdict(packet, port, flow, now_s):
                return
        elif frame.kind not in (Kind.IPV4, Kind.IPV6):
            self._counters.add("no_flow.not_ip", port.record.id)
            self._quarantine.charge(port, _VAIN, now_s)
            return
        if table is _EGRESS_VERDICT and self._is_placed(port, frame):
            self._counters.add("allowed", port.record.id)
            self._send_on(port.ofport, packet, frame, 0)
            return
        echo = frame.tp_src == _ECHO_REQUEST.get(frame.proto) and frame.tp_dst == 0
        location = locate(self._world, port, frame.eth_dst, frame.dst, echo=echo)
        if isinstance(location, Need):
            self._park(location, packet, port, now_s)
            return
        subject = LocationSubject(port.zone, frame.eth_dst, frame.dst, echo=echo)
        reason = self._place(port, port.zone, subject, location, now_s, packet.table)
        if reason is not None:
            self._counters.add(f"no_location.{reason.value}", port.record.id)
            self._quarantine.charge(port, _VAIN, now_s)
            return
        if isinstance(location, Local) and not self._settle_target(
            packet, frame, port, flow, location, now_s
        ):
            return
        self._counters.add("allowed", port.record.id)
        # Not packet.in_port: while it waited the interface may have come back under another number.
        self._send_on(port.ofport, packet, frame, 0)

    def _is_placed(self, port: LocalPort, frame: Frame) -> bool:
        """Whether the rule that sends this packet to another host is there already.

        It would be decided alike: the ledger's rules are judged again whenever what they read changes.
        """
        slot = self._tunnel_slots[len(frame.dst)]
        entry = self._installer.ledger.find((slot, (port.subnet.vni, frame.eth_dst, frame.dst)))
        return entry is not None and "tunnel_port" in entry.rule.shape.args

    def _settle_target(
        self,
        packet: PacketIn,
        frame: Frame,
        port: LocalPort,
        flow: Flow | None,
        location: Local,
        now_s: float,
    ) -> bool:
        """The ingress verdict of a destination on this host, and the way back.

        False when the packet goes no further now: denied, or a record is needed.

        Only for the first direction of a connection: what a reply will meet there, its own miss
        tells. On the sender's account, so that nobody can fill another port's share.
        """
        target = self._world.ports[location.port]
        if flow is None or flow.reply or not target.record.port_security:
            return True
        at_target = Flow(
            direction=_INGRESS,
            family=flow.family,
            local=flow.remote,
            remote=flow.local,
            protocol=flow.protocol,
            first=flow.first,
            second=flow.second,
            reply=False,
            l4=flow.l4,
        )
        verdict = judge(self._world, target, at_target)
        if isinstance(verdict, Need):
            self._park(verdict, packet, port, now_s)
            return False
        self._install_verdict(target, at_target, verdict, port.zone, now_s)
        if isinstance(verdict, Deny):
            self._counters.add(f"denied.{verdict.reason.value}", target.record.id)
            self._quarantine.charge(port, _VAIN, now_s)
            return False
        return self._place_way_back(target, packet, frame, port, now_s)

    def _ingress(self, packet: PacketIn, frame: Frame, port: LocalPort, now_s: float) -> None:
        in_port, tun_id = packet.in_port, 0
        if packet.vni != port.subnet.vni:
            # From a tunnel; or routed on this host, when its MACs are no longer the sender's but those
            # that it would have out of a tunnel.
            in_port, tun_id = self._maker.tunnel_port, port.subnet.vni
        if not port.record.port_security:
            # It was switched off while the packet waited.
            self._send_on(in_port, packet, frame, tun_id)
            return
        flow = flow_of(packet, frame, _INGRESS)
        if isinstance(flow, NoFlow):
            self._counters.add(f"no_flow.{flow.value}", port.record.id)
            return
        if not self._verdict(packet, port, flow, now_s):
            return
        if not flow.reply and not self._place_way_back(port, packet, frame, port, now_s):
            return
        self._counters.add("allowed", port.record.id)
        self._send_on(in_port, packet, frame, tun_id)

    def _send_on(self, in_port: int, packet: PacketIn, frame: Frame, tun_id: int) -> None:
        """Put the packet through the pipeline again, where it meets the rules made for it.

        Not a fragment that missed a verdict: conntrack would hold it until the rest of its datagram
        comes, which is waiting past that point. That one datagram is lost; the next one meets the
        rules. Past the verdicts all fragments miss alike, and come together again.
        """
        if not in_port:  # routed on a host without a tunnel: the next packet meets the rules
            return
        if frame.fragment is _NOT_FRAGMENT or packet.table == self._location_table:
            self._installer.effects.packet_outs.append((in_port, tun_id, packet.data))

    def _verdict(self, packet: PacketIn, port: LocalPort, flow: Flow, now_s: float) -> bool:
        """Judge and install; whether the packet may go on."""
        verdict = judge(self._world, port, flow)
        if isinstance(verdict, Need):
            self._park(verdict, packet, port, now_s)
            return False
        self._install_verdict(port, flow, verdict, port.zone, now_s, packet.table)
        if isinstance(verdict, Deny):
            self._counters.add(f"denied.{verdict.reason.value}", port.record.id)
            if packet.table != self._ingress_verdict_table:
                self._quarantine.charge(port, _VAIN, now_s)
            return False
        return True

    def _install_verdict(
        self,
        port: LocalPort,
        flow: Flow,
        verdict: Allow | Deny,
        owner: int,
        now_s: float,
        missed_table: int = -1,
    ) -> None:
        subject = VerdictSubject(port.zone, flow)
        for rule in self._maker.for_verdict(port, flow, verdict):
            self._installer.install(rule, verdict.tags, owner, subject, now_s, missed_table)

    def _place_way_back(
        self, port: LocalPort, packet: PacketIn, frame: Frame, payer: LocalPort, now_s: float
    ) -> bool:
        """The location that ``port``'s answer to this frame will ask for, on the payer's account.

        False when the packet has to wait for a record; that there is no way back does not matter.
        """
        if any(frame.src) and len(frame.src) in (4, 16):
            eth_dst = way_back(port, frame.eth_src, frame.src)
            location = locate(self._world, port, eth_dst, frame.src)
            if isinstance(location, Need):
                self._park(location, packet, payer, now_s)
                return False
            if isinstance(location, Tunnel | Local):
                subject = LocationSubject(port.zone, eth_dst, frame.src)
                self._place(port, payer.zone, subject, location, now_s)
        return True

    def _place(
        self,
        port: LocalPort,
        owner: int,
        subject: LocationSubject,
        location: Tunnel | Local | GatewayEcho | NoLocation,
        now_s: float,
        missed_table: int = -1,
    ) -> Reason | None:
        """Install a location rule; the reason when it says that there is no way."""
        rule = self._maker.for_location(
            self._world.ports, port.subnet.vni, subject.eth_dst, subject.ip_dst, location
        )
        self._installer.install(rule, location.tags, owner, subject, now_s, missed_table)
        return location.reason if isinstance(location, NoLocation) else None

    def _answer(self, packet: PacketIn, frame: Frame, port: LocalPort, now_s: float) -> None:
        """ARP or neighbor discovery: let the switch answer, or keep silent."""
        if isinstance(frame.detail, NeighborDiscovery):
            target = frame.detail.target
        elif isinstance(frame.detail, Arp) and frame.proto == ARP_REQUEST:
            target = frame.dst
            if frame.src == target and target in port.record.fixed_ips:
                self._announcements.heard(port, now_s)
        else:
            self._counters.add("no_flow.not_ip", port.record.id)
            return
        answer = resolve(self._world, port, target)
        if isinstance(answer, Need):
            self._park(answer, packet, port, now_s)
            return
        rule = self._maker.for_resolution(port, target, answer)
        subject = ResolveSubject(port.zone, target)
        self._installer.install(rule, answer.tags, port.zone, subject, now_s, packet.table)
        if isinstance(answer, Answer):
            self._counters.add("answered", port.record.id)
            self._installer.effects.packet_outs.append((port.ofport, 0, packet.data))
        else:
            self._counters.add(f"not_answered.{answer.reason.value}", port.record.id)
            self._quarantine.charge(port, _VAIN, now_s)

    def _park(self, need: Need, packet: PacketIn, port: LocalPort, now_s: float) -> None:
        if not self._waiting.park(need, packet, port.zone, now_s):
            self._counters.add("parked.no_room", port.record.id)
            return
        self._counters.add("parked", port.record.id)
        if need.key and self._waiting.must_ask(need, now_s):
            self._installer.effects.requests.append(Fetch(need.slice, need.key))

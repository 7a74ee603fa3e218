"""What becomes of a packet, and why: the agent's own decisions, one after the other, with all they read.

Nothing here decides. Port security is looked up in the rules that the agent always installs, and the
rest is asked of the functions that it asks: ``resolve``, ``judge``, ``locate``; the rules are those of
its ``RuleMaker``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from controller_app.explain_decisions import (
    decide_location,
    decide_policy,
    decide_resolution,
    port_at,
)
from controller_app.explain_flow import parse_flow
from controller_app.explain_hosts import Store, has_port, host_of_port
from controller_app.explain_packet import Packet, complete, conntrack_refuses, lookup
from controller_app.explain_steps import Explanation, Step, StepLog
from controller_app.explain_store import HostView
from controller_app.explain_words import source_sentence
from ondemand.addresses import format_ip, format_mac
from ondemand.decide import way_back
from ondemand.flow import NoFlow
from ondemand.local_ports import LocalPort
from ondemand.pipeline import Pipeline, Table
from ondemand.records import Direction
from ondemand.rules import RuleMaker
from ondemand.settings import Settings
from ondemand.static_rules import frame_rules, port_rules
from ondemand.verdict import Answer, Local, Tunnel
from rule_cache.fields import Field
from rule_cache.rule import Resubmit


def explain(
    store: Store,
    port_id: str,
    flow_text: str,
    *,
    host: str | None = None,
    match_connection: bool = False,
    reply: bool = False,
    tunnel_ips: Mapping[str, bytes] | None = None,
) -> Explanation:
    """What becomes of a packet that the port sends.

    Args:
        store: the slices.
        port_id: the sender.
        flow_text: the packet, in the syntax of ovs-ofctl.
        host: where the port is bound; None: where the store has it.
        match_connection: rules as ``match = "connection"`` makes them.
        reply: the packet answers one that came in.
        tunnel_ips: tunnel addresses by host, of those whose configuration is known; that of another
            host is the one that the store has.

    Raises:
        FlowError: the text says no packet.
        ExplainError: the port cannot be found or used.
        SourceError: the store cannot be read.
    """
    text = parse_flow(flow_text)
    tunnel_ips = tunnel_ips or {}
    place = host_of_port(store, port_id, host)
    view = HostView(store, place, port_id, tunnel_ip=tunnel_ips.get(place))
    packet = complete(text, view.world.ports[port_id], reply=reply)
    settings = Settings(match_connection=match_connection)
    walk = _Walk(store, settings, view, port_id, tunnel_ips)
    packet = walk.run(packet)
    match = "connection" if match_connection else "service"
    return Explanation(port_id, packet, match, tuple(walk.log.steps), tuple(walk.views))


class _Walk:
    """The way of one packet; collects the steps."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        view: HostView,
        port_id: str,
        tunnel_ips: Mapping[str, bytes],
    ) -> None:
        self.log = StepLog()
        self.views = [view]
        self._store = store
        self._settings = settings
        self._pipeline = Pipeline(settings.table_base)
        self._tunnel_ips = tunnel_ips
        self._port = view.world.ports[port_id]

    def run(self, packet: Packet) -> Packet:
        """Walk until the packet arrives or is dropped; the packet with what was found out about it."""
        view, port = self.views[0], self._port
        if packet.target:
            if self._source(view, port, packet):
                self._resolve(view, port, packet.target)
            return packet
        if not packet.eth_dst:
            mac = self._next_hop(view, port, packet)
            if mac is None:
                return packet
            packet = replace(packet, eth_dst=mac)
        if self._source(view, port, packet) and self._verdict(view, port, packet, Direction.EGRESS):
            self._onward(view, port, packet)
        return packet

    # -- who is it sent to -----------------------------------------------------------------------

    def _next_hop(self, view: HostView, port: LocalPort, packet: Packet) -> bytes | None:
        """The MAC that the VM's stack sends to: the neighbor's in its subnet, else the gateway's."""
        subnet = port.subnet
        on_link = any(prefix.contains(packet.dst) for prefix in subnet.prefixes)
        # fe80::/10 is on every link (RFC 4291 section 2.5.6).
        if on_link or (len(packet.dst) == 16 and packet.dst[:2] == b"\xfe\x80"):
            return self._resolve(view, port, packet.dst)
        gateways = [ip for ip in subnet.gateways if len(ip) == len(packet.dst)]
        if gateways:
            return self._resolve(view, port, gateways[0])
        sentence = (
            f"{format_ip(packet.dst)} is not in subnet {subnet.id!r}, which has no IPv{packet.family}"
            " gateway: the VM has nobody to send it to (give dl_dst if it has)"
        )
        self.log.add("resolve", view, port, sentence, allowed=False, reason="no_gateway")
        return None

    def _resolve(self, view: HostView, port: LocalPort, target: bytes) -> bytes | None:
        decision = decide_resolution(view, self._maker(view), port, target)
        self.log.decided("resolve", view, port, decision)
        return decision.outcome.mac if isinstance(decision.outcome, Answer) else None

    # -- may it be sent --------------------------------------------------------------------------

    def _source(self, view: HostView, port: LocalPort, packet: Packet) -> bool:
        """Port security, as the rules that are always there have it."""
        pipeline = self._pipeline
        rules = frame_rules(pipeline) + port_rules(pipeline, port, view.tunnel_port, 0)
        table = pipeline.number(Table.PORT_SECURITY)
        rule = lookup(rules, table, packet.fields() | {Field.REG6: port.zone})
        allowed = rule is not None and any(isinstance(a, Resubmit) for a in rule.shape.actions)
        remark = f"no rule of table {table} matches" if rule is None else f"decided by {rule}"
        self.log.add(
            "source",
            view,
            port,
            source_sentence(pipeline, port.record, packet, rule),
            allowed=allowed,
            reason=None if allowed else "port_security",
            tags=(port.tag,),
            remarks=(remark,),
        )
        return allowed

    def _verdict(self, view: HostView, port: LocalPort, packet: Packet, at: Direction) -> bool:
        """The port's policy, in the direction in which the packet passes it."""
        name = at.name.lower()
        if not port.record.port_security:
            sentence = "the port has no port security: no security group applies"
            self.log.add(name, view, port, sentence, tags=(port.tag,))
            return True
        refusal, remark = conntrack_refuses(packet)
        flow = packet.flow_at(at)
        if refusal is not None or isinstance(flow, NoFlow):
            sentence = refusal or "the packet belongs to no connection"
            self.log.add(
                name, view, port, sentence, allowed=False, reason=NoFlow.INVALID_STATE.value
            )
            return False
        decision = decide_policy(view, self._maker(view), port, flow)
        remarks = [remark] if remark else []
        if flow.reply:
            remarks.append(
                f"judged as the {flow.direction.name.lower()} connection that it answers; while that"
                " connection is as it was judged, its state lets the answer pass without these rules"
            )
        self.log.decided(name, view, port, decision, tuple(remarks))
        return decision.is_allowed

    # -- where does it go ------------------------------------------------------------------------

    def _onward(self, view: HostView, port: LocalPort, packet: Packet) -> None:
        where = (packet.eth_dst, packet.dst)
        maker = self._maker(view)
        decision = decide_location(view, maker, port, *where, echo=packet.is_echo_request)
        self.log.decided("location", view, port, decision)
        location = decision.outcome
        if not isinstance(location, Local | Tunnel):
            return
        target_id = port_at(location)
        there = view if isinstance(location, Local) else self._arrive(target_id, location)
        if there is not None:
            target = there.world.ports[target_id]
            arriving = packet.moved(location.rewrite)
            allowed = self._verdict(there, target, arriving, Direction.INGRESS)
            # Only a packet that is judged comes to the agent, which then looks up the way back.
            if allowed and target.record.port_security and not packet.reply:
                self._way_back(there, target, arriving)

    def _arrive(self, port_id: str, location: Tunnel) -> HostView | None:
        """The destination's host; None, and a step that says so, when no host has the port."""
        host = has_port(self._store, port_id)
        if host is None:
            sentence = (
                f"no host slice of the store has port {port_id!r}, so the agent at"
                f" {format_ip(location.host)} has no rules for it"
            )
            step = Step(
                name="ingress",
                host=format_ip(location.host),
                port=port_id,
                allowed=False,
                sentence=sentence,
                reason="unknown_port",
            )
            self.log.steps.append(step)
            return None
        there = HostView(self._store, host, port_id, tunnel_ip=self._tunnel_ips.get(host))
        self.views.append(there)
        return there

    def _way_back(self, view: HostView, port: LocalPort, packet: Packet) -> None:
        """What the agent settles in the same go: where the port's answer will go."""
        mac = way_back(port, packet.eth_src, packet.src)
        decision = decide_location(view, self._maker(view), port, mac, packet.src)
        if not decision.is_allowed:
            sentence = f"no location of the answer to {format_ip(packet.src)}: {decision.sentence}"
            self.log.add("way back", view, port, sentence, tags=decision.tags)
            return
        sentence = f"the answer to {format_ip(packet.src)} goes to {format_mac(mac)}"
        self.log.add(
            "way back", view, port, sentence, tags=decision.tags, flows=list(decision.rules)
        )

    def _maker(self, view: HostView) -> RuleMaker:
        maker = RuleMaker(self._pipeline, self._settings)
        maker.tunnel_port = view.tunnel_port
        return maker

"""What becomes of a packet, and why: the agent's own decisions, one after the other, with all they read.

Nothing here decides. Port security is looked up in the rules that the agent always installs, and the
rest is asked of the functions that it asks: ``resolve``, ``judge``, ``locate``; the rules are those of
its ``RuleMaker``.
"""

from __future__ import annotations

from dataclasses import replace

from controller_app.explain_flow import parse_flow
from controller_app.explain_packet import Packet, complete, conntrack_refuses, lookup
from controller_app.explain_reads import (
    deciding_rule,
    port_of_tag,
    who_is_allowed,
)
from controller_app.explain_steps import Explanation, Step, StepLog
from controller_app.explain_store import HostView, Store, has_port, host_of_port
from controller_app.explain_words import REASONS, source_sentence
from ondemand.addresses import format_ip, format_mac
from ondemand.decide import way_back
from ondemand.flow import Flow, NoFlow
from ondemand.local_ports import LocalPort
from ondemand.pipeline import Pipeline, Table
from ondemand.policy import Policy, RuleRef
from ondemand.records import Direction
from ondemand.rules import RuleMaker
from ondemand.settings import Settings
from ondemand.static_rules import frame_rules, port_rules
from ondemand.verdict import (
    Answer,
    Deny,
    GatewayEcho,
    Local,
    NoLocation,
    Reason,
    Tunnel,
)
from rule_cache.fields import Field
from rule_cache.rule import Resubmit
from rule_cache.tags import Tag


def explain(
    store: Store,
    port_id: str,
    flow_text: str,
    *,
    host: str | None = None,
    match_connection: bool = False,
    reply: bool = False,
) -> Explanation:
    """What becomes of a packet that the port sends.

    Args:
        store: the slices.
        port_id: the sender.
        flow_text: the packet, in the syntax of ovs-ofctl.
        host: where the port is bound; None: where the store has it.
        match_connection: rules as ``match = "connection"`` makes them.
        reply: the packet answers one that came in.

    Raises:
        FlowError: the text says no packet.
        ExplainError: the port cannot be found or used.
        SourceError: the store cannot be read.
    """
    text = parse_flow(flow_text)
    view = HostView(store, host_of_port(store, port_id, host), port_id)
    packet = complete(text, view.world.ports[port_id], reply=reply)
    settings = Settings(match_connection=match_connection)
    walk = _Walk(store, settings, view, port_id)
    packet = walk.run(packet)
    match = "connection" if match_connection else "service"
    return Explanation(port_id, packet, match, tuple(walk.log.steps), tuple(walk.views))


class _Walk:
    """The way of one packet; collects the steps."""

    def __init__(self, store: Store, settings: Settings, view: HostView, port_id: str) -> None:
        self.log = StepLog()
        self.views = [view]
        self._store = store
        self._settings = settings
        self._pipeline = Pipeline(settings.table_base)
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
        answer = view.resolve(port, target)
        protocol = "ARP" if len(target) == 4 else "neighbor discovery"
        asked = f"{protocol} for {format_ip(target)}"
        flows = [self._maker(view).for_resolution(port, target, answer)]
        if isinstance(answer, Answer):
            who = "the gateway" if answer.router else "a neighbor"
            sentence = f"{asked} is answered with {format_mac(answer.mac)}, {who}"
            self.log.add("resolve", view, port, sentence, tags=answer.tags, flows=flows)
            return answer.mac
        sentence = f"{asked} is not answered: {REASONS[answer.reason]}"
        self.log.deny("resolve", view, port, sentence, answer, flows)
        return None

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
        verdict = view.judge(port, flow)
        flows = self._maker(view).for_verdict(port, flow, verdict)
        remarks = [remark] if remark else []
        if flow.reply:
            remarks.append(
                f"judged as the {flow.direction.name.lower()} connection that it answers; while that"
                " connection is as it was judged, its state lets the answer pass without these rules"
            )
        if isinstance(verdict, Deny):
            remarks.append(self._why(view, port, flow, verdict))
            self.log.deny(name, view, port, REASONS[verdict.reason], verdict, flows, tuple(remarks))
            return False
        rule = deciding_rule(view, verdict.rule) if isinstance(verdict.rule, RuleRef) else None
        sentence = f"allowed by rule {rule.text}" if rule else f"allowed always: {verdict.rule}"
        self.log.add(
            name,
            view,
            port,
            sentence,
            rule=rule,
            remarks=tuple(remarks),
            tags=verdict.tags,
            flows=flows,
        )
        return True

    def _why(self, view: HostView, port: LocalPort, flow: Flow, verdict: Deny) -> str:
        groups = port.record.groups
        if verdict.reason is Reason.GROUP_MISSING:
            return f"these groups do not exist: {', '.join(view.world.missing_groups(groups))}"
        policy = view.world.policy(groups)
        if verdict.reason is Reason.NO_RULE and isinstance(policy, Policy):
            return who_is_allowed(policy, port, flow)
        return "no security rule can allow it"

    # -- where does it go ------------------------------------------------------------------------

    def _onward(self, view: HostView, port: LocalPort, packet: Packet) -> None:
        location = view.locate(port, packet.eth_dst, packet.dst, echo=packet.is_echo_request)
        make = self._maker(view).for_location
        vni = port.subnet.vni
        flows = [make(view.world.ports, vni, packet.eth_dst, packet.dst, location)]
        if isinstance(location, NoLocation):
            self.log.deny("location", view, port, REASONS[location.reason], location, flows)
            return
        if isinstance(location, GatewayEcho):
            sentence = "the gateway itself answers"
            self.log.add("location", view, port, sentence, tags=location.tags, flows=flows)
            return
        target_id = location.port if isinstance(location, Local) else _port_found(location.tags)
        routed = "" if location.rewrite is None else ", routed"
        if isinstance(location, Tunnel):
            place = f"by tunnel to {format_ip(location.host)}, VNI {location.vni}"
        else:
            place = "on this host"
        sentence = f"port {target_id} {place}{routed}"
        self.log.add("location", view, port, sentence, tags=location.tags, flows=flows)
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
        there = HostView(self._store, host, port_id)
        self.views.append(there)
        return there

    def _way_back(self, view: HostView, port: LocalPort, packet: Packet) -> None:
        """What the agent settles in the same go: where the port's answer will go."""
        mac = way_back(port, packet.eth_src, packet.src)
        location = view.locate(port, mac, packet.src)
        if isinstance(location, NoLocation):
            why = REASONS[location.reason]
            sentence = f"no location of the answer to {format_ip(packet.src)}: {why}"
            self.log.add("way back", view, port, sentence, tags=location.tags)
            return
        make = self._maker(view).for_location
        flows = [make(view.world.ports, port.subnet.vni, mac, packet.src, location)]
        sentence = f"the answer to {format_ip(packet.src)} goes to {format_mac(mac)}"
        self.log.add("way back", view, port, sentence, tags=location.tags, flows=flows)

    def _maker(self, view: HostView) -> RuleMaker:
        maker = RuleMaker(self._pipeline, self._settings)
        maker.tunnel_port = view.tunnel_port
        return maker


def _port_found(tags: tuple[Tag, ...]) -> str:
    """The port that a location is about: the last one that finding it asked for."""
    return [port for tag in tags if (port := port_of_tag(tag)) is not None][-1]

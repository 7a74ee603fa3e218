"""Rules for a decision: which shape, with which values, for how long.

A rule matches every field that its decision read. Allow rules idle out when traffic ends; deny rules
have a short hard timeout, so that a denied flow that goes on is looked at again now and then.
"""

from __future__ import annotations

from ondemand.decide import reads_source_port
from ondemand.flow import Flow
from ondemand.local_ports import LocalPort
from ondemand.pipeline import L4, ND_OVERRIDE, ND_ROUTER, ND_SOLICITED, Pipeline
from ondemand.records import Direction
from ondemand.settings import Settings
from ondemand.verdict import (
    Allow,
    Answer,
    Deny,
    GatewayEcho,
    Local,
    NoAnswer,
    NoLocation,
    Reason,
    Tunnel,
)
from rule_cache.fields import Value
from rule_cache.rule import Rule

# Until Python 3.12 a member costs 90 ns when it is read through its class.
_PORT, _ICMP, _SCTP = L4.PORT, L4.ICMP, L4.SCTP
_UNREACHABLE = Reason.SOURCE_UNREACHABLE


class RuleMaker:
    """Makes rules of one pipeline. ``tunnel_port`` is the OpenFlow port of the VXLAN interface."""

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self.pipeline = pipeline
        self.tunnel_port = 0
        self._settings = settings

    def for_verdict(self, port: LocalPort, flow: Flow, verdict: Allow | Deny) -> list[Rule]:
        """The rule in the table that the packet passes; of SCTP also the one for the way back."""
        connection = self._settings.match_connection or reads_source_port(flow)
        shapes = self.pipeline.verdict[
            flow.table_direction, flow.family, flow.l4, flow.reply, connection
        ]
        values: tuple[Value, ...]
        if flow.l4 is _PORT:
            values = (port.zone, flow.remote, flow.protocol, flow.second)
            if connection:
                values = (*values, flow.local, flow.first)
        elif flow.l4 is _ICMP:
            values = (port.zone, flow.remote, flow.protocol, flow.first, flow.second)
            if connection:
                values = (*values, flow.local)
        elif flow.l4 is _SCTP:
            values = (port.zone, flow.remote, flow.first, flow.second)
        else:
            values = (port.zone, flow.protocol, flow.remote)
        if isinstance(verdict, Deny):
            return [Rule(shapes[1], values, 0, self._deny_s(verdict.reason))]
        rules = [Rule(shapes[0], values, self._settings.verdict_idle_s)]
        if flow.l4 is _SCTP:
            back = self.pipeline.reflexive[Direction(1 - flow.table_direction), flow.family]
            swapped = (port.zone, flow.remote, flow.second, flow.first)
            rules.append(Rule(back, swapped, self._settings.verdict_idle_s))
        return rules

    def for_location(
        self,
        world_ports: dict[str, LocalPort],
        vni: int,
        eth_dst: bytes,
        ip_dst: bytes,
        location: Tunnel | Local | GatewayEcho | NoLocation,
    ) -> Rule:
        """The rule that sends packets of subnet ``vni`` to this MAC and address on their way."""
        family = 4 if len(ip_dst) == 4 else 6
        values: tuple[Value, ...] = (vni, eth_dst, ip_dst)
        pipeline, idle = self.pipeline, self._settings.location_idle_s
        if isinstance(location, Tunnel):
            rewrite = location.rewrite
            underlay = 4 if len(location.host) == 4 else 6
            if rewrite is not None:
                values += rewrite
            values = (*values, location.vni, location.host, self.tunnel_port)
            shape = pipeline.location_tunnel[family, underlay, rewrite is not None]
            return Rule(shape, values, idle)
        if isinstance(location, Local):
            rewrite = location.rewrite
            if rewrite is not None:
                values += rewrite
            shape = pipeline.location_local[family, rewrite is not None]
            return Rule(shape, (*values, world_ports[location.port].zone), idle)
        if isinstance(location, GatewayEcho):
            return Rule(pipeline.gateway_echo[family], values, idle)
        return Rule(pipeline.location_deny[family], values, 0, self._deny_s(location.reason))

    def for_resolution(self, port: LocalPort, target: bytes, answer: Answer | NoAnswer) -> Rule:
        """The rule that answers ``port`` when it asks for ``target``, or silences the question."""
        pipeline = self.pipeline
        arp = len(target) == 4
        if isinstance(answer, NoAnswer):
            shape = pipeline.arp_deny if arp else pipeline.nd_deny
            return Rule(shape, (port.zone, target), 0, self._deny_s(answer.reason))
        idle = self._settings.responder_idle_s
        if arp:
            return Rule(pipeline.arp_reply, (port.zone, target, answer.mac), idle)
        flags = ND_SOLICITED | ND_OVERRIDE | (ND_ROUTER if answer.router else 0)
        return Rule(pipeline.nd_reply, (port.zone, target, answer.mac, flags), idle)

    def _deny_s(self, reason: Reason) -> int:
        settings = self._settings
        return settings.outage_deny_s if reason is _UNREACHABLE else settings.deny_s

"""What a rule of the switch is, in words: one sentence for each shape of the pipeline."""

from __future__ import annotations

from typing import Final

from ondemand.addresses import Prefix, format_ip, format_mac
from ondemand.flow import Flow
from ondemand.pipeline import ICMP, ICMPV6, L4, Pipeline
from ondemand.record_text import protocol_text
from ondemand.records import Direction
from ondemand.subjects import LocationSubject, ResolveSubject, Subject, VerdictSubject
from ondemand.world import World
from rule_cache.fields import Field, Value, to_bytes, to_int
from rule_cache.rule import Rule, Shape

_ICMP_NAMES: Final = {
    (ICMP, 8): "echo request",
    (ICMP, 13): "timestamp request",
    (ICMPV6, 128): "echo request",
}
_PLAIN_NAMES: Final = {
    "tcp": "TCP",
    "udp": "UDP",
    "sctp": "SCTP",
    "icmp": "ICMP",
    "icmpv6": "ICMPv6",
}
_NUMBERS: Final = frozenset({"zone", "vni", "ofport", "tunnel_port", "meter", "icmp_type", "port"})


class RuleWords:
    """Words for the rules of one pipeline, with the names that a world has for zones and VNIs."""

    def __init__(self, pipeline: Pipeline, world: World) -> None:
        self._world = world
        self._static = _static_sentences(pipeline)
        self._reflexive = set(pipeline.reflexive.values())
        self._whole_connection = {
            shape
            for (*_, l4, _, connection), shapes in pipeline.verdict.items()
            if connection and l4 in {L4.PORT, L4.ICMP}
            for shape in shapes
        }

    def static(self, rule: Rule) -> str:
        """What a rule is that no traffic makes."""
        values = dict(zip(rule.shape.args, rule.values, strict=True))
        named = {name: _text(name, value) for name, value in values.items()}
        if "source_mask" in values:
            source = to_bytes(Field.IPV4_SRC, values["source"])
            named["source"] = _prefix_text(source, to_int(values["source_mask"]).bit_count())
        if "zone" in values:
            named["port"] = self.port(to_int(values["zone"]))
        if "vni" in values:
            named["subnet"] = self.subnet(to_int(values["vni"]))
        return self._static[rule.shape].format_map(named)

    def on_demand(self, rule: Rule, subject: Subject) -> str:
        """What a rule does that traffic made, by the question that it answers."""
        is_drop = not rule.shape.actions
        if isinstance(subject, VerdictSubject):
            answers = subject.flow.reply or rule.shape in self._reflexive
            words = _verdict(self.port(subject.zone), subject.flow, answers, is_drop)
            if rule.shape in self._whole_connection:
                words += _of_connection(subject.flow)
            return words
        if isinstance(subject, LocationSubject):
            return self._location(rule, subject, is_drop=is_drop)
        return self._resolution(rule, subject, is_drop=is_drop)

    def port(self, zone: int) -> str:
        """As in "port web-1", or what there is to say of a zone that no port of the world has."""
        port = self._world.by_zone.get(zone)
        return f"the port of zone {zone}" if port is None else f"port {port.record.id}"

    def subnet(self, vni: int) -> str:
        ports = self._world.ports.values()
        port = next((port for port in ports if port.subnet.vni == vni), None)
        return f"the subnet with VNI {vni}" if port is None else f"subnet {port.subnet.id}"

    def _location(self, rule: Rule, subject: LocationSubject, *, is_drop: bool) -> str:
        shape, subnet = rule.shape, self.subnet(to_int(rule.value_of("vni")))
        to = f"{format_ip(subject.ip_dst)} at {format_mac(subject.eth_dst)}"
        if is_drop:
            return f"drops packets of {subnet} to {to}"
        if subject.echo:
            return f"answers ping of gateway {format_ip(subject.ip_dst)} in {subnet}"
        routed = ", routed" if "next_mac" in shape.args else ""
        if "host" in shape.args:
            host = _text("host", rule.value_of("host"))
            vni = to_int(rule.value_of("tun_id"))
            return f"sends packets of {subnet} to {to} by tunnel to host {host}, VNI {vni}{routed}"
        target = self.port(to_int(rule.value_of("zone")))
        return f"sends packets of {subnet} to {to} to {target} on this host{routed}"

    def _resolution(self, rule: Rule, subject: ResolveSubject, *, is_drop: bool) -> str:
        question = "ARP question" if len(subject.target) == 4 else "neighbor solicitation"
        asked = f"{self.port(subject.zone)}'s {question} for {format_ip(subject.target)}"
        if is_drop:
            return f"drops {asked} without an answer"
        return f"answers {asked} with {_text('mac', rule.value_of('mac'))}"


def _verdict(port: str, flow: Flow, answers: bool, is_drop: bool) -> str:  # noqa: FBT001
    kind = _protocol(flow)
    number = flow.second if flow.l4 in {L4.PORT, L4.SCTP} else None
    remote = format_ip(flow.remote)
    if flow.direction is Direction.EGRESS:
        end = f"to port {number} of {remote}" if number is not None else f"to {remote}"
        if answers:
            verb = "drops the answers to" if is_drop else f"lets {port} receive the answers to"
            return f"{verb} the {kind} that {port if is_drop else 'it'} sends {end}"
        if is_drop:
            return f"drops the {kind} that {port} sends {end}"
        return f"lets {port} send {kind} {end}"
    end = f"to its port {number} from {remote}" if number is not None else f"from {remote}"
    if answers:
        verb = f"drops the answers of {port} to" if is_drop else f"lets {port} answer"
        return f"{verb} the {kind} that it receives {end}"
    if is_drop:
        return f"drops the {kind} that comes to {port} {end}"
    return f"lets {port} receive {kind} {end}"


def _of_connection(flow: Flow) -> str:
    """The rest of the tuple, which a rule for one connection matches too."""
    local = format_ip(flow.local)
    if flow.l4 is L4.ICMP:
        return f", as {local}"
    if flow.direction is Direction.EGRESS:
        return f", from port {flow.first} of {local}"
    return f", as {local}, sent from port {flow.first}"


def _protocol(flow: Flow) -> str:
    name = protocol_text(flow.protocol)
    if not isinstance(name, str):
        return f"IP protocol {name}"
    plain = _PLAIN_NAMES.get(name, name)
    if flow.l4 is not L4.ICMP:
        return plain
    known = _ICMP_NAMES.get((flow.protocol, flow.first))
    if known is not None and flow.second == 0:
        return f"{plain} {known}"
    return f"{plain} type {flow.first} code {flow.second}"


def _text(name: str, value: Value) -> str:
    if name == "epoch":
        return hex(to_int(value))  # as in the rule, where it is ct_mark
    if name in _NUMBERS:
        return str(to_int(value))
    if name in {"mac", "gateway_mac", "next_mac"}:
        return format_mac(to_bytes(Field.ETH_SRC, value))
    return format_ip(value) if isinstance(value, bytes) and len(value) in {4, 16} else str(value)


def _prefix_text(network: bytes, length: int) -> str:
    return str(Prefix(network, length)) if length < len(network) * 8 else format_ip(network)


def _static_sentences(pipeline: Pipeline) -> dict[Shape, str]:
    """For each shape of a rule that no traffic makes; the names in braces are its arguments', and
    ``port`` and ``subnet`` those that its zone and VNI have.
    """
    p = pipeline
    sentences = {
        p.from_port: "takes in what comes from OpenFlow port {ofport}: it is {port}'s, in {subnet}",
        p.from_tunnel: "takes in what comes by tunnel in {subnet} for {mac}: it is for {port}",
        p.to_arp: "has ARP of local ports answered here and never forwarded",
        p.to_nd: "has neighbor solicitations of local ports answered here and never forwarded",
        p.allowed_dhcp: "lets {port} ask for an address by DHCP, from {mac}",
        p.announcement: "sends RARP of {port} from {mac} to the agent: a VM that has just arrived",
        p.location_miss: "asks the agent where packets of {port} go when no rule knows",
        p.arp_miss: "asks the agent about ARP questions of {port} that no rule answers",
        p.nd_miss: "asks the agent about neighbor solicitations of {port} that no rule answers",
        p.nd_solicited: "makes a neighbor advertisement of an answered solicitation",
        p.nd_duplicate: "makes a neighbor advertisement for a port that tests for a duplicate address",
        p.owner: "matches nothing: it says whose agent made the rules in this switch",
        p.deliver: "delivers what is allowed to {port}, OpenFlow port {ofport}",
    }
    sentences |= dict.fromkeys(p.no_vlan, "drops frames with a VLAN tag")
    sentences |= dict.fromkeys(
        p.quarantine, "drops new flows of {port}: it floods, and is in quarantine"
    )
    for family, shape in p.allowed_source.items():
        sentences[shape] = f"lets {{port}} send from {{source}} with {{mac}}, IPv{family}"
    sentences |= dict.fromkeys(
        p.unprotected.values(), "delivers to {port} unjudged: it has no port security"
    )
    for family, shape in p.any_source.items():
        sentences[shape] = (
            f"lets {{port}} send from any address, IPv{family}: it has no port security"
        )
    for direction in Direction:
        way = "sends" if direction is Direction.EGRESS else "receives"
        sentences[p.no_link_local[direction]] = (
            "drops ICMPv6 type {icmp_type}, which stays on its link"
        )
        tracked = f"looks up in conntrack what a port {way}, of a protocol that it tells apart"
        sentences |= dict.fromkeys(p.tracked[direction], tracked)
        untracked = f"judges without conntrack what a port {way}, of any other protocol"
        sentences |= dict.fromkeys(p.untracked[direction], untracked)
        sentences[p.invalid[direction]] = f"drops what a port {way} and conntrack takes for invalid"
        sentences[p.judged[direction]] = (
            f"compares connections of what {{port}} {way} with policy epoch {{epoch}}:"
            " judged under it, they pass"
        )
        sentences[p.not_judged[direction]] = (
            f"has connections of what {{port}} {way} judged when their mark is not its policy epoch,"
            " and stamps epoch {epoch}"
        )
        sentences[p.verdict_miss[direction]] = (
            f"asks the agent about what {{port}} {way} and no rule judges"
        )
        for family in (4, 6):
            sentences[p.later_fragment[direction, family]] = (
                f"has later IPv{family} fragments of what a port {way} wait for the first one"
            )
            for reply in (False, True):
                key = (direction, family, reply)
                what = "answers in connections" if reply else "connections"
                sentences[p.judged_remote[key]] = (
                    f"compares {what} of what {{port}} {way} with policy epoch {{epoch}}, which"
                    " {remote} has of its own: judged under it, they pass"
                )
                sentences[p.not_judged_remote[key]] = (
                    f"has {what} of what {{port}} {way} judged again that are {{remote}}'s, and"
                    " stamps epoch {epoch}"
                )
    return sentences

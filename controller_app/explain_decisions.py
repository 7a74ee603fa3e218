"""One decision with its answer in words: the sentence, why, all that was read and the rules for it.

The decisions are the agent's own (``ondemand.decide``), and so are the rules (``RuleMaker``). Both the
explanation of a packet and that of a rule are made of these.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller_app.explain_reads import DecidingRule, deciding_rule, port_of_tag, who_is_allowed
from controller_app.explain_store import StoreView
from controller_app.explain_words import REASONS
from ondemand.addresses import format_ip, format_mac
from ondemand.flow import Flow
from ondemand.local_ports import LocalPort
from ondemand.policy import RuleRef
from ondemand.rules import RuleMaker
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
from rule_cache.rule import Rule
from rule_cache.tags import Tag

Outcome = Allow | Deny | Tunnel | Local | GatewayEcho | NoLocation | Answer | NoAnswer


@dataclass(frozen=True, slots=True)
class Decision:
    """``outcome`` is what was decided. ``reason`` is the name of the counter that a denial goes to;
    ``rule`` the security rule that allowed it, ``rules`` those that the agent installs for it.
    """

    outcome: Outcome
    sentence: str
    rules: tuple[Rule, ...]
    reason: str | None = None
    rule: DecidingRule | None = None
    remarks: tuple[str, ...] = ()

    @property
    def tags(self) -> tuple[Tag, ...]:
        return self.outcome.tags

    @property
    def is_allowed(self) -> bool:
        return self.reason is None


def decide_policy(view: StoreView, maker: RuleMaker, port: LocalPort, flow: Flow) -> Decision:
    """May the port have this connection? Errors are those of ``StoreView``."""
    verdict = view.judge(port, flow)
    rules = tuple(maker.for_verdict(port, flow, verdict))
    if isinstance(verdict, Deny):
        why = _why_denied(view, port, flow, verdict)
        sentence = REASONS[verdict.reason]
        return Decision(verdict, sentence, rules, verdict.reason.value, remarks=(why,))
    rule = deciding_rule(view, verdict.rule) if isinstance(verdict.rule, RuleRef) else None
    sentence = f"allowed by rule {rule.text}" if rule else f"allowed always: {verdict.rule}"
    return Decision(verdict, sentence, rules, rule=rule)


def decide_location(
    view: StoreView,
    maker: RuleMaker,
    port: LocalPort,
    eth_dst: bytes,
    ip_dst: bytes,
    *,
    echo: bool = False,
) -> Decision:
    """Where does what the port sends to this MAC and address go? Errors are those of ``StoreView``."""
    location = view.locate(port, eth_dst, ip_dst, echo=echo)
    vni = port.subnet.vni
    rules = (maker.for_location(view.world.ports, vni, eth_dst, ip_dst, location),)
    if isinstance(location, NoLocation):
        return Decision(location, REASONS[location.reason], rules, location.reason.value)
    if isinstance(location, GatewayEcho):
        return Decision(location, "the gateway itself answers", rules)
    routed = "" if location.rewrite is None else ", routed"
    if isinstance(location, Tunnel):
        place = f"by tunnel to {format_ip(location.host)}, VNI {location.vni}"
    else:
        place = "on this host"
    return Decision(location, f"port {port_at(location)} {place}{routed}", rules)


def decide_resolution(
    view: StoreView, maker: RuleMaker, port: LocalPort, target: bytes
) -> Decision:
    """Who answers the port's question for an address? Errors are those of ``StoreView``."""
    answer = view.resolve(port, target)
    protocol = "ARP" if len(target) == 4 else "neighbor discovery"
    asked = f"{protocol} for {format_ip(target)}"
    rules = (maker.for_resolution(port, target, answer),)
    if isinstance(answer, Answer):
        who = "the gateway" if answer.router else "a neighbor"
        return Decision(answer, f"{asked} is answered with {format_mac(answer.mac)}, {who}", rules)
    sentence = f"{asked} is not answered: {REASONS[answer.reason]}"
    return Decision(answer, sentence, rules, answer.reason.value)


def port_at(location: Tunnel | Local) -> str:
    """The port that a location is about; of a tunnel, the last one that finding it asked for."""
    if isinstance(location, Local):
        return location.port
    return [port for tag in location.tags if (port := port_of_tag(tag)) is not None][-1]


def _why_denied(view: StoreView, port: LocalPort, flow: Flow, verdict: Deny) -> str:
    groups = port.record.groups
    if verdict.reason is Reason.GROUP_MISSING:
        return f"these groups do not exist: {', '.join(view.world.missing_groups(groups))}"
    policy = view.world.policy(groups)
    if verdict.reason is Reason.NO_RULE:
        return who_is_allowed(policy, port, flow)
    return "no security rule can allow it"

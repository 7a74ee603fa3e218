"""Why an installed rule exists, whether it is true today, and what would remove it.

The rule comes from the switch. It is read back as the question that it answers (``RuleSubjects``, as
when an agent takes over), and the question is asked again of the code that decides, with the records of
the store. The same answer: the rule is true today.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace

from controller_app.explain_decisions import (
    Decision,
    decide_location,
    decide_policy,
    decide_resolution,
)
from controller_app.explain_reads import Read, reads_of
from controller_app.explain_rule_words import RuleWords
from controller_app.explain_switch import SwitchView
from controller_app.switch_query import FlowEntry
from ondemand.local_ports import LocalPort
from ondemand.pipeline import Pipeline
from ondemand.records import Port, Subnet
from ondemand.rule_subjects import RuleSubjects
from ondemand.rules import RuleMaker
from ondemand.settings import Settings
from ondemand.static_rules import frame_rules, owner_rule, port_rules, quarantine_rules
from ondemand.subjects import LocationSubject, Subject, VerdictSubject
from rule_cache.fields import to_int
from rule_cache.rule import Rule, Shape


class Kind(enum.StrEnum):
    """Why a rule is in the switch at all."""

    ON_DEMAND = "on demand"
    PORT = "port"
    FRAME = "frame"


class Truth(enum.StrEnum):
    """What a fresh decision says of a rule."""

    SAME = "same"
    OTHER = "other"
    """It gives another rule."""
    NOBODY = "nobody"
    """Nobody can ask this question any more."""


@dataclass(frozen=True, slots=True)
class RuleExplanation:
    """The answer.

    Attributes:
        entry: what the switch reports.
        port: the port that the rule is about; None for one about a subnet or about no port.
        subnet: the subnet that it is about, if it is about one.
        what: what the rule does, the end of "it ...".
        decision: the decision made afresh; None for a rule that no traffic makes, and for NOBODY.
        sentence: why ``truth`` is what it is.
        fresh: the rules that the decision gives instead, when it gives others.
        reads: what the decision read; each of these has the rule judged again when it changes.
        leaves: what removes the rule without a change, one phrase each.
    """

    entry: FlowEntry
    rule: Rule
    kind: Kind
    host: str
    port: str | None
    subnet: str | None
    what: str
    truth: Truth
    sentence: str
    decision: Decision | None = None
    fresh: tuple[Rule, ...] = ()
    reads: tuple[Read, ...] = ()
    leaves: tuple[str, ...] = ()

    @property
    def is_true(self) -> bool:
        return self.truth is Truth.SAME


class RuleExplainer:
    """Explains the rules of one switch."""

    def __init__(
        self, pipeline: Pipeline, view: SwitchView, settings: Settings, *, match_is_known: bool
    ) -> None:
        """``match_is_known``: ``settings`` tell what verdict rules match; else each rule shows it."""
        self._pipeline = pipeline
        self._view = view
        self._settings = settings
        self._match_is_known = match_is_known
        self._subjects = RuleSubjects(pipeline)
        self._words = RuleWords(pipeline, view.world)
        self._for_connections: set[Shape] = {
            shape
            for (*_, connection), shapes in pipeline.verdict.items()
            if connection
            for shape in shapes
        }
        # What conntrack does not tell apart has one shape for both.
        for (*_, connection), shapes in pipeline.verdict.items():
            if not connection:
                self._for_connections.difference_update(shapes)

    def is_on_demand(self, rule: Rule) -> bool:
        """Whether traffic made the rule."""
        return self._subjects.subject(rule, _nobody(0)) is not None

    def comes_and_goes(self, rule: Rule) -> bool:
        """Whether the rule is there for a while only: traffic made it, or a flood."""
        return rule.shape in self._pipeline.quarantine or self.is_on_demand(rule)

    def zone_of(self, rule: Rule) -> int | None:
        """The zone of the port that such a rule is about; None for one about a subnet."""
        return self._subjects.zone_of(rule)

    def explain(self, entry: FlowEntry, rule: Rule) -> RuleExplanation:
        """Explain one rule.

        Raises:
            ExplainError: the store never gives what a decision needs.
            SourceError: the store cannot be read.
        """
        if not self.is_on_demand(rule):
            return self._static(entry, rule)
        zone = self._subjects.zone_of(rule)
        if zone is None:
            vni = self._subjects.vni_of(rule)
            port = self._view.port_of_subnet(vni)
            nobody = f"no port of {self._words.subnet(vni)} is served here (any more)"
        else:
            port = self._view.world.by_zone.get(zone)
            nobody = self._nobody_there(zone)
        subject = self._subjects.subject(rule, port or _nobody(zone or 0))
        if subject is None:
            raise TypeError(f"rule {rule} answers no question")
        about_subnet = isinstance(subject, LocationSubject)
        found = RuleExplanation(
            entry=entry,
            rule=rule,
            kind=Kind.ON_DEMAND,
            host=self._view.host,
            port=None if port is None or about_subnet else port.record.id,
            subnet=None if port is None else port.subnet.id,
            what=self._words.on_demand(rule, subject),
            truth=Truth.NOBODY,
            sentence=nobody,
            leaves=tuple(self._leaves(entry, rule)),
        )
        if port is None:
            return found
        if isinstance(subject, VerdictSubject) and not port.record.port_security:
            sentence = "the port has no port security (any more), so nothing of it is judged"
            return replace(found, sentence=sentence)
        decision = self._decide(rule, port, subject)
        found = replace(found, decision=decision, reads=reads_of(self._view, decision.tags))
        return self._compared(found, decision.rules)

    def _decide(self, rule: Rule, port: LocalPort, subject: Subject) -> Decision:
        if isinstance(subject, VerdictSubject):
            return decide_policy(self._view, self._maker(rule), port, subject.flow)
        maker = self._maker(rule)
        if isinstance(subject, LocationSubject):
            where = (subject.eth_dst, subject.ip_dst)
            return decide_location(self._view, maker, port, *where, echo=subject.echo)
        return decide_resolution(self._view, maker, port, subject.target)

    def _maker(self, rule: Rule) -> RuleMaker:
        settings = self._settings
        if not self._match_is_known:
            connection = rule.shape in self._for_connections
            settings = replace(settings, match_connection=connection)
        maker = RuleMaker(self._pipeline, settings)
        maker.tunnel_port = self._view.tunnel_port
        return maker

    def _static(self, entry: FlowEntry, rule: Rule) -> RuleExplanation:
        is_ports = "zone" in rule.shape.args
        zone = to_int(rule.value_of("zone")) if is_ports else 0
        port = self._view.world.by_zone.get(zone)
        found = RuleExplanation(
            entry=entry,
            rule=rule,
            kind=Kind.PORT if is_ports else Kind.FRAME,
            host=self._view.host,
            port=None if port is None else port.record.id,
            subnet=None,
            what=self._words.static(rule),
            truth=Truth.NOBODY,
            sentence=self._nobody_there(zone),
            leaves=tuple(self._timeouts(entry, rule)) or (_stays(rule),),
        )
        if not is_ports:
            owner = owner_rule(self._pipeline, self._view.host)
            return self._compared(found, (*frame_rules(self._pipeline), owner))
        if port is None:
            return found
        found = replace(found, reads=reads_of(self._view, (port.tag,)))
        meter = to_int(rule.value_of("meter")) if "meter" in rule.shape.args else 0
        rules = port_rules(self._pipeline, port, self._view.tunnel_port, meter)
        if rule.shape in self._pipeline.quarantine:
            # Only its agent knows that a port floods.
            flooding = replace(port, quarantine_s=max(rule.hard_timeout, 1))
            rules = quarantine_rules(self._pipeline, flooding)
        return self._compared(found, tuple(rules))

    def _compared(self, found: RuleExplanation, fresh: tuple[Rule, ...]) -> RuleExplanation:
        """With what there is to say when the fresh rules are these. Timeouts do not count."""
        key = found.rule.key
        same_place = [rule for rule in fresh if rule.key == key]
        if any(_does_the_same(rule, found.rule) for rule in same_place):
            return replace(found, truth=Truth.SAME, sentence=_SAME[found.kind])
        if found.kind is Kind.ON_DEMAND:
            instead = tuple(same_place) or fresh
            sentence = "a fresh decision gives another rule"
            if same_place and self._was_outage(found.rule, same_place[0]):
                sentence += "; it was made while the slice source did not answer"
        else:
            instead = tuple(same_place)
            sentence = (
                "it would be another one today" if same_place else "none is made like it today"
            )
        return replace(found, truth=Truth.OTHER, sentence=sentence, fresh=instead)

    def _was_outage(self, rule: Rule, fresh: Rule) -> bool:
        """Whether a rule drops what it should not, for as long as it does when the source is away."""
        settings = self._settings
        is_short = rule.hard_timeout == settings.outage_deny_s != settings.deny_s
        return is_short and not rule.shape.actions and bool(fresh.shape.actions)

    def _nobody_there(self, zone: int) -> str:
        return self._view.lost.get(zone, f"no port with zone {zone} is served here (any more)")

    @staticmethod
    def _timeouts(entry: FlowEntry, rule: Rule) -> Iterator[str]:
        if rule.idle_timeout:
            yield f"{rule.idle_timeout} s without a packet"
        if rule.hard_timeout:
            left_s = max(rule.hard_timeout - entry.age_s, 0.0)
            yield f"{rule.hard_timeout} s after it was installed, that is in {left_s:.0f} s"

    def _leaves(self, entry: FlowEntry, rule: Rule) -> Iterator[str]:
        yield from self._timeouts(entry, rule)
        settings = self._settings
        yield (
            f"a newer rule, once one port has {settings.max_rules_per_port:,} rules or the host"
            f" {settings.max_rules:,}: the oldest goes"
        )


_SAME = {
    Kind.ON_DEMAND: "a fresh decision gives the same rule",
    Kind.PORT: "the port has this rule today",
    Kind.FRAME: "it is the same for all ports and in every agent of this version",
}


def _stays(rule: Rule) -> str:
    if "epoch" in rule.shape.args:
        return "a policy of the port that becomes narrower, which moves the epoch"
    return "nothing: it stays as long as what it is for"


def _does_the_same(one: Rule, other: Rule) -> bool:
    return one.shape is other.shape and one.values == other.values


def _nobody(zone: int) -> LocalPort:
    """A stand-in that has a zone and nothing else, to read the question of a rule of a lost port."""
    record = Port(id="", mac=b"", vpc="", subnet="", fixed_ips=())
    return LocalPort(record, Subnet(id="", vni=0, prefixes=()), 0, zone, 0)

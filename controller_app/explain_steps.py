"""The steps of an explanation, and what they add up to."""

from __future__ import annotations

from dataclasses import dataclass

from controller_app.explain_decisions import Decision
from controller_app.explain_packet import Packet
from controller_app.explain_reads import DecidingRule, Read, reads_of
from controller_app.explain_store import HostView, StoreView
from ondemand.local_ports import LocalPort
from rule_cache.rule import Rule
from rule_cache.tags import Tag


@dataclass(frozen=True, slots=True)
class Step:
    """One decision.

    ``reason`` is the name of the counter that a denial goes to; ``rule`` the security rule that allowed
    it, ``flows`` what the agent of ``host`` installs for it, in ovs-ofctl text.
    """

    name: str
    host: str
    port: str
    allowed: bool
    sentence: str
    reason: str | None = None
    rule: DecidingRule | None = None
    remarks: tuple[str, ...] = ()
    reads: tuple[Read, ...] = ()
    flows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer: ``views`` are the hosts that the packet passes, the sender's first."""

    port: str
    packet: Packet
    match: str
    steps: tuple[Step, ...]
    views: tuple[HostView, ...]

    @property
    def denial(self) -> Step | None:
        """The step that forbids the packet, None when it arrives."""
        return next((step for step in self.steps if not step.allowed), None)

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(problem for view in self.views for problem in view.problems))

    def flows(self, host: str) -> list[str]:
        """The rules that the agent of a host installs, each once, in order."""
        flows = [flow for step in self.steps if step.host == host for flow in step.flows]
        return list(dict.fromkeys(flows))


class StepLog:
    """Collects steps."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def decided(
        self,
        name: str,
        view: StoreView,
        port: LocalPort,
        decision: Decision,
        remarks: tuple[str, ...] = (),
    ) -> None:
        """A step that is a decision; ``remarks`` go before its own."""
        self.add(
            name,
            view,
            port,
            decision.sentence,
            allowed=decision.is_allowed,
            reason=decision.reason,
            rule=decision.rule,
            remarks=remarks + decision.remarks,
            tags=decision.tags,
            flows=list(decision.rules),
        )

    def add(
        self,
        name: str,
        view: StoreView,
        port: LocalPort,
        sentence: str,
        *,
        allowed: bool = True,
        reason: str | None = None,
        rule: DecidingRule | None = None,
        remarks: tuple[str, ...] = (),
        tags: tuple[Tag, ...] = (),
        flows: list[Rule] | None = None,
    ) -> None:
        self.steps.append(
            Step(
                name=name,
                host=view.host,
                port=port.record.id,
                allowed=allowed,
                sentence=sentence,
                reason=reason,
                rule=rule,
                remarks=remarks,
                reads=reads_of(view, tags),
                flows=tuple(str(flow) for flow in flows or ()),
            )
        )

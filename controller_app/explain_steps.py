"""The steps of an explanation, and what they add up to."""

from __future__ import annotations

from dataclasses import dataclass

from controller_app.explain_packet import Packet
from controller_app.explain_reads import DecidingRule, Read, reads_of
from controller_app.explain_store import HostView
from ondemand.local_ports import LocalPort
from ondemand.verdict import Deny, NoAnswer, NoLocation
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

    def deny(
        self,
        name: str,
        view: HostView,
        port: LocalPort,
        sentence: str,
        found: Deny | NoAnswer | NoLocation,
        flows: list[Rule],
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.add(
            name,
            view,
            port,
            sentence,
            allowed=False,
            reason=found.reason.value,
            remarks=remarks,
            tags=found.tags,
            flows=flows,
        )

    def add(
        self,
        name: str,
        view: HostView,
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

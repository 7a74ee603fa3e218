"""The rules that traffic made on one bridge, as many as a person can read, each with its truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from controller_app.explain_hosts import ExplainError
from controller_app.explain_rule import RuleExplainer, RuleExplanation
from controller_app.explain_switch import SwitchReader, SwitchView, unreadable
from controller_app.switch_query import FlowEntry
from ondemand.goal_problems import did_you_mean
from ondemand.pipeline import ON_DEMAND, Pipeline
from rule_cache.cookie import MAGIC_MASK, MAGIC_VALUE
from rule_cache.rule import Rule

#: Rules that are asked for at once: 1/16 of a table, by the last bits of the cookie. Open vSwitch
#: forwards nothing while it makes an answer, on the userspace datapath.
PIECES: Final = 16


@dataclass(frozen=True, slots=True)
class RuleList:
    """Rules in order of table and cookie.

    Attributes:
        rules: at most as many as were asked for.
        unreadable: one sentence for each rule of ours that this version does not make.
        has_more: whether there are rules that were not looked at.
        held: rules in the tables that traffic fills, those that are always there among them.
    """

    rules: tuple[RuleExplanation, ...]
    unreadable: tuple[str, ...]
    has_more: bool
    held: int


def list_rules(
    reader: SwitchReader,
    view: SwitchView,
    explainer: RuleExplainer,
    *,
    limit: int,
    port_id: str | None = None,
) -> RuleList:
    """Up to ``limit`` rules (0: all); of one port, or of all ports and subnets.

    Raises:
        ExplainError: the switch serves no such port, or as ``RuleExplainer.explain``.
        SwitchQueryError: the switch cannot be asked.
        SourceError: the store cannot be read.
    """
    zone = None if port_id is None else _zone_of(view, port_id)
    pipeline = reader.pipeline
    held = sum(
        reader.query.count(MAGIC_VALUE, MAGIC_MASK, pipeline.number(table)) for table in ON_DEMAND
    )
    found: list[RuleExplanation] = []
    strange: list[str] = []
    has_more = False
    for entry, rule in _rules(reader):
        if rule is None:
            if zone is None:
                strange.append(unreadable(pipeline, entry))
            continue
        if not explainer.comes_and_goes(rule):
            continue
        if zone is not None and explainer.zone_of(rule) != zone:
            continue
        if limit and len(found) >= limit:
            has_more = True
            break
        found.append(explainer.explain(entry, rule))
    found.sort(key=lambda one: (one.entry.table, one.entry.cookie))
    return RuleList(tuple(found), tuple(strange), has_more, held)


def _rules(reader: SwitchReader) -> Iterator[tuple[FlowEntry, Rule | None]]:
    """The rules in the tables that traffic fills, a piece at a time."""
    pipeline: Pipeline = reader.pipeline
    for piece in range(PIECES):
        for table in ON_DEMAND:
            value, mask = MAGIC_VALUE | piece, MAGIC_MASK | (PIECES - 1)
            for entry in reader.query.flows(value, mask, pipeline.number(table)):
                yield entry, reader.read(entry)


def _zone_of(view: SwitchView, port_id: str) -> int:
    port = view.world.ports.get(port_id)
    if port is None:
        ids = sorted(view.world.ports)
        hint = did_you_mean(port_id, ids) or f"; it serves {', '.join(ids[:10]) or 'no port'}"
        raise ExplainError(f"the switch serves no port {port_id!r} of the store{hint}")
    return port.zone

"""From a rule back to the question that it answers, for rules found in the switch.

What a rule matches says what was asked, but for two things that no decision reads: the address of the
port in a verdict that holds for all connections to a service, and which port of a subnet asked for a
destination. Any will do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ondemand.flow import Flow
from ondemand.local_ports import LocalPort
from ondemand.pipeline import L4, SCTP, Pipeline
from ondemand.records import Direction
from ondemand.subjects import LocationSubject, ResolveSubject, Subject, VerdictSubject
from rule_cache.fields import Field, Value, to_bytes, to_int
from rule_cache.rule import Rule, Shape

#: A rule's values by the names of its shape's arguments.
_Values = dict[str, Value]

_OTHER: Final = {Direction.EGRESS: Direction.INGRESS, Direction.INGRESS: Direction.EGRESS}


class RuleSubjects:
    """Reads the rules of one pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._verdicts: dict[Shape, Callable[[_Values], VerdictSubject]] = {}
        self._resolutions: set[Shape] = {
            pipeline.arp_reply,
            pipeline.arp_deny,
            pipeline.nd_reply,
            pipeline.nd_deny,
        }
        self._echoes: set[Shape] = set(pipeline.gateway_echo.values())
        self._locations: set[Shape] = {
            *self._echoes,
            *pipeline.location_tunnel.values(),
            *pipeline.location_local.values(),
            *pipeline.location_deny.values(),
        }
        for (direction, family, l4, reply, _), shapes in pipeline.verdict.items():
            began = _OTHER[direction] if reply else direction
            for shape in shapes:
                self._verdicts[shape] = _verdict_reader(began, family, l4, reply=reply)
        for (direction, family), shape in pipeline.reflexive.items():
            self._verdicts[shape] = _way_back_reader(_OTHER[direction], family)

    def is_question(self, rule: Rule) -> bool:
        """Whether traffic made the rule; others stand in the same tables."""
        shape = rule.shape
        return shape in self._verdicts or shape in self._locations or shape in self._resolutions

    def zone_of(self, rule: Rule) -> int | None:
        """The zone of the port that the rule is about; None for a rule about a subnet."""
        return None if rule.shape in self._locations else to_int(rule.value_of("zone"))

    def vni_of(self, rule: Rule) -> int:
        """The subnet that a location rule is about."""
        return to_int(rule.value_of("vni"))

    def subject(self, rule: Rule, port: LocalPort) -> Subject | None:
        """The question of an on-demand rule about ``port``, or about its subnet; None when it is none
        of an on-demand rule's.
        """
        shape = rule.shape
        values = dict(zip(shape.args, rule.values, strict=True))
        read = self._verdicts.get(shape)
        if read is not None:
            return read(values)
        if shape in self._locations:
            return LocationSubject(
                port.zone,
                to_bytes(Field.ETH_DST, values["mac"]),
                _address(values["remote"]),
                echo=shape in self._echoes,
            )
        if shape in self._resolutions:
            return ResolveSubject(port.zone, _address(values["target"]))
        return None


def _verdict_reader(
    began: Direction, family: int, l4: L4, *, reply: bool
) -> Callable[[_Values], VerdictSubject]:
    def read(values: _Values) -> VerdictSubject:
        if l4 is L4.ICMP:
            first, second = to_int(values["icmp_type"]), to_int(values["icmp_code"])
        else:
            first, second = to_int(values.get("tp_src", 0)), to_int(values.get("tp_dst", 0))
        flow = Flow(
            direction=began,
            family=family,
            local=_address(values.get("local", b"")),
            remote=_address(values["remote"]),
            protocol=SCTP if l4 is L4.SCTP else to_int(values["proto"]),
            first=first,
            second=second,
            reply=reply,
            l4=l4,
        )
        return VerdictSubject(to_int(values["zone"]), flow)

    return read


def _way_back_reader(began: Direction, family: int) -> Callable[[_Values], VerdictSubject]:
    """The answers of an SCTP association have its ports the other way round."""

    def read(values: _Values) -> VerdictSubject:
        flow = Flow(
            direction=began,
            family=family,
            local=b"",
            remote=_address(values["remote"]),
            protocol=SCTP,
            first=to_int(values["tp_dst"]),
            second=to_int(values["tp_src"]),
            reply=False,
            l4=L4.SCTP,
        )
        return VerdictSubject(to_int(values["zone"]), flow)

    return read


def _address(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    raise TypeError(f"{value!r} is no address")

"""An installed rule's explanation as people read it, and as JSON with the same content."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import click

from controller_app.explain_reads import Read, port_of_tag
from controller_app.explain_rule import Kind, RuleExplanation, Truth
from controller_app.explain_store import StoreView
from controller_app.switch_query import FlowEntry

_WIDTH = 100
_HEAD = 8


def rule_text(found: RuleExplanation, view: StoreView) -> str:
    """The rule, what it does, why, whether it is true, and what would remove it."""
    lines = [str(found.rule), f"  {_statistics(found.entry)}", ""]
    lines += _paragraph("what", f"it {found.what}")
    if found.decision is not None:
        # The decision is today's; of a rule that is not true any more it says why not.
        lines += _paragraph("why" if found.is_true else "today", _why(found))
        for remark in found.decision.remarks:
            lines += _paragraph("", remark)
    lines += _paragraph("true", _truth(found))
    lines += [f"{'':{_HEAD}}{rule}" for rule in found.fresh]
    if found.truth is not Truth.SAME:
        lines += _paragraph("", _LATER[found.kind])
    if found.reads:
        lines += ["", click.style(_FOLLOWS[found.kind], bold=True)]
        for read in found.reads:
            lines += _wrapped(f"  - {_read_words(found, view, read)}")
            lines.append(f"      {read.text}")
    lines += ["", click.style("Without a change it is removed by", bold=True)]
    for phrase in found.leaves:
        lines += _wrapped(f"  - {phrase}")
    lines += [f"warning: {problem}" for problem in dict.fromkeys(view.problems)]
    return "\n".join(lines)


def rule_json(found: RuleExplanation, view: StoreView) -> dict[str, Any]:
    """All of it for a program."""
    decision = found.decision
    rule = None if decision is None else decision.rule
    return {
        **brief_json(found),
        "table": found.entry.table,
        "priority": found.entry.priority,
        "bytes": found.entry.byte_count,
        "why": None
        if decision is None
        else {
            "sentence": decision.sentence,
            "allowed": decision.is_allowed,
            "reason": decision.reason,
            "security_rule": None
            if rule is None
            else {"group": rule.group, "rule": rule.rule, "record": rule.fields},
            "remarks": list(decision.remarks),
        },
        "fresh_rules": [str(one) for one in found.fresh],
        "depends_on": [
            {
                "what": _read_words(found, view, read),
                "tag": read.tag,
                "slice": read.slice,
                "key": read.key or None,
                "needed": read.was_needed,
                "record": read.record,
            }
            for read in found.reads
        ],
        "removed_by": list(found.leaves),
        "warnings": list(dict.fromkeys(view.problems)),
    }


def brief_json(found: RuleExplanation) -> dict[str, Any]:
    """What a listing has of a rule."""
    return {
        "cookie": f"0x{found.entry.cookie:016x}",
        "rule": str(found.rule),
        "kind": found.kind.value,
        "host": found.host,
        "port": found.port,
        "subnet": found.subnet,
        "what": found.what,
        "packets": found.entry.packet_count,
        "age_s": round(found.entry.age_s, 3),
        "true": found.is_true,
        "truth": found.truth.value,
        "sentence": found.sentence,
    }


def tag_words(view: StoreView, read: Read) -> str:
    """What a tag is about, in words, with the place of its records."""
    port_id = port_of_tag(read.tag)
    if port_id is not None:
        if port_id in view.world.ports:
            return f"port {port_id} on this host: its record, its subnet, its interface"
        return f"whether port {port_id} is on this host"
    kind, _, rest = read.slice.partition("/")
    place = f"(slice {read.slice}" + (f", key {read.key})" if kind == "nbr" else ")")
    if kind == "sg":
        return f"the rules of security group {rest} {place}"
    if kind == "vpc":
        what = "address claims" if read.key == "claims" else "subnets, routers and routes"
        return f"the {what} of VPC {rest} {place}"
    vpc = rest.partition("/")[0]
    what, _, address = read.key.partition("/")
    if what == "ip":
        return f"neighbor {address} of VPC {vpc} {place}"
    subnet, _, mac = address.partition("/")
    return f"who takes packets for {mac} in subnet {subnet} of VPC {vpc} {place}"


def age_text(seconds: float) -> str:
    """An age in two figures or so: 12 s, 3 min, 5 h, 4 d."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _read_words(found: RuleExplanation, view: StoreView, read: Read) -> str:
    """As ``tag_words``; which port of a subnet asked for a location is not in the switch."""
    if found.port is None and found.subnet is not None and read == found.reads[0]:
        port_id = port_of_tag(read.tag)
        return f"the port of subnet {found.subnet} that asked, be it {port_id} or another one"
    return tag_words(view, read)


_FOLLOWS = {
    Kind.ON_DEMAND: "A change of any of these has it judged again",
    Kind.PORT: "It is made anew when this changes",
    Kind.FRAME: "",
}
_LATER = {
    Kind.ON_DEMAND: "either the agent has not applied yet what the store says, or no agent runs;"
    " one that starts here replaces or deletes it",
    Kind.PORT: "the agent that serves the port changes it; one that starts here deletes what is left",
    Kind.FRAME: "an agent that starts here deletes it",
}


def _statistics(entry: FlowEntry) -> str:
    return (
        f"cookie 0x{entry.cookie:016x}, {_count(entry.packet_count, 'packet')},"
        f" {_count(entry.byte_count, 'byte')},"
        f" installed {age_text(entry.age_s)} ago"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _why(found: RuleExplanation) -> str:
    decision = found.decision
    if decision is None:
        return ""
    reason = "" if decision.reason is None else f" ({decision.reason})"
    return decision.sentence + reason


def _truth(found: RuleExplanation) -> str:
    if found.truth is Truth.SAME:
        return f"{click.style('yes', fg='green')}: {found.sentence}"
    return f"{click.style('not any more', fg='red', bold=True)}: {found.sentence}"


def _paragraph(head: str, text: str) -> Iterator[str]:
    """A paragraph with its head in the margin."""
    lines = _wrapped(text, _WIDTH - _HEAD) or [""]
    yield f"{click.style(head, bold=True)}{' ' * (_HEAD - len(head))}{lines[0]}"
    for line in lines[1:]:
        yield f"{'':{_HEAD}}{line}"


def _wrapped(text: str, width: int = _WIDTH) -> list[str]:
    indent = len(text) - len(text.lstrip(" -"))
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )

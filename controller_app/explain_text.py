"""An explanation as people read it, and as JSON with the same content."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import click

from controller_app.explain_packet import Packet
from controller_app.explain_reads import Read
from controller_app.explain_steps import Explanation, Step
from controller_app.explain_store import HostView
from ondemand.addresses import format_ip, format_mac
from ondemand.frames import ABSENT, ETH_ARP, ETH_IPV4
from ondemand.pipeline import ICMP, ICMPV6
from ondemand.record_text import protocol_text

_WIDTH = 100


def text_of(found: Explanation) -> str:
    """Steps with what each read, the verdict, and the rules of each host; styled for a terminal."""
    lines = [_headline(found), ""]
    shown: set[tuple[str, str]] = set()
    for number, step in enumerate(found.steps, start=1):
        lines += _step_lines(number, step, shown)
    lines.append(_verdict_line(found))
    for problem in found.problems:
        lines += _wrapped("warning: ", problem, 2)
    for view in found.views:
        lines += ["", *_rule_lines(view, found)]
    return "\n".join(lines)


def json_of(found: Explanation) -> dict[str, Any]:
    """All of it for a program."""
    denial = found.denial
    return {
        "allowed": denial is None,
        "denied_by": None if denial is None else denial.name,
        "reason": None if denial is None else denial.reason,
        "port": found.port,
        "host": found.views[0].host,
        "match": found.match,
        "packet": packet_fields(found.packet),
        "steps": [_step_json(step) for step in found.steps],
        "rules": [{"host": v.host, "rules": found.flows(v.host)} for v in found.views],
        "placeholders": [_placeholders(view, found) for view in found.views],
        "warnings": list(found.problems),
    }


def packet_fields(packet: Packet) -> dict[str, str | int | bool | None]:
    """The packet by the names of ovs-fields(7)."""
    fields: dict[str, str | int | bool | None] = {
        "dl_src": format_mac(packet.eth_src),
        "dl_dst": format_mac(packet.eth_dst) if packet.eth_dst else None,
        "dl_type": f"0x{packet.eth_type:04x}",
    }
    if packet.eth_type == ETH_ARP:
        return fields | {"arp_spa": format_ip(packet.src), "arp_tpa": format_ip(packet.target)}
    source, target = ("nw_src", "nw_dst")
    if packet.eth_type != ETH_IPV4:
        source, target = ("ipv6_src", "ipv6_dst")
    fields |= {
        source: format_ip(packet.src),
        target: format_ip(packet.dst),
        "nw_proto": packet.protocol,
    }
    if packet.first != ABSENT:
        names = ("icmp_type", "icmp_code") if _is_icmp(packet) else ("tp_src", "tp_dst")
        fields |= {names[0]: packet.first, names[1]: packet.second}
    if packet.target:
        fields["nd_target"] = format_ip(packet.target)
    return fields | {"reply": packet.reply}


def _is_icmp(packet: Packet) -> bool:
    return packet.protocol in (ICMP, ICMPV6)


def _headline(found: Explanation) -> str:
    packet = found.packet
    head = f"port {found.port} on host {found.views[0].host} sends "
    if packet.target:
        protocol = "ARP" if packet.eth_type == ETH_ARP else "a neighbor solicitation"
        return f"{head}{protocol} for {format_ip(packet.target)}"
    kind = "an answer, " if packet.reply else ""
    protocol = str(protocol_text(packet.protocol))
    if protocol.isdigit():
        protocol = f"protocol {protocol}"
    source, target = format_ip(packet.src), format_ip(packet.dst)
    if packet.first == ABSENT:
        return f"{head}{kind}{protocol} {source} -> {target}"
    if _is_icmp(packet):
        return (
            f"{head}{kind}{protocol} type {packet.first} code {packet.second} {source} -> {target}"
        )
    return f"{head}{kind}{protocol} {source} port {packet.first} -> {target} port {packet.second}"


def _step_lines(number: int, step: Step, shown: set[tuple[str, str]]) -> Iterator[str]:
    """``shown``: what was read on which host, so that a record is written out once."""
    word = (
        click.style("yes", fg="green") if step.allowed else click.style("NO", fg="red", bold=True)
    )
    head = f"{number}. {click.style(step.name, bold=True)} at {step.port} on {step.host}: {word}"
    yield f"{head}{'' if step.reason is None else f' ({step.reason})'}"
    yield from _wrapped("", step.sentence, 3)
    for remark in step.remarks:
        yield from _wrapped("- ", remark, 3)
    for read in step.reads:
        if not read.was_needed:
            yield f"     {_place(read)}: {read.text}"
            continue
        again = (step.host, read.tag) in shown
        shown.add((step.host, read.tag))
        yield f"     read {_place(read)}: {'as above' if again else read.text}"
    yield ""


def _place(read: Read) -> str:
    return f"{read.slice} {read.key}" if read.key else read.slice


def _wrapped(head: str, text: str, indent: int) -> list[str]:
    """Wrapped for reading; a rule stays in one piece, so that it can be copied."""
    pad = " " * indent
    if "actions=" in text:
        return [pad + head + text]
    return textwrap.wrap(
        head + text,
        _WIDTH,
        initial_indent=pad,
        subsequent_indent=pad + " " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _verdict_line(found: Explanation) -> str:
    denial = found.denial
    if denial is None:
        return click.style("ALLOWED", fg="green", bold=True)
    return (
        click.style("DENIED", fg="red", bold=True)
        + f" by {denial.name} at {denial.port} on {denial.host}: {denial.reason}"
    )


def _rule_lines(view: HostView, found: Explanation) -> Iterator[str]:
    flows = found.flows(view.host)
    ports = ", ".join(
        f"{name} is zone {numbers['zone']}, port {numbers['ofport']}"
        for name, numbers in _placeholders(view, found)["ports"].items()
    )
    if not flows:
        yield f"The agent on {view.host} installs no rule for it."
        return
    yield click.style(f"Rules that the agent on {view.host} installs", bold=True)
    yield from _wrapped(
        "",
        f"(numbers stand for those of the running switch: {ports}, tunnel {view.tunnel_port})",
        2,
    )
    for flow in flows:
        yield f"  {flow}"


def _step_json(step: Step) -> dict[str, Any]:
    rule = step.rule
    return {
        "step": step.name,
        "host": step.host,
        "port": step.port,
        "allowed": step.allowed,
        "reason": step.reason,
        "sentence": step.sentence,
        "security_rule": None
        if rule is None
        else {"group": rule.group, "rule": rule.rule, "record": rule.fields},
        "remarks": list(step.remarks),
        "reads": [
            {
                "tag": read.tag,
                "slice": read.slice,
                "key": read.key or None,
                "needed": read.was_needed,
                "record": read.record,
            }
            for read in step.reads
        ],
        "rules": list(step.flows),
    }


def _placeholders(view: HostView, found: Explanation) -> dict[str, Any]:
    """The numbers in a host's rules that stand for those of its running switch."""
    tunnel_ip = view.world.tunnel_ip
    passed = dict.fromkeys(step.port for step in found.steps if step.host == view.host)
    ports = [view.world.ports[name] for name in passed if name in view.world.ports]
    return {
        "host": view.host,
        "tunnel_ip": format_ip(tunnel_ip) if tunnel_ip else None,
        "tunnel_port": view.tunnel_port,
        "ports": {p.record.id: {"zone": p.zone, "ofport": p.ofport} for p in ports},
    }

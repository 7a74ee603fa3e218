"""What a decision read, from its tags: slice, key and the record, or its absence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controller_app.explain_store import StoreView
from ondemand.addresses import AddressError, Prefix, format_ip, parse_ip, parse_mac
from ondemand.flow import Flow
from ondemand.local_ports import LocalPort, port_tag
from ondemand.pipeline import L4
from ondemand.policy import Policy, RuleRef
from ondemand.record_text import Plain, fields_line, record_fields
from ondemand.records import Claim, Group, Record, Route, Router, SecurityRule, port_key
from ondemand.slice_cache import Held
from ondemand.slices import group_slice, vpc_slice

#: Remotes that are listed when none of them is the one asked about.
SHOWN_REMOTES: Final = 10


@dataclass(frozen=True, slots=True)
class Read:
    """One thing that a decision read.

    ``key`` is "" for a slice that is read as a whole. ``record`` None: it was looked up and is absent.
    """

    tag: str
    slice: str
    key: str
    record: dict[str, Plain] | None

    @property
    def text(self) -> str:
        return "absent" if self.record is None else fields_line(self.record)


@dataclass(frozen=True, slots=True)
class DecidingRule:
    """The security rule that allowed something; ``fields`` as in a goal state."""

    group: str
    rule: str
    fields: dict[str, Plain]

    @property
    def text(self) -> str:
        return f"{self.group}/{self.rule} ({fields_line(self.fields)})"


def reads_of(view: StoreView, tags: tuple[str, ...]) -> tuple[Read, ...]:
    """Each tag once, in the order of reading."""
    return tuple(_read(view, tag) for tag in dict.fromkeys(tags))


def deciding_rule(view: StoreView, ref: RuleRef) -> DecidingRule:
    records = view.world.cache.whole(group_slice(ref.group)) or {}
    record = records.get("rule/" + ref.rule)
    return DecidingRule(ref.group, ref.rule, {} if record is None else record_fields(record))


def port_of_tag(tag: str) -> str | None:
    """The port that a tag is about, if it is about one."""
    return tag.removeprefix(port_tag("")) if tag.startswith(port_tag("")) else None


def _read(view: StoreView, tag: str) -> Read:
    port_id = port_of_tag(tag)
    if port_id is not None:
        local = view.world.ports.get(port_id)
        if local is None:
            return Read(tag, view.bound.host_slice, port_key(port_id), None)
        name = view.slice_of_port(port_id)
        return Read(tag, name, port_key(port_id), record_fields(local.record))
    name, _, key = tag.partition(" ")
    kind, _, rest = name.partition("/")
    if kind == "sg":
        return Read(tag, name, "", _group(view, name))
    if kind == "vpc":
        return Read(tag, name, key, _vpc(view, name, key))
    held = _held(view, rest.partition("/")[0], key)
    record: Record | None = None if held is None else held.record
    return Read(tag, name, key, None if record is None else record_fields(record))


def _held(view: StoreView, vpc: str, key: str) -> Held | None:
    cache = view.world.cache
    what, _, rest = key.partition("/")
    try:
        if what == "ip":
            return cache.neighbor(vpc, parse_ip(rest))
        subnet, _, mac = rest.partition("/")
        return cache.mac_pointer(vpc, subnet, parse_mac(mac))
    except AddressError:
        return None


def _group(view: StoreView, name: str) -> dict[str, Plain] | None:
    records = view.world.cache.whole(name) or {}
    group = records.get("group")
    if not isinstance(group, Group):
        return None
    rules = sum(isinstance(record, SecurityRule) for record in records.values())
    return record_fields(group) | {"rules": rules}


def _vpc(view: StoreView, name: str, key: str) -> dict[str, Plain] | None:
    records = (view.world.cache.whole(name) or {}).values()
    topology = view.world.topology(name.removeprefix(vpc_slice("")))
    if topology is None or not records:
        return None
    if key == "claims":
        claims = [record for record in records if isinstance(record, Claim)]
        return {
            "type": "Claims",
            "count": len(claims),
            "claims": [f"{claim.prefix}@{claim.port}" for claim in claims[:SHOWN_REMOTES]],
        }
    return {
        "type": "Topology",
        "subnets": list(topology.subnets),
        "routers": [record.id for record in records if isinstance(record, Router)],
        "routes": sum(isinstance(record, Route) for record in records),
    }


def who_is_allowed(policy: Policy, port: LocalPort, flow: Flow) -> str:
    """Why no rule allows a flow: whom the rules of the port would let through in its place."""
    direction, family = flow.direction.name.lower(), flow.family
    groups = ", ".join(port.record.groups)
    if not groups:
        return "the port is in no security group, and so nothing is allowed"
    # As ``judge`` asks: the destination port, or ICMP type and code.
    first, second = (flow.first, flow.second) if flow.l4 is L4.ICMP else (flow.second, 0)
    cell = policy.cell(flow.direction, family, flow.protocol, first, second)
    allowed = [f"members of {group} ({ref})" for group, ref in cell.groups.items()]
    size = 4 if family == 4 else 16
    for shift, row in cell.prefixes:
        for number, ref in row.items():
            network = (number << shift).to_bytes(size, "big")
            allowed.append(f"{Prefix(network, size * 8 - shift)} ({ref})")
    if not allowed:
        return f"no {direction} IPv{family} rule of {groups} is about this protocol and port"
    more = f" and {len(allowed) - SHOWN_REMOTES} more" if len(allowed) > SHOWN_REMOTES else ""
    return (
        f"the {direction} IPv{family} rules of {groups} for this protocol and port are for "
        f"{', '.join(allowed[:SHOWN_REMOTES])}{more}; {format_ip(flow.remote)} is none of them"
    )

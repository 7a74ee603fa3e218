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
from ondemand.records import Claim, Group, Route, Router, SecurityRule, port_key
from ondemand.slice_cache import Held
from ondemand.slices import group_slice, vpc_slice

#: Why a read has no record: the store was asked and has none; a decision was made without asking, as
#: when one of the port's other groups allows the flow; the port is not here, be it elsewhere or nowhere.
ABSENT: Final = "absent"
NOT_NEEDED: Final = "not needed, so not read"
NOT_HERE: Final = "absent (not a port of this host)"
NOT_PLUGGED: Final = "not plugged on this host"

#: Remotes that are listed when none of them is the one asked about.
SHOWN_REMOTES: Final = 10


@dataclass(frozen=True, slots=True)
class Read:
    """One thing that a decision rests on.

    ``key`` is "" for a slice that is read as a whole. ``record`` None: there is none to show, and
    ``missing`` says why. It is absent from the store only when that is ``ABSENT``.
    """

    tag: str
    slice: str
    key: str
    record: dict[str, Plain] | None
    missing: str = ABSENT

    @property
    def text(self) -> str:
        return self.missing if self.record is None else fields_line(self.record)

    @property
    def was_needed(self) -> bool:
        """Whether the decision asked the store for it."""
        return self.missing != NOT_NEEDED


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
        name = view.slice_of_port(port_id)
        if local is None:
            is_bound = view.bound.find(port_id) is not None
            missing = NOT_PLUGGED if is_bound else NOT_HERE
            return Read(tag, name, port_key(port_id), None, missing)
        return Read(tag, name, port_key(port_id), record_fields(local.record))
    name, _, key = tag.partition(" ")
    kind, _, rest = name.partition("/")
    if kind in ("sg", "vpc"):
        if view.world.cache.whole(name) is None:
            return Read(tag, name, key, None, NOT_NEEDED)
        return Read(tag, name, key, _group(view, name) if kind == "sg" else _vpc(view, name, key))
    held = _held(view, rest.partition("/")[0], key)
    if held is None:
        return Read(tag, name, key, None, NOT_NEEDED)
    return Read(tag, name, key, None if held.record is None else record_fields(held.record))


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

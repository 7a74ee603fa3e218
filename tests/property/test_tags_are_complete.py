"""Whatever changes a decision is named by the decision's tags, absences included.

Two random clouds have the same ports, subnets and groups with different contents. A world goes from one
to the other, record by record, and each decision that comes out differently must have carried a tag
that the changed record makes invalid. Without that, a rule would outlive its truth.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from ondemand.addresses import parse_ip
from ondemand.codec import decode_record
from ondemand.holder import claims_tag, topology_tag
from ondemand.local_ports import port_tag
from ondemand.records import Claim, Port
from ondemand.slice_cache import record_tag
from ondemand.slices import host_slice
from ondemand.verdict import (
    Allow,
    Answer,
    Deny,
    GatewayEcho,
    Local,
    NoAnswer,
    NoLocation,
    Tunnel,
)
from rule_cache.tags import Tag
from tests.support.cloud_strategies import ADDRESSES, Asked, clouds, questions
from tests.support.world_builder import HERE, CloudBuilder, SmallWorld

Decision = Allow | Deny | Tunnel | Local | GatewayEcho | NoLocation | Answer | NoAnswer
Question = tuple[str, Callable[[], Decision]]


def _without_tags(decision: Decision) -> Decision:
    return msgspec.structs.replace(decision, tags=())


def _questions(small: SmallWorld, cloud: CloudBuilder, asked: list[Asked]) -> list[Question]:
    found: list[Question] = []
    addresses = [parse_ip(text) for text in ADDRESSES[:20]]
    for port in small.world.ports.values():
        name = port.record.id
        macs = {port.subnet.gateway_mac or b"\x06" * 6, cloud.mac("p0"), cloud.mac("p3")}
        found += [(name, partial(small.judge, name, question.flow)) for question in asked]
        found += [(name, partial(small.resolve, name, ip)) for ip in addresses]
        found += [(name, partial(small.locate, name, mac, ip)) for mac in macs for ip in addresses]
    return found


def _change(small: SmallWorld, name: str, key: str, payload: bytes | None) -> set[Tag]:
    """Apply one change as the engine does; the tags that it makes invalid."""
    old = small.store.records(name).get(key)
    small.changed(name, small.cache.apply(small.store.write(name, {key: payload})))
    kind, _, owner = name.partition("/")
    if kind == "host":
        return _settle_ports(small) if name == host_slice(HERE) else set()
    if kind == "sg":
        return {name}
    if kind == "nbr":
        return {record_tag(name, key)}
    some = old if payload is None else payload
    if some is not None and isinstance(decode_record(name, key, some), Claim):
        return {claims_tag(owner)}
    return {topology_tag(owner)} | _settle_ports(small)


def _settle_ports(small: SmallWorld) -> set[Tag]:
    """Make the active ports what their records and subnets say now; the tags of those that differ."""
    different: set[Tag] = set()
    records = small.cache.whole(host_slice(HERE)) or {}
    for name, port in list(small.world.ports.items()):
        record = records.get("port/" + name)
        topology = small.world.topology(port.vpc)
        subnet = None
        if isinstance(record, Port) and topology is not None:
            subnet = topology.subnets.get(record.subnet)
        if not isinstance(record, Port) or subnet is None:
            small.world.remove_port(port)
            different.add(port_tag(name))
        elif (port.record, port.subnet) != (record, subnet):
            port.record, port.subnet = record, subnet
            different.add(port.tag)
    return different


@settings(max_examples=60)
@given(clouds(), clouds(), st.lists(questions, min_size=5, max_size=10), st.randoms())
def test_what_changes_a_decision_is_among_its_tags(
    before: CloudBuilder, after: CloudBuilder, asked: list[Asked], random: Random
) -> None:
    small = before.world()
    target = after.store()
    places = [
        (name, key)
        for name in sorted({*small.store.names, *target.names})
        for key in sorted({*small.store.records(name), *target.records(name)})
    ]
    for name, key in random.sample(places, min(len(places), 12)):
        payload = target.records(name).get(key)
        if payload == small.store.records(name).get(key):
            payload = None  # what both have goes, which may be a subnet or a router
        decisions = [(port, ask, ask()) for port, ask in _questions(small, before, asked)]
        invalid = _change(small, name, key, payload)
        for port, ask, decision in decisions:
            if port_tag(port) in invalid or port not in small.world.ports:
                continue
            if invalid.isdisjoint(decision.tags):
                assert _without_tags(ask()) == _without_tags(decision), (name, key, decision)
    # And where it got to is where a host that starts now would be.
    fresh = before.world(store=small.store, plugged=[*small.world.ports])
    for (_, ask), (_, ask_afresh) in zip(
        _questions(small, before, asked), _questions(fresh, before, asked), strict=True
    ):
        assert ask() == ask_afresh()

"""Any sound record survives the codec, and no bytes get through it that a sound writer did not mean."""

from __future__ import annotations

import msgpack
from hypothesis import example, given
from hypothesis import strategies as st

from ondemand.addresses import Prefix
from ondemand.codec import RecordError, decode_record, encode_record
from ondemand.records import (
    ANY,
    AddressPair,
    Claim,
    Direction,
    Group,
    HostGroup,
    MacPointer,
    Neighbor,
    Port,
    Route,
    Router,
    SecurityRule,
    Subnet,
)

ids = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}\Z")
macs = st.binary(min_size=6, max_size=6).map(lambda b: bytes((b[0] & 0xFE | 2,)) + b[1:])
ips = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
id_tuples = st.lists(ids, max_size=4).map(tuple)


@st.composite
def prefixes(draw, size=None):
    ip = draw(st.binary(min_size=size, max_size=size) if size else ips)
    bits = len(ip) * 8
    length = draw(st.integers(0, bits))
    network = int.from_bytes(ip) >> (bits - length) << (bits - length)
    return Prefix(network.to_bytes(len(ip)), length)


@st.composite
def routes(draw):
    prefix = draw(prefixes())
    size = len(prefix.network)
    return Route(draw(ids), prefix, draw(st.binary(min_size=size, max_size=size)))


@st.composite
def subnets(draw):
    sizes = draw(st.sampled_from([(4,), (16,), (4, 16), (16, 4)]))
    found = tuple(draw(prefixes(size)) for size in sizes)
    return Subnet(
        draw(ids),
        draw(st.integers(1, (1 << 24) - 1)),
        found,
        tuple(prefix.network for prefix in found),
        draw(macs),
    )


@st.composite
def rules(draw):
    family = draw(st.sampled_from([4, 6]))
    protocol = draw(st.integers(-1, 255))
    low = high = ANY
    if protocol in (6, 17, 132) and draw(st.booleans()):
        low, high = sorted(draw(st.tuples(st.integers(0, 65535), st.integers(0, 65535))))
    elif protocol in (1, 58):
        low = draw(st.integers(-1, 255))
        high = draw(st.integers(-1, 255)) if low != ANY else ANY
    remote = draw(st.sampled_from(["nobody", "prefix", "group"]))
    return SecurityRule(
        draw(ids),
        draw(st.sampled_from(Direction)),
        family,
        protocol,
        low,
        high,
        draw(prefixes(4 if family == 4 else 16)) if remote == "prefix" else None,
        draw(ids) if remote == "group" else None,
    )


placed_records = st.one_of(
    st.tuples(
        st.just("host/h"),
        st.builds(
            Port,
            id=ids,
            mac=macs,
            vpc=ids,
            subnet=ids,
            fixed_ips=st.lists(ips, max_size=3).map(tuple),
            groups=id_tuples,
            pairs=st.lists(st.builds(AddressPair, prefixes(), macs), max_size=3).map(tuple),
            port_security=st.booleans(),
        ),
    ),
    st.tuples(st.just("host/h"), st.builds(HostGroup, ids, st.just(b"") | ips)),
    st.tuples(st.just("nbr/v/x"), st.builds(Neighbor, ips, macs, ids, ids, ips, id_tuples)),
    st.tuples(st.just("nbr/v/x"), st.builds(MacPointer, macs, ids, ids, ips)),
    st.tuples(st.just("vpc/v"), subnets()),
    st.tuples(st.just("vpc/v"), st.builds(Router, ids, id_tuples)),
    st.tuples(st.just("vpc/v"), routes()),
    st.tuples(st.just("vpc/v"), st.builds(Claim, prefixes(), macs, ids, ids, ips, id_tuples)),
    st.tuples(st.just("sg/g"), st.builds(Group, ids, st.text(max_size=20))),
    st.tuples(st.just("sg/g"), rules()),
)


@given(placed_records)
def test_any_sound_record_comes_back_as_it_went(placed):
    slice_name, record = placed
    assert decode_record(slice_name, record.key, encode_record(record)) == record


SLICES = st.sampled_from(["host/h", "vpc/v", "sg/g", "nbr/v/x"])


@given(SLICES, st.binary(max_size=200))
@example("sg/g", b"\x94\xa4rule\xa1r\x00\x04")
def test_random_bytes_only_ever_give_a_record_error(slice_name, payload):
    refuse_or_agree(slice_name, payload)


@given(placed_records, st.data())
def test_a_record_with_some_bytes_changed_is_refused_or_still_sound(placed, data):
    slice_name, record = placed
    payload = bytearray(encode_record(record))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    refuse_or_agree(slice_name, bytes(payload), record.key)


items = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.binary() | st.text() | ids,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=8,
)
tags = st.sampled_from(
    ["hostgroup", "port", "nbr", "mac", "subnet", "router", "route", "claim", "group", "rule"]
)


@given(SLICES, tags, st.lists(items, max_size=9))
def test_arrays_of_the_right_type_with_random_items(slice_name, tag, values):
    refuse_or_agree(slice_name, msgpack.packb([tag, *values]))


def refuse_or_agree(slice_name: str, payload: bytes, key: str = "group") -> None:
    """What is let in is what a sound writer could have written."""
    try:
        record = decode_record(slice_name, key, payload)
    except RecordError:
        return
    assert decode_record(slice_name, key, encode_record(record)) == record

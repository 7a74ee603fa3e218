"""No bytes make the parser raise anything but Malformed, and what was built is what is parsed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ondemand.addresses import (
    AddressError,
    Prefix,
    format_ip,
    format_mac,
    parse_ip,
    parse_mac,
    parse_prefix,
)
from ondemand.frames import ABSENT, Arp, Fragment, Frame, Kind, Malformed, NeighborDiscovery, parse
from tests.support.frame_builder import (
    build_arp,
    build_icmp4,
    build_icmp6,
    build_ipv4_raw,
    build_ipv6_raw,
    build_na,
    build_ns,
    build_sctp4,
    build_sctp6,
    build_tcp4,
    build_tcp6,
    build_udp4,
    build_udp6,
    padded,
)
from tests.support.frame_samples import SAMPLES
from tests.support.packet_parts import (
    Extension,
    authentication_header,
    destination_options,
    fragment_header,
    hop_by_hop,
    routing_header,
    udp_datagram,
)

macs = st.binary(min_size=6, max_size=6)
ip4s = st.binary(min_size=4, max_size=4)
ip6s = st.binary(min_size=16, max_size=16)
unicast6s = ip6s.filter(lambda ip: ip[0] != 0xFF and any(ip))
ports = st.integers(0, 65535)
octets = st.integers(0, 255)
vlans = st.none() | st.integers(0, 4095)
payloads = st.binary(max_size=40)
samples = st.sampled_from([data for data, _ in SAMPLES.values() if len(data) < 4096])
middles = st.sampled_from(
    [destination_options(), destination_options(24), routing_header(), authentication_header()]
)


@st.composite
def extension_chains(draw: st.DrawFn) -> list[Extension]:
    """Up to 8 headers in a lawful order, perhaps with an atomic fragment header among them."""
    chain = draw(st.lists(middles, max_size=6))
    if draw(st.booleans()):
        chain.insert(draw(st.integers(0, len(chain))), fragment_header())
    return [hop_by_hop(), *chain] if draw(st.booleans()) else chain


@st.composite
def mutated_frames(draw: st.DrawFn) -> bytes:
    """A good frame with a few bytes changed, and perhaps cut or continued."""
    data = bytearray(draw(samples))
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(octets)
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data) + draw(
        st.binary(max_size=8)
    )


def assert_sound(data: bytes) -> None:
    """Malformed, or a Frame whose fields are in range and come from ``data``."""
    try:
        frame = parse(data)
    except Malformed:
        return
    assert frame.eth_dst + frame.eth_src == data[:12]
    assert -1 <= frame.vlan <= 4095
    assert 0x0600 <= frame.eth_type <= 0xFFFF
    address_bytes = {Kind.OTHER: 0, Kind.ARP: 4, Kind.IPV4: 4, Kind.IPV6: 16}[frame.kind]
    assert len(frame.src) == len(frame.dst) == address_bytes
    assert frame.src in data
    assert frame.dst in data
    if frame.fragment is Fragment.LATER:
        assert (frame.tp_src, frame.tp_dst) == (ABSENT, ABSENT)
    assert (frame.tp_src == ABSENT) == (frame.tp_dst == ABSENT)
    assert -1 <= frame.tp_src <= 65535
    assert -1 <= frame.tp_dst <= 65535
    assert (frame.ttl == ABSENT) == (frame.kind in (Kind.OTHER, Kind.ARP))
    if isinstance(frame.detail, NeighborDiscovery):
        assert (frame.proto, frame.ttl, len(frame.detail.target)) == (58, 255, 16)
    else:
        assert isinstance(frame.detail, Arp) == (frame.kind is Kind.ARP)


@given(st.binary(max_size=200))
def test_random_bytes(data):
    assert_sound(data)


@given(macs, macs, st.sampled_from([0x0800, 0x0806, 0x86DD, 0x8100]), st.binary(max_size=120))
def test_random_bytes_behind_a_known_ethertype(eth_dst, eth_src, eth_type, rest):
    assert_sound(eth_dst + eth_src + eth_type.to_bytes(2, "big") + rest)


@given(octets, st.binary(max_size=120), vlans)
def test_random_bytes_in_ip(proto, payload, vlan):
    assert_sound(build_ipv4_raw(proto, payload, vlan=vlan))
    assert_sound(build_ipv6_raw(proto, payload, vlan=vlan))


@given(st.sampled_from([133, 134, 135, 136, 137]), st.binary(max_size=80))
def test_random_neighbor_discovery(icmp_type, body):
    assert_sound(build_icmp6(icmp_type=icmp_type, body=body, ttl=255))


@given(mutated_frames())
def test_mutated_frames(data):
    assert_sound(data)


@given(samples, st.data())
def test_a_cut_frame_never_parses(data, draw):
    with pytest.raises(Malformed):
        parse(data[: draw.draw(st.integers(0, len(data) - 1))])


@pytest.mark.parametrize(
    ("build", "proto"),
    [(build_tcp4, 6), (build_udp4, 17), (build_sctp4, 132), (build_icmp4, 1)],
)
@given(data=st.data())
def test_ipv4_round_trip(build, proto, data):
    check_round_trip(build, proto, Kind.IPV4, data)


@pytest.mark.parametrize(
    ("build", "proto"),
    [(build_tcp6, 6), (build_udp6, 17), (build_sctp6, 132), (build_icmp6, 58)],
)
@given(data=st.data())
def test_ipv6_round_trip(build, proto, data):
    check_round_trip(build, proto, Kind.IPV6, data)


def check_round_trip(build, proto, kind, data):
    eth_type, addresses = (0x0800, ip4s) if kind is Kind.IPV4 else (0x86DD, ip6s)
    eth_dst, eth_src, vlan = data.draw(macs), data.draw(macs), data.draw(vlans)
    src, dst, ttl = data.draw(addresses), data.draw(addresses), data.draw(octets)
    if proto in (1, 58):
        # Neighbor discovery has rules of its own, and its own round trip below.
        tp_src = data.draw(octets.filter(lambda number: proto == 1 or not 133 <= number <= 137))
        tp_dst = data.draw(octets)
        l4 = {"icmp_type": tp_src, "icmp_code": tp_dst, "body": bytes(4) + data.draw(payloads)}
    else:
        tp_src, tp_dst = data.draw(ports), data.draw(ports)
        l4 = {"tp_src": tp_src, "tp_dst": tp_dst}
        l4["chunks" if proto == 132 else "payload"] = data.draw(payloads)
    if kind is Kind.IPV6 and proto != 132:
        l4["extensions"] = data.draw(extension_chains())
    if proto == 6:
        l4 |= {"flags": data.draw(octets), "options": data.draw(payloads)}
    built = build(src=src, dst=dst, ttl=ttl, eth_src=eth_src, eth_dst=eth_dst, vlan=vlan, **l4)
    tag = ABSENT if vlan is None else vlan
    expected = Frame(
        kind, eth_dst, eth_src, tag, eth_type, src, dst, proto, tp_src, tp_dst, ttl=ttl
    )
    assert parse(built) == expected
    assert parse(padded(built)) == expected


@given(
    opcode=st.integers(0, 65535),
    sha=macs,
    spa=ip4s,
    tha=macs,
    tpa=ip4s,
    eth_src=macs,
    eth_dst=macs,
    vlan=vlans,
)
def test_arp_round_trip(*, opcode, sha, spa, tha, tpa, eth_src, eth_dst, vlan):
    built = build_arp(
        opcode=opcode,
        sha=sha,
        spa=spa,
        tha=tha,
        tpa=tpa,
        eth_src=eth_src,
        eth_dst=eth_dst,
        vlan=vlan,
    )
    tag = ABSENT if vlan is None else vlan
    assert parse(padded(built)) == Frame(
        Kind.ARP, eth_dst, eth_src, tag, 0x0806, spa, tpa, opcode, detail=Arp(sha, tha)
    )


@given(unicast6s, unicast6s, st.none() | macs, vlans)
def test_neighbor_solicitation_round_trip(target, src, link_layer, vlan):
    frame = parse(build_ns(target=target, src=src, link_layer=link_layer, vlan=vlan))
    assert frame.detail == NeighborDiscovery(target, link_layer)
    assert (frame.src, frame.dst[-3:], frame.tp_src) == (src, target[-3:], 135)


@given(
    target=unicast6s,
    dst=unicast6s,
    link_layer=st.none() | macs,
    vlan=vlans,
    solicited=st.booleans(),
    override=st.booleans(),
)
def test_neighbor_advertisement_round_trip(*, target, dst, link_layer, vlan, solicited, override):
    frame = parse(
        build_na(
            target=target,
            dst=dst,
            link_layer=link_layer,
            vlan=vlan,
            solicited=solicited,
            override=override,
        )
    )
    assert frame.detail == NeighborDiscovery(target, link_layer)
    assert (frame.src, frame.dst, frame.tp_src) == (target, dst, 136)


@given(st.binary(min_size=8, max_size=600), st.integers(1, 20), st.booleans())
def test_a_fragmented_datagram(payload, units, in_ipv6):
    """Cut into pieces of ``units`` * 8 bytes: one FIRST with the ports, the others LATER."""
    family = ("fd00::1", "fd00::2") if in_ipv6 else ("10.0.0.1", "10.0.0.2")
    datagram = udp_datagram(*family, 1234, 4321, payload=payload)
    size = units * 8
    if size >= len(datagram):
        return
    for offset in range(0, len(datagram), size):
        piece = datagram[offset : offset + size]
        more = offset + size < len(datagram)
        if in_ipv6:
            header = fragment_header(offset=offset, more_fragments=more)
            frame = parse(build_ipv6_raw(17, piece, extensions=[header]))
        else:
            frame = parse(build_ipv4_raw(17, piece, fragment_offset=offset, more_fragments=more))
        expected = (Fragment.LATER, ABSENT, ABSENT) if offset else (Fragment.FIRST, 1234, 4321)
        assert (frame.fragment, frame.tp_src, frame.tp_dst) == expected
        assert frame.proto == 17


@given(ip4s | ip6s)
@example(bytes(10) + b"\xff\xff\x01\x02\x03\x04")
def test_ip_text_round_trip(ip):
    assert parse_ip(format_ip(ip)) == ip


@given(macs)
def test_mac_text_round_trip(mac):
    assert parse_mac(format_mac(mac)) == mac
    assert parse_mac(format_mac(mac).upper().replace(":", "-")) == mac


@given(ip4s | ip6s, ip4s | ip6s, st.data())
def test_prefix_against_its_bits(ip, other, data):
    bits = len(ip) * 8
    length = data.draw(st.integers(0, bits))

    def head(address: bytes) -> str:
        return "".join(f"{octet:08b}" for octet in address)[:length]

    network = int(head(ip).ljust(bits, "0"), 2).to_bytes(len(ip), "big")
    prefix = parse_prefix(f"{format_ip(network)}/{length}")
    assert prefix == Prefix(network, length)
    assert prefix.contains(ip)
    assert prefix.contains(other) == (len(other) == len(ip) and head(other) == head(ip))
    if network != ip:
        with pytest.raises(AddressError):
            parse_prefix(f"{format_ip(ip)}/{length}")


@given(st.text(max_size=40) | st.text("0123456789abcdef:./%-", max_size=40))
def test_no_text_raises_anything_but_address_error(text):
    for parse_text, kinds in ((parse_mac, bytes), (parse_ip, bytes), (parse_prefix, Prefix)):
        with contextlib.suppress(AddressError):
            assert isinstance(parse_text(text), kinds)

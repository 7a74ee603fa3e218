"""Whatever the bytes: the decoder answers with a packet-in or with MalformedMessage, and one that has
learned answers as one that has not."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from controller_app.decode import (
    MalformedMessage,
    PacketInDecoder,
    decode_error,
    decode_flow_removed,
    failed_cookie,
    split,
)
from tests.support.packet_in_bytes import OXMS, match_of, os_ken_match, oxm, packet_in

#: Headers that Open vSwitch may send besides those that are read: ct_zone, eth_type, tun_id, tun_src.
OTHERS = ((0x0001D4, 2), (0x80000A, 2), (0x80004C, 8), (0x00013E, 4))


def outcome(decoder, buf):
    try:
        packet = decoder.decode(buf, 0, len(buf))
    except MalformedMessage as error:
        return str(error)
    return {name: getattr(packet, name) for name in type(packet).__slots__}


@st.composite
def ordinary_packet_ins(draw):
    """Known fields and others, each at most once, in any order, with in_port among them."""
    family = draw(st.sampled_from(["", "_v6"]))
    names = [n for n in OXMS if not n.startswith(("ct_src", "ct_dst"))]
    names += [f"ct_src{family}", f"ct_dst{family}"]
    chosen = draw(st.lists(st.sampled_from(names), unique=True).map(lambda c: [*c, "in_port"]))
    parts = {}
    for name in chosen:
        value = draw(st.binary(min_size=OXMS[name][1], max_size=OXMS[name][1]))
        parts[name] = (
            value if name.startswith(("ct_src", "ct_dst")) else int.from_bytes(value, "big")
        )
    pieces = [os_ken_match([oxm(name, value)]) for name, value in parts.items()]
    oxms = [piece[4 : int.from_bytes(piece[2:4], "big")] for piece in pieces]
    for head, width in draw(st.lists(st.sampled_from(OTHERS), unique=True)):
        oxms.append(
            struct.pack(">I", head << 8 | width) + draw(st.binary(min_size=width, max_size=width))
        )
    order = draw(st.permutations(oxms))
    data = draw(st.binary(max_size=80))
    return packet_in(match_of(b"".join(order)), data), parts, data


@given(st.lists(ordinary_packet_ins(), min_size=1, max_size=12))
def test_every_field_is_found_wherever_it_stands(samples):
    decoder = PacketInDecoder()
    for buf, parts, data in samples * 2:
        packet = decoder.decode(buf, 0, len(buf))
        for name, value in parts.items():
            assert getattr(packet, name.removesuffix("_v6")) == value
        absent = {name for name in OXMS if name not in parts and f"{name}_v6" not in parts}
        for name in absent - {"ct_src_v6", "ct_dst_v6"}:
            assert not getattr(packet, name)
        assert packet.data == data


@given(
    st.lists(ordinary_packet_ins(), min_size=1, max_size=6),
    st.integers(0),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_what_a_decoder_has_learned_never_changes_its_answer(samples, which, changes):
    """Headers of known lists, damaged in some bytes, are the nearest to a plan applied wrongly."""
    learned = PacketInDecoder()
    for buf, _, _ in samples:
        learned.decode(buf, 0, len(buf))
    damaged = bytearray(samples[which % len(samples)][0])
    for at, value in changes:
        damaged[24 + at % (len(damaged) - 24)] = value
    damaged = bytes(damaged)
    assert outcome(learned, damaged) == outcome(PacketInDecoder(), damaged)


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_raise_nothing_else(noise, as_oxms):
    buf = packet_in(match_of(noise), b"frame") if as_oxms else noise
    outcome(PacketInDecoder(), buf)
    for decode in (decode_flow_removed, decode_error):
        try:
            decode(buf, 0, len(buf))
        except MalformedMessage:
            continue
    failed_cookie(buf)


@given(st.lists(st.binary(max_size=60), max_size=8), st.binary(max_size=30), st.data())
def test_messages_are_cut_the_same_in_whatever_pieces_they_come(bodies, noise, data):
    stream = b"".join(struct.pack(">BBHI", 4, 10, 8 + len(body), 0) + body for body in bodies)
    stream += noise
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))

    def messages(pieces):
        rest, found = b"", []
        for piece in pieces:
            buf, end = rest + piece, 0
            try:
                for _, start, end in split(buf):
                    found.append(buf[start:end])
            except MalformedMessage:
                return found, "malformed"
            rest = buf[end:]
        return found, rest

    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert messages(pieces) == messages([stream])
    assert messages([stream])[0][: len(bodies)] == [
        struct.pack(">BBHI", 4, 10, 8 + len(body), 0) + body for body in bodies
    ]

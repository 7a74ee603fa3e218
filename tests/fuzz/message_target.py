"""OpenFlow bytes from the switch: ``decode`` and the splitting of a stream, nothing but MalformedMessage."""

from __future__ import annotations

import struct

from controller_app.decode import (
    ERROR_HEAD,
    FLOW_REMOVED_HEAD,
    PACKET_IN_HEAD,
    MalformedMessage,
    PacketInDecoder,
    decode_error,
    decode_flow_removed,
    failed_cookie,
    flow_removed_cookie,
    packet_in_cookie,
    split,
)
from ondemand.messages import PacketIn
from tests.fuzz.kept import Kept, load
from tests.fuzz.mutate import WORDS, Mutator
from tests.fuzz.target import without_values
from tests.support.frame_builder import build_tcp4, build_tcp6
from tests.support.packet_in_bytes import OXMS, match_of, message, os_ken_match, oxm, packet_in

_REGISTERS = ["in_port", "vni", "source_zone", "target_zone"]
_CT = ["ct_state", "ct_mark", "ct_proto", "ct_tp_src", "ct_tp_dst"]
#: tun_id, ct_zone and eth_type, which the switch sends and nobody reads; an experimenter's field.
_OTHERS = (
    bytes.fromhex("80004c080000000000000065"),
    bytes.fromhex("0001d4020001"),
    bytes.fromhex("80000a020800"),
    bytes.fromhex("ffff0208000023200001ffff"),
)


def good_messages() -> list[bytes]:
    found = []
    for names in (
        ["in_port"],
        _REGISTERS[:3],
        [*_REGISTERS, *_CT, "ct_src", "ct_dst"],
        [*_REGISTERS, *_CT, "ct_src_v6", "ct_dst_v6"],
    ):
        values = {name: bytes(range(1, OXMS[name][1] + 1)) for name in names}
        fields = [
            oxm(name, value if "src" in name or "dst" in name else int.from_bytes(value, "big"))
            for name, value in values.items()
        ]
        frame = build_tcp6() if "ct_src_v6" in names else build_tcp4()
        found.append(packet_in(os_ken_match(fields), frame))
        oxms = os_ken_match(fields)
        length = int.from_bytes(oxms[2:4], "big")
        found.append(packet_in(match_of(oxms[4:length] + b"".join(_OTHERS)), frame))
    removed = struct.pack(">QHBBIIHHQQ", 0x0D5E << 48 | 1, 100, 0, 30, 1, 0, 60, 0, 1, 60)
    found.append(message(11, removed + match_of(b"") + bytes(4)))
    found.append(message(1, struct.pack(">HH", 5, 1) + message(14, bytes(48))))
    found.append(message(1, struct.pack(">HHI", 0xFFFF, 1, 0x2320) + message(14, bytes(48))))
    found += [message(0), message(2, b"abcd"), message(19, bytes(8)), message(21)]
    return found


class MessageTarget:
    name = "message"

    def __init__(self, seed: int) -> None:
        good = [*good_messages(), *(one.data for one in load(self.name))]
        self._mutator = Mutator(seed, good)
        self._random = self._mutator.random
        #: Goes on over all messages, so that what it has learned is under test too.
        self._learned = PacketInDecoder()

    def make(self) -> Kept:
        chance = self._mutator
        stream = bytearray()
        for _ in range(1 + chance.below(3)):
            data = bytearray(chance.good[chance.below(len(chance.good))])
            for _ in range(chance.below(4)):
                self._change(data)
            if chance.below(3) and len(data) >= 4:
                data[2:4] = (len(data) & 0xFFFF).to_bytes(2, "big")
            stream += data
        return Kept(self.name, "", bytes(stream))

    def _change(self, data: bytearray) -> None:
        chance = self._mutator
        which = chance.below(7)
        at = chance.below(len(data) + 1)
        if which == 0 and data:
            data[at % len(data)] ^= 1 << chance.below(8)
        elif which == 1:
            data[at : at + 2] = chance.pick(WORDS).to_bytes(2, "big")
        elif which == 2:
            del data[at:]
        elif which == 3:
            data[at:at] = self._random.randbytes(1 + chance.below(12))
        elif which == 4:
            data[at:at] = data[at : at + 1 + chance.below(40)] * (1 + chance.below(3))
        elif which == 5:  # the length of the match, or another list of OXMs
            data[26:28] = (chance.below(160)).to_bytes(2, "big")
        else:
            other = chance.good[chance.below(len(chance.good))]
            data[28:] = other[28:]

    def run(self, given: Kept) -> str:
        return outcome_of(given.data, self._learned)

    def replay(self, given: Kept) -> str:
        return outcome_of(given.data, PacketInDecoder())


def outcome_of(stream: bytes, decoder: PacketInDecoder) -> str:
    """Outcome of the first message; all are decoded, however the stream is cut."""
    outcomes = []
    try:
        for head, start, end in split(stream):
            outcomes.append(_one(stream, head, start, end, decoder))
    except MalformedMessage as error:
        outcomes.append("split: " + without_values(str(error)))
    _check_pieces(stream, len(outcomes))
    return outcomes[0] if outcomes else "no whole message"


def _one(stream: bytes, head: int, start: int, end: int, decoder: PacketInDecoder) -> str:
    try:
        if head == PACKET_IN_HEAD:
            assert -1 <= packet_in_cookie(stream, start, end) < 1 << 64
            packet = decoder.decode(stream, start, end)
            _check_packet_in(packet, stream[start:end])
            words = [name for name in OXMS if getattr(packet, name.removesuffix("_v6"))]
            return "packet-in with conntrack" if "ct_state" in words else "packet-in"
        if head == FLOW_REMOVED_HEAD:
            assert -1 <= flow_removed_cookie(stream, start, end) < 1 << 64
            removed = decode_flow_removed(stream, start, end)
            assert 0 <= removed.table <= 255
            return "flow-removed"
        if head == ERROR_HEAD:
            _, _, _, data = decode_error(stream, start, end)
            return "error of a rule" if failed_cookie(data) is not None else "error"
    except MalformedMessage as error:
        return without_values(str(error))
    return "another message"


def _check_packet_in(packet: PacketIn, data: bytes) -> None:
    assert data.endswith(packet.data)
    assert len(packet.ct_src) in (0, 4, 16)
    assert len(packet.ct_dst) in (0, 4, 16)
    fresh = PacketInDecoder().decode(data, 0, len(data))
    assert fresh == packet, "what a decoder has learned changes its answer"


def _check_pieces(stream: bytes, count: int) -> None:
    """A stream that comes in two pieces holds the same messages, up to one that ends all."""
    middle = len(stream) // 2
    seen, rest = 0, b""
    try:
        for piece in (stream[:middle], stream[middle:]):
            rest += piece
            read = 0
            for _, _, end in split(rest):
                seen += 1
                read = end
            rest = rest[read:]
    except MalformedMessage:
        seen += 1
    assert seen == count

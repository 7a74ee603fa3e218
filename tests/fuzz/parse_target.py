"""``frames.parse``: any bytes give a Frame that is true, or Malformed."""

from __future__ import annotations

from ondemand.frames import ABSENT, Arp, Fragment, Frame, Kind, Malformed, NeighborDiscovery, parse
from rule_cache.fields import FRAG_ANY, FRAG_LATER, Field
from tests.fuzz.kept import Kept, load
from tests.fuzz.mutate import Mutator
from tests.fuzz.seeds import ETH_SERVICE_VLAN, good_frames, large_frames
from tests.support.fake_flow import extract

#: One frame in so many is compared with what the switch would read, which is slower.
COMPARE_EVERY = 8
_FRAG_BITS = {0: 0, 1: FRAG_ANY, 2: FRAG_ANY | FRAG_LATER}
_PORTS = {
    (4, 6): (Field.TCP_SRC, Field.TCP_DST),
    (6, 6): (Field.TCP_SRC, Field.TCP_DST),
    (4, 17): (Field.UDP_SRC, Field.UDP_DST),
    (6, 17): (Field.UDP_SRC, Field.UDP_DST),
    (4, 132): (Field.SCTP_SRC, Field.SCTP_DST),
    (6, 132): (Field.SCTP_SRC, Field.SCTP_DST),
    (4, 1): (Field.ICMP_TYPE, Field.ICMP_CODE),
    (6, 58): (Field.ICMPV6_TYPE, Field.ICMPV6_CODE),
}


class ParseTarget:
    name = "parse"

    def __init__(self, seed: int) -> None:
        kept = [one.data for one in load(self.name)]
        self._mutator = Mutator(seed, [*good_frames(), *kept])
        self._large = large_frames()
        self._count = 0

    def make(self) -> Kept:
        self._count += 1
        if self._count % 4096 == 0:
            data = bytearray(self._large[self._count // 4096 % len(self._large)])
            data[self._mutator.place(data)] ^= 1 << self._mutator.below(8)
            return Kept(self.name, "", bytes(data))
        return Kept(self.name, "", self._mutator.frame())

    def run(self, given: Kept) -> str:
        return outcome_of(given.data, compare=self._count % COMPARE_EVERY == 0)

    def replay(self, given: Kept) -> str:
        return outcome_of(given.data, compare=True)


def outcome_of(data: bytes, *, compare: bool) -> str:
    try:
        frame = parse(data)
    except Malformed as error:
        return f"malformed {error.reason.value}"
    check_sound(frame, data)
    if compare:
        check_switch_reads_alike(frame, data)
    return _words(frame)


def _words(frame: Frame) -> str:
    words = ["frame", frame.kind.name]
    if frame.kind in (Kind.IPV4, Kind.IPV6):
        family = 4 if frame.kind is Kind.IPV4 else 6
        known = (family, frame.proto) in _PORTS
        words += [f"proto {frame.proto}" if known else "proto other", frame.fragment.name]
    if isinstance(frame.detail, NeighborDiscovery):
        words.append(f"nd {frame.tp_src}")
    if frame.vlan != ABSENT:
        words.append("tagged")
    return " ".join(words).lower()


def check_sound(frame: Frame, data: bytes) -> None:
    """Every field is in its range and comes from the frame."""
    assert frame.eth_dst + frame.eth_src == data[:12]
    assert ABSENT <= frame.vlan <= 4095
    assert 0x0600 <= frame.eth_type <= 0xFFFF
    size = {Kind.OTHER: 0, Kind.ARP: 4, Kind.IPV4: 4, Kind.IPV6: 16}[frame.kind]
    assert len(frame.src) == len(frame.dst) == size
    assert frame.src in data[:58]
    assert frame.dst in data[:58]
    assert (frame.tp_src == ABSENT) == (frame.tp_dst == ABSENT)
    assert ABSENT <= frame.tp_src <= 65535
    assert ABSENT <= frame.tp_dst <= 65535
    if frame.fragment is Fragment.LATER:
        assert frame.tp_src == ABSENT
    if isinstance(frame.detail, NeighborDiscovery):
        assert (frame.proto, frame.ttl, len(frame.detail.target)) == (58, 255, 16)
        assert frame.detail.link_layer is None or len(frame.detail.link_layer) == 6
    else:
        assert isinstance(frame.detail, Arp) == (frame.kind is Kind.ARP)


def check_switch_reads_alike(frame: Frame, data: bytes) -> None:
    """A rule made from this frame matches this frame: the switch finds the same fields in it.

    If not, the packet would miss again when it is put through the pipeline, again and again.
    """
    found = extract(data).fields
    if frame.kind is Kind.ARP:
        if frame.proto > 0xFF:  # not read by the switch; nothing answers such an opcode
            return
        expected = {Field.ARP_OP: frame.proto}
        expected |= {Field.ARP_SPA: _number(frame.src), Field.ARP_TPA: _number(frame.dst)}
    elif frame.kind is Kind.OTHER:
        if frame.eth_type == ETH_SERVICE_VLAN:  # a tag for the switch, and dropped as such
            return
        expected = {Field.ETH_TYPE: frame.eth_type}
    else:
        family = 4 if frame.kind is Kind.IPV4 else 6
        src, dst = (
            (Field.IPV4_SRC, Field.IPV4_DST) if family == 4 else (Field.IPV6_SRC, Field.IPV6_DST)
        )
        expected = {
            src: _number(frame.src),
            dst: _number(frame.dst),
            Field.IP_FRAG: _FRAG_BITS[frame.fragment],
        }
        if family == 6 and frame.fragment is Fragment.NOT_FRAGMENT:
            # With one of the reserved bits of its fragment header set the switch calls it a first
            # fragment. No rule asks for that.
            del expected[Field.IP_FRAG]
        if family == 4 or frame.fragment is not Fragment.LATER:
            expected[Field.IP_PROTO] = frame.proto
        ports = _PORTS.get((family, frame.proto))
        if ports is not None and frame.tp_src != ABSENT:
            expected |= {ports[0]: frame.tp_src, ports[1]: frame.tp_dst}
    assert {field: found.get(field) for field in expected} == expected


def _number(address: bytes) -> int:
    return int.from_bytes(address, "big")

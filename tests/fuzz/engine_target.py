"""The whole engine: any frame as a packet-in of any table, with any registers and conntrack fields.

The switch would send few of these; the engine must not count on that. Whatever comes, there is no
exception, no rule for a malformed frame, no packet that goes in circles, and the switch holds exactly
the rules that the engine thinks it holds, each of them true (``tests.support.truth_check``).
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict

from ondemand.frames import Kind, Malformed, parse
from ondemand.messages import FlowRemoved, PacketIn
from ondemand.pipeline import Table
from ondemand.settings import Settings
from tests.fuzz.kept import Kept, load
from tests.fuzz.mutate import Mutator
from tests.fuzz.seeds import cloud_frames, good_frames
from tests.support.cloud_edit import change_port
from tests.support.lab import Lab
from tests.support.office_cloud import BLUE_VNI, RED_VNI, add_port, office
from tests.support.world_builder import CloudBuilder

#: Inputs after which all is checked, and after which a new host begins.
CHECK_EVERY, RENEW_EVERY = 128, 2048
#: Few rules, so that the ledger is full most of the time; all packet-ins are handled.
SETTINGS = Settings(
    max_rules=400,
    max_rules_per_port=120,
    admission_rate=10_000_000,
    admission_burst=10_000_000,
    verdict_idle_s=5,
    location_idle_s=7,
    responder_idle_s=6,
    deny_s=3,
)
PAIRS = [("a", "b"), ("a", "c"), ("a", "d"), ("a2", "b"), ("b", "a"), ("p", "e"), ("d", "x")]
_TABLES = (Table.RESPONDER, Table.EGRESS_VERDICT, Table.LOCATION, Table.INGRESS_VERDICT)
_STATES = (0, 0, 0x21, 0x21, 0x22, 0x2A, 0x2C, 0x24, 0x30, 0x20, 0x01, 0x28, 0xFF)
_FIELDS = tuple(name for name in PacketIn.__struct_fields__ if name != "data")
_ADDRESSES = ("ct_src", "ct_dst")


def cloud() -> CloudBuilder:
    """The office, with a port without port security and one with address pairs."""
    made = office()
    change_port(made, "a2", port_security=False, groups=())
    add_port(
        made, "p", "red", 30, groups=("client",),
        pairs=["10.0.1.64/26", ("fd00:1::8000/113", "fa:16:3e:77:77:77")],
    )  # fmt: skip
    return made


class EngineTarget:
    name = "engine"

    def __init__(self, seed: int) -> None:
        made = cloud()
        frames = cloud_frames(made, PAIRS)
        self._mutator = Mutator(seed, [*frames, *frames, *good_frames()])
        self._mutator.good += [one.data for one in load("parse")]
        self._lab = new_lab()
        zones = list(self._lab.here.engine.world.by_zone)
        self._zones = [*zones, *zones, *zones, 0, 999, 65535]
        self._in_ports = [0, 1, 999, 0xFFFFFFFD, *self._lab.here.plugged.values()]
        self._count = 0

    def make(self) -> Kept:
        chance = self._mutator
        data = chance.frame()
        if chance.below(4) == 0:  # good to the last bit, so that the fields beside it matter
            data = chance.good[chance.below(len(chance.good))]
        facts: dict[str, Any] = {
            "table": chance.pick(_TABLES) if chance.below(50) else chance.below(256),
            "in_port": chance.pick(self._in_ports),
            "cookie": chance.below(1 << 62),
            "vni": chance.pick((RED_VNI, RED_VNI, BLUE_VNI, 0, (1 << 24) - 1)),
            "source_zone": chance.pick(self._zones),
            "target_zone": chance.pick(self._zones),
            "ct_state": chance.pick(_STATES),
            "ct_mark": chance.below(6),
            **self._tuple(data),
        }
        return Kept(self.name, "", data, {name: _text(facts[name]) for name in _FIELDS})

    def _tuple(self, data: bytes) -> dict[str, Any]:
        """An original tuple: the frame's, of a reply, another frame's, absent, or nonsense."""
        chance = self._mutator
        which = chance.below(10)
        source = data if which < 6 else chance.good[chance.below(len(chance.good))]
        try:
            frame = parse(source)
        except Malformed:
            frame = None
        if which == 9 or frame is None or frame.kind not in (Kind.IPV4, Kind.IPV6):
            sizes = (0, 4, 16)
            return {
                "ct_src": chance.random.randbytes(chance.pick(sizes)),
                "ct_dst": chance.random.randbytes(chance.pick(sizes)),
                "ct_proto": chance.pick((0, 1, 6, 17, 47, 58, 132, 255)),
                "ct_tp_src": chance.pick((0, 8, 67, 68, 80, 128, 40000, 65535)),
                "ct_tp_dst": chance.pick((0, 53, 67, 68, 80, 546, 547, 65535)),
            }
        ends = [(frame.src, max(frame.tp_src, 0)), (frame.dst, max(frame.tp_dst, 0))]
        if which in (3, 4):
            ends.reverse()
        (src, tp_src), (dst, tp_dst) = ends
        return {
            "ct_src": src,
            "ct_dst": dst,
            "ct_proto": frame.proto,
            "ct_tp_src": tp_src,
            "ct_tp_dst": tp_dst,
        }

    def run(self, given: Kept) -> str:
        self._count += 1
        outcome = feed(self._lab, given)
        if self._count % CHECK_EVERY == 0:
            self._lab.check()
            self._lab.advance(0.5)
            self._lab.here.engine.flow_removed(FlowRemoved(self._count, 30, 0))
            self._lab.here.engine.rejected(self._count)
        if self._count % RENEW_EVERY == 0:
            self._lab = new_lab()
        return outcome

    def replay(self, given: Kept) -> str:
        lab = new_lab()
        try:
            outcome = feed(lab, given)
            lab.check()
        finally:
            self._lab = new_lab()
        return outcome


def new_lab() -> Lab:
    return Lab(cloud(), settings=SETTINGS)


def packet_of(given: Kept) -> PacketIn:
    values: dict[str, Any] = {
        name: bytes.fromhex(text) if name in _ADDRESSES else int(text)
        for name, text in given.facts.items()
        if name in _FIELDS
    }
    return PacketIn(data=given.data, **values)


def facts_of(packet: PacketIn) -> dict[str, str]:
    return {name: _text(value) for name, value in asdict(packet).items() if name != "data"}


def _text(value: int | bytes) -> str:
    return value.hex() if isinstance(value, bytes) else str(int(value))


def feed(lab: Lab, given: Kept) -> str:
    """One packet-in, and all that follows from it; the outcome is what was counted."""
    host = lab.here
    engine = host.engine
    before = _totals(lab)
    engine.packet_in(packet_of(given), lab.now_s)
    if engine.has_effects:
        try:
            parse(given.data)
        except Malformed as error:
            raise AssertionError(f"a malformed frame has effects: {engine.take()}") from error
    host.flush()
    assert engine.ledger_size <= SETTINGS.max_rules
    after = _totals(lab)
    counted = [name for name in after if after[name] != before.get(name, 0)]
    kinds = {name for name in counted if name not in ("packet_in", "allowed", "parked")}
    return " + ".join(sorted(kinds)) or " + ".join(sorted(counted)) or "nothing"


def _totals(lab: Lab) -> dict[str, int]:
    counts = lab.here.engine.counters.by_name()
    return {name: sum(ports.values()) for name, ports in counts.items()}

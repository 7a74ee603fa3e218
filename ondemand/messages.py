"""What goes into the engine and what comes out of it, as values.

The engine is called with a PacketIn or an event and returns nothing; what is to be done collects in
an Effects, which the shell empties once per read of the socket, so that many packet-ins share one
write. The order of sending is fixed here and nowhere else: deletes, then adds, then packet-outs, so
that a packet never meets a rule that is about to go, and always meets the rules made for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from rule_cache.rule import Rule


class PacketIn(msgspec.Struct, gc=False):
    """A packet that no rule knew, with the pipeline's registers and what conntrack says of it.

    ``table`` is the number of the table that missed; ``vni``, ``source_zone`` and ``target_zone`` are
    reg5, reg6 and reg7 (0 when unset). ``ct_state`` is 0 for a packet that never met conntrack; the
    ``ct_*`` addresses (4 or 16 bytes, b"" when absent) and ports are the original tuple of its
    connection, with ICMP type and code in ``ct_tp_src`` and ``ct_tp_dst``. ``data`` is the frame.
    """

    table: int
    in_port: int
    data: bytes
    cookie: int = 0
    vni: int = 0
    source_zone: int = 0
    target_zone: int = 0
    ct_state: int = 0
    ct_mark: int = 0
    ct_src: bytes = b""
    ct_dst: bytes = b""
    ct_proto: int = 0
    ct_tp_src: int = 0
    ct_tp_dst: int = 0


@dataclass(frozen=True, slots=True)
class FlowRemoved:
    """The switch dropped a rule by itself: idle (0), hard timeout (1), delete (2), eviction (5)."""

    cookie: int
    table: int
    reason: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask the source for one record; a parked packet waits for it."""

    slice: str
    key: str


@dataclass(frozen=True, slots=True)
class Follow:
    """Follow a slice. ``since`` None: take the snapshot first, all of it is to be held."""

    slice: str
    since: int | None


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing in the slice is needed any more."""

    slice: str


@dataclass(frozen=True, slots=True)
class Heal:
    """A gap was seen: ask for the delta from ``since``."""

    slice: str
    since: int


SourceRequest = Fetch | Follow | Forget | Heal


@dataclass(frozen=True, slots=True)
class SetMeter:
    """Meter ``meter`` lets ``rate`` packets a second through, in bursts of ``burst``; rate 0 removes it."""

    meter: int
    rate: int
    burst: int


@dataclass(slots=True)
class Effects:
    """What the engine wants done, in the order of the fields."""

    #: Cookies of rules to delete.
    deletes: list[int] = field(default_factory=list)
    #: Conntrack zones to empty: a port gets a zone that somebody else may have had.
    flush_zones: list[int] = field(default_factory=list)
    meters: list[SetMeter] = field(default_factory=list)
    adds: list[tuple[int, Rule]] = field(default_factory=list)
    #: (in_port, tun_id, frame): each is put through the pipeline from its first table. ``tun_id`` is
    #: the VNI that a frame from the tunnel came with, which a packet-out would lack; else 0.
    packet_outs: list[tuple[int, int, bytes]] = field(default_factory=list)
    #: A second group of rules, sent behind a barrier: a policy epoch moves after the rules it needs.
    after_barrier: list[tuple[int, Rule]] = field(default_factory=list)
    #: Rules to delete behind that barrier: epochs of single addresses that a new epoch makes needless.
    late_deletes: list[int] = field(default_factory=list)
    requests: list[SourceRequest] = field(default_factory=list)
    #: Sentences for the log: bad records, a port whose slice has no such port.
    warnings: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.deletes
            or self.flush_zones
            or self.adds
            or self.packet_outs
            or self.meters
            or self.after_barrier
            or self.late_deletes
            or self.requests
            or self.warnings
        )

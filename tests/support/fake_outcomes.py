"""What becomes of a packet in the fake switch."""

from __future__ import annotations

from dataclasses import dataclass

from ondemand.messages import FlowRemoved, PacketIn


@dataclass(frozen=True, slots=True)
class Delivered:
    """The frame left by a port."""

    ofport: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class Tunnelled:
    """The frame left by a tunnel port; ``tun_dst`` is the other host (4 or 16 bytes)."""

    vni: int
    tun_dst: bytes
    frame: bytes


@dataclass(frozen=True, slots=True)
class Dropped:
    """The packet ended in ``table``; ``reason`` names the rule, or says that there was none."""

    table: int
    reason: str


@dataclass(frozen=True, slots=True)
class Held:
    """The fragment waits at ``ct()`` in ``table`` for the rest of its datagram."""

    table: int
    zone: int


Outcome = Delivered | Tunnelled | PacketIn | Dropped | Held


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a batch.

    Attributes:
        outcomes: of the packet-outs.
        removed: rules that the switch reports as gone: deleted, or evicted to make room.
        refused: (cookie, the switch's reason) of rules that it did not take.
        lost: how many messages of the batch never arrived (``FakeSwitch.cut_after``).
    """

    outcomes: tuple[Outcome, ...] = ()
    removed: tuple[FlowRemoved, ...] = ()
    refused: tuple[tuple[int, str], ...] = ()
    lost: int = 0


def packet_in_fields(packet: PacketIn) -> dict[str, object]:
    """The attributes of a packet-in by name, for comparison."""
    return {name: getattr(packet, name) for name in PacketIn.__struct_fields__}

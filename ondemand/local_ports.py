"""The local ports: VM interfaces that are both bound to this host and plugged into the bridge.

A port is *known* by its record in the host slice and *plugged* by its interface; it is *active* when
it is both and its VPC's slice tells its subnet. Only an active port has a zone, rules and traffic.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ondemand.records import Port, Subnet

#: Conntrack zones are 16 bits (ovs-actions(7)); 0 is the zone of everybody else on the host.
MAX_ZONE = 65535


@dataclass(slots=True, eq=False)
class LocalPort:
    """An active port. ``zone`` is its conntrack zone, its meter and its place in the registers."""

    record: Port
    subnet: Subnet
    ofport: int
    zone: int
    #: Policy epoch, stamped into ct_mark; 1..2**32-1.
    epoch: int
    tag: str = field(init=False)

    def __post_init__(self) -> None:
        self.tag = port_tag(self.record.id)

    @property
    def vpc(self) -> str:
        return self.record.vpc

    @property
    def macs(self) -> tuple[bytes, ...]:
        """All MACs that it may send from: its own, then those of its allowed address pairs."""
        return (*dict.fromkeys([self.record.mac, *(pair.mac for pair in self.record.pairs)]),)


def port_tag(port: str) -> str:
    """The tag of "is this port active here, and what is its record"."""
    return "local " + port


class Zones:
    """Gives a zone to each port, the one longest unused first, so that a reused zone has gone cold."""

    def __init__(self) -> None:
        self._free: dict[int, None] = {}
        self._next = 1

    def take(self) -> int:
        """A zone that no port has; LookupError when all 65,535 are taken."""
        if self._next <= MAX_ZONE:
            self._next += 1
            return self._next - 1
        if not self._free:
            raise LookupError(f"all {MAX_ZONE} conntrack zones of this host are taken")
        zone = next(iter(self._free))
        del self._free[zone]
        return zone

    def give_back(self, zone: int) -> None:
        self._free[zone] = None

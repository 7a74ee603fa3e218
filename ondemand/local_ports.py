"""The local ports: VM interfaces that are both bound to this host and plugged into the bridge.

A port is *known* by its record in the host slice and *plugged* by its interface; it is *active* when
it is both and its VPC's slice tells its subnet. Only an active port has a zone, rules and traffic.
"""

from __future__ import annotations

import zlib
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
    #: Epochs of single remote addresses whose connections had to be judged again, but no others.
    remote_epochs: dict[bytes, int] = field(default_factory=dict)
    #: Seconds that its quarantine lasts from its beginning; 0: it is in none.
    quarantine_s: int = 0
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


def host_mark(host: str) -> int:
    """A host's id as 32 bits, by which rules in a switch are known to be those of its agent."""
    return zlib.crc32(host.encode())


def port_mark(port: str) -> int:
    """A port's id as 32 bits, by which a zone found in the switch is known to be this port's.

    Two ids with one mark do no harm unless one of them takes the place of the other while no agent
    runs; then it would get the other's connections, and each of them is judged by its own policy.
    """
    return zlib.crc32(port.encode())


def port_tag(port: str) -> str:
    """The tag of "is this port active here, and what is its record"."""
    return "local " + port


class Zones:
    """Gives a zone to each port, the one longest unused first, so that a reused zone has gone cold."""

    def __init__(self) -> None:
        self._free: dict[int, None] = {}
        self._next = 1
        #: Zones at ``_next`` and above that are in use already.
        self._reserved: set[int] = set()

    def reserve(self, zone: int) -> None:
        """A zone found in use, by a port or by one that is yet to come; idempotent."""
        if zone >= self._next:
            self._reserved.add(zone)
        else:
            self._free.pop(zone, None)

    def take(self) -> int:
        """A zone that no port has; LookupError when all 65,535 are taken."""
        while self._next <= MAX_ZONE:
            self._next += 1
            if self._next - 1 in self._reserved:
                self._reserved.discard(self._next - 1)
            else:
                return self._next - 1
        if not self._free:
            raise LookupError(f"all {MAX_ZONE} conntrack zones of this host are taken")
        zone = next(iter(self._free))
        del self._free[zone]
        return zone

    def give_back(self, zone: int) -> None:
        self._free[zone] = None

"""RARP and gratuitous ARP: a VM, or its hypervisor after a migration, says that it is here now.

Nobody is told by the frame itself: it goes no further, and where a port is, the slices say. But it is a
sign that the slices have changed or are about to. A host that missed such a change would send to where
the VM was, so it asks at once for what it does not have of its own slice, those of its host groups, and the
VM's neighbor records.
"""

from __future__ import annotations

from typing import Final

from ondemand.bound_ports import BoundPorts
from ondemand.counters import Counters
from ondemand.installer import Installer
from ondemand.local_ports import LocalPort
from ondemand.messages import Heal
from ondemand.slices import neighbor_slice
from ondemand.world import World

#: Seconds between two times that announcements of one port make the source be asked.
PAUSE_S: Final = 1.0


class Announcements:
    """Hears what local ports announce."""

    def __init__(self, host: str, world: World, installer: Installer, counters: Counters) -> None:
        self._bound = BoundPorts(world.cache, host)
        self._world = world
        self._installer = installer
        self._counters = counters
        #: By zone, when a port's announcement counts again.
        self._next_s: dict[int, float] = {}

    def heard(self, port: LocalPort, now_s: float) -> None:
        """``port`` announced itself, by an address that it may use."""
        self._counters.add("announced", port.record.id)
        if now_s < self._next_s.get(port.zone, now_s):
            return
        self._next_s[port.zone] = now_s + PAUSE_S
        shards = (neighbor_slice(port.vpc, ip) for ip in port.record.fixed_ips)
        for name in dict.fromkeys((*self._bound.slices, *shards)):
            version = self._world.cache.version(name)
            if version is not None:
                self._installer.effects.requests.append(Heal(name, version))

    def forget_port(self, zone: int) -> None:
        self._next_s.pop(zone, None)

"""The ports that may be served on a host: those of its own slice and of its host groups' slices.

The host's slice says by ``HostGroup`` records which groups it belongs to. A port that several of these
slices have is the one of the host's slice, else of the group with the first id; so nothing happens to a
port when the control plane enters it in one place before it takes it from another.
"""

from __future__ import annotations

from typing import NamedTuple

from ondemand.records import HostGroup, Port, Record, port_key
from ondemand.slice_cache import SliceCache
from ondemand.slices import host_group_slice, host_slice


class BoundPort(NamedTuple):
    """A port, and the slice that it is in."""

    slice: str
    record: Port


class BoundPorts:
    """Reads the slice cache anew at each question."""

    def __init__(self, cache: SliceCache, host: str) -> None:
        self._cache = cache
        self.host_slice = host_slice(host)
        #: The host's slice as it was when its groups were looked for, and these.
        self._seen: tuple[dict[str, Record], int | None] | None = None
        self._groups: tuple[HostGroup, ...] = ()

    @property
    def groups(self) -> tuple[HostGroup, ...]:
        """The host groups that the host belongs to, by id; none while its slice is not here."""
        records = self._cache.whole(self.host_slice)
        if records is None:
            return ()
        version = self._cache.version(self.host_slice)
        if self._seen is None or self._seen[0] is not records or self._seen[1] != version:
            found = [record for record in records.values() if isinstance(record, HostGroup)]
            self._groups = tuple(sorted(found, key=lambda group: group.id))
            self._seen = (records, version)
        return self._groups

    @property
    def slices(self) -> list[str]:
        """The slices that a port of the host may be in, the one that counts most first."""
        return [self.host_slice, *(host_group_slice(group.id) for group in self.groups)]

    @property
    def is_complete(self) -> bool:
        """Whether all of these slices are here, so that a port that is not found does not exist."""
        return all(self._cache.whole(name) is not None for name in self.slices)

    def find(self, port_id: str) -> BoundPort | None:
        """The port of this id, as far as the slices are here."""
        key = port_key(port_id)
        for name in self.slices:
            record = (self._cache.whole(name) or {}).get(key)
            if isinstance(record, Port):
                return BoundPort(name, record)
        return None

    def all(self) -> list[BoundPort]:
        """Every port once, as far as the slices are here."""
        found: dict[str, BoundPort] = {}
        for name in self.slices:
            for record in (self._cache.whole(name) or {}).values():
                if isinstance(record, Port):
                    found.setdefault(record.id, BoundPort(name, record))
        return list(found.values())


__all__ = ["BoundPort", "BoundPorts"]

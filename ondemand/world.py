"""What decisions read: the slice cache, the VPCs and policies made of it, and the local ports.

Everything that is derived from slices is derived here, once, and thrown away when its slice changes.
"""

from __future__ import annotations

from collections.abc import Iterable

from ondemand.local_ports import LocalPort
from ondemand.policy import Policy
from ondemand.records import Group, SecurityRule
from ondemand.slice_cache import SliceCache
from ondemand.slices import group_slice, vpc_slice
from ondemand.topology import Topology


class World:
    """State that decisions read and never change."""

    def __init__(self, cache: SliceCache, tunnel_ip: bytes) -> None:
        self.cache = cache
        #: This host's own tunnel address: neighbors with it are bound here.
        self.tunnel_ip = tunnel_ip
        #: The source does not answer: what needs a record that is not held is denied for a while.
        self.source_down = False
        #: Active ports by id and by zone.
        self.ports: dict[str, LocalPort] = {}
        self.by_zone: dict[int, LocalPort] = {}
        self._topologies: dict[str, Topology] = {}
        self._policies: dict[tuple[str, ...], Policy] = {}

    def topology(self, vpc: str) -> Topology | None:
        """A VPC's topology; None until its slice came."""
        topology = self._topologies.get(vpc)
        if topology is None:
            records = self.cache.whole(vpc_slice(vpc))
            if records is None:
                return None
            topology = self._topologies[vpc] = Topology(records)
        return topology

    def policy(self, groups: tuple[str, ...]) -> Policy:
        """The policy of these groups together, as far as their slices are here.

        A group that does not exist has no rules; ``missing_groups`` tells.
        """
        policy = self._policies.get(groups)
        if policy is None:
            rules: dict[str, Iterable[SecurityRule] | None] = {}
            for group in groups:
                records = self.cache.whole(group_slice(group))
                rules[group] = (
                    None
                    if records is None
                    else [r for r in records.values() if isinstance(r, SecurityRule)]
                )
            policy = self._policies[groups] = Policy(rules)
        return policy

    def missing_groups(self, groups: tuple[str, ...]) -> tuple[str, ...]:
        """Groups of which the slice came, and says that they do not exist."""
        return tuple(
            group
            for group in groups
            if (records := self.cache.whole(group_slice(group))) is not None
            and not isinstance(records.get("group"), Group)
        )

    def slice_changed(self, name: str) -> None:
        """Forget what was derived from a slice."""
        kind, _, owner = name.partition("/")
        if kind == "vpc":
            self._topologies.pop(owner, None)
        elif kind == "sg":
            for groups in [g for g in self._policies if owner in g]:
                del self._policies[groups]

    def add_port(self, port: LocalPort) -> None:
        self.ports[port.record.id] = port
        self.by_zone[port.zone] = port

    def remove_port(self, port: LocalPort) -> None:
        self.ports.pop(port.record.id, None)
        self.by_zone.pop(port.zone, None)

    def policies_in_use(self) -> int:
        return len(self._policies)

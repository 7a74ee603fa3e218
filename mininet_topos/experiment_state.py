"""Goal states of the experiments: VMs on hosts, groups, and what an experiment changes of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final, Self

from mininet_topos.agent_lab import PlacedVm
from mininet_topos.goal_parts import (
    GATEWAYS,
    both_families,
    fleet_subnet,
    front_and_back,
    one_vpc,
)
from mininet_topos.vm import VmSpec
from ondemand.addresses import parse_ip, parse_prefix
from ondemand.codec import encode_record
from ondemand.goal_compile import Slices
from ondemand.goal_state import compile_goal_state, encode_slices
from ondemand.publishing import Payloads
from ondemand.synthetic import neighbor_slices, synthetic_neighbors

VPC: Final = "lab"

#: Where synthetic members of a group are.
FLEET_PREFIX: Final = parse_prefix("10.64.0.0/16")
_FLEET_GATEWAY: Final = "10.64.255.254"

#: A group that lets everything in and out.
OPEN: Final = (*both_families("open-out", "egress"), *both_families("open-in", "ingress"))


def allow(
    name: str, direction: str, ports: tuple[int | str, int | str], **fields: object
) -> list[dict[str, Any]]:
    """Rules ``<name>-tcp`` and ``<name>-udp`` for both families; ``ports`` are TCP's and UDP's."""
    tcp, udp = ports
    return [
        *both_families(f"{name}-tcp", direction, protocol="tcp", ports=tcp, **fields),
        *both_families(f"{name}-udp", direction, protocol="udp", ports=udp, **fields),
    ]


@dataclass(frozen=True, slots=True)
class Station:
    """A VM of an experiment; its name is also its port's id.

    Attributes:
        name: unique.
        host: number of its host, from 1.
        number: last part of its addresses, 2 to 99.
        subnet: ``front`` or ``back``.
        groups: its security groups.
        tcp: ports on which it echoes TCP.
        udp: the same of UDP.
        is_plugged: it is plugged in from the start.
    """

    name: str
    host: int
    number: int
    subnet: str = "front"
    groups: tuple[str, ...] = ("open",)
    tcp: tuple[int, ...] = ()
    udp: tuple[int, ...] = ()
    is_plugged: bool = True

    @property
    def _net(self) -> int:
        return 1 if self.subnet == "front" else 2

    @property
    def ips(self) -> tuple[str, str]:
        """Its IPv4 and its IPv6 address."""
        return f"10.0.{self._net}.{self.number}", f"fd00:{self._net}::{self.number}"

    @property
    def mac(self) -> str:
        return f"02:00:00:00:0{self._net}:{self.number:02d}"

    @property
    def placed(self) -> PlacedVm:
        spec = VmSpec(
            self.name,
            self.mac,
            (f"{self.ips[0]}/24", f"{self.ips[1]}/64"),
            GATEWAYS[self.subnet],
        )
        return PlacedVm(spec, self.host, self.tcp, self.udp, self.is_plugged)


@dataclass(frozen=True, slots=True)
class Goal:
    """What an experiment publishes.

    Attributes:
        stations: all VMs; those in ``absent`` have no port in the goal state.
        groups: rules by security group.
        absent: names of stations that nobody has heard of yet.
        without_rules: ids of security rules that are left out.
        members: how many synthetic neighbors there are besides.
        member_groups: the groups that these are in.
    """

    stations: tuple[Station, ...]
    groups: Mapping[str, Sequence[Mapping[str, Any]]]
    absent: frozenset[str] = frozenset()
    without_rules: frozenset[str] = field(default=frozenset())
    members: int = 0
    member_groups: tuple[str, ...] = ()

    def station(self, name: str) -> Station:
        (found,) = (one for one in self.stations if one.name == name)
        return found

    def without(self, rules: Collection[str]) -> Self:
        return replace(self, without_rules=frozenset(rules))

    def with_groups(self, name: str, groups: tuple[str, ...]) -> Self:
        """A station is in these groups from now on."""
        return self._changed(replace(self.station(name), groups=groups))

    def moved(self, name: str, host: int) -> Self:
        return self._changed(replace(self.station(name), host=host))

    def known(self, name: str) -> Self:
        """A station that was absent has its port."""
        return replace(self, absent=self.absent - {name})

    def payloads(self, tunnels: Mapping[str, str]) -> dict[str, Payloads]:
        """As payloads of slices; ``tunnels``: tunnel address of each host by id, in order."""
        hosts = list(tunnels)
        ports = [
            {
                "id": one.name,
                "host": hosts[one.host - 1],
                "subnet": one.subnet,
                "mac": one.mac,
                "fixed_ips": list(one.ips),
                "security_groups": list(one.groups),
            }
            for one in self.stations
            if one.name not in self.absent
        ]
        groups = [
            {"id": name, "rules": [rule for rule in rules if rule["id"] not in self.without_rules]}
            for name, rules in self.groups.items()
        ]
        subnets = front_and_back()
        if self.members:
            subnets.append(fleet_subnet(str(FLEET_PREFIX), _FLEET_GATEWAY))
        document = one_vpc(VPC, tunnels, subnets=subnets, groups=groups, ports=ports)
        found: dict[str, Payloads] = dict(encode_slices(compile_goal_state(document)))
        if self.members:
            found |= _member_payloads(self.members, self.member_groups, tuple(tunnels.values()))
        return found

    def _changed(self, station: Station) -> Self:
        stations = tuple(station if one.name == station.name else one for one in self.stations)
        return replace(self, stations=stations)


def member_address(number: int) -> str:
    """The address of a synthetic neighbor, counted from 0."""
    value = int.from_bytes(FLEET_PREFIX.network, "big") + 256 + number
    return ".".join(map(str, value.to_bytes(4, "big")))


@cache
def _member_payloads(
    count: int, groups: tuple[str, ...], tunnels: tuple[str, ...]
) -> Mapping[str, Payloads]:
    slices: Slices = neighbor_slices(
        VPC,
        synthetic_neighbors(
            subnet="fleet",
            prefix=FLEET_PREFIX,
            count=count,
            hosts=[parse_ip(tunnel) for tunnel in tunnels],
            groups=groups,
            # Past the first shard, whose address 0 is the network's own.
            first=256,
        ),
    )
    return {
        name: {key: encode_record(record) for key, record in records.items()}
        for name, records in slices.items()
    }

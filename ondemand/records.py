"""The records that slices are made of.

Values are frozen and hold no reference to anything mutable; ``gc=False`` keeps them out of the
garbage collector's way (they hold bytes, strings, ints and tuples of these, so no cycle can exist).
An address is ``bytes`` of 4 or 16, a MAC ``bytes`` of 6, an identifier ``str``.

On the wire a record is a msgpack array whose first item names its type (see ``codec``). A field may
be added at the end, with a default: an older reader ignores it, a newer one fills it in.
"""

from __future__ import annotations

import enum

import msgspec

from ondemand.addresses import Prefix, format_ip, format_mac

#: "any protocol" in a security rule; 0 is a protocol of its own (IPv6 hop-by-hop).
ANY_PROTOCOL = -1
#: "any" for a port bound or an ICMP type or code.
ANY = -1


class Direction(enum.IntEnum):
    """As seen from the VM: ingress is what it receives, egress what it sends."""

    INGRESS = 0
    EGRESS = 1


class AddressPair(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An allowed address pair: the port may also send from ``prefix``, with ``mac``."""

    prefix: Prefix
    mac: bytes


class HostGroup(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="hostgroup"):
    """The host belongs to this host group, and may serve the ports in the group's slice.

    ``host`` is the tunnel address of the host itself, b"" when it is not told. Slice ``host/<host>``,
    key ``group/<id>``.
    """

    id: str
    host: bytes = b""

    @property
    def key(self) -> str:
        return "group/" + self.id


class Port(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="port"):
    """A VM's interface bound on this host, or on any host of a group. Slice ``host/<host>`` or
    ``hostgroup/<group>``, key ``port/<id>``.
    """

    id: str
    mac: bytes
    vpc: str
    subnet: str
    fixed_ips: tuple[bytes, ...]
    groups: tuple[str, ...] = ()
    pairs: tuple[AddressPair, ...] = ()
    port_security: bool = True

    @property
    def key(self) -> str:
        return "port/" + self.id


class Neighbor(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="nbr"):
    """Who holds an address as a fixed IP, and on which host (``host``: its tunnel address).

    Slice ``nbr/<vpc>/<shard>``, key ``ip/<address>``.
    """

    ip: bytes
    mac: bytes
    subnet: str
    port: str
    host: bytes
    groups: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return neighbor_key(self.ip)


class MacPointer(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="mac"):
    """Where a MAC is, for ports that may receive packets to addresses that are not their own
    (allowed address pairs, no port security). Slice ``nbr/<vpc>/mac-<n>``, key
    ``mac/<subnet>/<mac>``.
    """

    mac: bytes
    subnet: str
    port: str
    host: bytes

    @property
    def key(self) -> str:
        return mac_key(self.subnet, self.mac)


class Subnet(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="subnet"):
    """An L2 domain with its own VNI and at most one prefix of each family.

    ``gateways`` are the router's addresses in it (at most one of each family), all at
    ``gateway_mac``. Slice ``vpc/<vpc>``, key ``subnet/<id>``.
    """

    id: str
    vni: int
    prefixes: tuple[Prefix, ...]
    gateways: tuple[bytes, ...] = ()
    gateway_mac: bytes = b""

    @property
    def key(self) -> str:
        return "subnet/" + self.id


class Router(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="router"):
    """Joins subnets of a VPC. Slice ``vpc/<vpc>``, key ``router/<id>``."""

    id: str
    subnets: tuple[str, ...]

    @property
    def key(self) -> str:
        return "router/" + self.id


class Route(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="route"):
    """A static route of a router: ``prefix`` by way of the neighbor ``nexthop``.

    Slice ``vpc/<vpc>``, key ``route/<router>/<prefix>``.
    """

    router: str
    prefix: Prefix
    nexthop: bytes

    @property
    def key(self) -> str:
        return f"route/{self.router}/{self.prefix}"


class Claim(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="claim"):
    """A port claims addresses of its subnet by an allowed address pair.

    It counts only for addresses that nobody holds as a fixed IP, and only inside ``subnet``.
    Slice ``vpc/<vpc>``, key ``claim/<prefix>/<port>/<mac>``.
    """

    prefix: Prefix
    mac: bytes
    subnet: str
    port: str
    host: bytes
    groups: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"claim/{self.prefix}/{self.port}/{format_mac(self.mac)}"


class Group(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="group"):
    """A security group exists, with or without rules. Slice ``sg/<id>``, key ``group``."""

    id: str
    name: str = ""

    @property
    def key(self) -> str:
        return "group"


class SecurityRule(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="rule"):
    """One allow rule of a security group. Slice ``sg/<group>``, key ``rule/<id>``.

    ``family`` is 4 or 6. ``protocol`` is an IP protocol number or ANY_PROTOCOL; 1 in a rule of family
    6 is normalised to 58 before it gets here. ``port_min``..``port_max`` are the destination ports of
    TCP, UDP and SCTP, or ICMP type and code, each ANY (-1) when it does not matter. At most one of
    ``remote_prefix`` and ``remote_group`` is set; none means anybody.
    """

    id: str
    direction: Direction
    family: int
    protocol: int = ANY_PROTOCOL
    port_min: int = ANY
    port_max: int = ANY
    remote_prefix: Prefix | None = None
    remote_group: str | None = None

    @property
    def key(self) -> str:
        return "rule/" + self.id


Record = (
    HostGroup
    | Port
    | Neighbor
    | MacPointer
    | Subnet
    | Router
    | Route
    | Claim
    | Group
    | SecurityRule
)


def neighbor_key(ip: bytes) -> str:
    return "ip/" + format_ip(ip)


def mac_key(subnet: str, mac: bytes) -> str:
    return f"mac/{subnet}/{format_mac(mac)}"


def port_key(port: str) -> str:
    return "port/" + port

"""What a decision can say: a closed set of frozen values.

A *policy verdict* says whether a port may begin or receive a connection; a *location* says where a
destination is. Either may be ``Need``: a record is not in the cache and the source has to be asked.
Each carries the tags of all that it read, absences included.
"""

from __future__ import annotations

import enum

import msgspec

from ondemand.policy import RuleRef
from rule_cache.tags import Tag


class Reason(enum.StrEnum):
    """Why something is denied; the value is the name of its counter."""

    NO_RULE = "no_rule"
    """No security rule allows it."""
    GROUP_MISSING = "group_missing"
    """No rule allows it, and a security group of the port does not exist."""
    DHCP_SERVER = "dhcp_server"
    """A VM answers as a DHCP server, which port security forbids."""
    UNKNOWN_NEIGHBOR = "unknown_neighbor"
    """Nobody holds or claims the destination address."""
    UNKNOWN_MAC = "unknown_mac"
    """The destination MAC is not the one of who holds the address, nor of a port that forwards."""
    NO_ROUTE = "no_route"
    """Sent to the gateway, but no subnet of the router and no route holds the destination."""
    NO_ROUTER = "no_router"
    """Sent to the gateway of a subnet that no router joins."""
    NEXT_HOP_UNKNOWN = "next_hop_unknown"
    """The static route's next hop is nobody's address."""
    MULTICAST = "multicast"
    """Broadcast and multicast are not forwarded."""
    GATEWAY = "gateway"
    """The gateway answers ping, and nothing else."""
    NOT_PLUGGED = "not_plugged"
    """The destination port is bound on this host but has no interface here."""
    OWN_ADDRESS = "own_address"
    """A port asks for an address of its own: nobody else has it, so nobody answers."""
    NOT_IN_SUBNET = "not_in_subnet"
    """Asked by ARP or ND for an address outside the subnet."""
    SPOOFED_SOURCE = "spoofed_source"
    """It comes from the very address of the port that it is for."""
    SOURCE_UNREACHABLE = "source_unreachable"
    """A record is needed that is not held, and the slice source does not answer."""


class Allow(msgspec.Struct, frozen=True, gc=False):
    """A security rule, or a rule of the port itself ("implicit"), allows the connection."""

    rule: RuleRef | str
    tags: tuple[Tag, ...]


class Deny(msgspec.Struct, frozen=True, gc=False):
    """Denied, and why."""

    reason: Reason
    tags: tuple[Tag, ...]


#: The tag of what was denied because the source does not answer.
SOURCE_TAG: Tag = "source"


class Need(msgspec.Struct, frozen=True, gc=False):
    """The record ``key`` of ``slice`` must be asked for first. ``key`` "" is a whole slice."""

    slice: str
    key: str


PolicyVerdict = Allow | Deny | Need


class Tunnel(msgspec.Struct, frozen=True, gc=False):
    """On another compute host: send to its tunnel address with the VNI of the target subnet."""

    host: bytes
    vni: int
    tags: tuple[Tag, ...]
    #: Set when routed: (gateway MAC of the target subnet, MAC of the next hop).
    rewrite: tuple[bytes, bytes] | None = None


class Local(msgspec.Struct, frozen=True, gc=False):
    """On this compute host, the port with this id."""

    port: str
    tags: tuple[Tag, ...]
    rewrite: tuple[bytes, bytes] | None = None


class GatewayEcho(msgspec.Struct, frozen=True, gc=False):
    """The gateway itself, which answers ping."""

    tags: tuple[Tag, ...]


class NoLocation(msgspec.Struct, frozen=True, gc=False):
    """There is no way to the destination, and why."""

    reason: Reason
    tags: tuple[Tag, ...]


Location = Tunnel | Local | GatewayEcho | NoLocation | Need


class Answer(msgspec.Struct, frozen=True, gc=False):
    """ARP or ND for an address is answered with this MAC."""

    mac: bytes
    tags: tuple[Tag, ...]
    #: It is the gateway: an advertisement says so (RFC 4861 section 4.4).
    router: bool = False


class NoAnswer(msgspec.Struct, frozen=True, gc=False):
    """Nobody answers, and why."""

    reason: Reason
    tags: tuple[Tag, ...]


Resolution = Answer | NoAnswer | Need

"""Slices: the unit in which goal state travels, and the contract that every source of slices keeps.

A *slice* is a named set of records. Its *version* grows with every change, and each change says which
version it follows, so that a reader sees at once when it missed one. Names::

    host/<host id>            the ports bound on one compute host, and the host groups it belongs to
    hostgroup/<group id>      the ports bound on the hosts of one group (a rack, say), which all of
                              them share
    vpc/<vpc id>              subnets, routers, routes and address claims of a VPC
    sg/<security group id>    one security group and its rules
    nbr/<vpc id>/<shard>      neighbors; the shard follows from the address (``neighbor_slice``)

The types here are values; a source does the I/O and calls back with them.
"""

from __future__ import annotations

import enum
import functools
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ondemand.addresses import format_ip

#: Identifiers may stand in a file name, an OVSDB string and (escaped) in a message subject.
ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}"
_ID = re.compile(ID_PATTERN)

#: Shards of the MAC pointers (see ``records.MacPointer``), which no address block can tell.
MAC_SHARDS = 256


class SliceNameError(ValueError):
    """A name is no slice name, or an identifier has characters that none may have."""


class SliceKind(enum.Enum):
    """The first part of a slice's name."""

    HOST = "host"
    HOST_GROUP = "hostgroup"
    VPC = "vpc"
    SECURITY_GROUP = "sg"
    NEIGHBORS = "nbr"


def is_id(value: str) -> bool:
    """Whether ``value`` may be an identifier."""
    return _ID.fullmatch(value) is not None


def check_id(what: str, value: str) -> str:
    """Return ``value`` if it may be an identifier; SliceNameError naming ``what`` otherwise."""
    if not is_id(value):
        raise SliceNameError(
            f"{what} {value!r} is no identifier: 1 to 64 letters, digits and '_.:-',"
            " a letter or digit first"
        )
    return value


def host_slice(host: str) -> str:
    return "host/" + host


def host_group_slice(group: str) -> str:
    return "hostgroup/" + group


def vpc_slice(vpc: str) -> str:
    return "vpc/" + vpc


def group_slice(group: str) -> str:
    return "sg/" + group


def neighbor_slice(vpc: str, ip: bytes) -> str:
    """The slice that holds the neighbor record of ``ip`` (4 or 16 bytes) in a VPC.

    IPv4 neighbors are sharded by /24, IPv6 neighbors by /120: 256 addresses a shard. A VM talks to few
    subnets, so address blocks keep what a host follows small, and a shard never grows with the VPC.
    """
    return f"nbr/{vpc}/{format_ip(ip[:-1] + bytes(1))}"


def mac_slice(vpc: str, mac: bytes) -> str:
    """The slice that holds the MAC pointer of ``mac`` in a VPC."""
    return f"nbr/{vpc}/mac-{zlib.crc32(mac) % MAC_SHARDS}"


@functools.lru_cache(maxsize=4096)
def kind_of(name: str) -> SliceKind:
    """The kind of a slice name; SliceNameError when it is none."""
    head, _, rest = name.partition("/")
    try:
        kind = SliceKind(head)
    except ValueError:
        raise SliceNameError(
            f"{name!r} is no slice name: it must start with host/, hostgroup/, vpc/, sg/ or nbr/"
        ) from None
    parts = rest.split("/")
    if len(parts) != (2 if kind is SliceKind.NEIGHBORS else 1):
        raise SliceNameError(f"{name!r} is no slice name: wrong number of parts")
    check_id("slice owner", parts[0])
    return kind


@dataclass(frozen=True, slots=True)
class Change:
    """One record written (``payload``) or removed (``payload`` None: a tombstone).

    ``version`` is the slice's version after the change, ``previous`` the one before it. A reader that
    holds another version than ``previous`` has missed something and must ask for the delta.
    """

    version: int
    previous: int
    key: str
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Lookup:
    """Answer of ``get``: the record's payload, or None when absent, as of the slice's ``version``."""

    slice: str
    key: str
    version: int
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All records of a slice at ``version``. A slice that was never written has version 0.

    ``store`` is set when the store is another one than that which gave the versions of before, or
    went back in time: it is the identity of the store, and the snapshot counts whatever its version.
    """

    slice: str
    version: int
    records: Mapping[str, bytes]
    store: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """What changed after ``since``, oldest first; applying it brings a reader to ``version``.

    Of a key that changed several times only the last change may be listed, so ``previous`` of the
    first change is ``since`` and each further one follows the change before it in the list.
    """

    slice: str
    since: int
    version: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class TooOld:
    """The source no longer knows what changed after ``since``: take the snapshot."""

    slice: str
    since: int
    oldest: int


@dataclass(frozen=True, slots=True)
class SourceState:
    """Said through ``watch`` when the source is lost (``error`` set) and when it is back (None)."""

    error: str | None


SourceEvent = Delta | Snapshot | SourceState
Deliver = Callable[[SourceEvent], None]


class SourceError(Exception):
    """The source cannot answer now. The message names the source and the mend."""


class SliceRefusedError(SourceError):
    """This one slice cannot be read, and others can. The message names the mend."""


class Watch(Protocol):
    """A running subscription. Its methods may be called from any thread."""

    def follow(self, name: str, since: int) -> None:
        """Also deliver what changes in slice ``name`` after version ``since``."""

    def forget(self, name: str) -> None:
        """Deliver nothing more of slice ``name`` (what is on its way may still arrive)."""

    def close(self) -> None:
        """End the subscription; after the return nothing more is delivered."""


class SliceSource(Protocol):
    """Where slices come from. All methods raise SourceError when the source cannot answer.

    ``is_local`` says that ``get`` answers in microseconds, without a network, so that the thread
    that owns the engine may call it itself instead of parking the packet.
    """

    is_local: bool

    def identity(self) -> str:
        """Which store this is: versions mean something only where this is the same.

        Made at random when the store was created. "" for one that has none yet, which cannot be told
        from another.
        """

    def get(self, name: str, key: str) -> Lookup:
        """One record of a slice, or its absence, for the packet that waits."""

    def get_many(self, places: Sequence[tuple[str, str]]) -> list[Lookup]:
        """As ``get`` for several (slice, key), in their order: packets that wait at the same time."""

    def snapshot(self, name: str) -> Snapshot:
        """All records of a slice, consistent at one version."""

    def delta(self, name: str, since: int) -> Delta | TooOld:
        """What changed after version ``since``; an empty delta when nothing did."""

    def watch(self, deliver: Deliver, identity: str | None = None) -> Watch:
        """Push changes of the slices that the watch follows, from a thread of the source's own.

        Nothing is lost between ``since`` and the moment of ``follow``: what lies between comes
        first. Where the source cannot tell it any more, a Snapshot is delivered instead. ``deliver``
        must be quick and must not raise.

        ``identity`` is that of the store which gave the versions that will be followed from. If the
        store is another one by then, Snapshots that say so come instead of deltas.
        """

    def close(self) -> None:
        """Release files and connections."""

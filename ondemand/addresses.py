"""MAC and IP addresses between their text and the bytes that the rest of the program works with.

A MAC is ``bytes`` of 6, an IPv4 address ``bytes`` of 4, an IPv6 address ``bytes`` of 16, all in
network order. Text comes from configuration and goal state, and goes to record keys, flow text and
logs; so there is one spelling for each address on output, the same on every Python release.

Caches are bounded and hold pure results only.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import struct
from collections.abc import Callable
from typing import TypeVar

import msgspec

MAC_BYTES = 6
IPV4_BYTES = 4
IPV6_BYTES = 16

#: A host talks to a few thousand neighbors; an entry costs about 250 bytes.
_CACHE_ENTRIES = 4096
#: Longer input is cut in an error message.
_SHOWN_CHARACTERS = 80

_MAC_TEXT = re.compile(r"[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}")
_PREFIX_LENGTH_TEXT = re.compile(r"0|[1-9][0-9]{0,2}")
_IPV6_GROUPS = struct.Struct(">8H")
#: ::ffff:0:0/96, IPv4-mapped (RFC 4291 section 2.5.5.2).
_IPV4_MAPPED = bytes(10) + b"\xff\xff"
#: fe80::/64 (RFC 4291 section 2.5.6).
_LINK_LOCAL = b"\xfe\x80" + bytes(6)
#: ff02::1:ff00:0/104 (RFC 4291 section 2.7.1).
_SOLICITED_NODE = b"\xff\x02" + bytes(9) + b"\x01\xff"

_K = TypeVar("_K")
_V = TypeVar("_V")


class AddressError(ValueError):
    """A text or value that is no address or prefix; the message repeats it and says why."""

    def __init__(self, offender: str | bytes, reason: str) -> None:
        shown = repr(offender[:_SHOWN_CHARACTERS])
        if len(offender) > _SHOWN_CHARACTERS:
            shown += "..."
        super().__init__(f"{shown}: {reason}")
        self.offender = offender
        self.reason = reason


def _cached(function: Callable[[_K], _V]) -> Callable[[_K], _V]:
    """functools.lru_cache that keeps the argument's type, which typeshed's drops."""
    return functools.lru_cache(maxsize=_CACHE_ENTRIES)(function)


def parse_mac(text: str) -> bytes:
    """Six bytes from ``aa:bb:cc:dd:ee:ff`` or ``AA-BB-CC-DD-EE-FF``.

    Raises:
        AddressError: ``text`` is not a MAC.
    """
    if _MAC_TEXT.fullmatch(text) is None:
        raise AddressError(text, "not a MAC; write it as fa:16:3e:00:00:01")
    return bytes.fromhex(text.replace(text[2], ""))


def format_mac(mac: bytes) -> str:
    """``aa:bb:cc:dd:ee:ff``, in lower case.

    Raises:
        AddressError: ``mac`` is not 6 bytes long.
    """
    if len(mac) != MAC_BYTES:
        raise AddressError(mac, f"a MAC has 6 bytes, not {len(mac)}")
    return mac.hex(":")


@_cached
def parse_ip(text: str) -> bytes:
    """4 bytes from dotted decimal, 16 from any spelling of RFC 4291 section 2.2.

    A zone (``fe80::1%eth0``) means nothing off the host that wrote it and is refused, as are leading
    zeros in IPv4, which some programs read as octal.

    Raises:
        AddressError: ``text`` is not an IP address.
    """
    parts = text.split(".")
    if len(parts) == 4:
        try:
            packed = bytes(map(int, parts))
        except ValueError:
            packed = b""
        # What int() takes beside plain numbers does not come out as it went in.
        if packed and _dotted(packed) == text:
            return packed
    try:
        if ":" not in text:
            return ipaddress.IPv4Address(text).packed
        if "%" not in text:
            return ipaddress.IPv6Address(text).packed
    except ipaddress.AddressValueError:
        pass
    raise AddressError(text, "not an IP address; write it as 10.0.0.1 or fd00::1")


@_cached
def format_ip(ip: bytes) -> str:
    """The canonical text: dotted decimal for 4 bytes, RFC 5952 for 16.

    IPv4-mapped addresses are written ``::ffff:192.0.2.1`` (RFC 5952 section 5). The standard library
    does so only from Python 3.13 on, and record keys must not depend on the release.

    Raises:
        AddressError: ``ip`` is neither 4 nor 16 bytes long.
    """
    if len(ip) == IPV4_BYTES:
        return _dotted(ip)
    if len(ip) != IPV6_BYTES:
        raise AddressError(ip, f"an IP address has 4 or 16 bytes, not {len(ip)}")
    if ip.startswith(_IPV4_MAPPED):
        return "::ffff:" + _dotted(ip[12:])
    groups = _IPV6_GROUPS.unpack(ip)
    start, length = _longest_zero_run(groups)
    if length < 2:  # RFC 5952 section 4.2.2: a single zero group is not shortened
        return ":".join([f"{group:x}" for group in groups])
    head = ":".join([f"{group:x}" for group in groups[:start]])
    tail = ":".join([f"{group:x}" for group in groups[start + length :]])
    return f"{head}::{tail}"


def _dotted(ip: bytes) -> str:
    a, b, c, d = ip
    return f"{a}.{b}.{c}.{d}"


def _longest_zero_run(groups: tuple[int, ...]) -> tuple[int, int]:
    """Start and length of the first longest run of zeros (RFC 5952 section 4.2.3)."""
    best_start, best_length = 0, 0
    length = 0
    for index, group in enumerate(groups):
        if group:
            length = 0
            continue
        length += 1
        if length > best_length:
            best_start, best_length = index - length + 1, length
    return best_start, best_length


class Prefix(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An IP prefix: ``network`` (4 or 16 bytes, no bit set behind ``length``) and ``length`` in bits.

    The constructor does not check, so that a decoder can say which record is wrong; text goes
    through ``parse_prefix``, which does.
    """

    network: bytes
    length: int

    def contains(self, ip: bytes) -> bool:
        """Whether ``ip`` lies in the prefix; an address of the other family never does."""
        network = self.network
        if len(ip) != len(network):
            return False
        differing = int.from_bytes(ip, "big") ^ int.from_bytes(network, "big")
        return not differing >> (len(network) * 8 - self.length)

    def __str__(self) -> str:
        return f"{format_ip(self.network)}/{self.length}"


def parse_prefix(text: str) -> Prefix:
    """A Prefix from ``address/length``; a bare address is the prefix of that host alone.

    Raises:
        AddressError: not an address, a length out of range, or bits set behind the length.
    """
    address, slash, length_text = text.partition("/")
    try:
        ip = parse_ip(address)
    except AddressError:
        raise AddressError(text, "not an IP prefix; write it as 10.0.0.0/24 or fd00::/64") from None
    bits = len(ip) * 8
    if not slash:
        return Prefix(ip, bits)
    length = int(length_text) if _PREFIX_LENGTH_TEXT.fullmatch(length_text) else bits + 1
    if length > bits:
        raise AddressError(text, f"the prefix length must be a number in 0..{bits}")
    value = int.from_bytes(ip, "big")
    network = (value >> (bits - length) << (bits - length)).to_bytes(len(ip), "big")
    if network != ip:
        raise AddressError(
            text, f"has bits set behind the prefix length; did you mean {Prefix(network, length)}?"
        )
    return Prefix(ip, length)


def link_local_of(mac: bytes) -> bytes:
    """The IPv6 link-local address that a host forms from its MAC (modified EUI-64, RFC 4291
    appendix A). A host may use another one (RFC 7217, RFC 8981).

    Raises:
        AddressError: ``mac`` is not 6 bytes long.
    """
    if len(mac) != MAC_BYTES:
        raise AddressError(mac, f"a MAC has 6 bytes, not {len(mac)}")
    return _LINK_LOCAL + bytes((mac[0] ^ 0x02,)) + mac[1:3] + b"\xff\xfe" + mac[3:]


def solicited_node(ip: bytes) -> bytes:
    """The multicast group to which a neighbor solicitation for ``ip`` is sent (RFC 4291 section
    2.7.1).

    Raises:
        AddressError: ``ip`` is not 16 bytes long.
    """
    if len(ip) != IPV6_BYTES:
        raise AddressError(ip, f"an IPv6 address has 16 bytes, not {len(ip)}")
    return _SOLICITED_NODE + ip[13:]

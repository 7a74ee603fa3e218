"""Records to msgpack and back, validated once, here, at the border.

``decode_record`` is the only way in: what it returns has been checked for type and meaning, and the
rest of the program does not check again. A payload that fails counts as missing; the caller reports
the RecordError, which names the slice, the key and the reason.
"""

from __future__ import annotations

import msgpack
import msgspec

from ondemand.addresses import Prefix
from ondemand.records import (
    ANY,
    ANY_PROTOCOL,
    Claim,
    Group,
    HostGroup,
    MacPointer,
    Neighbor,
    Port,
    Record,
    Route,
    Router,
    SecurityRule,
    Subnet,
)
from ondemand.slices import SliceKind, is_id, kind_of

#: No record comes near these; they bound what a hostile payload can make the decoder allocate.
MAX_PAYLOAD_BYTES = 1 << 20
_MAX_ITEMS = 65_536

#: 24 bits on the wire (RFC 7348 section 5); 0 is left free for "no VNI" in registers.
MAX_VNI = (1 << 24) - 1
PORTED = frozenset({6, 17, 132})  # TCP, UDP, SCTP
ICMP, ICMPV6 = 1, 58

_ALLOWED: dict[SliceKind, tuple[type, ...]] = {
    SliceKind.HOST: (HostGroup, Port),
    SliceKind.HOST_GROUP: (Port,),
    SliceKind.VPC: (Subnet, Router, Route, Claim),
    SliceKind.SECURITY_GROUP: (Group, SecurityRule),
    SliceKind.NEIGHBORS: (Neighbor, MacPointer),
}


#: By the name that stands first on the wire (the struct's tag).
_TYPES: dict[str, type[Record]] = {
    "hostgroup": HostGroup,
    "port": Port,
    "nbr": Neighbor,
    "mac": MacPointer,
    "subnet": Subnet,
    "router": Router,
    "route": Route,
    "claim": Claim,
    "group": Group,
    "rule": SecurityRule,
}


class RecordError(ValueError):
    """A record cannot be used: the message names its slice, its key and the reason."""

    def __init__(self, slice_name: str, key: str, reason: str) -> None:
        super().__init__(f"record {key!r} of slice {slice_name!r}: {reason}")
        self.slice_name = slice_name
        self.key = key
        self.reason = reason


def encode_record(record: Record) -> bytes:
    """The record's payload: a msgpack array that starts with the type's name."""
    packed: bytes = msgpack.packb(msgspec.to_builtins(record, builtin_types=(bytes,)))
    return packed


def decode_record(slice_name: str, key: str, payload: bytes) -> Record:
    """The record in ``payload``, checked; RecordError when it is none or belongs elsewhere."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise RecordError(slice_name, key, f"{len(payload)} bytes, at most {MAX_PAYLOAD_BYTES}")
    try:
        raw = msgpack.unpackb(payload, max_array_len=_MAX_ITEMS, max_map_len=0, max_ext_len=0)
        # The type is looked up here because msgspec prepares a union anew at each call (8 us).
        kind = raw[0] if isinstance(raw, list) and raw and isinstance(raw[0], str) else ""
        record: Record = msgspec.convert(raw, _TYPES[kind], builtin_types=(bytes,))
    except KeyError:
        raise RecordError(slice_name, key, "not decodable: it names no type of record") from None
    except (ValueError, msgpack.UnpackException, msgspec.ValidationError, RecursionError) as error:
        # UnpackException covers truncation; ValueError covers bad UTF-8 and the limits above.
        raise RecordError(slice_name, key, f"not decodable: {error}") from None
    reason: str | None
    if not isinstance(record, _ALLOWED[kind_of(slice_name)]):
        reason = f"a {type(record).__name__} does not belong into this slice"
    else:
        # The key repeats addresses in text, so it can only be computed from sound fields.
        reason = check_record(record) or _key_error(key, record)
    if reason:
        raise RecordError(slice_name, key, reason)
    return record


def _key_error(key: str, record: Record) -> str | None:
    return None if record.key == key else f"the record says that its key is {record.key!r}"


def check_record(record: Record) -> str | None:
    """Why the record's fields make no sense, or None when they do."""
    if isinstance(record, Port):
        return (
            _ids_error(record.id, record.vpc, record.subnet, *record.groups)
            or mac_error(record.mac)
            or _first(_ip_error("fixed IP", ip) for ip in record.fixed_ips)
            or _first(
                _prefix_error("allowed address pair", pair.prefix) or mac_error(pair.mac)
                for pair in record.pairs
            )
        )
    if isinstance(record, HostGroup):
        return _ids_error(record.id) or (
            _ip_error("tunnel address", record.host) if record.host else None
        )
    if isinstance(record, Neighbor):
        return (
            _ids_error(record.subnet, record.port, *record.groups)
            or _ip_error("address", record.ip)
            or mac_error(record.mac)
            or _ip_error("tunnel address", record.host)
        )
    if isinstance(record, MacPointer):
        return (
            _ids_error(record.subnet, record.port)
            or mac_error(record.mac)
            or _ip_error("tunnel address", record.host)
        )
    if isinstance(record, Claim):
        return (
            _ids_error(record.subnet, record.port, *record.groups)
            or _prefix_error("claim", record.prefix)
            or mac_error(record.mac)
            or _ip_error("tunnel address", record.host)
        )
    if isinstance(record, Subnet):
        return _ids_error(record.id) or _subnet_error(record)
    if isinstance(record, Router):
        return _ids_error(record.id, *record.subnets)
    if isinstance(record, Route):
        return (
            _ids_error(record.router)
            or _prefix_error("route", record.prefix)
            or _ip_error("next hop", record.nexthop)
            or (
                None
                if len(record.nexthop) == len(record.prefix.network)
                else "next hop and prefix are of different families"
            )
        )
    if isinstance(record, SecurityRule):
        return _rule_error(record)
    return _ids_error(record.id)


def _ids_error(*values: str) -> str | None:
    """Identifiers become parts of slice names and keys, so a '/' in one would forge another name."""
    for value in values:
        if not is_id(value):
            return f"{value[:80]!r} is no identifier"
    return None


def _first(errors: object) -> str | None:
    return next((error for error in errors if error), None)  # type: ignore[attr-defined]


def mac_error(mac: bytes) -> str | None:
    """Why no interface can have this MAC, or None when one can."""
    if len(mac) != 6:
        return f"a MAC of {len(mac)} bytes"
    if mac[0] & 1:
        return f"MAC {mac.hex(':')} is a multicast address"
    return None if any(mac) else "MAC 00:00:00:00:00:00"


def _ip_error(what: str, ip: bytes) -> str | None:
    return None if len(ip) in (4, 16) else f"{what} of {len(ip)} bytes"


def _prefix_error(what: str, prefix: Prefix) -> str | None:
    bits = len(prefix.network) * 8
    if bits not in (32, 128):
        return f"{what}: a network address of {bits // 8} bytes"
    if not 0 <= prefix.length <= bits:
        return f"{what}: prefix length {prefix.length} is not in 0..{bits}"
    if int.from_bytes(prefix.network) & ((1 << (bits - prefix.length)) - 1):
        return f"{what}: {prefix} has bits set behind its prefix length"
    return None


def _subnet_error(subnet: Subnet) -> str | None:
    if not 0 < subnet.vni <= MAX_VNI:
        return f"VNI {subnet.vni} is not in 1..{MAX_VNI}"
    reason = _first(_prefix_error("prefix", prefix) for prefix in subnet.prefixes)
    if reason:
        return reason
    families = [len(prefix.network) for prefix in subnet.prefixes]
    if not families or len(set(families)) != len(families):
        return "a subnet has one prefix of each family at most, and at least one"
    if subnet.gateways:
        reason = mac_error(subnet.gateway_mac)
        if reason:
            return "gateway: " + reason
    for gateway in subnet.gateways:
        if not any(prefix.contains(gateway) for prefix in subnet.prefixes):
            return f"gateway {gateway.hex()} lies outside the subnet"
    if len({len(gateway) for gateway in subnet.gateways}) != len(subnet.gateways):
        return "a subnet has one gateway of each family at most"
    return None


def _rule_error(rule: SecurityRule) -> str | None:
    reason = _ids_error(rule.id, *([] if rule.remote_group is None else [rule.remote_group]))
    if reason:
        return reason
    if rule.family not in (4, 6):
        return f"family {rule.family} is neither 4 nor 6"
    if rule.protocol != ANY_PROTOCOL and not 0 <= rule.protocol <= 255:
        return f"protocol {rule.protocol} is not in 0..255"
    low, high = rule.port_min, rule.port_max
    if rule.protocol in PORTED:
        if not (low == high == ANY or 0 <= low <= high <= 65535):
            return f"port range {low}..{high} is not in 0..65535 in order"
    elif rule.protocol == (ICMP if rule.family == 4 else ICMPV6):
        if not (-1 <= low <= 255 and -1 <= high <= 255) or (low == ANY and high != ANY):
            return f"ICMP type {low}, code {high}: each 0..255, a code only with a type"
    elif (low, high) != (ANY, ANY):
        return "ports only go with TCP, UDP and SCTP, type and code with ICMP of the rule's family"
    if rule.remote_prefix is not None:
        if rule.remote_group is not None:
            return "remote prefix and remote group exclude each other"
        reason = _prefix_error("remote prefix", rule.remote_prefix)
        if reason:
            return reason
        if len(rule.remote_prefix.network) != (4 if rule.family == 4 else 16):
            return f"remote prefix {rule.remote_prefix} is not of family {rule.family}"
    return None


__all__ = [
    "Group",
    "Record",
    "RecordError",
    "Router",
    "check_record",
    "decode_record",
    "encode_record",
]

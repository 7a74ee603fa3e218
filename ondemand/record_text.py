"""Records as a person or a program reads them: addresses in text, words as in a goal state."""

from __future__ import annotations

from ondemand.addresses import MAC_BYTES, Prefix, format_ip, format_mac
from ondemand.codec import ICMP, ICMPV6
from ondemand.records import (
    ANY,
    ANY_PROTOCOL,
    AddressPair,
    Record,
    SecurityRule,
)

_PROTOCOL_NAMES = {
    ANY_PROTOCOL: "any",
    ICMP: "icmp",
    6: "tcp",
    17: "udp",
    ICMPV6: "icmpv6",
    132: "sctp",
}

Plain = str | int | bool | None | list["Plain"] | dict[str, "Plain"]


def protocol_text(protocol: int) -> str | int:
    """The name that a goal state uses, or the number where there is none."""
    return _PROTOCOL_NAMES.get(protocol, protocol)


def record_fields(record: Record) -> dict[str, Plain]:
    """The record as JSON may hold it; ``type`` says which record it is."""
    fields: dict[str, Plain] = {"type": type(record).__name__}
    if isinstance(record, SecurityRule):
        return fields | _rule_fields(record)
    for name in record.__struct_fields__:
        fields[name] = _plain(getattr(record, name))
    return fields


def fields_line(fields: dict[str, Plain], *, names: bool = True) -> str:
    """Fields in one line, without the type, the id and what is empty."""
    shown = {
        name: value
        for name, value in fields.items()
        if not names or (name not in ("type", "id") and value not in (None, [], ""))
    }
    return "  ".join(
        f"{name}={_short(value)}" if names else _short(value) for name, value in shown.items()
    )


def _rule_fields(rule: SecurityRule) -> dict[str, Plain]:
    fields: dict[str, Plain] = {
        "id": rule.id,
        "direction": rule.direction.name.lower(),
        "ethertype": f"IPv{rule.family}",
        "protocol": protocol_text(rule.protocol),
    }
    if rule.protocol in (ICMP, ICMPV6):
        fields["icmp_type"] = None if rule.port_min == ANY else rule.port_min
        fields["icmp_code"] = None if rule.port_max == ANY else rule.port_max
    elif rule.port_min != ANY:
        one = rule.port_min == rule.port_max
        fields["ports"] = rule.port_min if one else f"{rule.port_min}-{rule.port_max}"
    fields["remote_prefix"] = None if rule.remote_prefix is None else str(rule.remote_prefix)
    fields["remote_group"] = rule.remote_group
    return fields


def _plain(value: object) -> Plain:
    if isinstance(value, bytes):
        if not value:
            return None
        return format_mac(value) if len(value) == MAC_BYTES else format_ip(value)
    if isinstance(value, Prefix):
        return str(value)
    if isinstance(value, AddressPair):
        return {"ip": str(value.prefix), "mac": format_mac(value.mac)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str | int):
        return value
    raise TypeError(f"no text for {type(value).__name__}")


def _short(value: Plain) -> str:
    if isinstance(value, list):
        return ",".join(map(_short, value))
    if isinstance(value, dict):
        return "@".join(map(_short, value.values()))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)

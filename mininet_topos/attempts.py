"""What single tries show: a ping, a connection, one that must be dropped."""

from __future__ import annotations

from ipaddress import ip_address

from mininet_topos.promises import Seen
from mininet_topos.traffic_node import PingResult, TcpAttempt


def family_of(address: str) -> str:
    """``IPv4`` or ``IPv6``."""
    return f"IPv{ip_address(address).version}"


def ping_seen(what: str, result: PingResult) -> Seen:
    return Seen(result.all_answered, f"{what} {result.received} of {result.sent}")


def tcp_seen(what: str, attempt: TcpAttempt) -> Seen:
    if attempt.ms is None:
        return Seen(ok=False, text=f"{what} {attempt.error}")
    return Seen(attempt.connected, f"{what} {attempt.ms:.1f} ms")


def denied_seen(own: TcpAttempt, attempt: TcpAttempt, name: str) -> Seen:
    """``own``: the same connection made inside the VM itself, which shows that a server listens."""
    if not own.connected:
        return Seen(ok=False, text=f"{name} has no server: {own.error}")
    if attempt.connected:
        return Seen(ok=False, text=f"{name} connected")
    dropped = attempt.error == "timeout"
    return Seen(dropped, f"{name} {'dropped' if dropped else attempt.error}")

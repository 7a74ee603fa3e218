"""Small goal states to start a test from, as a parser gives them."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]


def port(number: int, **changes: Any) -> Document:
    """A port on host h1 in subnet s, with address 10.0.0.<number>."""
    made: Document = {
        "id": f"vm{number}",
        "host": "h1",
        "subnet": "s",
        "mac": f"fa:16:3e:00:00:{number:02x}",
        "fixed_ips": [f"10.0.0.{number}"],
    }
    return made | changes


def subnet(**changes: Any) -> Document:
    made: Document = {
        "id": "s",
        "vni": 100,
        "cidrs": ["10.0.0.0/24", "fd00::/64"],
        "gateways": ["10.0.0.1", "fd00::1"],
    }
    return made | changes


def group(*rules: Document, **changes: Any) -> Document:
    return {"id": "g", "rules": list(rules)} | changes


def rule(**changes: Any) -> Document:
    return {"direction": "ingress"} | changes


def vpc(**changes: Any) -> Document:
    """One subnet, one group, ports vm10 and vm11 in it."""
    made: Document = {
        "id": "v",
        "subnets": [subnet()],
        "security_groups": [group()],
        "ports": [port(10, security_groups=["g"]), port(11)],
    }
    return made | changes


def goal_state(*vpcs: Document, **changes: Any) -> Document:
    made: Document = {
        "hosts": [
            {"id": "h1", "tunnel_ip": "192.0.2.1"},
            {"id": "h2", "tunnel_ip": "192.0.2.2"},
        ],
        "vpcs": list(vpcs),
    }
    return made | changes

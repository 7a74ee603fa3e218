"""Parts of goal states that the demo and the experiments share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

#: The router's addresses in each subnet, IPv4 and IPv6.
GATEWAYS: Final = {
    "front": ("10.0.1.1", "fd00:1::1"),
    "back": ("10.0.2.1", "fd00:2::1"),
}


def front_and_back() -> list[dict[str, Any]]:
    """Two dual-stack subnets."""
    return [
        _subnet("front", 5001, "10.0.1.0/24", "fd00:1::/64"),
        _subnet("back", 5002, "10.0.2.0/24", "fd00:2::/64"),
    ]


def fleet_subnet(prefix: str, gateway: str) -> dict[str, Any]:
    """The subnet of synthetic neighbors."""
    return {"id": "fleet", "vni": 5003, "cidrs": [prefix], "gateways": [gateway]}


def both_families(name: str, direction: str, **fields: object) -> list[dict[str, Any]]:
    """A security rule for IPv4 and the same for IPv6, ``<name>-v4`` and ``<name>-v6``."""
    return [
        {"id": f"{name}-v{family}", "direction": direction, "ethertype": f"IPv{family}", **fields}
        for family in (4, 6)
    ]


def one_vpc(
    name: str,
    tunnels: Mapping[str, str],
    *,
    subnets: Sequence[Mapping[str, Any]],
    groups: Sequence[Mapping[str, Any]],
    ports: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """A document with one VPC whose router joins all subnets; ``tunnels``: address by host id."""
    return {
        "hosts": [{"id": host, "tunnel_ip": address} for host, address in tunnels.items()],
        "vpcs": [
            {
                "id": name,
                "subnets": list(subnets),
                "routers": [{"id": "main", "subnets": [subnet["id"] for subnet in subnets]}],
                "security_groups": list(groups),
                "ports": list(ports),
            }
        ],
    }


def _subnet(name: str, vni: int, *cidrs: str) -> dict[str, Any]:
    return {"id": name, "vni": vni, "cidrs": list(cidrs), "gateways": list(GATEWAYS[name])}

"""The shape of a goal state: what a person may write, before its meaning is checked.

Each class is one mapping of the document; a field without a default must be written. Addresses are
still text here. Lists of further mappings stay raw, so that each of their items is read, and found
wrong, on its own. ``docs/goal-state.md`` gives the meaning, ``docs/goal-state.schema.json`` the same
shape as a JSON schema.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class _Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An unknown key is an error, because it is most often a misspelt one."""


class GoalInput(_Input, frozen=True):
    """The document."""

    hosts: list[object] = []
    vpcs: list[object] = []


class HostInput(_Input, frozen=True):
    """A compute host. ``group`` names the host group (a rack, say) that it belongs to."""

    id: str
    tunnel_ip: str
    group: str | None = None


class VpcInput(_Input, frozen=True):
    """A network of one tenant; addresses of different VPCs never meet."""

    id: str
    subnets: list[object] = []
    routers: list[object] = []
    security_groups: list[object] = []
    ports: list[object] = []


class SubnetInput(_Input, frozen=True):
    """An L2 domain with its own VNI."""

    id: str
    vni: int
    cidrs: list[str]
    gateways: list[str] = []
    gateway_mac: str | None = None


class RouterInput(_Input, frozen=True):
    """Joins subnets of its VPC."""

    id: str
    subnets: list[str] = []
    routes: list[object] = []


class RouteInput(_Input, frozen=True):
    """A static route."""

    to: str
    via: str


class GroupInput(_Input, frozen=True):
    """A security group. Its id is unique over all VPCs."""

    id: str
    name: str = ""
    rules: list[object] = []


class RuleInput(_Input, frozen=True):
    """An allow rule of a security group."""

    direction: Literal["ingress", "egress"]
    id: str | None = None
    ethertype: Literal["IPv4", "IPv6"] | None = None
    protocol: int | str = "any"
    ports: int | str | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    remote_prefix: str | None = None
    remote_group: str | None = None


class PairInput(_Input, frozen=True):
    """An allowed address pair; ``mac`` is the port's own unless given."""

    ip: str
    mac: str | None = None


class PortInput(_Input, frozen=True):
    """A VM's interface, on the host that runs the VM. Its id is unique over all VPCs."""

    id: str
    host: str
    subnet: str
    mac: str
    fixed_ips: list[str] = []
    security_groups: list[str] = []
    allowed_address_pairs: list[object] = []
    port_security: bool = True

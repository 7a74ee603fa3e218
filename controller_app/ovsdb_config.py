"""The agent's bridge, as the configuration describes it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

DATAPATH_TYPES: Final = ("auto", "system", "netdev")
#: The keys of Interface.options that the agent sets; it leaves all others alone.
TUNNEL_OPTIONS: Final = ("remote_ip", "key", "local_ip", "dst_port")

#: Linux allows 15 bytes (IFNAMSIZ - 1); OVS takes "/" for no name.
_DEVICE_NAME = re.compile(r"[^\s/]{1,15}")
_UNIX_ADDRESS = re.compile(r"unix:/\S+")
_TCP_ADDRESS = re.compile(r"tcp:(?:\[(?P<ipv6>[^\]]+)\]|(?P<ipv4>[0-9.]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class BridgeConfig:
    """Which bridge the agent serves, and how. The same value is given to every part; it never changes.

    Attributes:
        bridge: name of the bridge, at most 15 bytes. Default br-int.
        ovsdb: address of ovsdb-server, ``unix:/path`` or ``tcp:address:port``.
        datapath_type: ``system`` (kernel), ``netdev`` (userspace), or ``auto``: what the bridge has;
            for a new bridge, and for one whose kernel datapath cannot be opened, what works here.
        tunnel_port: name of the VXLAN port on the bridge, at most 15 bytes. Default vxlan0.
        tunnel_local_ip: source address of tunnel packets; None: as the host routes them.
        tunnel_dst_port: UDP port, 1..65535; None: 4789 (RFC 7348).
        controller: where the switch finds the agent, ``tcp:address:port`` or ``unix:/path``.
            ovs-vswitchd connects only to unix sockets in its run directory.
        take_over: replace the controller, datapath type and tunnel options that somebody else set.

    Raises:
        ValueError: the message starts with the name of the field.
    """

    bridge: str = "br-int"
    ovsdb: str = "unix:/var/run/openvswitch/db.sock"
    datapath_type: str = "auto"
    tunnel_port: str = "vxlan0"
    tunnel_local_ip: str | None = None
    tunnel_dst_port: int | None = None
    controller: str = "tcp:127.0.0.1:6653"
    take_over: bool = False

    def __post_init__(self) -> None:
        for name in ("bridge", "tunnel_port"):
            value = getattr(self, name)
            if _DEVICE_NAME.fullmatch(value) is None or len(value.encode()) > 15:
                raise ValueError(
                    f"{name}: {value!r} is no device name; use 1 to 15 letters or digits"
                )
        if self.bridge == self.tunnel_port:
            raise ValueError(f"tunnel_port: {self.tunnel_port!r} is the bridge; use another name")
        for name in ("ovsdb", "controller"):
            value = getattr(self, name)
            if not _is_address(value):
                raise ValueError(
                    f"{name}: {value!r} is no address; use unix:/path or tcp:address:port"
                )
        if self.datapath_type not in DATAPATH_TYPES:
            raise ValueError(
                f"datapath_type: {self.datapath_type!r} is unknown; use {', '.join(DATAPATH_TYPES)}"
            )
        if self.tunnel_local_ip is not None:
            try:
                ipaddress.ip_address(self.tunnel_local_ip)
            except ValueError as error:
                raise ValueError(f"tunnel_local_ip: {error}") from error
        if self.tunnel_dst_port is not None and not 1 <= self.tunnel_dst_port <= 0xFFFF:
            raise ValueError(f"tunnel_dst_port: {self.tunnel_dst_port} is not in 1..65535")

    @property
    def tunnel_options(self) -> dict[str, str]:
        """Interface.options of the tunnel port; a key of ours that is not here must not be set."""
        options = {"remote_ip": "flow", "key": "flow"}
        if self.tunnel_local_ip is not None:
            options["local_ip"] = self.tunnel_local_ip
        if self.tunnel_dst_port is not None:
            options["dst_port"] = str(self.tunnel_dst_port)
        return options


def _is_address(text: str) -> bool:
    if _UNIX_ADDRESS.fullmatch(text):
        return True
    tcp = _TCP_ADDRESS.fullmatch(text)
    if tcp is None or not 1 <= int(tcp["port"]) <= 0xFFFF:
        return False
    try:
        if tcp["ipv6"]:
            ipaddress.IPv6Address(tcp["ipv6"])
        else:
            ipaddress.IPv4Address(tcp["ipv4"])
    except ValueError:
        return False
    return True

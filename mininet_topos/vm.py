"""A VM: a namespace joined to a compute host by a veth, as a hypervisor's tap would."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from mininet_topos.errors import LabConfigError
from mininet_topos.lab_run import LabRun
from mininet_topos.node import interface_addresses, join_by_veth, without_offloads
from mininet_topos.ovs_host import INTEGRATION_BRIDGE, ComputeHost
from mininet_topos.traffic_node import TrafficNode

#: What VXLAN over IPv4 leaves of an underlay's 1500 bytes.
VM_MTU: Final = 1450

VM_INTERFACE: Final = "eth0"


@dataclass(frozen=True, slots=True)
class VmSpec:
    """What a VM shall be.

    Attributes:
        name: 1-11 letters, digits, ``_``, ``-``.
        mac: colon text.
        addresses: with prefix lengths, ``10.0.1.5/24`` and ``fd00:1::5/64``.
        gateways: at most one per family; each becomes the default route of its family.
        mtu: bytes, 1280 (RFC 8200 section 5) to 65535.
    """

    name: str
    mac: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...] = ()
    mtu: int = VM_MTU

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}", self.mac):
            raise LabConfigError(
                f"VM {self.name}: '{self.mac}' is not a unicast MAC such as 02:00:00:00:00:01"
            )
        interface_addresses(self.addresses)
        versions = [_gateway_version(self.name, gateway) for gateway in self.gateways]
        if len(set(versions)) != len(versions):
            raise LabConfigError(f"VM {self.name}: more than one gateway of one IP version")
        if not 1280 <= self.mtu <= 65535:
            raise LabConfigError(f"VM {self.name}: the MTU {self.mtu} is not in 1280..65535")


class Vm(TrafficNode):
    """A VM on a compute host, not plugged in yet.

    Attributes:
        host: where it runs.
        spec: what it was made from.
        tap: name of the host's end of its veth.
        iface_id: the port id it is plugged in with, None while it is not.
    """

    def __init__(self, run: LabRun, host: ComputeHost, spec: VmSpec) -> None:
        self.host = host
        self.spec = spec
        self.tap: str = f"tap-{spec.name}"
        self.iface_id: str | None = None
        super().__init__(run, spec.name)
        self._configure()

    @property
    def ips(self) -> tuple[str, ...]:
        """Its addresses without prefix lengths."""
        return tuple(str(address.ip) for address in interface_addresses(self.spec.addresses))

    def ip_of(self, version: int) -> str:
        """Its first address of IP version 4 or 6."""
        for address in interface_addresses(self.spec.addresses):
            if address.version == version:
                return str(address.ip)
        raise LabConfigError(f"VM {self.label} has no IPv{version} address")

    def plug(self, iface_id: str, *, wait: bool = True) -> None:
        """Give the host's end of the veth to br-int, as the port ``iface_id``.

        An agent knows the port by ``external_ids:iface-id``, as those of Neutron and OVN do.
        ``wait``: until ovs-vswitchd has taken it; False when that daemon is down.

        Raises:
            CommandError: there is no br-int.
        """
        # Quoted: a value with a colon would otherwise be read as a map entry of its own.
        identity = {"iface-id": iface_id, "attached-mac": self.spec.mac, "iface-status": "active"}
        settings = [f'external_ids:{key}="{value}"' for key, value in identity.items()]
        self.host.vsctl(
            *("--may-exist", "add-port", INTEGRATION_BRIDGE, self.tap),
            *("--", "set", "Interface", self.tap, *settings),
            wait=wait,
        )
        self.iface_id = iface_id

    def unplug(self, *, wait: bool = True) -> None:
        """Take the host's end out of br-int; the veth itself stays. May be called again."""
        self.host.vsctl("--if-exists", "del-port", INTEGRATION_BRIDGE, self.tap, wait=wait)
        self.iface_id = None

    def move(self, host: ComputeHost) -> None:
        """Take the host's end of the veth to another compute host, where it is not plugged in yet.

        As live migration does: the VM itself, its connections included, goes on.
        """
        self.unplug()
        self.host.ip(f"link set {self.tap} netns {host.pid}")
        self.host = host
        host.ip(f"link set {self.tap} up")

    @property
    def ofport(self) -> int:
        """The OpenFlow port number of its tap on br-int."""
        return self.host.ofport(self.tap)

    def destroy(self) -> None:
        """Unplug it and end it before its run does, as when a VM is deleted."""
        try:
            self.unplug()
            # The kernel takes a namespace apart some time after its end; a VM of the same name may
            # come before that.
            self.host.ip(f"link delete {self.tap}")
        finally:
            self.close()

    def _configure(self) -> None:
        join_by_veth(
            *(self.host, self.tap, self, VM_INTERFACE), mtu=self.spec.mtu, right_mac=self.spec.mac
        )
        without_offloads(self, VM_INTERFACE)
        addresses = interface_addresses(self.spec.addresses)
        self.ip(
            *(
                f"address add {address} dev {VM_INTERFACE}{_no_dad(address)}"
                for address in addresses
            ),
            *(f"route add default via {gateway}" for gateway in self.spec.gateways),
        )


def _no_dad(address: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> str:
    return " nodad" if address.version == 6 else ""


def _gateway_version(name: str, gateway: str) -> int:
    try:
        return ipaddress.ip_address(gateway).version
    except ValueError as error:
        raise LabConfigError(f"VM {name}: the gateway '{gateway}' is not an address") from error

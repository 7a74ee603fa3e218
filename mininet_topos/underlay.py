"""The network between the compute hosts: one switch in a namespace of its own.

A Linux bridge where the kernel has one, otherwise an Open vSwitch in NORMAL mode.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

from mininet_topos.errors import CommandError
from mininet_topos.lab_run import LabRun
from mininet_topos.node import LabNode, join_by_veth
from mininet_topos.ovs_host import UNDERLAY_NIC, ComputeHost
from mininet_topos.ovs_node import OvsNode

UnderlayKind = Literal["auto", "bridge", "ovs"]

#: Bytes. VXLAN over IPv4 adds 50 (RFC 7348: 14 + 20 + 8 + 8), which leaves the VMs 1450.
UNDERLAY_MTU: Final = 1500

_NAME: Final = "underlay"
_BRIDGE: Final = "br0"


class Underlay(Protocol):
    """A switch that hosts are attached to."""

    @property
    def kind(self) -> str: ...

    def attach(self, host: ComputeHost) -> None:
        """Join a host by a veth. Call it for one host at a time."""


class BridgeUnderlay(LabNode):
    """A Linux bridge that forwards at once (no spanning tree, no multicast snooping)."""

    kind = "bridge"

    def __init__(self, run: LabRun) -> None:
        super().__init__(run, _NAME)
        self.write_sysctls({"ipv6/conf/default/disable_ipv6": "1"})
        self.ip(
            f"link add {_BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {_BRIDGE} up",
        )

    def attach(self, host: ComputeHost) -> None:
        join_by_veth(self, host.label, host, UNDERLAY_NIC, mtu=UNDERLAY_MTU)
        self.ip(f"link set {host.label} master {_BRIDGE}")
        host.connect_underlay_nic()


class OvsUnderlay(OvsNode):
    """An Open vSwitch on the userspace datapath that learns MACs."""

    kind = "ovs"

    def __init__(self, run: LabRun) -> None:
        super().__init__(run, _NAME)
        self.write_sysctls({"ipv6/conf/default/disable_ipv6": "1"})
        self.vsctl(
            *("add-br", _BRIDGE, "--", "set", "Bridge", _BRIDGE),
            *("datapath_type=netdev", "fail_mode=standalone"),
        )

    def attach(self, host: ComputeHost) -> None:
        join_by_veth(self, host.label, host, UNDERLAY_NIC, mtu=UNDERLAY_MTU)
        self.vsctl("add-port", _BRIDGE, host.label)
        host.connect_underlay_nic()


def make_underlay(run: LabRun, kind: UnderlayKind = "auto") -> Underlay:
    """The underlay of the kind asked for; ``auto`` takes the bridge if the kernel has it."""
    if kind == "bridge" or (kind == "auto" and kernel_has_bridge(run)):
        return BridgeUnderlay(run)
    return OvsUnderlay(run)


def kernel_has_bridge(run: LabRun) -> bool:
    """Try it: the module may be built in, loadable, or missing, and only a try tells."""
    probe = LabNode(run, "probe")
    try:
        probe.ip(f"link add {_BRIDGE} type bridge")
    except CommandError:
        return False
    finally:
        probe.close()
    return True

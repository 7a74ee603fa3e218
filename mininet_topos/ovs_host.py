"""A compute host: a namespace with its own Open vSwitch, joined to an underlay.

```
    VM veths ── br-int ──(VXLAN: OVS looks up the route)── br-phy ── eth0 ── underlay
                (agent)                       tunnel address on its internal port
```
``br-int`` is the agent's: it creates or adopts it. Both bridges share the userspace datapath, so
that OVS encapsulates without leaving it (native tunnelling, ovs-vswitchd.conf.db(5) and the
"userspace tunneling" guide of Open vSwitch).
"""

from __future__ import annotations

import ipaddress
from typing import Final

from mininet_topos.lab_run import LabRun
from mininet_topos.ovs_node import OvsNode

INTEGRATION_BRIDGE: Final = "br-int"
PHYSICAL_BRIDGE: Final = "br-phy"
UNDERLAY_NIC: Final = "eth0"

#: Name of the VXLAN port that ``create_integration_bridge`` makes.
VXLAN_PORT: Final = "vxlan0"

# The underlay is IPv4; no MLD or ND of its own disturbs what a test counts.
_NO_IPV6: Final = {"ipv6/conf/default/disable_ipv6": "1"}


class ComputeHost(OvsNode):
    """A compute host of a fabric.

    Attributes:
        tunnel_address: the host's address in the underlay, with its prefix length.
        tunnel_mac: MAC of the port that holds it, colon text.
        tunnel_ip: the address alone, as text: what a neighbor's record calls its host.
    """

    def __init__(
        self, run: LabRun, label: str, *, tunnel_address: ipaddress.IPv4Interface, tunnel_mac: str
    ) -> None:
        self.tunnel_address = tunnel_address
        self.tunnel_mac = tunnel_mac
        self.tunnel_ip = str(tunnel_address.ip)
        self._underlay_peers: dict[str, str] = {}
        super().__init__(run, label)
        self.write_sysctls(_NO_IPV6)
        self._create_physical_bridge()

    def connect_underlay_nic(self) -> None:
        """Put the NIC ``eth0``, which the underlay has made, into ``br-phy``."""
        self.vsctl("--may-exist", "add-port", PHYSICAL_BRIDGE, UNDERLAY_NIC)

    def learn_underlay_peers(self, peers: dict[str, str]) -> None:
        """Tell OVS the MACs of other tunnel addresses (address -> MAC, text).

        OVS drops a packet whose tunnel neighbor it has not resolved yet. Hosts in service know
        each other; without this the first packet of a test would measure ARP.
        """
        self._underlay_peers |= peers
        for address, mac in peers.items():
            self.appctl("tnl/neigh/set", PHYSICAL_BRIDGE, address, mac)

    def start_vswitchd(self) -> None:
        """As in ``OvsNode``; also gives ``br-phy``, a tap that died with the daemon, its address."""
        was_down = self.vswitchd_pid is None
        super().start_vswitchd()
        if was_down and PHYSICAL_BRIDGE in self.vsctl("list-br").split():
            self._address_physical_bridge()
            self.learn_underlay_peers(self._underlay_peers)

    def create_integration_bridge(self, *, fail_mode: str = "secure") -> None:
        """Make ``br-int`` with one flow-based VXLAN port, for tests that run without an agent."""
        self.vsctl(
            *("--may-exist", "add-br", INTEGRATION_BRIDGE),
            *("--", "set", "Bridge", INTEGRATION_BRIDGE),
            *("datapath_type=netdev", f"fail_mode={fail_mode}"),
            *("--", "--may-exist", "add-port", INTEGRATION_BRIDGE, VXLAN_PORT),
            *("--", "set", "Interface", VXLAN_PORT, "type=vxlan"),
            *("options:remote_ip=flow", "options:key=flow"),
        )

    def ofport(self, interface: str) -> int:
        """The OpenFlow port number of an interface of this host; -1 when OVS could not add it."""
        return int(self.vsctl("get", "Interface", interface, "ofport").strip("[]\n") or -1)

    def _create_physical_bridge(self) -> None:
        self.vsctl(
            *("add-br", PHYSICAL_BRIDGE),
            *("--", "set", "Bridge", PHYSICAL_BRIDGE, "datapath_type=netdev"),
            *("fail_mode=standalone", f'other-config:hwaddr="{self.tunnel_mac}"'),
        )
        self._address_physical_bridge()

    def _address_physical_bridge(self) -> None:
        self.ip(
            f"address replace {self.tunnel_address} dev {PHYSICAL_BRIDGE}",
            f"link set {PHYSICAL_BRIDGE} up",
        )

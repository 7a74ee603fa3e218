"""A compute host whose Open vSwitch has a clock that stands still until it is told to go on.

ovs-vswitchd has commands for that, meant for its own tests: ``time/stop`` and ``time/warp``, behind
the option ``--enable-dummy``, which changes nothing else of a userspace datapath with real ports. All
that counts seconds follows this clock: timeouts of rules and of connections, meters, tunnel neighbors.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Final

from controller_app.vswitchd_control import Control
from mininet_topos.lab_run import LabRun
from mininet_topos.ovs_host import PHYSICAL_BRIDGE, ComputeHost

TUNNEL_MAC: Final = "02:00:00:00:00:01"
PEER_MAC: Final = "02:00:00:00:00:02"
#: As long as a tunnel neighbor may live without traffic (tnl/neigh/aging of ovs-vswitchd(8)).
_NEIGHBOR_S: Final = "3600"


class ClockedOvs(ComputeHost):
    """``control`` is the connection to the ovs-vswitchd that runs now."""

    def __init__(self, run: LabRun, label: str, tunnel_address: str, peers: list[str]) -> None:
        """``peers``: tunnel addresses of other hosts, which all have ``PEER_MAC``."""
        self.control: Control
        self._cpu = max(os.sched_getaffinity(0))
        self._peers = dict.fromkeys(peers, PEER_MAC)
        super().__init__(
            run,
            label,
            tunnel_address=ipaddress.IPv4Interface(tunnel_address),
            tunnel_mac=TUNNEL_MAC,
        )
        self._know_peers()

    def start_vswitchd(self) -> None:
        was_down = self.vswitchd_pid is None
        super().start_vswitchd()
        if was_down:
            self.control = Control(self._unixctl("ovs-vswitchd"))
            self.control.run("time/stop")
            # What it sends stays in order: the kernel has a queue for each CPU that packets come from.
            if self.vswitchd_pid is not None:
                os.sched_setaffinity(self.vswitchd_pid, {self._cpu})
            if PHYSICAL_BRIDGE in self.vsctl("list-br").split():
                self._know_peers()

    def advance(self, milliseconds: int) -> None:
        """Set the clock on, in one step. Neighbors of the tunnel stay known."""
        self.control.run("time/warp", str(milliseconds))
        self._know_peers()

    def _know_peers(self) -> None:
        self.control.run("tnl/neigh/aging", _NEIGHBOR_S)
        for address, mac in self._peers.items():
            self.control.run("tnl/neigh/set", PHYSICAL_BRIDGE, address, mac)

    def _daemon_options(self, daemon: str) -> list[str]:
        dummy = ["--enable-dummy"] if daemon == "ovs-vswitchd" else []
        return [*super()._daemon_options(daemon), *dummy]

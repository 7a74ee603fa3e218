"""A real Open vSwitch bridge whose ports a test holds the far ends of, as raw sockets.

It lives in a namespace of its own, on the userspace datapath. A frame is sent on a far end, and
what the bridge sends to any port or to the controller is collected. A marker frame follows each
frame through the same queue, so that "nothing came out" is known without waiting for a time. Two
things could make a marker overtake a frame. The kernel queues what comes from different CPUs apart:
so the thread that makes the bridge, and the switch, stay on one CPU each. And of the frames that the
switch receives in one batch, those without a megaflow are served first: so it is the second marker
that counts, sent when the first has come to the controller.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mininet_topos.lab_run import LabRun
from mininet_topos.node import join_by_veth
from mininet_topos.ovs_node import OvsNode
from ondemand.messages import PacketIn, SetMeter
from rule_cache.fields import CtState
from tests.support.openflow_tap import OpenFlowTap, Said

BRIDGE: Final = "br-twin"

_CLONE_NEWNET: Final = 0x40000000  # setns(2)
_ETH_P_ALL: Final = 3
# Ethertype for local experiments (IEEE 802), which no test sends for itself.
_MARKER: Final = bytes.fromhex("ffffffffffff02000000000188b5")
_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a frame: (port, frame) of what was delivered, by port, and packet-ins."""

    delivered: list[tuple[int, bytes]]
    packet_ins: list[PacketIn]


class RealBridge:
    """Bridge ``br-twin`` with ports 1..n, filled with rules in the text of ovs-ofctl.

    Whoever makes it uses it from the same thread, and closes it.

    Attributes:
        node: the namespace with its own Open vSwitch, which the run closes.
    """

    def __init__(self, run: LabRun, ports: int) -> None:
        self.node = OvsNode(run, "twin")
        self.node.write_sysctls({"ipv6/conf/default/disable_ipv6": "1"})
        self.node.vsctl(
            *("add-br", BRIDGE, "--", "set", "Bridge", BRIDGE),
            *("datapath_type=netdev", "fail_mode=secure"),
        )
        self._cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(self._cpus)})
        self._pin_switch(max(self._cpus))
        self._sockets: dict[int, socket.socket] = {}
        for port in range(1, ports + 1):
            join_by_veth(self.node, f"in{port}", self.node, f"far{port}", mtu=1500)
            self.node.vsctl(
                *("add-port", BRIDGE, f"in{port}"),
                *("--", "set", "Interface", f"in{port}", f"ofport_request={port}"),
            )
            self._sockets[port] = self._raw_socket(f"far{port}")
        self._tap = OpenFlowTap(self.node.directory / f"{BRIDGE}.mgmt")
        self._markers = 0

    def close(self) -> None:
        os.sched_setaffinity(0, self._cpus)
        self._tap.close()
        for sock in self._sockets.values():
            sock.close()

    def program(self, rules: Sequence[str], meters: Sequence[SetMeter] = ()) -> None:
        """Replace all rules and meters; forget all connections."""
        self.node.ofctl("del-flows", BRIDGE)
        self.node.ofctl("del-meters", BRIDGE)
        for meter in meters:
            band = f"band=type=drop,rate={meter.rate},burst_size={meter.burst}"
            self.node.ofctl("add-meter", BRIDGE, f"meter={meter.meter},pktps,burst,{band}")
        ports = ",".join(["IN_PORT", *(f"output:{port}" for port in self._sockets)])
        marker = f"table=0,priority=65535,dl_type=0x88b5 actions={ports},controller:65535"
        self.node.add_flows(BRIDGE, marker, *rules)
        self.node.appctl("dpctl/flush-conntrack")
        self._forget_megaflows()

    def add(self, rules: Sequence[str]) -> None:
        """Add rules, or put them in the place of those with the same match."""
        self.node.add_flows(BRIDGE, *rules)
        self._forget_megaflows()

    def send(self, *messages: bytes) -> Said:
        """Send whole OpenFlow messages; what the switch said until it was done with them."""
        said = self._tap.ask(*messages)
        self._forget_megaflows()
        return said

    def inject(self, port: int, frame: bytes) -> Seen:
        """A frame arrives at a port."""
        self._sockets[port].send(frame)
        return self._seen(port)

    def packet_out(self, message: bytes) -> Seen:
        """The controller sends a packet-out (a whole OpenFlow message)."""
        said = self._tap.ask(message)
        seen = self._seen(next(iter(self._sockets)))
        return Seen(seen.delivered, [*said.packet_ins, *seen.packet_ins])

    def _forget_megaflows(self) -> None:
        """Packets go by the new rules at once, not only when a revalidator has come round."""
        self.node.appctl("revalidator/purge")

    def _pin_switch(self, cpu: int) -> None:
        """All threads that move packets; a new thread stays on the CPU of the one that starts it."""
        for task in Path(f"/proc/{self.node.vswitchd_pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {cpu})

    def _seen(self, port: int) -> Seen:
        """Follow what was sent with markers, and collect what came out before the second one did."""
        packet_ins = self._tap.wait_for(self._mark(port)).packet_ins
        marker = self._mark(port)
        packet_ins += self._tap.wait_for(marker).packet_ins
        delivered = [
            (number, data) for number in self._sockets for data in self._until(number, marker)
        ]
        # Fragments of an earlier test that waited 15 seconds in vain come out in the place of
        # whatever packet is next. They are no answer to it, and the only packets of this state.
        return Seen(delivered, [packet for packet in packet_ins if packet.ct_state != CtState.INV])

    def _mark(self, port: int) -> bytes:
        """Send a marker behind all that was sent to this port: the marker."""
        self._markers += 1
        marker = _MARKER + self._markers.to_bytes(8, "big") + bytes(40)
        self._sockets[port].send(marker)
        return marker

    def _until(self, port: int, marker: bytes) -> list[bytes]:
        """What the bridge sent to a port before the marker, without other markers."""
        found: list[bytes] = []
        sock = self._sockets[port]
        while True:
            data, address = sock.recvfrom(65536)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            if data == marker:
                return found
            if not data.startswith(_MARKER):
                found.append(data)

    def _raw_socket(self, interface: str) -> socket.socket:
        """A socket stays in the namespace that its thread was in when it was made."""

        def make() -> socket.socket:
            libc = ctypes.CDLL(None, use_errno=True)
            with Path(f"/proc/{self.node.pid}/ns/net").open("rb") as namespace:
                if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                    error = ctypes.get_errno()
                    raise OSError(error, os.strerror(error))
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            sock.bind((interface, _ETH_P_ALL))
            sock.settimeout(_TIMEOUT_S)
            return sock

        with ThreadPoolExecutor(1) as executor:
            return executor.submit(make).result()

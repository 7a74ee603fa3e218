"""The far ends of a real bridge's ports, and of its tunnel: frames go in, and what came out is read.

Interfaces of VMs are veth pairs that are put into the bridge and taken out of it. The tunnel is a real
VXLAN port: what it sends is caught on the wire behind the physical bridge, and what it receives comes
from there, both with all headers of the underlay. A marker goes through the same queue as a frame and
comes out everywhere and at the controller, so that "nothing came out" is known without waiting for a
time. Two things could make a marker overtake a frame. The kernel queues what comes from different CPUs
apart: so the thread that makes the far ends, and the switch, stay on one CPU each. And of the frames that
the switch receives in one batch, those without a megaflow are served first: so it is the second marker
that counts, sent when the first has come to the controller.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from mininet_topos.node import join_by_veth
from mininet_topos.ovs_host import UNDERLAY_NIC, VXLAN_PORT
from ondemand.addresses import format_ip, parse_ip
from tests.support.clocked_ovs import PEER_MAC, TUNNEL_MAC, ClockedOvs
from tests.support.fake_outcomes import Delivered, Tunnelled
from tests.support.frame_builder import build_udp4

#: OpenFlow port by which markers come that follow no frame; it is there always.
MARKER_PORT: Final = 65000
#: Ethertype for local experiments (IEEE 802), which no test sends for itself.
MARKER_TYPE: Final = 0x88B5
#: What a marker in the tunnel is sent to and with.
MARKER_HOST, MARKER_VNI = "192.0.2.2", 0xFFFFFF

_MARKER: Final = bytes.fromhex("ffffffffffff020000000001") + MARKER_TYPE.to_bytes(2, "big")
_CLONE_NEWNET: Final = 0x40000000  # setns(2)
_ETH_P_ALL: Final = 3
_TIMEOUT_S: Final = 5.0
_VXLAN_UDP_PORT: Final = 4789
# Ethernet, IPv4 without options, UDP, VXLAN (RFC 7348 section 5).
_OUTER_BYTES: Final = 14 + 20 + 8 + 8
_SPARE_PAIRS: Final = 8


class FarEnds:
    """Ports of ``bridge``, an empty bridge of ``node``. Close it before the node."""

    def __init__(self, node: ClockedOvs, bridge: str) -> None:
        self._node = node
        self._bridge = bridge
        self._markers = 0
        self._cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(self._cpus)})
        #: OpenFlow port -> number of its veth pair, of those in the bridge.
        self._pairs: dict[int, int] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._free = list(range(1, _SPARE_PAIRS + 1))
        self.tunnel_port = 0
        join_by_veth(node, UNDERLAY_NIC, node, "wire", mtu=1600)
        node.connect_underlay_nic()
        self._wire = self._raw_socket("wire")
        for number in range(_SPARE_PAIRS + 1):
            join_by_veth(node, f"in{number}", node, f"far{number}", mtu=1500)
            self._sockets[number] = self._raw_socket(f"far{number}")
        self._vsctl_add("in0", MARKER_PORT)

    def close(self) -> None:
        os.sched_setaffinity(0, self._cpus)
        self._wire.close()
        for sock in self._sockets.values():
            sock.close()

    @property
    def marker_rule(self) -> str:
        """What sends a marker everywhere, in ovs-ofctl text."""
        tunnel = f"set_field:{MARKER_HOST}->tun_dst,set_field:{MARKER_VNI}->tun_id"
        match = f"table=0,priority=65535,dl_type={MARKER_TYPE:#x}"
        return f"{match} actions={tunnel},ALL,IN_PORT,controller:65535"

    # -- ports -----------------------------------------------------------------------------------

    def plug(self, ofport: int) -> None:
        pair = self._free.pop(0)
        self._vsctl_add(f"in{pair}", ofport)
        self._pairs[ofport] = pair
        _drain(self._sockets[pair])

    def plug_tunnel(self, ofport: int) -> None:
        options = ("type=vxlan", "options:remote_ip=flow", "options:key=flow")
        self._vsctl_add(VXLAN_PORT, ofport, *options)
        self.tunnel_port = ofport
        _drain(self._wire)

    def unplug(self, *ofports: int) -> None:
        names = []
        for ofport in ofports:
            if ofport == self.tunnel_port:
                self.tunnel_port = 0
                names.append(VXLAN_PORT)
            else:
                pair = self._pairs.pop(ofport)
                self._free.append(pair)
                names.append(f"in{pair}")
        commands = [word for name in names for word in ("--", "del-port", self._bridge, name)]
        if commands:
            self._node.vsctl(*commands[1:])

    def has(self, ofport: int) -> bool:
        return ofport in self._pairs or ofport == self.tunnel_port

    @property
    def ofports(self) -> list[int]:
        """All that were plugged, the tunnel among them."""
        return [*self._pairs, *([self.tunnel_port] if self.tunnel_port else [])]

    def _vsctl_add(self, name: str, ofport: int, *settings: str) -> None:
        self._node.vsctl(
            *("add-port", self._bridge, name),
            *("--", "set", "Interface", name, f"ofport_request={ofport}", *settings),
        )
        got = self._node.ofport(name)
        if got != ofport:
            raise RuntimeError(f"{name} became port {got} instead of {ofport}")

    # -- frames ----------------------------------------------------------------------------------

    def send(self, ofport: int, frame: bytes) -> None:
        self._sockets[self._pairs[ofport]].send(frame)

    def send_by_tunnel(self, vni: int, frame: bytes, tun_src: bytes) -> None:
        """Send a frame to the tunnel port from another host."""
        self._wire.send(_encapsulated(vni, frame, tun_src))

    def mark(self, ofport: int) -> bytes:
        """Send a marker behind all that was sent to this port: the marker."""
        self._markers += 1
        marker = _MARKER + self._markers.to_bytes(8, "big") + bytes(40)
        if ofport == MARKER_PORT:
            self._sockets[0].send(marker)
        elif ofport == self.tunnel_port:
            self.send_by_tunnel(MARKER_VNI, marker, parse_ip(MARKER_HOST))
        else:
            self.send(ofport, marker)
        return marker

    def until(self, marker: bytes) -> list[Delivered | Tunnelled]:
        """What came out at all ports and at the tunnel before the marker did, without other markers."""
        found: list[Delivered | Tunnelled] = []
        for data in _until(self._sockets[0], marker):
            raise RuntimeError(f"the port for markers got {data.hex()}")
        for ofport, pair in self._pairs.items():
            found += [Delivered(ofport, data) for data in _until(self._sockets[pair], marker)]
        if self.tunnel_port:
            outer = _until(self._wire, marker, _OUTER_BYTES)
            found += [_decapsulated(data) for data in outer if _is_vxlan(data)]
        return found

    def _raw_socket(self, interface: str) -> socket.socket:
        """A socket stays in the namespace that its thread was in when it was made."""

        def make() -> socket.socket:
            libc = ctypes.CDLL(None, use_errno=True)
            with Path(f"/proc/{self._node.pid}/ns/net").open("rb") as namespace:
                if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                    error = ctypes.get_errno()
                    raise OSError(error, os.strerror(error))
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            sock.bind((interface, _ETH_P_ALL))
            sock.settimeout(_TIMEOUT_S)
            return sock

        with ThreadPoolExecutor(1) as executor:
            return executor.submit(make).result()


def _until(sock: socket.socket, marker: bytes, skip: int = 0) -> Iterator[bytes]:
    """What is received before a frame that is the marker behind its first ``skip`` bytes.

    Other markers are left out.
    """
    while True:
        data, address = sock.recvfrom(65536)
        if address[2] == socket.PACKET_OUTGOING:
            continue
        if data[skip:] == marker:
            return
        if not data[skip:].startswith(_MARKER):
            yield data


def _drain(sock: socket.socket) -> None:
    """Drop what came while the port was not plugged."""
    sock.setblocking(False)
    try:
        while True:
            sock.recv(65536)
    except BlockingIOError:
        sock.settimeout(_TIMEOUT_S)


def _encapsulated(vni: int, frame: bytes, tun_src: bytes) -> bytes:
    """A VXLAN packet (RFC 7348 section 5) to the node, without a UDP checksum, as OVS sends it."""
    header = b"\x08\0\0\0" + (vni << 8).to_bytes(4, "big")
    outer = build_udp4(
        src=format_ip(tun_src),
        dst="192.0.2.1",
        eth_src=PEER_MAC,
        eth_dst=TUNNEL_MAC,
        tp_src=50000,
        tp_dst=_VXLAN_UDP_PORT,
        payload=header + frame,
    )
    return outer[:40] + b"\0\0" + outer[42:]


def _is_vxlan(data: bytes) -> bool:
    """Whether this is a VXLAN packet; the node's own kernel may say other things on the wire."""
    is_udp4 = data[12:15] == b"\x08\0\x45" and data[23] == socket.IPPROTO_UDP
    return is_udp4 and int.from_bytes(data[36:38], "big") == _VXLAN_UDP_PORT


def _decapsulated(data: bytes) -> Tunnelled:
    if data[26:30] != parse_ip("192.0.2.1"):
        raise RuntimeError(f"a VXLAN packet from {format_ip(data[26:30])}")
    return Tunnelled(int.from_bytes(data[46:49], "big"), data[30:34], data[_OUTER_BYTES:])

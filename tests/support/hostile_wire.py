"""Raw frames into and out of a namespace, as programs that run there: standard library only.

hostile_wire.py send INTERFACE          hex frames on stdin, one a line
hostile_wire.py sniff INTERFACE FILE    hex of each frame that comes in, one a line, until ended
hostile_wire.py vxlan ADDRESS           "VNI HEX" on stdin, one a line, to the VXLAN port there
"""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path

_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
#: The VXLAN port (IANA), and "the VNI is valid" (RFC 7348 section 5).
_VXLAN_PORT, _VNI_VALID = 4789, 0x08 << 24


def send(interface: str) -> None:
    """A frame that is too long for the interface is not sent; how many that were is told."""
    refused = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        for line in sys.stdin:
            try:
                sock.send(bytes.fromhex(line))
            except OSError:
                refused += 1
    sys.stdout.write(f"{refused}\n")


def sniff(interface: str, file: str) -> None:
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as sock,
        Path(file).open("w", buffering=1) as out,
    ):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.bind((interface, _ETH_P_ALL))
        out.write("\n")  # it listens
        while True:
            data, address = sock.recvfrom(70000)
            if address[2] != _PACKET_OUTGOING:
                out.write(data.hex() + "\n")


def vxlan(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for line in sys.stdin:
            vni, frame = line.split()
            header = struct.pack(">II", _VNI_VALID, int(vni) << 8)
            sock.sendto(header + bytes.fromhex(frame), (address, _VXLAN_PORT))


if __name__ == "__main__":
    {"send": send, "sniff": sniff, "vxlan": vxlan}[sys.argv[1]](*sys.argv[2:])

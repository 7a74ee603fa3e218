"""Frames past the VM's own network stack: announcements, and scans at full speed.

Run by path, as ``traffic``; standard library only; needs root inside the namespace. Bounded in time
and count. Output: one JSON line with how many frames were sent in how many seconds.

    traffic_frames announce eth0 10.0.1.31
    traffic_frames scan arp eth0 10.0.1.21 --to 10.0.0.0/16 --for-s 5
    traffic_frames scan ip eth0 10.0.1.21 --to 10.0.0.0/8 --mac 02:00:00:00:00:01
    traffic_frames scan ports eth0 10.0.1.21 --to 10.0.1.11/32 --mac 02:00:00:00:01:11

Exit code: 0 sent, 2 usage.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MAX_SECONDS: Final = 60.0
#: Frames a second at most: no sender of the lab shall starve the switches of the machine.
MAX_RATE: Final = 200_000

_BROADCAST: Final = b"\xff" * 6
_ARP: Final = 0x0806
_RARP: Final = 0x8035
_IPV4: Final = 0x0800
_UDP: Final = 17
#: The discard service (RFC 863): nobody listens, nobody answers.
_DISCARD: Final = 9
#: Frames between two looks at the clock.
_BURST: Final = 32


def own_mac(interface: str) -> bytes:
    text = Path(f"/sys/class/net/{interface}/address").read_text(encoding="ascii")
    return bytes.fromhex(text.strip().replace(":", ""))


def arp(
    kind: int, operation: int, sender: tuple[bytes, bytes], target: tuple[bytes, bytes]
) -> bytes:
    """An ARP (RFC 826) or RARP (RFC 903) frame to everybody; the pairs are MAC and IPv4 address."""
    head = _BROADCAST + sender[0] + struct.pack("!H", kind)
    body = struct.pack("!HHBBH", 1, _IPV4, 6, 4, operation)
    return (head + body + b"".join(sender) + b"".join(target)).ljust(60, b"\0")


def announcement(mac: bytes, ip: bytes) -> list[bytes]:
    """What a hypervisor sends for a VM that has moved: gratuitous ARP (RFC 5227), and RARP."""
    return [
        arp(_ARP, 1, (mac, ip), (b"\0" * 6, ip)),
        arp(_RARP, 3, (mac, b"\0" * 4), (mac, b"\0" * 4)),
    ]


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def datagram(macs: tuple[bytes, bytes], source: bytes, target: bytes, port: int) -> bytes:
    """An empty UDP datagram without a checksum (RFC 768); ``macs``: destination and source."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, _UDP, 0) + source + target
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    udp = struct.pack("!HHHH", 40_000, port, 8, 0)
    return (b"".join(macs) + struct.pack("!H", _IPV4) + head + udp).ljust(60, b"\0")


def scan_frames(
    kind: str, source: tuple[bytes, bytes], prefix: ipaddress.IPv4Network, mac: bytes
) -> Iterator[bytes]:
    """Frames without end: ARP or datagrams to each address in turn, or to each port of the first."""
    base, room = int(prefix.network_address), prefix.num_addresses
    number = 0
    while True:
        address = (base + number % room).to_bytes(4, "big")
        if kind == "arp":
            yield arp(_ARP, 1, source, (b"\0" * 6, address))
        elif kind == "ip":
            yield datagram((mac, source[0]), source[1], address, _DISCARD)
        else:
            first = base.to_bytes(4, "big")
            yield datagram((mac, source[0]), source[1], first, 1 + number % 65_535)
        number += 1


def announce(args: argparse.Namespace) -> int:
    """Send the announcement ``count`` times."""
    ip = ipaddress.IPv4Address(args.address).packed
    with raw_socket(args.interface) as sock:
        for number in range(args.count):
            if number:
                time.sleep(args.interval_s)
            for frame in announcement(own_mac(args.interface), ip):
                sock.send(frame)
    report(2 * args.count, 0.0)
    return 0


def scan(args: argparse.Namespace) -> int:
    """Send as fast as the interface takes it, or at ``rate``, for a bounded time."""
    ip = ipaddress.IPv4Address(args.address).packed
    mac = bytes.fromhex(args.mac.replace(":", ""))
    frames = scan_frames(args.kind, (own_mac(args.interface), ip), args.to, mac)
    sent, start_s = 0, time.monotonic()
    with raw_socket(args.interface) as sock:
        while (now_s := time.monotonic() - start_s) < args.for_s:
            if sent >= now_s * args.rate:
                time.sleep(0.001)
                continue
            for _ in range(_BURST):
                try:
                    sock.send(next(frames))
                except BlockingIOError:
                    time.sleep(0.001)  # the interface's queue is full
                    break
                sent += 1
    report(sent, time.monotonic() - start_s)
    return 0


def raw_socket(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((interface, 0))
    sock.setblocking(False)  # noqa: FBT003 - the signature is the socket module's
    return sock


def report(sent: int, seconds: float) -> None:
    sys.stdout.write(json.dumps({"sent": sent, "seconds": seconds}) + "\n")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="traffic_frames", description="frames from a raw socket")
    commands = top.add_subparsers(required=True)
    command = commands.add_parser("announce", help="gratuitous ARP and RARP, as after a migration")
    command.add_argument("interface")
    command.add_argument("address", help="the VM's own IPv4 address")
    command.add_argument("--count", type=int, choices=range(1, 101), default=3, metavar="N")
    command.add_argument("--interval-s", type=float, default=0.05)
    command.set_defaults(run=announce)
    command = commands.add_parser("scan", help="many addresses or ports, at full speed")
    command.add_argument("kind", choices=("arp", "ip", "ports"))
    command.add_argument("interface")
    command.add_argument("address", help="the sender's IPv4 address")
    command.add_argument("--to", type=ipaddress.IPv4Network, required=True, metavar="PREFIX")
    command.add_argument("--mac", default="ff:ff:ff:ff:ff:ff", help="of the gateway or the target")
    command.add_argument("--for-s", type=float, default=5.0, help=f"at most {MAX_SECONDS:g} (5)")
    command.add_argument("--rate", type=int, default=MAX_RATE, help=f"a second ({MAX_RATE})")
    command.set_defaults(run=scan)
    return top


def main(argv: list[str] | None = None) -> int:
    command = parser()
    args = command.parse_args(argv)
    if not 0 < getattr(args, "for_s", 1.0) <= MAX_SECONDS:
        command.error(f"a scan lasts up to {MAX_SECONDS:g} s")
    if not 0 < getattr(args, "rate", 1) <= MAX_RATE:
        command.error(f"a rate is 1 to {MAX_RATE} frames a second")
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    sys.exit(main())

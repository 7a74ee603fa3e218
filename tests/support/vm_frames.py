"""Frames as the VMs of a cloud send them: who they are from and to is told by port ids.

A frame to a port of another subnet goes to the gateway's MAC. Keyword arguments replace what follows
from the ports: ``src``, ``dst``, ``eth_src``, ``eth_dst`` and whatever the frame builder takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.support.frame_builder import (
    build_arp,
    build_icmp4,
    build_icmp6,
    build_ipv4_raw,
    build_ipv6_raw,
    build_ns,
    build_sctp4,
    build_sctp6,
    build_tcp4,
    build_tcp6,
    build_udp4,
    build_udp6,
)
from tests.support.packet_parts import ACK, SYN, fragment_header, udp_datagram
from tests.support.world_builder import CloudBuilder

GRE = 47


class VmFrames:
    """Frames of one address family, 4 or 6, between ports of a cloud."""

    def __init__(self, cloud: CloudBuilder, family: int) -> None:
        self.family = family
        self._cloud = cloud

    # -- addresses -------------------------------------------------------------------------------

    def ip(self, port: str) -> bytes:
        """The first fixed IP of the family."""
        size = 4 if self.family == 4 else 16
        return next(ip for ip in self._cloud.port_spec(port).fixed_ips if len(ip) == size)

    def gateway(self, port: str) -> bytes:
        """The gateway's address in the port's subnet."""
        size = 4 if self.family == 4 else 16
        return next(ip for ip in self._cloud.port_spec(port).subnet.gateways if len(ip) == size)

    def ends(self, src: str, dst: str) -> dict[str, Any]:
        """Addresses of a packet from one port to another."""
        sender, target = self._cloud.port_spec(src), self._cloud.port_spec(dst)
        same_subnet = sender.subnet.id == target.subnet.id
        return {
            "src": self.ip(src),
            "dst": self.ip(dst),
            "eth_src": sender.mac,
            "eth_dst": target.mac if same_subnet else sender.subnet.gateway_mac,
        }

    # -- packets ---------------------------------------------------------------------------------

    def tcp(self, src: str, dst: str, tp_dst: int = 80, /, **changes: Any) -> bytes:
        build = build_tcp4 if self.family == 4 else build_tcp6
        return build(**{**self.ends(src, dst), "tp_dst": tp_dst, **changes})

    def tcp_reply(self, src: str, dst: str, tp_src: int = 80, /, **changes: Any) -> bytes:
        """What ``src`` answers on its port ``tp_src``: SYN and ACK, or other ``flags``."""
        reply = {"tp_dst": 40000, "flags": SYN | ACK, "tp_src": tp_src}
        return self.tcp(src, dst, **{**reply, **changes})

    def udp(self, src: str, dst: str, tp_dst: int = 53, /, **changes: Any) -> bytes:
        build = build_udp4 if self.family == 4 else build_udp6
        return build(**{**self.ends(src, dst), "tp_dst": tp_dst, **changes})

    def udp_reply(self, src: str, dst: str, tp_src: int = 53, /, **changes: Any) -> bytes:
        return self.udp(src, dst, **{"tp_dst": 40000, "tp_src": tp_src, **changes})

    def sctp(self, src: str, dst: str, tp_dst: int = 1000, /, **changes: Any) -> bytes:
        build = build_sctp4 if self.family == 4 else build_sctp6
        return build(**{**self.ends(src, dst), "tp_dst": tp_dst, **changes})

    def gre(self, src: str, dst: str, /, **changes: Any) -> bytes:
        return self.raw(src, dst, GRE, bytes(8), **changes)

    def raw(self, src: str, dst: str, proto: int, payload: bytes, /, **changes: Any) -> bytes:
        """An IP packet with any protocol and payload."""
        build = build_ipv4_raw if self.family == 4 else build_ipv6_raw
        return build(proto, payload, **{**self.ends(src, dst), **changes})

    def ping(self, src: str, dst: str, number: int = 1, /, **changes: Any) -> bytes:
        """An echo request."""
        return self._icmp(self.ends(src, dst), self._echo(request=True), number, changes)

    def pong(self, src: str, dst: str, number: int = 1, /, **changes: Any) -> bytes:
        """An echo reply."""
        return self._icmp(self.ends(src, dst), self._echo(request=False), number, changes)

    def ping_gateway(self, src: str, /, **changes: Any) -> bytes:
        sender = self._cloud.port_spec(src)
        ends = {
            "src": self.ip(src),
            "dst": self.gateway(src),
            "eth_src": sender.mac,
            "eth_dst": sender.subnet.gateway_mac,
        }
        return self._icmp(ends, self._echo(request=True), 1, changes)

    def unreachable(self, src: str, dst: str, about: bytes, /, **changes: Any) -> bytes:
        """An ICMP error of ``src`` about a frame that ``dst`` sent: port unreachable."""
        # RFC 792: IP header and 8 bytes; RFC 4443 section 3.1: as much as fits.
        quoted = about[14 : 14 + 28] if self.family == 4 else about[14:]
        kind, code = (3, 3) if self.family == 4 else (1, 4)
        given = {"icmp_type": kind, "icmp_code": code, "body": bytes(4) + quoted}
        build = build_icmp4 if self.family == 4 else build_icmp6
        return build(**{**self.ends(src, dst), **given, **changes})

    def _echo(self, *, request: bool) -> int:
        if self.family == 4:
            return 8 if request else 0
        return 128 if request else 129

    def _icmp(self, ends: dict[str, Any], kind: int, number: int, changes: dict[str, Any]) -> bytes:
        build = build_icmp4 if self.family == 4 else build_icmp6
        body = b"\0\1" + number.to_bytes(2, "big")
        return build(**{**ends, "icmp_type": kind, "body": body, **changes})

    def fragments(
        self,
        src: str,
        dst: str,
        tp_dst: int = 53,
        *,
        tp_src: int = 40000,
        number: int = 1,
        size: int = 3000,
    ) -> Sequence[bytes]:
        """A UDP datagram of ``size`` bytes, in pieces that an Ethernet takes."""
        ends = self.ends(src, dst)
        data = udp_datagram(ends["src"], ends["dst"], tp_src, tp_dst, payload=bytes(size))
        piece = 1440
        frames = []
        for at in range(0, len(data), piece):
            more = at + piece < len(data)
            if self.family == 4:
                place: dict[str, Any] = {
                    "identification": number,
                    "fragment_offset": at,
                    "more_fragments": more,
                }
            else:
                header = fragment_header(offset=at, more_fragments=more, identification=number)
                place = {"extensions": [header]}
            frames.append(self.raw(src, dst, 17, data[at : at + piece], **place))
        return frames

    # -- questions -------------------------------------------------------------------------------

    def who_has(self, src: str, target: str | bytes, /, **changes: Any) -> bytes:
        """ARP request or neighbor solicitation for the address of a port, or for an address."""
        wanted = target if isinstance(target, bytes) else self.ip(target)
        sender = self._cloud.port_spec(src)
        if self.family == 4:
            given: dict[str, Any] = {"sha": sender.mac, "spa": self.ip(src), "tpa": wanted}
            return build_arp(**{**given, **changes})
        given = {
            "target": wanted,
            "src": self.ip(src),
            "link_layer": sender.mac,
            "eth_src": sender.mac,
        }
        return build_ns(**{**given, **changes})

    def duplicate_test(self, src: str, target: str | bytes) -> bytes:
        """Duplicate address detection for an address: RFC 5227 probe, RFC 4862 section 5.4."""
        if self.family == 4:
            return self.who_has(src, target, spa=bytes(4))
        return self.who_has(src, target, src=bytes(16), link_layer=None)

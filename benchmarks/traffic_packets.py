"""Packet-ins of the traffic model: what a switch says of a packet that missed in a table.

Frames have headers only. A TCP packet is a SYN: of later ones the agent reads no more than their addresses.
"""

from __future__ import annotations

import struct
from typing import Final

from benchmarks.traffic_model import TCP, Flow
from benchmarks.traffic_vpc import NEAR_VNI, TUNNEL_PORT, TrafficVpc
from ondemand.messages import PacketIn
from ondemand.pipeline import Table
from rule_cache.fields import CtState

_NEW: Final = int(CtState.TRK | CtState.NEW)
_BROADCAST: Final = b"\xff" * 6
_ETHERNET: Final = struct.Struct(">6s6sH")
_IPV4: Final = struct.Struct(">BBHHHBBH4s4s")
_TCP: Final = struct.Struct(">HHIIBBHHH")
_UDP: Final = struct.Struct(">HHHH")
_ARP: Final = struct.Struct(">HHBBH6s4s6s4s")


def packet_in(vpc: TrafficVpc, table: Table, flow: Flow, zone: int) -> PacketIn:
    """Of the flow's packet that missed in ``table``; ``zone`` is that of its VM.

    The tables are those of a pipeline with base 0. In RESPONDER it is the VM's question for its next hop.
    """
    vm_ip, vm_mac = vpc.vm_ip(flow.vm), vpc.vm_mac(flow.vm)
    remote = vpc.ip(flow.remote)
    next_hop, mac = vpc.next_hop(flow.remote)
    if table is Table.RESPONDER:
        frame = _ETHERNET.pack(_BROADCAST, vm_mac, 0x0806)
        frame += _ARP.pack(1, 0x0800, 6, 4, 1, vm_mac, vm_ip, bytes(6), next_hop)
        return PacketIn(table, flow.vm + 1, frame, vni=NEAR_VNI, source_zone=zone, target_zone=0)
    local = (vm_mac, vm_ip, flow.local_port)
    far = (mac, remote, flow.remote_port)
    if table is Table.INGRESS_VERDICT:
        return PacketIn(
            table,
            TUNNEL_PORT,
            _frame(far, local, flow.protocol),
            target_zone=zone,
            ct_state=_NEW,
            ct_src=remote,
            ct_dst=vm_ip,
            ct_proto=flow.protocol,
            ct_tp_src=flow.remote_port,
            ct_tp_dst=flow.local_port,
        )
    # Behind a commit, or when its connection is known, LOCATION's packet says no more than this.
    is_new = table is Table.EGRESS_VERDICT
    return PacketIn(
        table,
        flow.vm + 1,
        _frame(local, far, flow.protocol),
        vni=NEAR_VNI,
        source_zone=zone,
        ct_state=_NEW if is_new else 0,
        ct_src=vm_ip if is_new else b"",
        ct_dst=remote if is_new else b"",
        ct_proto=flow.protocol if is_new else 0,
        ct_tp_src=flow.local_port if is_new else 0,
        ct_tp_dst=flow.remote_port if is_new else 0,
    )


def _frame(
    source: tuple[bytes, bytes, int], target: tuple[bytes, bytes, int], protocol: int
) -> bytes:
    """A frame without payload from one (MAC, IPv4 address, port) to another; a SYN if it is TCP."""
    if protocol == TCP:
        body = _TCP.pack(source[2], target[2], 1, 0, 0x50, 0x02, 0xFFFF, 0, 0)
    else:
        body = _UDP.pack(source[2], target[2], _UDP.size, 0)
    length = _IPV4.size + len(body)
    head = _IPV4.pack(0x45, 0, length, 1, 0, 64, protocol, 0, source[1], target[1])
    return _ETHERNET.pack(target[0], source[0], 0x0800) + head + body


__all__ = ["packet_in"]

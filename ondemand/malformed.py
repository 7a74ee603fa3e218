"""Why a frame is no frame: the closed set of reasons, and the error that carries one."""

from __future__ import annotations

import enum


class Reason(enum.StrEnum):
    """Why a frame is malformed; the value is the name of its counter."""

    ETHERNET_SHORT = enum.auto()
    NOT_ETHERNET_II = enum.auto()
    VLAN_SHORT = enum.auto()
    VLAN_STACKED = enum.auto()
    ARP_SHORT = enum.auto()
    ARP_NOT_ETHERNET_IPV4 = enum.auto()
    IP_SHORT = enum.auto()
    IP_VERSION = enum.auto()
    IP_LENGTH = enum.auto()
    IPV4_HEADER_LENGTH = enum.auto()
    EXTENSION_SHORT = enum.auto()
    EXTENSION_ORDER = enum.auto()
    EXTENSION_COUNT = enum.auto()
    FRAGMENT_LENGTH = enum.auto()
    TINY_FRAGMENT = enum.auto()
    TCP_SHORT = enum.auto()
    TCP_DATA_OFFSET = enum.auto()
    UDP_SHORT = enum.auto()
    UDP_LENGTH = enum.auto()
    SCTP_SHORT = enum.auto()
    ICMP_SHORT = enum.auto()
    ND_HOP_LIMIT = enum.auto()
    ND_CODE = enum.auto()
    ND_LENGTH = enum.auto()
    ND_ADDRESS = enum.auto()
    ND_OPTION = enum.auto()
    ND_FRAGMENTED = enum.auto()


class Malformed(Exception):  # noqa: N818 - what the frame is; our own errors end in Error
    """The frame breaks the format that it claims to have."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason

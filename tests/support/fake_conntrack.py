"""Connection tracking as the userspace datapath of Open vSwitch 3.1 does it, observed on one.

What is not like it: TCP windows and sequence numbers are not looked at, so nothing is invalid for
being out of window, and there are no gateways for FTP and TFTP and no address translation.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from rule_cache.fields import CtState
from tests.support.conntrack_key import ConnectionKey, read_key

_FIN, _SYN, _RST, _PSH, _ACK, _URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_ICMP, _TCP, _ICMPV6 = 1, 6, 58
#: Requests that may open an ICMP connection: echo, timestamp, information; ICMPv6 echo.
_REQUESTS: Final = {_ICMP: (8, 13, 15), _ICMPV6: (128,)}


class _Peer(enum.IntEnum):
    """What one side of a TCP connection has done, in the order in which it does so."""

    SILENT = 0
    SENT = 1
    ESTABLISHED = 2
    CLOSING = 3
    CLOSED = 4


# Seconds without a packet (ovs-vswitchd.conf.db(5), CT_Timeout_Policy: defaults of the datapath).
_TCP_OPENING_S, _TCP_ESTABLISHED_S, _TCP_CLOSING_S = 30, 24 * 3600, 15 * 60
_TCP_FIN_WAIT_S, _TCP_CLOSED_S = 45, 30
_ONE_WAY_S, _BOTH_WAYS_S = 60, 30


@dataclass(slots=True)
class Connection:
    """A committed connection; ``key`` is its original direction."""

    key: ConnectionKey
    expires_s: float
    mark: int = 0
    answered: bool = False
    #: TCP: who opened it, and the other side.
    peers: list[_Peer] = field(default_factory=lambda: [_Peer.SENT, _Peer.SILENT])


@dataclass(frozen=True, slots=True)
class Tracked:
    """What ``ct()`` puts into the packet's fields. ``original`` is None for an invalid packet."""

    state: int
    mark: int = 0
    original: ConnectionKey | None = None


_INVALID: Final = Tracked(CtState.INV | CtState.TRK)


class Conntrack:
    """All zones of a datapath."""

    def __init__(self) -> None:
        #: Each connection is found by (zone, key) of both directions.
        self._connections: dict[tuple[int, ConnectionKey], Connection] = {}

    def track(self, zone: int, frame: bytes, now_s: float) -> Tracked:
        """State of a whole packet (no fragment) in a zone; nothing is stored."""
        packet = read_key(frame)
        if packet is None:
            return _INVALID
        connection = self._find(zone, packet.key, now_s)
        if packet.is_error:
            if connection is None:
                return _INVALID
            # An error looks like the way back of the packet that it quotes.
            reply = packet.key != connection.key
            state = CtState.REL | CtState.TRK | (CtState.RPL if reply else 0)
            return Tracked(state, connection.mark, connection.key)
        if connection is not None:
            return self._update(zone, connection, packet.key, packet.tcp_flags, now_s)
        if not _may_open(packet.key, packet.tcp_flags):
            return _INVALID
        return Tracked(CtState.NEW | CtState.TRK, 0, packet.key)

    def commit(self, zone: int, frame: bytes, now_s: float, mark: int | None) -> None:
        """Store the packet's connection if it is new; set its mark in any case.

        An error sets the mark of the connection that it is about, and stores nothing.
        """
        packet = read_key(frame)
        if packet is None:
            return
        connection = self._find(zone, packet.key, now_s)
        if connection is None:
            if packet.is_error or not _may_open(packet.key, packet.tcp_flags):
                return
            idle_s = _TCP_OPENING_S if packet.key.proto == _TCP else _ONE_WAY_S
            connection = Connection(packet.key, now_s + idle_s)
            self._connections[zone, packet.key] = connection
            self._connections[zone, packet.key.reverse()] = connection
        if mark is not None:
            connection.mark = mark

    def connections(self, now_s: float) -> list[tuple[int, Connection]]:
        """(zone, connection) of all that have not expired, the oldest first."""
        return [
            (zone, connection)
            for (zone, key), connection in self._connections.items()
            if key == connection.key and connection.expires_s > now_s
        ]

    def clear(self) -> None:
        self._connections.clear()

    def flush(self, zone: int) -> None:
        """Forget the connections of one zone."""
        for key in [key for key in self._connections if key[0] == zone]:
            del self._connections[key]

    def _find(self, zone: int, key: ConnectionKey, now_s: float) -> Connection | None:
        connection = self._connections.get((zone, key))
        if connection is not None and connection.expires_s <= now_s:
            self._forget(zone, connection)
            return None
        return connection

    def _forget(self, zone: int, connection: Connection) -> None:
        self._connections.pop((zone, connection.key), None)
        self._connections.pop((zone, connection.key.reverse()), None)

    def _update(
        self, zone: int, connection: Connection, key: ConnectionKey, flags: int, now_s: float
    ) -> Tracked:
        reply = key != connection.key
        if key.proto == _TCP:
            return self._update_tcp(zone, connection, flags, now_s, reply=reply)
        # Until the other side has answered, each packet counts as new.
        connection.answered |= reply
        if not connection.answered:
            connection.expires_s = now_s + _ONE_WAY_S
            return Tracked(CtState.NEW | CtState.TRK, connection.mark, connection.key)
        connection.expires_s = now_s + _BOTH_WAYS_S
        return _established(connection, reply=reply)

    def _update_tcp(
        self, zone: int, connection: Connection, flags: int, now_s: float, *, reply: bool
    ) -> Tracked:
        peers = connection.peers
        source, target = (1, 0) if reply else (0, 1)
        if _has_bad_flags(flags):
            return Tracked(_INVALID.state, connection.mark)
        if flags & (_SYN | _ACK) == _SYN:
            if min(peers) >= _Peer.CLOSED:
                # Both sides are done: the same ports begin again, in either direction.
                self._forget(zone, connection)
                key = connection.key.reverse() if reply else connection.key
                return Tracked(CtState.NEW | CtState.TRK, 0, key)
            if peers[source] <= _Peer.SENT:
                peers[source] = _Peer.SENT
                connection.expires_s = now_s + _TCP_OPENING_S
                # No +rpl here, even if it is the other side's (a simultaneous open).
                return Tracked(CtState.NEW | CtState.TRK, connection.mark, connection.key)
        # Anything but a bare SYN counts as established at once, answered or not.
        peers[source] = max(peers[source], _Peer.SENT)
        if flags & _FIN:
            peers[source] = max(peers[source], _Peer.CLOSING)
        if flags & _ACK:
            if peers[target] == _Peer.SENT:
                peers[target] = _Peer.ESTABLISHED
            elif peers[target] == _Peer.CLOSING:
                peers[target] = _Peer.CLOSED
        if flags & _RST:
            peers[:] = [_Peer.CLOSED, _Peer.CLOSED]
        connection.expires_s = now_s + _tcp_idle_s(peers)
        return _established(connection, reply=reply)


def _established(connection: Connection, *, reply: bool) -> Tracked:
    state = CtState.EST | CtState.TRK | (CtState.RPL if reply else 0)
    return Tracked(state, connection.mark, connection.key)


def _may_open(key: ConnectionKey, flags: int) -> bool:
    if key.proto == _TCP:
        # A stream may be picked up in its middle, but not half open.
        return not _has_bad_flags(flags) and flags & (_SYN | _ACK) != _SYN | _ACK
    return key.proto not in _REQUESTS or key.tp_src >> 16 in _REQUESTS[key.proto]


def _has_bad_flags(flags: int) -> bool:
    if flags & _SYN:
        return bool(flags & (_RST | _FIN))
    if not flags & (_ACK | _RST):
        return True
    return not flags & _ACK and bool(flags & (_FIN | _PSH | _URG))


def _tcp_idle_s(peers: list[_Peer]) -> int:
    if min(peers) >= _Peer.CLOSED:
        return _TCP_CLOSED_S
    if min(peers) >= _Peer.CLOSING:
        return _TCP_FIN_WAIT_S
    if min(peers) < _Peer.ESTABLISHED:
        return _TCP_OPENING_S
    return _TCP_CLOSING_S if max(peers) >= _Peer.CLOSING else _TCP_ESTABLISHED_S

"""Quarantine: a port that floods the switch with flows that no rule knows gets no new ones for a while.

A meter keeps the flood from the agent, but not from the switch: each packet to yet another address is
looked up in the tables by ovs-vswitchd, at the cost of tens of microseconds, while the other ports
wait. So a port that goes on is given a few coarse drop rules: its new connections and its ARP and ND
questions end there, all by the same few datapath flows, and cost next to nothing. Its established
connections go on; no other port notices.

What counts are packet-ins, and those that lead nowhere (nobody there, denied, malformed) count
``FRUITLESS`` times: a busy server opens many connections, a scanner opens none. A port whose account is
empty is quarantined for a second; if it floods again soon after, for twice as long, and so on. The
rules have a hard timeout, so that they end also when no agent runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ondemand.admission import TokenBucket
from ondemand.counters import Counters
from ondemand.local_ports import LocalPort
from ondemand.settings import Settings

#: What a packet-in that leads nowhere costs; any other costs 1.
FRUITLESS: Final = 4
#: Seconds without a quarantine after which the next one is a short one again.
FORGIVEN_S: Final = 60.0
#: Part of the burst that a port has when its quarantine ends.
PROBATION: Final = 1 / 20


class _Account:
    __slots__ = ("bucket", "ended_s", "length_s")

    def __init__(self, bucket: TokenBucket) -> None:
        self.bucket = bucket
        #: Of the last quarantine.
        self.length_s = 0
        self.ended_s = 0.0


class Quarantine:
    """Keeps the accounts of all ports. ``begin`` and ``end`` put the rules in and take them out."""

    def __init__(
        self,
        settings: Settings,
        counters: Counters,
        begin: Callable[[LocalPort, int], None],
        end: Callable[[LocalPort], None],
    ) -> None:
        self._rate, self._burst = settings.flood_rate, settings.flood_burst
        self._max_s = settings.quarantine_max_s
        self._counters = counters
        self._begin = begin
        self._end = end
        self._accounts: dict[int, _Account] = {}
        #: By zone, the ports in quarantine and until when.
        self._held: dict[int, tuple[LocalPort, float]] = {}

    def holds(self, zone: int) -> bool:
        """Whether the port is in quarantine, so that what it sent before need not be looked at."""
        held = self._held.get(zone)
        return held is not None and held[0].record.port_security

    def charge(self, port: LocalPort, cost: int, now_s: float) -> None:
        """A packet-in of the port cost so much. A port without port security is trusted."""
        if not port.record.port_security:
            return
        account = self._accounts.get(port.zone)
        if account is None:
            account = _Account(TokenBucket(self._rate, self._burst, now_s))
            self._accounts[port.zone] = account
        if not account.bucket.take(now_s, cost) and self._max_s and port.zone not in self._held:
            self._quarantine(port, account, now_s)

    def tick(self, now_s: float) -> None:
        """Let those go whose time is over."""
        for zone, (port, until_s) in list(self._held.items()):
            if until_s <= now_s:
                del self._held[zone]
                account = self._accounts[zone]
                account.ended_s = now_s
                account.bucket = TokenBucket(self._rate, self._burst, now_s)
                account.bucket.take(now_s, int(self._burst * (1 - PROBATION)))
                self._end(port)

    def forget_port(self, zone: int) -> None:
        self._accounts.pop(zone, None)
        self._held.pop(zone, None)

    def _quarantine(self, port: LocalPort, account: _Account, now_s: float) -> None:
        again = account.length_s and now_s - account.ended_s < FORGIVEN_S
        account.length_s = min(account.length_s * 2, self._max_s) if again else 1
        self._held[port.zone] = (port, now_s + account.length_s)
        self._counters.add("quarantined", port.record.id)
        self._begin(port, account.length_s)

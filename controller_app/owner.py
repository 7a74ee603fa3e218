"""Who gets the packet-ins of a connection, and that only one connection at a time has it."""

from __future__ import annotations

import threading
import time
from typing import Final, Protocol

from ondemand.messages import FlowRemoved, PacketIn

#: Upper half of the xids of the owner's own multipart requests; os-ken counts up from a random number
#: and would have to count for days to get there.
OWNER_XID: Final = 0x0D5E0000


def is_owners(xid: int) -> bool:
    """Whether a request with this xid was the owner's."""
    return xid & 0xFFFF0000 == OWNER_XID


class Connection(Protocol):
    """What an owner may do with its connection."""

    #: Datapath id of the switch.
    id: int

    def send(self, buf: bytes) -> bool:
        """Write whole messages, from any thread; False when the connection is dying."""

    def wake(self) -> None:
        """Have ``collect`` called soon, from any thread."""

    def close(self) -> None:
        """End the connection, from any thread."""


class Owner(Protocol):
    """Whom the switch's rules belong to.

    Except for ``wants``, which any connection's thread may call, all methods are called by the one
    thread of the connection that the owner is lent to, from ``connected`` to ``disconnected``. They
    must not block. An exception ends the connection; the switch then connects anew.
    """

    def wants(self, datapath_id: int) -> bool:
        """Whether the switch with this datapath id is the owner's; others are served as usual."""

    def connected(self, connection: Connection) -> None:
        """The owner's switch is there. A former connection to it has been ended before."""

    def packet_in(self, message: PacketIn) -> None:
        """A packet that a rule with one of our cookies sent."""

    def flow_removed(self, message: FlowRemoved) -> None:
        """The switch dropped a rule with one of our cookies."""

    def statistics(self, message: bytes) -> None:
        """A multipart reply to a request of the owner's (``is_owners``)."""

    def error(self, xid: int, kind: int, code: int, data: bytes) -> None:
        """The switch refused a request, ours or another app's; see ``decode.decode_error``."""

    def collect(self, now_s: float) -> bytes:
        """What is to be written now; called after messages, ``wake`` and at each tick."""

    def disconnected(self) -> None:
        """The connection is gone; what was collected and not written is lost."""


class OwnerLoan:
    """Lends an owner to one connection at a time; the newest has the right to it.

    A switch that restarts is back before the end of its former connection is noticed.
    """

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self._changed = threading.Condition(threading.Lock())
        self._holder: Connection | None = None

    def take(self, connection: Connection, timeout_s: float) -> bool:
        """End the connection that has the owner and take it over.

        Returns:
            False when that took longer than ``timeout_s`` seconds.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            with self._changed:
                former = self._holder
                if former is None:
                    self._holder = connection
                    return True
            former.close()
            with self._changed:
                self._changed.wait_for(
                    lambda former=former: self._holder is not former,  # type: ignore[misc]
                    max(0.0, deadline_s - time.monotonic()),
                )
                if self._holder is former:
                    return False

    def give_back(self, connection: Connection) -> None:
        """Free the owner for the next connection."""
        with self._changed:
            if self._holder is connection:
                self._holder = None
                self._changed.notify_all()

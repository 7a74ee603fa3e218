"""The replica of the switch's database, as python-ovs keeps it (the "IDL"), and what the agent adds.

Added are: whether the server is there, one call after each batch of changes, and the watch over the
lock. ``fetch_schema`` asks the server for what the replica needs to know before it can start.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import ovs.jsonrpc
import ovs.poller
from ovs.stream import Stream
from ovsdbapp.backend.ovs_idl import connection

from controller_app.ovsdb_errors import OvsdbUnreachableError

LOG = logging.getLogger(__name__)

SCHEMA: Final = "Open_vSwitch"

#: What is replicated. Interface.statistics is not: it changes every few seconds for every port.
COLUMNS: Final[dict[str, list[str]]] = {
    "Open_vSwitch": [
        "bridges",
        "next_cfg",
        "cur_cfg",
        "external_ids",
        "ovs_version",
        "db_version",
        "datapath_types",
        "iface_types",
    ],
    "Bridge": [
        "name",
        "ports",
        "controller",
        "datapath_id",
        "datapath_type",
        "fail_mode",
        "flow_tables",
        "other_config",
        "protocols",
    ],
    "Port": ["name", "interfaces"],
    "Interface": ["name", "type", "options", "ofport", "error", "external_ids"],
    "Controller": ["target", "connection_mode", "max_backoff", "is_connected", "external_ids"],
    "Flow_Table": ["flow_limit", "overflow_policy", "groups", "external_ids"],
}

#: Seconds between two attempts to reconnect (the shortest that python-ovs allows).
RECONNECT_S: Final = 1.0
#: Seconds that a lock held by somebody else may need to become free: the server may still hold the
#: connection of an agent that has just ended, or an old connection of this one.
LOCK_GRACE_S: Final = 0.5


class SwitchIdl(connection.OvsdbIdl):
    """The replica; all calls come in the IDL thread.

    ``on_row`` is called with table and row id for each row that changed, ``on_change`` after each
    batch of changes (it may be one that changed nothing), ``on_lock_lost`` once when the lock has
    been another client's for LOCK_GRACE_S, or was taken away. The last two are called again if they
    raise.
    """

    def __init__(self, remote: str, helper: Any) -> None:
        super().__init__(remote, helper)
        self.remote = remote
        self.lock_name: Any  # python-ovs sets it, without a type
        self.changed: threading.Condition | None = None
        self.on_row: Callable[[str, UUID], None] | None = None
        self.on_change: Callable[[], None] | None = None
        self.on_lock_lost: Callable[[], None] | None = None
        self.lock_lost = False
        #: The lock was taken away while it was held, rather than found taken.
        self.lock_taken = False
        self._held_lock = False
        self._lock_told = False
        self._contended_since_s: float | None = None
        self._up = False
        self._told_seqno = 0
        milliseconds = int(RECONNECT_S * 1000)
        self._session.reconnect.set_backoff(milliseconds, milliseconds)

    @property
    def up(self) -> bool:
        """The server is connected and the replica is complete."""
        return self._up

    def tell_again(self) -> None:
        """Call ``on_change`` on the next run, even if nothing changes until then."""
        self._told_seqno = -1

    def steal_lock(self) -> None:
        """Take the lock away from whoever holds it (RFC 7047, 4.1.9), who is told at once."""
        name: str = self.lock_name
        # A lock that is asked for already cannot be stolen.
        self.set_lock(None)
        self.lock_name = name
        request = ovs.jsonrpc.Message.create_request("steal", [name])
        self._session.send(request)
        self._lock_request_id = request.id

    def notify(self, event: str, row: Any, updates: Any = None) -> None:  # noqa: ARG002
        if self.on_row is not None:
            self.on_row(row._table.name, row.uuid)  # noqa: SLF001 - python-ovs offers no other way

    def run(self) -> bool:
        changed = bool(super().run())
        self._note_connection()
        self._note_lock()
        if self._up and self.on_change is not None and self._told_seqno != self.change_seqno:
            seqno = self.change_seqno
            self.on_change()
            self._told_seqno = seqno
        if self.changed is not None:
            self.changed.notify_all()
        return changed

    def wait(self, poller: Any) -> None:
        super().wait(poller)
        if self._contended_since_s is not None and not self.lock_lost:
            rest_s = self._contended_since_s + LOCK_GRACE_S - time.monotonic()
            poller.timer_wait(max(0, int(rest_s * 1000) + 1))

    def _note_connection(self) -> None:
        up = self._session.is_connected() and self.state == self.IDL_S_MONITORING
        if up != self._up:
            self._up = up
            if up:
                LOG.info("OVSDB at %s answers", self.remote)
            else:
                LOG.warning(
                    "OVSDB at %s is gone; trying again every %g s, the switch goes on forwarding",
                    self.remote,
                    RECONNECT_S,
                )

    def _note_lock(self) -> None:
        held, self._held_lock = self._held_lock, self._up and self.has_lock
        if not self.is_lock_contended:
            self._contended_since_s = None
            self.lock_lost = self.lock_taken = self._lock_told = False
            return
        if held and self._up:
            # On a connection that stands, only somebody who takes it away can be the reason.
            self.lock_lost = self.lock_taken = True
        now_s = time.monotonic()
        if self._contended_since_s is None:
            self._contended_since_s = now_s
        elif now_s - self._contended_since_s >= LOCK_GRACE_S:
            self.lock_lost = True
        if self.lock_lost and not self._lock_told and self.on_lock_lost is not None:
            self.on_lock_lost()
            self._lock_told = True


def fetch_schema(remote: str, timeout_s: float) -> Any:
    """The server's Open_vSwitch schema (RFC 7047, 4.1.2) as JSON.

    ovsdbapp's own waits without end for a server that accepts and says nothing.

    Raises:
        OvsdbUnreachableError: no answer within ``timeout_s`` seconds, or not that of an
            Open_vSwitch database.
    """
    deadline_s = time.monotonic() + timeout_s
    error, stream = Stream.open_block(Stream.open(remote), int(timeout_s * 1000))
    if error:
        raise OvsdbUnreachableError(remote, os.strerror(error))
    rpc = ovs.jsonrpc.Connection(stream)
    try:
        request = ovs.jsonrpc.Message.create_request("get_schema", [SCHEMA])
        error = rpc.send(request)
        while not error:
            rpc.run()
            error, reply = rpc.recv()
            if not error and reply.id == request.id:
                if reply.type == ovs.jsonrpc.Message.T_REPLY:
                    return reply.result
                raise OvsdbUnreachableError(remote, f"it has no {SCHEMA} database")
            if error == errno.EAGAIN:
                error = 0
                rest_s = deadline_s - time.monotonic()
                if rest_s <= 0:
                    raise OvsdbUnreachableError(remote, f"silent for {timeout_s:g} s")
                poller = ovs.poller.Poller()
                rpc.wait(poller)
                rpc.recv_wait(poller)
                poller.timer_wait(int(rest_s * 1000) + 1)
                poller.block()
        reason = "it closed the connection" if error < 0 else os.strerror(error)
        raise OvsdbUnreachableError(remote, reason)
    finally:
        rpc.close()

"""Everything that the agent does with OVSDB: its bridge, and who is plugged into it.

```
with Ovsdb.connect(config, patience_s=math.inf, stop=stop) as ovsdb:
    state = ovsdb.ensure_bridge()
    ovsdb.set_flow_table_limits({30: ("NXM_NX_REG6[]",)}, limit=20_000)
    ovsdb.watch(events.put)
```

**Threads.** ovsdbapp runs the replica of the database in a thread of its own, the IDL thread. The
callback of ``watch`` runs in it, one event at a time; it must only hand the event on (put it into a
queue): while it runs nothing else is read from the database, and calling back into this object from
it would wait for itself. All methods may be called from any other thread; they block, for bounded
times. When the callback raises, ovsdbapp logs it, and the event is delivered again with the next
change in the database.

**Reconnection.** The IDL thread reconnects once per second for as long as it takes. Then the state
found is compared with the events delivered, and the difference is delivered.

**Second agent.** Each agent holds an OVSDB lock named after the bridge (RFC 7047, 4.1.8) on its
connection. The server frees it when the connection ends, however the agent ends, and refuses the
writes of whoever does not hold it. Who asks while it is taken gets an error at once, or takes it away
(``replace``). That it was taken away, or that another agent was the faster one after a restart of the
server, is told by LockLost.

Errors: see ``ovsdb_errors``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Self

from controller_app.ovsdb_config import BridgeConfig
from controller_app.ovsdb_controller import Touch
from controller_app.ovsdb_errors import (
    BridgeConflictError,
    BridgeFailedError,
    ForeignControllerError,
    OvsdbError,
    OvsdbRefusedError,
    OvsdbUnreachableError,
    ReplacedError,
    SecondAgentError,
    VswitchdSilentError,
)
from controller_app.ovsdb_flow_tables import SetFlowTableLimits
from controller_app.ovsdb_idl import LOCK_GRACE_S, SCHEMA
from controller_app.ovsdb_link import ANSWER_TIMEOUT_S, Link, find_row
from controller_app.ovsdb_ports import (
    BridgeGone,
    InterfacesTold,
    LockLost,
    OvsdbEvent,
    PortGone,
    PortSeen,
    PortTracker,
    TunnelGone,
    TunnelSeen,
)
from controller_app.ovsdb_setup import BridgeState, ensure_bridge
from controller_app.ovsdb_view import ViewReader

__all__ = [
    "BridgeConfig",
    "BridgeConflictError",
    "BridgeFailedError",
    "BridgeGone",
    "BridgeState",
    "ForeignControllerError",
    "InterfacesTold",
    "LockLost",
    "Ovsdb",
    "OvsdbError",
    "OvsdbEvent",
    "OvsdbRefusedError",
    "OvsdbUnreachableError",
    "PortGone",
    "PortSeen",
    "ReplacedError",
    "SecondAgentError",
    "TunnelGone",
    "TunnelSeen",
    "VswitchdSilentError",
]

LOG = logging.getLogger(__name__)

#: Seconds between two attempts to connect at the start.
RETRY_S: Final = 1.0
#: Seconds after which a wait that goes on is logged again.
REMIND_S: Final = 30.0


class Ovsdb:
    """The agent's hold on one bridge; made by ``connect``, ended by ``close`` or ``with``."""

    def __init__(self, config: BridgeConfig, link: Link) -> None:
        self._config = config
        self._link = link
        self._reader = ViewReader(config.tunnel_port)
        self._tracker = PortTracker(config.bridge)
        self._deliver: Callable[[OvsdbEvent], None] | None = None
        self._all_told = False
        self._problems: frozenset[str] = frozenset()

    @classmethod
    def connect(
        cls,
        config: BridgeConfig,
        *,
        patience_s: float = 0.0,
        stop: threading.Event | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
        replace: bool = False,
    ) -> Ovsdb:
        """Connect and take the lock of the bridge; write nothing.

        Args:
            config: which bridge in which OVSDB.
            patience_s: seconds to try again while the server does not answer; math.inf for ever.
            stop: set by another thread to give up early.
            timeout_s: seconds, for each wait on the server or on ovs-vswitchd, also later.
            replace: take the lock away from an agent that has it.

        Raises:
            OvsdbUnreachableError: no answer, and the patience is at its end or ``stop`` is set.
            SecondAgentError: another agent serves the bridge; never waited for.
            OvsdbError: the database has not been initialised.
        """
        stop = stop or threading.Event()
        end_s = time.monotonic() + patience_s
        remind_s = 0.0
        while True:
            try:
                return cls(config, _locked_link(config, timeout_s, replace=replace))
            except OvsdbUnreachableError as error:
                now_s = time.monotonic()
                if now_s >= end_s or stop.is_set():
                    raise
                if now_s >= remind_s:
                    LOG.warning("%s; trying again every %g s", error, RETRY_S)
                    remind_s = now_s + REMIND_S
                if stop.wait(min(RETRY_S, end_s - now_s)):
                    raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the watch, the thread and the connection; the bridge stays as it is. Idempotent."""
        self._link.close()

    def ensure_bridge(
        self,
        *,
        ready: Callable[[BridgeState], None] | None = None,
        reconnect: bool = False,
    ) -> BridgeState:
        """Create or adopt the bridge, and wait until it works.

        Call it again after BridgeGone. What a failing call has created is removed again.

        Args:
            ready: called when the bridge works, before its controller is set; the switch may
                connect as soon as it has returned.
            reconnect: the switch is not connected to this agent, which listens already: have it
                connect at once, whenever it would have tried by itself.

        Raises:
            BridgeConflictError: it is somebody else's; nothing was written.
            BridgeFailedError: ovs-vswitchd could not make it.
            OvsdbError: see ``Link.commit``.
        """
        with self._telling_lost_lock():
            return ensure_bridge(self._link, self._config, ready=ready, reconnect=reconnect)

    def set_flow_table_limits(self, groups: Mapping[int, Iterable[str]], *, limit: int) -> bool:
        """Bound each of the bridge's tables that ``groups`` names to ``limit`` flows.

        A full table evicts from the group of flows that is largest. ``groups`` has for each table id
        (0..254) the fields, in OVS syntax, that make a group (ovs-vswitchd.conf.db(5), Flow_Table).

        Returns:
            False when all was so already; then nothing is written.

        Raises:
            BridgeConflictError: the bridge is gone.
            OvsdbError: see ``Link.commit``.
        """
        command = SetFlowTableLimits(self._link.api, self._config.bridge, groups, limit=limit)
        with self._link.held():
            if command.is_done():
                return False
        with self._telling_lost_lock():
            self._link.commit(command)
        return True

    def touch(self) -> None:
        """Have ovs-vswitchd go over its configuration; call it when the switch connects (see ``Touch``).

        Raises:
            OvsdbError: see ``Link.commit``.
        """
        with self._telling_lost_lock():
            self._link.commit(Touch(self._link.api))

    def run_directory(self) -> Path | None:
        """Where ovs-vswitchd has its sockets, as far as the database tells."""
        with self._link.held():
            row = next(iter(self._link.idl.tables[SCHEMA].rows.values()))
            found = row.external_ids.get("rundir")
        return Path(found) if found else None

    def watch(self, deliver: Callable[[OvsdbEvent], None]) -> None:
        """Deliver all that is there as events, and from then on what changes (see the module)."""
        with self._link.held():
            self._deliver = deliver
            self._all_told = False
            self._reader = ViewReader(self._config.tunnel_port)
            self._link.idl.on_row = self._reader.note
            self._link.idl.on_change = self._tell
            self._link.idl.on_lock_lost = self._tell_lock_lost
            self._link.idl.tell_again()
        self._link.wake()

    @contextlib.contextmanager
    def _telling_lost_lock(self) -> Iterator[None]:
        """A refused write means, without the lock, that another agent has it."""
        try:
            yield
        except OvsdbRefusedError:
            if self._link.idl.lock_lost:
                raise lost_lock_error(self._config, taken=self._link.idl.lock_taken) from None
            raise

    def _tell(self) -> None:
        """IDL thread: deliver the difference between what is and what was told."""
        bridge = find_row(self._link.api, "Bridge", self._config.bridge)
        view = self._reader.read(bridge, self._link.idl.tables["Interface"].rows)
        difference = self._tracker.compare(view)
        for event in difference.events:
            self._hand_over(event)
            self._tracker.told(event)
        if not self._all_told and view.present:
            self._hand_over(InterfacesTold(self._config.bridge))
            self._all_told = True
        for sentence in sorted(difference.problems - self._problems):
            LOG.warning("bridge %s: %s", self._config.bridge, sentence)
        self._problems = difference.problems

    def _tell_lock_lost(self) -> None:
        self._hand_over(LockLost(self._config.bridge, self._link.idl.lock_taken))

    def _hand_over(self, event: OvsdbEvent) -> None:
        if self._deliver is not None:
            self._deliver(event)


def lock_name(config: BridgeConfig) -> str:
    """The OVSDB lock of the agent that serves the bridge.

    A lock's name is an <id> of RFC 7047, section 3.1: letters, digits and underscores.
    """
    return "ondemand_" + "".join(
        chr(byte) if chr(byte).isalnum() and byte < 0x80 else f"_{byte:02x}"
        for byte in config.bridge.encode()
    )


def lost_lock_error(config: BridgeConfig, *, taken: bool) -> SecondAgentError:
    """What ends an agent that has lost its lock."""
    kind = ReplacedError if taken else SecondAgentError
    return kind(config.bridge, lock_name(config))


def _locked_link(config: BridgeConfig, timeout_s: float, *, replace: bool) -> Link:
    name = lock_name(config)
    link = Link(config.ovsdb, lock_name=name, timeout_s=timeout_s)
    idl = link.idl
    if replace and link.wait_until(lambda: idl.has_lock or idl.is_lock_contended):
        with link.held():
            if not idl.has_lock:
                idl.steal_lock()
                LOG.info("taking bridge %s over from the agent that serves it", config.bridge)
        link.wake()
    if link.wait_until(lambda: idl.has_lock, LOCK_GRACE_S):
        return link
    contended = idl.is_lock_contended
    link.close()
    if contended:
        raise SecondAgentError(config.bridge, name)
    raise OvsdbUnreachableError(config.ovsdb, "silent about the lock")

"""The connection to one OVSDB server: ovsdbapp with a bound on every wait.

ovsdbapp runs the replica in a thread of its own, which reconnects by itself and runs the
transactions too. Whoever reads rows from another thread does so under ``Link.held``.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

from ovs.db.idl import SchemaHelper
from ovsdbapp import exceptions as ovsdbapp_exceptions
from ovsdbapp.backend.ovs_idl import connection, idlutils
from ovsdbapp.schema.open_vswitch import impl_idl

from controller_app.ovsdb_errors import (
    OvsdbError,
    OvsdbRefusedError,
    OvsdbUnreachableError,
    VswitchdSilentError,
)
from controller_app.ovsdb_idl import COLUMNS, SCHEMA, SwitchIdl, fetch_schema

LOG = logging.getLogger(__name__)

#: Seconds that one exchange with the server may take before it counts as unreachable.
ANSWER_TIMEOUT_S: Final = 10.0


class SwitchTransaction(impl_idl.OvsVsctlTransaction):
    """A transaction that always raises ``next_cfg`` and never waits for ovs-vswitchd.

    ovsdbapp's own raises it only together with another change, and waits in the IDL thread, which
    holds up every event while ovs-vswitchd is down. ``Link.commit`` waits in the caller's thread.
    """

    def pre_commit(self, txn: Any) -> None:
        row = next(iter(self.api.tables[SCHEMA].rows.values()))
        row.verify("next_cfg")
        self._next_cfg = row.next_cfg + 1
        row.next_cfg = self._next_cfg
        # ovsdbapp's commands that add a port note it here.
        txn.expected_ifaces = set()

    def do_post_commit(self, txn: Any) -> None:  # noqa: ARG002 - the signature is ovsdbapp's
        self.api.next_cfg = self._next_cfg


class SwitchApi(impl_idl.OvsdbIdl):
    """ovsdbapp's Open_vSwitch API bound to one connection.

    ovsdbapp keeps the connection on the class, so that all instances of a process share the first;
    here each instance has its own.
    """

    def __init__(self, switch_connection: Any) -> None:
        self._own_connection = switch_connection
        self.next_cfg = 0
        # ovsdbapp's automatic indexes include Flow_Table.name, which breaks on a row without a name.
        super().__init__(switch_connection, start=False, auto_index=False)
        for table in ("Bridge", "Port", "Interface"):
            self.create_index(table, "name")

    @property
    def ovsdb_connection(self) -> Any:
        return self._own_connection

    @ovsdb_connection.setter
    def ovsdb_connection(self, value: Any) -> None:
        self._own_connection = value

    def create_transaction(
        self,
        check_error: bool = False,  # noqa: FBT001, FBT002 - the signature is ovsdbapp's
        log_errors: bool = True,  # noqa: FBT001, FBT002
        **_options: Any,
    ) -> SwitchTransaction:
        return SwitchTransaction(
            self, self.ovsdb_connection, check_error=check_error, log_errors=log_errors
        )


class Link:
    """One connection, open from construction until ``close``; a context manager.

    Args:
        remote: OVSDB address, ``unix:/path`` or ``tcp:address:port``.
        lock_name: OVSDB lock to hold; the server frees it when the connection ends, however it
            ends. Without it no transaction passes. None: no lock.
        timeout_s: seconds, for each wait on the server or on ovs-vswitchd.

    Raises:
        OvsdbUnreachableError: no answer, or the answer was not that of an Open_vSwitch database.
        OvsdbError: the database has not been initialised.
    """

    def __init__(
        self, remote: str, *, lock_name: str | None = None, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        self.remote = remote
        self.timeout_s = timeout_s
        helper = SchemaHelper(None, fetch_schema(remote, timeout_s))
        for table, columns in COLUMNS.items():
            helper.register_columns(table, columns)
        self.idl = SwitchIdl(remote, helper)
        self.idl.set_lock(lock_name)
        self._connection = connection.Connection(self.idl, timeout_s)
        self._lock = self._connection.lock
        self.idl.changed = self._changed = threading.Condition(self._lock)
        self.api = SwitchApi(self._connection)
        try:
            self._connection.start()
        except ovsdbapp_exceptions.TimeoutException as error:
            self.idl.close()
            raise OvsdbUnreachableError(remote, f"silent for {timeout_s:g} s") from error
        try:
            self._check_ready()
        except OvsdbError:
            self.close()
            raise

    def _check_ready(self) -> None:
        if not self.wait_until(lambda: self.idl.up):
            raise OvsdbUnreachableError(self.remote, f"silent for {self.timeout_s:g} s")
        with self.held():
            if not self.idl.tables[SCHEMA].rows:
                raise OvsdbError(
                    f"the database in OVSDB at {self.remote} is empty; start OVS with ovs-ctl, or "
                    f"run ovs-vsctl --db={self.remote} --no-wait init"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the IDL thread and the connection; the lock is free then. Idempotent."""
        self.idl.on_row = self.idl.on_change = self.idl.on_lock_lost = None
        if not self._connection.stop(self.timeout_s):
            LOG.warning(
                "OVSDB at %s: a transaction is not answered; the connection ends with the process",
                self.remote,
            )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold still the replica, to read or to wait.

        Raises:
            OvsdbUnreachableError: the IDL thread did not let go of it in time: it holds it while it
                waits for the answer to a transaction, which a server that hangs never gives.
        """
        if not self._lock.acquire(timeout=self.timeout_s):
            raise OvsdbUnreachableError(self.remote, f"silent for {self.timeout_s:g} s")
        try:
            yield
        finally:
            self._lock.release()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Whether ``condition`` (evaluated while ``held``) came true in time."""
        with self.held():
            return self._changed.wait_for(
                condition, self.timeout_s if timeout_s is None else timeout_s
            )

    def wake(self) -> None:
        """Have the IDL thread run now."""
        try:
            # None is what ovsdbapp itself queues to wake its thread for the end.
            self._connection.txns.put(None, timeout=self.timeout_s)
        except queue.Full as error:
            raise OvsdbUnreachableError(self.remote, "its transactions are stuck") from error

    def commit(self, command: Any) -> Any:
        """Run one ovsdbapp command as a transaction and wait until ovs-vswitchd has acted on it.

        Every commit raises ``next_cfg``, as ovs-vsctl does, also when the command changes nothing;
        so a success says that ovs-vswitchd is alive.

        Returns:
            The command's ``result``.

        Raises:
            OvsdbError: raised by the command itself, or one of
            OvsdbUnreachableError, OvsdbRefusedError, VswitchdSilentError.
        """
        if not self.wait_until(lambda: self.idl.up and self._may_write()):
            raise OvsdbUnreachableError(self.remote, f"gone for {self.timeout_s:g} s")
        try:
            with self.api.transaction(check_error=True, log_errors=False) as transaction:
                transaction.add(command)
        except ovsdbapp_exceptions.TimeoutException as error:
            raise OvsdbUnreachableError(
                self.remote, f"no answer to a transaction within {self.timeout_s:g} s"
            ) from error
        except RuntimeError as error:
            raise OvsdbRefusedError(f"OVSDB at {self.remote} refused a change: {error}") from error
        if not self.wait_until(self._vswitchd_settled):
            raise VswitchdSilentError(self.remote, self.timeout_s)
        return command.result

    def _may_write(self) -> bool:
        return self.idl.lock_name is None or self.idl.has_lock or self.idl.lock_lost

    def _vswitchd_settled(self) -> bool:
        return any(
            row.cur_cfg >= self.api.next_cfg for row in self.idl.tables[SCHEMA].rows.values()
        )


def find_row(api: Any, table: str, name: str) -> Any | None:
    """The row of ``table`` with this name, or None; called under ``Link.held`` or in the IDL thread."""
    return idlutils.row_by_value(api.idl, table, "name", name, None)

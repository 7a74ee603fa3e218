"""One run of a lab: its id, its directory, what it owns, and that all of it is gone at the end."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from mininet_topos.errors import LabConfigError, LabError
from mininet_topos.owner import Owner
from mininet_topos.processes import RUN_VARIABLE, StartGate, end_processes_of_run
from mininet_topos.signals import Handler, deferred_signals, exit_on_signals, restore_handlers

#: Start of the name of every run's directory; what follows is the run's id.
DIRECTORY_PREFIX: Final = "ondemand-"

#: Bytes that a run's directory may have so that sockets below it stay under 100: sun_path holds 108
#: (unix(7)), and the longest name that OVS makes here is "/<node>/<bridge>.mgmt".
_MAX_DIRECTORY: Final = 60


class Closeable(Protocol):
    """Something that a run owns. Both methods may be called more than once."""

    def begin_close(self) -> None:
        """Ask what takes time to end now, without waiting for it."""

    def close(self) -> None:
        """End all of it and wait for it."""


class LabRun:
    """A context in which nodes are made, and which leaves nothing of them behind.

    Until it is closed, SIGTERM and SIGHUP raise ``SystemExit`` in the main thread (if nobody else
    handles them), so that the context is left and closed, as it is on Ctrl-C. A second signal waits
    until the closing is done. What a run killed by SIGKILL leaves is for ``sweep``.

    Attributes:
        id: unique among the runs on this machine.
        prefix: starts the name of each of the run's nodes.
        directory: holds sockets, databases and logs of the run.
        gate: starts all its processes, and none after the run has been closed.
    """

    def __init__(self, *, keep_directory: bool = False) -> None:
        """``keep_directory`` leaves the logs where they are after the run."""
        self.keep_directory = keep_directory
        self.gate = StartGate()
        self._owner_pid = os.getpid()
        self._owned: list[Closeable] = []
        self._labels: set[str] = set()
        self._lock = threading.Lock()
        self._closing = False
        self._closed = False
        self._former_handlers: dict[signal.Signals, Handler] = exit_on_signals()
        # A signal between these would leave a directory that nobody closes and no sweep can tell.
        with deferred_signals():
            self.directory = Path(tempfile.mkdtemp(prefix=DIRECTORY_PREFIX))
            self.id = self.directory.name.removeprefix(DIRECTORY_PREFIX)
            self.prefix = f"od-{self.id}"
            Owner.this_process().write(self.directory)
            atexit.register(self.close)
        if len(os.fsencode(self.directory)) > _MAX_DIRECTORY:
            self.close()
            raise LabConfigError(
                f"the directory {self.directory} is too long for the sockets below it "
                f"({_MAX_DIRECTORY} bytes): set TMPDIR to a shorter one"
            )

    def environment(self) -> dict[str, str]:
        """The environment for a process of this run; it marks the process as the run's own."""
        return {**os.environ, RUN_VARIABLE: self.id, "LC_ALL": "C.UTF-8"}

    def claim_label(self, label: str) -> Path:
        """Reserve a node's name within the run and make its directory.

        A node that comes after one of the same name gets another directory (``h1.2``), so that the
        logs of the first are kept.
        """
        with self._lock:
            if label in self._labels:
                raise LabConfigError(f"the node name '{label}' is taken in this run")
            self._labels.add(label)
        number = 1
        directory = self.directory / label
        while directory.exists():
            number += 1
            directory = self.directory / f"{label}.{number}"
        directory.mkdir()
        return directory

    def release_label(self, label: str) -> None:
        with self._lock:
            self._labels.discard(label)

    def own(self, thing: Closeable) -> None:
        """Take over the duty to close ``thing``; the last taken is closed first."""
        with self._lock:
            if not self._closing:
                self._owned.append(thing)
                return
        thing.close()
        raise LabError(f"the run {self.id} is being closed and takes nothing new")

    def disown(self, thing: Closeable) -> None:
        """Forget a thing that has been closed before its time."""
        with self._lock:
            if thing in self._owned:
                self._owned.remove(thing)

    def close(self) -> None:
        """End all that the run owns and remove its directory. May be called again.

        Raises:
            ExceptionGroup: some things could not be closed; the others were.
        """
        if self._closed or os.getpid() != self._owner_pid:
            return
        try:
            with deferred_signals():
                self._close_all()
        finally:
            restore_handlers(self._former_handlers)
            self._former_handlers = {}

    def _close_all(self) -> None:
        with self._lock:
            self._closing = True
            owned = self._owned[::-1]
        errors: list[Exception] = []
        try:
            for thing in owned:
                _collect(thing.begin_close, errors)
            for thing in owned:
                _collect(thing.close, errors)
                self.disown(thing)
        finally:
            # A thread that was building when the end came must not start anything after this.
            self.gate.shut()
            end_processes_of_run(self.id)
            if not self.keep_directory:
                shutil.rmtree(self.directory, ignore_errors=True)
            self._closed = True
            atexit.unregister(self.close)
        if errors:
            raise ExceptionGroup(f"the run {self.id} was not closed cleanly", errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _collect(action: Callable[[], None], errors: list[Exception]) -> None:
    try:
        action()
    except (OSError, LabError) as error:
        errors.append(error)

"""The control socket of ovs-vswitchd: where it is, and commands to it (ovs-appctl(8)).

python-ovs speaks the protocol; no program is started.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import ovs.jsonrpc
from ovs.stream import Stream

#: Where Debian's packages and ovs-ctl run Open vSwitch.
_RUN_DIRECTORY: Final = "/var/run/openvswitch"
#: Seconds to wait for the connection.
_CONNECT_S: Final = 2.0


class ControlError(Exception):
    """ovs-vswitchd could not be asked, or refused; the message says what it was asked and why."""


class CommandUnknownError(ControlError):
    """This ovs-vswitchd has no such command, or its datapath does not have what it is about."""


def run_directory(ovsdb: str) -> Path:
    """The directory of ovs-vswitchd's sockets: that of a local database's, else the usual one."""
    kind, _, path = ovsdb.partition(":")
    return (
        Path(path).parent if kind == "unix" else Path(os.environ.get("OVS_RUNDIR", _RUN_DIRECTORY))
    )


def control_socket(folder: Path, *, exists: Callable[[str], bool] = os.path.exists) -> Path | None:
    """The control socket in a run directory; None when there is none.

    Its name has the process id, unless ovs-vswitchd was started with --unixctl.
    """
    try:
        pid = (folder / "ovs-vswitchd.pid").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        pid = ""
    for name in (f"ovs-vswitchd.{pid}.ctl", "ovs-vswitchd.ctl"):
        if exists(str(folder / name)):
            return folder / name
    return None


class ProcessWatch:
    """Whether ovs-vswitchd is another process than at the last look, by its control socket."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._look()

    def changed(self) -> bool:
        """True once after each start; a look costs some microseconds."""
        now = self._look()
        if now is None or now == self._seen:
            return False
        self._seen = now
        return True

    def _look(self) -> tuple[str, int, int] | None:
        path = control_socket(self._folder)
        try:
            found = None if path is None else path.stat()
        except OSError:
            found = None
        return None if found is None else (str(path), found.st_ino, found.st_ctime_ns)


class Control:
    """One connection to ovs-vswitchd; a command waits for its answer, however long that takes.

    Raises:
        ControlError: there is no such socket (None), or nobody accepts there.
    """

    def __init__(self, path: Path | None) -> None:
        if path is None:
            raise ControlError("the control socket of ovs-vswitchd is not there")
        self._path = path
        error, stream = Stream.open_block(Stream.open(f"unix:{path}"), int(_CONNECT_S * 1000))
        if error:
            raise ControlError(f"ovs-vswitchd does not answer at {path} ({os.strerror(error)})")
        self._connection = ovs.jsonrpc.Connection(stream)

    def run(self, command: str, *arguments: str) -> str:
        """What the command answers.

        Raises:
            CommandUnknownError: it answers that it knows no such command or cannot do it.
            ControlError: the connection broke.
        """
        request = ovs.jsonrpc.Message.create_request(command, list(arguments))
        error, reply = self._connection.transact_block(request)
        if error:
            reason = os.strerror(error) if error > 0 else "it closed the connection"
            raise ControlError(f"ovs-vswitchd at {self._path} did not answer {command} ({reason})")
        if reply.error is not None:
            raise CommandUnknownError(f"{command}: {str(reply.error).strip()}")
        return str(reply.result)

    def close(self) -> None:
        self._connection.close()

"""A NATS server with JetStream, of a lab's or a test's own: its folder, its port, ended by its pid."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from mininet_topos.errors import LabError, LabUnavailableError
from mininet_topos.processes import Background, wait_until_output

#: The port that clients take when none is given.
NATS_PORT: Final = 4222
#: Seconds; a server that finds a million messages on its disk reads them first.
START_TIMEOUT_S: Final = 20.0

_PROGRAM: Final = "nats-server"
#: Debian has it in sbin, which an ordinary user's PATH leaves out.
_SBIN: Final = ("/usr/local/sbin", "/usr/sbin")
#: What the server says when it takes clients.
_READY: Final = "Server is ready"

#: Starts a background process, given its name and its command.
Spawn = Callable[[str, Sequence[str]], Background]


def find_nats_server() -> str | None:
    """The path of the program, None when it is not installed."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))
    return shutil.which(_PROGRAM, path=path)


def require_nats_server() -> str:
    """The path of the program.

    Raises:
        LabUnavailableError: it is not installed.
    """
    program = find_nats_server()
    if program is None:
        raise LabUnavailableError(
            f"the program {_PROGRAM} is not installed: run 'make setup', or apt-get install"
            f" {_PROGRAM}"
        )
    return program


def free_port() -> int:
    """A TCP port of the loopback address that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NatsServer:
    """A server that keeps its port and what it stored over ``stop`` and ``start``.

    Attributes:
        folder: where JetStream keeps its files; it is made by the server.
        port: where it listens.
        url: what clients beside it call it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        configuration: str = "",
        address: str = "127.0.0.1",
        port: int | None = None,
        spawn: Spawn | None = None,
    ) -> None:
        """Write the configuration; ``start`` starts the server.

        Args:
            folder: exists; gets the configuration, the log and JetStream's files.
            configuration: more lines of the server's configuration.
            address: where it listens, an IPv4 address; 0.0.0.0: on all.
            port: the same; None for one of loopback that is free now.
            spawn: starts the process, ``LabNode.spawn`` say; None for a process of no run.
        """
        self.folder = folder / "jetstream"
        self.port = free_port() if port is None else port
        host = "127.0.0.1" if address == "0.0.0.0" else address  # noqa: S104 - nothing is bound
        self.url = f"nats://{host}:{self.port}"
        self._log = folder / "nats.log"
        self._configuration = folder / "nats.conf"
        self._configuration.write_text(
            f'listen: "{address}:{self.port}"\njetstream {{ store_dir: "{self.folder}" }}\n'
            + configuration
        )
        self._spawn = spawn or self._spawn_alone
        self._process: Background | None = None

    @property
    def process(self) -> Background:
        """The process, running or not.

        Raises:
            LabError: it was never started.
        """
        if self._process is None:
            raise LabError(f"the server of {self.url} was not started")
        return self._process

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Start it; it takes clients when this returns. Nothing happens when it runs.

        Raises:
            LabUnavailableError: the program is not installed.
            CommandError: it ended; the message has what it said.
            CommandTimeoutError: it took no clients in time.
        """
        if self.is_running:
            return
        command = [require_nats_server(), "-c", str(self._configuration)]
        self._process = self._spawn(_PROGRAM, command)
        wait_until_output(self._process, _READY, timeout_s=START_TIMEOUT_S)

    def stop(self) -> None:
        """End it in an orderly way: clients are told, and files are closed. May be called again."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """As a crash does it: what was confirmed is in the file, nothing is said to clients."""
        if self._process is not None:
            self._process.kill()

    def wipe(self) -> None:
        """Remove what it has stored; it must not run."""
        shutil.rmtree(self.folder)

    def _spawn_alone(self, name: str, argv: Sequence[str]) -> Background:
        return Background(name, argv, log=self._log)

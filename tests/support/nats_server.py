"""A NATS server with JetStream of the test's own: on loopback, its port and its folder, ended by pid."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

PATIENCE_S = 20.0

#: Debian has it in sbin, which an ordinary user's PATH leaves out.
PROGRAM = shutil.which("nats-server") or shutil.which(
    "nats-server", path="/usr/local/sbin:/usr/sbin"
)

needs_nats_server = pytest.mark.skipif(
    PROGRAM is None, reason="nats-server is not there (Debian: nats-server)"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NatsServer:
    """Keeps its port and its folder over ``stop`` and ``start``."""

    def __init__(self, folder: Path, *, configuration: str = "") -> None:
        self.folder = folder / "jetstream"
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._log = folder / "nats.log"
        self._configuration = folder / "nats.conf"
        self._configuration.write_text(
            f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{self.folder}" }}\n'
            + configuration
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM or "nats-server", "-c", str(self._configuration)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as link:
                return link.recv(5) == b"INFO "
        except OSError:
            return False

    def stop(self) -> None:
        """As a crash does it: what was confirmed is in the file, nothing is said to clients."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def wipe(self) -> None:
        shutil.rmtree(self.folder)

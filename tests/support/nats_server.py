"""A NATS server of the test's own on loopback, and the mark of tests that need one."""

from __future__ import annotations

import pytest

from mininet_topos import nats_server
from mininet_topos.nats_server import find_nats_server, free_port

#: Its path, None where it is not installed.
PROGRAM = find_nats_server()

needs_nats_server = pytest.mark.skipif(
    PROGRAM is None, reason="nats-server is not there (Debian: nats-server)"
)


class NatsServer(nats_server.NatsServer):
    """Keeps its port and its folder over ``stop`` and ``start``."""

    def stop(self) -> None:
        """As a crash does it: what was confirmed is in the file, nothing is said to clients."""
        self.kill()


__all__ = ["PROGRAM", "NatsServer", "free_port", "needs_nats_server"]

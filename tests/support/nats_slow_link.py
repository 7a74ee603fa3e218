"""A TCP link between a client and a server on loopback that can be slowed down, stopped and cut."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

_CHUNK = 4096


class SlowLink:
    """Listens on a port of its own; ``bytes_per_s`` and ``is_stalled`` may be set at any time.

    Only what goes to the client is slow. Nothing is lost: the server meets a receiver that does not read.
    """

    def __init__(self, target_port: int, *, bytes_per_s: float = 1e9) -> None:
        self.bytes_per_s = bytes_per_s
        self.is_stalled = False
        #: How many connections came so far.
        self.accepted = 0
        self._target = target_port
        self._closing = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            # The kernel would take megabytes on the way otherwise.
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CHUNK)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CHUNK)
            self._ends += [client, server]
            for one, other, is_slow in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._pump, args=(one, other, is_slow))
                self._threads.append(thread)
                thread.start()

    def _pump(self, one: socket.socket, other: socket.socket, is_slow: bool) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(_CHUNK):
                if is_slow:
                    time.sleep(len(data) / self.bytes_per_s)
                while self.is_stalled and not self._closing:
                    time.sleep(0.01)
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End the connections that are there."""
        ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closing = True
        ends = list(self._ends)
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
        for end in ends:
            end.close()

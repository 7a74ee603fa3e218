"""Connections to nats-server that do no more than note when something arrives: what the server can do.

``python -m scale.bare`` takes its orders from ``BareCrowd``. Hosts written in Python and crowded into
two processes take longer to read a message than the server to send it; this is the server alone.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from typing import Final

from mininet_topos.lab_run import LabRun
from scale.child import Child
from scale.machine import raise_file_limit
from scale.pipe import Message, tell

_CONNECT_S: Final = 60.0
_READ: Final = 65_536
_POLL_S: Final = 1.0
_AT_ONCE: Final = 200


class BareCrowd:
    """``count`` connections in one process, each subscribed to all of ``subjects``.

    ``{}`` in a subject stands for the number of the connection.
    """

    def __init__(self, run: LabRun, url: str, count: int, subjects: Sequence[str]) -> None:
        self._run = run
        self._child = Child(run, "scale.bare", "bare")
        self._child.ask({"url": url, "count": count, "subjects": list(subjects)})
        self._child.answer(_CONNECT_S * 2)

    def expect(self, timeout_s: float) -> None:
        """Note from now on when something arrives."""
        self._child.ask({"timeout_s": timeout_s})

    def arrivals(self, timeout_s: float) -> list[float]:
        """When the first message came at each connection, in monotonic seconds."""
        found: list[float] = self._child.answer(timeout_s + 30)["arrivals"]
        return found

    def close(self) -> None:
        self._child.close()
        self._run.disown(self._child)


class _Connections:
    def __init__(self, url: str, count: int, subjects: Sequence[str]) -> None:
        host, _, port = url.partition("://")[2].partition(":")
        self._place = (host, int(port))
        connect = "CONNECT " + json.dumps({"verbose": False, "pedantic": False}) + "\r\n"
        subscribe = "".join(f"SUB {name} {n}\r\n" for n, name in enumerate(subjects, 1))
        self._greeting = connect, subscribe + "PING\r\n"
        self._sockets: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        for begin in range(0, count, _AT_ONCE):
            self._connect(min(_AT_ONCE, count - begin))

    def _connect(self, count: int) -> None:
        made = [socket.create_connection(self._place, timeout=_CONNECT_S) for _ in range(count)]
        connect, subscribe = self._greeting
        for number, one in enumerate(made, len(self._sockets)):
            one.sendall((connect + subscribe.replace("{}", str(number))).encode())
        for one in made:
            said = b""
            while b"PONG" not in said:
                data = one.recv(_READ)
                if not data:
                    raise ConnectionError("nats-server hung up")
                said += data
            one.settimeout(0)
            self._sockets[one.fileno()] = one
            self._poll.register(one.fileno(), select.EPOLLIN)

    def arrivals(self, timeout_s: float) -> list[float]:
        """When each socket had its first message; sooner when all had one."""
        found: dict[int, float] = {}
        deadline_s = time.monotonic() + timeout_s
        while len(found) < len(self._sockets) and time.monotonic() < deadline_s:
            for number, _ in self._poll.poll(_POLL_S):
                data = self._sockets[number].recv(_READ)
                now_s = time.monotonic()
                if data.startswith(b"PING"):
                    self._sockets[number].sendall(b"PONG\r\n")
                elif not data:
                    raise ConnectionError("nats-server hung up")
                else:
                    found.setdefault(number, now_s)
        return list(found.values())


def main() -> int:
    raise_file_limit()
    first: Message = json.loads(sys.stdin.readline())
    connections = _Connections(first["url"], first["count"], first["subjects"])
    tell({})
    for line in sys.stdin:
        tell({"arrivals": connections.arrivals(json.loads(line)["timeout_s"])})
    return 0


if __name__ == "__main__":
    sys.exit(main())

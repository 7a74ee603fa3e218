"""An owner that notes what a connection tells it, and that its promises are kept."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from controller_app.owner import Connection
from ondemand.messages import FlowRemoved, PacketIn

TIMEOUT_S = 5.0


class RecordingOwner:
    """``calls`` are the calls but for collect, as (name, argument); ``outgoing`` is what to send."""

    def __init__(self, *wanted: int) -> None:
        self.wanted = set(wanted)
        self.calls: list[tuple[str, Any]] = []
        self.outgoing: deque[bytes] = deque()
        self.collected_s: list[float] = []
        self.connection: Connection | None = None
        self.on_packet_in: Callable[[PacketIn], None] = lambda _: None
        self.mistakes: list[str] = []
        self._thread: int | None = None
        self._changed = threading.Condition()

    def wants(self, datapath_id: int) -> bool:
        return datapath_id in self.wanted

    def connected(self, connection: Connection) -> None:
        if self.connection is not None:
            self.mistakes.append("connected twice")
        self._thread = threading.get_ident()
        self.connection = connection
        self._note("connected", connection.id)

    def packet_in(self, message: PacketIn) -> None:
        self._note("packet_in", message)
        self.on_packet_in(message)

    def flow_removed(self, message: FlowRemoved) -> None:
        self._note("flow_removed", message)

    def error(self, xid: int, kind: int, code: int, data: bytes) -> None:
        self._note("error", (xid, kind, code, data))

    def collect(self, now_s: float) -> bytes:
        with self._changed:
            self._check_thread("collect")
            self.collected_s.append(now_s)
            out = b"".join(self.outgoing)
            self.outgoing.clear()
            self._changed.notify_all()
        return out

    def disconnected(self) -> None:
        self._note("disconnected", None)
        self.connection = None

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def arguments(self, name: str) -> list[Any]:
        return [argument for called, argument in self.calls if called == name]

    def wait(self, condition: Callable[[], bool], what: str = "") -> None:
        """Until the condition holds, looked at after each call."""
        with self._changed:
            if not self._changed.wait_for(condition, TIMEOUT_S):
                raise TimeoutError(f"{what or condition}: {self.names()}")

    def wait_for(self, name: str, count: int = 1) -> list[Any]:
        """The arguments of ``count`` calls."""
        self.wait(lambda: len(self.arguments(name)) >= count, f"{count} x {name}")
        return self.arguments(name)

    def wait_for_read(self, action: Callable[[], None]) -> None:
        """Do something that the connection reads, and wait until it has (no ticks come between)."""
        before = len(self.collected_s)
        action()
        self.wait(lambda: len(self.collected_s) > before, "a read")

    def _note(self, name: str, argument: Any) -> None:
        with self._changed:
            self._check_thread(name)
            self.calls.append((name, argument))
            self._changed.notify_all()

    def _check_thread(self, name: str) -> None:
        if self.connection is None:
            self.mistakes.append(f"{name} without a connection")
        if threading.get_ident() != self._thread:
            self.mistakes.append(f"{name} from another thread")


def wait_until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Wait for something that nobody announces."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError("it did not come about")
        time.sleep(0.002)

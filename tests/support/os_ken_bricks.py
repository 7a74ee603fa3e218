"""os-ken's event routing in one process, without its listener: its own handlers and a stock app."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from os_ken.base import app_manager
from os_ken.controller import ofp_event
from os_ken.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.controller.ofp_handler import OFPHandler

TIMEOUT_S = 5.0


class StockApp(app_manager.OSKenApp):
    """An app as anybody writes one; ``events`` holds what os-ken gave it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: queue.Queue[Any] = queue.Queue()

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, event: Any) -> None:
        self.seen.put(event)

    @set_ev_cls(ofp_event.EventOFPFlowRemoved, MAIN_DISPATCHER)
    def flow_removed(self, event: Any) -> None:
        self.seen.put(event)

    @set_ev_cls(ofp_event.EventOFPErrorMsg, MAIN_DISPATCHER)
    def error(self, event: Any) -> None:
        self.seen.put(event)

    @set_ev_cls(ofp_event.EventOFPStateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])
    def state_change(self, event: Any) -> None:
        self.seen.put(event)

    def next(self, kind: type) -> Any:
        """The next event of a kind; those before it are dropped."""
        while True:
            event = self.seen.get(timeout=TIMEOUT_S)
            if isinstance(event, kind):
                return event

    def count(self, kind: type) -> int:
        """How many events of a kind wait."""
        return sum(isinstance(event, kind) for event in list(self.seen.queue))


@contextmanager
def running_bricks() -> Iterator[tuple[OFPHandler, StockApp]]:
    """os-ken's handler of the handshake and a stock app that observes it."""
    handler, app = OFPHandler(), StockApp()
    bricks = (handler, app)
    for brick in bricks:
        app_manager.register_app(brick)
    app_manager.AppManager()._update_bricks()
    app.start()
    try:
        yield handler, app
    finally:
        app.stop()
        for brick in bricks:
            app_manager.unregister_app(brick)

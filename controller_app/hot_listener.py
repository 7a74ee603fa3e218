"""Make os-ken's listener serve switches by hot connections."""

from __future__ import annotations

import logging
import socket
import ssl
from contextlib import closing
from types import TracebackType
from typing import Any, Final, Self

import os_ken.base.app_manager  # noqa: F401 - os_ken.controller.controller needs it first
from os_ken.controller import controller
from os_ken.lib import hub

from controller_app.hot_connection import TICK_S, Counters, HotDatapath
from controller_app.owner import Owner, OwnerLoan

LOG = logging.getLogger(__name__)

_STOCK_FACTORY: Final = controller.datapath_connection_factory


class HotConnectionError(Exception):
    """Hot connections cannot be used here; our fault."""


class Installation:
    """os-ken's listener makes hot connections until ``uninstall``, or the end of the context."""

    def __init__(self, owner: Owner, *, tick_s: float) -> None:
        self.counters = Counters()
        self._loan = OwnerLoan(owner)
        self._tick_s = tick_s
        self._former = controller.datapath_connection_factory
        # os-ken looks the name up when it starts to listen. Its class Datapath must stay: its own
        # super() calls look that name up, too.
        controller.datapath_connection_factory = self._serve

    def _serve(self, sock: socket.socket, address: Any) -> None:
        if isinstance(sock, ssl.SSLSocket):
            LOG.warning("TLS connection from %s: it is served by os-ken and has no owner", address)
            self._former(sock, address)
            return
        datapath = HotDatapath(
            sock, address, loan=self._loan, counters=self.counters, tick_s=self._tick_s
        )
        with closing(datapath):
            datapath.serve()

    def uninstall(self) -> None:
        """Give os-ken its own connections back; those that are there stay hot until their end."""
        controller.datapath_connection_factory = self._former

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.uninstall()


def install(owner: Owner, *, tick_s: float = TICK_S) -> Installation:
    """Have os-ken's listener serve switches by hot connections; call it before os-ken listens.

    Raises:
        HotConnectionError: os-ken runs on eventlet, or there is an installation already.
    """
    if hub.HUB_TYPE != "native":
        raise HotConnectionError(
            f"os-ken's hub is {hub.HUB_TYPE}: set OSKEN_HUB_TYPE=native before it is imported"
        )
    if controller.datapath_connection_factory is not _STOCK_FACTORY:
        raise HotConnectionError(
            "os-ken has a connection factory already: uninstall that one first"
        )
    return Installation(owner, tick_s=tick_s)

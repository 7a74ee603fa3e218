"""Whether a host is found where it believes to be: its tunnel address, and the one that others know.

Frames from other hosts go to the address in the goal state. Where the host is configured with another
one, they end nowhere, and nothing that the agent sees of its switch tells so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from typing import Final

from controller_app.explain_hosts import Bindings, Store
from ondemand.addresses import format_ip
from ondemand.slices import SourceError, host_slice

LOG: Final = logging.getLogger(__name__)

#: Seconds between looks at whether the host's slice says something new.
LOOK_S: Final = 2.0


def other_address(host: str, configured: bytes, told: Collection[bytes]) -> str | None:
    """What is wrong when others look for ``host`` at ``told``; None: nothing, as far as is known."""
    if not told or configured in told:
        return None
    addresses = " and ".join(format_ip(address) for address in sorted(told))
    return (
        f"[host] tunnel_ip is {format_ip(configured)}, but the goal state has host {host!r} at"
        f" {addresses}, where others send what is for its ports"
    )


#: The mend of ``other_address``.
OTHER_ADDRESS_MEND: Final = (
    "set [host] tunnel_ip (and id) to what the goal state says of this host, or correct the tunnel_ip"
    " of the host there and publish it"
)


class TunnelAddressWatch:
    """Warns, from a thread of its own, when the host's slice comes and says another tunnel address.

    It reads the store by itself, so the thread that handles packets has no part in it.
    """

    def __init__(
        self,
        store: Store,
        host: str,
        tunnel_ip: bytes,
        *,
        version: Callable[[str], int | None],
        warn: Callable[[str], None],
        look_s: float = LOOK_S,
    ) -> None:
        """``version``: of a slice that the agent holds, None while it holds none."""
        self._store = store
        self._host = host
        self._tunnel_ip = tunnel_ip
        self._version = version
        self._warn = warn
        self._look_s = look_s
        self._seen: int | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tunnel-address", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Look no more; a look that is under way is not waited for."""
        self._closing.set()

    def _run(self) -> None:
        while not self._is_confirmed() and not self._closing.wait(self._look_s):
            pass

    def _is_confirmed(self) -> bool:
        """Look; whether the goal state agrees, so that there is nothing more to look for."""
        version = self._version(host_slice(self._host))
        if version is None or version == self._seen:
            return False
        try:
            told = Bindings(self._store).tunnels_of(self._host)
        except SourceError:
            return False  # told by whoever follows it; asked again
        self._seen = version
        sentence = other_address(self._host, self._tunnel_ip, told)
        if sentence is not None and not self._closing.is_set():
            self._warn(f"{sentence}: {OTHER_ADDRESS_MEND}")
        return self._tunnel_ip in told


__all__ = ["LOOK_S", "OTHER_ADDRESS_MEND", "TunnelAddressWatch", "other_address"]

"""A bound on the connections of one port: the limit of its conntrack zone.

Userspace conntrack (since OVS 2.14) and the kernel's (since Linux 4.18) hold one limit per zone: a
full zone takes no new connections, and no other zone feels it (ovs-dpctl(8), ct-set-limits). The
limits live in the datapath and are gone when ovs-vswitchd restarts on userspace: ``renew``.

A thread of its own talks to ovs-vswitchd; callers only leave word of what they want. What is set is
read before anything is written, so that a restart of the agent changes nothing.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller_app.vswitchd_control import CommandUnknownError, Control, ControlError

LOG = logging.getLogger(__name__)

#: Seconds after which a failed attempt is repeated.
RETRY_S: Final = 5.0
#: Zones of one command, so that it stays short of what a command line may have.
_BATCH: Final = 500
_ZONE: Final = re.compile(r"zone=(\d+),limit=(\d+),count=(\d+)")


@dataclass(frozen=True, slots=True)
class ZoneUsage:
    """Connections in a zone, and how many it may have (0: as many as the datapath holds).

    ``connections`` counts those that were made while the limit stood.
    """

    connections: int
    limit: int

    @property
    def full(self) -> bool:
        return 0 < self.limit <= self.connections


class ConntrackLimits:
    """The limits of the zones that the agent has handed out; all methods may be called by any thread.

    Args:
        datapath: name for dpctl, ``netdev@ovs-netdev`` or ``system@ovs-system``.
        find_socket: where ovs-vswitchd's control socket is now.
        limit: connections per zone, for ``ensure``; 0: no limit.
        warn: takes a sentence when limits cannot be set; once until they can again.
    """

    def __init__(
        self,
        datapath: str,
        find_socket: Callable[[], Path | None],
        *,
        limit: int,
        warn: Callable[[str], None] = LOG.warning,
    ) -> None:
        self._datapath = datapath
        self._find_socket = find_socket
        self._limit = limit
        self._warn = warn
        self._changed = threading.Condition()
        #: Guarded by the condition: what is to be, and what the thread is asked to do.
        self._wanted: dict[int, int] = {}
        self._own: dict[int, int] = {}
        self._usage: dict[int, ZoneUsage] = {}
        self._asked = False
        self._read_asked = False
        self._renew_asked = False
        self._closed = False
        #: The thread's own: what ovs-vswitchd was told, None when that is not known.
        self._told: dict[int, int] | None = None
        self._warned = False
        threading.Thread(target=self._work, name="ondemand-conntrack", daemon=True).start()

    def set(self, zone: int, limit: int) -> None:
        """Give one zone a limit of its own, 0 for none, for as long as ``ensure`` names it."""
        with self._changed:
            self._own[zone] = limit
            self._want({**self._wanted, zone: limit})

    def ensure(self, zones: Iterable[int]) -> None:
        """Exactly these zones have limits; one that is no longer among them loses its."""
        with self._changed:
            wanted = {zone: self._own.get(zone, self._limit) for zone in zones}
            self._own = {zone: limit for zone, limit in self._own.items() if zone in wanted}
            self._want({zone: limit for zone, limit in wanted.items() if limit})

    def renew(self) -> None:
        """ovs-vswitchd may have forgotten the limits: see what it has, and set them again."""
        with self._changed:
            self._renew_asked = self._asked = True
            self._changed.notify()

    def read_usage(self) -> None:
        """Have the usage read; ``usage`` has it soon after."""
        with self._changed:
            self._read_asked = True
            self._changed.notify()

    def usage(self) -> Mapping[int, ZoneUsage]:
        """Usage by zone, as last read; a zone without a limit has no entry."""
        with self._changed:
            return self._usage

    def by_port(self, zones: Mapping[str, int]) -> dict[str, dict[str, int | bool]]:
        """Usage for people and programs, of the ports (id -> zone) whose usage is known."""
        usage = self.usage()
        return {
            port: {
                "count": usage[zone].connections,
                "limit": usage[zone].limit,
                "full": usage[zone].full,
            }
            for port, zone in sorted(zones.items())
            if zone in usage
        }

    def close(self) -> None:
        """End the thread; the limits stay. It is not waited for, as it may wait for ovs-vswitchd."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    # -- inside ----------------------------------------------------------------------------------

    def _want(self, wanted: dict[int, int]) -> None:
        if wanted != self._wanted:
            self._wanted = wanted
            self._asked = True
            self._changed.notify()

    def _work(self) -> None:
        failed = False
        while True:
            with self._changed:
                if failed:
                    self._changed.wait_for(lambda: self._closed or self._renew_asked, RETRY_S)
                else:
                    self._changed.wait_for(lambda: self._closed or self._asked or self._read_asked)
                if self._closed:
                    return
                wanted, read = self._wanted, self._read_asked
                if self._renew_asked:
                    self._told = None
                self._asked = self._read_asked = self._renew_asked = False
            failed = not self._attempt(wanted, read=read)

    def _attempt(self, wanted: dict[int, int], *, read: bool) -> bool:
        """Make it so; False when that is to be tried again."""
        if not wanted and not self._told:
            return True
        try:
            control = Control(self._find_socket())
            try:
                self._apply(control, wanted)
                if read:
                    usage = _read(control, self._datapath, wanted)
                    with self._changed:
                        self._usage = usage
            finally:
                control.close()
        except CommandUnknownError as error:
            # Nothing will mend that while this ovs-vswitchd runs.
            self._told = dict(wanted)
            self._warn_once(
                f"{error}; connections per port are not limited: install a newer Open vSwitch or "
                "kernel module, or set [limits] max_connections_per_port = 0"
            )
        except ControlError as error:
            self._told = None
            self._warn_once(
                f"{error}; connections per port are not limited: run the agent as a user that may use"
                " the sockets in the run directory of ovs-vswitchd, or set [limits]"
                " max_connections_per_port = 0"
            )
            return False
        else:
            self._warned = False
        return True

    def _apply(self, control: Control, wanted: dict[int, int]) -> None:
        if self._told is None:
            found = _read(control, self._datapath, wanted)
            self._told = {zone: usage.limit for zone, usage in found.items()}
        told = self._told
        changed = [zone for zone, limit in wanted.items() if told.get(zone, 0) != limit]
        gone = [zone for zone in told if zone not in wanted]
        for some in _batches(changed):
            words = [f"zone={zone},limit={wanted[zone]}" for zone in some]
            control.run("dpctl/ct-set-limits", self._datapath, *words)
        for some in _batches(gone):
            zones = ",".join(map(str, some))
            control.run("dpctl/ct-del-limits", self._datapath, f"zone={zones}")
        self._told = dict(wanted)

    def _warn_once(self, sentence: str) -> None:
        if not self._warned:
            self._warn(sentence)
        self._warned = True


def _read(control: Control, datapath: str, zones: Iterable[int]) -> dict[int, ZoneUsage]:
    """The zones of these that have a limit."""
    found: dict[int, ZoneUsage] = {}
    for some in _batches(sorted(zones)):
        answer = control.run("dpctl/ct-get-limits", datapath, f"zone={','.join(map(str, some))}")
        for zone, limit, count in _ZONE.findall(answer):
            if int(limit):
                found[int(zone)] = ZoneUsage(int(count), int(limit))
    return found


def _batches(zones: list[int]) -> Iterable[list[int]]:
    return (zones[at : at + _BATCH] for at in range(0, len(zones), _BATCH))

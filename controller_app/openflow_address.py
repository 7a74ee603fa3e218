"""Where the switch finds the agent: how OVSDB spells such an address, and who listens there.

``tcp:127.0.0.1:6653``, ``tcp:[::1]:6653`` and ``unix:/run/openvswitch/agent.sock`` are controller
targets as in ovs-vswitchd.conf.db(5), table Controller. ovs-vswitchd tells controllers apart by the
text of the target alone.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Final

#: The port that a target has when it names none (IANA; ovs-vswitchd.conf.db(5)).
DEFAULT_PORT: Final = 6653
#: Seconds between looks at an address that is waited for.
POLL_S: Final = 0.005

_TCP: Final = re.compile(
    r"tcp:(?:\[(?P<bracketed>[^\]]+)\]|(?P<plain>[^:\[\]]+))(?::(?P<port>\d+))?"
)
#: State of a TCP socket that listens, in /proc/net/tcp (TCP_LISTEN of the kernel).
_LISTEN: Final = "0A"
#: Flag of a unix socket that listens, in /proc/net/unix (__SO_ACCEPTCON of the kernel).
_ACCEPTING: Final = 0x10000


def plain(target: str) -> str:
    """The plainest spelling of a target; two targets are one address when theirs are equal."""
    kind, _, rest = target.partition(":")
    if kind == "unix":
        return f"unix:/{posixpath.normpath(rest).lstrip('/')}"
    tcp = _tcp(target)
    if tcp is None:
        return target
    address, port = tcp
    return f"tcp:[{address}]:{port}" if address.version == 6 else f"tcp:{address}:{port}"


def respelled(target: str) -> str:
    """The same address in another spelling, for a switch that is to connect at once.

    ovs-vswitchd gives a new target a new connection, without the back-off of the old one, and takes
    a target that is spelled otherwise for a new one. Flows stay: the bridge has a controller before
    and after.
    """
    simple = plain(target)
    if target != simple:
        return simple
    if simple.startswith("unix:"):
        folder, _, name = simple.rpartition("/")
        return f"{folder}//{name}"
    head, _, port = simple.rpartition(":")
    return f"{head}:0{port}"


def is_listening(target: str) -> bool:
    """Whether somebody in this network namespace listens there; asks the kernel, connects to nobody."""
    simple = plain(target)
    if simple.startswith("unix:"):
        return _unix_listens(simple.removeprefix("unix:"))
    tcp = _tcp(simple)
    if tcp is None:
        return False
    address, port = tcp
    table, any_address = ("tcp6", "::") if address.version == 6 else ("tcp", "0.0.0.0")  # noqa: S104
    places = {
        f"{_kernel_hex(place)}:{port:04X}" for place in (address, ipaddress.ip_address(any_address))
    }
    for line in _lines(f"/proc/net/{table}"):
        words = line.split()
        if len(words) > 3 and words[3] == _LISTEN and words[1] in places:
            return True
    return False


def wait_until_listening(
    target: str, *, wanted: bool, timeout_s: float, stop: threading.Event
) -> bool:
    """Wait until somebody listens there, or (``wanted`` false) nobody does; False: not in time."""
    end_s = time.monotonic() + timeout_s
    while is_listening(target) != wanted:
        if time.monotonic() >= end_s or stop.wait(POLL_S):
            return False
    return True


def _tcp(target: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int] | None:
    found = _TCP.fullmatch(target)
    if found is None:
        return None
    try:
        address = ipaddress.ip_address(found["bracketed"] or found["plain"])
    except ValueError:
        return None
    return address, int(found["port"] or DEFAULT_PORT)


def _kernel_hex(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An address as proc(5) writes it: words of 32 bits, each in the byte order of the machine."""
    packed = address.packed
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def _unix_listens(path: str) -> bool:
    for line in _lines("/proc/net/unix"):
        words = line.split(maxsplit=7)
        listens = len(words) == 8 and int(words[3], 16) & _ACCEPTING
        if listens and words[7].startswith("/") and posixpath.normpath(words[7]) == path:
            return True
    return False


def _lines(file: str) -> list[str]:
    """Lines of a table of the kernel without its heading; none where it cannot be read."""
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    except OSError:
        return []


def answers(path: str) -> bool:
    """Whether somebody accepts connections at a unix socket, in whichever network namespace."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True

"""Rules of all neighbors as OpenFlow 1.3 messages in a file, and how they get into a switch.

``expanded`` has the rule of a neighbor as text; here it is as bytes, so that neither the text nor a process that
reads it counts when a million are written: making the file is no part of what is measured, sending it is all of
it. A file holds bundles (the ONF's extension 230 of OpenFlow 1.3, as ``ovs-ofctl --bundle`` uses it), each as
many rules as one may have, and a barrier at the end. With more bundles than one the neighbors of the first are
reached while the others are still on their way.

Offsets: OpenFlow 1.3.5 sections 7.1, 7.2.3 to 7.2.5, 7.3.4.1; nicira-ext.h for tun_dst.
"""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from benchmarks.expanded import TUNNEL_OFPORT
from mininet_topos.errors import LabError
from ondemand.records import Neighbor

#: Rules of one bundle.
BUNDLE: Final = 10_000
#: Memory that a rule may take, in ovs-vswitchd (1.2 KB) and in messages on their way, and what shall stay free.
RULE_BYTES: Final = 2_000
SPARE_MIB: Final = 500
#: The table and priority of ``expanded.remote_rule``.
TABLE, PRIORITY = 2, 10

_VERSION: Final = 4
_HELLO, _ERROR, _EXPERIMENTER, _FLOW_MOD = 0, 1, 4, 14
_BARRIER_REQUEST, _BARRIER_REPLY = 20, 21
_ONF: Final = 0x4F4E4600
_BUNDLE_CONTROL, _BUNDLE_ADD = 2300, 2301
_OPEN, _COMMIT = 0, 4
#: In order; all or none.
_FLAGS: Final = 3
_HEADER: Final = struct.Struct(">BBHI")
_CONTROL: Final = struct.Struct(">BBHIIIIHH")
#: All of a flow-mod but the bundle's head: what differs is the address, the MAC, the VNI, the host.
_MOD: Final = struct.Struct(
    ">BBHI QQ BBHHHIIIHxx"  # header, cookie and mask, table .. flags
    " HH IH I4s 6x"  # match: eth_type, ipv4_dst
    " HH4x HHI6sxx HHIQ HHI4s4x HHIH6x"  # apply-actions: eth_dst, tun_id, tun_dst, output
)
_ADD: Final = struct.Struct(">BBHIIIIxxH")
_ANY: Final = 0xFFFFFFFF
_MIB: Final = 1 << 20
_CGROUP: Final = Path("/sys/fs/cgroup")


def no_room(rules: int) -> str:
    """Why so many rules cannot be written on this machine, "" when they can."""
    wanted, free = rules * RULE_BYTES / _MIB + SPARE_MIB, _free_mib()
    return (
        "" if free >= wanted else f"it may take {wanted:,.0f} MiB of memory, {free:,.0f} are free"
    )


def flow_mod(vni: int, neighbor: Neighbor, xid: int = 0) -> bytes:
    """Adds what ``expanded.remote_rule`` says of this neighbor."""
    return _MOD.pack(
        *(_VERSION, _FLOW_MOD, _MOD.size, xid),
        *(0, 0, TABLE, 0, 0, 0, PRIORITY, _ANY, _ANY, _ANY, 0),
        *(1, 18, 0x80000A02, 0x0800, 0x80001804, neighbor.ip),
        *(4, 8 + 4 * 16),
        *(25, 16, 0x80000606, neighbor.mac),
        *(25, 16, 0x80004C08, vni),
        *(25, 16, 0x00014004, neighbor.host),
        *(0, 16, TUNNEL_OFPORT, 0),
    )


def messages(vni: int, neighbors: Iterable[Neighbor], bundle: int = BUNDLE) -> Iterator[bytes]:
    """All that is to be sent, in pieces of one bundle."""
    rest, number = iter(neighbors), 0
    while some := list(islice(rest, bundle)):
        number += 1
        parts = [_control(number, _OPEN)]
        for neighbor in some:
            mod = flow_mod(vni, neighbor, number)
            size = _ADD.size + len(mod)
            parts.append(
                _ADD.pack(
                    *(_VERSION, _EXPERIMENTER, size, number),
                    *(_ONF, _BUNDLE_ADD, number, _FLAGS),
                )
            )
            parts.append(mod)
        parts.append(_control(number, _COMMIT))
        yield b"".join(parts)
    yield _HEADER.pack(_VERSION, _BARRIER_REQUEST, _HEADER.size, 0)


def write(path: Path, vni: int, neighbors: Iterable[Neighbor]) -> None:
    with path.open("wb") as file:
        file.writelines(messages(vni, neighbors))


def send(management: Path, file: Path, *, timeout_s: float) -> float:
    """Send a file to a bridge; returns ``time.monotonic`` of when the switch had done all of it.

    Args:
        management: the bridge's ``.mgmt`` socket.
        file: as ``write`` makes it.
        timeout_s: seconds without progress.

    Raises:
        LabError: the switch refused a message, closed the connection or took too long.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, file.open("rb") as data:
        sock.settimeout(timeout_s)
        try:
            sock.connect(str(management))
            sock.sendall(_HEADER.pack(_VERSION, _HELLO, _HEADER.size, 0))
            # The switch takes nothing more when too much of what it has said was not read.
            with ThreadPoolExecutor(1) as pool:
                done = pool.submit(_await_barrier, sock)
                with suppress(BrokenPipeError):  # the reader tells why
                    sock.sendfile(data)
                return done.result()
        except TimeoutError:
            raise LabError(f"the switch has not taken {file.name} in {timeout_s:g} s") from None
        except OSError as error:
            raise LabError(f"{file.name} could not be sent to the switch: {error}") from error


def _await_barrier(sock: socket.socket) -> float:
    waiting = b""
    while data := sock.recv(1 << 16):
        waiting += data
        while len(waiting) >= _HEADER.size:
            _, kind, size, _ = _HEADER.unpack_from(waiting)
            if len(waiting) < size:
                break
            if kind == _ERROR:
                # Ends the sending, too.
                sock.shutdown(socket.SHUT_RDWR)
                raise LabError(f"the switch refused a rule: error {waiting[8:12].hex()}")
            if kind == _BARRIER_REPLY:
                return time.monotonic()
            waiting = waiting[size:]
    raise LabError("the switch closed the connection")


def _control(number: int, kind: int) -> bytes:
    return _CONTROL.pack(
        *(_VERSION, _EXPERIMENTER, _CONTROL.size, number),
        *(_ONF, _BUNDLE_CONTROL, number, kind, _FLAGS),
    )


def _free_mib() -> float:
    """What the machine has free (MemAvailable, proc(5)), or the container, where that is less."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    free = int(found[1]) / 1024 if found else 0.0
    try:
        most, used, stat = (
            (_CGROUP / name).read_text() for name in ("memory.max", "memory.current", "memory.stat")
        )
    except OSError:
        return free
    cached = re.search(r"^file (\d+)$", stat, re.MULTILINE)
    if not most.strip().isdigit() or cached is None:
        return free
    # Files that are cached give way.
    return min(free, (int(most) - int(used) + int(cached[1])) / _MIB)

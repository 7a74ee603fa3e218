"""Where a lab's goal state is: one SQLite file for all hosts, or a NATS server beside them.

```
    nats (a namespace)                 the lab's own process, whose connection is of that namespace
      │ 198.51.100.1 ── mgmt0 of h1
      │ 198.51.100.5 ── mgmt0 of h2    no packet of a VM goes here, and none of these through OVS
```
A namespace cannot reach the loopback of another one, so each host has a link to the server's.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar

from controller_app.config_keys import Value
from controller_app.source_factory import SliceStore, open_store
from mininet_topos.errors import LabError
from mininet_topos.lab_run import LabRun
from mininet_topos.nats_server import NATS_PORT, NatsServer, require_nats_server
from mininet_topos.node import LabNode, join_by_veth
from mininet_topos.ovs_host import ComputeHost

SourceKind = Literal["sqlite", "nats"]

#: TEST-NET-2 (RFC 5737), used inside the namespaces only: four addresses for each host.
_FIRST_ADDRESS: Final = IPv4Address("198.51.100.0")
_LINK_ADDRESSES: Final = 4
#: As many hosts as fit into the network.
MAX_HOSTS: Final = 256 // _LINK_ADDRESSES

_MANAGEMENT_NIC: Final = "mgmt0"
_MTU: Final = 1500
#: sched.h, and setns(2).
_CLONE_NEWNET: Final = 0x40000000

T = TypeVar("T")


class LabSource(Protocol):
    """The source of a lab's agents.

    Attributes:
        title: what people call it, with an article.
        place: as ``--store`` takes it.
        prefix: what a command begins with that shall reach it.
    """

    title: str
    place: str
    prefix: str

    def settings(self, host: ComputeHost) -> Mapping[str, Value]:
        """[source] of the configuration of a host's agent."""

    def open(self) -> SliceStore:
        """A store to publish with; the caller closes it."""


class SqliteSource:
    """One file that all hosts read: they share the machine, and its file system."""

    title = "one SQLite file"
    prefix = ""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.place = str(file)

    def settings(self, host: ComputeHost) -> Mapping[str, Value]:  # noqa: ARG002 - of the protocol
        return {"file": self.place}

    def open(self) -> SliceStore:
        return open_store(self.place, writer=True)


class NatsSource:
    """A nats-server in a namespace of its own, with a link to each host; it runs when this is made.

    Attributes:
        node: the namespace.
        server: its process.
    """

    title = "a NATS server"

    def __init__(self, run: LabRun, hosts: Sequence[ComputeHost]) -> None:
        """Raise ``LabError`` when there are more than ``MAX_HOSTS``, or the server does not start."""
        if len(hosts) > MAX_HOSTS:
            raise LabError(f"{len(hosts)} hosts are too many for one NATS server (1..{MAX_HOSTS})")
        self.node = LabNode(run, "nats")
        self._urls: dict[str, str] = {}
        for number, host in enumerate(hosts):
            self._link(number, host)
        self.server = NatsServer(
            self.node.directory,
            address="0.0.0.0",  # noqa: S104 - nobody but the hosts is in its namespace
            port=NATS_PORT,
            spawn=self.node.spawn,
        )
        self.place = self.server.url
        self.prefix = f"mnexec -a {self.node.pid} "
        self.server.start()

    def settings(self, host: ComputeHost) -> Mapping[str, Value]:
        return {"kind": "nats", "servers": self._urls[host.label]}

    def open(self) -> SliceStore:
        """Its connection is of the server's namespace, wherever it is used from."""
        store = open_store(self.place, writer=True)
        # The first question starts the thread that connects, and a thread is born into the namespace of
        # the one that starts it.
        in_network(self.node.pid, store.is_there)
        return store

    def _link(self, number: int, host: ComputeHost) -> None:
        join_by_veth(self.node, host.label, host, _MANAGEMENT_NIC, mtu=_MTU)
        first = _FIRST_ADDRESS + _LINK_ADDRESSES * number
        server, client = first + 1, first + 2
        self.node.ip(f"address add {server}/30 dev {host.label}")
        host.ip(f"address add {client}/30 dev {_MANAGEMENT_NIC}")
        self._urls[host.label] = f"nats://{server}:{NATS_PORT}"


def make_source(kind: SourceKind, run: LabRun, hosts: Sequence[ComputeHost]) -> LabSource:
    """The source of a kind, ready to be opened."""
    if kind == "nats":
        return NatsSource(run, hosts)
    return SqliteSource(run.directory / "slices.db")


def require_source(kind: SourceKind) -> None:
    """Raise ``LabUnavailableError`` when this machine lacks what the source needs."""
    if kind == "nats":
        require_nats_server()


def in_network(pid: int, action: Callable[[], T]) -> T:
    """Do something in the network namespace of a process, on a thread that ends with it.

    Threads and sockets that ``action`` makes stay there; the calling thread stays where it is.
    """

    def enter() -> T:
        # os.setns came with Python 3.12.
        libc = ctypes.CDLL(None, use_errno=True)
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(namespace, _CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), f"/proc/{pid}/ns/net")
        finally:
            os.close(namespace)
        return action()

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(enter).result()

"""Connect, request, close between two VMs: ``native/crr_client.c`` and ``crr_server.c`` as functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import msgspec

from benchmarks.controllers import pinned
from benchmarks.native_build import build
from mininet_topos.errors import LabError
from mininet_topos.processes import Background, wait_until_output
from mininet_topos.vm import Vm

#: Of one connection; Linux sends a SYN that got no answer again after one second (RFC 6298).
TIMEOUT_MS: Final = 3_000
#: Connections of one run at most.
MAX_CONNECTIONS: Final = 1_000_000
_ALLOWANCE_S: Final = 10.0

#: Connections after which the client comes back to a source port.
SOURCE_PORTS: Final = 65_536 - 1_024

#: For a VM: no run begins with the congestion window that an earlier one found (tcp(7)).
SYSCTLS: Final[Mapping[str, str]] = {"ipv4/tcp_no_metrics_save": "1"}


class Load(msgspec.Struct, frozen=True, gc=False):
    """What came of one run.

    Attributes:
        transactions: connections that were answered in full within the time.
        late: those that ended, as they should, after it.
        refused: connections that were refused or reset.
        bad_answers: answers that were not those to the question.
        timeouts: connections that took longer than ``TIMEOUT_MS``.
        retransmissions: TCP segments that the client sent again.
        seconds: how long the run was.
        cpu_s: processor time of the client, the kernel's part included.
        p50_us, p99_us, p999_us, max_us: from connect to the end of the stream; 0 without any.
        histogram_us: (upper end of the step, transactions in it), rising.
    """

    transactions: int
    late: int
    refused: int
    bad_answers: int
    timeouts: int
    retransmissions: int
    seconds: float
    cpu_s: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    histogram_us: list[tuple[float, int]]

    @property
    def rate_per_s(self) -> float:
        return self.transactions / self.seconds

    @property
    def ended(self) -> int:
        """All connections that went as they should."""
        return self.transactions + self.late


class Served(msgspec.Struct, frozen=True, gc=False):
    """Connections that a server answered, those whose question was wrong, its processor time in seconds."""

    served: int
    wrong: int
    cpu_s: float


class Server:
    """A server that listens; ``end`` tells what it did."""

    def __init__(self, vm: Vm, address: str, ports: tuple[int, int], core: int | None) -> None:
        argv = [str(build("crr_server")), "--address", address]
        argv += ["--ports", f"{ports[0]},{ports[1]}"]
        self._process: Background = vm.spawn("crr-server", pinned(argv, core))
        wait_until_output(self._process, "ready", timeout_s=_ALLOWANCE_S)

    def end(self) -> Served:
        """End it. Raises: LabError: it had ended before, with an error."""
        self._process.stop()
        lines = self._process.output().splitlines()
        try:
            return msgspec.json.decode(lines[-1], type=Served)
        except (IndexError, msgspec.DecodeError) as error:
            said = " ".join(lines)
            raise LabError(f"{self._process.name} did not say what it served: {said}") from error

    def stop(self) -> None:
        """End it, whatever it did. May be called again."""
        self._process.stop()


@contextmanager
def serving(
    vm: Vm, address: str, ports: tuple[int, int], *, core: int | None = None
) -> Iterator[Server]:
    """A server in a VM, on all ports from the first to the last, on one core."""
    server = Server(vm, address, ports, core)
    try:
        yield server
    finally:
        server.stop()


def ask(
    vm: Vm,
    address: str,
    port: int,
    *,
    parallel: int,
    seconds: float,
    most: int = MAX_CONNECTIONS,
    core: int | None = None,
) -> Load:
    """Ask a server over connection after connection.

    Args:
        vm: VM that asks.
        address: IPv4 address of the server.
        port: its TCP port.
        parallel: connections that are under way at once.
        seconds: how long new ones are begun.
        most: how many of them at most.
        core: where the client runs; None: anywhere.

    Raises:
        LabError: the client could not run. What comes of connections is in the result.
    """
    argv = [
        *(str(build("crr_client")), "--to", address, "--port", str(port)),
        *("--parallel", str(parallel), "--seconds", f"{seconds:g}", "--max", str(most)),
        *("--timeout-ms", str(TIMEOUT_MS)),
    ]
    timeout_s = seconds + TIMEOUT_MS / 1000 + _ALLOWANCE_S
    result = vm.execute(pinned(argv, core), timeout_s=timeout_s)
    return msgspec.json.decode(result.stdout, type=Load)


__all__ = [
    "MAX_CONNECTIONS",
    "SOURCE_PORTS",
    "SYSCTLS",
    "TIMEOUT_MS",
    "Load",
    "Served",
    "Server",
    "ask",
    "serving",
]

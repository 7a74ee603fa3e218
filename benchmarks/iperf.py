"""TCP throughput between two VMs by iperf3(1), as a function."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.controllers import pinned
from mininet_topos.errors import CommandError, LabUnavailableError
from mininet_topos.processes import wait_until_output
from mininet_topos.vm import Vm

_CONNECT_TIMEOUT_MS: Final = 3_000
_ALLOWANCE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Throughput:
    """What one run found.

    Attributes:
        mbit_per_s: payload that arrived, 10^6 bits a second.
        retransmissions: TCP segments that were sent again.
        sender_cpu, receiver_cpu: shares of a core of the two iperf3 processes.
        error: why there are no figures; empty when there are.
    """

    mbit_per_s: float = 0.0
    retransmissions: int = 0
    sender_cpu: float = 0.0
    receiver_cpu: float = 0.0
    error: str = ""


def require_iperf3() -> None:
    """Raise ``LabUnavailableError`` where iperf3 is missing."""
    if shutil.which("iperf3") is None:
        raise LabUnavailableError("the program iperf3 is not installed: apt-get install iperf3")


def throughput(
    source: Vm,
    target: Vm,
    address: str,
    port: int,
    *,
    seconds: int,
    cores: tuple[int | None, int | None] = (None, None),
) -> Throughput:
    """Send over one connection as fast as it goes.

    Args:
        source: VM that sends.
        target: VM that takes it.
        address: IPv4 address of the target.
        port: its TCP port.
        seconds: how long.
        cores: of sender and receiver; None: anywhere.

    Raises:
        LabError: the server did not start.
    """
    argv = ["iperf3", "--server", "--one-off", "--forceflush"]
    argv += ["--bind", address, "--port", str(port)]
    server = target.spawn("iperf3", pinned(argv, cores[1]))
    try:
        wait_until_output(server, "Server listening", timeout_s=_ALLOWANCE_S)
        argv = ["iperf3", "--client", address, "--port", str(port), "--time", str(seconds)]
        argv += ["--json", "--connect-timeout", str(_CONNECT_TIMEOUT_MS)]
        try:
            result = source.execute(
                pinned(argv, cores[0]), timeout_s=seconds + _ALLOWANCE_S, check=False
            )
        except CommandError as error:
            return Throughput(error=str(error))
        return _read(result.stdout)
    finally:
        server.stop()


def _read(text: str) -> Throughput:
    try:
        said: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError:
        return Throughput(error=f"iperf3 wrote no JSON: {text[:200]!r}")
    if "error" in said:
        return Throughput(error=f"iperf3: {said['error']}")
    end = said["end"]
    cpu = end["cpu_utilization_percent"]
    rate = float(end["sum_received"]["bits_per_second"]) / 1e6
    return Throughput(
        mbit_per_s=rate,
        retransmissions=int(end["sum_sent"].get("retransmits", 0)),
        sender_cpu=float(cpu["host_total"]) / 100,
        receiver_cpu=float(cpu["remote_total"]) / 100,
        error="" if rate > 0 else "iperf3: nothing arrived",
    )


__all__ = ["Throughput", "require_iperf3", "throughput"]

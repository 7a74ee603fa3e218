"""Times frames between two VMs: ``native/probe.c`` as a function."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Final

from benchmarks.controllers import pinned
from benchmarks.native_build import build
from mininet_topos.vm import VM_INTERFACE, Vm

_TIMEOUT_MS: Final = 1000
_ALLOWANCE_S: Final = 20.0
#: Longer than ovs-vswitchd takes to go to sleep after a packet.
_PAUSE_US: Final = 500


class ProbeError(Exception):
    """The probe could not send or listen."""


@dataclass(frozen=True, slots=True)
class Passes:
    """Microseconds from send to arrival, by pass and flow; what did not arrive is left out."""

    passes_us: tuple[tuple[float, ...], ...]
    #: Frames that did not arrive within a second, of each pass.
    lost: tuple[int, ...]
    #: Of each pass, from the first frame sent to the last one that arrived; 0 when none did.
    elapsed_us: tuple[float, ...] = ()


def probe(
    source: Vm,
    target: Vm,
    *,
    ips: tuple[str, str],
    source_port: int,
    first_port: int,
    flows: int,
    passes: int,
    window: int = 1,
    core: int | None = None,
) -> Passes:
    """Send a frame of each of ``flows`` UDP flows, ``passes`` times over, and time each.

    Args:
        source: VM that sends.
        target: VM where they must arrive.
        ips: IPv4 addresses that the frames carry; the VMs themselves need none.
        source_port: UDP source port of all flows.
        first_port: destination port of the first flow; each further flow has the next.
        flows: how many.
        passes: how often each is sent.
        window: how many frames may be on their way.
        core: where the probe runs; None: anywhere.

    Raises:
        ProbeError: it could not send.
    """
    argv = [
        *(str(build("probe")), "--from", f"{source.pid}:{VM_INTERFACE}"),
        *("--to", f"{target.pid}:{VM_INTERFACE}"),
        *("--macs", f"{source.spec.mac},{target.spec.mac}", "--ips", ",".join(ips)),
        *("--source-port", str(source_port), "--first-port", str(first_port)),
        *("--flows", str(flows), "--passes", str(passes), "--window", str(window)),
        *("--timeout-ms", str(_TIMEOUT_MS), "--pause-us", str(_PAUSE_US)),
    ]
    worst_s = flows * passes * _TIMEOUT_MS / 1000 / window
    result = subprocess.run(
        pinned(argv, core),
        capture_output=True,
        text=True,
        timeout=worst_s + _ALLOWANCE_S,
        check=False,
    )
    if result.returncode:
        raise ProbeError(f"probe from {source.label} to {target.label}: {result.stderr.strip()}")
    said = json.loads(result.stdout)
    arrived = tuple(tuple(us for us in one if us >= 0) for one in said["passes_us"])
    return Passes(arrived, tuple(flows - len(one) for one in arrived), tuple(said["elapsed_us"]))

"""How long the first packet to a destination takes, and the ones after it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from statistics import median
from typing import Final

from mininet_topos.demo_lab import DemoLab
from mininet_topos.demo_state import VM
from mininet_topos.promises import Measurement, Seen, Trial, all_of, check

#: In another subnet than the destinations, so that the first packet waits for rules only, not for
#: ARP: the gateway's MAC is known.
_SOURCE: Final = "batch-1"
_PATHS: Final = (("same host", "web-1"), ("over VXLAN", "web-2"))

#: The first packet alone, then a flow of its own whose later packets count. A ping of one packet
#: waits a second for its answer; one of several gives the last of them little more than ``-i``.
_LOOP: Final = 'for ip; do ping -n -c 1 -W 1 "$ip"; ping -n -c 4 -i 0.01 -W 1 "$ip"; done'
_TIMEOUT_S: Final = 90.0
_ANSWER: Final = re.compile(r"icmp_seq=(\d+) .*time=([\d.]+) ms$", re.MULTILINE)


def latency_trials() -> Iterator[Trial[DemoLab]]:
    yield check("Latency", "first packets to addresses never used", "all answered", _measure)


def _measure(lab: DemoLab) -> Seen:
    """p50 of round trips to many destinations that nobody talked to, first and later packets."""
    lab.ping(_SOURCE, VM[_SOURCE].gateways[0])
    seen = []
    for place, target in _PATHS:
        fresh = VM[target].fresh_ips
        for address in fresh:
            lab.note(_SOURCE, address)
        argv = ["sh", "-c", _LOOP, "sh", *fresh]
        text = lab.vms[_SOURCE].execute(argv, timeout_s=_TIMEOUT_S, check=False).stdout
        lab.note(_SOURCE, fresh[-1])
        first, later = round_trips(text)
        seen.append(Seen(len(first) == len(fresh), f"{len(first)} of {len(fresh)} {place}"))
        if first and later:
            values = {"first packet": median(first), "later packets": median(later)}
            lab.measurements.append(Measurement(f"ping {place}, median", "ms", values))
    return all_of(*seen)


def round_trips(text: str) -> tuple[list[float], list[float]]:
    """Milliseconds of first and of later packets, from the output of ``_LOOP``."""
    answers = [
        [(int(number), float(ms)) for number, ms in _ANSWER.findall(ping)]
        for ping in re.split(r"^PING ", text, flags=re.MULTILINE)[1:]
    ]
    return (
        [ms for ping in answers[0::2] for number, ms in ping],
        [ms for ping in answers[1::2] for number, ms in ping if number > 1],
    )

"""What the traffic model depends on, and which published facts it was shaped by.

No trace of a large VPC is public, so this is shaped by what has been published about such networks, and each
number can be changed. Published facts that it follows:

* which pairs talk: of the pairs of VMs in a network about 16 % ever do (Dalton et al., "Andromeda", NSDI 2018,
  which programs routes on demand for that reason). So each VM is given that share of the neighbors as those
  that it may ever talk to; an hour sees a part of them;
* how long flows last: 80 % less than 10 s, 0.1 % more than 200 s (Kandula et al., "The nature of data center
  traffic", IMC 2009). These two quantiles fix a lognormal distribution;
* when they come: in ON and OFF periods with heavy tails, within which arrivals are random (Benson et al.,
  "Network traffic characteristics of data centers in the wild", IMC 2010); most flows are small.

Not published, so chosen: how many flows a VM opens, the exponents of popularity, how many connections are
kept open, and the scan. What else is left out: traffic between two VMs of the host (20 of 100,000), IPv6, and
how fast packets follow each other within a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What the traffic depends on. Times in seconds, rates per second, shares 0 to 1."""

    seed: int = 1
    duration_s: float = 3600.0
    #: On the host.
    vms: int = 20
    #: VMs of the VPC on other hosts, and how many of them are in the subnet of this host's VMs.
    neighbors: int = 100_000
    same_subnet: int = 4_000
    #: Neighbors that a VM ever talks to (Andromeda).
    talking_share: float = 0.16
    #: Neighbors that are services of the tenant; the first of them are used by every VM, the first two
    #: for DNS.
    services: int = 2_000
    shared_services: int = 10
    #: Of new outgoing flows, those to services; the others go to any peer.
    service_share: float = 0.8
    #: Popularity falls with rank to this power (Zipf): of services, and of other peers and clients.
    service_zipf: float = 1.0
    peer_zipf: float = 1.0
    #: New flows of a VM, on average; VMs differ by a lognormal factor with this sigma.
    flows_per_vm_s: float = 3.0
    vm_sigma: float = 1.0
    #: Of new flows, those that neighbors open to the VM; and of these, those to a port that no security
    #: rule opens.
    incoming_share: float = 0.3
    closed_share: float = 0.02
    #: ON and OFF periods: bounded Pareto.
    on_min_s: float = 2.0
    off_min_s: float = 4.0
    period_max_s: float = 300.0
    period_alpha: float = 1.5
    #: Length of a flow: lognormal, by the shares that last longer than 10 s and than 200 s (Kandula).
    longer_than_10_s: float = 0.2
    longer_than_200_s: float = 0.001
    #: Packets of a flow: bounded Pareto.
    packets_min: int = 4
    packets_max: int = 100_000
    packets_alpha: float = 1.2
    #: Bursts of a flow are so far apart on average.
    burst_gap_s: float = 2.0
    #: Connections to services that each VM opens in the first minute and keeps; the time between two
    #: requests is lognormal.
    kept_connections: int = 30
    kept_gap_median_s: float = 15.0
    kept_gap_sigma: float = 1.5
    #: One VM scans addresses: so many a second, for a part of the time, from a third of it on. Of the
    #: addresses that it tries so many are in use.
    scan_rate: float = 50.0
    scan_share: float = 1 / 6
    scan_used: float = 0.8

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} = {value} is not in {low:g}..{high:g}")
        for name in ("same_subnet", "services"):
            if getattr(self, name) > self.neighbors:
                raise ValueError(
                    f"{name} = {getattr(self, name)} exceeds {self.neighbors} neighbors"
                )
        if self.shared_services > self.services:
            raise ValueError(f"shared_services = {self.shared_services} exceeds {self.services}")

    @property
    def peers(self) -> int:
        """How many neighbors a VM may ever talk to."""
        return max(1, round(self.neighbors * self.talking_share))


_RANGES: Final[tuple[tuple[str, float, float], ...]] = (
    ("duration_s", 1, 86_400),
    ("vms", 1, 200),
    ("neighbors", 1, 800_000),
    ("same_subnet", 0, 16_000),
    ("talking_share", 1e-6, 1),
    ("services", 2, 800_000),
    ("shared_services", 2, 800_000),
    ("service_share", 0, 1),
    ("incoming_share", 0, 1),
    ("closed_share", 0, 1),
    ("flows_per_vm_s", 0, 200),
    ("period_alpha", 1.01, 10),
    ("packets_alpha", 1.01, 10),
    ("packets_min", 1, 1_000),
    ("kept_connections", 0, 10_000),
    ("kept_gap_median_s", 0.1, 86_400),
    # A packet-in that leads nowhere counts four times, and a port beyond ``Settings.flood_rate`` is put in
    # quarantine, which the model of the switch does not have.
    ("scan_rate", 0, 500),
    ("scan_used", 0.01, 1),
)


__all__ = ["Parameters"]

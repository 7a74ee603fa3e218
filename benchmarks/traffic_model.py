"""Traffic of a compute host, made up by lot: a model, not a trace (``traffic_parameters`` says of what).

Rules age in seconds. So what is made is not each packet but *bursts*: a time, and how many packets came about
then, in both directions; the first of them may miss, the others follow when the rules are there.
"""

from __future__ import annotations

import enum
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, NamedTuple

from benchmarks.traffic_parameters import Parameters

TCP, UDP = 6, 17
#: Ephemeral ports of a Linux guest (ip_local_port_range).
EPHEMERAL: Final = (32_768, 60_999)
DNS_PORT: Final = 53
#: What the tenant's services listen on, and what any other VM does.
SERVICE_PORTS: Final = (443, 8080, 5432, 6379, 9092, 3306, 9200, 2379)
PEER_PORTS: Final = (443, 22, 8443, 9100)
#: What the VMs of the host serve, most of it on the first.
OPEN_PORTS: Final = (443, 8080, 9100)
CLOSED_PORT: Final = 23
SCANNED_PORT: Final = 22
#: When a TCP client that hears nothing tries again: after 1, 2 and 4 s more (RFC 6298, section 5).
RETRIES_S: Final = (0.0, 1.0, 3.0, 7.0)


class Kind(enum.IntEnum):
    """What a flow is of."""

    SHORT = 0
    KEPT = 1
    CLOSED = 2
    SCAN = 3


class Flow(NamedTuple):
    """One connection.

    ``remote`` is a neighbor by number; from ``Parameters.neighbors`` on it is an address that nobody has.
    ``local_port`` and ``remote_port`` are those of the VM and of the neighbor.
    """

    vm: int
    remote: int
    protocol: int
    local_port: int
    remote_port: int
    incoming: bool
    kind: Kind


class Burst(NamedTuple):
    """``packets`` of flow number ``flow`` at about ``time_s``."""

    time_s: float
    flow: int
    packets: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """``bursts`` in order of time. ``peers``: by VM, the neighbors that it may ever talk to."""

    parameters: Parameters
    flows: Sequence[Flow]
    bursts: Sequence[Burst]
    peers: Sequence[frozenset[int]]

    def talked(self) -> int:
        """Pairs of a VM and a neighbor with a flow; addresses that were scanned are none."""
        return len({(one.vm, one.remote) for one in self.flows if one.kind is not Kind.SCAN})


def generate(parameters: Parameters) -> Traffic:
    """The same for the same parameters."""
    return _Generator(parameters).all()


class _Generator:
    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.chance = random.Random(parameters.seed)
        self.flows: list[Flow] = []
        self.bursts: list[Burst] = []
        self.mu, self.sigma = lognormal_of(
            (10.0, parameters.longer_than_10_s), (200.0, parameters.longer_than_200_s)
        )

    def all(self) -> Traffic:
        one, chance = self.parameters, self.chance
        services = chance.sample(range(one.neighbors), one.services)
        weights = [chance.lognormvariate(0.0, one.vm_sigma) for _ in range(one.vms)]
        factor = one.vms / sum(weights)
        peers: list[frozenset[int]] = []
        for vm in range(one.vms):
            ranked = chance.sample(range(one.neighbors), one.peers)
            known = frozenset(ranked) | frozenset(services[: one.shared_services])
            peers.append(known)
            self._vm(vm, weights[vm] * factor, ranked, known, services)
        self._scan()
        self.bursts.sort()
        return Traffic(one, tuple(self.flows), tuple(self.bursts), tuple(peers))

    def _vm(
        self,
        vm: int,
        activity: float,
        ranked: Sequence[int],
        known: frozenset[int],
        services: Sequence[int],
    ) -> None:
        one, chance = self.parameters, self.chance
        used = [rank for rank, service in enumerate(services) if service in known]
        by_service = list(itertools.accumulate((1 + rank) ** -one.service_zipf for rank in used))
        by_peer = list(itertools.accumulate((1 + r) ** -one.peer_zipf for r in range(len(ranked))))
        clients = chance.sample(ranked, len(ranked))
        times = list(self._arrivals(one.flows_per_vm_s * activity))
        some_services = iter(chance.choices(used, cum_weights=by_service, k=len(times)))
        some_peers = iter(chance.choices(ranked, cum_weights=by_peer, k=len(times)))
        some_clients = iter(chance.choices(clients, cum_weights=by_peer, k=len(times)))
        for time_s in times:
            if chance.random() < one.incoming_share:
                self._incoming(vm, next(some_clients), time_s)
            elif chance.random() < one.service_share:
                self._to_service(vm, services, next(some_services), time_s)
            else:
                remote = next(some_peers)
                port = PEER_PORTS[remote % len(PEER_PORTS)]
                self._short(
                    Flow(vm, remote, TCP, self._ephemeral(), port, incoming=False, kind=Kind.SHORT),
                    time_s,
                )
        for rank in chance.choices(used, cum_weights=by_service, k=one.kept_connections):
            port = SERVICE_PORTS[rank % len(SERVICE_PORTS)]
            flow = Flow(
                vm, services[rank], TCP, self._ephemeral(), port, incoming=False, kind=Kind.KEPT
            )
            self._kept(flow, chance.uniform(0.0, min(60.0, one.duration_s)))

    def _arrivals(self, rate: float) -> Iterator[float]:
        """Times of new flows: random in ON periods, none in OFF periods."""
        one, chance = self.parameters, self.chance
        alpha, longest_s = one.period_alpha, one.period_max_s
        on_s, off_s = (
            bounded_pareto_mean(alpha, low, longest_s) for low in (one.on_min_s, one.off_min_s)
        )
        if rate <= 0:
            return
        rate *= (on_s + off_s) / on_s
        # As if it had gone on for a while: VMs do not begin together.
        time_s = -chance.uniform(0.0, 10 * (on_s + off_s))
        while time_s < one.duration_s:
            end_s = time_s + bounded_pareto(chance, alpha, one.on_min_s, longest_s)
            while (time_s := time_s + chance.expovariate(rate)) < end_s:
                if 0.0 <= time_s < one.duration_s:
                    yield time_s
            time_s = end_s + bounded_pareto(chance, alpha, one.off_min_s, longest_s)

    def _incoming(self, vm: int, remote: int, time_s: float) -> None:
        one, chance = self.parameters, self.chance
        remote_port = self._ephemeral()
        if chance.random() < one.closed_share:
            flow = Flow(vm, remote, TCP, CLOSED_PORT, remote_port, incoming=True, kind=Kind.CLOSED)
            self._add(flow, [(time_s + later_s, 1) for later_s in RETRIES_S])
            return
        port = OPEN_PORTS[0 if chance.random() < 0.9 else 1 + chance.randrange(len(OPEN_PORTS) - 1)]
        self._short(
            Flow(vm, remote, TCP, port, remote_port, incoming=True, kind=Kind.SHORT), time_s
        )

    def _to_service(self, vm: int, services: Sequence[int], rank: int, time_s: float) -> None:
        if rank < 2:
            flow = Flow(
                vm,
                services[rank],
                UDP,
                self._ephemeral(),
                DNS_PORT,
                incoming=False,
                kind=Kind.SHORT,
            )
            self._add(flow, [(time_s, 2)])
            return
        port = SERVICE_PORTS[rank % len(SERVICE_PORTS)]
        flow = Flow(
            vm, services[rank], TCP, self._ephemeral(), port, incoming=False, kind=Kind.SHORT
        )
        self._short(flow, time_s)

    def _short(self, flow: Flow, time_s: float) -> None:
        """A flow that ends by itself."""
        length_s = self.chance.lognormvariate(self.mu, self.sigma)
        packets = self._packets()
        count = 1 + min(packets - 1, int(length_s / self.parameters.burst_gap_s))
        times = [0.0]
        if count > 1:
            times += sorted(self.chance.uniform(0.0, length_s) for _ in range(count - 2))
            times.append(length_s)
        each, rest = divmod(packets, count)
        self._add(flow, [(time_s + at_s, each + (n < rest)) for n, at_s in enumerate(times)])

    def _kept(self, flow: Flow, time_s: float) -> None:
        one, chance = self.parameters, self.chance
        mu = math.log(one.kept_gap_median_s)
        bursts = []
        while time_s < one.duration_s:
            bursts.append((time_s, self._packets()))
            time_s += chance.lognormvariate(mu, one.kept_gap_sigma)
        self._add(flow, bursts)

    def _scan(self) -> None:
        one, chance = self.parameters, self.chance
        if one.scan_rate <= 0:
            return
        vm = chance.randrange(one.vms)
        addresses = max(1, int((one.neighbors - one.same_subnet) / one.scan_used))
        time_s = one.duration_s / 3
        end_s = time_s + one.duration_s * one.scan_share
        while (time_s := time_s + chance.expovariate(one.scan_rate)) < end_s:
            remote = one.same_subnet + chance.randrange(addresses)
            # A host that is there answers with a reset.
            packets = 2 if remote < one.neighbors else 1
            flow = Flow(
                vm, remote, TCP, self._ephemeral(), SCANNED_PORT, incoming=False, kind=Kind.SCAN
            )
            self._add(flow, [(time_s, packets)])

    def _add(self, flow: Flow, bursts: list[tuple[float, int]]) -> None:
        number, end_s = len(self.flows), self.parameters.duration_s
        self.flows.append(flow)
        self.bursts += [Burst(time_s, number, n) for time_s, n in bursts if time_s < end_s]

    def _packets(self) -> int:
        one = self.parameters
        return int(bounded_pareto(self.chance, one.packets_alpha, one.packets_min, one.packets_max))

    def _ephemeral(self) -> int:
        return self.chance.randint(*EPHEMERAL)


def bounded_pareto(chance: random.Random, alpha: float, low: float, high: float) -> float:
    """By the inverse of its distribution function."""
    tail = 1.0 - chance.random() * (1.0 - (low / high) ** alpha)
    return float(low * tail ** (-1.0 / alpha))


def bounded_pareto_mean(alpha: float, low: float, high: float) -> float:
    """For ``alpha`` other than 1."""
    share = 1.0 - (low / high) ** alpha
    return float(
        low**alpha / share * alpha / (alpha - 1) * (low ** (1 - alpha) - high ** (1 - alpha))
    )


def lognormal_of(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Of the lognormal distribution with two given (value, share of what is greater): mu and sigma."""
    normal = NormalDist()
    one, two = (normal.inv_cdf(1.0 - share) for _, share in (first, second))
    sigma = (math.log(second[0]) - math.log(first[0])) / (two - one)
    return math.log(first[0]) - one * sigma, sigma


__all__ = [
    "Burst",
    "Flow",
    "Kind",
    "Traffic",
    "bounded_pareto",
    "bounded_pareto_mean",
    "generate",
    "lognormal_of",
]

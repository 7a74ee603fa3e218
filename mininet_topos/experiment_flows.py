"""The streams of experiments: between stations, in both protocols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mininet_topos.attempts import family_of
from mininet_topos.experiment_lab import ExperimentLab
from mininet_topos.experiment_state import Station
from mininet_topos.flow_seen import lives_seen
from mininet_topos.load import INTERVAL_S, FlowSpec
from mininet_topos.promises import Measurement, Seen


def both_protocols(
    name: str, source: Station, target: Station, family: int, ports: tuple[int, int]
) -> Iterator[FlowSpec]:
    """A TCP and a UDP flow; ``family`` 0 is IPv4 and 1 IPv6, ``ports`` are TCP's and UDP's.

    Their names end in protocol and family: ``<name> TCP IPv4``.
    """
    address = target.ips[family]
    version = family_of(address)
    tcp, udp = ports
    yield FlowSpec(f"{name} TCP {version}", source.name, target.name, "tcp", address, tcp)
    yield FlowSpec(f"{name} UDP {version}", source.name, target.name, "udp", address, udp)


def from_each(
    sources: Sequence[Station], target: Station, ports: tuple[int, int]
) -> Iterator[FlowSpec]:
    """Flows of both protocols and families from each source; named by it."""
    for family in (0, 1):
        for source in sources:
            yield from both_protocols(source.name, source, target, family, ports)


def begin(
    lab: ExperimentLab,
    specs: Sequence[FlowSpec],
    *,
    interval_s: float = INTERVAL_S,
    intervals: Mapping[str, float] | None = None,
    for_s: float = 300.0,
) -> Seen:
    """Start the streams of an experiment; how they do before anything happens is measured."""
    started = lab.start_loads(specs, interval_s=interval_s, intervals=intervals, for_s=for_s)
    seen = started.watch(1.0)
    longest_ms = 1000 * max(one.longest_gap_s for one in seen)
    lab.measurements.append(
        Measurement("streams before anything happens", "ms", {"longest pause": longest_ms})
    )
    return lives_seen(seen)

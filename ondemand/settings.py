"""What the engine can be set to. Units, defaults and ranges stand beside each field.

The configuration file has the same names in its ``[rules]`` and ``[limits]`` tables; values are
checked here, wherever they come from.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


class SettingsError(ValueError):
    """A setting is out of its range; the message names it, the value and the range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the engine, fixed for its life."""

    #: Match whole connections (5-tuple) instead of services (without the client's port).
    match_connection: bool = False
    #: First table of the pipeline's block of 91. 0..163
    table_base: int = 0
    #: Seconds without a packet after which an allow rule leaves. 1..65535
    verdict_idle_s: int = 60
    #: The same for location rules. 1..65535
    location_idle_s: int = 120
    #: The same for ARP and ND answers. 1..65535
    responder_idle_s: int = 120
    #: Seconds for which a denied flow or unknown destination is dropped in the switch. 1..3600
    deny_s: int = 10
    #: The same while the source that would have to be asked does not answer. 1..3600
    outage_deny_s: int = 2
    #: On-demand rules in all. 100..10000000
    max_rules: int = 200_000
    #: On-demand rules on one port's account. 10..max_rules
    max_rules_per_port: int = 50_000
    #: Packet-ins per second of one port that the switch lets through; 0 switches meters off. 0..10^7
    meter_rate: int = 5_000
    #: Packet-ins of one port that may come at once before its rate counts. 1..10^7
    meter_burst: int = 500
    #: Packet-ins per second of one port that the agent handles, a second line behind the meter. 1..10^7
    admission_rate: int = 10_000
    #: Packet-ins of one port handled at once before its rate counts. 1..10^7
    admission_burst: int = 5_000
    #: Packet-ins per second of one port, those that lead nowhere counted four times, beyond which its
    #: new flows are put in quarantine. 1..10^7
    flood_rate: int = 4_000
    #: Packet-ins of one port, counted so, that may come at once before flood_rate counts. 1..10^7
    flood_burst: int = 4_000
    #: Seconds of the longest quarantine; 0 switches quarantine off. 0..3600
    quarantine_max_s: int = 8
    #: Packets that wait for a record, in all. 1..10^6
    max_parked: int = 4_096
    #: Packets of one port that wait for a record. 1..max_parked
    max_parked_per_port: int = 256
    #: Seconds that a packet waits for a record. 0.01..60
    park_s: float = 2.0
    #: Bytes that neighbor records may take in the slice cache. 65536..2^36
    neighbor_cache_bytes: int = 64 << 20
    #: Seconds after which a neighbor record that nothing uses leaves the cache; 0: it never does for
    #: that. 0..86400
    neighbor_idle_s: float = 600.0

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError(f"{name} = {value} is not in {low}..{high}")
        for name, bound in (
            ("max_rules_per_port", "max_rules"),
            ("max_parked_per_port", "max_parked"),
        ):
            if getattr(self, name) > getattr(self, bound):
                raise SettingsError(
                    f"{name} = {getattr(self, name)} exceeds {bound} = {getattr(self, bound)}"
                )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(f.name for f in fields(cls))


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("table_base", 0, 163),
    ("verdict_idle_s", 1, 65535),
    ("location_idle_s", 1, 65535),
    ("responder_idle_s", 1, 65535),
    ("deny_s", 1, 3600),
    ("outage_deny_s", 1, 3600),
    ("max_rules", 100, 10_000_000),
    ("max_rules_per_port", 10, 10_000_000),
    ("meter_rate", 0, 10_000_000),
    ("meter_burst", 1, 10_000_000),
    ("admission_rate", 1, 10_000_000),
    ("admission_burst", 1, 10_000_000),
    ("flood_rate", 1, 10_000_000),
    ("flood_burst", 1, 10_000_000),
    ("quarantine_max_s", 0, 3600),
    ("max_parked", 1, 1_000_000),
    ("max_parked_per_port", 1, 1_000_000),
    ("park_s", 0.01, 60),
    ("neighbor_cache_bytes", 65_536, 1 << 36),
    ("neighbor_idle_s", 0, 86_400),
)

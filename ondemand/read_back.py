"""What the static rules in a switch tell of the ports that an earlier agent served.

Zones and epochs live in the switch's own rules and nowhere else: an agent that starts reads them back,
so that connections in conntrack keep their zone, and the marks on them their meaning.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ondemand.local_ports import LocalPort
from ondemand.pipeline import Pipeline
from rule_cache.fields import to_int
from rule_cache.rule import Rule


@dataclass(slots=True)
class FoundPort:
    """A port as the rules show it. ``mark`` is ``local_ports.port_mark`` of its id."""

    mark: int
    zone: int
    #: None: the port was served without port security.
    epoch: int | None = None
    remote_epochs: dict[bytes, int] = field(default_factory=dict)

    @property
    def epochs(self) -> list[int]:
        """All epochs that may be stamped on its connections."""
        own = [] if self.epoch is None else [self.epoch]
        return [*own, *self.remote_epochs.values()]

    def stamps_as(self, port: LocalPort) -> bool:
        """Whether the switch stamps connections as this agent believes."""
        return (self.epoch, self.remote_epochs) == (port.epoch, port.remote_epochs)


def found_owner(pipeline: Pipeline, rules: Iterable[Rule]) -> int | None:
    """``local_ports.host_mark`` of the host whose agent made these rules; None: they do not say."""
    for rule in rules:
        if rule.shape is pipeline.owner:
            return to_int(rule.value_of("host"))
    return None


def found_ports(pipeline: Pipeline, rules: Iterable[Rule]) -> list[FoundPort]:
    """The ports that these static rules serve, by zone.

    A zone without a rule that delivers to it is nobody's: its agent died while it made the port.
    """
    rules = list(rules)
    ports = {
        zone: FoundPort(to_int(rule.value_of("port")), zone)
        for rule in rules
        if rule.shape is pipeline.deliver
        for zone in [to_int(rule.value_of("zone"))]
    }
    # What stamps counts: a mark that is compared with, but not stamped any more, is an old one.
    stamping = set(pipeline.not_judged.values())
    stamping_remote = set(pipeline.not_judged_remote.values())
    for rule in rules:
        if rule.shape in stamping or rule.shape in stamping_remote:
            port = ports.get(to_int(rule.value_of("zone")))
            epoch = to_int(rule.value_of("epoch"))
            if port is None:
                continue
            if rule.shape in stamping:
                port.epoch = epoch
            else:
                remote = rule.value_of("remote")
                if isinstance(remote, bytes):
                    port.remote_epochs[remote] = epoch
    return [ports[zone] for zone in sorted(ports)]

"""The rules that are always there: the pipeline's frame, and a handful for each local port."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ondemand.addresses import link_local_of
from ondemand.local_ports import LocalPort, host_mark, port_mark
from ondemand.pipeline import LINK_LOCAL_ICMPV6, Pipeline
from ondemand.records import Direction
from rule_cache.rule import Rule


def frame_rules(pipeline: Pipeline) -> list[Rule]:
    """The rules that do not depend on any port."""
    rules = [shape.rule() for shape in pipeline.no_vlan]
    rules += [pipeline.to_arp.rule(), pipeline.to_nd.rule()]
    rules += [pipeline.nd_solicited.rule(), pipeline.nd_duplicate.rule()]
    for direction in Direction:
        rules += [
            pipeline.no_link_local[direction].rule(icmp_type=kind) for kind in LINK_LOCAL_ICMPV6
        ]
        rules += [shape.rule() for shape in pipeline.tracked[direction]]
        rules += [shape.rule() for shape in pipeline.untracked[direction]]
        rules.append(pipeline.invalid[direction].rule())
        rules += [pipeline.later_fragment[direction, family].rule() for family in (4, 6)]
    # From a tunnel nobody may ask for neighbors either: each host answers its own VMs.
    rules.append(pipeline.no_link_local[Direction.INGRESS].rule(icmp_type=135))
    return rules


def owner_rule(pipeline: Pipeline, host: str) -> Rule:
    """Says that the rules in this switch are those of the agent of ``host``."""
    return pipeline.owner.rule(host=host_mark(host))


def port_rules(
    pipeline: Pipeline,
    port: LocalPort,
    tunnel_port: int,
    meter: int,
    macs_from_tunnel: Iterable[bytes] | None = None,
) -> list[Rule]:
    """The rules of one local port. ``meter`` 0: packet-ins are not metered.

    ``macs_from_tunnel``: frames to these reach it from a tunnel; all its MACs unless given.
    """
    macs = port.macs if macs_from_tunnel is None else macs_from_tunnel
    zone, record = port.zone, port.record
    rules = [
        pipeline.from_port.rule(ofport=port.ofport, vni=port.subnet.vni, zone=zone),
        pipeline.deliver.rule(zone=zone, port=port_mark(record.id), ofport=port.ofport),
        pipeline.location_miss.rule(zone=zone, meter=meter),
        pipeline.arp_miss.rule(zone=zone, meter=meter),
        pipeline.nd_miss.rule(zone=zone, meter=meter),
        pipeline.announcement.rule(zone=zone, mac=record.mac, meter=meter),
    ]
    if tunnel_port:
        rules += [
            pipeline.from_tunnel.rule(
                tunnel_port=tunnel_port, vni=port.subnet.vni, mac=mac, zone=zone
            )
            for mac in macs
        ]
    if not record.port_security:
        rules += [shape.rule(zone=zone) for shape in pipeline.any_source.values()]
        rules += [shape.rule(zone=zone) for shape in pipeline.unprotected.values()]
        return rules
    rules += _sources(pipeline, port)
    for direction in Direction:
        rules.append(pipeline.verdict_miss[direction].rule(zone=zone, meter=meter))
        rules += epoch_rules(pipeline, port, direction)
    return rules


def quarantine_rules(pipeline: Pipeline, port: LocalPort) -> list[Rule]:
    """What ends the new flows of a port in quarantine; none when it is in none.

    A port without port security is not asked for verdicts, so its flows have no place to end.
    """
    if not port.quarantine_s or not port.record.port_security:
        return []
    return [Rule(shape, (port.zone,), 0, port.quarantine_s) for shape in pipeline.quarantine]


def epoch_rules(pipeline: Pipeline, port: LocalPort, direction: Direction) -> list[Rule]:
    """The rules that carry a port's policy epochs; they move when its policy narrows."""
    rules = [
        pipeline.judged[direction].rule(zone=port.zone, epoch=port.epoch),
        pipeline.not_judged[direction].rule(zone=port.zone, epoch=port.epoch),
    ]
    for remote, epoch in port.remote_epochs.items():
        for shapes in (pipeline.judged_remote, pipeline.not_judged_remote):
            for reply in (False, True):
                shape = shapes[direction, 4 if len(remote) == 4 else 6, reply]
                rules.append(shape.rule(zone=port.zone, remote=remote, epoch=epoch))
    return rules


def _sources(pipeline: Pipeline, port: LocalPort) -> Iterator[Rule]:
    """Port security: which MAC may send from which address. A pair binds its two together."""
    record, zone = port.record, port.zone
    allowed = {(record.mac, ip, len(ip) * 8) for ip in record.fixed_ips}
    allowed |= {(pair.mac, pair.prefix.network, pair.prefix.length) for pair in record.pairs}
    allowed |= {(mac, link_local_of(mac), 128) for mac in port.macs}
    for mac, network, length in sorted(allowed):
        size = len(network)
        mask = ((1 << length) - 1) << (size * 8 - length)
        yield pipeline.allowed_source[4 if size == 4 else 6].rule(
            zone=zone, mac=mac, source=network, source_mask=mask.to_bytes(size, "big")
        )
    yield pipeline.allowed_dhcp.rule(zone=zone, mac=record.mac)

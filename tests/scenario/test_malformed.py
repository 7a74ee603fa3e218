"""Frames that are not what their headers say: counted, and never a rule."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from ondemand.frames import Malformed, parse
from ondemand.malformed import Reason
from ondemand.messages import PacketIn
from ondemand.pipeline import Table
from tests.support.cloud_edit import change_port
from tests.support.frame_samples import SAMPLES
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import office
from tests.support.packet_parts import SCTP, TCP, destination_options, udp_datagram
from tests.support.world_builder import CloudBuilder


def malformed(lab: Lab, port: str) -> dict[str, int]:
    """Counts of malformed frames of a port, by reason."""
    counts = lab.here.engine.counters.by_name()
    return {
        name.removeprefix("malformed."): ports[port]
        for name, ports in counts.items()
        if name.startswith("malformed.") and port in ports
    }


def with_free_port() -> CloudBuilder:
    cloud = office()
    change_port(cloud, "a2", port_security=False, groups=())
    return cloud


def test_a_short_sctp_header(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    assert lab.send("a", lab.frames(family).raw("a", "b", SCTP, bytes(8))).reached == []
    assert malformed(lab, "a") == {Reason.SCTP_SHORT.value: 1}
    assert lab.here.rules() == []


def test_a_short_tcp_header_of_a_port_without_port_security(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_free_port())
    assert lab.send("a2", lab.frames(family).raw("a2", "b", TCP, bytes(12))).reached == []
    assert malformed(lab, "a2") == {Reason.TCP_SHORT.value: 1}
    assert lab.here.rules() == []


def test_a_solicitation_from_beyond_the_link(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    frame = lab.frames(6).who_has("a", "b", ttl=254)
    assert lab.send("a", frame).arrived == ()
    assert sum(malformed(lab, "a").values()) == 1
    assert lab.here.rules() == []


def test_too_many_extension_headers(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    vm = lab.frames(6)
    data = udp_datagram(vm.ip("a"), vm.ip("b"), 1, 53)
    frame = vm.raw("a", "b", 17, data, extensions=[destination_options()] * 9)
    assert lab.send("a", frame).reached == []
    assert malformed(lab, "a") == {Reason.EXTENSION_COUNT.value: 1}
    assert lab.here.rules() == []


def test_a_good_frame_between_bad_ones_passes(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    bad = vm.raw("a", "b", SCTP, bytes(8))
    sent = lab.send("a", bad, vm.tcp("a", "b"), bad, vm.tcp("a", "b"))
    assert sent.reached == ["b", "b"]
    assert sum(malformed(lab, "a").values()) == 2


def bad_frames() -> Iterator[bytes]:
    """Random bytes, good frames cut short, good frames with bytes changed."""
    chance = random.Random(7)
    for _ in range(100):
        yield chance.randbytes(chance.randrange(80))
    for frame, _ in SAMPLES.values():
        for _ in range(5):
            yield frame[: chance.randrange(len(frame))]
            changed = bytearray(frame)
            for _ in range(3):
                changed[chance.randrange(min(len(changed), 60))] = chance.randrange(256)
            yield bytes(changed)


@pytest.mark.parametrize(
    "table",
    [Table.RESPONDER, Table.EGRESS_VERDICT, Table.LOCATION, Table.INGRESS_VERDICT],
)
@pytest.mark.parametrize("port", ["a", "a2"])
def test_whatever_a_packet_in_holds_makes_no_false_rule(
    make_lab: MakeLab, table: Table, port: str
) -> None:
    """The switch would not let all of these through; the engine must not count on that."""
    lab = make_lab(with_free_port())
    host = lab.here
    for frame in bad_frames():
        before = (host.engine.ledger_size, sum(malformed(lab, port).values()))
        packet = PacketIn(
            table=host.engine.pipeline.number(table),
            in_port=host.plugged[port],
            data=frame,
            vni=101,
            source_zone=host.zone(port),
            target_zone=host.zone(port),
        )
        host.engine.packet_in(packet, lab.now_s)
        host.flush()
        try:
            parse(frame)
        except Malformed:
            after = (host.engine.ledger_size, sum(malformed(lab, port).values()))
            is_counted = table is not Table.INGRESS_VERDICT or port == "a"
            assert after == (before[0], before[1] + 1) or not is_counted
        lab.advance(0.01)


def test_a_packet_in_of_no_port_or_table_is_counted(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    engine = lab.here.engine
    frame = lab.frames(4).tcp("a", "b")
    for table, zone in ((30, 999), (31, lab.here.zone("a")), (30, 0)):
        engine.packet_in(PacketIn(table=table, in_port=10, data=frame, source_zone=zone), lab.now_s)
    assert engine.counters.of("packet_in.unknown_port") == 3
    assert not engine.take()


def test_a_packet_that_waited_for_a_port_that_is_gone_goes_nowhere(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    packet = PacketIn(
        table=Table.EGRESS_VERDICT, in_port=10, data=lab.frames(4).tcp("a", "b"), source_zone=999
    )
    lab.here.engine._packets.resume(packet, lab.now_s)
    assert not lab.here.engine.take()


def test_a_rule_that_nobody_can_judge_again_is_our_own_fault(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    engine = lab.here.engine
    lab.send("a", lab.frames(4).udp("a", "b"))
    entry = next(iter(engine.installer.ledger))
    subject, entry.subject = entry.subject, None
    with pytest.raises(TypeError, match="no subject that can be judged again"):
        engine._rejudge.judge_tags(entry.tags, lab.now_s)
    entry.subject = subject

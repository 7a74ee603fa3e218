"""The switch refuses rules: nothing false stays, nothing runs in circles."""

from __future__ import annotations

from ondemand.pipeline import Table
from tests.support.cloud_edit import change_port, remove_rule
from tests.support.lab import MakeLab
from tests.support.office_cloud import office
from tests.support.packet_parts import ACK
from tests.support.world_builder import ELSEWHERE, HERE, THERE


def test_a_rule_refused_is_not_in_the_ledger(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    lab.here.switch.refuse = lambda _, rule: rule.idle_timeout > 0
    sent = lab.send("a", vm.udp("a", "b"))
    assert sent.reached == []
    assert lab.here.engine.ledger_size == 0
    assert lab.here.count("rule_rejected") > 0


def test_a_packet_whose_rule_is_refused_does_not_come_round_and_round(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    lab.here.switch.refuse = lambda _, rule: rule.shape.table == Table.LOCATION
    sent = lab.send("a", vm.udp("a", "b"))
    assert sent.packet_ins <= 3
    assert lab.here.count("packet_in.refused", "a") > 0
    lab.here.switch.refuse = None
    lab.advance(1.1)
    assert lab.send("a", vm.udp("a", "b")).reached == ["b"]


def test_other_ports_are_served_while_one_has_its_rules_refused(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    zone = lab.here.zone("a")
    lab.here.switch.refuse = lambda _, rule: (
        rule.shape.table == Table.EGRESS_VERDICT and rule.values[0] == zone
    )
    assert lab.send("a", vm.udp("a", "b")).reached == []
    assert lab.send("a2", vm.udp("a2", "b")).reached == ["b"]


def test_a_refused_rule_takes_the_one_that_it_should_replace_along(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE, ELSEWHERE))
    vm = lab.frames(family)
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]
    lab.here.switch.refuse = lambda _, rule: True
    change_port(lab.cloud, "c", host=ELSEWHERE)
    lab.publish()
    assert lab.here.rules("location_tunnel") == []
    lab.here.switch.refuse = None
    lab.check()


def test_a_verdict_that_cannot_be_narrowed_allows_nothing(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b", 80)).reached == ["b"]
    lab.here.switch.refuse = lambda _, rule: rule.hard_timeout > 0
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    lab.publish()
    assert lab.send("a", vm.tcp("a", "b", 80, flags=ACK)).reached == []
    assert lab.send("b", vm.tcp_reply("b", "a", 80)).reached == []


def test_an_epoch_that_cannot_be_moved_stops_the_port(make_lab: MakeLab, family: int) -> None:
    """The old epoch would let connections live on that are denied; better none than these."""
    lab = make_lab(office())
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b", 80)).reached == ["b"]
    states = {Table.EGRESS_STATE, Table.INGRESS_STATE}
    lab.here.switch.refuse = lambda _, rule: rule.shape.table in states
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    lab.publish()
    assert lab.send("b", vm.tcp_reply("b", "a", 80)).reached == []
    lab.here.switch.refuse = None
    remove_rule(lab.cloud, "web", f"udp-53-{family}")
    lab.publish()
    assert lab.send("b", vm.tcp_reply("b", "a", 80)).reached == []
    assert lab.send("a", vm.tcp("a", "b", 443)).reached == ["b"], "programmed again"


def test_a_batch_that_is_cut_short_is_made_good_by_the_reconnect(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    lab.here.switch.cut_after = 1
    lab.send("a", vm.tcp("a", "b", 80))
    lab.here.reconnect()
    lab.check()
    assert lab.send("a", vm.tcp("a", "b", 80)).reached == ["b"]

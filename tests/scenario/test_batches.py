"""Many messages in one batch: what is decided last is what the switch ends with.

A batch is sent as deletes, adds, packet-outs. So a rule that is made and unmade within one batch must
not be left behind by an add that comes after its delete.
"""

from __future__ import annotations

from ondemand.settings import Settings
from tests.support.cloud_edit import change_port, remove_rule
from tests.support.lab import MakeLab
from tests.support.office_cloud import office
from tests.support.world_builder import HERE, THERE


def test_a_rule_made_and_unmade_in_one_batch_never_gets_in(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    with lab.here.batch():
        lab.send("a", vm.tcp("a", "b"))
        assert lab.here.engine.ledger_size > 0
        lab.here.unplug("b")
        lab.here.unplug("a")
    assert lab.here.rules() == []
    lab.check()


def test_a_rule_replaced_and_unmade_in_one_batch_takes_the_old_one_with_it(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE))
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "c")).reached == ["c"]
    (before,) = lab.here.rules("location_tunnel")
    with lab.here.batch():
        change_port(lab.cloud, "c", host="elsewhere")
        lab.publish()
        change_port(lab.cloud, "c", host=THERE)
        lab.publish()
        lab.here.unplug("a")
    assert before not in lab.here.rules()
    assert lab.here.rules() == []
    lab.check()


def test_a_rule_that_changes_twice_in_one_batch_is_sent_once(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE))
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "c"))
    lab.here.begin_batch()
    for host in ("elsewhere", THERE, "elsewhere"):
        change_port(lab.cloud, "c", host=host)
        lab.publish()
    effects = lab.here.engine.take()
    assert len([rule for _, rule in effects.adds if "location" in rule.shape.name]) == 1
    lab.here.switch.apply(effects)
    lab.here.end_batch()
    lab.check()


def test_a_flood_in_one_batch_stays_within_the_bound(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), settings=Settings(max_rules_per_port=10))
    vm = lab.frames(family)
    with lab.here.batch():
        for port in range(1000, 1040):
            lab.send("a", vm.tcp("a", "b", port))
    assert len(lab.here.rules()) == 10
    lab.check()


def test_a_port_that_comes_and_goes_in_one_batch_leaves_nothing(make_lab: MakeLab) -> None:
    lab = make_lab(office(), plugged=())
    empty = lab.here.switch.dump()
    lab.here.plug("b")  # brings the slices that it needs
    lab.here.unplug("b")
    lab.here.plug("a2")
    with lab.here.batch():
        lab.here.plug("a")
        assert "a" in lab.here.engine.world.ports
        lab.here.unplug("a")
    lab.here.unplug("a2")
    assert [line.split(",", 1)[1] for line in lab.here.switch.dump()] == [
        line.split(",", 1)[1] for line in empty
    ]
    lab.check()


def test_an_epoch_that_moves_twice_in_one_batch_ends_at_the_last(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b")).reached == ["b"]
    with lab.here.batch():
        for rule in ("tcp-443-4", "tcp-443-6"):
            remove_rule(lab.cloud, "web", rule)
            lab.publish()
    lab.check()
    sent = lab.send("b", vm.tcp_reply("b", "a"))
    assert sent.reached == ["a"], "the allowed connection goes on"


def test_a_new_rule_that_changes_in_one_batch_is_sent_as_it_is_last(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE))
    vm = lab.frames(family)
    lab.send("a", vm.who_has("a", "c"))  # so that the record is here
    lab.here.begin_batch()
    lab.send("a", vm.tcp("a", "c"))
    assert lab.here.engine.has_effects
    change_port(lab.cloud, "c", host="elsewhere")
    lab.publish()
    effects = lab.here.engine.take()
    (location,) = [rule for _, rule in effects.adds if "location" in rule.shape.name]
    assert "tunnel6" in location.shape.name
    lab.here.switch.apply(effects)
    lab.here.end_batch()

"""What the engine asks of the source of slices, and what it makes of answers in any order."""

from __future__ import annotations

import pytest

from ondemand.messages import Fetch, Follow, Forget, Heal
from ondemand.settings import Settings
from ondemand.slices import Delta, Lookup, Snapshot
from tests.support.cloud_edit import add_rule, change_port, remove_rule, set_rules
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import both, office
from tests.support.world_builder import ELSEWHERE, HERE, THERE, allow


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), hosts=(HERE, THERE), settings=Settings(park_s=2.0))


def test_a_shard_is_followed_from_the_version_that_was_read(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    name = "nbr/vpc-1/" + ("10.0.1.0" if family == 4 else "fd00:1::")
    asked = [request for request in lab.here.feed.asked if getattr(request, "slice", "") == name]
    assert asked[0] == Fetch(name, "ip/" + ("10.0.1.13" if family == 4 else "fd00:1::13"))
    follows = [request for request in asked if isinstance(request, Follow)]
    assert follows == [Follow(name, lab.store.version(name))]


def test_an_answer_that_a_change_overtook_is_mended(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "b"))  # so that the shard is followed
    lab.here.delayed = True
    lab.send("a", vm.udp("a", "c"))
    change_port(lab.cloud, "c", host=ELSEWHERE)
    lab.publish()
    inbox = lab.here.feed.inbox
    assert isinstance(inbox[0], Lookup)
    for _ in range(len(inbox) - 1):
        lab.here.deliver_one(1)
    lab.here.delayed = False
    lab.here.deliver()
    lab.check()


def test_a_gap_is_healed_by_the_delta(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "b"))
    lab.here.delayed = True
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    lab.publish()
    lab.here.feed.inbox.clear()  # lost
    add_rule(lab.cloud, "web", allow("ingress", "tcp", 7, family=family, rule_id="echo"))
    lab.publish()
    lab.here.delayed = False
    lab.here.deliver()
    assert Heal in {type(request) for request in lab.here.feed.asked}
    assert lab.here.count("source.gap") == 1
    assert lab.send("b", vm.tcp_reply("b", "a")).reached == []


def test_a_gap_too_old_is_healed_by_the_snapshot(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "b"))
    lab.send("a", vm.udp("a", "c"))
    lab.here.delayed = True
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    change_port(lab.cloud, "c", host=ELSEWHERE)
    lab.publish()
    lab.here.feed.inbox.clear()
    change_port(lab.cloud, "x", host=ELSEWHERE)
    add_rule(lab.cloud, "web", allow("ingress", "tcp", 7, family=family, rule_id="echo"))
    lab.publish()
    for name in lab.store.names:
        lab.store.forget_changes(name)
    lab.here.delayed = False
    lab.here.deliver()
    lab.check()
    assert lab.send("b", vm.tcp_reply("b", "a")).reached == []


def test_duplicates_change_nothing(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "b"))
    lab.here.delayed = True
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    lab.publish()
    lab.here.deliver_one(keep=True)
    epoch, dump = lab.here.epoch("b"), lab.here.switch.dump()
    for _ in range(3):
        lab.here.deliver_one(keep=True)
    lab.here.delayed = False
    lab.here.deliver()
    assert (lab.here.epoch("b"), lab.here.switch.dump()) == (epoch, dump)


def test_an_older_version_never_overwrites_a_newer_one(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    old = lab.store.snapshot("sg/web")
    set_rules(lab.cloud, "web", *both("ingress", "tcp", 443, rule_id="https"))
    lab.publish()
    lab.here.feed.inbox.append(old)
    lab.here.feed.inbox.append(Delta("sg/web", 0, 1, ()))
    lab.here.deliver()
    assert lab.send("a", vm.tcp("a", "b", 80)).reached == []
    assert lab.send("a", vm.tcp("a", "b", 443)).reached == ["b"]


def test_news_of_slices_that_nobody_holds_are_ignored(lab: Lab) -> None:
    before = lab.here.switch.dump()
    lab.here.feed.inbox.append(Snapshot("sg/other", 3, {}))
    lab.here.feed.inbox.append(Snapshot("nbr/vpc-9/10.0.0.0", 3, {}))
    lab.here.feed.inbox.append(Snapshot("hostgroup/rack-1", 3, {}))
    lab.here.deliver()
    assert lab.here.switch.dump() == before


def test_a_slice_that_is_followed_again_starts_anew(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.unplug("b")
    lab.here.unplug("d")
    assert lab.here.feed.asked[-1] == Forget("sg/web")
    set_rules(lab.cloud, "web", *both("ingress", "udp", 99, rule_id="new"))
    lab.publish()
    lab.here.plug("b")
    assert lab.send("a", vm.udp("a", "b", 53)).reached == []
    assert lab.send("a", vm.udp("a", "b", 99)).reached == ["b"]

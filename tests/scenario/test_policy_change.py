"""Policy changes while traffic is on: live connections, verdict rules, and the order of sending."""

from __future__ import annotations

import pytest

from ondemand import rejudge
from ondemand.messages import Effects
from ondemand.settings import Settings
from tests.support.cloud_edit import add_rule, change_port, remove_rule, set_rules
from tests.support.fake_outcomes import Delivered
from tests.support.fake_switch import MESSAGES
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import both, office, web_rules
from tests.support.packet_parts import ACK
from tests.support.world_builder import HERE, THERE, allow

SIDES = pytest.mark.parametrize("target", ["b", "c", "d", "e"])


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), hosts=(HERE, THERE))


def open_connection(lab: Lab, family: int, src: str, dst: str, tp_dst: int) -> None:
    """A TCP handshake that goes through."""
    vm = lab.frames(family)
    assert lab.send(src, vm.tcp(src, dst, tp_dst)).reached == [dst]
    assert lab.send(dst, vm.tcp_reply(dst, src, tp_dst)).reached == [src]
    assert lab.send(src, vm.tcp(src, dst, tp_dst, flags=ACK)).reached == [dst]


def forward(lab: Lab, family: int, src: str, dst: str, tp_dst: int) -> bool:
    """Whether an open connection passes a packet of the side that began it."""
    vm = lab.frames(family)
    return lab.send(src, vm.tcp(src, dst, tp_dst, flags=ACK)).reached == [dst]


def back(lab: Lab, family: int, src: str, dst: str, tp_dst: int) -> bool:
    """Whether it passes a packet of the other side."""
    vm = lab.frames(family)
    return lab.send(dst, vm.tcp_reply(dst, src, tp_dst, flags=ACK)).reached == [src]


# -- narrower --------------------------------------------------------------------------------------


@SIDES
@pytest.mark.parametrize("first", ["client speaks first", "server speaks first"])
def test_a_rule_removed_cuts_its_connection_and_the_one_beside_it_goes_on(
    lab: Lab, family: int, target: str, first: str
) -> None:
    open_connection(lab, family, "a", target, 80)
    open_connection(lab, family, "a", target, 443)
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    lab.publish()
    ways = [forward, back] if first == "client speaks first" else [back, forward]
    for way in (*ways, *ways):
        assert not way(lab, family, "a", target, 80)
        assert way(lab, family, "a", target, 443)


@SIDES
def test_egress_narrowed_cuts_what_the_port_began(lab: Lab, family: int, target: str) -> None:
    add_rule(lab.cloud, "client", allow("egress", "tcp", 80, family=family, rule_id="80"))
    lab.publish()
    open_connection(lab, family, "a", target, 80)
    open_connection(lab, family, "a", target, 443)
    remove_rule(lab.cloud, "client", f"out-{family}")
    lab.publish()
    assert not back(lab, family, "a", target, 443)
    assert not forward(lab, family, "a", target, 443)
    assert forward(lab, family, "a", target, 80)
    assert back(lab, family, "a", target, 80)


def test_the_connection_beside_it_is_stamped_anew_by_one_packet(lab: Lab, family: int) -> None:
    open_connection(lab, family, "a", "b", 443)
    before = lab.here.epoch("b")
    assert (6, before) in lab.here.connections("b")
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    lab.publish()
    after = lab.here.epoch("b")
    assert after != before
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b", 443, flags=ACK)).packet_ins == 0, "its rule is there"
    assert lab.here.connections("b") == [(6, after)]


def test_other_ports_epochs_stay(lab: Lab, family: int) -> None:
    before = {port: lab.here.epoch(port) for port in ("a", "b", "d")}
    set_rules(lab.cloud, "client", *both("egress", "tcp", rule_id="out"))
    lab.publish()
    moved = {port for port in before if lab.here.epoch(port) != before[port]}
    assert moved == {"a"}


def test_a_rule_that_is_changed_counts_as_removed_and_added(lab: Lab, family: int) -> None:
    open_connection(lab, family, "a", "b", 80)
    open_connection(lab, family, "a", "b", 81)
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    add_rule(
        lab.cloud, "web", allow("ingress", "tcp", 80, family=family, rule_id=f"tcp-80-{family}")
    )
    lab.publish()
    assert forward(lab, family, "a", "b", 80)
    assert not forward(lab, family, "a", "b", 81)


@SIDES
def test_a_group_removed_from_a_port_cuts_what_it_allowed(
    lab: Lab, family: int, target: str
) -> None:
    lab.cloud.group("ssh", *both("ingress", "tcp", 22, rule_id="ssh"))
    change_port(lab.cloud, target, groups=("web", "ssh"))
    lab.publish()
    open_connection(lab, family, "a", target, 22)
    open_connection(lab, family, "a", target, 443)
    change_port(lab.cloud, target, groups=("web",))
    lab.publish()
    assert not forward(lab, family, "a", target, 22)
    assert not back(lab, family, "a", target, 22)
    assert forward(lab, family, "a", target, 443)
    assert back(lab, family, "a", target, 443)


def test_a_group_whose_slice_empties_allows_nothing(lab: Lab, family: int) -> None:
    open_connection(lab, family, "a", "b", 80)
    lab.write("sg/web", dict.fromkeys(lab.store.records("sg/web")))
    assert not forward(lab, family, "a", "b", 80)
    assert not back(lab, family, "a", "b", 80)
    assert lab.here.count("denied.group_missing", "b") > 0


def test_a_group_that_disappears_alone_takes_no_rule_along(lab: Lab, family: int) -> None:
    """Its rules are still written; only what the log says of it changes."""
    open_connection(lab, family, "a", "b", 80)
    lab.write("sg/web", {"group": None})
    assert forward(lab, family, "a", "b", 80)
    assert any("'b' is in group 'web'" in warning for warning in lab.here.warnings)


# -- the order of sending --------------------------------------------------------------------------


def step_by_step(lab: Lab, effects: Effects, port: str, *frames: bytes) -> list[list[str]]:
    """Apply a batch message by message; a VM sends its frames after each: whom they reached."""
    switch = lab.here.switch
    reached = []
    names = {ofport: name for name, ofport in lab.here.plugged.items()}
    for kind in MESSAGES:
        for message in getattr(effects, kind):
            switch.apply(Effects(**{kind: [message]}))
            outcomes = [
                outcome
                for frame in frames
                for outcome in switch.inject(lab.here.plugged[port], frame, lab.now_s)
            ]
            reached.append([names[out.ofport] for out in outcomes if isinstance(out, Delivered)])
    return reached


@pytest.mark.parametrize("change", ["rule removed", "group replaced", "port security"])
def test_no_moment_of_a_narrowing_batch_stamps_a_connection_that_is_to_be_cut(
    make_lab: MakeLab, family: int, change: str
) -> None:
    cloud = office()
    cloud.group("discard", *both("ingress", "tcp", 9, rule_id="discard"))
    # Somebody else is in the group, so that its slice is here when it is needed.
    change_port(cloud, "d", groups=("discard",))
    lab = make_lab(cloud)
    open_connection(lab, family, "a", "b", 80)
    if change == "rule removed":
        remove_rule(cloud, "web", f"tcp-80-{family}")
    elif change == "group replaced":
        change_port(cloud, "b", groups=("discard",))
    else:
        change_port(cloud, "b", port_security=False, groups=())
        lab.publish()
        assert forward(lab, family, "a", "b", 80)
        change_port(cloud, "b", port_security=True, groups=("discard",))
    lab.here.begin_batch()
    lab.publish()
    frame = lab.frames(family).tcp("a", "b", 80, flags=ACK)
    step_by_step(lab, lab.here.engine.take(), "a", frame)
    lab.here.end_batch()
    assert not forward(lab, family, "a", "b", 80)
    assert not back(lab, family, "a", "b", 80)


def test_no_moment_of_a_narrowing_batch_stops_a_connection_that_stays(
    lab: Lab, family: int
) -> None:
    open_connection(lab, family, "a", "b", 443)
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    lab.here.begin_batch()
    lab.publish()
    frame = lab.frames(family).tcp("a", "b", 443, flags=ACK)
    reached = step_by_step(lab, lab.here.engine.take(), "a", frame)
    lab.here.end_batch()
    assert reached == [["b"]] * len(reached)
    assert reached != []


# -- wider -----------------------------------------------------------------------------------------


@SIDES
def test_a_rule_added_lets_new_connections_in_at_once(lab: Lab, family: int, target: str) -> None:
    vm = lab.frames(family)
    for _ in range(2):
        assert lab.send("a", vm.tcp("a", target, 22)).reached == []
    epochs = [host.epoch(port) for host in lab.hosts.values() for port in host.plugged]
    add_rule(lab.cloud, "web", allow("ingress", "tcp", 22, family=family, rule_id="ssh"))
    lab.publish()
    sent = lab.send("a", vm.tcp("a", target, 22))
    assert sent.reached == [target]
    assert epochs == [host.epoch(port) for host in lab.hosts.values() for port in host.plugged]


def test_a_group_added_to_a_port_lets_new_connections_in_at_once(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b", 22)).reached == []
    lab.cloud.group("ssh", *both("ingress", "tcp", 22, rule_id="ssh"))
    change_port(lab.cloud, "b", groups=("web", "ssh"))
    epoch = lab.here.epoch("b")
    lab.publish()
    assert lab.send("a", vm.tcp("a", "b", 22)).reached == ["b"]
    assert lab.here.epoch("b") == epoch


def test_what_was_cut_goes_on_when_it_is_allowed_again(lab: Lab, family: int) -> None:
    open_connection(lab, family, "a", "b", 80)
    set_rules(lab.cloud, "web")
    lab.publish()
    assert not forward(lab, family, "a", "b", 80)
    set_rules(lab.cloud, "web", *web_rules())
    lab.publish()
    assert forward(lab, family, "a", "b", 80)
    assert back(lab, family, "a", "b", 80)


def test_a_change_that_changes_nothing_sends_nothing(lab: Lab, family: int) -> None:
    open_connection(lab, family, "a", "b", 80)
    lab.here.begin_batch()
    add_rule(lab.cloud, "web", allow("ingress", "tcp", 7, family=family, rule_id="echo"))
    lab.publish()
    effects = lab.here.engine.take()
    lab.here.end_batch()
    assert (effects.deletes, effects.adds, effects.after_barrier) == ([], [], [])


def test_epochs_are_unlike_and_begin_again_after_the_last(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), first_epoch=0xFFFFFFFE)
    assert [lab.here.epoch(port) for port in ("a", "a2", "b", "d")] == [
        0xFFFFFFFE,
        0xFFFFFFFF,
        1,
        2,
    ]
    open_connection(lab, family, "a", "b", 443)
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    lab.publish()
    assert forward(lab, family, "a", "b", 443)
    assert lab.here.epoch("b") not in {1, 2}


@pytest.mark.parametrize("target", ["b", "d"])
def test_a_reply_is_none_of_its_own_though_its_way_is_not_known_any_more(
    make_lab: MakeLab, family: int, target: str
) -> None:
    """Behind the commit that stamps it anew a packet no longer says that it is a reply."""
    lab = make_lab(office(), settings=Settings(location_idle_s=10, verdict_idle_s=60))
    open_connection(lab, family, "a", target, 443)
    lab.advance(11)
    assert lab.here.rules("location") == []
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    lab.publish()
    assert back(lab, family, "a", target, 443)
    assert lab.here.count("denied.no_rule") == 0
    assert forward(lab, family, "a", target, 443)


@pytest.mark.parametrize("change", ["rule removed", "group replaced"])
def test_an_epoch_waits_for_all_rules_that_a_large_change_concerns(
    make_lab: MakeLab, family: int, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then a connection that is to be cut could be stamped anew by a rule that is about to go."""
    monkeypatch.setattr(rejudge, "AT_ONCE", 1)
    cloud = office()
    cloud.group("discard", *both("ingress", "tcp", 9, rule_id="discard"))
    change_port(cloud, "d", groups=("discard",))
    lab = make_lab(cloud)
    for tp_dst in (80, 81, 443):
        open_connection(lab, family, "a", "b", tp_dst)
    host = lab.here
    epoch = host.epoch("b")
    host.delayed = True
    if change == "rule removed":
        remove_rule(cloud, "web", f"tcp-80-{family}")
    else:
        change_port(cloud, "b", groups=("discard",))
    lab.publish()
    host.begin_batch()
    while host.feed.inbox:
        host._hear()
    assert host.engine.has_work
    steps = 0
    while host.engine.has_work:
        assert host.epoch("b") == epoch
        host.engine.work(lab.now_s, 1)
        steps += 1
    assert steps >= 3
    assert host.epoch("b") != epoch
    host.delayed = False
    host.end_batch()
    assert not forward(lab, family, "a", "b", 80)
    assert forward(lab, family, "a", "b", 443) == (change == "rule removed")

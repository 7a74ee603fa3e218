"""Policy changes while traffic is on: live connections, verdict rules, and the order of sending."""

from __future__ import annotations

from ondemand.messages import Effects
from tests.support.cloud_edit import add_rule, change_port, remove_group, remove_rule, set_rules
from tests.support.fake_outcomes import Delivered
from tests.support.frame_builder import build_arp
from tests.support.lab import Lab, MakeLab, Sent
from tests.support.office_cloud import add_network, add_port, both, office, web_rules
from tests.support.packet_parts import ACK
from tests.support.world_builder import HERE, THERE, CloudBuilder, allow


def open_connection(lab: Lab, family: int, src: str, dst: str, tp_dst: int) -> None:
    """A TCP handshake that goes through."""
    vm = lab.frames(family)
    assert lab.send(src, vm.tcp(src, dst, tp_dst)).reached == [dst]
    assert lab.send(dst, vm.tcp_reply(dst, src, tp_dst)).reached == [src]
    assert lab.send(src, vm.tcp(src, dst, tp_dst, flags=ACK)).reached == [dst]


def go_on(lab: Lab, family: int, src: str, dst: str, tp_dst: int) -> tuple[bool, bool]:
    """Whether an open connection passes packets: forward, and back."""
    vm = lab.frames(family)
    forward = lab.send(src, vm.tcp(src, dst, tp_dst, flags=ACK)).reached == [dst]
    back = lab.send(dst, vm.tcp_reply(dst, src, tp_dst, flags=ACK)).reached == [src]
    return forward, back


def step_by_step(lab: Lab, effects: Effects, port: str, frame: bytes) -> list[list[str]]:
    """Apply a batch message by message; a VM sends ``frame`` after each: whom it reached."""
    switch = lab.here.switch
    reached = []
    names = {ofport: name for name, ofport in lab.here.plugged.items()}
    for name in ("deletes", "meters", "adds", "packet_outs", "after_barrier"):
        for message in getattr(effects, name):
            switch.apply(Effects(**{name: [message]}))
            outcomes = switch.inject(lab.here.plugged[port], frame, lab.now_s)
            reached.append([names[out.ofport] for out in outcomes if isinstance(out, Delivered)])
    return reached


def test_group_swapped_never_restamps_by_an_old_rule(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    cloud.group("other", *both("ingress", "tcp", 9, rule_id="discard"))
    lab = make_lab(cloud)
    open_connection(lab, family, "a", "b", 80)
    vm = lab.frames(family)
    change_port(cloud, "b", groups=("other",))
    lab.here.begin_batch()
    lab.publish()
    lab.here.end_batch()
    assert go_on(lab, family, "a", "b", 80) == (False, False)


def test_no_moment_of_a_narrowing_batch_lets_a_connection_be_stamped_anew(
    make_lab: MakeLab, family: int
) -> None:
    cloud = office()
    cloud.group("other", *both("ingress", "tcp", 9, rule_id="discard"))
    # Somebody else is in the group, so that its slice is here when it is needed.
    change_port(cloud, "d", groups=("other",))
    lab = make_lab(cloud)
    open_connection(lab, family, "a", "b", 80)
    vm = lab.frames(family)
    change_port(cloud, "b", groups=("other",))
    lab.here.begin_batch()
    lab.publish()
    effects = lab.here.engine.take()
    step_by_step(lab, effects, "a", vm.tcp("a", "b", 80, flags=ACK))
    lab.here.end_batch()
    assert go_on(lab, family, "a", "b", 80) == (False, False)

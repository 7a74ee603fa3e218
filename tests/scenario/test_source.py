"""The source of slices: slow, away, repeating itself, leaving things out."""

from __future__ import annotations

import pytest

from ondemand.messages import Fetch, Follow, Forget, Heal
from ondemand.settings import Settings
from ondemand.slices import Delta, Lookup, Snapshot
from tests.support.cloud_edit import add_rule, change_port, remove_rule, set_rules
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import add_port, both, office
from tests.support.packet_parts import ACK, SYN
from tests.support.world_builder import ELSEWHERE, HERE, THERE, allow


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), hosts=(HERE, THERE), settings=Settings(park_s=2.0))


# -- packets that wait -----------------------------------------------------------------------------


def test_a_packet_waits_for_its_record_and_then_goes_on(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    assert lab.send("a", vm.udp("a", "c")).reached == []
    assert lab.here.engine.parked == 1
    sent = lab._sent(lab.here.deliver())
    assert sent.reached == ["c"]
    assert lab.here.engine.parked == 0


def test_many_packets_for_one_record_make_one_fetch(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    for number in range(10):
        lab.send("a", vm.udp("a", "c", tp_src=1000 + number))
        lab.send("a2", vm.tcp("a2", "c"))
    assert len(lab.here.feed.fetches()) == 1
    assert lab.here.engine.parked == 20
    sent = lab._sent(lab.here.deliver())
    assert sent.reached == ["c"] * 20
    assert lab.here.count("parked") == 20


def test_packets_keep_their_order(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    frames = [vm.udp("a", "c", payload=bytes([number])) for number in range(5)]
    lab.send("a", *frames)
    sent = lab._sent(lab.here.deliver())
    assert [frame for _, frame in sent.arrived] == frames


def test_packets_expire_when_no_record_comes(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.feed.lose("the store is away")
    lab.here.deliver()
    lab.send("a", vm.udp("a", "c"), vm.udp("a", "c"))
    assert lab.here.engine.parked == 2
    lab.advance(1.9)
    assert lab.here.engine.parked == 2
    lab.advance(0.2)
    assert lab.here.engine.parked == 0
    assert lab.here.count("parked.too_late", "a") == 2
    (told,) = lab.here.warnings
    assert told.startswith("2 packets")
    assert "the store is away" in told
    assert lab.here.rules("location") == []


def test_a_packet_that_comes_later_waits_longer(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    lab.send("a", vm.udp("a", "c"))
    lab.advance(1.5)
    lab.send("a", vm.udp("a", "c"))
    lab.advance(1)
    assert lab.here.engine.parked == 1
    assert lab._sent(lab.here.deliver()).reached == ["c"]


def test_a_record_that_comes_too_late_still_makes_the_next_packet_quick(
    lab: Lab, family: int
) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    lab.send("a", vm.udp("a", "c"))
    lab.advance(3)
    lab.here.deliver()
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]


def test_when_the_source_is_back_a_stream_that_never_paused_finds_its_way(
    lab: Lab, family: int
) -> None:
    """There is always a packet that waits; the question must be put again all the same."""
    vm = lab.frames(family)
    lab.here.feed.lose("the store is away")
    for _ in range(5):
        lab.send("a", vm.udp("a", "c"))
        lab.advance(1)
    lab.here.feed.come_back()
    reached = []
    for _ in range(4):
        reached += lab.send("a", vm.udp("a", "c")).reached
        reached += lab.advance(1).reached
    assert "c" in reached
    assert lab.here.engine.source_error is None
    assert (lab.here.count("source.lost"), lab.here.count("source.back")) == (1, 1)


def test_live_traffic_does_not_notice_that_the_source_is_away(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "c")).reached == ["c"]
    lab.here.feed.lose("the store is away")
    lab.here.deliver()
    for _ in range(5):
        lab.advance(10)
        assert lab.send("c", vm.tcp_reply("c", "a", flags=0x10)).reached == ["a"]
        assert lab.send("a", vm.tcp("a", "c", flags=0x10)).reached == ["c"]
    lab.here.feed.come_back()
    lab.here.deliver()


def test_a_flow_to_a_known_neighbor_begins_while_the_source_is_away(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    lab.here.feed.lose("the store is away")
    assert lab.send("a2", vm.tcp("a2", "c")).reached == ["c"]
    lab.here.feed.come_back()
    lab.here.deliver()


def test_what_changed_while_the_source_was_away_arrives_when_it_is_back(
    lab: Lab, family: int
) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "b"))
    lab.here.feed.lose("the store is away")
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    lab.publish()
    assert lab.send("b", vm.tcp_reply("b", "a")).reached == ["a"]
    lab.here.feed.come_back()
    lab.here.deliver()
    assert lab.send("b", vm.tcp_reply("b", "a")).reached == []


def test_slices_asked_for_while_the_source_is_away_come_later(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office(), plugged=("a",))
    lab.here.feed.lose("the store is away")
    lab.here.plug("b")
    assert lab.send("a", lab.frames(family).udp("a", "b")).reached == []
    lab.here.feed.come_back()
    lab.here.deliver()
    lab.advance(20)
    assert lab.send("a", lab.frames(family).udp("a", "b")).reached == ["b"]


def test_a_port_that_goes_takes_its_waiting_packets_along(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    lab.send("a", vm.udp("a", "c"))
    lab.send("a2", vm.udp("a2", "c"))
    lab.here.unplug("a")
    assert lab.here.engine.parked == 1
    sent = lab._sent(lab.here.deliver())
    assert sent.reached == ["c"]
    lab.here.unplug("a2")


def test_a_target_that_goes_while_a_packet_for_it_waits(lab: Lab, family: int) -> None:
    cloud = lab.cloud
    set_rules(cloud, "web", *both("ingress", "udp", 53, rule_id="dns", group="client"))
    lab.publish()
    vm = lab.frames(family)
    lab.here.delayed = True
    lab.send("a", vm.udp("a", "b"))
    for _ in range(10):
        if not lab.here.feed.inbox or len(lab.here.feed.fetches()) > 1:
            break
        lab.here.deliver_one()
    lab.here.unplug("b")
    lab.here.delayed = False
    assert lab._sent(lab.here.deliver()).reached == []


def test_a_packet_that_waits_while_its_port_gets_another_number(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.here.delayed = True
    lab.send("a", vm.udp("a", "c"), vm.who_has("a", "c"))
    lab.here.plug("a")
    lab.here.delayed = False
    assert sorted(lab._sent(lab.here.deliver()).reached) == ["a", "c"]


@pytest.mark.parametrize("side", ["sender", "target"])
def test_a_packet_that_waits_while_port_security_is_switched_off(
    make_lab: MakeLab, family: int, side: str
) -> None:
    cloud = office()
    if side == "target":
        set_rules(cloud, "web", *both("ingress", "udp", 53, rule_id="dns", group="client"))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    lab.here.delayed = True
    if side == "sender":
        lab.send("a", vm.udp("a", "c"))
        port = "a"
    else:
        lab.from_tunnel(HERE, 101, vm.udp("x", "b"), THERE)
        port = "b"
    assert lab.here.engine.parked == 1
    waiting = len(lab.here.feed.inbox)
    change_port(cloud, port, port_security=False, groups=())
    lab.publish()
    # The port's change overtakes what the packet waits for.
    while len(lab.here.feed.inbox) > waiting:
        lab.here.deliver_one(waiting)
    lab.here.delayed = False
    assert lab._sent(lab.here.deliver()).reached == (["c"] if side == "sender" else ["b"])


# -- what the engine asks for ----------------------------------------------------------------------


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


# -- the cache is full -----------------------------------------------------------------------------


def test_what_leaves_the_cache_takes_its_rules_along(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    for number in range(100, 220):
        add_port(cloud, f"n{number}", "red", number, host=THERE)
    lab = make_lab(cloud, settings=Settings(neighbor_cache_bytes=65_536))
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    first = lab.here.rules("location")
    for number in range(100, 220):
        lab.send("a", vm.udp("a", f"n{number}"))
    assert not set(first) & set(lab.here.rules())
    assert lab.here.count("cache.dropped") > 0
    assert lab.here.engine.cache.neighbor_bytes <= 65_536
    lab.check()
    again = lab.send("a", vm.udp("a", "c"))
    assert again.packet_ins == 1
    assert any(getattr(outcome, "tun_dst", None) for _, outcome in again.moves.outcomes)


def test_a_record_that_left_and_changed_is_read_anew(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    for number in range(100, 220):
        add_port(cloud, f"n{number}", "red", number, host=THERE)
    lab = make_lab(
        cloud, hosts=(HERE, THERE, ELSEWHERE), settings=Settings(neighbor_cache_bytes=65_536)
    )
    vm = lab.frames(family)
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]
    for number in range(100, 220):
        lab.send("a", vm.udp("a", f"n{number}"))
    change_port(cloud, "c", host=ELSEWHERE)
    lab.hosts[THERE].unplug("c")
    lab.publish()
    lab.hosts[ELSEWHERE].plug("c")
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]


def test_a_member_whose_record_left_the_cache_and_who_leaves_the_group_is_cut(
    make_lab: MakeLab, family: int
) -> None:
    cloud = office()
    cloud.group("admins", *both("egress", rule_id="out"))
    set_rules(cloud, "web", *both("ingress", "tcp", 22, rule_id="ssh", group="admins"))
    add_port(cloud, "m", "red", 50, host=THERE, groups=("admins",))
    for number in range(100, 220):
        add_port(cloud, f"n{number}", "red", number, host=THERE)
    settings = Settings(neighbor_cache_bytes=65_536)
    lab = make_lab(cloud, hosts=(HERE, THERE), settings=settings)
    vm = lab.frames(family)
    syn, ack = vm.tcp("m", "b", 22), vm.tcp("m", "b", 22, flags=ACK)
    assert lab.send("m", syn).reached == ["b"]
    assert lab.send("b", vm.tcp_reply("b", "m", 22, flags=SYN | ACK)).reached == ["m"]
    assert lab.send("m", ack).reached == ["b"]
    for number in range(100, 220):
        lab.send("a", vm.udp("a", f"n{number}"))
    change_port(cloud, "m", groups=("client",))
    lab.publish()
    lab.advance(2)
    assert lab.send("m", ack).reached == []


def test_a_shard_of_which_nothing_is_held_is_forgotten(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    for number in range(100, 220):
        add_port(cloud, f"n{number}", "blue", number, host=THERE)
    lab = make_lab(cloud, settings=Settings(neighbor_cache_bytes=65_536))
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    red = "nbr/vpc-1/" + ("10.0.1.0" if family == 4 else "fd00:1::")
    assert red in lab.here.feed.follows
    for number in range(100, 220):
        lab.send("d", vm.who_has("d", f"n{number}"))
    assert red not in lab.here.feed.follows
    assert lab.send("a", vm.udp("a", "c")).packet_ins == 1
    assert red in lab.here.feed.follows

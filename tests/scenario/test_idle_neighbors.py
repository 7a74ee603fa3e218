"""What nothing has used for a while leaves the cache, with what was followed for it; what is used stays."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ondemand.addresses import parse_ip
from ondemand.idle_sweep import PASSES
from ondemand.messages import Follow, Forget
from ondemand.records import neighbor_key
from ondemand.settings import Settings, SettingsError
from tests.support.cloud_edit import change_port
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import NOBODY, add_port, both, office
from tests.support.packet_parts import ACK
from tests.support.walk_cloud import set_claims
from tests.support.world_builder import HERE, THERE, CloudBuilder

IDLE_S = 40.0
#: Rules leave long before the records that they rest on.
QUICK = Settings(neighbor_idle_s=IDLE_S, verdict_idle_s=5, location_idle_s=5, responder_idle_s=5)
STEP_S = 1.0


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), settings=QUICK, hosts=(HERE, THERE))


def wait(lab: Lab, seconds: float) -> None:
    """Time passes in ticks."""
    for _ in range(math.ceil(seconds / STEP_S)):
        lab.advance(STEP_S)


#: By then the last pass has found whatever was idle.
LONG_S = IDLE_S * (1 + 2 / PASSES) + 5


def held(lab: Lab) -> set[str]:
    """Keys of the neighbor records that the host holds, absences too."""
    cache = lab.here.engine.cache
    return {one.tag.partition(" ")[2] for name in cache.part_names() for one in cache.held_of(name)}


def ip_key(lab: Lab, port: str, family: int) -> str:
    ips = lab.cloud.port_spec(port).fixed_ips
    ip = next(ip for ip in ips if len(ip) == (4 if family == 4 else 16))
    return neighbor_key(ip)


def shards(lab: Lab) -> list[str]:
    return [name for name in lab.here.feed.follows if name.startswith("nbr/")]


def talks(lab: Lab, family: int, src: str = "a", dst: str = "c") -> bool:
    return lab.send(src, lab.frames(family).udp(src, dst)).reached == [dst]


def test_an_idle_record_leaves_and_its_shard_is_forgotten(lab: Lab, family: int) -> None:
    assert talks(lab, family)
    assert ip_key(lab, "c", family) in held(lab)
    followed = shards(lab)
    assert followed
    wait(lab, IDLE_S - 5)
    assert ip_key(lab, "c", family) in held(lab), "not before its time"
    wait(lab, LONG_S)
    assert held(lab) == set()
    assert shards(lab) == []
    assert {Forget(name) for name in followed} <= set(lab.here.feed.asked)
    assert lab.here.count("cache.idle") > 0
    assert lab.here.saved.slices.keys() == lab.here.engine.cache.versions().keys()
    assert not any(name.startswith("nbr/") for name in lab.here.saved.slices)
    lab.check()
    assert talks(lab, family), "the next packet fetches it anew"
    assert shards(lab) != []


def test_a_record_under_an_installed_rule_stays_and_its_change_reaches_the_rule(
    make_lab: MakeLab, family: int
) -> None:
    slow = replace(QUICK, verdict_idle_s=10_000, location_idle_s=10_000, responder_idle_s=10_000)
    lab = make_lab(office(), settings=slow, hosts=(HERE, THERE))
    assert talks(lab, family)
    wait(lab, 3 * LONG_S)
    assert ip_key(lab, "c", family) in held(lab)
    assert lab.here.rules("location")
    change_port(lab.cloud, "c", host=HERE)
    lab.hosts[THERE].unplug("c")
    lab.here.plug("c")
    lab.publish()
    assert talks(lab, family), "the rule went where the port went"


def test_what_packets_ask_for_stays(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    for _ in range(10):
        assert lab.send("a", vm.udp("a", "c")).reached == ["c"]
        assert lab.send("a", vm.udp("a", "e")).reached == ["e"]
        wait(lab, IDLE_S / 2)
        fetched = len(lab.here.feed.fetches(ip_key(lab, "c", family)))
        assert fetched == 1
    assert {ip_key(lab, "c", family), ip_key(lab, "e", family)} <= held(lab)


def test_only_what_is_idle_leaves_its_shard(lab: Lab, family: int) -> None:
    assert talks(lab, family, "a", "c")
    assert lab.send("a", lab.frames(family).udp("a", "b")).reached == ["b"]
    for _ in range(12):
        wait(lab, 10)
        assert talks(lab, family, "a", "c")
    assert ip_key(lab, "c", family) in held(lab)
    assert ip_key(lab, "b", family) not in held(lab)
    assert shards(lab) != []


def test_a_change_is_no_use(lab: Lab, family: int) -> None:
    assert talks(lab, family)
    for number in range(int(LONG_S // 5) + 1):
        change_port(lab.cloud, "c", groups=("web",) if number % 2 else ("web", "client"))
        lab.publish()
        wait(lab, 5)
    assert ip_key(lab, "c", family) not in held(lab)


def test_absences_leave_too_and_not_under_their_drop_rules(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), settings=replace(QUICK, deny_s=3000))
    vm = lab.frames(family)
    lab.send("a", vm.who_has("a", parse_ip(NOBODY[family])))
    key = f"ip/{NOBODY[family]}"
    assert key in held(lab)
    wait(lab, 2 * LONG_S)
    assert key in held(lab), "a drop rule rests on it"
    add_port(lab.cloud, "new", "red", 99, groups=("web",), host=THERE)
    lab.publish()
    assert lab.send("a", vm.who_has("a", "new")).reached == ["a"], "its arrival reached the rule"
    lab.check()


def test_an_absence_that_no_rule_rests_on_leaves(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), settings=replace(QUICK, deny_s=3))
    lab.send("a", lab.frames(family).who_has("a", parse_ip(NOBODY[family])))
    assert held(lab) == {f"ip/{NOBODY[family]}"}
    wait(lab, LONG_S)
    assert held(lab) == set()
    assert shards(lab) == []


def members_only() -> CloudBuilder:
    """b lets in members of group ``client`` only."""
    cloud = office()
    cloud.group("private", *both("ingress", "tcp", 80, group="client", rule_id="p"))
    change_port(cloud, "b", groups=("private",))
    return cloud


def test_a_connection_that_slept_is_judged_by_what_is_true_when_it_wakes(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(members_only(), settings=QUICK, hosts=(HERE, THERE))
    vm = lab.frames(family)
    assert lab.send("x", vm.tcp("x", "b")).reached == ["b"]
    assert lab.send("b", vm.tcp_reply("b", "x")).reached == ["x"]
    wait(lab, LONG_S)
    assert ip_key(lab, "x", family) not in held(lab)
    assert lab.send("x", vm.tcp("x", "b", flags=ACK)).reached == ["b"], "it is still a member"
    wait(lab, LONG_S)
    # Nobody here follows it any more, and it is no member when the connection wakes.
    change_port(lab.cloud, "x", groups=())
    lab.publish()
    assert lab.send("b", vm.tcp_reply("b", "x", flags=ACK)).reached == []
    lab.check()


def test_other_connections_do_not_feel_it(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(members_only(), settings=QUICK, hosts=(HERE, THERE))
    vm = lab.frames(family)
    for src in ("x", "a"):
        assert lab.send(src, vm.tcp(src, "b")).reached == ["b"]
        assert lab.send("b", vm.tcp_reply("b", src)).reached == [src]
    epoch = lab.here.epoch("b")
    for _ in range(int(LONG_S) // 2):
        wait(lab, 2)
        assert lab.send("a", vm.tcp("a", "b", flags=ACK)).reached == ["b"]
        assert lab.send("b", vm.tcp_reply("b", "a", flags=ACK)).reached == ["a"]
    assert ip_key(lab, "x", family) not in held(lab)
    assert lab.here.epoch("b") == epoch
    assert lab.here.count("epoch.remote_bumped", "b") == 1


def test_an_address_claimed_when_a_connection_slept_and_held_when_it_wakes(
    make_lab: MakeLab, family: int
) -> None:
    """What the record's absence said of membership is not watched any more either."""
    cloud = members_only()
    claimed = "10.0.1.200/32" if family == 4 else "fd00:1::200/128"
    set_claims(cloud, "x", [claimed])
    lab = make_lab(cloud, settings=QUICK, hosts=(HERE, THERE))
    vm = lab.frames(family)
    own = claimed.partition("/")[0]
    change = {"src": own}
    assert lab.send("x", vm.tcp("x", "b", **change)).reached == ["b"]
    key = f"ip/{own}"
    assert key in held(lab)
    wait(lab, LONG_S)
    assert key not in held(lab)
    assert lab.here.count("epoch.remote_bumped", "b") + lab.here.count("epoch.bumped", "b") >= 1


@pytest.mark.parametrize("trouble", ["switch", "source"])
def test_nothing_leaves_while_it_could_not_be_known_or_mended(
    lab: Lab, family: int, trouble: str
) -> None:
    assert talks(lab, family)
    if trouble == "switch":
        lab.here.engine.switch_lost()
    else:
        lab.here.feed.lose("away")
        lab.here.deliver()
    before = held(lab)
    assert before
    for _ in range(int(2 * LONG_S)):
        lab.fabric.now_s += 1
        lab.here.engine.tick(lab.now_s)
    assert held(lab) == before
    if trouble == "switch":
        lab.here.connected_again()
    else:
        lab.here.feed.come_back()
        lab.here.deliver()
    wait(lab, 2 * LONG_S)
    assert held(lab) == set()


def test_what_was_saved_has_its_time_from_the_restart_on(lab: Lab, family: int) -> None:
    assert talks(lab, family)
    wait(lab, IDLE_S * 0.9)
    before = held(lab)
    assert before
    lab.here.kill_agent()
    lab.here.start_agent()
    assert held(lab) == before
    wait(lab, IDLE_S * 0.9)
    assert held(lab) == before
    wait(lab, LONG_S)
    assert held(lab) == set()


def test_0_switches_it_off(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), settings=replace(QUICK, neighbor_idle_s=0), hosts=(HERE, THERE))
    assert talks(lab, family)
    before = held(lab)
    wait(lab, 5 * LONG_S)
    assert held(lab) == before
    assert lab.here.count("cache.idle") == 0


def test_very_many_leave_a_bounded_number_at_a_time(make_lab: MakeLab) -> None:
    lab = make_lab(office(), settings=replace(QUICK, deny_s=1, flood_rate=10**6, flood_burst=10**6))
    vm = lab.frames(4)
    for number in range(20, 250):
        # Through the router, to addresses of subnet blue that nobody has.
        gateway = lab.cloud.port_spec("a").subnet.gateway_mac
        lab.send("a", vm.udp("a", "c", eth_dst=gateway, dst=f"10.0.2.{number}"))
    count = len(held(lab))
    assert count >= 230
    seen = [count]
    for _ in range(int(LONG_S * 10)):
        lab.advance(0.1)
        seen.append(len(held(lab)))
    assert seen[-1] == 0
    assert lab.here.count("cache.idle") == count


def test_a_record_asked_for_again_while_it_leaves_is_followed_again(lab: Lab, family: int) -> None:
    assert talks(lab, family)
    wait(lab, LONG_S)
    lab.here.feed.asked.clear()
    assert talks(lab, family)
    follows = [one for one in lab.here.feed.asked if isinstance(one, Follow)]
    assert {one.slice for one in follows} == set(shards(lab))
    change_port(lab.cloud, "c", groups=())
    lab.publish()
    lab.check()


@pytest.mark.parametrize("value", [-1, 86_401, math.nan])
def test_the_range(value: float) -> None:
    with pytest.raises(SettingsError, match="neighbor_idle_s"):
        Settings(neighbor_idle_s=value)

"""The agent dies and another one starts: it takes over what is true, mends what is not, flushes nothing."""

from __future__ import annotations

import pytest

from ondemand import engine
from ondemand.messages import Follow, PacketIn
from tests.support.cloud_edit import change_port, remove_rule
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import add_port, both, office, one_server
from tests.support.packet_parts import ACK
from tests.support.world_builder import HERE, THERE


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), hosts=(HERE, THERE))


def installed(lab: Lab) -> dict[int, str]:
    return {cookie: str(rule) for cookie, rule in lab.here.switch.rules()}


def adopted(lab: Lab) -> tuple[int, int, int]:
    count = lab.here.count
    return count("adopted.kept"), count("adopted.replaced"), count("adopted.deleted")


def miss_of(lab: Lab, port: str, frame: bytes) -> PacketIn:
    """The packet-in of a frame for which there is no egress verdict."""
    family = 4 if frame[12:14] == b"\x08\x00" else 6
    at, size = (26, 4) if family == 4 else (22, 16)
    return PacketIn(
        table=30,
        in_port=lab.here.plugged[port],
        data=frame,
        vni=lab.here.engine.world.ports[port].subnet.vni,
        source_zone=lab.here.zone(port),
        ct_state=0x21,
        ct_src=frame[at : at + size],
        ct_dst=frame[at + size : at + 2 * size],
        ct_proto=6,
        ct_tp_src=2000,
        ct_tp_dst=80,
    )


def restart(lab: Lab) -> None:
    lab.here.kill_agent()
    lab.here.start_agent()


@pytest.mark.parametrize("fresh", [False, True])
def test_true_rules_stay_under_their_cookies(lab: Lab, family: int, *, fresh: bool) -> None:
    vm = lab.frames(family)
    for frame in (vm.tcp("a", "c"), vm.udp("a", "c"), vm.tcp("a", "b"), vm.who_has("a", "a2")):
        lab.send("a", frame)
    before, on_demand = installed(lab), set(lab.here.rules())
    lab.here.kill_agent()
    lab.here.start_agent(fresh=fresh)
    assert adopted(lab) == (len(on_demand), 0, 0)
    after = installed(lab)
    assert {text for cookie, text in after.items() if cookie in before} >= on_demand
    changed = set(before.values()) ^ set(after.values())
    # One that knows nothing of what was before it has all connections looked at again.
    expected = {"table=20", "table=60"} if fresh else set()
    assert {text.partition(",")[0] for text in changed} == expected


def test_live_connections_lose_no_packet(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "c"))
    lab.send("c", vm.tcp_reply("c", "a"))
    lab.here.kill_agent()
    assert lab.send("a", vm.tcp("a", "c", flags=ACK)).reached == ["c"]
    lab.here.start_agent()
    assert lab.send("a", vm.tcp("a", "c", flags=ACK)).reached == ["c"]
    assert lab.send("c", vm.tcp_reply("c", "a", flags=ACK)).reached == ["a"]


def test_zones_stay_and_no_connection_is_forgotten(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "b"))
    zones = {port: lab.here.zone(port) for port in lab.here.plugged}
    connections = len(lab.here.switch.conntrack.connections(lab.now_s))
    lab.here.kill_agent()
    # Interfaces are told in another order to the one that starts.
    lab.here.plugged = dict(reversed(lab.here.plugged.items()))
    lab.here.start_agent()
    assert {port: lab.here.zone(port) for port in lab.here.plugged} == zones
    assert len(lab.here.switch.conntrack.connections(lab.now_s)) == connections


def test_a_rule_removed_while_nobody_looked_cuts_its_connections(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    for tp_dst in (80, 443):
        lab.send("a", vm.tcp("a", "b", tp_dst))
        lab.send("b", vm.tcp_reply("b", "a", tp_dst))
    lab.here.kill_agent()
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    lab.publish()
    lab.here.start_agent()
    assert lab.send("a", vm.tcp("a", "b", 80, flags=ACK)).reached == []
    assert lab.send("b", vm.tcp_reply("b", "a", 80, flags=ACK)).reached == []
    assert lab.send("a", vm.tcp("a", "b", 443, flags=ACK)).reached == ["b"]


def test_a_neighbor_that_moved_meanwhile_is_reached_where_it_is(
    make_lab: MakeLab, family: int
) -> None:
    cloud = office()
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    (before,) = lab.here.rules("location_tunnel")
    lab.here.kill_agent()
    change_port(cloud, "c", host=HERE)
    lab.hosts[THERE].unplug("c")
    lab.here.plug("c")
    lab.publish()
    lab.here.start_agent()
    assert before not in lab.here.rules()
    assert lab.send("a", vm.udp("a", "c")).reached == ["c"]


def test_a_port_that_left_meanwhile_leaves_nothing_behind(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "b"))
    zone = lab.here.zone("b")
    lab.here.kill_agent()
    lab.here.unplug("b")
    lab.here.start_agent()
    texts = installed(lab).values()
    assert not [text for text in texts if f"reg6={zone:#x}," in text or f"reg7={zone:#x}," in text]
    assert zone not in lab.here.switch.meters


def test_a_zone_that_another_port_gets_is_emptied_first(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE))
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "b"))
    zone = lab.here.zone("b")
    assert lab.here.connections("b")
    add_port(lab.cloud, "new", "red", 90)
    lab.publish()
    lab.here.unplug("b")
    lab.here.engine._ports._zones._next = 65536  # all other zones have been used
    lab.here.plug("new")
    assert lab.here.zone("new") == zone
    assert lab.here.connections("new") == []


def test_a_port_of_another_id_does_not_inherit_a_zone(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE))
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "b"))
    zone, ofport = lab.here.zone("b"), lab.here.plugged["b"]
    add_port(lab.cloud, "new", "red", 90)
    lab.publish()
    lab.here.kill_agent()
    lab.here.unplug("b")
    lab.here.plug("new", ofport)
    lab.here.start_agent()
    assert lab.here.zone("new") != zone
    assert lab.here.connections("new") == []


def test_rules_of_no_known_kind_go(lab: Lab) -> None:
    strange = 0x0D5E_0100_0000_0007
    lab.here.kill_agent()
    lab.here.strange.append(strange)
    with lab.here.batch():
        lab.here.start_agent()
        while lab.here.feed.inbox or lab.here.engine.has_effects:
            effects = lab.here._take()
            if strange in effects.deletes:
                break
            for request in effects.requests:
                lab.here.feed.ask(request)
            while lab.here.feed.inbox:
                lab.here._hear()
    assert strange in effects.deletes
    lab.here.strange.clear()
    lab.here.reconnect()


def test_cookies_of_the_new_agent_are_none_of_the_old_ones(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.udp("a", "c"))
    before = set(installed(lab))
    restart(lab)
    lab.send("a", vm.tcp("a", "b"))
    added = set(installed(lab)) - before
    assert added
    assert not {cookie >> 40 & 0xFF for cookie in added} & {c >> 40 & 0xFF for c in before}


def test_while_the_source_is_away_what_is_installed_stays(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "c"))
    before = installed(lab)
    lab.here.kill_agent()
    lab.here.feed.lose("the store is away")
    lab.here.start_agent(fresh=True)
    assert lab.here.engine.is_adopting
    assert set(before.values()) == set(installed(lab).values())
    assert lab.send("a", vm.tcp("a", "c", flags=ACK)).reached == ["c"]
    lab.here.feed.come_back()
    lab.here.deliver()
    assert not lab.here.engine.is_adopting
    assert lab.send("a", vm.tcp("a", "c", flags=ACK)).reached == ["c"]


def test_what_an_earlier_agent_held_is_enough_to_go_on_without_the_source(
    lab: Lab, family: int
) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "c"))
    before = installed(lab)
    lab.here.kill_agent()
    lab.here.feed.lose("the store is away")
    lab.here.start_agent()
    assert not lab.here.engine.is_adopting
    assert set(before.values()) == set(installed(lab).values())
    assert lab.send("a", vm.tcp("a", "c", 443)).reached == ["c"]
    lab.here.feed.come_back()
    lab.here.deliver()


def test_nothing_is_asked_for_that_was_held(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "c"))
    lab.send("a", vm.tcp("a", "b"))
    restart(lab)
    assert all(
        isinstance(request, Follow) and request.since is not None for request in lab.here.feed.asked
    )
    assert lab.here.feed.asked


def test_slices_that_no_port_needs_any_more_are_let_go(lab: Lab) -> None:
    assert "sg/web" in lab.here.feed.follows
    lab.here.kill_agent()
    for port in ("b", "d"):
        lab.here.unplug(port)
    lab.here.start_agent()
    assert "sg/web" not in lab.here.feed.follows
    assert "sg/client" in lab.here.feed.follows


def test_a_rule_that_idles_out_during_adoption_is_not_taken_for_installed(
    lab: Lab, family: int
) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "c"))
    lab.here.kill_agent()
    lab.here.feed.lose("the store is away")
    lab.here.start_agent(fresh=True)
    lab.advance(3600)
    lab.here.feed.come_back()
    lab.here.deliver()
    assert lab.here.rules() == []
    assert lab.here.engine.ledger_size == 0


def test_a_packet_that_is_faster_than_adoption_is_served(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    lab.send("a", vm.tcp("a", "c"))
    restart(lab)
    assert (
        lab.send("a", vm.tcp("a", "c", 81)).reached == lab.send("a", vm.tcp("a", "c", 81)).reached
    )


def test_a_packet_of_a_port_that_is_not_known_yet_waits(lab: Lab, family: int) -> None:
    vm = lab.frames(family)
    host = lab.here
    host.kill_agent()
    host.is_dead = False
    host.engine = host._make_engine(1 << 20)
    host.engine.start()
    host.engine.tunnel_plugged(host.tunnel_port)
    host.connected_again()
    assert lab.send("a", vm.udp("a", "c")).reached == []
    for port, ofport in host.plugged.items():
        host.engine.port_plugged(port, ofport, lab.now_s)
    host.engine.interfaces_known(lab.now_s)
    assert lab._sent(host.flush()).reached == ["c"]


def test_a_member_that_left_meanwhile_is_cut_off(make_lab: MakeLab, family: int) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    change_port(cloud, "y", groups=("out", "staff"))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    for src in ("a", "y"):
        assert lab.send(src, vm.tcp(src, "s", 80)).reached == ["s"]
        lab.send("s", vm.tcp_reply("s", src))
    lab.here.kill_agent()
    change_port(cloud, "a", groups=("out",))
    lab.publish()
    lab.here.start_agent()
    assert lab.send("s", vm.tcp_reply("s", "a", flags=ACK)).reached == []
    assert lab.send("s", vm.tcp_reply("s", "y", flags=ACK)).reached == ["y"]


def test_epochs_of_single_addresses_are_read_back(make_lab: MakeLab, family: int) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    change_port(cloud, "y", groups=("out", "staff"))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    for src in ("a", "y"):
        lab.send(src, vm.tcp(src, "s", 80))
        lab.send("s", vm.tcp_reply("s", src))
    change_port(cloud, "a", groups=("out",))
    lab.publish()
    remotes = dict(lab.here.engine.world.ports["s"].remote_epochs)
    assert remotes
    lab.here.reconnect()
    assert lab.here.engine.world.ports["s"].remote_epochs == remotes
    assert lab.send("s", vm.tcp_reply("s", "a", flags=ACK)).reached == []
    assert lab.send("s", vm.tcp_reply("s", "y", flags=ACK)).reached == ["y"]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("change", ["rule removed", "group left", "member left"])
def test_who_lost_a_right_is_cut_off_though_the_source_was_faster_than_the_interfaces(
    make_lab: MakeLab, family: int, change: str, *, fresh: bool
) -> None:
    """A change must not go by while the ports that it concerns are not here yet."""
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "s", 80)).reached == ["s"]
    assert lab.send("s", vm.tcp_reply("s", "a")).reached == ["a"]
    lab.here.kill_agent()
    if change == "rule removed":
        remove_rule(cloud, "server", f"staff-{family}")
    elif change == "group left":
        change_port(cloud, "s", groups=())
    else:
        change_port(cloud, "a", groups=("out",))
    lab.publish()
    lab.here.start_agent(fresh=fresh, source_first=True)
    assert lab.send("a", vm.tcp("a", "s", flags=ACK)).reached == []
    assert lab.send("s", vm.tcp_reply("s", "a", flags=ACK)).reached == []


def test_changes_wait_for_ports_only_so_long(
    lab: Lab, family: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MAX_LATER", 0)
    vm = lab.frames(family)
    for tp_dst in (80, 443):
        lab.send("a", vm.tcp("a", "b", tp_dst))
        lab.send("b", vm.tcp_reply("b", "a", tp_dst))
    lab.here.kill_agent()
    remove_rule(lab.cloud, "web", f"tcp-80-{family}")
    lab.publish()
    lab.here.start_agent(source_first=True)
    assert lab.send("a", vm.tcp("a", "b", 80, flags=ACK)).reached == []
    assert lab.send("a", vm.tcp("a", "b", 443, flags=ACK)).reached == ["b"]

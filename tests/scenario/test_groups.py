"""Security groups on packets: default deny, every kind of remote, members that join and leave."""

from __future__ import annotations

import pytest

from tests.support.cloud_edit import add_rule, change_port
from tests.support.frame_builder import MAC_BROADCAST, build_udp4, build_udp6
from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import add_network, add_port, both, office
from tests.support.world_builder import HERE, THERE, CloudBuilder, allow


def one_server(*rules: object, host: str = HERE) -> CloudBuilder:
    """Port s with these rules, and clients a (here) and x (there) in group staff, y in none."""
    cloud = CloudBuilder()
    add_network(cloud)
    out = both("egress", rule_id="out")
    cloud.group("server", *rules)  # type: ignore[arg-type]
    cloud.group("out", *out)
    cloud.group("staff")
    add_port(cloud, "s", "red", 10, host=host, groups=("server",))
    add_port(cloud, "a", "red", 11, groups=("out", "staff"))
    add_port(cloud, "y", "red", 12, groups=("out",))
    add_port(cloud, "x", "red", 13, host=THERE, groups=("out", "staff"))
    return cloud


def reaches(lab: Lab, family: int, src: str, tp_dst: int = 80) -> bool:
    return lab.send(src, lab.frames(family).tcp(src, "s", tp_dst)).reached == ["s"]


@pytest.mark.parametrize("groups", [(), ("empty",)])
def test_without_a_rule_nothing_is_allowed(
    make_lab: MakeLab, family: int, groups: tuple[str, ...]
) -> None:
    cloud = office()
    cloud.group("empty")
    change_port(cloud, "b", groups=groups)
    change_port(cloud, "a2", groups=groups)
    lab = make_lab(cloud)
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b")).reached == []
    assert lab.send("a2", vm.tcp("a2", "d")).reached == []
    assert lab.here.count("denied.no_rule", "b") == 1
    assert lab.here.count("denied.no_rule", "a2") == 1


def test_anybody(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(one_server(*both("ingress", rule_id="all")), hosts=(HERE, THERE))
    vm = lab.frames(family)
    assert all(reaches(lab, family, src, 7) for src in ("a", "y", "x"))
    assert lab.send("y", vm.ping("y", "s")).reached == ["s"]
    assert lab.send("y", vm.gre("y", "s")).reached == ["s"]
    assert lab.send("y", vm.sctp("y", "s")).reached == ["s"]


def test_a_prefix(make_lab: MakeLab, family: int) -> None:
    rules = [
        allow("ingress", "tcp", 80, prefix="10.0.1.11/32"),
        allow("ingress", "tcp", 80, family=6, prefix="fd00:1::11/128"),
    ]
    lab = make_lab(one_server(*rules), hosts=(HERE, THERE))
    assert [reaches(lab, family, src) for src in ("a", "y", "x")] == [True, False, False]


def test_a_group(make_lab: MakeLab, family: int) -> None:
    rules = both("ingress", "tcp", 80, rule_id="staff", group="staff")
    lab = make_lab(one_server(*rules), hosts=(HERE, THERE))
    assert [reaches(lab, family, src) for src in ("a", "y", "x")] == [True, False, True]


def test_a_group_as_the_remote_of_egress(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    cloud.group("to-web", *both("egress", "tcp", 80, rule_id="to-web", group="web"))
    change_port(cloud, "a", groups=("to-web",))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "c")).reached == ["c"]
    assert lab.send("a", vm.tcp("a", "x")).reached == []
    assert lab.here.count("denied.no_rule", "a") == 1


def test_groups_add_up(make_lab: MakeLab, family: int) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="80"))
    cloud.group("more", *both("ingress", "tcp", (440, 449), rule_id="44x"))
    change_port(cloud, "s", groups=("server", "more"))
    lab = make_lab(cloud)
    found = [port for port in (80, 81, 439, 440, 449, 450) if reaches(lab, family, "a", port)]
    assert found == [80, 440, 449]


def test_icmp_by_type_and_code(make_lab: MakeLab, family: int) -> None:
    protocol, echo, timestamp = ("icmp", 8, 13) if family == 4 else ("icmpv6", 128, 128)
    rules = [allow("ingress", protocol, family=family, icmp_type=echo, icmp_code=0)]
    lab = make_lab(one_server(*rules))
    vm = lab.frames(family)
    assert lab.send("a", vm.ping("a", "s")).reached == ["s"]
    if timestamp != echo:
        assert lab.send("a", vm.ping("a", "s", icmp_type=timestamp)).reached == []


def test_a_rule_of_one_family_says_nothing_of_the_other(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(one_server(allow("ingress", "tcp", 80, family=10 - family)))
    assert not reaches(lab, family, "a")
    assert reaches(lab, 10 - family, "a")


# -- membership ------------------------------------------------------------------------------------


@pytest.mark.parametrize("joins", ["y", "x"])
def test_who_joins_a_group_is_let_in_at_once(make_lab: MakeLab, family: int, joins: str) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    change_port(cloud, joins, groups=("out",))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    assert not reaches(lab, family, joins)
    epoch = lab.here.epoch("s")
    change_port(cloud, joins, groups=("out", "staff"))
    lab.publish()
    assert reaches(lab, family, joins)
    assert lab.here.epoch("s") == epoch, "widening moves no epoch"


@pytest.mark.parametrize("leaves", ["a", "x"])
def test_who_leaves_a_group_is_cut_off_and_others_go_on(
    make_lab: MakeLab, family: int, leaves: str
) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    change_port(cloud, "y", groups=("out", "staff"))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    for src in (leaves, "y"):
        assert reaches(lab, family, src)
        assert lab.send("s", vm.tcp_reply("s", src)).reached == [src]
    change_port(cloud, leaves, groups=("out",))
    lab.publish()
    assert lab.send("s", vm.tcp_reply("s", leaves)).reached == []
    assert not reaches(lab, family, leaves)
    assert lab.send("s", vm.tcp_reply("s", "y")).reached == ["y"]
    assert reaches(lab, family, "y")


def test_who_leaves_a_group_is_cut_off_though_the_rule_had_idled_out(
    make_lab: MakeLab, family: int
) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    lab = make_lab(cloud)
    vm = lab.frames(family)
    assert reaches(lab, family, "a")
    lab.send("s", vm.tcp_reply("s", "a"))
    lab.send("a", vm.tcp("a", "s", flags=0x10))
    lab.advance(3600)
    assert lab.here.rules() == []
    change_port(cloud, "a", groups=("out",))
    lab.publish()
    assert lab.send("a", vm.tcp("a", "s", flags=0x10)).reached == []


def test_a_member_that_vanishes_is_cut_off(make_lab: MakeLab, family: int) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    assert reaches(lab, family, "x")
    change_port(cloud, "x", fixed_ips=())
    for name, records in cloud.slices().items():
        if name.startswith("nbr/"):
            changes = {key: None for key in lab.store.records(name) if key not in records}
            lab.write(name, changes)
    ends = {"src": "10.0.1.13" if family == 4 else "fd00:1::13"}
    frame = vm.tcp("y", "s", eth_src=cloud.mac("x"), **ends)
    assert lab.send("x", frame).reached == []


# -- claimed addresses -----------------------------------------------------------------------------

CLAIMED = {4: "10.0.1.200", 6: "fd00:1::200"}


def with_claim() -> CloudBuilder:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    change_port(cloud, "y", groups=("out",))
    add_port(cloud, "vip", "red", 20, groups=("out", "staff"), pairs=list(CLAIMED.values()))
    return cloud


def from_claimed(lab: Lab, family: int, **changes: object) -> list[str]:
    frame = lab.frames(family).tcp("vip", "s", src=CLAIMED[family], **changes)
    return lab.send("vip", frame).reached


def test_a_claimed_address_is_a_member(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_claim())
    assert from_claimed(lab, family) == ["s"]
    reply = lab.frames(family).tcp_reply("s", "vip", dst=CLAIMED[family])
    assert lab.send("s", reply).reached == ["vip"]


def test_who_comes_to_hold_a_claimed_address_ends_the_claim(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_claim())
    assert from_claimed(lab, family) == ["s"]
    add_port(lab.cloud, "owner", "red", 200, host=THERE, groups=("out",))
    lab.publish()
    assert from_claimed(lab, family, flags=0x10) == []


def test_a_claim_withdrawn_ends_the_membership(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_claim())
    assert from_claimed(lab, family) == ["s"]
    before = lab.here.epoch("s")
    change_port(lab.cloud, "vip", pairs=())
    lab.publish()
    assert from_claimed(lab, family, flags=0x10) == []
    assert lab.here.epoch("s") != before


def test_a_longer_claim_leaves_an_address_in_the_groups_of_the_wider_one(
    make_lab: MakeLab, family: int
) -> None:
    cloud = with_claim()
    pairs = cloud.port_spec("vip").pairs
    change_port(cloud, "vip", pairs=())
    add_port(cloud, "wide", "red", 21, host=THERE, groups=("staff",), pairs=["0.0.0.0/0", "::/0"])
    add_port(cloud, "free", "red", 22, port_security=False)
    lab = make_lab(cloud)
    vm = lab.frames(family)
    frame = vm.tcp("free", "s", src=CLAIMED[family], flags=0x10)
    assert lab.send("free", frame).reached == ["s"], "claimed by wide, which is staff"
    change_port(cloud, "vip", pairs=pairs, groups=("out",))
    lab.publish()
    assert lab.send("free", frame).reached == ["s"], "wide claims it as before"
    change_port(cloud, "wide", pairs=())
    lab.publish()
    assert lab.send("free", frame).reached == [], "vip claims it alone, and is none"


def test_a_claim_that_gains_a_group_moves_no_epoch(make_lab: MakeLab, family: int) -> None:
    cloud = with_claim()
    change_port(cloud, "vip", groups=("out",))
    lab = make_lab(cloud)
    assert from_claimed(lab, family) == []
    before = lab.here.epoch("s")
    change_port(cloud, "vip", groups=("out", "staff"))
    lab.publish()
    assert from_claimed(lab, family) == ["s"]
    assert lab.here.epoch("s") == before


def test_a_subnet_that_shrinks_takes_claims_out_of_groups(make_lab: MakeLab, family: int) -> None:
    cloud = with_claim()
    change_port(cloud, "vip", pairs=())
    add_port(cloud, "wide", "red", 21, host=THERE, groups=("staff",), pairs=["0.0.0.0/0", "::/0"])
    add_port(cloud, "free", "blue", 22, port_security=False)
    lab = make_lab(cloud)
    gateway = cloud.port_spec("free").subnet.gateway_mac
    frame = lab.frames(family).tcp("free", "s", src=CLAIMED[family], flags=0x10, eth_dst=gateway)
    assert lab.send("free", frame).reached == ["s"]
    cloud.subnet(
        "red",
        101,
        "10.0.1.0/25",
        "fd00:1::/120",
        gateways=("10.0.1.1", "fd00:1::1"),
    )
    lab.publish()
    assert lab.send("free", frame).reached == []


def test_a_stranger_is_no_member_by_a_pair_of_everything(make_lab: MakeLab, family: int) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="staff", group="staff"))
    add_port(cloud, "wide", "blue", 21, groups=("staff",), pairs=["0.0.0.0/0", "::/0"])
    lab = make_lab(cloud)
    assert not reaches(lab, family, "y")
    frame = lab.frames(family).tcp("wide", "s", src={4: "192.0.2.77", 6: "2001:db8::77"}[family])
    assert lab.send("wide", frame).reached == []


# -- no port security ------------------------------------------------------------------------------


def with_free_port(host: str) -> CloudBuilder:
    cloud = office()
    add_port(cloud, "free", "red", 30, host=host, port_security=False)
    return cloud


@pytest.mark.parametrize("host", [HERE, THERE])
def test_a_port_without_port_security_receives_everything(
    make_lab: MakeLab, family: int, host: str
) -> None:
    lab = make_lab(with_free_port(host), hosts=(HERE, THERE))
    vm = lab.frames(family)
    for frame in (vm.tcp("a", "free", 1), vm.ping("a", "free"), vm.gre("a", "free")):
        for _ in range(2):
            assert lab.send("a", frame).reached == ["free"]


@pytest.mark.parametrize("host", [HERE, THERE])
def test_a_port_without_port_security_sends_anything_and_targets_judge(
    make_lab: MakeLab, family: int, host: str
) -> None:
    lab = make_lab(with_free_port(host), hosts=(HERE, THERE))
    vm = lab.frames(family)
    for target in ("b", "c"):
        for _ in range(2):
            assert lab.send("free", vm.tcp("free", target, 80)).reached == [target]
            assert lab.send("free", vm.tcp("free", target, 22)).reached == []
    spoofed = {4: "192.0.2.66", 6: "2001:db8::66"}[family]
    odd = vm.udp("free", "b", src=spoofed, eth_src="02:00:00:00:00:66")
    assert lab.send("free", odd).reached == ["b"]


def test_replies_to_a_port_without_port_security_flow(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_free_port(HERE), hosts=(HERE, THERE))
    vm = lab.frames(family)
    for target in ("b", "c"):
        assert lab.send("free", vm.tcp("free", target)).reached == [target]
        assert lab.send(target, vm.tcp_reply(target, "free")).reached == ["free"]


def test_others_addresses_behind_a_port_without_port_security(
    make_lab: MakeLab, family: int
) -> None:
    """A frame to its MAC comes to it, whatever the address; it may be a router of the tenant's."""
    lab = make_lab(with_free_port(HERE))
    vm = lab.frames(family)
    far = {4: "198.51.100.9", 6: "2001:db8:9::9"}[family]
    assert lab.send("a", vm.udp("a", "free", dst=far)).reached == ["free"]
    assert lab.send("a", vm.udp("a", "b", dst=far)).reached == [], "b is none"


@pytest.mark.parametrize("host", [HERE, THERE])
def test_port_security_switched_off_and_on_again(make_lab: MakeLab, family: int, host: str) -> None:
    cloud = office()
    change_port(cloud, "b", host=host)
    lab = make_lab(cloud, hosts=(HERE, THERE))
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b", 22)).reached == []
    change_port(cloud, "b", port_security=False, groups=())
    lab.publish()
    assert lab.send("a", vm.tcp("a", "b", 22)).reached == ["b"]
    assert lab.send("b", vm.tcp("b", "c", 80)).reached == ["c"]
    change_port(cloud, "b", port_security=True, groups=("web",))
    lab.publish()
    assert lab.send("a", vm.tcp("a", "b", 22, flags=0x10)).reached == []
    assert lab.send("b", vm.tcp("b", "c", 80)).reached == []
    assert lab.send("a", vm.tcp("a", "b", 80)).reached == ["b"]


# -- DHCP ------------------------------------------------------------------------------------------


def test_a_port_may_always_be_a_dhcp_client(make_lab: MakeLab, family: int) -> None:
    """Where the question goes is not the agent's; that no policy stops it is seen by its counter."""
    cloud = office()
    change_port(cloud, "a", groups=())
    lab = make_lab(cloud)
    mac = cloud.mac("a")
    if family == 4:
        frame = build_udp4(
            src="0.0.0.0",
            dst="255.255.255.255",
            tp_src=68,
            tp_dst=67,
            eth_src=mac,
            eth_dst=MAC_BROADCAST,
        )
    else:
        source = bytes.fromhex("fe80000000000000") + bytes((mac[0] ^ 2, mac[1], mac[2], 0xFF, 0xFE))
        frame = build_udp6(
            src=source + mac[3:],
            dst="ff02::1:2",
            tp_src=546,
            tp_dst=547,
            eth_src=mac,
            eth_dst="33:33:00:01:00:02",
        )
    lab.send("a", frame)
    assert lab.here.rules("_allow") != []
    assert lab.here.count("no_location.multicast", "a") == 1


def test_a_dhcp_relay_is_reached_and_its_answer_passes(make_lab: MakeLab, family: int) -> None:
    cloud = office()
    add_port(cloud, "dhcp", "red", 3, host=HERE, port_security=False)
    change_port(cloud, "a", groups=())
    lab = make_lab(cloud)
    vm = lab.frames(family)
    client, server = (68, 67) if family == 4 else (546, 547)
    ask = vm.udp("a", "dhcp", server, tp_src=client)
    assert lab.send("a", ask).reached == ["dhcp"]
    tell = vm.udp("dhcp", "b", client, tp_src=server)
    assert lab.send("dhcp", tell).reached == ["b"], "a client gets what a server sends first"
    assert lab.send("dhcp", vm.udp("dhcp", "b", client, tp_src=999)).reached == []


def test_a_port_is_never_a_dhcp_server(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    client, server = (68, 67) if family == 4 else (546, 547)
    assert lab.send("a", vm.udp("a", "b", client, tp_src=server)).reached == []
    assert lab.here.count("denied.dhcp_server", "a") == 1


def test_a_rule_with_a_group_that_does_not_exist_lets_nobody_in(
    make_lab: MakeLab, family: int
) -> None:
    cloud = one_server(*both("ingress", "tcp", 80, rule_id="ghost", group="ghost"))
    lab = make_lab(cloud)
    assert not reaches(lab, family, "a")
    add_rule(cloud, "server", allow("ingress", "tcp", 80, family=family, group="staff"))
    lab.publish()
    assert reaches(lab, family, "a")

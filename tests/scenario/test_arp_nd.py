"""ARP and neighbor discovery: answered from the slices, to the asker alone, and carried nowhere."""

from __future__ import annotations

import pytest

from rule_cache.fields import Field
from tests.support.cloud_edit import change_port
from tests.support.fake_flow import extract
from tests.support.frame_builder import MAC_BROADCAST, build_arp, build_na, build_ns
from tests.support.lab import Lab, MakeLab, Sent
from tests.support.office_cloud import NOBODY, RED_VNI, add_port, office
from tests.support.packet_parts import ip_bytes, mac_bytes
from tests.support.world_builder import HERE, THERE, CloudBuilder

_SOLICITED, _OVERRIDE, _ROUTER = 1 << 30, 1 << 29, 1 << 31
#: A virtual address that ports claim by allowed address pairs, by family.
SHARED = {4: "10.0.1.200", 6: "fd00:1::200"}


def answered_mac(sent: Sent, asker: str) -> bytes | None:
    """The MAC in the answer that came back to the asker; None when nothing came to anybody."""
    if not sent.arrived:
        return None
    assert sent.reached == [asker]
    fields = extract(sent.frame).fields
    found = Field.ARP_SHA if Field.ARP_OP in fields else Field.ND_TLL
    return fields[found].to_bytes(6, "big")


def ask(lab: Lab, family: int, asker: str, target: str | bytes) -> bytes | None:
    """Ask twice; the second question must be answered by the switch alone, and alike."""
    frame = lab.frames(family).who_has(asker, target)
    first, second = lab.send(asker, frame), lab.send(asker, frame)
    assert (first.packet_ins, second.packet_ins) == (1, 0)
    assert first.arrived == second.arrived
    return answered_mac(first, asker)


@pytest.mark.parametrize("target", ["b", "c"])
def test_a_known_address_is_answered(make_lab: MakeLab, family: int, target: str) -> None:
    lab = make_lab(office())
    assert ask(lab, family, "a", target) == lab.cloud.mac(target)


def test_the_gateway_is_answered(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    gateway = lab.frames(family).gateway("a")
    assert ask(lab, family, "a", gateway) == lab.cloud.port_spec("a").subnet.gateway_mac


def test_an_unknown_address_is_not_answered(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    assert ask(lab, family, "a", ip_bytes(NOBODY[family])) is None
    assert lab.here.count("not_answered.unknown_neighbor", "a") == 1


def test_an_address_of_another_subnet_is_not_answered(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    assert ask(lab, family, "a", "d") is None
    assert lab.here.count("not_answered.not_in_subnet", "a") == 1


def test_the_own_address_is_not_answered(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    assert ask(lab, family, "a", "a") is None
    assert lab.here.count("not_answered.own_address", "a") == 1


def test_duplicate_address_detection_of_the_own_address_succeeds(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office())
    assert lab.send("a", lab.frames(family).duplicate_test("a", "a")).arrived == ()


def test_duplicate_address_detection_of_another_s_address_fails(
    make_lab: MakeLab, family: int
) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    sent = lab.send("a", vm.duplicate_test("a", "b"))
    assert sent.reached == ["a"]
    assert sent.frame[6:12] == lab.cloud.mac("b")


def test_an_answer_to_duplicate_address_detection_goes_to_all_nodes(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    fields = extract(lab.send("a", lab.frames(6).duplicate_test("a", "b")).frame).fields
    assert fields[Field.IPV6_DST].to_bytes(16, "big") == ip_bytes("ff02::1")
    assert fields[Field.ETH_DST].to_bytes(6, "big") == mac_bytes("33:33:00:00:00:01")
    assert fields[Field.ND_RESERVED] == _OVERRIDE


def test_an_arp_answer_is_addressed_to_the_asker(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    vm = lab.frames(4)
    expected = build_arp(
        opcode=2,
        sha=lab.cloud.mac("b"),
        spa=vm.ip("b"),
        tha=lab.cloud.mac("a"),
        tpa=vm.ip("a"),
        eth_dst=lab.cloud.mac("a"),
    )
    assert lab.send("a", vm.who_has("a", "b")).frame == expected


@pytest.mark.parametrize("target", ["b", "gateway"])
def test_an_advertisement_is_what_the_target_would_have_sent(
    make_lab: MakeLab, target: str
) -> None:
    lab = make_lab(office())
    vm = lab.frames(6)
    spec = lab.cloud.port_spec("b")
    ip = vm.ip("b") if target == "b" else vm.gateway("a")
    mac = spec.mac if target == "b" else spec.subnet.gateway_mac
    frame = lab.send("a", vm.who_has("a", ip)).frame
    plain = build_na(
        target=ip, dst=vm.ip("a"), link_layer=mac, eth_src=mac, eth_dst=lab.cloud.mac("a")
    )
    fields = extract(frame).fields
    router = _ROUTER if target == "gateway" else 0
    assert fields[Field.ND_RESERVED] == _SOLICITED | _OVERRIDE | router
    if not router:
        assert frame == plain


def test_unreachability_detection_is_answered_too(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    vm = lab.frames(6)
    frame = vm.who_has("a", "b", dst=vm.ip("b"), eth_dst=lab.cloud.mac("b"))
    assert lab.send("a", frame).reached == ["a"]


# -- shared addresses ------------------------------------------------------------------------------


def with_shared_address() -> CloudBuilder:
    """Two ports of subnet red claim one address; a third one does not."""
    cloud = office()
    pairs = [SHARED[4], SHARED[6]]
    for name, number, host in (("vip1", 20, HERE), ("vip2", 21, THERE)):
        add_port(cloud, name, "red", number, host=host, groups=("web",), pairs=pairs)
    return cloud


def test_a_shared_address_is_answered_to_others(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(with_shared_address())
    assert ask(lab, family, "a", ip_bytes(SHARED[family])) == lab.cloud.mac("vip1")


@pytest.mark.parametrize("asker", ["vip1", "vip2"])
def test_a_shared_address_is_not_answered_to_who_may_use_it(
    make_lab: MakeLab, family: int, asker: str
) -> None:
    lab = make_lab(with_shared_address(), hosts=(HERE, THERE))
    frame = lab.frames(family).duplicate_test(asker, ip_bytes(SHARED[family]))
    assert lab.send(asker, frame).arrived == ()


def test_a_fixed_ip_inside_a_pair_is_answered_to_the_pair_s_port_too(
    make_lab: MakeLab, family: int
) -> None:
    cloud = office()
    add_port(cloud, "wide", "red", 30, pairs=["0.0.0.0/0", "::/0"])
    lab = make_lab(cloud)
    assert ask(lab, family, "wide", "b") == lab.cloud.mac("b")


# -- nothing gets out ------------------------------------------------------------------------------


def test_questions_reach_no_other_vm(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE))
    vm = lab.frames(family)
    for target in (vm.ip("b"), vm.ip("c"), ip_bytes(NOBODY[family])):
        assert set(lab.send("a", vm.who_has("a", target)).reached) <= {"a"}


def test_answers_of_vms_are_dropped(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    v4, v6 = lab.frames(4), lab.frames(6)
    mac_a, mac_b = lab.cloud.mac("a"), lab.cloud.mac("b")
    for frame in (
        build_arp(opcode=2, sha=mac_b, spa=v4.ip("b"), tha=mac_a, tpa=v4.ip("a"), eth_dst=mac_a),
        build_arp(opcode=2, sha=mac_b, spa=v4.ip("a"), tpa=v4.ip("a"), eth_dst=MAC_BROADCAST),
        build_na(target=v6.ip("b"), dst=v6.ip("a"), link_layer=mac_b, eth_src=mac_b, eth_dst=mac_a),
    ):
        sent = lab.send("b", frame)
        assert (sent.arrived, sent.packet_ins) == ((), 0)


def test_gratuitous_arp_reaches_nobody(make_lab: MakeLab) -> None:
    lab = make_lab(office())
    vm = lab.frames(4)
    assert lab.send("b", vm.who_has("b", "b")).arrived == ()
    assert lab.send("b", vm.who_has("b", vm.ip("b"), eth_dst=lab.cloud.mac("a"))).arrived == ()


def test_a_question_from_the_tunnel_is_dropped(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    mac = lab.cloud.mac("a")
    frame = vm.who_has("c", "a", eth_dst=mac)
    sent = lab.from_tunnel(HERE, RED_VNI, frame, THERE)
    assert (sent.arrived, sent.packet_ins) == ((), 0)


def test_a_frame_that_is_neither_is_counted(make_lab: MakeLab) -> None:
    """A solicitation with a code, or an ARP opcode of another kind, is none that can be answered."""
    lab = make_lab(office())
    for frame in (
        build_arp(opcode=3, sha=lab.cloud.mac("a"), spa="10.0.1.10", tpa="10.0.1.12"),
        build_ns(target="fd00:1::12", src="fd00:1::10", eth_src=lab.cloud.mac("a"), ttl=64),
    ):
        assert lab.send("a", frame).arrived == ()
    assert lab.here.rules() == []


# -- change ----------------------------------------------------------------------------------------


def test_an_answer_changes_with_the_neighbor_s_mac(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    assert ask(lab, family, "a", "b") == lab.cloud.mac("b")
    change_port(lab.cloud, "b", mac=mac_bytes("fa:16:3e:99:99:99"))
    lab.publish()
    sent = lab.send("a", lab.frames(family).who_has("a", "b"))
    assert answered_mac(sent, "a") == mac_bytes("fa:16:3e:99:99:99")
    assert sent.packet_ins == 0


def test_silence_ends_when_the_neighbor_appears(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    assert ask(lab, family, "a", ip_bytes(NOBODY[family])) is None
    add_port(lab.cloud, "new", "red", 99, host=THERE)
    lab.publish()
    sent = lab.send("a", lab.frames(family).who_has("a", "new"))
    assert answered_mac(sent, "a") == lab.cloud.mac("new")
    assert sent.packet_ins == 0


def test_an_answer_ends_with_the_neighbor(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    vm = lab.frames(family)
    frame = vm.who_has("a", "c")
    assert lab.send("a", frame).reached == ["a"]
    change_port(lab.cloud, "c", fixed_ips=())
    lab.publish()
    assert lab.send("a", frame).arrived == ()


def test_answers_idle_out(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    ask(lab, family, "a", "b")
    lab.advance(lab.here.engine.settings.responder_idle_s + 1)
    assert lab.here.rules() == []

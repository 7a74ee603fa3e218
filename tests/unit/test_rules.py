"""Rules for decisions, as ``ovs-ofctl`` text."""

from __future__ import annotations

import pytest

from ondemand.addresses import parse_ip, parse_mac
from ondemand.flow import Flow
from ondemand.pipeline import Pipeline
from ondemand.policy import RuleRef
from ondemand.rules import RuleMaker
from ondemand.settings import Settings
from ondemand.verdict import (
    Allow,
    Answer,
    Deny,
    GatewayEcho,
    Local,
    NoAnswer,
    NoLocation,
    Reason,
    Tunnel,
)
from rule_cache.rule import Rule
from tests.support.flow_builder import make_flow
from tests.support.world_builder import CloudBuilder, SmallWorld

TCP, UDP, ICMP, ICMPV6, SCTP, GRE = 6, 17, 1, 58, 132, 47
ALLOW = Allow(RuleRef("web", "http"), ("tag",))
DENY = Deny(Reason.NO_RULE, ("tag",))
COMMIT6 = "ct(commit,zone=NXM_NX_REG6[0..15],exec(move:NXM_NX_REG4[]->NXM_NX_CT_MARK[]))"
COMMIT7 = COMMIT6.replace("REG6", "REG7")
SETTINGS = Settings(verdict_idle_s=60, location_idle_s=120, responder_idle_s=30, deny_s=7)
MAC, GATEWAY, NEXT = (parse_mac(f"02:00:00:00:00:0{number}") for number in (1, 2, 3))


@pytest.fixture
def small() -> SmallWorld:
    cloud = CloudBuilder()
    cloud.subnet("net", 100, "10.0.0.0/24", "fd00::/64")
    cloud.port("vm1", "net", "10.0.0.11", "fd00::11")
    cloud.port("vm2", "net", "10.0.0.12")
    return cloud.world()


def _maker(settings: Settings = SETTINGS, base: int = 0) -> RuleMaker:
    maker = RuleMaker(Pipeline(base), settings)
    maker.tunnel_port = 9
    return maker


def _match(rule: Rule) -> str:
    """What a verdict rule matches, without table and priority."""
    return str(rule).split(" ", 1)[0].split(",reg", 1)[1]


# -- verdicts ----------------------------------------------------------------------------------------


def test_a_verdict_matches_the_original_tuple_without_the_clients_port(small: SmallWorld) -> None:
    flow = make_flow("egress", "10.0.0.99", TCP, 40000, 80)
    (rule,) = _maker().for_verdict(small.port("vm1"), flow, ALLOW)
    assert str(rule) == (
        "table=30,idle_timeout=60,priority=100,reg6=0x1,ct_state=-rpl-inv+trk,dl_type=0x800,"
        f"ct_nw_dst=10.0.0.99,ct_nw_proto=6,ct_tp_dst=80 actions={COMMIT6},resubmit(,40)"
    )


def test_a_deny_has_the_same_match_and_a_hard_timeout(small: SmallWorld) -> None:
    flow = make_flow("egress", "10.0.0.99", TCP, 40000, 80)
    allow, deny = (
        _maker().for_verdict(small.port("vm1"), flow, verdict)[0] for verdict in (ALLOW, DENY)
    )
    assert allow.key == deny.key
    assert str(deny) == (
        "table=30,hard_timeout=7,priority=100,reg6=0x1,ct_state=-rpl-inv+trk,dl_type=0x800,"
        "ct_nw_dst=10.0.0.99,ct_nw_proto=6,ct_tp_dst=80 actions=drop"
    )


@pytest.mark.parametrize(
    ("flow", "table", "match"),
    [
        (
            make_flow("egress", "10.0.0.99", UDP, 1000, 53, reply=True),
            80,
            (
                "7=0x1,ct_state=+rpl-inv+trk,dl_type=0x800,ct_nw_dst=10.0.0.99,ct_nw_proto=17,"
                "ct_tp_dst=53"
            ),
        ),
        (
            make_flow("ingress", "10.0.0.99", TCP, 1000, 80),
            80,
            (
                "7=0x1,ct_state=-rpl-inv+trk,dl_type=0x800,ct_nw_src=10.0.0.99,ct_nw_proto=6,"
                "ct_tp_dst=80"
            ),
        ),
        (
            make_flow("ingress", "fd00::99", TCP, 1000, 80, reply=True),
            30,
            (
                "6=0x1,ct_state=+rpl-inv+trk,dl_type=0x86dd,ct_ipv6_src=fd00::99,ct_nw_proto=6,"
                "ct_tp_dst=80"
            ),
        ),
        (
            make_flow("egress", "10.0.0.99", ICMP, 8, 0),
            30,
            (
                "6=0x1,ct_state=-rpl-inv+trk,dl_type=0x800,ct_nw_dst=10.0.0.99,ct_nw_proto=1,"
                "ct_tp_src=8,ct_tp_dst=0"
            ),
        ),
        (
            make_flow("ingress", "fd00::99", ICMPV6, 128, 0),
            80,
            (
                "7=0x1,ct_state=-rpl-inv+trk,dl_type=0x86dd,ct_ipv6_src=fd00::99,ct_nw_proto=58,"
                "ct_tp_src=128,ct_tp_dst=0"
            ),
        ),
    ],
)
def test_the_remote_end_is_matched_in_the_table_that_the_packet_passes(
    small: SmallWorld, flow: Flow, table: int, match: str
) -> None:
    (rule,) = _maker().for_verdict(small.port("vm1"), flow, ALLOW)
    assert rule.shape.table == table
    assert _match(rule) == match
    commit, onward = (COMMIT6, 40) if table == 30 else (COMMIT7, 90)
    assert str(rule).endswith(f" actions={commit},resubmit(,{onward})")


@pytest.mark.parametrize(
    ("flow", "more"),
    [
        (make_flow("egress", "10.0.0.99", TCP, 1000, 80), ",ct_nw_src=10.0.0.11,ct_tp_src=1000"),
        (make_flow("ingress", "fd00::99", UDP, 1000, 80), ",ct_ipv6_dst=fd00::11,ct_tp_src=1000"),
        (make_flow("egress", "10.0.0.99", ICMP, 8, 0), ",ct_nw_src=10.0.0.11"),
    ],
)
def test_whole_connections_can_be_matched(small: SmallWorld, flow: Flow, more: str) -> None:
    port = small.port("vm1")
    (service,) = _maker().for_verdict(port, flow, ALLOW)
    (connection,) = _maker(Settings(match_connection=True)).for_verdict(port, flow, ALLOW)
    assert _match(connection) == _match(service) + more
    assert connection.shape.priority > service.shape.priority
    assert connection.key != service.key


@pytest.mark.parametrize(
    ("flow", "client"),
    [
        (make_flow("egress", "255.255.255.255", UDP, 68, 67), 68),
        (make_flow("ingress", "fd00::2", UDP, 547, 546), 547),
        (make_flow("egress", "10.0.0.2", UDP, 1000, 67), 1000),
    ],
)
def test_dhcp_is_matched_with_both_ports(small: SmallWorld, flow: Flow, client: int) -> None:
    (rule,) = _maker().for_verdict(small.port("vm1"), flow, ALLOW)
    assert _match(rule).endswith(f",ct_tp_src={client}")


def test_sctp_is_matched_exactly_and_its_way_back_is_opened(small: SmallWorld) -> None:
    flow = make_flow("egress", "10.0.0.99", SCTP, 1000, 3868)
    there, back = _maker().for_verdict(small.port("vm1"), flow, ALLOW)
    assert str(there) == (
        "table=30,idle_timeout=60,priority=100,reg6=0x1,ct_state=-trk,dl_type=0x800,nw_proto=132,"
        "nw_dst=10.0.0.99,sctp_src=1000,sctp_dst=3868 actions=resubmit(,40)"
    )
    assert str(back) == (
        "table=80,idle_timeout=60,priority=110,reg7=0x1,ct_state=-trk,dl_type=0x800,nw_proto=132,"
        "nw_src=10.0.0.99,sctp_src=3868,sctp_dst=1000 actions=resubmit(,90)"
    )


def test_a_denied_sctp_flow_opens_nothing(small: SmallWorld) -> None:
    flow = make_flow("ingress", "fd00::99", SCTP, 1000, 3868)
    (rule,) = _maker().for_verdict(small.port("vm1"), flow, DENY)
    assert str(rule) == (
        "table=80,hard_timeout=7,priority=100,reg7=0x1,ct_state=-trk,dl_type=0x86dd,nw_proto=132,"
        "ipv6_src=fd00::99,sctp_src=1000,sctp_dst=3868 actions=drop"
    )


@pytest.mark.parametrize("settings", [SETTINGS, Settings(match_connection=True)])
def test_a_protocol_without_ports_is_matched_by_its_number(
    small: SmallWorld, settings: Settings
) -> None:
    flow = make_flow("ingress", "10.0.0.99", GRE)
    (rule,) = _maker(settings).for_verdict(small.port("vm1"), flow, ALLOW)
    assert str(rule) == (
        "table=80,idle_timeout=60,priority=100,reg7=0x1,ct_state=-trk,dl_type=0x800,nw_proto=47,"
        "nw_src=10.0.0.99 actions=resubmit(,90)"
    )


def test_rules_of_different_ports_never_meet(small: SmallWorld) -> None:
    flow = make_flow("egress", "10.0.0.99", TCP, 1000, 80)
    keys = {_maker().for_verdict(small.port(name), flow, ALLOW)[0].key for name in ("vm1", "vm2")}
    assert len(keys) == 2


# -- locations ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ip", "location", "text"),
    [
        (
            "10.0.0.12",
            Tunnel(parse_ip("192.0.2.2"), 101, ()),
            (
                "table=40,idle_timeout=120,priority=100,reg5=0x64,dl_dst=02:00:00:00:00:01,"
                "dl_type=0x800,nw_dst=10.0.0.12"
                " actions=set_field:0x65->tun_id,set_field:192.0.2.2->tun_dst,output:9"
            ),
        ),
        (
            "fd00::12",
            Tunnel(parse_ip("2001:db8::2"), 101, (), (GATEWAY, NEXT)),
            (
                "table=40,idle_timeout=120,priority=100,reg5=0x64,dl_dst=02:00:00:00:00:01,"
                "dl_type=0x86dd,ipv6_dst=fd00::12"
                " actions=dec_ttl,set_field:02:00:00:00:00:02->dl_src,"
                "set_field:02:00:00:00:00:03->dl_dst,"
                "set_field:0x65->tun_id,set_field:2001:db8::2->tun_ipv6_dst,output:9"
            ),
        ),
        (
            "10.0.0.12",
            Local("vm2", ()),
            (
                "table=40,idle_timeout=120,priority=100,reg5=0x64,dl_dst=02:00:00:00:00:01,"
                "dl_type=0x800,nw_dst=10.0.0.12 actions=set_field:0x2->reg7,resubmit(,50)"
            ),
        ),
        (
            "fd00::12",
            Local("vm2", (), (GATEWAY, NEXT)),
            (
                "table=40,idle_timeout=120,priority=100,reg5=0x64,dl_dst=02:00:00:00:00:01,"
                "dl_type=0x86dd,ipv6_dst=fd00::12 actions=dec_ttl,"
                "set_field:02:00:00:00:00:02->dl_src,set_field:02:00:00:00:00:03->dl_dst,"
                "set_field:0x2->reg7,resubmit(,50)"
            ),
        ),
        (
            "10.0.0.1",
            GatewayEcho(()),
            (
                "table=40,idle_timeout=120,priority=110,reg5=0x64,dl_dst=02:00:00:00:00:01,"
                "dl_type=0x800,nw_proto=1,icmp_type=8,icmp_code=0,nw_dst=10.0.0.1"
                " actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],"
                "set_field:02:00:00:00:00:01->dl_src,move:NXM_OF_IP_SRC[]->NXM_OF_IP_DST[],"
                "set_field:10.0.0.1->nw_src,set_field:0->icmp_type,set_field:64->nw_ttl,IN_PORT"
            ),
        ),
        (
            "fd00::1",
            GatewayEcho(()),
            (
                "table=40,idle_timeout=120,priority=110,reg5=0x64,dl_dst=02:00:00:00:00:01,"
                "dl_type=0x86dd,nw_proto=58,icmpv6_type=128,icmpv6_code=0,ipv6_dst=fd00::1"
                " actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],"
                "set_field:02:00:00:00:00:01->dl_src,move:NXM_NX_IPV6_SRC[]->NXM_NX_IPV6_DST[],"
                "set_field:fd00::1->ipv6_src,set_field:129->icmpv6_type,set_field:64->nw_ttl,IN_PORT"
            ),
        ),
        (
            "fd00::99",
            NoLocation(Reason.UNKNOWN_NEIGHBOR, ()),
            (
                "table=40,hard_timeout=7,priority=100,reg5=0x64,dl_dst=02:00:00:00:00:01,"
                "dl_type=0x86dd,ipv6_dst=fd00::99 actions=drop"
            ),
        ),
    ],
)
def test_a_location_is_keyed_by_destination(
    small: SmallWorld, ip: str, location: Tunnel | Local | GatewayEcho | NoLocation, text: str
) -> None:
    rule = _maker().for_location(small.world.ports, 100, MAC, parse_ip(ip), location)
    assert str(rule) == text


def test_a_location_and_its_absence_replace_each_other(small: SmallWorld) -> None:
    maker, ip = _maker(), parse_ip("10.0.0.12")
    places: tuple[Tunnel | Local | NoLocation, ...] = (
        Tunnel(parse_ip("192.0.2.2"), 101, ()),
        Tunnel(parse_ip("2001:db8::2"), 101, (), (GATEWAY, NEXT)),
        Local("vm2", ()),
        Local("vm2", (), (GATEWAY, NEXT)),
        NoLocation(Reason.UNKNOWN_NEIGHBOR, ()),
    )
    rules = [maker.for_location(small.world.ports, 100, MAC, ip, place) for place in places]
    assert len({rule.key for rule in rules}) == 1
    other = maker.for_location(small.world.ports, 101, MAC, ip, places[0])
    assert other.key != rules[0].key, "another subnet, another VNI"


# -- answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "answer", "text"),
    [
        (
            "10.0.0.12",
            Answer(MAC, tags=()),
            (
                "table=5,idle_timeout=30,priority=100,reg6=0x1,dl_type=0x806,arp_op=1,"
                "arp_tpa=10.0.0.12 actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],"
                "set_field:02:00:00:00:00:01->dl_src,set_field:2->arp_op,"
                "move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],set_field:02:00:00:00:00:01->arp_sha,"
                "move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],set_field:10.0.0.12->arp_spa,IN_PORT"
            ),
        ),
        (
            "fd00::12",
            Answer(MAC, tags=()),
            (
                "table=5,idle_timeout=30,priority=100,reg6=0x1,dl_type=0x86dd,nw_proto=58,"
                "icmpv6_type=135,icmpv6_code=0,nd_target=fd00::12"
                " actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],"
                "set_field:02:00:00:00:00:01->dl_src,set_field:0x60000000->nd_reserved,"
                "set_field:136->icmpv6_type,resubmit(,6)"
            ),
        ),
        (
            "fd00::1",
            Answer(MAC, tags=(), router=True),
            (
                "table=5,idle_timeout=30,priority=100,reg6=0x1,dl_type=0x86dd,nw_proto=58,"
                "icmpv6_type=135,icmpv6_code=0,nd_target=fd00::1"
                " actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],"
                "set_field:02:00:00:00:00:01->dl_src,set_field:0xe0000000->nd_reserved,"
                "set_field:136->icmpv6_type,resubmit(,6)"
            ),
        ),
        (
            "10.0.0.99",
            NoAnswer(Reason.UNKNOWN_NEIGHBOR, ()),
            (
                "table=5,hard_timeout=7,priority=100,reg6=0x1,dl_type=0x806,arp_op=1,"
                "arp_tpa=10.0.0.99 actions=drop"
            ),
        ),
        (
            "fd00::99",
            NoAnswer(Reason.UNKNOWN_NEIGHBOR, ()),
            (
                "table=5,hard_timeout=7,priority=100,reg6=0x1,dl_type=0x86dd,nw_proto=58,"
                "icmpv6_type=135,icmpv6_code=0,nd_target=fd00::99 actions=drop"
            ),
        ),
    ],
)
def test_an_answer_is_for_one_asker_and_one_address(
    small: SmallWorld, target: str, answer: Answer | NoAnswer, text: str
) -> None:
    rule = _maker().for_resolution(small.port("vm1"), parse_ip(target), answer)
    assert str(rule) == text


def test_the_block_of_tables_moves_as_a_whole(small: SmallWorld) -> None:
    maker = _maker(base=100)
    flow = make_flow("egress", "10.0.0.99", TCP, 1000, 80)
    (rule,) = maker.for_verdict(small.port("vm1"), flow, ALLOW)
    assert str(rule).startswith("table=130,")
    assert str(rule).endswith("resubmit(,140)")

"""The rules that are always there, as ``ovs-ofctl`` text."""

from __future__ import annotations

import zlib
from collections import Counter

import pytest

from ondemand.addresses import parse_mac
from ondemand.pipeline import LINK_LOCAL_ICMPV6, Pipeline, Table
from ondemand.records import Direction
from ondemand.static_rules import epoch_rules, frame_rules, port_rules
from rule_cache.rule import Rule
from tests.support.world_builder import CloudBuilder, SmallWorld

PIPELINE = Pipeline()
VIRTUAL = "02:00:5e:00:01:01"


@pytest.fixture
def small() -> SmallWorld:
    cloud = CloudBuilder()
    cloud.subnet("net", 100, "10.0.0.0/24", "fd00::/64")
    cloud.port("vm1", "net", "10.0.0.11", "fd00::11", mac="fa:16:3e:00:00:0b")
    cloud.port(
        "nat",
        "net",
        "10.0.0.12",
        mac="fa:16:3e:00:00:0c",
        pairs=("10.0.0.12/32", "0.0.0.0/0", "fd00:1::/64", ("10.0.0.60/32", VIRTUAL)),
    )
    cloud.port("open", "net", "10.0.0.13", mac="fa:16:3e:00:00:0d", port_security=False)
    return cloud.world()


def _texts(rules: list[Rule], table: Table, *, but: str = "no such text") -> list[str]:
    """What is in a table, without the table, and without rules that have ``but`` in their text."""
    head = f"table={int(table)},"
    found = [str(rule).removeprefix(head) for rule in rules if rule.shape.table == table]
    return [text for text in found if but not in text]


def test_a_port_is_heard_when_it_announces_itself(small: SmallWorld) -> None:
    (text,) = [
        text for text in _texts(_port_rules(small, "vm1"), Table.PORT_SECURITY) if "0x8035" in text
    ]
    assert text == (
        "priority=200,reg6=0x1,dl_src=fa:16:3e:00:00:0b,dl_type=0x8035"
        " actions=meter:5,CONTROLLER:65535"
    )


def _port_rules(small: SmallWorld, name: str, tunnel_port: int = 9, meter: int = 5) -> list[Rule]:
    return port_rules(PIPELINE, small.port(name), tunnel_port, meter)


def test_no_two_static_rules_have_the_same_match(small: SmallWorld) -> None:
    rules = frame_rules(PIPELINE)
    for name in small.world.ports:
        rules += _port_rules(small, name)
    assert [key for key, count in Counter(rule.key for rule in rules).items() if count > 1] == []


def test_static_rules_have_no_timeouts(small: SmallWorld) -> None:
    for rule in [*frame_rules(PIPELINE), *_port_rules(small, "vm1")]:
        assert (rule.idle_timeout, rule.hard_timeout) == (0, 0)


def test_the_frame_has_no_rule_of_the_tables_that_ports_fill() -> None:
    tables = {rule.shape.table for rule in frame_rules(PIPELINE)}
    assert tables.isdisjoint({Table.CLASSIFY, Table.RESPONDER, Table.LOCATION, Table.DELIVER})


@pytest.mark.parametrize(
    ("table", "kinds"),
    [
        (Table.PORT_SECURITY, LINK_LOCAL_ICMPV6),
        # Nobody asks for neighbors through a tunnel either.
        (Table.INGRESS_ENTRY, (*LINK_LOCAL_ICMPV6, 135)),
    ],
)
def test_link_local_icmpv6_goes_no_further(table: Table, kinds: tuple[int, ...]) -> None:
    dropped = {
        text.removeprefix("priority=300,dl_type=0x86dd,nw_proto=58,icmpv6_type=")
        for text in _texts(frame_rules(PIPELINE), table)
        if "icmpv6_type" in text and text.endswith(" actions=drop")
    }
    assert dropped == {f"{kind} actions=drop" for kind in kinds}


@pytest.mark.parametrize("table", [Table.PORT_SECURITY, Table.INGRESS_ENTRY])
def test_a_tagged_frame_is_dropped_before_anything_else(table: Table) -> None:
    rules = [rule for rule in frame_rules(PIPELINE) if rule.shape.table == table]
    first = max(rules, key=lambda rule: rule.shape.priority)
    assert _texts([first], table) == ["priority=302,vlan_tci=0x1000/0x1000 actions=drop"]


@pytest.mark.parametrize(
    ("table", "register", "state", "verdict"),
    [(Table.EGRESS_ENTRY, 6, 20, 30), (Table.INGRESS_ENTRY, 7, 60, 80)],
)
def test_conntrack_is_for_what_it_tells_apart(
    table: Table, register: int, state: int, verdict: int
) -> None:
    ct = f"ct(zone=NXM_NX_REG{register}[0..15],table={state})"
    texts = [text for text in _texts(frame_rules(PIPELINE), table) if "drop" not in text]
    assert sorted(texts) == sorted(
        [
            *(
                f"priority=100,dl_type=0x800,nw_proto={protocol} actions={ct}"
                for protocol in (1, 6, 17)
            ),
            *(
                f"priority=100,dl_type=0x86dd,nw_proto={protocol} actions={ct}"
                # 44: what OVS says of a later fragment, which conntrack has to wait with.
                for protocol in (6, 17, 44, 58)
            ),
            f"priority=1,dl_type=0x800 actions=resubmit(,{verdict})",
            f"priority=1,dl_type=0x86dd actions=resubmit(,{verdict})",
        ]
    )


def test_a_port_comes_in_and_goes_out(small: SmallWorld) -> None:
    rules = _port_rules(small, "vm1")
    assert _texts(rules, Table.CLASSIFY) == [
        "priority=200,in_port=101 actions=set_field:0x64->reg5,set_field:0x1->reg6,resubmit(,10)",
        (
            "priority=200,in_port=9,tun_id=0x64,dl_dst=fa:16:3e:00:00:0b"
            " actions=set_field:0x1->reg7,resubmit(,50)"
        ),
    ]
    assert _texts(rules, Table.DELIVER) == [
        # Whose zone this is, for an agent that starts: the CRC-32 of "vm1".
        f"priority=200,reg7=0x1 actions=set_field:{zlib.crc32(b'vm1'):#x}->reg2,output:101"
    ]


def test_without_a_tunnel_nothing_comes_from_one(small: SmallWorld) -> None:
    texts = _texts(_port_rules(small, "vm1", tunnel_port=0), Table.CLASSIFY)
    assert [text for text in texts if "tun_id" in text] == []
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ["fa:16:3e:00:00:0c", VIRTUAL]),
        ([parse_mac(VIRTUAL)], [VIRTUAL]),
        ([], []),
    ],
)
def test_a_tunnel_delivers_to_each_mac_of_a_port_once(
    small: SmallWorld, given: list[bytes] | None, expected: list[str]
) -> None:
    rules = port_rules(PIPELINE, small.port("nat"), 9, 0, given)
    texts = _texts(rules, Table.CLASSIFY)
    macs = [text.split("dl_dst=")[1].split(" ")[0] for text in texts if "dl_dst" in text]
    assert macs == expected


def test_each_miss_is_metered_on_the_ports_own_meter(small: SmallWorld) -> None:
    for table, texts in {
        table: _texts(_port_rules(small, "vm1"), table)
        for table in (
            Table.RESPONDER,
            Table.EGRESS_VERDICT,
            Table.LOCATION,
            Table.INGRESS_VERDICT,
        )
    }.items():
        assert texts, table
        for text in texts:
            assert text.endswith(" actions=meter:5,CONTROLLER:65535"), table
    unmetered = _texts(_port_rules(small, "vm1", meter=0), Table.LOCATION)
    assert unmetered == ["priority=0,reg6=0x1 actions=CONTROLLER:65535"]


def test_only_arp_requests_and_solicitations_reach_the_controller(small: SmallWorld) -> None:
    assert _texts(_port_rules(small, "vm1"), Table.RESPONDER) == [
        "priority=1,reg6=0x1,dl_type=0x806,arp_op=1 actions=meter:5,CONTROLLER:65535",
        (
            "priority=1,reg6=0x1,dl_type=0x86dd,nw_proto=58,icmpv6_type=135,icmpv6_code=0"
            " actions=meter:5,CONTROLLER:65535"
        ),
    ]


def _source(mac: str, match: str) -> str:
    return f"priority=200,reg6=0x{{zone}},dl_src={mac},{match} actions=resubmit(,15)"


def test_a_port_may_send_from_its_own_addresses(small: SmallWorld) -> None:
    mac = "fa:16:3e:00:00:0b"
    every = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    expected = [
        _source(mac, "dl_type=0x800,nw_src=10.0.0.11/255.255.255.255"),
        _source(mac, f"dl_type=0x86dd,ipv6_src=fd00::11/{every}"),
        _source(mac, f"dl_type=0x86dd,ipv6_src=fe80::f816:3eff:fe00:b/{every}"),
        _source(mac, "dl_type=0x800,nw_proto=17,nw_src=0.0.0.0,udp_src=68,udp_dst=67"),
    ]
    texts = _texts(_port_rules(small, "vm1"), Table.PORT_SECURITY, but="0x8035")
    assert sorted(texts) == sorted(text.format(zone=1) for text in expected)


def test_a_pair_binds_its_mac_and_its_prefix(small: SmallWorld) -> None:
    own = "fa:16:3e:00:00:0c"
    every = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    expected = [
        _source(own, "dl_type=0x800,nw_src=10.0.0.12/255.255.255.255"),
        _source(own, "dl_type=0x800,nw_src=0.0.0.0/0.0.0.0"),
        _source(own, "dl_type=0x86dd,ipv6_src=fd00:1::/ffff:ffff:ffff:ffff::"),
        _source(VIRTUAL, "dl_type=0x800,nw_src=10.0.0.60/255.255.255.255"),
        _source(own, f"dl_type=0x86dd,ipv6_src=fe80::f816:3eff:fe00:c/{every}"),
        _source(VIRTUAL, f"dl_type=0x86dd,ipv6_src=fe80::5eff:fe00:101/{every}"),
        _source(own, "dl_type=0x800,nw_proto=17,nw_src=0.0.0.0,udp_src=68,udp_dst=67"),
    ]
    texts = _texts(_port_rules(small, "nat"), Table.PORT_SECURITY, but="0x8035")
    assert sorted(texts) == sorted(text.format(zone=2) for text in expected)


@pytest.mark.parametrize(
    ("direction", "table", "register", "verdict", "onward"),
    [
        (Direction.EGRESS, Table.EGRESS_STATE, 6, 30, 40),
        (Direction.INGRESS, Table.INGRESS_STATE, 7, 80, 90),
    ],
)
def test_the_epoch_stands_in_two_rules_of_each_state_table(
    small: SmallWorld,
    direction: Direction,
    table: Table,
    register: int,
    verdict: int,
    onward: int,
) -> None:
    port = small.port("vm1")
    port.epoch = 77
    texts = [
        (
            f"priority=200,reg{register}=0x1,ct_state=-inv+trk,ct_mark=0x4d"
            f" actions=resubmit(,{onward})"
        ),
        f"priority=100,reg{register}=0x1 actions=set_field:0x4d->reg4,resubmit(,{verdict})",
    ]
    assert _texts(epoch_rules(PIPELINE, port, direction), table) == texts
    assert _texts(_port_rules(small, "vm1"), table) == texts


def test_an_invalid_packet_is_dropped_before_the_epoch_is_looked_at() -> None:
    for table in (Table.EGRESS_STATE, Table.INGRESS_STATE):
        assert _texts(frame_rules(PIPELINE), table) == ["priority=300,ct_state=+inv actions=drop"]


def test_a_port_without_port_security_has_neither_policy_nor_anti_spoofing(
    small: SmallWorld,
) -> None:
    rules = _port_rules(small, "open")
    assert _texts(rules, Table.PORT_SECURITY, but="0x8035") == [
        "priority=200,reg6=0x3,dl_type=0x800 actions=resubmit(,40)",
        "priority=200,reg6=0x3,dl_type=0x86dd actions=resubmit(,40)",
    ]
    assert _texts(rules, Table.INGRESS_ENTRY) == [
        "priority=200,reg7=0x3,dl_type=0x800 actions=resubmit(,90)",
        "priority=200,reg7=0x3,dl_type=0x86dd actions=resubmit(,90)",
    ]
    for table in (
        Table.EGRESS_STATE,
        Table.EGRESS_VERDICT,
        Table.INGRESS_STATE,
        Table.INGRESS_VERDICT,
    ):
        assert _texts(rules, table) == []
    assert _texts(rules, Table.LOCATION) != []

"""What a sound goal state compiles to."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller_app.goal_state_file import read_document
from ondemand.addresses import Prefix, parse_ip, parse_mac, parse_prefix
from ondemand.codec import decode_record
from ondemand.goal_state import GoalStateError, compile_goal_state, encode_slices
from ondemand.goal_topology import gateway_mac_of
from ondemand.records import (
    ANY,
    ANY_PROTOCOL,
    AddressPair,
    Claim,
    Direction,
    Group,
    HostGroup,
    MacPointer,
    Neighbor,
    Port,
    Route,
    Router,
    SecurityRule,
    Subnet,
    mac_key,
)
from ondemand.slices import mac_slice
from ondemand.synthetic import neighbor_slices, synthetic_neighbors
from tests.support.goal_states import goal_state, group, port, rule, subnet, vpc

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "two-subnets.yaml"
TUNNEL1, TUNNEL2 = parse_ip("192.0.2.1"), parse_ip("192.0.2.2")


def compiled(**changes):
    return compile_goal_state(goal_state(vpc(**changes)))


def only_rule(given):
    (found,) = (
        record
        for record in compiled(security_groups=[group(given)])["sg/g"].values()
        if isinstance(record, SecurityRule)
    )
    return found


def pointers(slices):
    return {
        record.mac: record.port
        for name, records in slices.items()
        if name.startswith("nbr/v/mac-")
        for record in records.values()
    }


def claims(slices):
    return {
        (str(record.prefix), record.mac.hex(":"), record.port)
        for record in slices["vpc/v"].values()
        if isinstance(record, Claim)
    }


def test_the_example_compiles_to_records_that_every_reader_accepts():
    payloads = encode_slices(compile_goal_state(read_document(EXAMPLE)))
    records = {
        (name, key): decode_record(name, key, payload)
        for name, held in payloads.items()
        for key, payload in held.items()
    }
    assert set(payloads) >= {
        *("host/host-1", "host/host-2", "host/host-3", "hostgroup/rack-1"),
        *("vpc/shop", "sg/web", "sg/database", "sg/operations"),
        *("nbr/shop/10.0.1.0", "nbr/shop/10.0.2.0", "nbr/shop/fd00:1::", "nbr/shop/fd00:2::"),
    }
    sql = records["sg/database", "rule/sql"]
    assert (sql.protocol, sql.port_min, sql.port_max, sql.remote_group) == (6, 5432, 5432, "web")
    assert records["vpc/shop", "router/main"] == Router("main", ("front", "back"))
    assert records["host/host-3", "port/vpn"].port_security is False


def test_subnet_router_and_route():
    slices = compiled(
        subnets=[
            subnet(),
            subnet(id="t", vni=101, cidrs=["10.0.1.0/24"], gateways=["10.0.1.254"]),
        ],
        routers=[
            {
                "id": "r",
                "subnets": ["s", "t"],
                "routes": [
                    {"to": "0.0.0.0/0", "via": "10.0.1.9"},
                    {"to": "fd01::/16", "via": "fd00::9"},
                ],
            }
        ],
    )
    assert slices["vpc/v"] == {
        "subnet/s": Subnet(
            "s",
            100,
            (parse_prefix("10.0.0.0/24"), parse_prefix("fd00::/64")),
            (parse_ip("10.0.0.1"), parse_ip("fd00::1")),
            gateway_mac_of(100),
        ),
        "subnet/t": Subnet(
            "t", 101, (parse_prefix("10.0.1.0/24"),), (parse_ip("10.0.1.254"),), gateway_mac_of(101)
        ),
        "router/r": Router("r", ("s", "t")),
        "route/r/0.0.0.0/0": Route("r", Prefix(bytes(4), 0), parse_ip("10.0.1.9")),
        "route/r/fd01::/16": Route("r", parse_prefix("fd01::/16"), parse_ip("fd00::9")),
    }


def test_a_derived_gateway_mac_is_one_per_vni_and_locally_administered():
    macs = {gateway_mac_of(vni) for vni in range(1, 2000)}
    assert len(macs) == 1999
    assert all(len(mac) == 6 and mac[0] & 3 == 2 for mac in macs)


def test_a_gateway_mac_may_be_given_and_is_absent_without_gateways():
    given = compiled(subnets=[subnet(gateway_mac="02-00-00-00-00-0A")])["vpc/v"]["subnet/s"]
    assert given.gateway_mac == parse_mac("02:00:00:00:00:0a")
    none = compiled(subnets=[subnet(gateways=[])])["vpc/v"]["subnet/s"]
    assert (none.gateways, none.gateway_mac) == ((), b"")


def test_a_port_is_bound_on_its_host_and_a_neighbor_for_all():
    slices = compiled(
        ports=[port(10, host="h2", fixed_ips=["10.0.0.10", "fd00::a"], security_groups=["g"])]
    )
    mac = parse_mac("fa:16:3e:00:00:0a")
    ips = parse_ip("10.0.0.10"), parse_ip("fd00::a")
    assert slices["host/h2"] == {"port/vm10": Port("vm10", mac, "v", "s", ips, ("g",))}
    assert slices["host/h1"] == {}
    assert slices["nbr/v/10.0.0.0"] == {
        "ip/10.0.0.10": Neighbor(ips[0], mac, "s", "vm10", TUNNEL2, ("g",))
    }
    assert slices["nbr/v/fd00::"] == {
        "ip/fd00::a": Neighbor(ips[1], mac, "s", "vm10", TUNNEL2, ("g",))
    }
    assert pointers(slices) == {}


def test_ports_of_a_host_group_are_published_once_in_its_slice():
    document = goal_state(vpc())
    document["hosts"][0]["group"] = "rack"
    slices = compile_goal_state(document)
    assert slices["host/h1"] == {"group/rack": HostGroup("rack", TUNNEL1)}
    assert set(slices["hostgroup/rack"]) == {"port/vm10", "port/vm11"}
    assert slices["host/h2"] == {}


def test_hosts_of_a_group_share_its_slice_and_a_group_without_ports_has_one_too():
    document = goal_state(vpc(ports=[port(10), port(11, host="h2")]))
    for host in document["hosts"]:
        host["group"] = "rack"
    document["hosts"].append({"id": "h9", "tunnel_ip": "192.0.2.99", "group": "spare"})
    slices = compile_goal_state(document)
    assert set(slices["hostgroup/rack"]) == {"port/vm10", "port/vm11"}
    assert set(slices["host/h2"]) == {"group/rack"}
    assert slices["hostgroup/spare"] == {}
    assert set(slices["host/h9"]) == {"group/spare"}


def test_a_port_without_port_security_has_no_groups_and_can_be_found_by_its_mac():
    slices = compiled(ports=[port(10, port_security=False)])
    assert slices["host/h1"]["port/vm10"].port_security is False
    assert slices["nbr/v/10.0.0.0"]["ip/10.0.0.10"].groups == ()
    mac = parse_mac("fa:16:3e:00:00:0a")
    assert slices[mac_slice("v", mac)] == {mac_key("s", mac): MacPointer(mac, "s", "vm10", TUNNEL1)}


def test_a_port_without_addresses_is_bound_and_nobody_s_neighbor():
    slices = compiled(ports=[port(10, fixed_ips=[])])
    assert slices["host/h1"]["port/vm10"].fixed_ips == ()
    assert not any(name.startswith("nbr/") for name in slices)


@pytest.mark.parametrize(
    ("pair", "claimed"),
    [
        ("10.0.0.200", ["10.0.0.200/32"]),
        ("10.0.0.128/25", ["10.0.0.128/25"]),
        ("10.0.0.0/24", ["10.0.0.0/24"]),
        ("10.0.0.0/8", ["10.0.0.0/24"]),
        ("0.0.0.0/0", ["10.0.0.0/24"]),
        ("::/0", ["fd00::/64"]),
        ("fd00::77", ["fd00::77/128"]),
        ("10.0.1.0/24", []),
        ("fd01::/64", []),
    ],
)
def test_a_pair_claims_only_what_lies_in_the_subnet_of_its_port(pair, claimed):
    """So that a pair of 0.0.0.0/0 makes no stranger a member of the port's groups."""
    slices = compiled(ports=[port(10, security_groups=["g"], allowed_address_pairs=[{"ip": pair}])])
    mac = "fa:16:3e:00:00:0a"
    assert claims(slices) == {(prefix, mac, "vm10") for prefix in claimed}
    bound = slices["host/h1"]["port/vm10"]
    assert bound.pairs == (AddressPair(parse_prefix(pair), parse_mac(mac)),)
    assert pointers(slices) == {parse_mac(mac): "vm10"}
    for record in slices["vpc/v"].values():
        if isinstance(record, Claim):
            assert (record.subnet, record.host, record.groups) == ("s", TUNNEL1, ("g",))


def test_pairs_that_are_clipped_to_the_same_are_one_claim():
    pairs = [{"ip": "0.0.0.0/0"}, {"ip": "10.0.0.0/8"}]
    slices = compiled(ports=[port(10, allowed_address_pairs=pairs)])
    assert len(claims(slices)) == 1
    assert len(slices["host/h1"]["port/vm10"].pairs) == 2


def test_each_mac_of_a_pair_can_be_found():
    virtual = "00:00:5e:00:01:07"
    pairs = [{"ip": "10.0.0.200", "mac": virtual}, {"ip": "10.0.0.201"}]
    slices = compiled(ports=[port(10, allowed_address_pairs=pairs)])
    own = parse_mac("fa:16:3e:00:00:0a")
    assert pointers(slices) == {own: "vm10", parse_mac(virtual): "vm10"}
    assert claims(slices) == {
        ("10.0.0.200/32", virtual, "vm10"),
        ("10.0.0.201/32", own.hex(":"), "vm10"),
    }


def test_a_mac_of_several_claimants_belongs_to_its_owner_else_to_the_first_id():
    shared = [{"ip": "10.0.0.200", "mac": "00:00:5e:00:01:07"}]
    of_vm12 = [{"ip": "10.0.0.201", "mac": "fa:16:3e:00:00:0c"}]
    ports = [
        port(11, allowed_address_pairs=shared),
        port(10, allowed_address_pairs=shared + of_vm12),
        port(12),
    ]
    for order in (ports, ports[::-1]):
        found = pointers(compiled(ports=order))
        assert found[parse_mac("00:00:5e:00:01:07")] == "vm10"
        assert found[parse_mac("fa:16:3e:00:00:0c")] == "vm12"


def test_slices_that_have_lost_their_last_record_are_named_so_that_publishing_empties_them():
    slices = compile_goal_state(goal_state(vpc(ports=[], subnets=[], security_groups=[group()])))
    assert slices == {
        "host/h1": {},
        "host/h2": {},
        "vpc/v": {},
        "sg/g": {"group": Group("g")},
    }


def test_equal_addresses_macs_and_names_in_different_vpcs_never_meet():
    twin = vpc(
        id="w",
        subnets=[subnet(vni=200)],
        security_groups=[],
        ports=[port(10, id="other", host="h2")],
    )
    slices = compile_goal_state(goal_state(vpc(ports=[port(10)]), twin))
    assert slices["nbr/v/10.0.0.0"]["ip/10.0.0.10"].port == "vm10"
    assert slices["nbr/w/10.0.0.0"]["ip/10.0.0.10"].port == "other"
    assert slices["vpc/w"]["subnet/s"].vni == 200


def test_the_order_of_groups_and_of_the_document_does_not_matter():
    groups = [group(), group(id="h")]
    one = compiled(security_groups=groups, ports=[port(10, security_groups=["g", "h"]), port(11)])
    two = compiled(
        security_groups=groups[::-1], ports=[port(11), port(10, security_groups=["h", "g"])]
    )
    assert encode_slices(one) == encode_slices(two)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (4, ANY_PROTOCOL, ANY, ANY)),
        ({"protocol": "any", "ethertype": "IPv6"}, (6, ANY_PROTOCOL, ANY, ANY)),
        ({"protocol": "tcp", "ports": 443}, (4, 6, 443, 443)),
        ({"protocol": "tcp", "ports": "443"}, (4, 6, 443, 443)),
        ({"protocol": "udp", "ports": "8000-8080"}, (4, 17, 8000, 8080)),
        ({"protocol": 132, "ports": "0-65535"}, (4, 132, 0, 65535)),
        ({"protocol": "sctp"}, (4, 132, ANY, ANY)),
        ({"protocol": "icmp"}, (4, 1, ANY, ANY)),
        ({"protocol": "icmp", "icmp_type": 8}, (4, 1, 8, ANY)),
        ({"protocol": "icmp", "icmp_type": 3, "icmp_code": 4}, (4, 1, 3, 4)),
        ({"protocol": "icmp", "ethertype": "IPv6", "icmp_type": 128}, (6, 58, 128, ANY)),
        ({"protocol": 1, "ethertype": "IPv6"}, (6, 58, ANY, ANY)),
        ({"protocol": "icmpv6", "ethertype": "IPv6", "icmp_type": 0}, (6, 58, 0, ANY)),
        ({"protocol": 47}, (4, 47, ANY, ANY)),
        ({"protocol": 0, "ethertype": "IPv6"}, (6, 0, ANY, ANY)),
        ({"protocol": 255}, (4, 255, ANY, ANY)),
        ({"remote_prefix": "fd00::/64"}, (6, ANY_PROTOCOL, ANY, ANY)),
        ({"remote_prefix": "fd00::/64", "protocol": "icmp"}, (6, 58, ANY, ANY)),
        ({"remote_prefix": "10.0.0.0/8"}, (4, ANY_PROTOCOL, ANY, ANY)),
    ],
)
def test_what_a_rule_means(given, expected):
    found = only_rule(rule(**given))
    assert (found.family, found.protocol, found.port_min, found.port_max) == expected
    prefix = given.get("remote_prefix")
    assert found.remote_prefix == (None if prefix is None else parse_prefix(prefix))


def test_direction_and_remote_group():
    found = only_rule({"direction": "egress", "remote_group": "g", "id": "r1"})
    assert found == SecurityRule("r1", Direction.EGRESS, 4, remote_group="g")


def test_a_rule_without_an_id_gets_one_from_what_it_says():
    """Stable, so that publishing from another machine or release changes nothing."""
    first = only_rule(rule(protocol="tcp", ports=443))
    same = only_rule(rule(ports="443-443", protocol=6, ethertype="IPv4"))
    other = only_rule(rule(protocol="tcp", ports=444))
    assert first.id == same.id == "r-feb32a7ea50b"
    assert other.id != first.id


def test_an_empty_document_must_say_so():
    assert compile_goal_state({"vpcs": []}) == {}
    assert compile_goal_state({}) == {}
    with pytest.raises(GoalStateError, match=r"write 'vpcs: \[\]'"):
        compile_goal_state(None)


class TestSynthetic:
    def test_neighbors_lie_in_their_prefix_and_shards(self):
        prefix = parse_prefix("10.1.0.0/16")
        found = list(
            synthetic_neighbors(
                subnet="s", prefix=prefix, count=1000, hosts=[TUNNEL1, TUNNEL2], groups=("g",)
            )
        )
        assert len({one.ip for one in found}) == len({one.mac for one in found}) == 1000
        assert all(prefix.contains(one.ip) for one in found)
        assert {one.host for one in found} == {TUNNEL1, TUNNEL2}
        slices = neighbor_slices("v", found)
        assert sum(map(len, slices.values())) == 1000
        assert set(slices) == {f"nbr/v/10.1.{block}.0" for block in range(4)}
        for name, records in encode_slices(slices).items():
            for key, payload in records.items():
                assert decode_record(name, key, payload) == slices[name][key]

    def test_ipv6(self):
        (one,) = synthetic_neighbors(
            subnet="s", prefix=parse_prefix("fd00::/64"), count=1, hosts=[TUNNEL1], first=65536
        )
        assert one.ip == parse_ip("fd00::1:0")

    def test_a_prefix_that_is_too_small(self):
        with pytest.raises(ValueError, match="no room for 256 addresses"):
            list(
                synthetic_neighbors(
                    subnet="s", prefix=parse_prefix("10.0.0.0/24"), count=256, hosts=[TUNNEL1]
                )
            )

"""Each mistake in a goal state is named with its place, and all of them at once."""

from __future__ import annotations

import copy

import pytest

from ondemand.goal_state import GoalStateError, compile_goal_state
from tests.support.goal_states import goal_state, group, port, rule, subnet, vpc

PORT = "vpcs[0].ports[0] (port 'vm10')"
SUBNET = "vpcs[0].subnets[0] (subnet 's')"
ROUTER = "vpcs[0].routers[0] (router 'r')"
GROUP = "vpcs[0].security_groups[0] (security group 'g')"
RULE = f"{GROUP}.rules[0]"
T = {"id": "t", "vni": 101, "cidrs": ["10.0.1.0/24"], "gateways": ["10.0.1.1"]}


def errors_of(document):
    before = copy.deepcopy(document)
    with pytest.raises(GoalStateError) as caught:
        compile_goal_state(document)
    assert document == before
    return caught.value.errors


def only_error(**changes):
    (error,) = errors_of(goal_state(vpc(**changes)))
    return error


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"mac": "fa:16:3e:00:00"}, "mac: 'fa:16:3e:00:00': not a MAC"),
        ({"mac": "01:00:5e:00:00:01"}, "mac: MAC 01:00:5e:00:00:01 is a multicast address"),
        ({"mac": "00:00:00:00:00:00"}, "mac: MAC 00:00:00:00:00:00"),
        ({"mac": "02:67:77:00:00:64"}, "is the gateway's MAC in subnet 's'"),
        ({"fixed_ips": ["10.0.0.256"]}, "fixed_ips[0]: '10.0.0.256': not an IP address"),
        ({"fixed_ips": ["10.0.0.10/24"]}, "fixed_ips[0]: '10.0.0.10/24': not an IP address"),
        (
            {"fixed_ips": ["10.0.9.1"]},
            "fixed_ips[0]: 10.0.9.1 lies outside subnet 's' (10.0.0.0/24, fd00::/64)",
        ),
        ({"fixed_ips": ["fd01::1"]}, "fixed_ips[0]: fd01::1 lies outside subnet 's'"),
        ({"fixed_ips": ["10.0.0.0"]}, "network or broadcast address of 10.0.0.0/24"),
        ({"fixed_ips": ["10.0.0.255"]}, "network or broadcast address of 10.0.0.0/24"),
        ({"fixed_ips": ["10.0.0.9", "10.0.0.1"]}, "fixed_ips[1]: 10.0.0.1 is the gateway"),
        ({"fixed_ips": ["fd00::1"]}, "fixed_ips[0]: fd00::1 is the gateway of subnet 's'"),
        ({"fixed_ips": ["fd00::7", "fd00:0::7"]}, "address fd00:0::7 is taken by"),
        ({"host": "h3"}, "host: there is no host 'h3'"),
        ({"subnet": "x"}, "subnet: there is no subnet 'x'"),
        ({"security_groups": ["gg"]}, "security_groups[0]: there is no security group 'gg'"),
        ({"security_groups": ["g", "g"]}, "security_groups[1]: security group 'g' is taken by"),
        (
            {"security_groups": ["g"], "port_security": False},
            "a port without port security has no security groups",
        ),
        (
            {"allowed_address_pairs": [{"ip": "10.0.0.9"}], "port_security": False},
            "a port without port security may send from any address",
        ),
        ({"allowed_address_pairs": [{"ip": "10.0.0.9/24"}]}, "did you mean 10.0.0.0/24?"),
        ({"allowed_address_pairs": [{"ip": "x"}]}, "not an IP prefix"),
        (
            {"allowed_address_pairs": [{"ip": "10.0.0.9", "mac": "ff:ff:ff:ff:ff:ff"}]},
            ".allowed_address_pairs[0]: mac: MAC ff:ff:ff:ff:ff:ff is a multicast address",
        ),
        (
            {"allowed_address_pairs": [{"ip": "10.0.0.9"}, {"ip": "10.0.0.9/32"}]},
            ".allowed_address_pairs[1]: the pair 10.0.0.9/32 with fa:16:3e:00:00:0a is taken by",
        ),
        ({"allowed_address_pairs": [{}]}, ".allowed_address_pairs[0]: ip is missing"),
        ({"allowed_address_pairs": [{"ip": "::", "max": "x"}]}, "did you mean 'mac'?"),
        ({"fixed_ip": "10.0.0.9"}, "unknown key 'fixed_ip'; did you mean 'fixed_ips'?"),
        ({"fixed_ips": "10.0.0.9"}, "fixed_ips: must be a list, not a string"),
        ({"fixed_ips": None}, "must be a list, not nothing (write [] for an empty list)"),
        ({"fixed_ips": [7]}, "fixed_ips[0]: must be a string, not a whole number"),
        ({"port_security": "no"}, "port_security: must be true or false, not a string"),
    ],
)
def test_ports(given, reason):
    error = only_error(ports=[port(10, **given)])
    assert error.startswith(PORT)
    assert reason in error


def test_a_number_where_text_belongs_says_to_quote_it():
    error = only_error(ports=[port(10, mac=101112131415)])
    assert error == f"{PORT}: mac: must be a string, not a whole number (put it in quotes)"


@pytest.mark.parametrize("missing", ["host", "subnet", "mac"])
def test_a_port_needs_these(missing):
    given = port(10)
    del given[missing]
    assert only_error(ports=[given]) == f"{PORT}: {missing} is missing"


def test_an_item_without_an_id_is_named_by_its_number():
    given = port(10)
    del given["id"]
    assert only_error(ports=[given]) == "vpcs[0].ports[0]: id is missing"
    (error,) = errors_of(goal_state(vpc(), "x"))
    assert error.startswith("vpcs[1]: must be a mapping with id, subnets,")
    assert error.endswith("not a string")


@pytest.mark.parametrize("identity", ["", "a/b", "a b", "-a", "x" * 65, "ä", "a\n"])
def test_identifiers(identity):
    error = only_error(ports=[port(10, id=identity)])
    assert f"port id {identity!r} is no identifier" in error


class TestUniqueness:
    def test_two_neighbors_with_one_address(self):
        error = only_error(ports=[port(10), port(11, fixed_ips=["fd00::5", "10.0.0.10"])])
        assert error == (
            "vpcs[0].ports[1] (port 'vm11'): fixed_ips[1]: address 10.0.0.10 is taken by"
            f" {PORT}: fixed_ips[0]"
        )

    def test_two_neighbors_with_one_address_in_subnets_that_overlap(self):
        subnets = [subnet(), subnet(id="t", vni=7)]
        error = only_error(
            subnets=subnets, ports=[port(10), port(11, subnet="t", fixed_ips=["10.0.0.10"])]
        )
        assert "address 10.0.0.10 is taken by" in error

    def test_two_ports_with_one_mac_in_a_subnet(self):
        error = only_error(ports=[port(10), port(11, mac="FA-16-3E-00-00-0A")])
        assert "mac FA-16-3E-00-00-0A in subnet 's' is taken by" in error
        subnets = [subnet(), T]
        other = port(11, mac=port(10)["mac"], subnet="t", fixed_ips=["10.0.1.11"])
        assert compile_goal_state(goal_state(vpc(subnets=subnets, ports=[port(10), other])))

    def test_port_ids_over_all_vpcs(self):
        twin = vpc(id="w", subnets=[subnet(vni=2)], security_groups=[], ports=[port(10)])
        (error,) = errors_of(goal_state(vpc(), twin))
        assert error == f"vpcs[1].ports[0] (port 'vm10'): port id 'vm10' is taken by {PORT}"

    def test_group_ids_over_all_vpcs(self):
        twin = vpc(id="w", subnets=[], ports=[])
        (error,) = errors_of(goal_state(vpc(), twin))
        assert error.endswith(f"security group id 'g' is taken by {GROUP}")

    def test_vnis_over_all_vpcs(self):
        twin = vpc(id="w", security_groups=[], ports=[])
        (error,) = errors_of(goal_state(vpc(), twin))
        assert error == f"vpcs[1].subnets[0] (subnet 's'): vni 100 is taken by {SUBNET}"

    def test_ids_of_vpcs_subnets_routers_and_hosts(self):
        double = {"id": "r"}
        document = goal_state(
            vpc(subnets=[subnet(), subnet(vni=7)], routers=[double, double]),
            {"id": "v"},
            hosts=[
                {"id": "h1", "tunnel_ip": "192.0.2.1"},
                {"id": "h1", "tunnel_ip": "192.0.2.2"},
            ],
        )
        found = errors_of(document)
        assert [error.partition(": ")[2] for error in found] == [
            "host id 'h1' is taken by hosts[0] (host 'h1')",
            f"subnet id 's' is taken by {SUBNET}",
            f"router id 'r' is taken by {ROUTER}",
            "vpc id 'v' is taken by vpcs[0] (vpc 'v')",
        ]

    def test_tunnel_addresses(self):
        hosts = [{"id": "h1", "tunnel_ip": "192.0.2.1"}, {"id": "h2", "tunnel_ip": "192.0.2.1"}]
        (error,) = errors_of(goal_state(vpc(), hosts=hosts))
        assert error == "hosts[1] (host 'h2'): tunnel_ip 192.0.2.1 is taken by hosts[0] (host 'h1')"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"tunnel_ip": "192.0.2"}, "tunnel_ip: '192.0.2': not an IP address"),
        ({"group": "a/b"}, "group 'a/b' is no identifier"),
        ({"group": 7}, "group: must be a string, not a whole number"),
        ({"tunnel": "x"}, "unknown key 'tunnel'; did you mean 'tunnel_ip'?"),
    ],
)
def test_hosts(given, reason):
    hosts = [{"id": "h1", "tunnel_ip": "192.0.2.1"} | given]
    (error,) = errors_of(goal_state(vpc(), hosts=hosts))
    assert error.startswith("hosts[0] (host 'h1'): ")
    assert reason in error


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"vni": 0}, "vni 0 is not in 1..16777215"),
        ({"vni": 1 << 24}, "vni 16777216 is not in 1..16777215"),
        ({"vni": "100"}, "vni: must be a whole number, not a string"),
        ({"vni": True}, "vni: must be a whole number, not true or false"),
        ({"cidrs": ["10.0.0.0/33", "fd00::/64"]}, "cidrs[0]: '10.0.0.0/33': the prefix length"),
        ({"cidrs": ["10.0.0.1/24", "fd00::/64"]}, "did you mean 10.0.0.0/24?"),
        ({"cidrs": ["10.0.0.0", "fd00::/64"]}, "'10.0.0.0' has no prefix length"),
        ({"cidrs": ["10.0.0.0/24", "10.1.0.0/24"], "gateways": []}, "cidrs[1]: 10.1.0.0/24 is a second"),
        ({"cidrs": [], "gateways": []}, "cidrs is empty"),
        ({"gateways": ["10.0.1.1"]}, "gateways[0]: 10.0.1.1 lies outside the subnet (10.0.0.0/24,"),
        ({"gateways": ["10.0.0.1", "10.0.0.2"]}, "gateways[1]: 10.0.0.2 is a second gateway"),
        ({"gateways": ["10.0.0.255"]}, "network or broadcast address"),
        ({"gateways": ["10.0.0"]}, "gateways[0]: '10.0.0': not an IP address"),
        ({"gateway_mac": "x"}, "gateway_mac: 'x': not a MAC"),
        ({"gateway_mac": "ff:00:00:00:00:01"}, "gateway_mac: MAC ff:00:00:00:00:01 is a multicast"),
        ({"gateway_mac": "02:00:00:00:00:01", "gateways": []}, "has no meaning without gateways"),
        ({"gateway": "10.0.0.1"}, "unknown key 'gateway'; did you mean 'gateways'?"),
    ],
)  # fmt: skip
def test_subnets(given, reason):
    error = only_error(subnets=[subnet(**given)])
    assert error.startswith(SUBNET)
    assert reason in error


def test_network_and_broadcast_address_of_point_to_point_subnets_are_usable():
    """RFC 3021."""
    both = subnet(cidrs=["10.0.0.0/31"], gateways=["10.0.0.0"])
    assert compile_goal_state(
        goal_state(vpc(subnets=[both], ports=[port(10, fixed_ips=["10.0.0.1"])]))
    )


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"subnets": ["s", "x"]}, "subnets[1]: there is no subnet 'x'"),
        ({"subnets": ["s", "s"]}, "subnets[1]: subnet 's' is taken by"),
        ({"subnets": ["bare"]}, "subnets[0]: subnet 'bare' has no gateways"),
        (
            {"subnets": ["s", "inner"]},
            "subnets 's' (10.0.0.0/24) and 'inner' (10.0.0.128/25) overlap",
        ),
        ({"routes": [{"to": "10.9.0.0/16", "via": "10.9.0.1"}]}, "lies in none of the router's"),
        ({"routes": [{"to": "10.9.0.0/16", "via": "10.0.0.1"}]}, "an address of the router itself"),
        ({"routes": [{"to": "10.9.0.0/16", "via": "fd00::9"}]}, "different families"),
        ({"routes": [{"to": "10.9.0.1/16", "via": "10.0.0.9"}]}, "to: '10.9.0.1/16'"),
        ({"routes": [{"to": "10.9.0.0/16", "via": "10.0.0.9/24"}]}, "via: '10.0.0.9/24'"),
        ({"routes": [{"to": "10.0.0.0/24", "via": "10.0.0.9"}]}, "a subnet of the router itself"),
        ({"routes": [{"via": "10.0.0.9"}]}, ".routes[0]: to is missing"),
        (
            {"routes": [{"to": "::/0", "via": "fd00::9"}, {"to": "0::/0", "via": "fd00::8"}]},
            ".routes[1]: the route to ::/0 is taken by",
        ),
    ],
)
def test_routers(given, reason):
    subnets = [
        subnet(),
        subnet(id="bare", vni=5, cidrs=["10.5.0.0/24"], gateways=[]),
        subnet(id="inner", vni=6, cidrs=["10.0.0.128/25"], gateways=["10.0.0.129"]),
    ]
    error = only_error(subnets=subnets, routers=[{"id": "r", "subnets": ["s"]} | given])
    assert error.startswith(ROUTER)
    assert reason in error


def test_a_subnet_on_two_routers():
    routers = [{"id": "r", "subnets": ["s"]}, {"id": "r2", "subnets": ["s"]}]
    error = only_error(routers=routers)
    assert error == (
        f"vpcs[0].routers[1] (router 'r2'): subnets[0]: subnet 's' is taken by {ROUTER}: subnets[0]"
    )


def test_overlapping_subnets_of_different_routers_are_allowed():
    subnets = [subnet(), subnet(id="t", vni=7)]
    routers = [{"id": "r", "subnets": ["s"]}, {"id": "r2", "subnets": ["t"]}]
    assert compile_goal_state(goal_state(vpc(subnets=subnets, routers=routers)))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"direction": "in"}, "direction: must be one of ingress, egress, not 'in'"),
        ({"direction": None}, "direction: must be"),
        ({"ethertype": "ipv4"}, "ethertype: must be one of IPv4, IPv6, not 'ipv4'"),
        ({"protocol": "tpc"}, "protocol 'tpc' is none of any, tcp, udp,"),
        ({"protocol": "TCP"}, "did you mean 'tcp'?"),
        ({"protocol": "6"}, "protocol '6' is none of"),
        ({"protocol": 256}, "protocol 256 is not in 0..255"),
        ({"protocol": -1}, "protocol -1 is not in 0..255"),
        ({"protocol": 6.5}, "protocol: must be"),
        ({"protocol": "icmpv6"}, "protocol 'icmpv6' needs 'ethertype: IPv6'"),
        ({"protocol": 58}, "protocol 58 needs 'ethertype: IPv6'"),
        ({"ports": 80}, "ports go with protocol tcp, udp or sctp only"),
        ({"ports": 80, "protocol": "icmp"}, "ports go with protocol tcp, udp or sctp only"),
        ({"ports": 65536, "protocol": "tcp"}, "ports 65536 must be a port or a range"),
        ({"ports": -1, "protocol": "tcp"}, "ports -1 must be a port or a range"),
        ({"ports": "90-80", "protocol": "tcp"}, "ports '90-80' must be a port or a range"),
        ({"ports": "80,90", "protocol": "udp"}, "ports '80,90' must be a port or a range"),
        ({"ports": "80-", "protocol": "udp"}, "ports '80-' must be a port or a range"),
        ({"ports": "1-65536", "protocol": 132}, "ports '1-65536' must be a port or a range"),
        ({"icmp_type": 8}, "icmp_type and icmp_code go with protocol icmp or icmpv6 only"),
        ({"icmp_type": 8, "protocol": "tcp"}, "icmp_type and icmp_code go with protocol icmp"),
        ({"icmp_type": 256, "protocol": "icmp"}, "icmp_type 256 is not in 0..255"),
        ({"icmp_type": 3, "icmp_code": -1, "protocol": "icmp"}, "icmp_code -1 is not in 0..255"),
        ({"icmp_code": 0, "protocol": "icmp"}, "icmp_code needs an icmp_type"),
        ({"remote_prefix": "10.0.0.0/33"}, "remote_prefix: '10.0.0.0/33': the prefix length"),
        ({"remote_prefix": "10.0.0.1/8"}, "did you mean 10.0.0.0/8?"),
        ({"remote_prefix": "::/0", "ethertype": "IPv4"}, "remote_prefix ::/0 is no IPv4 prefix"),
        ({"remote_prefix": "0.0.0.0/0", "ethertype": "IPv6"}, "is no IPv6 prefix"),
        ({"remote_group": "x"}, "remote_group: there is no security group 'x'"),
        ({"remote_group": "g", "remote_prefix": "10.0.0.0/8"}, "exclude each other"),
        ({"port": 80}, "unknown key 'port'; did you mean 'ports'?"),
        ({"id": "a/b"}, "rule id 'a/b' is no identifier"),
    ],
)
def test_rules(given, reason):
    error = only_error(security_groups=[group(rule(**given))])
    assert error.startswith(RULE)
    assert reason in error


def test_a_remote_group_of_another_vpc_is_unknown():
    other = vpc(id="w", subnets=[], ports=[], security_groups=[group(id="far")])
    near = vpc(security_groups=[group(rule(remote_group="far"))])
    (error,) = errors_of(goal_state(near, other))
    assert "there is no security group 'far'" in error


def test_two_rules_that_say_the_same():
    """Neutron refuses these too, whatever their ids."""
    web = {"protocol": "tcp", "ports": 80}
    for one, two in (({}, {}), ({"id": "a"}, {"id": "b"}), ({"id": "a"}, {})):
        rules = rule(**web, **one), rule(**web | {"ethertype": "IPv4"}, **two)
        error = only_error(security_groups=[group(*rules)])
        assert "rules[1]" in error
        assert f"what this rule says is taken by {RULE}" in error


def test_two_rules_with_one_id():
    rules = rule(id="a", protocol="tcp"), rule(id="a", protocol="udp")
    error = only_error(security_groups=[group(*rules)])
    assert f"rule id 'a' is taken by {RULE} (rule 'a')" in error


def test_the_document_itself():
    assert errors_of(["hosts"]) == ("top level: must be a mapping with hosts, vpcs, not a list",)
    assert errors_of({"vpc": []}) == ("top level: unknown key 'vpc'; did you mean 'vpcs'?",)
    assert errors_of({"hosts": {}, "vpcs": 7}) == (
        "top level: hosts: must be a list, not a mapping",
        "top level: vpcs: must be a list, not a whole number",
    )


def test_all_mistakes_are_told_at_once():
    document = goal_state(
        vpc(
            subnets=[subnet(vni=0), T | {"extra": 1}],
            routers=[{"id": "r", "subnets": ["s", "nowhere"]}],
            security_groups=[group(rule(protocol="tpc", ports=80, remote_group="who"))],
            ports=[
                port(10, mac="x", host="h9", fixed_ips=["10.0.0.300"]),
                port(11, color="red", flavor="large", security_groups=["who"]),
            ],
        ),
        hosts=[{"id": "h1", "tunnel_ip": "x"}, {"tunnel_ip": "192.0.2.2"}],
    )
    found = errors_of(document)
    assert [error.partition(": ")[2].partition(";")[0] for error in found] == [
        "id is missing",
        "tunnel_ip: 'x': not an IP address",
        "unknown key 'extra'",
        "vni 0 is not in 1..16777215",
        "subnets[1]: there is no subnet 'nowhere'",
        "remote_group: there is no security group 'who'",
        "protocol 'tpc' is none of any, tcp, udp, sctp, icmp, icmpv6 and no number 0..255",
        "unknown key 'color'",
        "unknown key 'flavor'",
        "host: there is no host 'h9'",
        "mac: 'x': not a MAC",
        "fixed_ips[0]: '10.0.0.300': not an IP address",
        "security_groups[0]: there is no security group 'who'",
    ]


def test_what_refers_to_something_broken_is_no_second_mistake():
    document = goal_state(
        vpc(
            subnets=[subnet(vni="x")],
            routers=[{"id": "r", "subnets": ["s"], "routes": [{"to": "::/0", "via": "fd00::9"}]}],
        ),
        hosts=[{"id": "h1"}],
    )
    assert len(errors_of(document)) == 2


def test_many_mistakes_are_cut_in_the_message_but_not_in_the_list():
    ports = [port(number, mac="x") for number in range(10, 60)]
    with pytest.raises(GoalStateError) as caught:
        compile_goal_state(goal_state(vpc(ports=ports)))
    assert len(caught.value.errors) == 50
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "... and 30 more"


def test_nesting_without_end():
    endless: list[object] = []
    endless.append(endless)
    for document in (
        endless,
        {"vpcs": endless},
        goal_state(vpc(ports=[port(10, fixed_ips=endless)])),
    ):
        assert errors_of_endless(document)


def errors_of_endless(document):
    with pytest.raises(GoalStateError) as caught:
        compile_goal_state(document)
    return caught.value.errors

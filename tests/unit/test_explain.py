"""``ondemand explain``: the answer, what was read for it, and that the agent would do the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from controller_app.cli import cli
from controller_app.explain import explain
from controller_app.explain_flow import FlowError, parse_flow
from controller_app.explain_hosts import ExplainError
from controller_app.explain_packet import conntrack_refuses
from controller_app.explain_text import json_of, packet_fields, text_of
from controller_app.explain_words import REASONS
from controller_app.goal_state_file import load_goal_state
from controller_app.sqlite_store import SqliteStore
from ondemand.codec import encode_record
from ondemand.goal_state import compile_goal_state, encode_slices
from ondemand.records import HostGroup
from ondemand.slices import SourceError
from ondemand.verdict import Reason
from rule_cache.fields import CtState
from tests.support.agent_on_store import AgentOnStore, missed
from tests.support.frame_builder import build_icmp6, build_sctp4, build_tcp4
from tests.support.goal_states import goal_state, group, port, rule, subnet, vpc

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "two-subnets.yaml"


@pytest.fixture(scope="module")
def store_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "slices.db"
    with SqliteStore(path, writer=True) as store:
        store.publish(load_goal_state(EXAMPLE), replace_all=True)
    return path


@pytest.fixture(scope="module")
def store(store_path):
    with SqliteStore(store_path) as opened:
        yield opened


@pytest.fixture
def store_of(tmp_path):
    """A store of a goal state made for one test."""
    opened = []

    def make(document):
        store = SqliteStore(tmp_path / f"{len(opened)}.db", writer=True)
        opened.append(store)
        store.publish(encode_slices(compile_goal_state(document)), replace_all=True)
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def command(store_path):
    def run(*arguments, code=0, path=store_path):
        result = CliRunner().invoke(cli, ["explain", "--store", str(path), *arguments])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return run


def steps(found):
    return [(step.name, step.host, step.allowed) for step in found.steps]


def reasons(found):
    return None if found.denial is None else (found.denial.name, found.denial.reason)


# -- the answer --------------------------------------------------------------------------------------


def test_allowed_across_hosts_and_subnets(store):
    found = explain(store, "web-1", "tcp,nw_dst=10.0.2.10,tp_dst=5432")
    assert steps(found) == [
        ("resolve", "host-1", True),
        ("source", "host-1", True),
        ("egress", "host-1", True),
        ("location", "host-1", True),
        ("ingress", "host-3", True),
        ("way back", "host-3", True),
    ]
    egress, location, ingress = found.steps[2:5]
    assert (egress.rule.group, egress.rule.rule) == ("web", "out")
    assert (ingress.rule.group, ingress.rule.rule) == ("database", "sql")
    assert ingress.rule.fields["remote_group"] == "web"
    assert location.sentence == "port database-1 by tunnel to 192.0.2.13, VNI 5002, routed"
    assert found.problems == ()


def test_every_record_read_is_told_absences_too(store):
    found = explain(store, "web-1", "tcp,nw_dst=10.0.2.10,tp_dst=5432")
    reads = {
        (step.name, read.slice, read.key): read.record
        for step in found.steps
        for read in step.reads
    }
    assert reads["egress", "hostgroup/rack-1", "port/web-1"]["mac"] == "fa:16:3e:00:01:0a"
    assert reads["egress", "sg/web", ""]["rules"] == 4
    assert reads["location", "nbr/shop/10.0.2.0", "ip/10.0.2.10"]["host"] == "192.0.2.13"
    assert reads["location", "host/host-1", "port/database-1"] is None
    assert reads["location", "vpc/shop", "topology"]["subnets"] == ["back", "front"]
    assert reads["ingress", "nbr/shop/10.0.1.0", "ip/10.0.1.10"]["groups"] == ["operations", "web"]


@pytest.mark.parametrize(
    ("port_id", "flow", "reason"),
    [
        ("web-1", "tcp,nw_dst=10.0.1.11,tp_dst=80", None),
        ("web-1", "tcp6,ipv6_dst=fd00:1::11,tcp_dst=80", None),
        ("web-1", "tcp6,ipv6_dst=fd00:2::10,tp_dst=5432", None),
        ("web-1", "tcp,nw_dst=10.0.2.10,tp_dst=5433", ("ingress", "no_rule")),
        ("web-1", "udp,nw_dst=10.0.2.10,tp_dst=5432", ("ingress", "no_rule")),
        ("web-1", "udp,nw_dst=10.0.2.10,tp_dst=33500", None),
        ("database-1", "udp,nw_dst=10.0.2.53,tp_dst=53", ("resolve", "unknown_neighbor")),
        ("database-1", "tcp,nw_dst=10.0.1.10,tp_dst=80", ("egress", "no_rule")),
        ("web-1", "icmp,nw_dst=10.0.1.1", None),
        ("web-1", "icmp6,ipv6_dst=fd00:1::1", None),
        ("web-1", "tcp,nw_dst=10.0.1.1,tp_dst=22", ("location", "gateway")),
        ("web-1", "icmp,nw_dst=10.0.2.1", None),
        ("web-1", "tcp,nw_dst=10.0.1.77,tp_dst=80", ("resolve", "unknown_neighbor")),
        ("web-1", "tcp,nw_dst=10.0.2.77,tp_dst=80", ("location", "unknown_neighbor")),
        ("web-1", "tcp,nw_dst=8.8.8.8,tp_dst=80", ("location", "no_route")),
        ("web-1", "tcp,nw_dst=172.16.9.9,tp_dst=80", None),
        ("web-1", "nw_proto=47,nw_dst=10.0.2.99", None),
        ("web-1", "nw_proto=47,nw_dst=10.0.1.11", ("ingress", "no_rule")),
        ("web-1", "sctp,nw_dst=10.0.2.99,tp_dst=3868", None),
        ("web-1", "tcp,nw_src=10.0.1.99,nw_dst=10.0.1.11,tp_dst=80", ("source", "port_security")),
        ("web-1", "tcp,nw_src=10.0.1.100,nw_dst=10.0.1.11,tp_dst=80", None),
        ("web-1", "tcp,dl_src=02:00:00:00:00:01,nw_dst=10.0.1.11,tp_dst=80", ("source", "port_security")),
        ("web-1", "tcp,dl_dst=02:00:00:00:00:01,nw_dst=10.0.1.11,tp_dst=80", ("location", "unknown_mac")),
        ("vpn", "tcp,nw_src=172.16.3.3,nw_dst=10.0.2.10,tp_dst=22", ("ingress", "no_rule")),
        ("vpn", "tcp,nw_dst=10.0.2.10,tp_dst=22", None),
        ("web-1", "icmp6,icmp_type=134,ipv6_dst=ff02::1", ("source", "port_security")),
        ("web-1", "icmp6,icmp_type=128,ipv6_dst=ff02::1", ("location", "multicast")),
        ("web-1", "udp,nw_src=0.0.0.0,nw_dst=255.255.255.255,tp_src=68,tp_dst=67", ("location", "multicast")),
        ("web-1", "udp,nw_dst=10.0.1.11,tp_src=67,tp_dst=68", ("egress", "dhcp_server")),
        ("web-1", "icmp,icmp_type=3,nw_dst=10.0.1.11", ("egress", "invalid_state")),
        ("web-1", "icmp,icmp_type=0,nw_dst=10.0.1.11", ("egress", "invalid_state")),
        ("web-1", "tcp,nw_dst=10.0.1.10,tp_dst=80", ("resolve", "own_address")),
        ("web-1", "arp,arp_tpa=10.0.1.1", None),
        ("web-1", "arp,arp_tpa=10.0.1.77", ("resolve", "unknown_neighbor")),
        ("web-1", "arp,arp_tpa=10.0.2.10", ("resolve", "not_in_subnet")),
        ("web-1", "icmp6,icmp_type=135,nd_target=fd00:1::11", None),
        ("web-1", "tcp6,ipv6_dst=fe80::1,tp_dst=1", ("resolve", "not_in_subnet")),
    ],
)  # fmt: skip
def test_the_answer(store, port_id, flow, reason):
    found = explain(store, port_id, flow)
    assert reasons(found) == reason
    assert json.loads(json.dumps(json_of(found)))["allowed"] == (reason is None)
    assert text_of(found)


def test_a_port_that_is_elsewhere_is_no_missing_record(store):
    found = explain(store, "web-1", "tcp,nw_dst=10.0.2.10,tp_dst=5432")
    step = next(step for step in found.steps if step.name == "location")
    absent = [read for read in step.reads if read.record is None]
    assert [(read.slice, read.key) for read in absent] == [("host/host-1", "port/database-1")]
    text = text_of(found)
    assert "read host/host-1 port/database-1: absent (not a port of this host)\n" in text
    assert "read host/host-3 port/web-1: absent (not a port of this host)\n" in text  # way back
    # Other records that are absent are just that.
    unknown = text_of(explain(store, "web-1", "tcp,nw_dst=10.0.2.77,tp_dst=80"))
    assert "nbr/shop/10.0.2.0 ip/10.0.2.77: absent\n" in unknown


def test_a_group_that_was_not_needed_is_not_said_to_be_absent(store):
    found = explain(store, "web-1", "tcp,nw_dst=10.0.2.10,tp_dst=5432")
    text = text_of(found)
    # Of database-1's groups the first allows it; the other one exists and was not asked for.
    assert "     sg/operations: not needed, so not read\n" in text
    assert "sg/operations: absent" not in text
    # web-1 needed both, on its own host.
    assert "     read sg/operations: rules=4\n" in text
    steps = {step["step"]: step["reads"] for step in json_of(found)["steps"]}
    assert {read["slice"]: read["needed"] for read in steps["ingress"]} == {
        "host/host-3": True,
        "sg/database": True,
        "sg/operations": False,
        "nbr/shop/10.0.1.0": True,
    }


def test_a_group_that_does_not_exist_is_absent(store_path, tmp_path):
    path = tmp_path / "slices.db"
    path.write_bytes(store_path.read_bytes())
    with SqliteStore(path, writer=True) as opened:
        opened.publish({"sg/operations": {}}, replace_all=False)
        found = explain(opened, "web-1", "tcp,nw_dst=10.0.1.11,tp_dst=23")
    assert reasons(found) == ("ingress", "group_missing")
    assert "     read sg/operations: absent\n" in text_of(found)
    groups = [read for read in json_of(found)["steps"][-1]["reads"] if read["slice"][:3] == "sg/"]
    assert [(read["record"] is None, read["needed"]) for read in groups] == [
        (True, True),
        (False, True),
    ]


def test_a_port_of_the_group_that_is_on_another_host_is_not_plugged_here(store):
    found = explain(store, "web-1", "tcp,nw_dst=10.0.1.11,tp_dst=80")
    assert "read hostgroup/rack-1 port/web-2: not plugged on this host\n" in text_of(found)


def test_a_denial_says_whom_the_rules_are_for(store):
    found = explain(store, "vpn", "tcp,nw_src=172.16.3.3,nw_dst=10.0.2.10,tp_dst=5432")
    (remark,) = found.denial.remarks
    assert "members of web (database/sql)" in remark
    assert remark.endswith("172.16.3.3 is none of them")
    found = explain(store, "web-1", "tcp,nw_dst=10.0.2.10,tp_dst=22")
    assert "10.0.2.0/24 (operations/ssh)" in found.denial.remarks[0]
    found = explain(store, "web-1", "udp,nw_dst=10.0.2.10,tp_dst=9")
    assert found.denial.remarks[0] == (
        "no ingress IPv4 rule of database, operations is about this protocol and port"
    )


def test_a_vm_sends_from_what_is_its_own_and_to_whom_arp_tells(store):
    found = explain(store, "web-1", "udp,nw_dst=10.0.1.11,tp_dst=53")
    assert packet_fields(found.packet) == {
        "dl_src": "fa:16:3e:00:01:0a",
        "dl_dst": "fa:16:3e:00:01:0b",
        "dl_type": "0x0800",
        "nw_src": "10.0.1.10",
        "nw_dst": "10.0.1.11",
        "nw_proto": 17,
        "tp_src": 49152,
        "tp_dst": 53,
        "reply": False,
    }
    routed = explain(store, "database-1", "icmp6,ipv6_dst=fd00:1::10")
    assert packet_fields(routed.packet)["dl_dst"] == "02:00:5e:00:00:02"
    assert packet_fields(routed.packet)["icmp_type"] == 128


# -- replies -----------------------------------------------------------------------------------------


def test_a_reply_is_judged_like_the_connection(store):
    flow = "tcp,nw_dst=10.0.1.10,tp_src=5432,tp_dst=40000"
    # A connection of its own, from the same port to the same place, may not be.
    assert reasons(explain(store, "database-1", flow)) == ("egress", "no_rule")
    found = explain(store, "database-1", flow, reply=True)
    assert reasons(found) is None
    assert steps(found)[2:] == [
        ("egress", "host-3", True),
        ("location", "host-3", True),
        ("ingress", "host-1", True),
    ]
    assert [step.rule.rule for step in found.steps if step.rule] == ["sql", "out"]
    assert "ct_state=+rpl-inv+trk" in found.flows("host-3")[1]
    assert "ct_nw_src=10.0.1.10" in found.flows("host-3")[1]


def test_a_reply_to_what_was_never_allowed_is_denied(store):
    found = explain(store, "database-1", "tcp,nw_dst=10.0.1.10,tp_src=22", reply=True)
    assert reasons(found) == ("egress", "no_rule")


def test_a_reply_to_a_ping(store):
    found = explain(store, "web-2", "icmp,nw_dst=10.0.1.10", reply=True)
    assert reasons(found) is None
    assert packet_fields(found.packet)["icmp_type"] == 0
    assert any("ct_tp_src=8,ct_tp_dst=0" in flow for flow in found.flows("host-2"))


@pytest.mark.parametrize(
    ("flow", "sentence"),
    [
        ("tcp,nw_dst=10.0.1.10", "tp_src=PORT"),
        ("sctp,nw_dst=10.0.1.10,tp_src=1,tp_dst=1", "does not for SCTP"),
        ("nw_proto=47,nw_dst=10.0.1.10", "judged one by one"),
        ("icmp,icmp_type=8,nw_dst=10.0.1.10", "ICMP type 8 answers no request"),
        ("arp,arp_tpa=10.0.1.1", "have none"),
    ],
)
def test_what_is_no_reply(store, flow, sentence):
    with pytest.raises(FlowError, match=sentence):
        explain(store, "web-2", flow, reply=True)


# -- the agent would do the same ---------------------------------------------------------------------


NEW = CtState.TRK | CtState.NEW
GATEWAY_MAC = "02:67:77:00:13:89"
SENT = [
    (
        "tcp,nw_dst=10.0.2.10,tp_src=40000,tp_dst=5432",
        build_tcp4(src="10.0.1.10", dst="10.0.2.10", tp_src=40000, tp_dst=5432, eth_src="fa:16:3e:00:01:0a", eth_dst=GATEWAY_MAC),
        ("10.0.1.10", "10.0.2.10", 6, (40000, 5432), NEW),
    ),
    (
        "tcp,nw_dst=8.8.8.8,tp_src=40000,tp_dst=53",
        build_tcp4(src="10.0.1.10", dst="8.8.8.8", tp_src=40000, tp_dst=53, eth_src="fa:16:3e:00:01:0a", eth_dst=GATEWAY_MAC),
        ("10.0.1.10", "8.8.8.8", 6, (40000, 53), NEW),
    ),
    (
        "icmp6,ipv6_dst=fd00:1::11",
        build_icmp6(src="fd00:1::10", dst="fd00:1::11", eth_src="fa:16:3e:00:01:0a", eth_dst="fa:16:3e:00:01:0b"),
        ("fd00:1::10", "fd00:1::11", 58, (128, 0), NEW),
    ),
    (
        "sctp,nw_dst=10.0.1.11,tp_src=1000,tp_dst=3868",
        build_sctp4(src="10.0.1.10", dst="10.0.1.11", tp_src=1000, tp_dst=3868, eth_src="fa:16:3e:00:01:0a", eth_dst="fa:16:3e:00:01:0b"),
        ("10.0.1.10", "10.0.1.11", 132, (1000, 3868), 0),
    ),
]  # fmt: skip


@pytest.mark.parametrize("connection", [False, True])
@pytest.mark.parametrize(("flow", "frame", "tracked"), SENT, ids=[flow for flow, _, _ in SENT])
def test_the_senders_agent_installs_these_rules(store, flow, frame, tracked, connection):
    agent = AgentOnStore(store, "host-1", "192.0.2.11", "web-1", match_connection=connection)
    agent.engine.tunnel_plugged(2)
    agent.serve()
    source, target, proto, ports, state = tracked
    installed = agent.rules_for(
        missed(30, frame, source=source, target=target, proto=proto, ports=ports, state=state, vni=5001, source_zone=1)
    )  # fmt: skip
    found = explain(store, "web-1", flow, match_connection=connection)
    # A VM asks for the MAC first, which the frame of this test already has.
    expected = [
        f for s in found.steps if s.host == "host-1" and s.name != "resolve" for f in s.flows
    ]
    assert sorted(expected) == sorted(installed)
    assert installed


@pytest.mark.parametrize("tp_dst", [5432, 22])
def test_the_receivers_agent_installs_these_rules(store, tp_dst):
    agent = AgentOnStore(store, "host-3", "192.0.2.13", "database-1", match_connection=False)
    agent.engine.tunnel_plugged(3)
    agent.serve()
    frame = build_tcp4(
        src="10.0.1.10", dst="10.0.2.10", tp_src=40000, tp_dst=tp_dst, eth_src="02:00:5e:00:00:02", eth_dst="fa:16:3e:00:02:0a"
    )  # fmt: skip
    installed = agent.rules_for(
        missed(80, frame, source="10.0.1.10", target="10.0.2.10", proto=6, ports=(40000, tp_dst), state=NEW, target_zone=1, in_port=3)
    )  # fmt: skip
    found = explain(store, "web-1", f"tcp,nw_dst=10.0.2.10,tp_dst={tp_dst}")
    assert sorted(found.flows("host-3")) == sorted(installed)
    assert installed


# -- other goal states -------------------------------------------------------------------------------

ANY_EGRESS = rule(direction="egress")


def test_two_ports_of_one_host(store_of):
    web = group(rule(protocol="tcp", ports=80), ANY_EGRESS, id="web")
    store = store_of(
        goal_state(
            vpc(
                subnets=[subnet()],
                security_groups=[web],
                ports=[port(11, security_groups=["web"]), port(12, security_groups=["web"])],
            )
        )
    )
    found = explain(store, "vm11", "tcp,nw_dst=10.0.0.12,tp_dst=80")
    assert [(step.name, step.port) for step in found.steps][3:] == [
        ("location", "vm11"),
        ("ingress", "vm12"),
        ("way back", "vm12"),
    ]
    assert len(found.views) == 1
    assert any("reg7=0x2" in flow for flow in found.flows("h1"))
    assert reasons(explain(store, "vm11", "tcp,nw_dst=10.0.0.12,tp_dst=81")) == (
        "ingress",
        "no_rule",
    )


def test_a_port_without_groups_and_one_with_a_group_that_is_gone(store_of):
    document = goal_state(
        vpc(
            subnets=[subnet()],
            security_groups=[group(ANY_EGRESS, id="web")],
            ports=[port(11), port(12, security_groups=["web"]), port(13)],
        )
    )
    store = store_of(document)
    found = explain(store, "vm11", "tcp,nw_dst=10.0.0.13,tp_dst=80")
    assert found.denial.remarks == ("the port is in no security group, and so nothing is allowed",)
    store.write("sg/web", dict.fromkeys(store.snapshot("sg/web").records))
    found = explain(store, "vm12", "tcp,nw_dst=10.0.0.13,tp_dst=80")
    assert reasons(found) == ("egress", "group_missing")
    assert found.denial.remarks == ("these groups do not exist: web",)
    assert [read.record for read in found.denial.reads if read.slice == "sg/web"] == [None]


def test_a_bad_record_counts_as_missing_and_is_told(store_of):
    document = goal_state(
        vpc(
            subnets=[subnet()],
            security_groups=[group(ANY_EGRESS, id="web")],
            ports=[port(11, security_groups=["web"]), port(12)],
        )
    )
    store = store_of(document)
    store.write("nbr/v/10.0.0.0", {"ip/10.0.0.12": b"\x93rubbish"})
    found = explain(store, "vm11", "tcp,nw_dst=10.0.0.12,tp_dst=80")
    assert reasons(found) == ("resolve", "unknown_neighbor")
    assert len(found.problems) == 1
    assert "'ip/10.0.0.12' of slice 'nbr/v/10.0.0.0'" in found.problems[0]
    assert "warning: " in text_of(found)


def test_a_neighbor_whose_host_has_no_such_port(store_of):
    document = goal_state(
        vpc(
            subnets=[subnet()],
            security_groups=[group(ANY_EGRESS, id="web")],
            ports=[port(11, security_groups=["web"]), port(12, host="h2")],
        )
    )
    store = store_of(document)
    store.write("host/h2", {"port/vm12": None})
    found = explain(store, "vm11", "tcp,nw_dst=10.0.0.12,tp_dst=80")
    assert reasons(found) == ("ingress", "unknown_port")


def test_a_port_that_cannot_be_active_is_an_error(store_of):
    store = store_of(goal_state(vpc(subnets=[subnet()], ports=[port(11)])))
    store.write("vpc/v", {"subnet/s": None})
    with pytest.raises(ExplainError, match=r"subnet 's', which slice 'vpc/v' does not have"):
        explain(store, "vm11", "tcp,nw_dst=10.0.0.12,tp_dst=80")
    store.write("host/h1", {"port/vm11": b"rubbish"})
    with pytest.raises(ExplainError, match=r"port 'vm11' of host 'h1' cannot be used: record"):
        explain(store, "vm11", "tcp,nw_dst=10.0.0.12,tp_dst=80")


def test_a_port_on_two_hosts_must_be_told_apart(store_of):
    store = store_of(goal_state(vpc(subnets=[subnet()], ports=[port(11)])))
    store.write("host/h2", dict(store.snapshot("host/h1").records))
    with pytest.raises(ExplainError, match=r"on the hosts h1, h2: say on which, with --host"):
        explain(store, "vm11", "arp,arp_tpa=10.0.0.1")
    assert explain(store, "vm11", "arp,arp_tpa=10.0.0.1", host="h2").views[0].host == "h2"


def shared_rack(store_of, *ports):
    """Hosts h1 and h2 in one group."""
    web = group(rule(protocol="tcp", ports=80), ANY_EGRESS, id="web")
    document = goal_state(vpc(subnets=[subnet()], security_groups=[web], ports=list(ports)))
    for host in document["hosts"]:
        host["group"] = "rack"
    return store_of(document)


def test_hosts_of_a_group_share_ports_and_each_port_is_on_one_of_them(store_of):
    web = {"security_groups": ["web"]}
    store = shared_rack(store_of, port(11, **web), port(12, host="h2", **web), port(13, **web))
    found = explain(store, "vm11", "tcp,nw_dst=10.0.0.12,tp_dst=80")
    assert [
        (step.name, step.host) for step in found.steps if step.name in ("egress", "ingress")
    ] == [
        ("egress", "h1"),
        ("ingress", "h2"),
    ]
    assert found.views[0].world.tunnel_ip == bytes((192, 0, 2, 1))
    assert set(found.views[0].world.ports) == {"vm11", "vm13"}
    assert set(found.views[1].world.ports) == {"vm12"}
    egress = next(step for step in found.steps if step.name == "egress")
    assert ("hostgroup/rack", "port/vm11") in [(read.slice, read.key) for read in egress.reads]
    # It may be plugged on any of them.
    moved = explain(store, "vm11", "tcp,nw_dst=10.0.0.12,tp_dst=80", host="h2")
    assert set(moved.views[0].world.ports) == {"vm11", "vm12"}


def test_a_port_of_a_group_without_records_that_tell_its_host_is_asked_for_by_host(store_of):
    bare = port(11, fixed_ips=[], security_groups=["web"])
    store = shared_rack(store_of, bare, port(12, security_groups=["web"]))
    with pytest.raises(ExplainError, match=r"on the hosts h1, h2: say on which, with --host"):
        explain(store, "vm11", "arp,arp_spa=10.0.0.11,arp_tpa=10.0.0.1")
    assert (
        explain(store, "vm11", "arp,arp_spa=10.0.0.11,arp_tpa=10.0.0.1", host="h2").views[0].host
        == "h2"
    )
    with pytest.raises(ExplainError, match="no host of the store has a port 'vm21'; did you mean"):
        explain(store, "vm21", "arp,arp_spa=10.0.0.11,arp_tpa=10.0.0.1")


def test_a_membership_that_does_not_say_where_the_host_is(store_of):
    web = {"security_groups": ["web"]}
    store = shared_rack(store_of, port(11, **web), port(12, host="h2", **web))
    for host in ("h1", "h2"):
        store.write(f"host/{host}", {"group/rack": encode_record(HostGroup("rack"))})
    with pytest.raises(ExplainError, match=r"on the hosts h1, h2"):
        explain(store, "vm11", "tcp,nw_dst=10.0.0.12,tp_dst=80")
    view = explain(store, "vm11", "tcp,nw_dst=10.0.0.12,tp_dst=80", host="h1").views[0]
    assert (view.world.tunnel_ip, set(view.world.ports)) == (bytes((192, 0, 2, 1)), {"vm11"})


def test_no_gateway(store_of):
    document = goal_state(
        vpc(
            subnets=[subnet(gateways=[])],
            security_groups=[group(ANY_EGRESS, id="web")],
            ports=[port(11, security_groups=["web"])],
        )
    )
    found = explain(store_of(document), "vm11", "tcp,nw_dst=9.9.9.9,tp_dst=80")
    assert reasons(found) == ("resolve", "no_gateway")


# -- flow text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the flow is empty"),
        (" , ", "the flow is empty"),
        ("tpc,nw_dst=1.1.1.1", "did you mean 'tcp'"),
        ("tcp,nw_dist=1.1.1.1", "unknown field 'nw_dist'; did you mean 'nw_dst'"),
        ("tcp,nw_dst=1.1.1", "nw_dst='1.1.1': not an IP address"),
        (
            "tcp,nw_dst=10.0.0.0/24,tp_dst=1",
            "nw_dst='10.0.0.0/24': a packet has one address, so leave out the mask",
        ),
        ("tcp,nw_dst=10.0.2.10/24", "a packet has one address, so leave out the mask"),
        ("tcp,nw_src=10.0.2.10/255.255.255.0", "a packet has one address"),
        ("tcp6,ipv6_dst=fd00::1/64", "a packet has one address, so leave out the mask"),
        ("tcp6,ipv6_src=fd00::1/32", "a packet has one address, so leave out the mask"),
        ("icmp6,nd_target=fd00::1/64", "a packet has one address, so leave out the mask"),
        ("tcp,nw_dst=10.0.2/32", "nw_dst='10.0.2': not an IP address"),
        ("tcp,dl_dst=fa:16:3e:00:00:01/ff:ff:ff:00:00:00", "a packet has one address"),
        ("tcp,tp_dst=80/0xff", "leave out the mask"),
        (
            "tcp,ipv6_dst=fd00::1",
            "ipv6_dst does not go with tcp, which is IPv4; for IPv6 write tcp6",
        ),
        ("tcp6,nw_dst=1.1.1.1", "for IPv4 write tcp"),
        ("tcp,nw_dst=fd00::1", "write ipv6_dst=fd00::1"),
        ("arp,arp_tpa=fd00::1", "write nd_target=fd00::1"),
        ("tcp6,ipv6_dst=1.1.1.1", "write nw_dst=1.1.1.1"),
        ("tcp,udp,nw_dst=1.1.1.1", "tcp and udp exclude each other"),
        ("tcp,tcp6,nw_dst=1.1.1.1", "tcp and tcp6 exclude each other"),
        ("udp,nw_proto=6", "udp and nw_proto=6 exclude each other"),
        ("tcp,icmp_type=8", "icmp_type does not go with tcp"),
        ("arp,tp_dst=1", "tp_dst does not go with arp"),
        ("arp,tcp_dst=1", "arp has no tcp_dst"),
        ("tcp,tp_dst=70000", "is no number in 0..65535"),
        ("tcp,tp_dst=x", "is no number in 0..65535"),
        ("icmp,icmp_type=300", "is no number in 0..255"),
        ("tcp,tp_dst=", "tp_dst= has no value"),
        ("tcp,tp_dst", "tp_dst has no value"),
        ("tcp,reg0=1", "field reg0 is nothing that a packet of a VM has"),
        ("tcp,ct_state=+trk", "field ct_state is nothing that a packet of a VM has"),
        ("tcp,nw_ttl=64", "field nw_ttl is read by no decision; leave it out"),
        ("tcp,in_port=1", "field in_port is read by no decision; leave it out"),
        ("tcp,dl_vlan=5", "field dl_vlan: the pipeline drops frames with a VLAN tag"),
        ("tcp,ip_frag=later", "field ip_frag: explain asks about a packet that is no fragment"),
        ("arp,arp_op=2", "field arp_op: explain asks about an ARP request"),
        ("tcp,nw_dst=1.1.1.1 actions=drop", "leave out actions="),
        ("tcp,nw_dst(3)", "write nw_dst=VALUE"),
        ("tcp,(((", "is no flow"),
        ("tcp,nw_dst=1.1.1.1,ip_dst=1.1.1.2", "says again what nw_dst says"),
        ("dl_type=0x88cc", "the pipeline drops everything else"),
        ("ip,nw_dst=1.1.1.1", "say the IP protocol"),
        ("tp_dst=3", "say what the packet is"),
        ("tcp,dl_dst=zz", "not a MAC"),
    ],
)
def test_a_bad_flow_is_one_clear_sentence(text, sentence):
    with pytest.raises(FlowError) as caught:
        parse_flow(text)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("tcp,nw_dst=10.0.1.7,tp_dst=443", " tcp, nw_dst=10.0.1.7 , tp_dst=0x1bb"),
        ("tcp,nw_dst=10.0.1.7,tp_dst=443", "ip,nw_proto=6 ip_dst=10.0.1.7/32 tcp_dst=443"),
        ("tcp,nw_dst=10.0.1.7,tp_dst=443", "nw_dst=10.0.1.7,tcp_dst=443"),
        ("icmp6,ipv6_dst=fd00::7", "icmp6,ipv6_dst=fd00::7/128"),
        ("icmp6,ipv6_dst=fd00::7", "ipv6_dst=fd00::7,icmpv6_type=128,icmpv6_code=0"),
        ("arp,arp_tpa=10.0.1.7", "dl_type=0x0806,nw_dst=10.0.1.7"),
    ],
)
def test_a_packet_has_several_spellings(store, text, same):
    first, second = (explain(store, "web-1", flow).packet for flow in (text, same))
    assert first == second


@pytest.mark.parametrize(
    ("flow", "sentence"),
    [
        ("tcp,tp_dst=80", "say where the packet goes: nw_dst=ADDRESS"),
        ("icmp6", "say where the packet goes: ipv6_dst=ADDRESS"),
        ("tcp,nw_dst=10.0.1.11", "tp_dst=PORT"),
        ("arp", "arp_tpa=ADDRESS"),
        ("icmp6,icmp_type=135", "nd_target=ADDRESS"),
    ],
)
def test_what_a_vm_cannot_choose_must_be_said(store, flow, sentence):
    with pytest.raises(FlowError, match=sentence):
        explain(store, "web-1", flow)


def test_a_port_without_an_address_of_the_family_must_be_told_one(store):
    with pytest.raises(FlowError, match="say from which it sends: ipv6_src=ADDRESS"):
        explain(store, "vpn", "icmp6,ipv6_dst=fd00:2::10")


def test_every_reason_has_a_sentence():
    assert set(REASONS) == set(Reason)


def test_icmp_that_only_one_datapath_takes_is_remarked(store):
    for flow in ("icmp,icmp_type=13,nw_dst=10.0.2.99", "icmp,icmp_code=1,nw_dst=10.0.2.99"):
        found = explain(store, "web-1", flow)
        assert "userspace conntrack" in conntrack_refuses(found.packet)[1]
        assert any(
            "userspace conntrack" in remark for step in found.steps for remark in step.remarks
        )


# -- the command -------------------------------------------------------------------------------------


def test_exit_codes(command):
    assert "ALLOWED" in command("--port", "web-1", "tcp,nw_dst=10.0.2.10,tp_dst=5432").stdout
    denied = command("--port", "web-1", "tcp,nw_dst=10.0.2.10,tp_dst=1", code=1)
    assert "DENIED by ingress at database-1 on host-3: no_rule" in denied.stdout
    assert denied.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "web-9", "icmp,nw_dst=10.0.1.1"], "no host of the store has a port 'web-9'; did you mean 'web-"),
        (["--port", "web-1", "--host", "host-3", "icmp,nw_dst=10.0.1.1"], "host 'host-3' has no port 'web-1'"),
        (["--port", "web-1", "--host", "host2", "icmp,nw_dst=10.0.1.1"], "no host 'host2'; did you mean 'host-2'?"),
        (["--port", "web-1", "tcp"], "say where the packet goes"),
        (["--port", "web-1", "tpc"], "did you mean 'tcp'?"),
        (["icmp,nw_dst=10.0.1.1"], "missing option '--port'"),
        (["--port", "web-1"], "missing argument 'FLOW'"),
    ],
)  # fmt: skip
def test_errors_are_one_sentence_and_exit_2(command, arguments, sentence):
    result = command(*arguments, code=2)
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_no_store_and_no_store_file(command, tmp_path):
    arguments = ["--port", "web-1", "icmp,nw_dst=10.0.1.1"]
    assert "does not exist" in command(*arguments, code=2, path=tmp_path / "none.db").stderr
    (tmp_path / "text.db").write_text("no database, but longer than a header of SQLite is" * 20)
    assert "is not an SQLite file" in command(*arguments, code=2, path=tmp_path / "text.db").stderr


def test_json_has_the_same_content(command):
    arguments = ["--port", "web-1", "tcp,nw_dst=10.0.2.10,tp_dst=22"]
    found = json.loads(command(*arguments, "--json", code=1).stdout)
    text = command(*arguments, code=1).stdout
    assert (found["allowed"], found["denied_by"], found["reason"]) == (False, "ingress", "no_rule")
    assert [host["host"] for host in found["rules"]] == ["host-1", "host-3"]
    for host in found["rules"]:
        assert host["rules"]
        assert all(rule in text for rule in host["rules"])
    for step in found["steps"]:
        assert step["sentence"].split(":")[0] in text
        assert all(f"{read['slice']}" in text for read in step["reads"])
    assert found["placeholders"][0]["ports"] == {"web-1": {"zone": 1, "ofport": 1}}
    assert found["placeholders"][1]["tunnel_ip"] == "192.0.2.13"


def test_rules_are_printed_in_one_piece(command):
    text = command("--port", "web-1", "tcp,nw_dst=10.0.2.10,tp_dst=5432").stdout
    rules = [line.strip() for line in text.splitlines() if line.startswith("  table=")]
    assert len(rules) == 5
    assert all(" actions=" in rule for rule in rules)


def test_match_connection_matches_the_whole_tuple(command):
    flow = "tcp,nw_dst=10.0.2.10,tp_src=40000,tp_dst=5432"
    text = command("--port", "web-1", "--match", "connection", flow).stdout
    assert "ct_nw_src=10.0.1.10,ct_tp_src=40000" in text
    assert "ct_tp_src=40000" not in command("--port", "web-1", flow).stdout


def test_a_locked_store_is_an_error(store_path, command):
    class Broken:
        def summaries(self):
            raise SourceError("slice store x is locked by another process: wait")

    with pytest.raises(SourceError):
        explain(Broken(), "web-1", "arp,arp_tpa=10.0.1.1")


def test_the_examples_of_the_help_work(store, command):
    document = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert {port["id"] for port in document["vpcs"][0]["ports"]} >= {"web-1", "database-1"}
    text = CliRunner().invoke(cli, ["explain", "--help"]).output
    for flow in (
        "tcp,nw_dst=10.0.2.10,tp_dst=5432",
        "icmp6,ipv6_dst=fd00:1::11",
        "arp,arp_tpa=10.0.1.1",
    ):
        assert flow in text
        assert reasons(explain(store, "web-1", flow)) is None
    assert "tcp,nw_dst=10.0.1.10,tp_src=5432" in text
    command("--port", "database-1", "--reply", "tcp,nw_dst=10.0.1.10,tp_src=5432")

"""``ondemand doctor`` and ``ondemand explain`` against a real Open vSwitch."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller_app.doctor import run_checks
from controller_app.doctor_check import Status
from controller_app.explain import explain
from controller_app.goal_state_file import load_goal_state
from controller_app.sqlite_store import SqliteStore
from ondemand.pipeline import Pipeline
from ondemand.static_rules import owner_rule
from rule_cache.cookie import MAGIC_VALUE

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "two-subnets.yaml"


@pytest.fixture
def store(tmp_path):
    with SqliteStore(tmp_path / "slices.db", writer=True) as opened:
        opened.publish(load_goal_state(EXAMPLE), replace_all=True)
        yield opened


@pytest.fixture
def host(make_fabric):
    return make_fabric(hosts=1).hosts[0]


@pytest.fixture
def checks_of(tmp_path):
    def run(host, **bridge):
        keys = "".join(f"{name} = {value}\n" for name, value in bridge.items())
        path = tmp_path / "agent.toml"
        path.write_text(
            '[host]\nid = "host-1"\ntunnel_ip = "192.0.2.11"\n[source]\nfile = "slices.db"\n'
            f'[bridge]\novsdb = "{host.ovsdb_remote}"\n{keys}'
        )
        return {check.name: check for check in run_checks(path)}

    return run


def failed(checks):
    return {name: check.found for name, check in checks.items() if check.status is Status.FAIL}


def test_a_host_before_its_agent(host, checks_of, store):
    checks = checks_of(host)
    assert failed(checks) == {}
    assert checks["ovsdb"].status is Status.OK
    assert "the agent creates it" in checks["bridge br-int"].found
    assert "the agent creates it" in checks["tunnel"].found
    assert "rules" not in checks


def test_a_host_with_its_bridge(host, checks_of, store):
    host.create_integration_bridge()
    checks = checks_of(host, datapath_type='"netdev"')
    assert failed(checks) == {}
    assert checks["tunnel"].found == "vxlan0: vxlan, remote_ip=flow, key=flow"
    assert checks["rules"].found == "none of an agent is in the switch"
    assert checks["table limits"].found.startswith("none yet; the agent sets 210000")
    assert checks["connection limits"].status is Status.OK
    assert checks["connection limits"].found.endswith("zones that have a limit now: 0")
    assert checks["meters"].found.startswith("up to ")
    assert checks["datapath features"].status is Status.OK
    assert "1200 bytes (IPv4) and 1280 bytes (IPv6)" in checks["fragments"].found
    assert "rules of others" not in checks
    host.add_flows("br-int", "cookie=0x77,table=0,ip actions=drop")
    checks = checks_of(host)
    assert checks["rules of others"].status is Status.WARN
    assert checks["rules of others"].found.startswith("1 rule on bridge br-int")
    host.vsctl("set-controller", "br-int", "tcp:127.0.0.1:16653")
    assert "rules of others" not in checks_of(host)
    host.add_flows("br-int", "cookie=0x0d5e000000000001,table=0 actions=drop")
    checks = checks_of(host)
    assert checks["rules"].found == "1 of an agent are in the switch"
    assert list(failed(checks)) == ["controller"]


def test_rules_of_another_hosts_agent(host, checks_of, store):
    host.create_integration_bridge()
    pipeline = Pipeline()
    for mark, status in (("host-1", Status.OK), ("host-2", Status.FAIL)):
        host.add_flows("br-int", f"cookie={MAGIC_VALUE + 7:#x},{owner_rule(pipeline, mark)}")
        assert checks_of(host)["owner"].status is status
    assert "made by the agent of another host than 'host-1'" in checks_of(host)["owner"].found


def test_limits_are_read_from_the_switch(host, checks_of, store):
    host.create_integration_bridge()
    host.appctl("dpctl/ct-set-limits", "netdev@ovs-netdev", "zone=3,limit=9")
    words = " -- ".join(
        f"--id=@t{table} create Flow_Table flow_limit=210000 overflow_policy=evict"
        for table in (5, 30, 40, 80)
    )
    tables = ",".join(f"{table}=@t{table}" for table in (5, 30, 40, 80))
    host.vsctl(*words.split(), *f"-- set Bridge br-int flow_tables={tables}".split())
    checks = checks_of(host)
    assert checks["table limits"].found.startswith("210000 rules in each of tables 5, 30, 40, 80")
    assert checks["connection limits"].found.endswith("zones that have a limit now: 1")
    host.vsctl("remove", "Bridge", "br-int", "flow_tables", "30")
    check = checks_of(host)["table limits"]
    assert (check.status, check.found) == (
        Status.WARN,
        "not as configured in tables 30: no limit",
    )


def test_a_switch_that_is_gone(host, checks_of, store):
    host.stop_ovsdb()
    checks = checks_of(host)
    assert list(failed(checks)) == ["ovsdb"]
    assert (
        checks["ovsdb"].mend
        == "systemctl start openvswitch-switch, or: service openvswitch-switch start"
    )


@pytest.mark.parametrize("connection", [False, True])
def test_the_switch_takes_the_rules_that_explain_prints(host, store, connection):
    host.create_integration_bridge()
    for flow in (
        "tcp,nw_dst=10.0.2.10,tp_dst=5432",
        "tcp6,ipv6_dst=fd00:2::10,tp_dst=22",
        "icmp6,ipv6_dst=fd00:1::11",
        "icmp,nw_dst=10.0.1.1",
        "sctp,nw_dst=10.0.2.99,tp_dst=3868",
        "nw_proto=47,nw_dst=10.0.2.99",
        "tcp,nw_dst=8.8.8.8,tp_dst=53",
        "arp,arp_tpa=10.0.1.77",
        "icmp6,icmp_type=135,nd_target=fd00:1::77",
    ):
        found = explain(store, "web-1", flow, match_connection=connection)
        for view in found.views:
            rules = found.flows(view.host)
            host.ofctl("del-flows", "br-int")
            if rules:
                host.add_flows("br-int", *rules)
            assert host.rule_count() == len(rules)

"""The demo's goal state, and what its agents are told."""

import json

import pytest

from controller_app.config import load_config
from mininet_topos.agent_host import AgentError, AgentOnHost
from mininet_topos.demo_state import (
    ADMIN_RULES,
    FLEET_PREFIX,
    FRESH_DESTINATIONS,
    VMS,
    demo_payloads,
    fleet_address,
    fleet_payloads,
)
from ondemand.addresses import parse_ip
from ondemand.codec import decode_record
from ondemand.publishing import difference
from ondemand.slices import neighbor_slice

HOSTS = {"h1": "192.0.2.1", "h2": "192.0.2.2", "h3": "192.0.2.3"}


def records(payloads, kind):
    return {
        key: decode_record(name, key, payload)
        for name, slice_records in payloads.items()
        for key, payload in slice_records.items()
        if key.startswith(kind)
    }


def test_each_host_has_four_vms_in_two_subnets_and_three_groups():
    payloads = demo_payloads(HOSTS)
    for name in (f"host/{host}" for host in HOSTS):
        ports = list(records({name: payloads[name]}, "port/").values())
        assert len(ports) == 4
        assert {port.subnet for port in ports} == {"front", "back"}
        assert {group for port in ports for group in port.groups} == {"base", "web", "db"}
    assert len(records(payloads, "subnet/")) == 2
    assert len(records(payloads, "router/")) == 1
    remote = {rule.remote_group for rule in records(payloads, "rule/").values()}
    assert remote == {None, "web"}


def test_vms_are_where_the_goal_state_says():
    ports = records(demo_payloads(HOSTS), "port/")
    for vm in VMS:
        assert ports[f"port/{vm.name}"].fixed_ips == tuple(map(parse_ip, (*vm.ips, *vm.fresh_ips)))
    assert sorted(len(vm.fresh_ips) for vm in VMS)[-2:] == [FRESH_DESTINATIONS] * 2


def test_rules_left_out_are_all_that_differs():
    before, after = demo_payloads(HOSTS), demo_payloads(HOSTS, without_rules=ADMIN_RULES)
    changed = {name: difference(before[name], after[name]) for name in before}
    assert {name for name, keys in changed.items() if keys} == {"sg/web"}
    assert set(changed["sg/web"].removed) == {f"rule/{rule}" for rule in ADMIN_RULES}
    assert not changed["sg/web"].added
    assert not changed["sg/web"].changed


@pytest.mark.parametrize("count", [1, 255, 51_200, 51_201])
def test_the_fleet_has_as_many_neighbors_as_asked_for(count):
    found = {}
    for size, payloads in fleet_payloads(count, list(HOSTS.values())):
        assert size == sum(map(len, payloads.values()))
        assert not found.keys() & payloads.keys(), "a shard would be replaced by the next batch"
        found |= payloads
    assert sum(map(len, found.values())) == count
    for number in (0, count // 2, count - 1):
        address = parse_ip(fleet_address(number))
        assert FLEET_PREFIX.contains(address)
        assert f"ip/{fleet_address(number)}" in found[neighbor_slice("demo", address)]


def test_the_fleet_stays_out_of_the_shards_of_the_vms():
    own = demo_payloads(HOSTS, with_fleet=True)
    ((_, fleet),) = fleet_payloads(1000, list(HOSTS.values()))
    assert not own.keys() & fleet.keys()
    assert set(records(own, "subnet/")) == {"subnet/front", "subnet/back", "subnet/fleet"}


# The agent of a host --------------------------------------------------------------------------------


class FakeProcess:
    def __init__(self, said=""):
        self.said = said
        self.running = True
        self.returncode = None

    def output(self):
        return self.said

    def output_tail(self, *, max_bytes=4096):
        return self.said[-max_bytes:]


class FakeHost:
    """As much of a compute host as an agent's configuration is made of."""

    label = "h1"
    tunnel_ip = "192.0.2.1"
    ovsdb_remote = "unix:/tmp/h1/db.sock"

    def __init__(self, directory):
        self.directory = directory
        self.process = FakeProcess()

    def spawn(self, name, argv, *, env):
        self.argv = argv
        return self.process


@pytest.fixture
def host(tmp_path):
    return FakeHost(tmp_path)


def test_the_configuration_is_one_that_the_agent_takes(host, tmp_path):
    agent = AgentOnHost(host, tmp_path / "slices.db", settings={"rules": {"verdict_idle_s": 7}})
    config = load_config(agent.config_file)
    assert config.host_id == "h1"
    assert config.tunnel_ip == bytes((192, 0, 2, 1))
    assert config.bridge.ovsdb == host.ovsdb_remote
    assert config.bridge.datapath_type == "netdev"
    assert config.source_file == tmp_path / "slices.db"
    assert config.settings.verdict_idle_s == 7
    assert config.metrics_file is not None
    agent.start()
    assert host.argv[-2:] == ["--config", str(agent.config_file)]


def test_an_agent_is_waited_for_until_it_serves(host, tmp_path):
    agent = AgentOnHost(host, tmp_path / "slices.db")
    agent.start()
    with pytest.raises(AgentError, match="h1 has no connection to its switch after 0 s"):
        agent.wait_connected(timeout_s=0)
    (tmp_path / "agent-status.json").write_text(json.dumps({"connected": True, "ports": ["a"]}))
    agent.wait_connected(timeout_s=0)
    assert agent.wait_for_ports(["a"], timeout_s=0)
    assert not agent.wait_for_ports(["a", "b"], timeout_s=0)
    assert not agent.wait_for_ports([], timeout_s=0)


def test_an_agent_that_ended_is_told_with_its_last_words(host, tmp_path):
    agent = AgentOnHost(host, tmp_path / "slices.db")
    agent.start()
    host.process.running, host.process.returncode = False, 2
    host.process.said = "ondemand: the bridge is somebody else's"
    with pytest.raises(AgentError, match=r"has ended \(2\): ondemand: the bridge is somebody"):
        agent.wait_connected()


def test_errors_of_an_agent_are_those_that_it_logged_or_let_slip(host, tmp_path):
    agent = AgentOnHost(host, tmp_path / "slices.db")
    agent.start()
    assert agent.errors() == []
    lines = [{"level": "info", "event": "hello"}, {"level": "error", "event": "no"}]
    (tmp_path / "agent-events.log").write_text("".join(json.dumps(x) + "\n" for x in lines))
    host.process.said = "Traceback (most recent call last)\n"
    assert agent.errors() == ["no", "Traceback (most recent call last)"]

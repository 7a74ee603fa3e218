"""``ondemand doctor``: what each state of a host is told as, and with which mend."""

from __future__ import annotations

import json
import re
import sqlite3
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller_app import doctor, doctor_switch
from controller_app.cli import cli
from controller_app.config import ConfigError, load_config
from controller_app.doctor import run_checks
from controller_app.doctor_check import Machine, Output, Status, dotted, version_of
from controller_app.doctor_machine import PACKAGES
from controller_app.doctor_switch import switch_checks
from controller_app.goal_state_file import load_goal_state
from controller_app.ovsdb_config import BridgeConfig
from controller_app.ovsdb_errors import OvsdbError, OvsdbUnreachableError
from controller_app.ovsdb_facts import BridgeFacts, SwitchFacts
from controller_app.sqlite_store import SqliteStore

ROOT = Path(__file__).resolve().parents[2]

PROGRAMS = {
    "ovs-vswitchd": "ovs-vswitchd (Open vSwitch) 3.1.0",
    "ovsdb-server": "ovsdb-server (Open vSwitch) 3.1.0",
    "ovs-vsctl": "",
    "ovs-appctl": "",
    "ovs-ofctl": "",
    "ovsdb-tool": "",
    "mnexec": "",
    "ip": "",
    "ethtool": "",
    "ping": "ping from iputils 20221126",
}
ALL_FEATURES = """\
Recirc: Yes
CT state: Yes
CT zone: Yes
CT mark: Yes
CT orig tuple: Yes
CT orig tuple for IPv6: Yes
Max VLAN headers: 1"""


class FakeMachine(Machine):
    """A sound machine; tests take away from it."""

    def __init__(self):
        self.python = (3, 12, 1)
        self.programs = dict(PROGRAMS)
        self.packages = dict.fromkeys([*PACKAGES, "mininet"], "99.0")
        self.paths = {"/var/run/openvswitch/ovs-vswitchd.ctl"}
        self.bits = (1 << 12) | (1 << 21)
        self.answers = {
            "dump-aggregate": "packet_count=0 byte_count=0 flow_count=12",
            "meter-features": "max_meter:4096 max_bands:8",
            "dpif/show-dp-features": ALL_FEATURES,
            "dpctl/ct-get-limits": "default limit=0\nzone=1,limit=65536,count=3\nzone=2,limit=0",
        }

    def which(self, program):
        return f"/bin/{program}" if program in self.programs else None

    def run(self, *command):
        if command[0] not in self.programs:
            return None
        for word, answer in self.answers.items():
            if word in command:
                return Output(1, "") if answer is None else Output(0, answer)
        return Output(0, self.programs[command[0]])

    def package_version(self, name):
        return self.packages.get(name)

    def has_path(self, path):
        return path in self.paths

    def capabilities(self):
        return self.bits


@pytest.fixture
def machine():
    return FakeMachine()


def bridge(**changes):
    made = {
        "name": "br-int",
        "datapath_type": "netdev",
        "works": True,
        "fail_mode": "secure",
        "controllers": (("tcp:127.0.0.1:6653", True),),
        "flow_tables": tuple((table, 210_000, True) for table in (5, 30, 40, 80)),
    }
    return BridgeFacts(**made | changes)


def facts(*bridges, **changes):
    made = {
        "ovs_version": "3.1.0",
        "db_version": "8.3.1",
        "datapath_types": ("netdev", "system"),
        "iface_types": ("internal", "vxlan"),
        "settled": True,
        "bridges": bridges,
    }
    return SwitchFacts(**made | changes)


@pytest.fixture
def switch(monkeypatch):
    """What the database holds; ``found`` is an exception where it does not answer."""

    class Switch:
        found = facts(bridge())
        interface = doctor_switch.Interface("vxlan", {"remote_ip": "flow", "key": "flow"}, "")

    def give(_remote, **_options):
        if isinstance(Switch.found, Exception):
            raise Switch.found
        return Switch.found

    monkeypatch.setattr(doctor_switch, "switch_facts", give)
    monkeypatch.setattr(doctor_switch, "read_interface", lambda *_: Switch.interface)
    return Switch


def by_name(checks):
    found = {check.name: check for check in checks}
    for check in found.values():
        assert "\n" not in check.mend
        assert check.mend or check.status is Status.OK or check.found, check
    return found


# -- the machine -------------------------------------------------------------------------------------


def test_a_sound_host_has_nothing_to_mend(machine, switch):
    checks = by_name(run_checks(None, machine))
    assert {name: c for name, c in checks.items() if c.status is not Status.OK or c.mend} == {}
    assert checks["rules"].found == "12 of an agent are in the switch"
    assert checks["python"].found == "3.12.1"


def test_packages_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = dict(line.split(">=") for line in project["dependencies"])
    wanted = {name.partition("[")[0]: release for name, release in asked.items()}
    # Mininet, and setuptools on its account, are what the demo needs.
    assert set(wanted) - {"mininet", "setuptools"} == set(PACKAGES)
    assert {name: wanted[name] for name in PACKAGES} == {n: dotted(v) for n, v in PACKAGES.items()}


def test_what_is_missing_has_its_mend(machine, switch):
    machine.python = (3, 10, 4)
    del machine.packages["msgspec"], machine.packages["mininet"]
    machine.programs = {"ovs-vswitchd": "ovs-vswitchd (Open vSwitch) 2.13.0"}
    machine.bits = 0
    checks = by_name(run_checks(None, machine))
    assert checks["python"].status is Status.FAIL
    assert (checks["packages"].status, checks["packages"].found) == (
        Status.FAIL,
        "missing: msgspec",
    )
    assert checks["privileges"].status is Status.WARN
    assert checks["ovs-vswitchd"].status is Status.WARN
    assert (checks["ovsdb-server"].status, checks["ovsdb-server"].mend) == (
        Status.FAIL,
        "apt-get install openvswitch-common",
    )
    assert checks["demo programs"].status is Status.WARN
    assert "mnexec" in checks["demo programs"].found
    assert "iputils-ping" in checks["demo programs"].mend
    assert checks["demo library"].status is Status.WARN
    assert checks["demo namespaces"].status is Status.WARN


def test_an_old_package_only_warns(machine, switch):
    machine.packages["click"] = "8.0.4"
    check = by_name(run_checks(None, machine))["packages"]
    assert (check.status, check.found) == (Status.WARN, "too old: click 8.0.4 (needs 8.1)")
    machine.packages["click"] = "8.1rc1"
    assert by_name(run_checks(None, machine))["packages"].status is Status.WARN


def test_busybox_ping_is_not_the_one(machine, switch):
    machine.programs["ping"] = "BusyBox v1.36"
    assert "ping (of iputils)" in by_name(run_checks(None, machine))["demo programs"].found


# -- the switch --------------------------------------------------------------------------------------


def test_no_ovsdb(machine, switch):
    switch.found = OvsdbUnreachableError("unix:/x/db.sock", "No such file or directory")
    checks = by_name(switch_checks(machine, BridgeConfig()))
    assert list(checks) == ["ovsdb", "not checked"]
    assert checks["ovsdb"].status is Status.FAIL
    assert checks["not checked"].status is Status.WARN
    assert (
        checks["ovsdb"].mend
        == "systemctl start openvswitch-switch, or: service openvswitch-switch start"
    )
    switch.found = OvsdbUnreachableError("unix:/x/db.sock", "Permission denied")
    assert "sudo" in by_name(switch_checks(machine, BridgeConfig()))["ovsdb"].mend
    switch.found = OvsdbError("the database is empty; start OVS with ovs-ctl")
    checks = by_name(switch_checks(machine, BridgeConfig()))
    assert "empty" in checks["ovsdb"].found
    assert "not checked" in checks


@pytest.mark.parametrize("datapath", ["netdev", "system"])
def test_what_is_not_checked_without_ovsdb_is_named(machine, switch, datapath):
    """Every check that is made with a database stands in what is told without it."""
    switch.found = facts(bridge(datapath_type=datapath))
    made = by_name(switch_checks(machine, BridgeConfig())).keys() - {"ovsdb"}
    switch.found = OvsdbUnreachableError("unix:/x/db.sock", "No such file or directory")
    text = by_name(switch_checks(machine, BridgeConfig()))["not checked"].found
    named = set(text.removeprefix("without the database: ").split(", "))
    assert {name.replace("bridge br-int", "bridge") for name in made} - named == set()
    with_host = by_name(switch_checks(machine, BridgeConfig(), host="h1"))["not checked"].found
    assert " owner," in with_host
    assert " owner," not in text


@pytest.mark.parametrize(
    ("found", "config", "name", "status", "words"),
    [
        (facts(settled=False), {}, "ovsdb", Status.FAIL, "ovs-vswitchd does not follow it"),
        (facts(), {}, "bridge br-int", Status.OK, "the agent creates it"),
        (facts(bridge(works=False)), {}, "bridge br-int", Status.FAIL, "could not open its datapath"),
        (facts(bridge(fail_mode="")), {}, "bridge br-int", Status.WARN, "fail_mode not set"),
        (facts(bridge()), {"datapath_type": "system"}, "bridge br-int", Status.FAIL, "not system as configured"),
        (facts(bridge()), {"datapath_type": "system", "take_over": True}, "bridge br-int", Status.OK, ""),
        (facts(bridge()), {"datapath_type": "system"}, "datapath", Status.FAIL, "kernel module openvswitch is not there"),
        (facts(datapath_types=("netdev",)), {"datapath_type": "system"}, "datapath", Status.FAIL, "only with netdev"),
        (facts(bridge(datapath_type="system")), {}, "datapath", Status.OK, "kernel module openvswitch is there"),
        (facts(bridge(datapath_type="system")), {}, "conntrack", Status.OK, "of the kernel"),
        (facts(bridge()), {}, "conntrack", Status.OK, "reads no SCTP ports"),
        (facts(bridge()), {}, "fragments", Status.OK, "1200 bytes (IPv4) and 1280 bytes (IPv6)"),
        (facts(bridge(controllers=())), {}, "controller", Status.OK, "the agent sets its own"),
        (facts(bridge(controllers=(("tcp:127.0.0.1:6653", False),))), {}, "controller", Status.WARN, "not connected"),
        (facts(bridge(controllers=(("tcp:10.0.0.1:6653", True),))), {}, "controller", Status.FAIL, "obeys tcp:10.0.0.1:6653"),
        (facts(bridge(controllers=(("tcp:10.0.0.1:6653", True),))), {"take_over": True}, "controller", Status.WARN, "obeys"),
        (facts(bridge(controllers=(("ptcp:6634", True), ("tcp:127.0.0.1:6653", True)))), {}, "controller", Status.OK, "connected"),
        (facts(bridge(controllers=(("tcp:[127.0.0.1]:06653", True),))), {}, "controller", Status.OK, "connected"),
        (facts(bridge(controllers=(("tcp:127.0.0.1:06653", False),))), {}, "controller", Status.WARN, "not connected"),
        (facts(), {}, "table limits", Status.OK, "none yet; the agent sets 210000"),
        (facts(bridge(flow_tables=((7, 1, True),))), {}, "table limits", Status.OK, "none yet"),
        (facts(bridge()), {}, "table limits", Status.OK, "210000 rules in each of tables 5, 30, 40, 80"),
        (facts(bridge(flow_tables=((5, 210_000, True), (30, 9, False), (40, None, True)))), {}, "table limits",
            Status.WARN, "in tables 30: 9 rules, refuse, 40: no limit, 80: no limit"),
        (facts(bridge()), {}, "connection limits", Status.OK, "65536 per port; zones that have a limit now: 1"),
        (facts(iface_types=("internal",)), {}, "tunnel", Status.FAIL, "knows no vxlan"),
    ],
)  # fmt: skip
def test_a_state_of_the_switch(machine, switch, found, config, name, status, words):
    switch.found = found
    check = by_name(switch_checks(machine, BridgeConfig(**config)))[name]
    assert check.status is status
    assert words in check.found
    assert check.mend or status is Status.OK


def test_the_kernel_module_decides_what_a_new_bridge_gets(machine, switch):
    switch.found = facts()
    assert "netdev" in by_name(switch_checks(machine, BridgeConfig()))["datapath"].found
    machine.paths = {"/sys/module/openvswitch"}
    assert "system" in by_name(switch_checks(machine, BridgeConfig()))["datapath"].found


@pytest.mark.parametrize(
    ("interface", "status", "words"),
    [
        (None, Status.OK, "the agent creates it"),
        (("internal", {}, ""), Status.FAIL, "of type internal"),
        (("vxlan", {"remote_ip": "flow", "key": "flow"}, "could not add"), Status.FAIL, "could not add"),
        (("vxlan", {"remote_ip": "192.0.2.1", "key": "flow"}, ""), Status.WARN, "remote_ip 192.0.2.1"),
        (("vxlan", {"remote_ip": "flow", "key": "flow", "dst_port": "8472"}, ""), Status.WARN, "dst_port 8472"),
        (("vxlan", {"remote_ip": "flow", "key": "flow", "csum": "true"}, ""), Status.OK, "remote_ip=flow"),
    ],
)  # fmt: skip
def test_a_state_of_the_tunnel(machine, switch, interface, status, words):
    switch.interface = None if interface is None else doctor_switch.Interface(*interface)
    check = by_name(switch_checks(machine, BridgeConfig()))["tunnel"]
    assert (check.status, words in check.found) == (status, True)


def test_what_only_root_may_read_is_left_out(machine, switch):
    machine.answers = dict.fromkeys(machine.answers)
    checks = by_name(switch_checks(machine, BridgeConfig()))
    for name in ("rules", "meters", "datapath features"):
        assert checks[name].status is Status.WARN
        assert "as root" in checks[name].mend


def test_what_the_datapath_lacks(machine, switch, tmp_path):
    (tmp_path / "ovs-vswitchd.pid").write_text("77\n")
    machine.paths = {str(tmp_path / "ovs-vswitchd.77.ctl")}
    machine.answers["meter-features"] = "max_meter:0 max_bands:0"
    machine.answers["dpif/show-dp-features"] = ALL_FEATURES.replace("CT mark: Yes", "CT mark: No")
    machine.answers["dpctl/ipf-get-status"] = "min v4 frag size: 400\nmin v6 frag size: 1300"
    checks = by_name(switch_checks(machine, BridgeConfig(ovsdb=f"unix:{tmp_path}/db.sock")))
    assert checks["meters"].status is Status.FAIL
    assert "meter_rate = 0" in checks["meters"].mend
    assert checks["datapath features"].found == "missing: CT mark"
    assert "400 bytes (IPv4) and 1300 bytes (IPv6)" in checks["fragments"].found


def test_limits_are_those_of_the_configuration(machine, switch, config_path):
    path = config_path
    path.write_text(
        path.read_text() + "[rules]\ntable_base = 100\n[limits]\nswitch_table_rules = 500\n"
        "max_connections_per_port = 0\n"
    )
    switch.found = facts(bridge(flow_tables=tuple((t, 500, True) for t in (105, 130, 140, 180))))
    checks = by_name(run_checks(path, machine))
    assert checks["table limits"].found.startswith("500 rules in each of tables 105, 130, 140, 180")
    assert checks["connection limits"].found.startswith("switched off")


def test_a_datapath_without_connection_limits(machine, switch):
    machine.answers["dpctl/ct-get-limits"] = None
    check = by_name(switch_checks(machine, BridgeConfig()))["connection limits"]
    assert (check.status, "takes none" in check.found) == (Status.WARN, True)
    assert "max_connections_per_port = 0" in check.mend
    machine.paths = set()
    check = by_name(switch_checks(machine, BridgeConfig()))["connection limits"]
    assert (check.status, "as root" in check.mend) == (Status.WARN, True)


# -- configuration and store -------------------------------------------------------------------------


@pytest.fixture
def config_path(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(
        '[host]\nid = "host-1"\ntunnel_ip = "192.0.2.11"\n[source]\nfile = "slices.db"\n'
    )
    return path


def test_a_store_is_looked_into(machine, switch, config_path):
    def check():
        return by_name(run_checks(config_path, machine))["store"]

    store_path = config_path.parent / "slices.db"
    assert (check().status, "does not exist" in check().found) == (Status.FAIL, True)
    config_path.write_text(config_path.read_text().replace('"slices.db"', '"none/slices.db"'))
    assert f"'mkdir -p {store_path.parent}/none && ondemand slices publish" in check().found
    config_path.write_text(config_path.read_text().replace("none/", ""))
    assert "mkdir" not in check().found
    with SqliteStore(store_path, writer=True) as store:
        store.publish(load_goal_state(ROOT / "examples" / "two-subnets.yaml"), replace_all=True)
    assert check().status is Status.OK
    assert check().found.endswith(
        "ports on host host-1: 0 of its own, and those of hostgroup/rack-1"
    )
    config_path.write_text(config_path.read_text().replace("host-1", "host-9"))
    assert (check().status, "none for host 'host-9'" in check().found) == (Status.WARN, True)
    with sqlite3.connect(store_path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    assert (check().status, "newer release" in check().found) == (Status.FAIL, True)


def test_a_configuration_that_is_not_there_is_not_to_be_mended(machine, switch, tmp_path):
    path = tmp_path / "nope.toml"
    check = by_name(run_checks(path, machine))["config"]
    assert check.status is Status.FAIL
    assert "there is no such file" in check.found
    assert "mend the file" not in check.mend
    assert str(path) in check.mend
    check = by_name(run_checks(tmp_path, machine))["config"]
    assert (check.status, check.mend) == (Status.FAIL, "give the path of a file")


def test_a_broken_configuration_does_not_end_the_checks(machine, switch, config_path):
    config_path.write_text("[hosts]\n")
    checks = by_name(run_checks(config_path, machine))
    assert checks["config"].status is Status.FAIL
    assert "[hosts] is no table" in checks["config"].found
    assert checks["ovsdb"].status is Status.OK
    assert "store" not in checks


# -- the command -------------------------------------------------------------------------------------


@pytest.fixture
def command(machine, switch, monkeypatch):
    monkeypatch.setattr(doctor, "Machine", lambda: machine)

    def run(*arguments, code=0):
        result = CliRunner().invoke(cli, ["doctor", *arguments])
        assert result.exit_code == code, result.output
        return result.stdout

    return run


def test_the_command_prints_a_line_for_each(command, machine):
    text = command()
    assert re.search(
        r"(?m)^ok   ovsdb +unix:/var/run/openvswitch/db.sock: Open vSwitch 3.1.0$", text
    )
    assert re.search(r"\d+ ok, 0 warn, 0 fail\n$", text)
    machine.programs["ovs-vswitchd"] = "ovs-vswitchd (Open vSwitch) 2.17.0"
    assert "1 warn" in command()
    del machine.programs["ovs-vswitchd"]
    text = command(code=1)
    assert re.search(
        r"fail ovs-vswitchd +not installed\n +-> apt-get install openvswitch-switch", text
    )


def test_the_command_prints_each_mistake_of_a_file_on_its_own_line(command, config_path):
    long = "x" * 70
    config_path.write_text(f"[host]\nid = 3\n{long} = 1\n[limit]\n")
    with pytest.raises(ConfigError) as caught:
        load_config(config_path)
    assert len(caught.value.problems) == 5
    text = command("--config", str(config_path), code=1)
    block = text[text.index("fail config") : text.index("-> mend the file")].splitlines()
    column = " " * len("fail config             ")
    mistakes = [line for line in block if re.match(f"{column}  [^ ]", line)]
    assert len(mistakes) == 5
    for line, problem in zip(mistakes, caught.value.problems, strict=True):
        assert problem.startswith(line.strip())
    # What is too long for a line goes on further in, and nothing is lost.
    words = " ".join(" ".join(block).split())
    assert all(problem in words for problem in caught.value.problems)


def test_the_command_prints_json(command, machine):
    found = json.loads(command("--json"))
    assert found["ok"] is True
    del machine.packages["click"]
    found = json.loads(command("--json", code=1))
    assert found["ok"] is False
    failed = [check for check in found["checks"] if check["status"] == "fail"]
    assert [(check["name"], bool(check["mend"])) for check in failed] == [("packages", True)]


def test_the_machine_as_it_is():
    machine = Machine()
    assert machine.python >= (3, 11)
    assert machine.package_version("click")
    assert machine.package_version("no-such-distribution") is None
    assert machine.which("no-such-program") is None
    assert machine.run("no-such-program") is None
    assert machine.run("sh", "-c", "echo out; echo err >&2; exit 3") == Output(3, "out\nerr")
    assert machine.capabilities() >= 0
    assert machine.has_path("/")
    assert version_of("ovs-vswitchd (Open vSwitch) 3.10.2\nDPDK") == (3, 10, 2)
    assert version_of("nothing") == ()

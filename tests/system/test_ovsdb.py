"""The agent's hold on its bridge, against a real ovsdb-server and ovs-vswitchd.

Each test has an OVS of its own: run directory, database, sockets, and a network namespace in which
ovs-vswitchd makes its devices. Internal ports stand for those of VMs.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller_app.ovsdb import (
    BridgeConfig,
    BridgeConflictError,
    BridgeFailedError,
    BridgeGone,
    ForeignControllerError,
    InterfacesTold,
    LockLost,
    Ovsdb,
    OvsdbError,
    OvsdbEvent,
    OvsdbUnreachableError,
    PortGone,
    PortSeen,
    ReplacedError,
    SecondAgentError,
    TunnelGone,
    TunnelSeen,
    VswitchdSilentError,
    lock_name,
)
from controller_app.ovsdb_facts import switch_facts
from rule_cache.cookie import MAGIC_VALUE

pytestmark = pytest.mark.system

SCHEMA_FILE = Path("/usr/share/openvswitch/vswitch.ovsschema")
#: Longest wait for something that must happen; nothing is expected to take this long.
PATIENCE_S = 15.0


def wait_for(condition, what):
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, f"waited {PATIENCE_S:g} s in vain for {what}"
        time.sleep(0.02)


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


class Switch:
    """One OVS; ``stop_*`` and ``start_*`` end and start its two processes one by one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.namespace = f"odtest-{secrets.token_hex(4)}"
        self.socket = directory / "db.sock"
        self.database = directory / "conf.db"
        self.address = f"unix:{self.socket}"
        self._processes: dict[str, subprocess.Popen] = {}
        self._run("ip", "netns", "add", self.namespace)
        self._run("ip", "-n", self.namespace, "link", "set", "lo", "up")
        self._run("ovsdb-tool", "create", str(self.database), str(SCHEMA_FILE))

    @property
    def environment(self):
        directory = str(self.directory)
        return os.environ | {
            "OVS_RUNDIR": directory,
            "OVS_LOGDIR": directory,
            "OVS_DBDIR": directory,
        }

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def _start(self, name: str, *command: str) -> None:
        log = self.directory / f"{name}.out"
        with log.open("ab") as output:
            self._processes[name] = subprocess.Popen(
                command, env=self.environment, stdout=output, stderr=output
            )

    def _stop(self, name: str, number: int) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            process.send_signal(number)
            process.wait(timeout=10)

    def start_server(self, *, socket_path: Path | None = None) -> None:
        path = socket_path or self.socket
        self._start(
            "server",
            "ovsdb-server",
            str(self.database),
            f"--remote=punix:{path}",
            f"--unixctl={self.directory}/server.ctl",
        )
        wait_for(lambda: listens(path), f"ovsdb-server at {path}")

    def stop_server(self, number: int = signal.SIGTERM) -> None:
        self._stop("server", number)

    def signal_server(self, number: int) -> None:
        self._processes["server"].send_signal(number)

    def start_vswitchd(self, *options: str) -> None:
        self._start(
            "vswitchd",
            *("ip", "netns", "exec", self.namespace),
            "ovs-vswitchd",
            self.address,
            f"--unixctl={self.directory}/vswitchd.ctl",
            *options,
        )

    def stop_vswitchd(self, number: int = signal.SIGTERM) -> None:
        self._stop("vswitchd", number)

    def start(self, *vswitchd_options: str) -> None:
        self.start_server()
        self.vsctl("--no-wait", "init")
        self.start_vswitchd(*vswitchd_options)

    def close(self) -> None:
        self.stop_vswitchd()
        self.stop_server()
        self._run("ip", "netns", "delete", self.namespace)

    def vsctl(self, *arguments: str, address: str | None = None) -> str:
        return self._run(
            "ovs-vsctl", f"--db={address or self.address}", "--timeout=10", *arguments
        ).strip()

    def ofctl(self, command: str, bridge: str, *arguments: str) -> str:
        management = f"unix:{self.directory}/{bridge}.mgmt"
        return self._run("ovs-ofctl", "-O", "OpenFlow13", command, management, *arguments)

    def rows(self, table: str) -> list[dict]:
        found = json.loads(self.vsctl("--format=json", "list", table))
        return [dict(zip(found["headings"], row, strict=True)) for row in found["data"]]

    def add_port(self, name: str, iface_id: str | None = None, *, bridge="br-int", **external_ids):
        ids = {"iface-id": iface_id} if iface_id else {}
        ids |= {key.replace("_", "-"): value for key, value in external_ids.items()}
        self.vsctl(
            *("add-port", bridge, name, "--", "set", "Interface", name, "type=internal"),
            *(f'external_ids:{key}="{value}"' for key, value in ids.items()),
        )

    def ofport(self, name: str) -> int:
        return int(self.vsctl("get", "Interface", name, "ofport"))


@pytest.fixture
def bare_switch(lab_machine) -> Iterator[Switch]:
    """An OVS with neither process running."""
    # Not tmp_path: the path of a unix socket has 107 bytes at most (unix(7)).
    with tempfile.TemporaryDirectory(prefix="odtest-") as directory:
        switch = Switch(Path(directory))
        try:
            yield switch
        finally:
            switch.close()


@pytest.fixture
def switch(bare_switch) -> Switch:
    bare_switch.start("--disable-system")
    return bare_switch


@pytest.fixture
def config(bare_switch) -> BridgeConfig:
    return BridgeConfig(ovsdb=bare_switch.address)


class Told:
    """The events of one watch, and the state that they add up to."""

    def __init__(self) -> None:
        self.events: list[OvsdbEvent] = []
        self._queue: queue.SimpleQueue[OvsdbEvent] = queue.SimpleQueue()
        #: How many events had come when it was told that these are all.
        self.complete_at: list[int] = []

    def put(self, event: OvsdbEvent) -> None:
        if isinstance(event, InterfacesTold):
            self.complete_at.append(self._queue.qsize())
        else:
            self._queue.put(event)

    def until(self, event: OvsdbEvent) -> list[OvsdbEvent]:
        """The events up to ``event``, which must come."""
        came: list[OvsdbEvent] = []
        while event not in came:
            try:
                came.append(self._queue.get(timeout=PATIENCE_S))
            except queue.Empty:
                pytest.fail(f"{event} did not come, but {came}")
        self.events += came
        return came

    def next(self, count: int) -> list[OvsdbEvent]:
        came = [self._queue.get(timeout=PATIENCE_S) for _ in range(count)]
        self.events += came
        return came

    def nothing_more(self) -> bool:
        return self._queue.empty()


@contextlib.contextmanager
def serving(config: BridgeConfig) -> Iterator[tuple[Ovsdb, Told]]:
    """An agent that has its bridge and watches it; the first event, TunnelSeen, is taken out."""
    told = Told()
    with Ovsdb.connect(config) as ovsdb:
        state = ovsdb.ensure_bridge()
        ovsdb.watch(told.put)
        assert told.next(1) == [TunnelSeen(config.tunnel_port, state.tunnel_ofport)]
        yield ovsdb, told


def marker(switch: Switch, told: Told) -> list[OvsdbEvent]:
    """What is told until a new port, made now, is told; without that port."""
    name = f"mark{secrets.token_hex(3)}"
    switch.add_port(name, name)
    mark = PortSeen(name, name, switch.ofport(name), None)
    return [event for event in told.until(mark) if event != mark]


# ------------------------------------------------------------------------------------ the bridge


def test_a_missing_bridge_is_created_whole(switch, config):
    with Ovsdb.connect(config) as ovsdb:
        state = ovsdb.ensure_bridge()

    (bridge,) = switch.rows("Bridge")
    assert bridge["fail_mode"] == "secure"
    assert bridge["protocols"] == "OpenFlow13"
    assert bridge["other_config"] == ["map", [["disable-in-band", "true"]]]
    assert bridge["datapath_type"] == state.datapath_type == "netdev"
    assert int(bridge["datapath_id"], 16) == state.datapath_id != 0
    (controller,) = switch.rows("Controller")
    assert controller["target"] == "tcp:127.0.0.1:6653"
    assert controller["connection_mode"] == "out-of-band"
    assert switch.vsctl("get", "Interface", "vxlan0", "type") == "vxlan"
    assert switch.vsctl("get", "Interface", "vxlan0", "options") == "{key=flow, remote_ip=flow}"
    assert switch.ofport("vxlan0") == state.tunnel_ofport
    assert state.changes


def test_names_addresses_and_port_of_the_tunnel_are_configurable(switch, config):
    config = replace(
        config,
        bridge="br-vpc",
        tunnel_port="vx-all",
        tunnel_local_ip="127.0.0.1",
        tunnel_dst_port=14789,
    )
    with Ovsdb.connect(config) as ovsdb:
        assert ovsdb.ensure_bridge().bridge == "br-vpc"

    options = switch.vsctl("get", "Interface", "vx-all", "options")
    assert options == '{dst_port="14789", key=flow, local_ip="127.0.0.1", remote_ip=flow}'
    assert switch.vsctl("port-to-br", "vx-all") == "br-vpc"


def test_a_bridge_that_is_right_is_left_alone_with_its_flows(switch, config):
    with Ovsdb.connect(config) as ovsdb:
        first = ovsdb.ensure_bridge()
    switch.ofctl("add-flow", "br-int", "table=7,priority=5,ip,actions=drop")
    before = switch.rows("Bridge"), switch.rows("Controller"), switch.rows("Interface")

    with Ovsdb.connect(config) as ovsdb:
        again = ovsdb.ensure_bridge()

    assert again.changes == ()
    assert replace(again, changes=first.changes) == first
    assert (switch.rows("Bridge"), switch.rows("Controller"), switch.rows("Interface")) == before
    assert "table=7" in switch.ofctl("dump-flows", "br-int")


def test_a_bridge_of_the_operator_is_adopted_and_only_what_differs_is_written(switch, config):
    switch.vsctl("add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev")
    switch.vsctl("set", "Bridge", "br-int", "protocols=OpenFlow10", "other_config:keep=this")
    switch.vsctl("set", "Bridge", "br-int", "fail_mode=secure")
    switch.vsctl("add-port", "br-int", "vxlan0", "--", "set", "Interface", "vxlan0", "type=vxlan")
    switch.vsctl(
        *("set", "Interface", "vxlan0", "options:remote_ip=flow", "options:key=flow"),
        *("options:local_ip=127.0.0.1", "options:csum=true"),
    )
    switch.add_port("vm1", "port-1")

    with Ovsdb.connect(config) as ovsdb:
        state = ovsdb.ensure_bridge()

    (bridge,) = switch.rows("Bridge")
    assert bridge["protocols"] == ["set", ["OpenFlow10", "OpenFlow13"]]
    assert dict(bridge["other_config"][1]) == {"keep": "this", "disable-in-band": "true"}
    assert switch.vsctl("list-ports", "br-int").split() == ["vm1", "vxlan0"]
    options = switch.vsctl("get", "Interface", "vxlan0", "options")
    assert options == '{csum="true", key=flow, remote_ip=flow}'
    assert not [change for change in state.changes if "fail_mode" in change or "created" in change]
    assert [change for change in state.changes if "local_ip" in change]


@pytest.mark.parametrize("fail_mode", ["", "standalone", "secure"])
def test_rules_of_others_that_are_cleared_are_counted_before(switch, config, caplog, fail_mode):
    mode = [f"fail_mode={fail_mode}"] if fail_mode else []
    switch.vsctl(
        *("add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev", *mode),
        *("--", "set-controller", "br-int", f"punix:{switch.directory}/listener.sock"),
    )
    for table in range(3):
        switch.ofctl("add-flow", "br-int", f"cookie=0x77,table={table},ip,actions=drop")
    switch.ofctl("add-flow", "br-int", f"cookie={MAGIC_VALUE + 1:#x},table=7,ip,actions=drop")
    said = []

    def ready(_state):
        said.extend(caplog.messages)

    with Ovsdb.connect(config) as ovsdb:
        ovsdb.ensure_bridge(ready=ready)
        # It is said before the controller is set, and is true.
        (warning,) = [one for one in said if "has no controller yet" in one]
        assert "3 rules of others are lost by that" in warning
        assert "cookie" not in switch.ofctl("dump-flows", "br-int")
        caplog.clear()
        # From now on others are left alone, and nothing is said.
        switch.ofctl("add-flow", "br-int", "cookie=0x77,table=0,ip,actions=drop")
        ovsdb.ensure_bridge()
        assert "cookie=0x77" in switch.ofctl("dump-flows", "br-int")
    assert not [one for one in caplog.messages if "rules of others" in one]


def test_of_a_bridge_without_rules_of_others_nothing_is_said(switch, config, caplog):
    # Open vSwitch itself makes a rule where the fail mode is not secure.
    switch.vsctl("add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev")
    assert "NORMAL" in switch.ofctl("dump-flows", "br-int")
    with Ovsdb.connect(config) as ovsdb:
        ovsdb.ensure_bridge()
    assert not [one for one in caplog.messages if "has no controller yet" in one]


def test_rules_of_others_that_cannot_be_counted_are_warned_of_all_the_same(switch, config, caplog):
    switch.vsctl("add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev")
    switch.vsctl("set", "Bridge", "br-int", "protocols=OpenFlow10", "fail_mode=secure")
    with Ovsdb.connect(config) as ovsdb:
        ovsdb.ensure_bridge()
    (warning,) = [one for one in caplog.messages if "has no controller yet" in one]
    assert "could not be asked" in warning


def test_auto_takes_what_works_here(bare_switch, config):
    bare_switch.start()
    with Ovsdb.connect(config) as ovsdb:
        state = ovsdb.ensure_bridge()

    kernel = Path("/sys/module/openvswitch").exists()
    assert state.datapath_type == ("system" if kernel else "netdev")


def test_auto_gives_a_bridge_that_cannot_work_the_userspace_datapath(switch, config):
    switch.vsctl("--no-wait", "add-br", "br-int")

    with Ovsdb.connect(config) as ovsdb:
        state = ovsdb.ensure_bridge()

    assert state.datapath_type == switch.rows("Bridge")[0]["datapath_type"] == "netdev"


def test_a_datapath_that_does_not_exist_here_is_an_error_and_leaves_nothing(switch, config):
    with (
        Ovsdb.connect(replace(config, datapath_type="system")) as ovsdb,
        pytest.raises(BridgeFailedError, match="br-int with datapath_type system"),
    ):
        ovsdb.ensure_bridge()

    assert switch.rows("Bridge") == []


def test_another_datapath_type_is_not_forced_on_a_bridge_in_use(switch, config):
    switch.vsctl("add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev")
    with (
        Ovsdb.connect(replace(config, datapath_type="system")) as ovsdb,
        pytest.raises(BridgeConflictError, match="has datapath_type netdev, not system"),
    ):
        ovsdb.ensure_bridge()

    assert switch.rows("Bridge")[0]["datapath_type"] == "netdev"
    assert switch.rows("Controller") == []


def test_a_foreign_controller_is_refused_and_nothing_is_written(switch, config):
    switch.vsctl("add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev")
    switch.vsctl("set-controller", "br-int", "tcp:127.0.0.1:16999", "ptcp:16998:127.0.0.1")
    before = switch.rows("Bridge"), sorted(row["target"] for row in switch.rows("Controller"))

    with (
        Ovsdb.connect(config) as ovsdb,
        pytest.raises(ForeignControllerError) as caught,
    ):
        ovsdb.ensure_bridge()

    assert "br-int already has the controller tcp:127.0.0.1:16999;" in str(caught.value)
    assert caught.value.targets == ("tcp:127.0.0.1:16999",)
    assert switch.rows("Bridge") == before[0]
    assert sorted(row["target"] for row in switch.rows("Controller")) == before[1]


def test_take_over_replaces_a_foreign_controller_and_keeps_listeners(switch, config):
    switch.vsctl("add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev")
    switch.vsctl("set-controller", "br-int", "tcp:127.0.0.1:16999", "ptcp:16998:127.0.0.1")

    with Ovsdb.connect(replace(config, take_over=True)) as ovsdb:
        ovsdb.ensure_bridge()

    targets = sorted(switch.vsctl("get-controller", "br-int").split())
    assert targets == ["ptcp:16998:127.0.0.1", "tcp:127.0.0.1:6653"]


def test_the_switch_connects_to_a_unix_socket(switch, config):
    path = switch.directory / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(PATIENCE_S)
        with Ovsdb.connect(replace(config, controller=f"unix:{path}")) as ovsdb:
            ovsdb.ensure_bridge()
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENCE_S)
                version, kind = connection.recv(8)[:2]

    assert (version, kind) == (4, 0)  # OFPT_HELLO of OpenFlow 1.3


def test_a_unix_socket_outside_the_run_directory_is_warned_of(switch, config, caplog):
    switch.vsctl("--no-wait", "set", "Open_vSwitch", ".", "external_ids:rundir=/run/elsewhere")
    with Ovsdb.connect(replace(config, controller="unix:/tmp/agent.sock")) as ovsdb:
        ovsdb.ensure_bridge()

    assert "only to unix sockets in /run/elsewhere" in caplog.text


# -------------------------------------------------------------------------------- the tunnel port


def test_a_tunnel_name_that_is_taken_is_refused(switch, config):
    switch.vsctl("add-br", "br-other", "--", "set", "Bridge", "br-other", "datapath_type=netdev")
    switch.add_port("vxlan0", bridge="br-other")

    with (
        Ovsdb.connect(config) as ovsdb,
        pytest.raises(BridgeConflictError, match=r"vxlan0 .* not a VXLAN port of bridge br-int"),
    ):
        ovsdb.ensure_bridge()

    assert switch.vsctl("list-br") == "br-other"


def test_a_bridge_name_that_is_a_port_is_refused(switch, config):
    switch.vsctl("add-br", "br-other", "--", "set", "Bridge", "br-other", "datapath_type=netdev")
    switch.add_port("br-int", bridge="br-other")

    with (
        Ovsdb.connect(config) as ovsdb,
        pytest.raises(BridgeConflictError, match="br-int belongs to a port of another bridge"),
    ):
        ovsdb.ensure_bridge()


def test_a_point_to_point_tunnel_is_not_made_a_flow_tunnel(switch, config):
    switch.vsctl("add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev")
    switch.vsctl("add-port", "br-int", "vxlan0", "--", "set", "Interface", "vxlan0", "type=vxlan")
    switch.vsctl("set", "Interface", "vxlan0", "options:remote_ip=192.0.2.7", "options:key=5")

    with (
        Ovsdb.connect(config) as ovsdb,
        pytest.raises(BridgeConflictError, match=r"vxlan0 has remote_ip=192\.0\.2\.7, key=5"),
    ):
        ovsdb.ensure_bridge()
    assert "192.0.2.7" in switch.vsctl("get", "Interface", "vxlan0", "options")

    with Ovsdb.connect(replace(config, take_over=True)) as ovsdb:
        ovsdb.ensure_bridge()
    assert switch.vsctl("get", "Interface", "vxlan0", "options") == "{key=flow, remote_ip=flow}"


def test_a_second_tunnel_of_one_configuration_names_the_first_and_is_removed(switch, config):
    switch.vsctl("add-br", "br-tun", "--", "set", "Bridge", "br-tun", "datapath_type=netdev")
    switch.vsctl("add-port", "br-tun", "vx-old", "--", "set", "Interface", "vx-old", "type=vxlan")
    switch.vsctl("set", "Interface", "vx-old", "options:remote_ip=flow", "options:key=flow")

    with (
        Ovsdb.connect(config) as ovsdb,
        pytest.raises(BridgeFailedError) as caught,
    ):
        ovsdb.ensure_bridge()

    assert "tunnel port vxlan0" in str(caught.value)
    assert "File exists" in str(caught.value)
    assert "vx-old has the same configuration" in str(caught.value)
    assert switch.vsctl("list-br") == "br-tun"


# --------------------------------------------------------------------------------- the local ports


def test_what_is_there_is_told_first(switch, config):
    with Ovsdb.connect(config) as ovsdb:
        state = ovsdb.ensure_bridge()
        switch.add_port("vm1", "port-1", attached_mac="fa:16:3e:00:00:01")
        switch.add_port("vm2", "port-2")
        switch.add_port("plain")
        told = Told()
        ovsdb.watch(told.put)

        wait_for(lambda: told.complete_at == [3], "the end of what is there")
        assert told.next(1) == [TunnelSeen("vxlan0", state.tunnel_ofport)]
        assert sorted(told.next(2), key=lambda event: event.iface_id) == [
            PortSeen("port-1", "vm1", switch.ofport("vm1"), bytes.fromhex("fa163e000001")),
            PortSeen("port-2", "vm2", switch.ofport("vm2"), None),
        ]
        assert marker(switch, told) == []


def test_a_port_appears_and_vanishes(switch, config):
    with serving(config) as (_, told):
        switch.add_port("vm1", "port-1")
        assert told.next(1) == [PortSeen("port-1", "vm1", switch.ofport("vm1"), None)]

        switch.vsctl("del-port", "vm1")
        assert told.next(1) == [PortGone("port-1", "vm1")]


def test_events_come_from_one_thread_that_is_not_the_callers(switch, config):
    threads = set()
    told = Told()

    def deliver(event):
        threads.add(threading.get_ident())
        told.put(event)

    with Ovsdb.connect(config) as ovsdb:
        state = ovsdb.ensure_bridge()
        ovsdb.watch(deliver)
        told.until(TunnelSeen("vxlan0", state.tunnel_ofport))
        switch.add_port("vm1", "port-1")
        told.next(1)
        ovsdb.set_flow_table_limits({5: ["NXM_NX_REG6[]"]}, limit=10)
        switch.vsctl("del-port", "vm1")
        told.next(1)

    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_an_iface_id_given_later_changed_and_taken_away(switch, config):
    with serving(config) as (_, told):
        switch.add_port("vm1")
        ofport = switch.ofport("vm1")
        assert marker(switch, told) == []

        switch.vsctl("set", "Interface", "vm1", "external_ids:iface-id=port-1")
        assert told.next(1) == [PortSeen("port-1", "vm1", ofport, None)]
        switch.vsctl("set", "Interface", "vm1", "external_ids:iface-id=port-2")
        assert told.next(2) == [
            PortGone("port-1", "vm1"),
            PortSeen("port-2", "vm1", ofport, None),
        ]
        switch.vsctl("remove", "Interface", "vm1", "external_ids", "iface-id")
        assert told.next(1) == [PortGone("port-2", "vm1")]


def test_a_new_ofport_is_a_port_gone_and_seen(switch, config):
    with serving(config) as (_, told):
        switch.add_port("vm1", "port-1")
        told.next(1)

        switch.vsctl("set", "Interface", "vm1", "ofport_request=77")

        assert told.next(2) == [PortGone("port-1", "vm1"), PortSeen("port-1", "vm1", 77, None)]


def test_a_port_that_moves_to_another_interface_in_one_transaction(switch, config):
    with serving(config) as (_, told):
        switch.add_port("vm1", "port-1")
        told.next(1)

        switch.vsctl(
            *("del-port", "vm1", "--", "add-port", "br-int", "vm1b"),
            *("--", "set", "Interface", "vm1b", "type=internal", "external_ids:iface-id=port-1"),
        )

        seen = PortSeen("port-1", "vm1b", switch.ofport("vm1b"), None)
        assert told.until(seen) == [PortGone("port-1", "vm1"), seen]


def test_an_attached_mac_that_changes_is_told_without_a_gap(switch, config, caplog):
    with serving(config) as (_, told):
        switch.add_port("vm1", "port-1", attached_mac="fa:16:3e:00:00:01")
        (seen,) = told.next(1)
        assert seen.attached_mac == bytes.fromhex("fa163e000001")

        switch.vsctl("set", "Interface", "vm1", 'external_ids:attached-mac="fa:16:3e:00:00:02"')
        assert told.next(1) == [replace(seen, attached_mac=bytes.fromhex("fa163e000002"))]

        switch.vsctl("set", "Interface", "vm1", "external_ids:attached-mac=nonsense")
        assert told.next(1) == [replace(seen, attached_mac=None)]
        assert marker(switch, told) == []
    assert caplog.text.count("attached-mac is ignored: 'nonsense'") == 1


def test_an_interface_without_a_device_is_not_a_port_until_it_has_one(switch, config, caplog):
    with serving(config) as (_, told):
        switch.vsctl(
            *("--no-wait", "add-port", "br-int", "vm1"),
            *("--", "set", "Interface", "vm1", "external_ids:iface-id=port-1"),
        )
        wait_for(
            lambda: switch.vsctl("get", "Interface", "vm1", "ofport") == "-1",
            "ovs-vswitchd to fail",
        )
        assert marker(switch, told) == []
        assert caplog.text.count("vm1 (iface-id port-1) has no OpenFlow port: could not open") == 1

        switch.vsctl("set", "Interface", "vm1", "type=internal")
        assert told.next(1) == [PortSeen("port-1", "vm1", switch.ofport("vm1"), None)]


def test_ports_of_other_bridges_are_not_ours(switch, config):
    switch.vsctl("add-br", "br-other", "--", "set", "Bridge", "br-other", "datapath_type=netdev")
    with serving(config) as (_, told):
        switch.add_port("vm9", "port-9", bridge="br-other")
        assert marker(switch, told) == []

        switch.vsctl(
            *("del-port", "vm9", "--", "add-port", "br-int", "vm9"),
            *("--", "set", "Interface", "vm9", "type=internal", "external_ids:iface-id=port-9"),
        )
        assert told.next(1)[0].iface_id == "port-9"


def test_of_two_interfaces_with_one_iface_id_the_first_stays(switch, config, caplog):
    with serving(config) as (_, told):
        switch.add_port("vm1", "port-1")
        told.next(1)
        switch.add_port("vm2", "port-1")
        assert marker(switch, told) == []
        assert marker(switch, told) == []
        sentence = "interfaces vm1 and vm2 both have iface-id port-1: vm1 stays"
        assert caplog.text.count(sentence) == 1

        switch.vsctl("del-port", "vm1")
        assert told.next(2) == [
            PortGone("port-1", "vm1"),
            PortSeen("port-1", "vm2", switch.ofport("vm2"), None),
        ]


def test_the_tunnel_port_and_the_bridge_go_and_come_back(switch, config):
    with serving(config) as (ovsdb, told):
        switch.add_port("vm1", "port-1")
        told.next(1)
        switch.vsctl("del-port", "vxlan0")
        assert told.next(1) == [TunnelGone("vxlan0")]
        state = ovsdb.ensure_bridge()
        assert state.changes == ("created tunnel port vxlan0",)
        assert told.next(1) == [TunnelSeen("vxlan0", state.tunnel_ofport)]

        switch.vsctl("del-br", "br-int")
        assert told.next(3) == [
            PortGone("port-1", "vm1"),
            TunnelGone("vxlan0"),
            BridgeGone("br-int"),
        ]
        state = ovsdb.ensure_bridge()
        assert told.next(1) == [TunnelSeen("vxlan0", state.tunnel_ofport)]


def test_an_event_that_the_callback_refused_comes_again(switch, config):
    told = Told()
    refused = []

    def deliver(event):
        if not refused and isinstance(event, PortSeen):
            refused.append(event)
            raise ValueError("not now")
        told.put(event)

    with Ovsdb.connect(config) as ovsdb:
        ovsdb.ensure_bridge()
        ovsdb.watch(deliver)
        told.next(1)
        switch.add_port("vm1", "port-1")
        seen = PortSeen("port-1", "vm1", switch.ofport("vm1"), None)
        assert marker(switch, told) == [seen]
    assert refused == [seen]


# ------------------------------------------------------------------------------- lost connections


def test_a_server_that_is_not_there_is_one_clear_error(bare_switch, config):
    with pytest.raises(OvsdbUnreachableError) as caught:
        Ovsdb.connect(config)

    message = str(caught.value)
    assert f"OVSDB at {bare_switch.address} does not answer" in message
    assert "No such file" in message
    assert "systemctl start openvswitch-switch" in message


def test_a_server_that_never_answers_is_given_up(bare_switch, config):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bare_switch.socket))
        listener.listen()
        with pytest.raises(OvsdbUnreachableError, match=r"silent for 0\.3 s"):
            Ovsdb.connect(config, timeout_s=0.3)


def test_a_server_without_the_database_is_an_error(bare_switch, config):
    bare_switch.database.unlink()
    other = bare_switch.directory / "other.ovsschema"
    other.write_text('{"name": "Other", "version": "1.0.0", "tables": {}}')
    subprocess.run(["ovsdb-tool", "create", str(bare_switch.database), str(other)], check=True)
    bare_switch.start_server()
    with pytest.raises(OvsdbUnreachableError, match="it has no Open_vSwitch database"):
        Ovsdb.connect(config)


def test_a_database_that_was_never_initialised_is_an_error(bare_switch, config):
    bare_switch.start_server()
    with pytest.raises(OvsdbError, match=r"is empty; .* --no-wait init"):
        Ovsdb.connect(config)


def test_the_agent_waits_for_a_server_that_starts_later(bare_switch, config, caplog):
    bare_switch.start("--disable-system")
    bare_switch.stop_server()

    def start():
        wait_for(lambda: "does not answer" in caplog.text, "the first attempt")
        bare_switch.start_server()

    starter = threading.Thread(target=start)
    starter.start()
    try:
        with Ovsdb.connect(config, patience_s=math.inf) as ovsdb:
            assert ovsdb.ensure_bridge().datapath_id
    finally:
        starter.join()
    assert caplog.text.count("does not answer") == 1


def test_waiting_ends_when_stop_is_set(bare_switch, config):
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(OvsdbUnreachableError):
        Ovsdb.connect(config, patience_s=math.inf, stop=stop)


def test_ports_that_change_while_the_server_is_away_are_told_after(switch, config, caplog):
    with serving(config) as (_, told):
        for number in (1, 2, 3):
            switch.add_port(f"vm{number}", f"port-{number}")
        told.next(3)
        switch.stop_server(signal.SIGKILL)
        wait_for(lambda: "is gone; trying again" in caplog.text, "the log line")
        elsewhere = switch.directory / "elsewhere.sock"
        switch.start_server(socket_path=elsewhere)
        switch.vsctl(
            *("--no-wait", "del-port", "vm1", "--", "add-port", "br-int", "vm4"),
            *("--", "set", "Interface", "vm4", "type=internal", "external_ids:iface-id=port-4"),
            *("--", "set", "Interface", "vm3", "external_ids:iface-id=port-33"),
            address=f"unix:{elsewhere}",
        )
        switch.stop_server()
        assert told.nothing_more()

        switch.start_server()
        wait_for(lambda: switch.vsctl("get", "Interface", "vm4", "ofport") != "[]", "vm4")

        vm3, vm4 = switch.ofport("vm3"), switch.ofport("vm4")
        came = told.until(PortSeen("port-4", "vm4", vm4, None))
        assert sorted(came, key=str) == [
            PortGone("port-1", "vm1"),
            PortGone("port-3", "vm3"),
            PortSeen("port-33", "vm3", vm3, None),
            PortSeen("port-4", "vm4", vm4, None),
        ]
        assert marker(switch, told) == []
    assert caplog.text.count("is gone; trying again") == 1


def test_a_restart_of_the_server_alone_tells_nothing(switch, config, caplog):
    with serving(config) as (ovsdb, told):
        switch.add_port("vm1", "port-1")
        told.next(1)
        switch.stop_server()
        wait_for(lambda: "is gone; trying again" in caplog.text, "the log line")
        switch.start_server()

        assert marker(switch, told) == []
        assert ovsdb.ensure_bridge().changes == ()


def test_a_restart_of_the_whole_switch_keeps_the_ports(switch, config):
    with serving(config) as (ovsdb, told):
        switch.add_port("vm1", "port-1")
        told.next(1)
        switch.stop_vswitchd(signal.SIGKILL)
        switch.stop_server(signal.SIGKILL)
        switch.start_server()
        switch.start_vswitchd("--disable-system")

        assert ovsdb.ensure_bridge().changes == ()
        assert marker(switch, told) == []


def test_a_silent_vswitchd_is_one_clear_error_and_the_change_waits_for_it(bare_switch, config):
    bare_switch.start_server()
    bare_switch.vsctl("--no-wait", "init")
    with (
        Ovsdb.connect(config, timeout_s=1.0) as ovsdb,
        pytest.raises(VswitchdSilentError, match=r"within 1 s; is it running\?"),
    ):
        ovsdb.ensure_bridge()

    bare_switch.start_vswitchd("--disable-system")
    with Ovsdb.connect(config) as ovsdb:
        state = ovsdb.ensure_bridge()
    assert state.datapath_type == "netdev"
    assert not [change for change in state.changes if "created" in change]


def test_a_silent_vswitchd_is_noticed_when_there_is_nothing_to_change(switch, config):
    with Ovsdb.connect(config, timeout_s=1.0) as ovsdb:
        ovsdb.ensure_bridge()
        switch.stop_vswitchd()
        with pytest.raises(VswitchdSilentError):
            ovsdb.ensure_bridge()


def test_writing_while_the_server_is_away_is_an_error_and_mends_itself(switch, config):
    told = Told()
    with Ovsdb.connect(config, timeout_s=2.0) as ovsdb:
        ovsdb.ensure_bridge()
        ovsdb.watch(told.put)
        switch.stop_server()
        with pytest.raises(OvsdbUnreachableError):
            ovsdb.ensure_bridge()
        switch.start_server()
        wait_for(lambda: _succeeds(ovsdb), "the connection to come back")


def test_a_server_that_hangs_is_an_error_each_time_and_mends_itself(switch, config):
    with Ovsdb.connect(config, timeout_s=0.5) as ovsdb:
        ovsdb.ensure_bridge()
        switch.signal_server(signal.SIGSTOP)
        try:
            for _ in range(3):
                with pytest.raises(OvsdbUnreachableError):
                    ovsdb.ensure_bridge()
        finally:
            switch.signal_server(signal.SIGCONT)
        wait_for(lambda: _succeeds(ovsdb), "the server to go on")


def _succeeds(ovsdb: Ovsdb) -> bool:
    try:
        ovsdb.ensure_bridge()
    except OvsdbUnreachableError:
        return False
    return True


# -------------------------------------------------------------------------------- the second agent


def test_a_second_agent_on_one_bridge_is_refused_at_once(switch, config):
    with serving(config) as (ovsdb, _):
        with pytest.raises(SecondAgentError, match="another agent already serves bridge br-int"):
            Ovsdb.connect(config, patience_s=math.inf)
        with Ovsdb.connect(
            replace(config, bridge="br_int", tunnel_port="vx1", tunnel_dst_port=14789)
        ) as other:
            assert other.ensure_bridge().bridge == "br_int"
        assert ovsdb.ensure_bridge().changes == ()

    with Ovsdb.connect(config) as ovsdb:
        assert ovsdb.ensure_bridge().changes == ()


def test_a_lock_lost_before_the_watch_is_told_by_the_watch(switch, config):
    told = Told()
    with Ovsdb.connect(config) as ovsdb:
        ovsdb.ensure_bridge()
        thief = subprocess.Popen(
            ["ovsdb-client", "steal", switch.address, lock_name(config)],
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: ovsdb._link.idl.lock_lost, "the theft to be noticed")
            ovsdb.watch(told.put)
            assert LockLost("br-int", taken=True) in told.next(2)
        finally:
            thief.terminate()
            thief.wait(timeout=10)
        # The lock comes back with the end of the other agent.
        wait_for(lambda: not ovsdb._link.idl.lock_lost, "the lock to come back")
        assert ovsdb.ensure_bridge().changes == ()


HOLDER = """
import sys, time
from controller_app.ovsdb import BridgeConfig, Ovsdb
ovsdb = Ovsdb.connect(BridgeConfig(ovsdb=sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_an_agent_that_crashed_leaves_no_lock(switch, config):
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, switch.address], stdout=subprocess.PIPE, cwd=root
    ) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(SecondAgentError):
                Ovsdb.connect(config)
        finally:
            holder.kill()
    with Ovsdb.connect(config) as ovsdb:
        assert ovsdb.ensure_bridge().datapath_id


def test_an_agent_that_loses_its_lock_is_told_and_can_write_no_more(switch, config):
    with serving(config) as (ovsdb, told):
        thief = subprocess.Popen(
            ["ovsdb-client", "steal", switch.address, lock_name(config)],
            stdout=subprocess.DEVNULL,
        )
        try:
            assert told.next(1) == [LockLost("br-int", taken=True)]
            with pytest.raises(SecondAgentError):
                ovsdb.ensure_bridge()
        finally:
            thief.terminate()
            thief.wait(timeout=10)
        assert told.nothing_more()


def test_the_lock_is_held_again_after_a_restart_of_the_server(switch, config, caplog):
    with serving(config):
        switch.stop_server()
        wait_for(lambda: "is gone; trying again" in caplog.text, "the log line")
        switch.start_server()
        wait_for(lambda: caplog.text.count("answers") > 1 or _is_locked(config), "the lock")
        with pytest.raises(SecondAgentError):
            Ovsdb.connect(config)


def _is_locked(config: BridgeConfig) -> bool:
    try:
        Ovsdb.connect(config).close()
    except SecondAgentError:
        return True
    except OvsdbUnreachableError:
        return False
    return False


# ------------------------------------------------------------------------- flow tables and facts


def test_flow_table_limits_are_set_changed_and_dropped(switch, config):
    groups = ["NXM_NX_REG6[]"]
    with Ovsdb.connect(config) as ovsdb:
        ovsdb.ensure_bridge()
        switch.vsctl(
            *("--id=@ft", "create", "Flow_Table", "flow_limit=9", "--"),
            *("set", "Bridge", "br-int", "flow_tables:99=@ft"),
        )
        ovsdb.set_flow_table_limits({30: groups, 40: ["NXM_NX_REG5[]"]}, limit=4)
        assert _limits(switch) == {30: (4, "evict"), 40: (4, "evict"), 99: (9, [])}

        # Only flows with a timeout can be evicted (ovs-vswitchd.conf.db(5), Flow_Table).
        for port, number in [(1, 0), (2, 0), (2, 1), (2, 2), (2, 3)]:
            match = f"table=30,idle_timeout=60,reg6={port},tcp,tp_dst={number}"
            switch.ofctl("add-flow", "br-int", f"{match},actions=drop")
        flows = switch.ofctl("dump-flows", "br-int", "table=30")
        assert (flows.count("reg6=0x1"), flows.count("reg6=0x2")) == (1, 3)

        assert ovsdb.set_flow_table_limits({40: groups, 50: groups}, limit=7)
        assert _limits(switch) == {40: (7, "evict"), 50: (7, "evict"), 99: (9, [])}
        before = switch.rows("Flow_Table"), switch.rows("Open_vSwitch")
        assert not ovsdb.set_flow_table_limits({40: groups, 50: groups}, limit=7)
        assert (switch.rows("Flow_Table"), switch.rows("Open_vSwitch")) == before


def _limits(switch: Switch) -> dict[int, tuple]:
    rows = {row["_uuid"][1]: row for row in switch.rows("Flow_Table")}
    (bridge,) = switch.rows("Bridge")
    return {
        table: (rows[uuid]["flow_limit"], _scalar(rows[uuid]["overflow_policy"]))
        for table, (_, uuid) in bridge["flow_tables"][1]
    }


def _scalar(value):
    return value[1] if isinstance(value, list) else value


def test_flow_table_limits_of_a_bridge_that_is_gone_are_an_error(switch, config):
    with Ovsdb.connect(config) as ovsdb:
        ovsdb.ensure_bridge()
        switch.vsctl("del-br", "br-int")
        with pytest.raises(BridgeConflictError, match="br-int is gone"):
            ovsdb.set_flow_table_limits({5: ["NXM_NX_REG6[]"]}, limit=5)


# ---------------------------------------------------------------------- when the switch connects


class Controller:
    """Listens where the switch is to connect to, in this process's namespace, and says hello."""

    def __init__(self, target: str) -> None:
        kind, _, rest = target.partition(":")
        if kind == "unix":
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(rest)
        else:
            self._listener = socket.socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            address, _, port = rest.rpartition(":")
            self._listener.bind((address, int(port)))
        self._listener.listen()
        self._listener.settimeout(PATIENCE_S)

    def accept(self) -> socket.socket:
        """A connection of the switch, past the hello (OpenFlow 1.3.5, section 6.3.1)."""
        while True:
            connection, _ = self._listener.accept()
            connection.settimeout(PATIENCE_S)
            # The switch may have tried by itself before it was told to connect anew.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(bytes.fromhex("0400000800000001"))
                if connection.recv(8):
                    return connection
            connection.close()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(params=["unix", "unix.", "unix//"])
def unix_controller(request, switch) -> str:
    """Socket in the run directory, in spellings that an operator may give."""
    folder = {"unix": "", "unix.": "./", "unix//": "/"}[request.param]
    return f"unix:{switch.directory}/{folder}agent.sock"


def log_of(switch: Switch) -> str:
    return (switch.directory / "vswitchd.out").read_text()


def test_the_switch_connects_at_once_when_the_agent_is_back(switch, config, unix_controller):
    config = replace(config, controller=unix_controller)
    with Ovsdb.connect(config) as ovsdb:
        state = ovsdb.ensure_bridge()
    switch.ofctl("add-flow", "br-int", "table=7,priority=5,ip,actions=drop")
    # Attempts after 1, 3 and 7 s: at 1.3 s the next one is far off.
    time.sleep(1.3)
    spelled = []
    for turn in range(3):
        if turn:
            time.sleep(1.3)
        controller = Controller(f"unix:{switch.directory}/agent.sock")
        with Ovsdb.connect(config) as ovsdb:
            begin_s = time.monotonic()
            again = ovsdb.ensure_bridge(reconnect=True)
            connection = controller.accept()
            waited_s = time.monotonic() - begin_s
        (row,) = switch.rows("Controller")
        spelled.append(row["target"])
        assert row["max_backoff"] == 1000
        assert again.changes == ()
        assert again.datapath_id == state.datapath_id
        # Not a measurement: by itself the switch would come a second later, or more.
        assert waited_s < 0.7
        assert "table=7" in switch.ofctl("dump-flows", "br-int")
        connection.close()
        controller.close()
        (switch.directory / "agent.sock").unlink()
    assert spelled[0] == spelled[2] != spelled[1]


def test_the_bridge_is_told_ready_before_the_switch_can_connect(switch, config):
    controllers = []
    with Ovsdb.connect(config) as ovsdb:
        state = ovsdb.ensure_bridge(ready=lambda _: controllers.append(switch.rows("Controller")))
    assert controllers == [[]]
    assert state.changes


@pytest.fixture
def local_controller(switch) -> Iterator[Controller]:
    controller = Controller(f"unix:{switch.directory}/agent.sock")
    yield controller
    controller.close()


def test_a_touch_while_connected_bounds_the_back_off(switch, config, local_controller):
    """OVS 3.1 waits 1, 2, 4, 8 s otherwise, whatever max_backoff says."""
    config = replace(config, controller=f"unix:{switch.directory}/agent.sock")
    with Ovsdb.connect(config) as ovsdb:
        ovsdb.ensure_bridge()
        connection = local_controller.accept()
        wait_for(lambda: "agent.sock: connected" in log_of(switch), "the switch to be connected")
        ovsdb.touch()
        # A connection that is closed without an answer is a failed attempt, after which it waits.
        connection.close()
        times_s = []
        for _ in range(4):
            listener, _ = local_controller._listener.accept()
            times_s.append(time.monotonic())
            listener.close()
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(times_s)]
    assert max(gaps_s) < 2.6, gaps_s


def test_what_an_earlier_agent_set_elsewhere_is_replaced(switch, config):
    with Ovsdb.connect(config) as ovsdb:
        ovsdb.ensure_bridge()
    with Ovsdb.connect(replace(config, controller="tcp:127.0.0.1:16653")) as ovsdb:
        state = ovsdb.ensure_bridge()
    assert state.changes == ("controller tcp:127.0.0.1:16653 (was tcp:127.0.0.1:6653)",)
    assert switch.vsctl("get-controller", "br-int") == "tcp:127.0.0.1:16653"


def test_another_spelling_of_our_address_is_ours(switch, config):
    switch.vsctl("add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev")
    switch.vsctl("set-controller", "br-int", "tcp:[127.0.0.1]:06653")
    with Ovsdb.connect(config) as ovsdb:
        ovsdb.ensure_bridge()
    assert switch.vsctl("get-controller", "br-int") == "tcp:[127.0.0.1]:06653"


# ----------------------------------------------------------------------------- replacing an agent


def test_an_agent_takes_the_lock_away_and_the_other_one_is_told(switch, config):
    with serving(config) as (old, told):
        with Ovsdb.connect(config, replace=True) as new:
            assert told.next(1) == [LockLost("br-int", taken=True)]
            with pytest.raises(ReplacedError, match="to replace this one on bridge br-int"):
                old.ensure_bridge()
            assert new.ensure_bridge().changes == ()
            with pytest.raises(SecondAgentError, match="--replace-agent"):
                Ovsdb.connect(config)


def test_replacing_nobody_is_a_plain_start(switch, config):
    with Ovsdb.connect(config, replace=True) as ovsdb:
        assert ovsdb.ensure_bridge().changes


def test_an_agent_that_was_replaced_does_not_come_back_with_the_server(switch, config):
    """The one that has the lock keeps it, or the other one gets it; never both."""
    with serving(config) as (old, told), Ovsdb.connect(config, replace=True) as new:
        told.until(LockLost("br-int", taken=True))
        old.close()
        switch.stop_server()
        switch.start_server()
        assert new.ensure_bridge().changes == ()


def test_facts_for_the_doctor_need_no_lock(switch, config):
    switch.vsctl("--no-wait", "set", "Open_vSwitch", ".", "ovs_version=3.1.0")
    with serving(config):
        facts = switch_facts(switch.address)

    assert facts.ovs_version == "3.1.0"
    assert facts.datapath_types == ("netdev",)
    assert "vxlan" in facts.iface_types
    assert facts.settled
    (bridge,) = facts.bridges
    assert (bridge.name, bridge.datapath_type, bridge.works) == ("br-int", "netdev", True)
    assert bridge.controllers == (("tcp:127.0.0.1:6653", False),)


def test_facts_tell_that_vswitchd_does_not_run(switch):
    switch.stop_vswitchd()
    switch.vsctl("--no-wait", "add-br", "br-new", "--", "set", "Open_vSwitch", ".", "next_cfg=99")

    facts = switch_facts(switch.address)

    assert not facts.settled
    assert not facts.bridges[0].works


def test_facts_without_a_server_are_an_error(bare_switch):
    with pytest.raises(OvsdbUnreachableError):
        switch_facts(bare_switch.address)

"""Limits of conntrack zones, against a stand-in for ovs-vswitchd's control socket."""

from __future__ import annotations

import json
import re
import socket
import threading
import time

import pytest

from controller_app.conntrack_limits import ConntrackLimits, ZoneUsage
from controller_app.vswitchd_control import (
    CommandUnknownError,
    Control,
    ControlError,
    ProcessWatch,
    control_socket,
    run_directory,
)

PATIENCE_S = 10.0
DATAPATH = "netdev@ovs-netdev"


def wait_for(condition):
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


class Vswitchd:
    """Answers dpctl/ct-*-limits as OVS 3.1 does; ``knows`` false: as one that is too old."""

    def __init__(self, path):
        self.path = path
        self.limits = {}
        self.counts = {}
        self.commands = []
        self.knows = True
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._serve(connection)

    def _serve(self, connection):
        text, decoder = "", json.JSONDecoder()
        while data := connection.recv(65536):
            text += data.decode()
            try:
                request, end = decoder.raw_decode(text)
            except json.JSONDecodeError:
                continue
            text = text[end:]
            self.commands.append((request["method"], request["params"]))
            error = result = None
            if self.knows:
                result = self._answer(request["method"], request["params"])
            else:
                error = f'"{request["method"]}" is not a valid command'
            reply = {"id": request["id"], "result": result, "error": error}
            connection.sendall(json.dumps(reply).encode())

    def _answer(self, method, words):
        assert words[0] == DATAPATH
        if method == "dpctl/ct-set-limits":
            for word in words[1:]:
                zone, limit = re.fullmatch(r"zone=(\d+),limit=(\d+)", word).groups()
                self.limits[int(zone)] = int(limit)
            return ""
        zones = [int(zone) for zone in words[1].removeprefix("zone=").split(",")]
        if method == "dpctl/ct-del-limits":
            for zone in zones:
                del self.limits[zone]
            return ""
        lines = ["default limit=0"]
        lines += [
            f"zone={zone},limit={self.limits.get(zone, 0)},count={self.counts.get(zone, 0)}"
            for zone in zones
        ]
        return "\n".join(lines)

    def writes(self):
        return [command for command, _ in self.commands if command != "dpctl/ct-get-limits"]


@pytest.fixture
def vswitchd(tmp_path):
    made = Vswitchd(tmp_path / "ovs-vswitchd.ctl")
    yield made
    if made.path.exists():
        made.close()


@pytest.fixture
def make_limits(tmp_path):
    made = []

    def make(limit=100):
        warnings = []
        limits = ConntrackLimits(
            DATAPATH, lambda: control_socket(tmp_path), limit=limit, warn=warnings.append
        )
        made.append(limits)
        return limits, warnings

    yield make
    for limits in made:
        limits.close()


def test_zones_get_the_limit_and_lose_it_when_they_go(vswitchd, make_limits):
    limits, warnings = make_limits()
    limits.ensure([1, 2, 3])
    wait_for(lambda: vswitchd.limits == {1: 100, 2: 100, 3: 100})
    limits.ensure([2, 3, 4])
    wait_for(lambda: vswitchd.limits == {2: 100, 3: 100, 4: 100})
    limits.ensure([])
    wait_for(lambda: vswitchd.limits == {})
    assert warnings == []


def test_what_is_so_already_is_not_written_again(vswitchd, make_limits):
    vswitchd.limits = {1: 100, 2: 100, 9: 5}
    limits, _ = make_limits()
    limits.ensure([1, 2])
    limits.read_usage()
    wait_for(limits.usage)
    for _ in range(3):
        limits.ensure([2, 1])
    assert vswitchd.writes() == []
    # A zone that is not ours keeps what somebody gave it.
    assert vswitchd.limits == {1: 100, 2: 100, 9: 5}


def test_one_zone_may_have_a_limit_of_its_own_for_its_life(vswitchd, make_limits):
    limits, _ = make_limits()
    limits.ensure([1, 2])
    limits.set(2, 7)
    wait_for(lambda: vswitchd.limits == {1: 100, 2: 7})
    limits.ensure([1, 2, 3])
    wait_for(lambda: vswitchd.limits == {1: 100, 2: 7, 3: 100})
    limits.set(2, 0)
    limits.ensure([1, 2, 3])
    wait_for(lambda: vswitchd.limits == {1: 100, 3: 100})
    limits.ensure([1])
    limits.ensure([1, 2])
    wait_for(lambda: vswitchd.limits == {1: 100, 2: 100})


def test_many_zones_go_in_few_commands(vswitchd, make_limits):
    limits, _ = make_limits()
    limits.ensure(range(1, 1201))
    wait_for(lambda: len(vswitchd.limits) == 1200)
    assert len(vswitchd.writes()) == 3


def test_a_switch_that_forgot_is_told_again(vswitchd, make_limits):
    limits, _ = make_limits()
    limits.ensure([1])
    wait_for(lambda: vswitchd.limits == {1: 100})
    vswitchd.limits.clear()
    limits.renew()
    wait_for(lambda: vswitchd.limits == {1: 100})


def test_usage_is_told_by_port(vswitchd, make_limits):
    limits, _ = make_limits()
    limits.ensure([1, 2])
    wait_for(lambda: len(vswitchd.limits) == 2)
    vswitchd.counts = {1: 100, 2: 99}
    assert limits.by_port({"a": 1}) == {}
    limits.read_usage()
    wait_for(lambda: limits.usage() == {1: ZoneUsage(100, 100), 2: ZoneUsage(99, 100)})
    assert limits.by_port({"b": 2, "a": 1, "new": 3}) == {
        "a": {"count": 100, "limit": 100, "full": True},
        "b": {"count": 99, "limit": 100, "full": False},
    }


def test_no_socket_is_warned_of_once_and_mended_when_it_comes(tmp_path, make_limits):
    limits, warnings = make_limits()
    limits.ensure([1])
    wait_for(lambda: warnings)
    limits.renew()
    limits.ensure([1, 2])
    limits.renew()
    vswitchd = Vswitchd(tmp_path / "ovs-vswitchd.ctl")
    limits.renew()
    wait_for(lambda: vswitchd.limits == {1: 100, 2: 100})
    vswitchd.close()
    (warning,) = warnings
    assert "the control socket of ovs-vswitchd is not there" in warning
    assert "max_connections_per_port = 0" in warning


def test_a_switch_that_cannot_is_warned_of_once(vswitchd, make_limits):
    vswitchd.knows = False
    limits, warnings = make_limits()
    limits.ensure([1])
    wait_for(lambda: warnings)
    limits.ensure([1, 2])
    limits.read_usage()
    wait_for(lambda: len(vswitchd.commands) >= 2)
    limits.renew()
    vswitchd.knows = True
    limits.renew()
    wait_for(lambda: vswitchd.limits == {1: 100, 2: 100})
    assert len(warnings) == 1
    assert 'ct-get-limits: "dpctl/ct-get-limits" is not a valid command' in warnings[0]


def test_the_control_socket_is_found(tmp_path, monkeypatch):
    monkeypatch.delenv("OVS_RUNDIR", raising=False)
    assert control_socket(tmp_path) is None
    (tmp_path / "ovs-vswitchd.ctl").touch()
    assert control_socket(tmp_path) == tmp_path / "ovs-vswitchd.ctl"
    (tmp_path / "ovs-vswitchd.pid").write_text("77\n")
    (tmp_path / "ovs-vswitchd.77.ctl").touch()
    assert control_socket(tmp_path) == tmp_path / "ovs-vswitchd.77.ctl"
    assert str(run_directory("unix:/x/y/db.sock")) == "/x/y"
    assert str(run_directory("tcp:127.0.0.1:6640")).endswith("openvswitch")


def test_another_process_is_noticed_once(tmp_path):
    first = Vswitchd(tmp_path / "ovs-vswitchd.ctl")
    watch = ProcessWatch(tmp_path)
    assert not watch.changed()
    first.close()
    assert not watch.changed()
    second = Vswitchd(tmp_path / "ovs-vswitchd.ctl")
    assert watch.changed()
    assert not watch.changed()
    second.close()


def test_a_command_that_fails_names_itself(vswitchd):
    with pytest.raises(ControlError, match="not there"):
        Control(None)
    with pytest.raises(ControlError, match=r"none\.ctl \(No such file"):
        Control(vswitchd.path.with_name("none.ctl"))
    vswitchd.knows = False
    control = Control(vswitchd.path)
    with pytest.raises(CommandUnknownError, match="dpctl/x"):
        control.run("dpctl/x")
    control.close()

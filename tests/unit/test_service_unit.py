"""The systemd unit in ``examples/``: its paths, options and exit codes are those of the program."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from controller_app import cli_run
from controller_app.cli_support import CommandError
from controller_app.config import RUN_DIRECTORY
from controller_app.config_keys import KEYS

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "examples" / "ondemand.service"


@pytest.fixture(scope="module")
def unit():
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str
    parsed.read_string(UNIT.read_text(encoding="utf-8"))
    return parsed


def test_it_starts_the_agent_as_the_command_is(unit):
    program, command, *options = shlex.split(unit["Service"]["ExecStart"])
    assert command == "run"
    # The virtual environment that README makes, and the project's script in it.
    assert f"python3 -m venv {Path(program).parents[1]} " in (ROOT / "README.md").read_text()
    assert Path(program).name == "ondemand"
    context = cli_run.command.make_context("run", list(options))
    assert context.params == {
        "config_path": Path(cli_run.DEFAULT_CONFIG),
        "replace_agent": False,
        "fresh": False,
    }


def test_what_starting_again_would_not_mend_is_not_started_again(unit):
    service = unit["Service"]
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == str(CommandError.exit_code)
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"


def test_what_the_agent_saves_outlives_it(unit):
    service = unit["Service"]
    assert Path("/run", service["RuntimeDirectory"]) == RUN_DIRECTORY
    assert service["RuntimeDirectoryPreserve"] == "yes"
    samples = {(key.table, key.name): key.sample for key in KEYS}
    assert Path(samples["source", "file"]).parent == Path("/var/lib", service["StateDirectory"])
    assert Path(cli_run.DEFAULT_CONFIG).parent == Path("/etc", service["ConfigurationDirectory"])


def test_it_waits_for_open_vswitch_and_does_not_fall_with_it(unit):
    assert "openvswitch-switch.service" in unit["Unit"]["After"].split()
    assert "openvswitch-switch.service" in unit["Unit"]["Wants"].split()
    for bound in ("Requires", "BindsTo", "PartOf"):
        assert bound not in unit["Unit"]


def test_nothing_keeps_it_from_the_switch(unit):
    service = unit["Service"]
    for closed in ("PrivateNetwork", "PrivateUsers", "DynamicUser", "User", "TemporaryFileSystem"):
        assert closed not in service
    # It listens at a socket, in the run directory of Open vSwitch or on loopback.
    assert service["ProtectSystem"] == "full"
    families = service["RestrictAddressFamilies"].split()
    assert {"AF_UNIX", "AF_INET", "AF_INET6"} <= set(families)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_no_fault(unit, tmp_path):
    # The program need not be installed here, nor Open vSwitch as a service.
    text = UNIT.read_text(encoding="utf-8")
    command = unit["Service"]["ExecStart"]
    copy = tmp_path / "ondemand.service"
    copy.write_text(text.replace(command, "/bin/true"), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    about = [line for line in done.stderr.splitlines() if "ondemand.service" in line]
    assert about == []

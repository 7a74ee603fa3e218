"""``ondemand explain FLOW --config``: the agent's tunnel address, not the one in the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller_app.cli import cli
from controller_app.sqlite_store import SqliteStore
from ondemand.goal_state import compile_goal_state, encode_slices
from tests.support.goal_states import goal_state, group, port, vpc

FLOW = "icmp,nw_dst=10.0.0.12"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ports = [port(11, security_groups=["g"]), port(12, host="h2", security_groups=["g"])]
    egress = {"direction": "egress"}
    document = goal_state(vpc(security_groups=[group(egress)], ports=ports))
    with SqliteStore(tmp_path / "slices.db", writer=True) as store:
        store.publish(encode_slices(compile_goal_state(document)), replace_all=True)
    return tmp_path


def tunnel_ips(folder: Path, host: str, tunnel_ip: str) -> dict[str, str]:
    """By host, as explain shows them with the configuration of ``host``."""
    path = folder / "agent.toml"
    path.write_text(
        f'[host]\nid = "{host}"\ntunnel_ip = "{tunnel_ip}"\n[source]\nfile = "slices.db"\n'
    )
    arguments = ["explain", "--config", str(path), "--port", "vm11", "--json", FLOW]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code in (0, 1), result.output
    return {one["host"]: one["tunnel_ip"] for one in json.loads(result.stdout)["placeholders"]}


def test_the_configured_address_of_the_own_host_counts(folder: Path) -> None:
    assert tunnel_ips(folder, "h1", "198.51.100.9") == {"h1": "198.51.100.9", "h2": "192.0.2.2"}
    assert tunnel_ips(folder, "h2", "198.51.100.9") == {"h1": "192.0.2.1", "h2": "198.51.100.9"}
    assert tunnel_ips(folder, "h1", "192.0.2.1") == {"h1": "192.0.2.1", "h2": "192.0.2.2"}
    assert tunnel_ips(folder, "h3", "198.51.100.9") == {"h1": "192.0.2.1", "h2": "192.0.2.2"}


def test_an_address_that_is_the_other_hosts_takes_its_ports_for_local(folder: Path) -> None:
    """What the agent would do with this configuration, and why traffic would be lost."""
    path = folder / "agent.toml"
    tunnel_ips(folder, "h1", "192.0.2.2")
    result = CliRunner().invoke(cli, ["explain", "--config", str(path), "--port", "vm11", FLOW])
    assert result.exit_code == 1, result.output
    assert "DENIED by location at vm11 on h1: not_plugged" in result.output

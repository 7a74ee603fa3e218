"""BridgeConfig refuses what ovs-vswitchd would, and says which field."""

from __future__ import annotations

import dataclasses

import pytest

from controller_app.ovsdb import BridgeConfig, lock_name


def test_the_defaults_are_those_of_a_debian_host():
    config = BridgeConfig()
    assert config.bridge == "br-int"
    assert config.ovsdb == "unix:/var/run/openvswitch/db.sock"
    assert config.controller == "tcp:127.0.0.1:6653"
    assert config.tunnel_options == {"remote_ip": "flow", "key": "flow"}


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BridgeConfig().bridge = "br-other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bridge", "br-vpc.7"),
        ("bridge", "x" * 15),
        ("ovsdb", "tcp:127.0.0.1:6640"),
        ("ovsdb", "tcp:[::1]:6640"),
        ("controller", "unix:/run/openvswitch/agent.sock"),
        ("tunnel_local_ip", "fd00::1"),
        ("tunnel_dst_port", 65535),
        ("datapath_type", "netdev"),
    ],
)
def test_good_values(field, value):
    assert getattr(BridgeConfig(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bridge", ""),
        ("bridge", "br int"),
        ("bridge", "br/int"),
        ("bridge", "x" * 16),
        ("bridge", "ü" * 8),
        ("tunnel_port", "vxlan0 "),
        ("tunnel_port", "br-int"),
        ("ovsdb", "db.sock"),
        ("ovsdb", "unix:relative.sock"),
        ("ovsdb", "ssl:127.0.0.1:6640"),
        ("ovsdb", "unix:/a.sock,unix:/b.sock x"),
        ("controller", "ptcp:6653"),
        ("controller", "tcp:localhost:6653"),
        ("controller", "tcp:127.0.0.1"),
        ("controller", "tcp:127.0.0.1:0"),
        ("controller", "tcp:127.0.0.1:65536"),
        ("controller", "tcp:127.0.0.256:6653"),
        ("controller", "tcp:[::g]:6653"),
        ("datapath_type", "dpdk"),
        ("tunnel_local_ip", "10.0.0.0/24"),
        ("tunnel_dst_port", 0),
        ("tunnel_dst_port", 65536),
    ],
)
def test_bad_values_name_their_field(field, value):
    with pytest.raises(ValueError, match=f"^{field}: "):
        BridgeConfig(**{field: value})


def test_the_locks_of_two_bridges_differ_and_are_ids():
    names = [lock_name(BridgeConfig(bridge=bridge)) for bridge in ("br-int", "br_int", "br_2dint")]
    assert len(set(names)) == 3
    assert all(name.isidentifier() and name.isascii() for name in names)

"""Slice names and the shards of neighbors."""

from __future__ import annotations

import pytest

from ondemand.addresses import parse_ip, parse_mac
from ondemand.slices import (
    MAC_SHARDS,
    SliceKind,
    SliceNameError,
    check_id,
    group_slice,
    host_group_slice,
    host_slice,
    is_id,
    kind_of,
    mac_slice,
    neighbor_slice,
    vpc_slice,
)

_MAC = parse_mac("fa:16:3e:00:00:01")


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        (host_slice("h1"), "host/h1", SliceKind.HOST),
        (host_group_slice("rack-1"), "hostgroup/rack-1", SliceKind.HOST_GROUP),
        (vpc_slice("v1"), "vpc/v1", SliceKind.VPC),
        (group_slice("web"), "sg/web", SliceKind.SECURITY_GROUP),
        (neighbor_slice("v1", parse_ip("10.0.0.7")), "nbr/v1/10.0.0.0", SliceKind.NEIGHBORS),
        (neighbor_slice("v1", parse_ip("fd00::1:7")), "nbr/v1/fd00::1:0", SliceKind.NEIGHBORS),
    ],
)
def test_a_name_tells_the_kind(name: str, text: str, kind: SliceKind) -> None:
    assert name == text
    assert kind_of(name) is kind


def test_a_mac_pointer_is_in_a_shard_of_its_vpc() -> None:
    name = mac_slice("v1", _MAC)
    assert kind_of(name) is SliceKind.NEIGHBORS
    assert 0 <= int(name.removeprefix("nbr/v1/mac-")) < MAC_SHARDS


def test_the_shard_of_a_mac_never_changes() -> None:
    """A publisher and an agent of another release must mean the same shard."""
    assert mac_slice("v1", _MAC) == "nbr/v1/mac-250"
    assert mac_slice("v1", parse_mac("02:00:00:00:00:ff")) == "nbr/v1/mac-37"


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("10.0.0.0", "10.0.0.255", True),
        ("10.0.0.255", "10.0.1.0", False),
        ("fd00::", "fd00::ff", True),
        ("fd00::ff", "fd00::100", False),
        ("10.0.0.1", "::ffff:10.0.0.1", False),
    ],
)
def test_256_addresses_share_a_shard(first: str, second: str, alike: bool) -> None:
    shards = {neighbor_slice("v1", parse_ip(text)) for text in (first, second)}
    assert (len(shards) == 1) == alike


def test_two_vpcs_share_no_shard() -> None:
    ip = parse_ip("10.0.0.1")
    assert neighbor_slice("v1", ip) != neighbor_slice("v2", ip)
    assert mac_slice("v1", _MAC) != mac_slice("v2", _MAC)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "host",
        "host/",
        "host/a/b",
        "vpc/../etc",
        "vpc/ v1",
        "nbr/v1",
        "nbr/v1/10.0.0.0/x",
        "nbr//10.0.0.0",
        "subnet/s1",
        "HOST/h1",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(SliceNameError):
        kind_of(name)


def test_the_error_says_what_is_wrong() -> None:
    with pytest.raises(SliceNameError, match="'subnet/s1' is no slice name: it must start with"):
        kind_of("subnet/s1")
    with pytest.raises(SliceNameError, match="'host/a/b' is no slice name: wrong number of parts"):
        kind_of("host/a/b")
    with pytest.raises(SliceNameError, match="slice owner '-x' is no identifier"):
        kind_of("host/-x")


@pytest.mark.parametrize("value", ["a", "A1", "0", "web_1.x:y-z", "x" * 64])
def test_identifiers(value: str) -> None:
    assert is_id(value)
    assert check_id("port", value) == value


@pytest.mark.parametrize("value", ["", "-a", ".a", "_a", "a/b", "a b", "a\n", "ä", "x" * 65, "a\0"])
def test_what_is_no_identifier_is_refused(value: str) -> None:
    assert not is_id(value)
    with pytest.raises(SliceNameError, match=r"port .* is no identifier"):
        check_id("port", value)

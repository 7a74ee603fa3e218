"""Records that cannot be used: told with key and reason, counted as missing, healed when rewritten."""

from __future__ import annotations

import pytest

from tests.support.lab import Lab, MakeLab
from tests.support.office_cloud import office
from tests.support.world_builder import HERE, THERE

GARBAGE = b"\xc1 this is no record"


def talks(lab: Lab, family: int, dst: str = "b") -> bool:
    return lab.send("a", lab.frames(family).udp("a", dst)).reached == [dst]


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(office(), hosts=(HERE, THERE))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("host/here", "port/b"),
        ("vpc/vpc-1", "subnet/red"),
        ("sg/web", "rule/udp-53-{family}"),
        ("nbr/vpc-1/{net}", "ip/{b}"),
    ],
)
@pytest.mark.parametrize("when", ["from the start", "later"])
def test_a_bad_record_is_told_counts_as_missing_and_heals(
    make_lab: MakeLab, family: int, name: str, key: str, when: str
) -> None:
    lab = make_lab(office(), hosts=(HERE, THERE), plugged=() if when == "from the start" else None)
    vm = lab.frames(family)
    place = {"family": family, "net": "10.0.1.0" if family == 4 else "fd00:1::"}
    place["b"] = "10.0.1.12" if family == 4 else "fd00:1::12"
    name, key = name.format(**place), key.format(**place)
    good = lab.store.records(name)[key]
    if when == "later":
        assert talks(lab, family)
    lab.write(name, {key: GARBAGE})
    if when == "from the start":
        for host in lab.hosts.values():
            for port in lab.cloud.ports_on(host.name):
                host.plug(port)
    assert not talks(lab, family)
    told = [warning for warning in lab.here.warnings if repr(key) in warning]
    assert told
    assert all(repr(name) in warning and "counts as missing" in warning for warning in told)
    assert lab.here.count("bad_record") >= 1
    lab.write(name, {key: good})
    assert talks(lab, family)
    assert lab.send("b", vm.udp_reply("b", "a")).reached == ["a"]


def test_records_beside_a_bad_one_count(lab: Lab, family: int) -> None:
    lab.write("sg/web", {"rule/tcp-80-4": GARBAGE, "rule/tcp-80-6": GARBAGE})
    vm = lab.frames(family)
    assert talks(lab, family)
    assert lab.send("a", vm.tcp("a", "b", 80)).reached == []
    assert lab.send("a", vm.tcp("a", "b", 443)).reached == ["b"]


def test_a_bad_record_takes_live_connections_along(lab: Lab, family: int) -> None:
    """It counts as missing, and a rule that is missing allows nothing."""
    vm = lab.frames(family)
    assert lab.send("a", vm.tcp("a", "b", 80)).reached == ["b"]
    assert lab.send("b", vm.tcp_reply("b", "a", 80)).reached == ["a"]
    lab.write("sg/web", {f"rule/tcp-80-{family}": GARBAGE})
    assert lab.send("b", vm.tcp_reply("b", "a", 80)).reached == []


def test_a_record_under_a_false_key_is_bad(lab: Lab, family: int) -> None:
    records = lab.store.records("sg/web")
    lab.write("sg/web", {"rule/other": records[f"rule/udp-53-{family}"]})
    (told,) = [warning for warning in lab.here.warnings if "'rule/other'" in warning]
    assert "key" in told
    assert talks(lab, family)


def test_a_bad_neighbor_is_no_member(make_lab: MakeLab, family: int) -> None:
    lab = make_lab(office())
    name, key = ("nbr/vpc-1/10.0.1.0", "ip/10.0.1.13")
    if family == 6:
        name, key = ("nbr/vpc-1/fd00:1::", "ip/fd00:1::13")
    good = lab.store.records(name)[key]
    lab.write(name, {key: GARBAGE})
    frame = lab.frames(family).udp("a", "c")
    assert lab.send("a", frame).packet_ins == 1
    assert lab.here.count("no_location.unknown_neighbor") == 1
    lab.write(name, {key: good})
    outcomes = lab.send("a", frame).moves.outcomes
    assert any(getattr(outcome, "tun_dst", None) for _, outcome in outcomes)

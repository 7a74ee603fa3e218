"""The benchmark of starts runs and tells what it saw. Nothing here says how fast anything is."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from benchmarks import cold_start, expanded, preload
from benchmarks.change_lab import as_remote
from benchmarks.cold_start_lab import FAR_PREFIX
from benchmarks.cold_traffic import spread
from mininet_topos.errors import LabError
from mininet_topos.nats_server import find_nats_server
from ondemand.addresses import parse_prefix
from ondemand.records import Neighbor
from ondemand.synthetic import synthetic_neighbors
from tests.system.conftest import MakeFabric

#: Rules of two ports (``expanded.local_rules``), and the tunnel's.
PORT_RULES = 2 * 6 + 1


@pytest.mark.parametrize(
    "source",
    [
        "sqlite",
        pytest.param(
            "nats",
            marks=pytest.mark.skipif(find_nats_server() is None, reason="nats-server is not there"),
        ),
    ],
)
def test_each_kind_of_start_is_measured_and_is_what_it_says(tmp_path: Path, source: str) -> None:
    result_file = tmp_path / "result.json"

    code = cold_start.main(
        [
            *("--source", source, "--neighbors", "40,2000", "--in-use", "50"),
            *("--repetitions", "1", "--json", str(result_file)),
        ]
    )

    assert code == 0
    result = json.loads(result_file.read_text())
    assert result["parameters"] == {"neighbors": [40, 2000], "in_use": 50, "repetitions": 1}
    assert result["left_out"] == []
    assert [one["neighbors"] for one in result["sources"]] == [40, 2000]
    for of_source, in_use in zip(result["sources"], (40, 50), strict=True):
        starts = {one["mode"]: one for one in of_source["starts"]}
        assert list(starts) == list(cold_start.MODES)
        for one in starts.values():
            assert one["served_s"] > 0
            assert one["rss_mib"] > 10
            assert one["switch_rss_mib"] > 5
            assert one["neighbors_held"] >= in_use
            # Of each neighbor in use a verdict and a location.
            assert one["rules"] > 2 * in_use
            assert (one["received_bytes"] is None) == (source == "sqlite")
        assert starts["saved"]["rules_kept"] >= 2 * in_use
        assert starts["saved"]["rules_deleted"] == 0
        assert starts["fresh"]["rules_kept"] >= 2 * in_use
        assert starts["boot"]["rules_kept"] == 0
        assert starts["boot"]["full_s"] >= starts["boot"]["last_s"] > 0
        assert starts["saved"]["full_s"] is starts["fresh"]["full_s"] is None
    # What an agent programs follows what is in use.
    assert abs(result["sources"][1]["starts"][0]["rules"] - 2 * 50 - PORT_RULES) < 100
    assert [one["neighbors"] for one in result["expanded"]] == [40, 2000]
    for one in result["expanded"]:
        assert one["rules"] == one["neighbors"] + PORT_RULES
        assert one["full_s"] >= one["last_s"] > 0
        assert one["served_s"] > 0
        assert one["written_s"] > 0


def test_what_does_not_fit_is_left_out_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preload, "SPARE_MIB", 1 << 40)
    result_file = tmp_path / "result.json"

    code = cold_start.main(
        [
            *("--source", "sqlite", "--neighbors", "20", "--in-use", "10"),
            *("--repetitions", "1", "--json", str(result_file)),
        ]
    )

    assert code == 0
    result = json.loads(result_file.read_text())
    assert result["expanded"] == []
    [left_out] = result["left_out"]
    assert left_out["neighbors"] == 20
    assert "MiB of memory" in left_out["reason"]


def far(count: int) -> list[Neighbor]:
    hosts = [bytes((192, 0, 2, 2)), bytes((192, 0, 2, 3))]
    return list(
        synthetic_neighbors(
            subnet="far", prefix=parse_prefix(FAR_PREFIX), count=count, hosts=hosts, first=16
        )
    )


def test_preloaded_messages_make_the_rules_that_the_text_makes(
    make_fabric: MakeFabric, tmp_path: Path
) -> None:
    [host] = make_fabric(hosts=1).hosts
    expanded.create_bridge(host)
    neighbors = far(7)
    text = [expanded.remote_rule(5002, as_remote(one)) for one in neighbors]
    expanded.apply({host: [f"add {match},actions={actions}" for match, actions in text]})
    by_text = dumped(host.dump_flows(expanded.BRIDGE))
    host.ofctl("del-flows", expanded.BRIDGE)
    file = tmp_path / "rules"

    # Bundles of three: two whole ones, and a rest.
    file.write_bytes(b"".join(preload.messages(5002, neighbors, 3)))
    preload.send(host.directory / f"{expanded.BRIDGE}.mgmt", file, timeout_s=10)

    assert dumped(host.dump_flows(expanded.BRIDGE)) == by_text
    assert len(by_text) == 7


def test_a_rule_that_the_switch_refuses_is_an_error(
    make_fabric: MakeFabric, tmp_path: Path
) -> None:
    [host] = make_fabric(hosts=1).hosts
    expanded.create_bridge(host)
    [message, barrier] = preload.messages(5002, far(1))
    file = tmp_path / "rules"
    # Table 255 is no table of a rule (OpenFlow 1.3.5 section 7.3.4.1: OFPTT_ALL).
    at = message.index(bytes((preload.TABLE, 0, 0, 0, 0, 0)))
    file.write_bytes(message[:at] + b"\xff" + message[at + 1 :] + barrier)

    with pytest.raises(LabError, match="refused"):
        preload.send(host.directory / f"{expanded.BRIDGE}.mgmt", file, timeout_s=10)


def dumped(lines: list[str]) -> set[str]:
    """Match and actions of rules, without what tells of their age."""
    return {line[line.index("table=") :].replace("n_packets=0, n_bytes=0, ", "") for line in lines}


def test_neighbors_in_use_are_spread_and_the_last_is_among_them() -> None:
    assert spread(1_000_000, 1) == [999_999]
    assert spread(5, 5) == [0, 1, 2, 3, 4]
    many = spread(1_000_000, 1_000)
    assert len(set(many)) == 1_000
    assert (many[0], many[-1]) == (0, 999_999)
    assert {later - earlier for earlier, later in itertools.pairwise(many)} <= {1001, 1000}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--neighbors", "0"],
        ["--neighbors", "10,5"],
        ["--neighbors", "2000000"],
        ["--neighbors", "5", "--in-use", "9"],
        ["--source", "paper"],
        ["--repetitions", "0"],
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cold_start.main(arguments)
    assert caught.value.code == 2
    assert arguments[-2] in capsys.readouterr().err

"""The benchmark of starts runs and tells what it saw. Nothing here says how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cold_start
from mininet_topos.nats_server import find_nats_server


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
            *("--source", source, "--neighbors", "2000", "--in-use", "50", "--repetitions", "1"),
            *("--json", str(result_file)),
        ]
    )

    assert code == 0
    result = json.loads(result_file.read_text())
    assert result["parameters"] == {"neighbors": 2000, "in_use": 50, "repetitions": 1}
    (of_source,) = result["sources"]
    starts = {one["mode"]: one for one in of_source["starts"]}
    assert list(starts) == list(cold_start.MODES)
    for one in starts.values():
        assert one["served_s"] > 0
        assert one["rss_mib"] > 10
        assert (one["received_bytes"] is None) == (source == "sqlite")
    assert starts["saved"]["neighbors_held"] >= 50
    assert starts["saved"]["rules_kept"] >= 100
    assert starts["saved"]["rules_deleted"] == 0
    assert starts["fresh"]["neighbors_held"] >= 50, "read anew for the rules that rest on them"
    assert starts["fresh"]["rules_kept"] >= 100
    assert starts["boot"]["neighbors_held"] < 50
    assert starts["boot"]["rules_kept"] == 0


@pytest.mark.parametrize(
    "arguments", [["--neighbors", "0"], ["--in-use", "9"], ["--source", "paper"]]
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cold_start.main(["--neighbors", "5", *arguments])
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err

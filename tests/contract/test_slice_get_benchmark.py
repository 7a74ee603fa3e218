"""The benchmark of single records runs, and its bare socket reads what a server sends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import slice_get
from tests.support.nats_server import needs_nats_server

pytestmark = needs_nats_server


def test_all_is_asked_as_often_as_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.json"
    monkeypatch.setattr(slice_get, "NEIGHBORS", 20_000)
    monkeypatch.setattr("sys.argv", ["slice_get", "--rounds", "1", "--json", str(out)])
    assert slice_get.main() == 0
    found = json.loads(out.read_text())
    assert found["parameters"] == {"neighbors": 20_000, "rounds": 1}
    assert len(found["seconds"]) == 13
    assert any(what.startswith("bare socket: shard of 2") for what in found["seconds"])
    for taken in found["seconds"].values():
        assert 0 < taken["p50"] <= taken["p99"]


def test_no_round_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("sys.argv", ["slice_get", "--rounds", "0"])
    with pytest.raises(SystemExit) as ended:
        slice_get.main()
    assert ended.value.code == 2
    assert "--rounds is 1 or more" in capsys.readouterr().err

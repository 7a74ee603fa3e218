"""The benchmark of the sources runs and asks both the same. Nothing here says how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import slice_source
from tests.support.nats_server import needs_nats_server

pytestmark = needs_nats_server


def test_both_sources_are_asked_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.json"
    words = ["slice_source", "--quick", "--neighbors", "1000", "--json", str(out)]
    monkeypatch.setattr("sys.argv", words)
    assert slice_source.main() == 0
    found = json.loads(out.read_text())
    assert found["parameters"] == {"neighbors": 1_000, "asked": 50}
    file, server = (found["seconds"][title] for title in ("SQLite file", "NATS server"))
    assert list(file) == list(server)
    assert len(file) == 11
    for spread in (*file.values(), *server.values()):
        assert 0 < spread["low"] <= spread["median"] <= spread["high"]


def test_more_neighbors_than_the_prefix_has_are_refused(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["slice_source", "--neighbors", "9999999"])
    with pytest.raises(SystemExit) as ended:
        slice_source.main()
    assert ended.value.code == 2
    assert "--neighbors is 1,000 to 1,000,000" in capsys.readouterr().err

"""What the views of starts and of memory make of results: contenders side by side, and nothing that was not measured."""

from __future__ import annotations

from typing import Any

from benchmarks.report_svg import draw
from benchmarks.suite_results import Panel, Value
from benchmarks.suite_views_host import cold_start, memory


def start(mode: str, **more: Any) -> dict[str, Any]:
    return {
        "mode": mode,
        "served_s": 0.5,
        "full_s": None,
        "rss_mib": 60.0,
        "switch_rss_mib": 24.0,
        "switch_before_mib": 21.0,
        "rules": 2_084,
        **more,
    }


def preloaded(neighbors: int) -> dict[str, Any]:
    return {
        "neighbors": neighbors,
        "served_s": 0.02,
        "full_s": 8.0,
        "switch_rss_mib": 858.0,
        "switch_before_mib": 20.0,
        "rules": neighbors + 13,
    }


def result(source: str, *sizes: int, **more: Any) -> dict[str, Any]:
    starts = [start("boot", full_s=1.0), start("saved"), start("fresh")]
    return {
        "parameters": {"neighbors": sizes, "repetitions": 1},
        "sources": [{"source": source, "neighbors": n, "starts": starts} for n in sizes],
        "expanded": [],
        "left_out": [],
        **more,
    }


def rows(panel: Panel) -> dict[str, list[Value | None]]:
    return {row.who: row.values for row in panel.rows}


def test_runs_of_two_sources_and_the_contender_share_one_axis() -> None:
    first, full, mib, rules = cold_start(
        [
            result("sqlite", 1_000, 10_000, expanded=[preloaded(1_000), preloaded(10_000)]),
            result("nats", 10_000),
        ]
    )

    assert [column.at for column in first.columns] == [1_000.0, 10_000.0]
    assert rows(first)["nats, boot"] == [None, Value(0.5, 0.5, 0.5)]
    assert rows(first)["expanded"] == [Value(0.02, 0.02, 0.02)] * 2
    # Only a host that has come up is asked whether it is in full service.
    assert list(rows(full)) == ["sqlite, boot", "nats, boot", "expanded"]
    assert rows(mib)["agent and ovs-vswitchd, sqlite, boot"] == [Value(63.0, 63.0, 63.0)] * 2
    assert rows(mib)["ovs-vswitchd, expanded"] == [Value(838.0, 838.0, 838.0)] * 2
    assert rows(rules)["expanded"] == [Value(n + 13, n + 13, n + 13) for n in (1_000, 10_000)]
    assert all(draw(panel) for panel in (first, full, mib, rules))
    assert {row.role for row in first.rows} == {"ours", "theirs"}


def test_what_was_left_out_is_said_and_not_drawn() -> None:
    left_out = [{"neighbors": 10_000, "reason": "it may take 9 MiB of memory, 1 are free"}]

    panels = cold_start([result("sqlite", 10_000, left_out=left_out)])

    for panel in panels:
        assert all("expanded" not in row.who for row in panel.rows)
        [reason] = panel.unsupported
        assert "expanded, 10,000 neighbors: it may take 9 MiB" in reason


def test_what_one_of_a_kind_takes_has_its_error() -> None:
    sample = {
        "neighbors_in_store": 1_000,
        "neighbors_in_use": 100,
        "spread": {"median": 80.0, "low": 79.0, "high": 81.0},
    }
    slope = {"what": "rule", "each_bytes": 1_200.0, "error_bytes": 25.0, "residual_mib": 0.3}
    panels = memory(
        [
            {
                "parameters": {"repetitions": 3, "flows_per_neighbor": 4},
                "samples": [sample],
                "slopes": [slope | {"low": 2_000, "high": 13_000}],
            }
        ]
    )

    assert [panel.kind for panel in panels] == ["lines", "table"]
    assert rows(panels[1]) == {
        "rule, 2,000 to 13,000": [Value(1_200.0, 1_175.0, 1_225.0), Value(0.3, 0.3, 0.3)]
    }

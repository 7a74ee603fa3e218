"""New flows are set up many times as fast as by a stock os-ken app: a ratio, taken in one run."""

from __future__ import annotations

import pytest

from benchmarks import setup_rate
from benchmarks.setup_guard import BOUND, GuardResult, guard


@pytest.mark.alone
def test_new_flows_are_set_up_many_times_as_fast_as_by_a_stock_app() -> None:
    result = guard()

    assert result.is_kept, str(result)


def test_a_slower_agent_fails_the_guard_and_is_told_what_to_run() -> None:
    slow = GuardResult((5_000.0, 7_000.0, 4_000.0), (1_000.0, 1_000.0, 1_000.0), (), BOUND)

    assert not slow.is_kept
    assert "5.0 (4.0-7.0) times as fast, the bound is 6" in str(slow)
    assert "python -m benchmarks.setup_rate --guard" in str(slow)


def test_wrong_answers_fail_the_guard_however_fast() -> None:
    wrong = GuardResult((90_000.0,), (1_000.0,), ("agent: 2 error messages",), BOUND)

    assert not wrong.is_kept
    assert "2 error messages" in str(wrong)


def test_the_command_ends_with_1_below_the_bound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        setup_rate.setup_guard, "guard", lambda bound: GuardResult((9.0,), (1.0,), (), bound)
    )

    assert setup_rate.main(["--guard"]) == 0
    assert setup_rate.main(["--guard", "--bound", "10"]) == 1
    assert "the bound is 10" in capsys.readouterr().out

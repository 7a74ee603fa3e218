"""The engine's settings and their ranges."""

from __future__ import annotations

import dataclasses

import pytest

from ondemand.settings import _RANGES, Settings, SettingsError


def test_the_defaults_are_in_range() -> None:
    assert Settings().max_rules == 200_000
    assert Settings(verdict_idle_s=1) != Settings()


def test_every_number_has_a_range() -> None:
    ranged = {name for name, _, _ in _RANGES}
    assert ranged | {"match_connection"} == set(Settings.names())


@pytest.mark.parametrize(
    ("name", "low", "high"), [(n, low, high) for n, low, high in _RANGES if "per_port" not in n]
)
def test_the_ends_of_a_range_are_good_and_what_lies_beyond_is_not(
    name: str, low: float, high: float
) -> None:
    smallest = {"max_rules_per_port": 10, "max_parked_per_port": 1}
    for value in (low, high):
        assert getattr(Settings(**smallest | {name: value}), name) == value  # type: ignore[arg-type]
    step = 0.001 if name == "park_s" else 1
    for value in (low - step, high + step):
        with pytest.raises(SettingsError, match=rf"^{name} = {value} is not in {low}\.\.{high}$"):
            Settings(**smallest | {name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "low"), [("max_rules_per_port", 10), ("max_parked_per_port", 1)])
def test_a_share_has_a_least_size(name: str, low: int) -> None:
    assert getattr(Settings(**{name: low}), name) == low  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=f"{name} = {low - 1} is not in"):
        Settings(**{name: low - 1})  # type: ignore[arg-type]


def test_a_share_is_not_more_than_the_whole() -> None:
    Settings(max_rules=1000, max_rules_per_port=1000)
    with pytest.raises(
        SettingsError, match=r"^max_rules_per_port = 1001 exceeds max_rules = 1000$"
    ):
        Settings(max_rules=1000, max_rules_per_port=1001)
    with pytest.raises(SettingsError, match=r"^max_parked_per_port = 9 exceeds max_parked = 8$"):
        Settings(max_parked=8, max_parked_per_port=9)


def test_not_a_number_is_in_no_range() -> None:
    with pytest.raises(SettingsError, match="park_s = nan"):
        Settings(park_s=float("nan"))


def test_settings_never_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().deny_s = 5  # type: ignore[misc]

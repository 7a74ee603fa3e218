"""What the log says of a slice source that is missing, garbage, lost and back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller_app.agent import Agent
from controller_app.source_log import SliceLog, SourceLog
from controller_app.sqlite_file import StoreOptions
from controller_app.sqlite_store import SqliteStore
from ondemand.addresses import parse_ip
from ondemand.engine import Engine
from ondemand.settings import Settings

PATIENCE_S = 10.0


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def agent_on(warnings: list[str]) -> Iterator[Callable[[Path], Agent]]:
    """An agent without a switch on the SQLite store at a path."""
    made: list[tuple[Agent, SqliteStore]] = []

    def make(path: Path) -> Agent:
        options = StoreOptions(poll_interval_s=0.01, retry_min_s=0.01, retry_max_s=0.02)
        store = SqliteStore(path, options=options)
        engine = Engine(
            host="h1",
            tunnel_ip=parse_ip("192.0.2.1"),
            settings=Settings(),
            round_number=1,
            first_epoch=1,
        )
        agent = Agent(engine, store, warn=warnings.append)
        made.append((agent, store))
        return agent

    yield make
    for agent, store in made:
        agent.close()
        store.close()


def until(agent: Agent, done: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end_s, "it did not happen"
        agent.idle()
        time.sleep(0.01)


def test_a_store_that_is_missing_garbage_there_and_gone(
    agent_on: Callable[[Path], Agent],
    tmp_path: Path,
    warnings: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "slices.db"
    agent = agent_on(path)
    until(agent, lambda: bool(warnings))
    # Place and mend, whatever was asked and by whom.
    assert f"slice store {path} does not exist" in warnings[0]
    assert "ondemand slices publish" in warnings[0]
    assert "until the source answers" in warnings[0]
    path.write_bytes(b"no database" * 100)
    until(agent, lambda: len(warnings) > 1)
    assert "is not an SQLite file: give another path" in warnings[1]
    path.unlink()
    with SqliteStore(path, writer=True) as store:
        store.publish({}, replace_all=True)
    until(agent, lambda: agent.status()["source_error"] is None)
    until(agent, lambda: "the slice source answers again" in caplog.messages)
    said = len(warnings)
    for name in ("slices.db", "slices.db-wal", "slices.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    until(agent, lambda: len(warnings) > said)
    assert "does not exist" in warnings[-1]


def test_a_store_that_is_there_says_nothing(
    agent_on: Callable[[Path], Agent],
    tmp_path: Path,
    warnings: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "slices.db"
    with SqliteStore(path, writer=True) as store:
        store.publish({}, replace_all=True)
    agent = agent_on(path)
    until(agent, lambda: bool(agent.status()["slices"]))
    assert warnings == []
    assert "the slice source answers again" not in caplog.messages


def test_each_reason_once_until_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    warned: list[str] = []
    log = SourceLog(warned.append)
    log.tell(None, 0.0)
    for error in ("gone: mend it", "gone: mend it", "locked: wait", None, None, "gone: mend it"):
        log.tell(error, 1.0)
    assert [sentence.partition(":")[0] for sentence in warned] == ["gone", "locked", "gone"]
    assert caplog.messages == ["the slice source answers again"]


def test_a_source_that_comes_and_goes_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    log = SourceLog(lambda _sentence: None)
    for _ in range(100):
        log.tell("gone", 1.0)
        log.tell(None, 1.0)
    assert 0 < len(caplog.messages) < 10


def test_a_slice_is_told_once_for_each_reason_and_when_it_can_be_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    warned: list[str] = []
    log = SliceLog(warned.append)
    log.answered("vpc/a", 0.0)
    for name, error in (
        ("vpc/a", "refused: allow it"),
        ("vpc/b", "refused: allow it"),
        ("vpc/a", "refused: allow it"),
        ("vpc/a", "damaged: publish it"),
    ):
        log.refused(name, error)
    assert len(warned) == 3
    assert warned[0].startswith("refused: allow it; until slice 'vpc/a' can be read")
    assert "'vpc/b'" in warned[1]
    assert warned[2].startswith("damaged: publish it; until slice 'vpc/a'")
    log.forget("vpc/b")
    log.answered("vpc/b", 1.0)
    log.answered("vpc/a", 1.0)
    log.answered("vpc/a", 1.0)
    assert caplog.messages == ["slice 'vpc/a' can be read again"]
    log.refused("vpc/a", "damaged: publish it")
    assert len(warned) == 4

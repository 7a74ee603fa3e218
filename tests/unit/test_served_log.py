"""What the log says of the ports that are served."""

from __future__ import annotations

import logging

import pytest

from controller_app.served_log import PER_MINUTE, ServedLog


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_each_port_once_when_it_becomes_active(caplog: pytest.LogCaptureFixture) -> None:
    log = ServedLog()
    log.tell([], 0.0)
    log.tell(["b", "a"], 0.2)
    log.tell(["a", "b"], 0.4)
    log.tell(["a", "b", "c"], 0.6)
    assert caplog.messages == ["port a is served", "port b is served", "port c is served"]
    caplog.clear()
    log.tell(["a"], 0.8)
    assert caplog.messages == []
    log.tell(["a", "b"], 1.0)
    assert caplog.messages == ["port b is served"]


def test_many_ports_are_summed_up_also_when_they_come_in_turns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = ServedLog()
    first = [f"p{n:03}" for n in range(15)]
    many = [f"p{n:03}" for n in range(500)]
    log.tell(first, 0.0)
    log.tell(many, 0.2)
    single = [line for line in caplog.messages if line.endswith("is served")]
    assert len(single) == PER_MINUTE
    assert caplog.messages[-1] == "480 more ports are served, 500 in all"
    caplog.clear()
    log.tell([*many, "late"], 30.0)
    assert caplog.messages == ["1 more port is served, 501 in all"]
    caplog.clear()
    log.tell([*many, "late", "later"], 61.0)
    assert caplog.messages == ["port later is served"]

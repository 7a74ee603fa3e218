"""Log lines: their two forms, what can never get into them, and how often a warning repeats."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
import warnings

import pytest

from controller_app.log_limit import RepeatLimit, Warner
from controller_app.logs import (
    JsonFormatter,
    LogConfig,
    LogError,
    TextFormatter,
    fields,
    set_up_logs,
)

#: 2026-11-24 12:00:00.123 UTC.
NOON_S = 1795521600.123


def record(message, *args, level=logging.INFO, extra=None, exc_info=None):
    made = logging.LogRecord("controller_app.x", level, __file__, 1, message, args, exc_info)
    made.created = NOON_S
    if extra is not None:
        made.__dict__.update(extra)
    return made


@pytest.fixture
def logs_restored():
    root = logging.getLogger()
    ours = [logging.getLogger(name) for name in ("controller_app", "mininet_topos")]
    before = (root.handlers[:], root.level, [logger.level for logger in ours])
    yield
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers[:], level, levels = before
    root.setLevel(level)
    for logger, old in zip(ours, levels, strict=True):
        logger.setLevel(old)
    logging.captureWarnings(capture=False)


# -- text --------------------------------------------------------------------------------------------


def test_text_is_time_level_event_and_fields():
    line = TextFormatter().format(
        record("port is active", extra=fields(port="vm-1", zone=3, secure=True, why=None))
    )
    assert line == (
        "2026-11-24T12:00:00.123Z INFO port is active port=vm-1 zone=3 secure=true why=null"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (bytes.fromhex("fa163e000001"), "fa:16:3e:00:00:01"),
        (bytes([10, 0, 1, 7]), "10.0.1.7"),
        (bytes.fromhex("fd" + "00" * 14 + "01"), "fd00::1"),
        (b"\x01\x02", "0102"),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "x"', r'"say \"x\""'),
        ("", '""'),
        ("line\nforged", r'"line\nforged"'),
        ("\x1b[2J", r'"\u001b[2J"'),
        ("größe", r'"gr\u00f6\u00dfe"'),
        (["a", b"\x0a\x00\x00\x01"], '["a", "10.0.0.1"]'),
        ({"a": 1}, '{"a": 1}'),
        (1.5, "1.5"),
        (ValueError("x y"), '"x y"'),
    ],
)
def test_a_value_is_one_word(value, text):
    line = TextFormatter().format(record("event", extra=fields(key=value)))
    assert line == f"2026-11-24T12:00:00.123Z INFO event key={text}"


def test_no_event_makes_a_second_line():
    line = TextFormatter().format(record("bad record %s", "x\n2026 ERROR forged\x1b[2J\x07"))
    assert line == "2026-11-24T12:00:00.123Z INFO bad record x\\n2026 ERROR forged\\x1b[2J\\x07"


def test_a_trace_is_indented_below_its_event():
    try:
        int("lost\x1b[2J")
    except ValueError:
        made = record("failed", level=logging.ERROR, exc_info=sys.exc_info())
    lines = TextFormatter().format(made).splitlines()
    assert lines[0].endswith("ERROR failed")
    assert lines[1] == "    Traceback (most recent call last):"
    assert lines[-1].startswith("    ValueError: invalid literal")
    assert "\x1b" not in "".join(lines)
    assert all(line.startswith("    ") for line in lines[1:])


# -- JSON --------------------------------------------------------------------------------------------


def test_json_has_the_same_content():
    line = JsonFormatter().format(
        record("port\nis active", extra=fields(mac=bytes.fromhex("fa163e000001"), zone=3))
    )
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2026-11-24T12:00:00.123Z",
        "level": "info",
        "logger": "controller_app.x",
        "event": "port\nis active",
        "mac": "fa:16:3e:00:00:01",
        "zone": 3,
    }


def test_a_field_hides_no_part_of_the_event():
    line = JsonFormatter().format(record("true", extra=fields(event="false", level="none", x=1)))
    assert json.loads(line)["event"] == "true"
    assert json.loads(line)["level"] == "info"
    assert json.loads(line)["x"] == 1


def test_json_has_the_trace():
    try:
        int("lost")
    except ValueError:
        made = record("failed", exc_info=sys.exc_info())
    assert json.loads(JsonFormatter().format(made))["trace"].endswith("'lost'")


# -- set-up ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("logs_restored")
def test_ours_follow_the_level_and_others_only_warn(tmp_path):
    path = tmp_path / "agent.log"
    set_up_logs(LogConfig("info", "text", path))
    logging.getLogger("controller_app.agent").info("ours")
    logging.getLogger("controller_app.agent").debug("ours in detail")
    logging.getLogger("os_ken.base").info("chatter")
    logging.getLogger("os_ken.base").warning("trouble")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old call", UserWarning, stacklevel=1)
    text = path.read_text(encoding="utf-8")
    assert re.findall(r" (?:INFO|WARNING|DEBUG) (.*)", text)[:2] == ["ours", "trouble"]
    assert "old call" in text


@pytest.mark.usefixtures("logs_restored")
def test_debug_shows_everything_and_error_little(tmp_path):
    path = tmp_path / "agent.log"
    set_up_logs(LogConfig("debug", "json", path))
    logging.getLogger("os_ken.base").debug("chatter")
    set_up_logs(LogConfig("error", "json", path))
    logging.getLogger("controller_app.agent").warning("left out")
    logging.getLogger("controller_app.agent").error("trouble")
    events = [json.loads(line)["event"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert events == ["chatter", "trouble"]


@pytest.mark.usefixtures("logs_restored")
def test_a_file_that_was_rotated_away_is_made_again(tmp_path):
    path = tmp_path / "agent.log"
    set_up_logs(LogConfig(file=path))
    logging.getLogger("controller_app").info("one")
    path.rename(tmp_path / "agent.log.1")
    logging.getLogger("controller_app").info("two")
    assert path.read_text(encoding="utf-8").endswith("INFO two\n")


@pytest.mark.usefixtures("logs_restored")
def test_without_a_file_it_is_standard_error(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_logs(LogConfig())
    logging.getLogger("controller_app").info("here")
    assert stream.getvalue().endswith("INFO here\n")


@pytest.mark.usefixtures("logs_restored")
def test_a_log_file_that_cannot_be_opened_is_told(tmp_path):
    handlers = logging.getLogger().handlers[:]
    with pytest.raises(LogError, match=r"log file .*none/x.log cannot be opened"):
        set_up_logs(LogConfig(file=tmp_path / "none" / "x.log"))
    assert logging.getLogger().handlers == handlers


# -- repeats -----------------------------------------------------------------------------------------


def test_a_sentence_is_said_a_few_times_and_then_counted():
    limit = RepeatLimit(per_minute=2)
    said = [limit.lines("bad", now_s) for now_s in (100.0, 101.0, 102.0, 159.9)]
    assert said == [["bad"], ["bad"], [], []]
    assert limit.lines("bad", 160.0) == ["suppressed 2 more of: bad", "bad"]
    assert limit.ended(219.9) == []
    assert limit.ended(220.0) == []


def test_what_was_left_out_is_told_when_anything_comes_up():
    limit = RepeatLimit(per_minute=1)
    for _ in range(4):
        limit.lines("bad", 0.0)
    assert limit.lines("worse", 61.0) == ["suppressed 3 more of: bad", "worse"]


def test_other_sentences_have_a_minute_of_their_own():
    limit = RepeatLimit(per_minute=1)
    assert limit.lines("a", 0.0) == ["a"]
    assert limit.lines("b", 30.0) == ["b"]
    assert limit.lines("b", 61.0) == []
    assert limit.lines("a", 61.0) == ["a"]
    assert limit.lines("b", 91.0) == ["suppressed 1 more of: b", "b"]


def test_many_different_sentences_are_bounded_too():
    limit = RepeatLimit(per_minute=1, sentences=3)
    lines = [line for number in range(1000) for line in limit.lines(f"bad {number}", 0.0)]
    assert lines == ["bad 0", "bad 1", "bad 2"]
    assert limit.lines("new", 60.0) == ["suppressed 997 more warnings of other kinds", "new"]
    assert limit.ended(120.0) == []


def test_the_rest_is_told_at_the_end():
    limit = RepeatLimit(per_minute=1, sentences=1)
    for sentence in ("a", "a", "b"):
        limit.lines(sentence, 5.0)
    assert limit.rest() == ["suppressed 1 more of: a", "suppressed 1 more warnings of other kinds"]
    assert limit.rest() == []


def test_a_warner_logs_within_its_limit(caplog):
    now_s = [0.0]
    logger = logging.getLogger("controller_app.test")
    warner = Warner(logger, RepeatLimit(per_minute=1), lambda: now_s[0])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            warner("100 % bad")
        warner.flush()
        now_s[0] = 60.0
        warner.flush()
        warner("x")
        warner("x")
        warner.close()
    assert [entry.message for entry in caplog.records] == [
        "100 % bad",
        "suppressed 2 more of: 100 % bad",
        "x",
        "suppressed 1 more of: x",
    ]


def test_a_warner_may_be_called_by_many_threads(caplog):
    warner = Warner(
        logging.getLogger("controller_app.test"), RepeatLimit(per_minute=1), lambda: 0.0
    )
    threads = [
        threading.Thread(target=lambda: [warner("same") for _ in range(200)]) for _ in range(4)
    ]
    with caplog.at_level(logging.WARNING):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        warner.close()
    assert [entry.message for entry in caplog.records] == ["same", "suppressed 799 more of: same"]

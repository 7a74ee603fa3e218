"""Logs: one line per event, for people as text or for programs as JSON.

```
2026-11-24T12:00:00.123Z INFO bridge br-int is ready datapath=netdev
{"time": "2026-11-24T12:00:00.123Z", "level": "info", "event": "bridge br-int is ready", ...}
```

An event is written through the standard library, with fields or without::

    LOG.info("port is active", extra=fields(port="vm-1", mac=port.mac))

Names of ports, groups and slices come from outside, so whatever could end a line, or move a
terminal's cursor, is escaped.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ondemand.addresses import MAC_BYTES, format_ip, format_mac

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("text", "json")

#: Top packages whose loggers follow the configured level; of all others only warnings are shown,
#: because os-ken and ovsdbapp tell every message at "info".
OUR_LOGGERS: Final = ("controller_app", "mininet_topos")


class LogError(Exception):
    """The log file cannot be opened; the message names it and the reason."""


@dataclass(frozen=True, slots=True)
class LogConfig:
    """How to log. ``level`` is one of LEVELS, ``format`` of FORMATS; ``file`` None is standard error."""

    level: str = "info"
    format: str = "text"
    file: Path | None = None


def fields(**values: object) -> dict[str, dict[str, object]]:
    """What to pass as ``extra``. Bytes of an address's length are written as that address."""
    return {"event_fields": values}


def set_up_logs(config: LogConfig) -> logging.Handler:
    """Send the logs of the whole process to where ``config`` says; returns the handler.

    Handlers that are there already are taken away, so the last call wins.

    Raises:
        LogError: the file cannot be opened.
    """
    handler = _handler(config.file)
    handler.setFormatter(JsonFormatter() if config.format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in tuple(root.handlers):
        root.removeHandler(old)
        if isinstance(old.formatter, TextFormatter | JsonFormatter):
            old.close()  # of an earlier call; others belong to whoever made them
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[config.level.upper()]
    root.setLevel(level if config.level == "debug" else max(level, logging.WARNING))
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=True)
    return handler


def _handler(file: Path | None) -> logging.Handler:
    if file is None:
        return logging.StreamHandler(sys.stderr)
    try:
        # Opens the file anew when logrotate has moved it away.
        return logging.handlers.WatchedFileHandler(file, encoding="utf-8")
    except OSError as error:
        raise LogError(
            f"log file {file} cannot be opened: {error.strerror or error};"
            " set [log] file to a place where this user may write"
        ) from error


class TextFormatter(logging.Formatter):
    """One line: time in UTC, level, event, ``key=value`` for each field."""

    def format(self, record: logging.LogRecord) -> str:
        words = [_utc(record), record.levelname, _one_line(record.getMessage())]
        words += [f"{name}={_text(value)}" for name, value in _fields_of(record).items()]
        line = " ".join(words)
        trace = _trace(self, record)
        return line if trace is None else f"{line}\n{_indented(trace)}"


class JsonFormatter(logging.Formatter):
    """One JSON object per line. A field never hides ``time``, ``level``, ``logger`` or ``event``."""

    def format(self, record: logging.LogRecord) -> str:
        head = {
            "time": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        trace = _trace(self, record)
        if trace is not None:
            head["trace"] = trace
        given = {name: _plain(value) for name, value in _fields_of(record).items()}
        return json.dumps(head | {name: v for name, v in given.items() if name not in head})


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    found: dict[str, object] = getattr(record, "event_fields", {})
    return found


def _utc(record: logging.LogRecord) -> str:
    seconds, milliseconds = divmod(int(record.created * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    return formatter.formatException(record.exc_info) if record.exc_info else None


def _indented(trace: str) -> str:
    return "\n".join("    " + _one_line(line) for line in trace.splitlines())


def _plain(value: object) -> Any:
    """What JSON may hold."""
    if isinstance(value, bytes):
        if len(value) == MAC_BYTES:
            return format_mac(value)
        return format_ip(value) if len(value) in (4, 16) else value.hex()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value)


def _text(value: object) -> str:
    """A field's value as one word; what is no plain word is quoted as JSON quotes it."""
    plain = _plain(value)
    if not isinstance(plain, str):
        return json.dumps(plain)
    is_word = plain.isascii() and plain.isprintable() and plain and not set(plain) & set(' "=')
    return plain if is_word else json.dumps(plain)


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

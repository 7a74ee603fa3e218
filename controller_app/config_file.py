"""A configuration file in TOML against the table of keys: names, kinds and ranges."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller_app.config_keys import KEYS, SOURCE_KIND, TABLES, Key, Kind, Value
from ondemand.goal_problems import did_you_mean

#: What a file says: (table, name) to value.
Values = dict[tuple[str, str], Value]


class ConfigError(Exception):
    """The file cannot be used. ``problems``: each mistake as a sentence; the message has them all."""

    def __init__(self, name: str, problems: list[str]) -> None:
        self.problems = tuple(problems)
        if len(problems) == 1:
            super().__init__(f"{name}: {problems[0]}")
        else:
            lines = "".join(f"\n  {problem}" for problem in problems)
            super().__init__(f"{name} has {len(problems)} mistakes:{lines}")


@dataclass(frozen=True, slots=True)
class Parsed:
    """The keys whose values may be, and a sentence for each mistake beside them."""

    values: Values
    problems: list[str]


def read_file(path: Path) -> Parsed:
    """What the file says.

    Raises:
        ConfigError: it cannot be read, or is no TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            str(path), [f"there is no such file; 'ondemand config --example > {path}' writes one"]
        ) from None
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror or error}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"is no UTF-8 text (byte {error.start})"]) from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Parsed:
    """As ``read_file``; errors call the text ``name``."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(name, [f"is no TOML: {error}"]) from None
    keys = {(key.table, key.name): key for key in KEYS}
    values: Values = {}
    problems: list[str] = []
    for table, content in document.items():
        if table not in TABLES:
            problems.append(_unknown_table(table, content))
        elif not isinstance(content, dict):
            problems.append(f"[{table}] is a table; write its keys below a line [{table}]")
        else:
            for key_name, value in content.items():
                key = keys.get((table, key_name))
                problem = _unknown_key(table, key_name) if key is None else _misfit(key, value)
                if problem:
                    problems.append(problem)
                else:
                    values[table, key_name] = value
    problems += [
        f"{key.place} is missing ({_first_sentence(key.help)})"
        for key in KEYS
        if key.required
        and key.source in ("", _table(document, "source").get("kind", SOURCE_KIND))
        and key.name not in _table(document, key.table)
    ]
    return Parsed(values, problems)


def _table(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    content = document.get(name, {})
    return content if isinstance(content, dict) else {}


def _unknown_table(name: str, content: object) -> str:
    homes = [key.place for key in KEYS if key.name == name]
    if not isinstance(content, dict) and homes:
        return f"{name} stands outside of any table; it is {' or '.join(homes)}"
    what = f"[{name}] is no table" if isinstance(content, dict) else f"{name} is no key"
    return f"{what} of this file{did_you_mean(name, TABLES) or '; the tables are ' + _listed()}"


def _listed() -> str:
    return ", ".join(f"[{name}]" for name in TABLES)


def _unknown_key(table: str, name: str) -> str:
    here = [key.name for key in KEYS if key.table == table]
    elsewhere = [key.place for key in KEYS if key.name == name]
    hint = (
        did_you_mean(name, here)
        or (f"; it is {' or '.join(elsewhere)}" if elsewhere else "")
        or did_you_mean(name, [key.name for key in KEYS])
        or f"; its keys are {', '.join(here)}"
    )
    return f"[{table}] {name} is no key of this table{hint}"


def _misfit(key: Key, value: object) -> str | None:
    """Why a value cannot be the key's, None when it can."""
    right = {
        Kind.STRING: isinstance(value, str),
        Kind.BOOLEAN: isinstance(value, bool),
        Kind.INTEGER: isinstance(value, int) and not isinstance(value, bool),
        Kind.NUMBER: isinstance(value, int | float) and not isinstance(value, bool),
    }[key.kind]
    if not right:
        return f"{key.place} = {_shown(value)} must be {key.kind.value}"
    if key.choices and value not in key.choices:
        hint = did_you_mean(str(value), key.choices)
        return f"{key.place} = {_shown(value)} must be one of {key.range}{hint}"
    if isinstance(value, int | float) and not key.holds(value):
        return f"{key.place} = {value} is not in {key.range} {key.unit}".rstrip()
    return None


def _shown(value: object) -> str:
    """A value as TOML writes it (dates and times, which no key takes, as text)."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _first_sentence(text: str) -> str:
    first = text.partition(". ")[0].rstrip(".")
    return first[0].lower() + first[1:]

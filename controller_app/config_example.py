"""The example configuration, and a configuration with all that it leaves to defaults."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

from controller_app.config_file import Values
from controller_app.config_keys import KEYS, SOURCE_KIND, TABLES, Key, Value

_WIDTH = 100

_HEAD = """\
# Configuration of the agent (ondemand run --config FILE); TOML, https://toml.io.
# Keys that must be given stand as they are. A key behind '#' shows its default, or a value that it
# may have when its default is to be left out. A key that the agent does not know is an error.
# Written by 'ondemand config --example'.
"""


def example() -> str:
    """A commented configuration that says all there is to set."""
    return "\n".join([_HEAD, *_tables()])


def effective(values: Values) -> str:
    """All keys with the values in force, as TOML; ``values`` are those that the file gives."""
    lines = []
    for table in TABLES:
        lines.append(f"[{table}]")
        for key in _keys_of(table):
            given = values.get((table, key.name))
            value = key.default if given is None else given
            if value is None:
                lines.append(f"# {key.name} is left out")
            else:
                note = "" if given is not None else "  # default"
                lines.append(f"{key.name} = {toml(value)}{note}")
        lines.append("")
    return "\n".join(lines)


def effective_json(values: Values) -> dict[str, dict[str, Value | None]]:
    """As ``effective``, for a program; a key that is left out is None."""
    return {
        table: {key.name: values.get((table, key.name), key.default) for key in _keys_of(table)}
        for table in TABLES
    }


def toml(value: Value) -> str:
    """A value in TOML; its strings, numbers and booleans are written as JSON's are."""
    return json.dumps(value, ensure_ascii=False)


def _keys_of(table: str) -> Iterator[Key]:
    return (key for key in KEYS if key.table == table)


def _tables() -> Iterator[str]:
    for table, about in TABLES.items():
        yield f"[{table}]"
        yield f"# {about}"
        for key in _keys_of(table):
            yield ""
            yield from _example_key(key)
        yield ""


def _example_key(key: Key) -> Iterator[str]:
    yield from textwrap.wrap(
        key.help, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )
    yield f"# {_values(key)}"
    value = key.sample if key.default is None else key.default
    must_stand = key.required and key.source in ("", SOURCE_KIND)
    yield f"{'' if must_stand else '#'}{key.name} = {toml(value)}"


def _values(key: Key) -> str:
    """What the key may be, in what unit, and what it is when it is left out."""
    bounds = f"{key.range} {key.unit}".strip()
    kind = bounds or key.kind.value
    if key.required:
        needed = f'Required for kind "{key.source}".' if key.source else "Required."
        return f"{kind[0].upper()}{kind[1:]}. {needed}"
    default = "left out" if key.default is None else toml(key.default)
    return f"{kind[0].upper()}{kind[1:]}. Default: {default}."

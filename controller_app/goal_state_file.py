"""Goal state from a YAML or JSON file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from controller_app.goal_state_lines import YamlLines
from ondemand.goal_state import GoalStateError, compile_goal_state, encode_slices


class GoalStateFileError(Exception):
    """The file cannot be read, is no YAML, or its goal state is wrong.

    ``errors`` has each mistake; those of a goal state in YAML begin with ``line N: ``.
    """

    def __init__(self, path: Path, errors: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.path = path
        self.errors = errors


def load_goal_state(path: Path, so: str = "") -> dict[str, dict[str, bytes]]:
    """The payloads of each slice, ready to publish.

    A file named ``*.json`` is read as JSON, which takes a tenth of the time; any other as YAML.

    Args:
        path: the file.
        so: what follows from mistakes, for the head of the message, such as "nothing was published".

    Raises:
        GoalStateFileError: with every mistake of the file.
    """
    document = read_document(path)
    try:
        return encode_slices(compile_goal_state(document))
    except GoalStateError as error:
        count = len(error.errors)
        follows = f", {so}" if so else ""
        told = _with_lines(path, error)
        head = f"{path}: {count} mistake{'' if count == 1 else 's'}{follows}:\n"
        raise GoalStateFileError(path, told.errors, head + str(told)) from None


def _with_lines(path: Path, error: GoalStateError) -> GoalStateError:
    """The same mistakes, each with its line where the file is YAML. The file is read once more."""
    if path.suffix == ".json":
        return error
    try:
        lines = YamlLines(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return error  # it has changed meanwhile
    found = map(lines.line_of, error.paths)
    return GoalStateError(
        [
            text if line is None else f"line {line}: {text}"
            for text, line in zip(error.errors, found, strict=True)
        ]
    )


def read_document(path: Path) -> object:
    """What the file says, as dicts, lists and scalars; GoalStateFileError naming file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise _one_error(path, f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise _one_error(path, f"is no UTF-8 text (byte {error.start})") from None
    try:
        return _parse_json(text) if path.suffix == ".json" else _parse_yaml(text)
    except json.JSONDecodeError as error:
        raise _one_error(f"{path}:{error.lineno}", f"is no JSON: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        problem = error.problem or error.context or "cannot be parsed"
        # A constructor complains of what is YAML: a key that is written twice, a tag.
        is_yaml = isinstance(error, yaml.constructor.ConstructorError)
        raise _one_error(place, problem if is_yaml else f"is no YAML: {problem}") from None
    except yaml.YAMLError as error:
        raise _one_error(path, "is no YAML: " + " ".join(str(error).split())) from None
    except RecursionError:
        raise _one_error(path, "is nested too deeply") from None
    except _DuplicateKeyError as error:
        raise _one_error(path, str(error)) from None


def _one_error(place: Path | str, message: str) -> GoalStateFileError:
    text = f"{place}: {message}"
    return GoalStateFileError(Path(str(place)), (text,), text)


class _DuplicateKeyError(ValueError):
    """A JSON object has one key twice."""


def _parse_json(text: str) -> object:
    return json.loads(text, object_pairs_hook=_unique_pairs)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _DuplicateKeyError(f"key {twice!r} is written twice in one object")
    return found


# YAML, in the core schema of YAML 1.2: PyYAML follows YAML 1.1, where an unquoted 10:20:30:40:50:11
# is a number of base 60, 'no' is false and 012 is ten.

_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BaseLoader):
    """Safe loading, where a key that is written twice is an error."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, *, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is written twice", key.start_mark
                )
            seen.add((key.tag, key.value))
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return found


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first)
    )


def _parse_yaml(text: str) -> object:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, made stricter

"""Reading the parts of a goal state and collecting what is wrong with them.

All problems of a document are found in one go. What a broken part would have defined is remembered,
so that references to it are not reported as well.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import TypeAlias, TypeVar, get_args

import msgspec

from ondemand.addresses import AddressError
from ondemand.slices import SliceNameError, check_id

#: Keys of mappings and indexes of lists, from the top of a document.
Path: TypeAlias = tuple[str | int, ...]

_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_Value = TypeVar("_Value")
_Key = TypeVar("_Key", bound=Hashable)

_SHOWN_ERRORS = 20
_AT = re.compile(r"(?P<reason>.*) - at `\$(?P<path>.*)`", re.DOTALL)
#: The ``(port 'vm1')`` in a place; an id is written as ``repr`` does, whatever is in it.
_IDENTITY = re.compile(r" \([a-z ]+ (?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")\)")
#: The next key or index of a place.
_STEP = re.compile(r"\[(?P<index>[0-9]+)\]|(?:\.|: )?(?P<key>[a-z_]+)(?=[\[.:]|$)")
#: msgspec's names of types, as a person who writes YAML knows them.
_TYPE_NAMES = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number with a fraction",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}
_EXPECTED = re.compile(r"Expected `(?P<expected>[^`]*)`, got `(?P<got>[^`]*)`")


class GoalStateError(ValueError):
    """The goal state is wrong. ``errors`` has one sentence for each mistake, in document order.

    ``paths`` says where each is in the document: keys and indexes from its top, as far as they exist.
    """

    def __init__(self, errors: Sequence[str], paths: Sequence[Path] = ()) -> None:
        lines = list(errors[:_SHOWN_ERRORS])
        if len(errors) > _SHOWN_ERRORS:
            lines.append(f"... and {len(errors) - _SHOWN_ERRORS} more")
        super().__init__("\n".join(lines))
        self.errors = tuple(errors)
        self.paths = tuple(paths) or ((),) * len(self.errors)


def path_of(place: str) -> Path:
    """Keys and indexes of a place such as ``vpcs[0].ports[3] (port 'vm1'): fixed_ips[1]``.

    They end at the first word that is no key, as in ``top level``.
    """
    steps: list[str | int] = []
    plain = _IDENTITY.sub("", place).removeprefix("top level: ")
    end = 0
    while (step := _STEP.match(plain, end)) is not None:
        steps.append(int(step["index"]) if step["index"] else step["key"])
        end = step.end()
    return tuple(steps)


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """A hint to append to an error, empty when nothing is close."""
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(value.casefold(), folded, n=1)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""


class Problems:
    """The mistakes found so far."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._paths: list[Path] = []
        self._broken: set[tuple[str, str]] = set()

    def add(self, place: str, message: str, *, key: str | None = None) -> None:
        """Note a mistake at ``place``; ``key`` is the one there that is wrong, when ``place`` does not
        end with it.
        """
        self.errors.append(f"{place}: {message}")
        path = path_of(place)
        self._paths.append(path if key is None else (*path, key))

    def add_broken(self, kind: str, identity: object) -> None:
        """What ``identity`` names is there, but wrong: references to it are no second mistake."""
        if isinstance(identity, str):
            self._broken.add((kind, identity))

    def raise_any(self) -> None:
        if self.errors:
            raise self.error()

    def error(self) -> GoalStateError:
        """All that was noted, to be raised."""
        return GoalStateError(self.errors, self._paths)

    def parse(self, place: str, parse: Callable[[str], _Value], text: str) -> _Value | None:
        """The address or prefix in ``text``, or None after noting why it is none."""
        try:
            return parse(text)
        except AddressError as error:
            self.add(place, str(error))
            return None

    def is_first(self, seen: dict[_Key, str], key: _Key, place: str, what: str) -> bool:
        """Remember who has ``key``; False after noting that it is taken."""
        if key in seen:
            self.add(place, f"{what} is taken by {seen[key]}")
            return False
        seen[key] = place
        return True

    def is_known(self, place: str, kind: str, identity: str, known: Collection[str]) -> bool:
        """Whether a reference leads somewhere; False after noting that it does not."""
        if identity in known:
            return True
        if (kind, identity) not in self._broken:
            hint = did_you_mean(identity, known) if len(known) < 1000 else ""
            self.add(place, f"there is no {kind} {identity!r}{hint}")
        return False

    def read(
        self, kind: str, shape: type[_Struct], items: Sequence[object], path: str
    ) -> list[tuple[str, _Struct]]:
        """Each sound item with its place, such as ``vpcs[0].ports[3] (port 'vm1')``."""
        found = []
        for index, item in enumerate(items):
            place = f"{path}[{index}]"
            identity = item.get("id") if isinstance(item, dict) else None
            if isinstance(identity, str):
                place = f"{place} ({kind} {identity!r})"
            value = self.read_one(shape, item, place)
            if value is not None and isinstance(identity, str):
                value = self._with_good_id(kind, identity, value, place)
            if value is None:
                self.add_broken(kind, identity)
            else:
                found.append((place, value))
        return found

    def _with_good_id(self, kind: str, identity: str, value: _Struct, place: str) -> _Struct | None:
        try:
            check_id(f"{kind} id", identity)
        except SliceNameError as error:
            self.add(place, str(error))
            return None
        return value

    def read_one(self, shape: type[_Struct], item: object, place: str) -> _Struct | None:
        """``item`` as a ``shape``. What keeps it from being one is noted; then the sound fields are
        returned, so that their meaning is checked all the same, or None when a required one is not
        among them.
        """
        try:
            return msgspec.convert(item, shape)
        except msgspec.ValidationError:
            return self._salvage(shape, item, place)

    def _salvage(self, shape: type[_Struct], item: object, place: str) -> _Struct | None:
        """Msgspec stops at the first mistake, so each field is tried by itself."""
        sound: dict[str, object] = {}
        fields = {field.name: field for field in msgspec.structs.fields(shape)}
        if not isinstance(item, dict):
            self.add(place, f"must be a mapping with {', '.join(fields)}, not {_type_name(item)}")
            return None
        for key in item:
            if key not in fields:
                hint = did_you_mean(str(key), fields)
                hint = hint or f"; known here: {', '.join(fields)}"
                self.add(place, f"unknown key {key!r}{hint}", key=str(key))
        for name, field in fields.items():
            if name not in item:
                if field.required:
                    self.add(place, f"{name} is missing")
                continue
            try:
                sound[name] = msgspec.convert(item[name], field.type)
            except msgspec.ValidationError as error:
                path, reason = _reason(error, item[name], field.type)
                self.add(f"{place}: {name}{path}", reason)
        required = {name for name, field in fields.items() if field.required}
        return shape(**sound) if required <= sound.keys() else None


def _reason(error: msgspec.ValidationError, value: object, type_: object) -> tuple[str, str]:
    """Where inside ``value`` it is wrong, and why."""
    text, path = str(error), ""
    located = _AT.fullmatch(text)
    if located is not None:
        text, path = located["reason"], located["path"]
    if text.startswith("Invalid enum value"):
        choices = [choice for part in get_args(type_) for choice in get_args(part) or (part,)]
        names = [choice for choice in choices if isinstance(choice, str)]
        return path, f"must be one of {', '.join(names)}, not {value!r}"
    expected = _EXPECTED.fullmatch(text)
    if expected is not None:
        wanted = [name for name in expected["expected"].split(" | ") if name != "null"]
        text = (
            f"must be {' or '.join(_TYPE_NAMES.get(name, name) for name in wanted)},"
            f" not {_TYPE_NAMES.get(expected['got'], expected['got'])}"
        )
        if wanted[-1:] == ["str"] and expected["got"] in ("int", "float", "bool"):
            text += " (put it in quotes)"
        elif wanted == ["array"] and expected["got"] == "null":
            text += " (write [] for an empty list)"
    return path, text


def _type_name(value: object) -> str:
    names = {str: "str", int: "int", float: "float", bool: "bool", list: "array"}
    if value is None:
        return "nothing"
    name = names.get(type(value), type(value).__name__)
    return _TYPE_NAMES.get(name, name)

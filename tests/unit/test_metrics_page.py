"""``docs/metrics.md`` names what the agent counts: every counter of the code, and no other."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from ondemand.engine import _REASONS as REMOVED
from ondemand.flow import NoFlow
from ondemand.malformed import Reason as Malformed
from ondemand.verdict import Reason

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
#: What may stand behind the dot of a name that the code puts together.
ENDINGS = {
    "adopted.": ("kept", "replaced", "deleted"),
    "denied.": tuple(Reason),
    "malformed.": tuple(Malformed),
    "no_flow.": tuple(NoFlow),
    "no_location.": tuple(Reason),
    "not_answered.": tuple(Reason),
    "rule_removed.": (*REMOVED.values(), "other"),
}
#: Families whose endings stand in a table or list of their own.
APART = ("denied.", "no_location.", "not_answered.", "malformed.")


def names_in(node):
    """The constant names of an argument, and the beginnings of those that are put together."""
    if isinstance(node, ast.Constant):
        return [node.value], []
    if isinstance(node, ast.IfExp):
        parts = [names_in(node.body), names_in(node.orelse)]
        return [name for part in parts for name in part[0]], [n for p in parts for n in p[1]]
    if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        return [], [node.values[0].value]
    raise TypeError(f"line {node.lineno}: a counter whose name this test cannot read")


def counted():
    """Of all calls of ``Counters.add``."""
    constants, beginnings = set(), set()
    for package in ("ondemand", "controller_app"):
        for path in sorted((ROOT / package).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr == "add"
                    and ast.unparse(node.func.value).endswith("counters")
                ):
                    plain, begun = names_in(node.args[0])
                    constants.update(plain)
                    beginnings.update(begun)
    return constants, beginnings


CONSTANTS, BEGINNINGS = counted()


def table(heading):
    """The first cells of the tables under a heading."""
    section = PAGE.partition(f"\n{heading}\n")[2]
    section = re.split(r"\n#+ ", section)[0]
    cells = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_the_code_is_read():
    assert {"packet_in", "allowed", "source.lost", "source.back"} <= CONSTANTS
    assert ENDINGS.keys() == BEGINNINGS


def test_every_counter_is_in_the_page_and_no_other():
    wanted = set(CONSTANTS)
    for begin, endings in ENDINGS.items():
        wanted |= {begin + "*"} if begin in APART else {begin + ending for ending in endings}
    listed = table("## Counters")
    assert len(listed) == len(set(listed))
    assert set(listed) == wanted


def test_every_reason_is_in_the_page_and_no_other():
    reasons = table("### Reasons of `denied.*`, `no_location.*` and `not_answered.*`")
    assert sorted(reasons) == sorted(Reason)
    section = PAGE.partition("### Reasons of `malformed.*`\n")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"`([^`]+)`", section)) == sorted(Malformed)


def status_keys(path, function):
    tree = ast.parse((ROOT / "controller_app" / path).read_text(encoding="utf-8"))
    (found,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == function
    )
    return found


def test_every_key_of_the_file_is_in_the_page():
    status = status_keys("agent.py", "status")
    (made,) = (node.value for node in ast.walk(status) if isinstance(node, ast.Return))
    keys = {key.value for key in made.keys}
    # What the app adds to it.
    app = status_keys("app.py", "_idle")
    for node in ast.walk(app):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "status":
            keys.add(node.slice.value)
    assert "connections" in keys
    assert set(table("## State")) == keys - {"counters"}
    (sample,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert json.loads(sample).keys() == keys


@pytest.mark.parametrize("number", [0, 1])
def test_alarms_are_about_what_is_there(number):
    known = {*table("## Counters"), *table("## State")}
    known |= {begin + ending for begin, endings in ENDINGS.items() for ending in endings}
    section = PAGE.partition("\n## What to alarm on\n")[2]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    alarms = re.findall(r"^\| ([^|]*) \|", tables[number], re.MULTILINE)[2:]
    named = [name for alarm in alarms for name in re.findall(r"`([^`]+)`", alarm)]
    assert named
    assert set(named) <= known

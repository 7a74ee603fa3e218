"""The layers import one way only, and the two pure packages do no input or output.

rule_cache <- ondemand <- controller_app <- mininet_topos <- scale <- benchmarks <- tests

A package may import itself and what stands left of it. Everything is read from the source, so an
import that runs rarely, or for a type checker only, counts too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LAYERS = (
    "rule_cache",
    "ondemand",
    "controller_app",
    "mininet_topos",
    "scale",
    "benchmarks",
    "tests",
)
PURE = ("rule_cache", "ondemand")

# What reads a clock, draws a random number, waits, logs, or touches a file, a socket or a process.
# fmt: off
IMPURE_MODULES = frozenset((
    "_thread", "asyncio", "builtins", "click", "concurrent", "contextvars", "ctypes",
    "datetime", "eventlet", "fcntl", "fileinput", "glob", "http", "io", "logging", "mininet",
    "mmap", "multiprocessing", "nats", "netaddr", "os", "os_ken", "ovs", "ovsdbapp", "pathlib",
    "queue", "random", "rich", "sched", "secrets", "select", "selectors", "shutil", "signal",
    "socket", "socketserver", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time",
    "urllib", "uuid", "yaml",
))
# fmt: on
IMPURE_CALLS = frozenset(("open", "print", "input", "exec", "eval", "breakpoint"))


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name, as "ondemand.frames" or "ondemand.frames.parse", and the line it is on."""

    target: str
    line: int

    @property
    def package(self) -> str:
        return self.target.partition(".")[0]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def source_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports_of(source: str, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import of a module, also one by a literal name through importlib or __import__."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")
                package = package[: len(package) - node.level + is_package]
                base = ".".join([*package, base] if base else package)
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno)
        elif isinstance(node, ast.Call) and node.args:
            name = node.args[0]
            if (
                called_name(node) in ("import_module", "__import__")
                and isinstance(name, ast.Constant)
                and isinstance(name.value, str)
            ):
                yield Import(name.value, node.lineno)


def called_name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def wrong_edges(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """The imports that go against the order of the layers, each as a sentence."""
    own = LAYERS.index(module.partition(".")[0])
    allowed = LAYERS[: own + 1]
    return [
        f"{module}:{found.line} imports {found.target}: {LAYERS[own]} may import only "
        f"{', '.join(allowed)} of this project"
        for found in imports_of(source, module, is_package=is_package)
        if found.package in LAYERS and found.package not in allowed
    ]


def impurities(source: str, module: str) -> list[str]:
    """What a pure package must not import or call, each as a sentence."""
    found = [
        f"{module}:{one.line} imports {one.target}: time is an argument and effects are returned"
        for one in imports_of(source, module)
        if one.package in IMPURE_MODULES
    ]
    found += [
        f"{module}:{node.lineno} calls {node.func.id}(): effects are returned"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in IMPURE_CALLS
    ]
    return found


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """A cycle of a graph as the nodes along it, the first repeated at the end; empty if none."""
    finished: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in finished:
            return []
        for following in sorted(graph.get(node, ())):
            if cycle := walk(following, [*path, node]):
                return cycle
        finished.add(node)
        return []

    for start in sorted(graph):
        if cycle := walk(start, []):
            return cycle
    return []


def inner_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Which module of a package imports which other; ``sources`` maps module names to source."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        graph[module] = set()
        for found in imports_of(source, module):
            # "from a.b import c" names a.b, or the module a.b.c if there is one.
            for name in (found.target, found.target.rpartition(".")[0]):
                if name in sources:
                    graph[module] |= {name} - {module}
                    break
    return graph


@pytest.mark.parametrize("package", LAYERS)
def test_imports_go_one_way(package):
    files = source_files(package)
    assert files, f"{package}/ holds no module: has it moved?"
    wrong = [
        line
        for path in files
        for line in wrong_edges(
            path.read_text(), module_name(path), is_package=path.name == "__init__.py"
        )
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PURE)
def test_pure_packages_do_no_input_or_output(package):
    wrong = [
        line
        for path in source_files(package)
        for line in impurities(path.read_text(), module_name(path))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", LAYERS[:-1])
def test_modules_of_a_package_form_no_cycle(package):
    graph = inner_graph({module_name(path): path.read_text() for path in source_files(package)})
    assert not cycle_in(graph), " -> ".join(cycle_in(graph))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rule_cache.ledger", "import ondemand.frames"),
        ("rule_cache.ledger", "from ondemand import frames"),
        ("ondemand.engine", "def late():\n    from controller_app.config import Config"),
        ("ondemand.engine", "if TYPE_CHECKING:\n    import tests.unit.fakes"),
        ("controller_app.cli", "import importlib\nimportlib.import_module('mininet_topos.demo')"),
        ("controller_app.cli", "__import__('mininet_topos')"),
        ("mininet_topos.fabric", "from benchmarks import record_decode as measured"),
    ],
)
def test_a_wrong_edge_is_seen(module, source):
    assert len(wrong_edges(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ondemand.engine", "from rule_cache.rule import Rule\nfrom ondemand import frames"),
        ("ondemand.engine", "import ondemand_other, struct"),
        ("ondemand.engine", "from . import frames\nfrom .frames import parse"),
        ("tests.unit.test_x", "import controller_app.cli, mininet_topos, benchmarks"),
    ],
)
def test_an_allowed_edge_passes(module, source):
    assert wrong_edges(source, module) == []


def test_relative_imports_are_resolved():
    source = "from . import frames\nfrom ..other import thing"
    assert [one.target for one in imports_of(source, "a.b.c")] == ["a.b.frames", "a.other.thing"]
    inside = imports_of(source, "a.b", is_package=True)
    assert [one.target for one in inside] == ["a.b.frames", "a.other.thing"]


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "import os.path as p",
        "from time import monotonic",
        "from os_ken.lib.packet import packet",
        "import struct, socket",
        "def f(path):\n    with open(path) as file:\n        return file",
        "import importlib\nimportlib.import_module('threading')",
        "print('here')",
    ],
)
def test_an_impurity_is_seen(source):
    assert len(impurities(source, "ondemand.engine")) == 1


def test_what_is_pure_passes():
    source = "import struct\nfrom cachetools import LRUCache\ndef f(o):\n    return o.open(1)"
    assert impurities(source, "ondemand.engine") == []


def test_a_cycle_is_seen():
    sources = {
        "p.a": "from p import b",
        "p.b": "from p.c import thing",
        "p.c": "def late():\n    import p.a",
        "p.d": "from p.a import other",
    }
    assert cycle_in(inner_graph(sources)) == ["p.a", "p.b", "p.c", "p.a"]
    del sources["p.c"]
    assert cycle_in(inner_graph(sources)) == []

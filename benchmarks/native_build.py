"""Compiles the small C programs of ``benchmarks/native`` at their first use."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parent / "native"
_FLAGS: Final = ("-std=gnu11", "-O2", "-Wall", "-Wextra")


class BuildError(Exception):
    """The C programs cannot be compiled here; the message says why and what to do."""


def build(name: str) -> Path:
    """The program made from ``native/<name>.c``, compiled unless that was done before.

    Raises:
        BuildError: there is no C compiler, or it refuses the source.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BuildError("the benchmarks need a C compiler: apt-get install gcc libc6-dev")
    digest = hashlib.sha256(" ".join((compiler, *_FLAGS)).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    program = _cache() / f"{name}-{digest.hexdigest()[:16]}"
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as place:
        made = Path(place) / name
        result = subprocess.run(
            [compiler, *_FLAGS, "-o", str(made), str(SOURCES / f"{name}.c")],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if result.returncode:
            raise BuildError(f"{compiler} cannot compile {name}.c:\n{result.stderr.strip()}")
        # Whole or not at all: another run may be building the same.
        made.replace(program)
    return program


def _cache() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "ondemand-ovs" / "benchmarks"

"""The corpus: inputs that were interesting once, as small text files that are read and replayed.

A file has lines ``key: value``, an empty line, and the bytes in hex. Its name is that of the outcome.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
_LINE = 48


@dataclass(frozen=True, slots=True)
class Kept:
    """One input of a target. ``facts`` are what the target needs beside the bytes."""

    target: str
    outcome: str
    data: bytes
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        name = re.sub(r"[^a-z0-9]+", "-", self.outcome.lower()).strip("-")[:100]
        return CORPUS / self.target / f"{name}.hex"

    def save(self) -> None:
        lines = [f"outcome: {self.outcome}"]
        lines += [f"{key}: {value}" for key, value in self.facts.items()]
        pieces = [self.data[at : at + _LINE].hex() for at in range(0, len(self.data), _LINE)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\n".join([*lines, "", *pieces]) + "\n")


def load(target: str) -> Iterator[Kept]:
    """All that is kept for a target, by name."""
    for path in sorted((CORPUS / target).glob("*.hex")):
        head, _, body = path.read_text().partition("\n\n")
        facts = dict(line.split(": ", 1) for line in head.splitlines())
        yield Kept(target, facts.pop("outcome"), bytes.fromhex(body.replace("\n", "")), facts)


def smaller(data: bytes, same: Callable[[bytes], bool]) -> bytes:
    """Less of ``data`` for which ``same`` still holds: pieces left out, then bytes set to zero."""
    size = max(1, len(data) // 2)
    while True:
        at = 0
        while at < len(data):
            less = data[:at] + data[at + size :]
            if same(less):
                data = less
            else:
                at += size
        if size == 1:
            break
        size //= 2
    for at in range(min(len(data), 256)):
        zeroed = data[:at] + b"\0" + data[at + 1 :]
        if data[at] and same(zeroed):
            data = zeroed
    return data

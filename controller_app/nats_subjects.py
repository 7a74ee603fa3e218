"""Slice names as NATS subjects, and back.

In a stream named S there are::

    S.log.<slice>   commits, the truth (see ``nats_commit``)      S.log.store   which store this is
    S.part.<slice>.<base>.<number>   the bases of commits, in pieces
    S.ver.<slice>   the version of the last commit (see ``nats_version``)
    S.live.<slice>  what the server repeats of S.log.<slice> once it is stored; not kept

A slice's name is its tokens: ``nbr/v/10.0.0.0`` is ``nbr.v.10%2E0%2E0%2E0``.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass

from ondemand.slices import SliceNameError, kind_of

#: What a stream may be called, so that it is a token of a subject too.
STREAM_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
#: Stands for an empty token, which a subject cannot have. No escaped text is this alone.
_EMPTY = "%"


def is_stream_name(name: str) -> bool:
    return re.fullmatch(STREAM_PATTERN, name) is not None


def tokens(name: str) -> str:
    """Any text as tokens of a subject, one for each part between slashes."""
    return ".".join(token_of(part) for part in name.split("/"))


def token_of(part: str) -> str:
    """Any text as one token of a subject."""
    quoted = urllib.parse.quote(part, safe=":", errors="surrogatepass")
    return quoted.replace(".", "%2E") or _EMPTY


def name_of(text: str) -> str | None:
    """The slice whose ``tokens`` these are, None when no slice has them."""
    parts = [
        "" if token == _EMPTY else urllib.parse.unquote(token, errors="replace")
        for token in text.split(".")
    ]
    name = "/".join(parts)
    try:
        kind_of(name)
    except SliceNameError:
        return None
    # Somebody else's way of writing a name would be a second subject of the same slice.
    return name if tokens(name) == text else None


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects of one stream."""

    stream: str

    @property
    def logs(self) -> str:
        """All subjects that hold commits."""
        return f"{self.stream}.log.>"

    @property
    def parts(self) -> str:
        return f"{self.stream}.part.>"

    @property
    def versions(self) -> str:
        return f"{self.stream}.ver.>"

    @property
    def lives(self) -> str:
        return f"{self.stream}.live.>"

    @property
    def store(self) -> str:
        """Holds which store this is."""
        return f"{self.stream}.log.store"

    @property
    def live_store(self) -> str:
        """Says that the store was made anew."""
        return f"{self.stream}.live.store"

    def log(self, name: str) -> str:
        return f"{self.stream}.log.{tokens(name)}"

    def part(self, name: str, base: str, number: int) -> str:
        return f"{self.stream}.part.{tokens(name)}.{base}.{number}"

    def version(self, name: str) -> str:
        return f"{self.stream}.ver.{tokens(name)}"

    def parts_of(self, name: str) -> str:
        """All parts of one slice; those of another have more or fewer tokens, or other ones."""
        return f"{self.stream}.part.{tokens(name)}.*.*"

    def live(self, name: str) -> str:
        return f"{self.stream}.live.{tokens(name)}"

    def slice_of(self, log: str) -> str | None:
        """The slice whose commits a subject holds."""
        head = f"{self.stream}.log."
        return name_of(log[len(head) :]) if log.startswith(head) else None

"""What is fuzzed, as the runner sees it."""

from __future__ import annotations

import re
from typing import Protocol

from tests.fuzz.kept import Kept


class Target(Protocol):
    """Makes inputs and runs them. An exception out of ``run`` is a finding, whichever it is."""

    name: str

    def make(self) -> Kept:
        """The next input; its outcome is not known yet."""

    def run(self, given: Kept) -> str:
        """Run one input and check what comes of it; the outcome, in words that name no value."""

    def replay(self, given: Kept) -> str:
        """As ``run``, from a state of its own, for what is kept and for minimising."""


def without_values(text: str) -> str:
    """A message without what differs from input to input: quoted text, numbers, what follows a colon."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|0x[0-9a-f]+|-?\d+|[0-9a-f]{2}(:[0-9a-f]{2})+", "#", text)
    return re.sub(r"(# ?)+", "# ", text)[:90].strip()

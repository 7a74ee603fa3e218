"""What a demo or an experiment hands over in the end: a JSON document, a summary, an exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mininet_topos.errors import LabError
from mininet_topos.promises import Measurement, Outcome, Promise

#: Of the JSON document; a change that a reader could trip over raises it.
FORMAT: Final = 1


class ReportError(LabError):
    """The report cannot be written to its file; the message names it and the reason."""


@dataclass(frozen=True, slots=True)
class Report:
    """One performance.

    Attributes:
        promises: all that should have been looked at, in order.
        outcomes: what was looked at.
        measurements: figures without a threshold.
        seconds: from the start to the last check.
        facts: what was built, for the JSON document.
    """

    promises: Sequence[Promise]
    outcomes: Sequence[Outcome]
    measurements: Sequence[Measurement]
    seconds: float
    facts: dict[str, Any]

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.seen.ok]

    @property
    def missing(self) -> list[Promise]:
        """Promises that nobody looked at, because the run was cut short."""
        seen = {outcome.promise for outcome in self.outcomes}
        return [promise for promise in self.promises if promise not in seen]

    @property
    def exit_code(self) -> int:
        """0 only if every promise was looked at and held, else 1."""
        return 1 if self.failed or self.missing or not self.outcomes else 0

    @property
    def summary(self) -> str:
        """One line: how many held, how long it took, and what did not hold."""
        held = len(self.outcomes) - len(self.failed)
        line = f"{held} of {len(self.promises)} checks held, {self.seconds:.0f} s"
        broken = [outcome.promise.name for outcome in self.failed]
        broken += [f"{promise.name} (not looked at)" for promise in self.missing]
        return f"{line}; not: {', '.join(broken)}" if broken else line

    def document(self) -> dict[str, Any]:
        """For ``--json``: plain dicts, lists, strings and numbers."""
        outcomes = {outcome.promise: outcome for outcome in self.outcomes}
        return {
            "format": FORMAT,
            "held": self.exit_code == 0,
            "seconds": round(self.seconds, 3),
            **self.facts,
            "checks": [_check(promise, outcomes.get(promise)) for promise in self.promises],
            "measurements": [
                {
                    "name": one.name,
                    "unit": one.unit,
                    "values": {what: round(value, 4) for what, value in one.values.items()},
                }
                for one in self.measurements
            ],
        }

    def write(self, path: Path) -> None:
        """Write the document.

        Raises:
            ReportError: it cannot be written.
        """
        try:
            path.write_text(json.dumps(self.document(), indent=2) + "\n")
        except OSError as error:
            raise ReportError(f"{path} cannot be written: {error.strerror or error}") from error


def check_place(path: Path) -> None:
    """Raise ReportError now if ``path`` could not be written later."""
    if path.is_dir():
        raise ReportError(f"{path} is a directory: name a file")
    if not path.absolute().parent.is_dir():
        raise ReportError(f"{path} cannot be written: there is no directory {path.parent}")


def _check(promise: Promise, outcome: Outcome | None) -> dict[str, Any]:
    found = None if outcome is None else outcome.seen
    return {
        "theme": promise.theme,
        "name": promise.name,
        "promised": promise.promised,
        "seen": "not looked at" if found is None else found.text,
        "ok": found is not None and found.ok,
        "seconds": None if outcome is None else round(outcome.seconds, 3),
    }

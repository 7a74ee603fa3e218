"""Runs an experiment of the registry."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

from mininet_topos.conduct import Performance, conduct
from mininet_topos.errors import LabConfigError
from mininet_topos.experiment_lab import ExperimentLab
from mininet_topos.experiment_registry import EXPERIMENTS
from mininet_topos.lab_source import SourceKind


class ExperimentModule(Protocol):
    """What a module of the registry has."""

    def performance(self, *, quick: bool) -> Performance[ExperimentLab]:
        """What is shown; ``quick``: the short form."""


def load_experiment(name: str) -> ExperimentModule:
    """The module of an experiment; KeyError when there is none of that name."""
    return cast(ExperimentModule, importlib.import_module(EXPERIMENTS[name].module))


def run_experiment(
    name: str,
    *,
    quick: bool,
    json_file: Path | None,
    keep: bool,
    source: SourceKind = "sqlite",
) -> int:
    """Run one; see ``conduct`` for what it returns and raises.

    Raises:
        LabConfigError: the experiment breaks the file of the store, and the source has none.
    """
    if EXPERIMENTS[name].needs_file and source != "sqlite":
        raise LabConfigError(
            f"the experiment {name} breaks the file of the slice store, and a source of kind {source}"
            " has none: run it with --source sqlite"
        )
    found = load_experiment(name).performance(quick=quick)
    shown = replace(found, facts={"experiment": name, "quick": quick, **found.facts})
    return conduct(
        lambda _screen: shown,
        name=f"the experiment {name}",
        json_file=json_file,
        keep=keep,
        source=source,
    )

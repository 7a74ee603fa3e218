"""Runs an experiment of the registry."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

from mininet_topos.conduct import Performance, conduct
from mininet_topos.experiment_lab import ExperimentLab
from mininet_topos.experiment_registry import EXPERIMENTS


class ExperimentModule(Protocol):
    """What a module of the registry has."""

    def performance(self, *, quick: bool) -> Performance[ExperimentLab]:
        """What is shown; ``quick``: the short form."""


def load_experiment(name: str) -> ExperimentModule:
    """The module of an experiment; KeyError when there is none of that name."""
    return cast(ExperimentModule, importlib.import_module(EXPERIMENTS[name].module))


def run_experiment(name: str, *, quick: bool, json_file: Path | None, keep: bool) -> int:
    """Run one; see ``conduct`` for what it returns and raises."""
    found = load_experiment(name).performance(quick=quick)
    shown = replace(found, facts={"experiment": name, "quick": quick, **found.facts})
    return conduct(
        lambda _screen: shown, name=f"the experiment {name}", json_file=json_file, keep=keep
    )

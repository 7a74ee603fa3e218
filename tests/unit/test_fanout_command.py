"""How ``ondemand experiment`` finds experiments of other packages."""

import importlib.metadata
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mininet_topos import other_experiments
from mininet_topos.cli_experiment import command
from mininet_topos.other_experiments import ENTRY_POINT_GROUP, load_other

ROOT = Path(__file__).resolve().parents[2]


def point(name, value):
    return importlib.metadata.EntryPoint(name, value, ENTRY_POINT_GROUP)


@pytest.fixture
def others(monkeypatch):
    """Makes these entry points the only ones."""

    def give(*points):
        monkeypatch.setattr(
            other_experiments, "other_experiments", lambda: {one.name: one for one in points}
        )

    return give


def test_fanout_comes_in_through_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = project["entry-points"][ENTRY_POINT_GROUP]
    assert points == {"fanout": "scale.cli_fanout:command"}
    assert isinstance(load_other(point("fanout", points["fanout"])), click.Command)


def test_the_help_lists_it_and_its_own_help_is_its_own(others):
    others(point("fanout", "scale.cli_fanout:command"))
    listed = CliRunner().invoke(command, ["--help"], terminal_width=120).output
    assert "  fanout         Thousands of hosts" in listed
    assert "{others}" not in listed
    own = CliRunner().invoke(command, ["fanout", "--help"])
    assert own.exit_code == 0
    assert "--ports-per-host" in own.output
    assert "experiment fanout [OPTIONS]" in own.output


def test_without_others_the_help_is_that_of_before(others):
    others()
    listed = CliRunner().invoke(command, ["--help"]).output
    assert "{others}" not in listed
    assert "options of their own" not in listed


def test_one_that_cannot_be_loaded_says_so_and_spoils_no_other(others):
    others(point("broken", "no_such_module:command"), point("fanout", "scale.cli_fanout:command"))
    listed = CliRunner().invoke(command, ["--help"], terminal_width=200).output
    assert "no_such_module:command cannot be loaded" in listed
    assert "Thousands of hosts" in listed
    done = CliRunner().invoke(command, ["broken"])
    assert done.exit_code == 2
    assert "cannot be loaded" in done.output


def test_what_is_no_command_is_refused():
    with pytest.raises(click.ClickException, match="no click command"):
        load_other(point("wrong", "scale.settings:STEPS"))

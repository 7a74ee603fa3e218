"""The command ``ondemand``: help, errors, exit codes, and commands that other packages add."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from controller_app import cli as cli_module
from controller_app import cli_run
from controller_app.cli import COMMANDS, ENTRY_POINT_GROUP, cli
from controller_app.config_example import example
from controller_app.ovsdb_errors import ForeignControllerError

ROOT = Path(__file__).resolve().parents[2]
#: What --help must not import: heavy, or not needed to print a page.
HEAVY = ("os_ken", "ovsdbapp", "ovs", "mininet", "mininet_topos.demo", "rich", "yaml", "sqlite3")


def invoke(*arguments, code=0):
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def one_sentence(result):
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("ondemand: ")
    return line


@pytest.fixture
def plugins(monkeypatch):
    """Entry points as installed packages would have them."""

    def install(**values):
        points = [importlib.metadata.EntryPoint(n, v, ENTRY_POINT_GROUP) for n, v in values.items()]
        monkeypatch.setattr(cli_module, "_plugins", lambda: {point.name: point for point in points})

    install()
    return install


# -- help --------------------------------------------------------------------------------------------


def run_python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_imports_nothing_heavy():
    code = f"""
import importlib.metadata, sys
import controller_app.cli
point = importlib.metadata.EntryPoint("demo", "mininet_topos.cli_demo:command", "ondemand.commands")
controller_app.cli._plugins = lambda: {{"demo": point}}
sys.argv = ["ondemand", "--help"]
try:
    controller_app.cli.main()
except SystemExit as end:
    assert end.code == 0, end.code
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert "explain" in done.stdout
    assert "demo" in done.stdout


@pytest.mark.parametrize("name", ["config", "doctor", "explain", "run", "slices"])
def test_each_command_says_what_it_does_with_examples_and_exit_codes(plugins, name):
    text = invoke(name, "--help").stdout
    assert f"ondemand {name} " in text
    assert "xample" in text or name == "slices"
    assert "Exit code: 0" in text or name == "slices"
    assert invoke(name, "-h").stdout == text


def test_the_list_of_commands_says_what_each_says_itself(plugins):
    text = " ".join(invoke("--help").stdout.split())
    for name, (_, _, line) in COMMANDS.items():
        assert f"{name} {line}" in text
    with click.Context(cli) as context:
        for name in ("run", "explain", "slices"):
            command = cli.get_command(context, name)
            assert command.get_short_help_str(limit=200).startswith(COMMANDS[name][2].rstrip("."))


def test_no_command_shows_the_help_and_is_an_error(plugins):
    result = CliRunner().invoke(cli, [])
    assert result.exit_code == 2
    assert "Commands:" in result.output


def test_the_version(plugins, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"1.2.3 of {name}")
    assert invoke("--version").stdout == "ondemand 1.2.3 of ondemand-ovs\n"

    def fail(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", fail)
    assert "without being installed" in invoke("--version").stdout


# -- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explan"], "there is no command 'explan'; did you mean 'explain'? (see 'ondemand --help')"),
        (["--colour"], "no such option"),
        (["explain", "--stor", "x"], "no such option"),
        (["slices", "publsh"], "no such command 'publsh'"),
        (["explain", "--store", "none.db", "--port", "x", "tcp,nw_dst=1.1.1.1,tp_dst=1"], "slice store none.db does not exist"),
        (["run", "--config", "none.toml"], "none.toml: there is no such file"),
        (["config", "none.toml"], "none.toml: there is no such file"),
        (["config"], "give a FILE to check, or --example"),
        (["config", "--example", "x.toml"], "--example goes alone"),
    ],
)  # fmt: skip
def test_an_error_is_one_sentence_and_exit_2(plugins, arguments, words):
    assert words.lower() in one_sentence(invoke(*arguments, code=2)).lower()


def test_an_unforeseen_error_shows_its_place_only_with_debug(plugins, monkeypatch):
    @click.command("config")
    def broken():
        raise LookupError("nothing there")

    monkeypatch.setattr("controller_app.cli_config.command", broken)
    line = one_sentence(invoke("config", code=2))
    assert line == (
        "ondemand: a mistake of this program, LookupError: nothing there;"
        " 'ondemand --debug ...' shows where"
    )
    result = CliRunner().invoke(cli, ["--debug", "config"])
    assert result.exit_code == 2
    assert 'raise LookupError("nothing there")' in result.stderr


def test_a_foreseen_error_shows_its_cause_with_debug(plugins):
    result = CliRunner().invoke(cli, ["--debug", "config", "none.toml"])
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("ondemand: none.toml: there is no such file")


def test_an_error_of_the_system_is_told_as_it_is(plugins, monkeypatch):
    @click.command("config")
    def broken():
        raise PermissionError(13, "Permission denied", "/etc/x")

    monkeypatch.setattr("controller_app.cli_config.command", broken)
    assert one_sentence(invoke("config", code=2)).endswith("Permission denied: '/etc/x'")


@pytest.mark.parametrize(
    "path",
    [
        ["run"],
        ["explain"],
        ["doctor"],
        ["config"],
        ["slices"],
        *(["slices", name] for name in ("publish", "diff", "show", "watch", "verify")),
    ],
)
def test_a_command_used_alone_has_both_help_options(path):
    """As a program that embeds one command uses it: without the group that it stands in."""
    # In a process of its own: click keeps a help option as it is first asked for.
    code = (
        "import sys, click, controller_app.cli as m\n"
        "found = m.cli\n"
        "for name in sys.argv[1:]: found = found.get_command(click.Context(found), name)\n"
        "found.main(['-h'], prog_name='alone')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: alone ")
    assert "-h, --help" in done.stdout


def test_an_interrupt_is_130(plugins, monkeypatch):
    @click.command("config")
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("controller_app.cli_config.command", interrupted)
    result = CliRunner().invoke(cli, ["config"])
    assert (result.exit_code, result.stderr.strip()) == (130, "ondemand: interrupted")


@pytest.mark.parametrize(("number", "name"), [(15, "SIGTERM"), (1, "SIGHUP")])
def test_a_lab_that_is_ended_by_a_signal_says_so(number, name):
    code = (
        "import os, click\n"
        "from controller_app import cli\n"
        "from mininet_topos.signals import exit_on_signals\n"
        "@cli.cli.command()\n"
        "def ended():\n"
        "    exit_on_signals()\n"
        "    try: os.kill(os.getpid(), int(os.environ['NUMBER']))\n"
        "    finally: print('taken away')\n"
        "cli.COMMANDS = {'ended': ('__main__', 'ended', 'x')}\n"
        "cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "ended"],
        cwd=ROOT,
        env=os.environ | {"NUMBER": str(number)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "taken away\n"
    assert (done.returncode, done.stderr) == (128 + number, f"ondemand: interrupted ({name})\n")


def test_an_exit_of_another_kind_says_nothing_of_signals(plugins, monkeypatch):
    @click.command("config")
    def left():
        sys.exit(7)

    monkeypatch.setattr("controller_app.cli_config.command", left)
    result = CliRunner().invoke(cli, ["config"])
    assert (result.exit_code, result.stderr) == (7, "")


# -- commands of other packages ----------------------------------------------------------------------


def test_demo_and_experiments_come_in_through_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"ondemand": "controller_app.cli:main"}
    points = project["entry-points"][ENTRY_POINT_GROUP]
    assert points == {
        "demo": "mininet_topos.cli_demo:command",
        "experiment": "mininet_topos.cli_experiment:command",
        "bench": "benchmarks.cli_bench:command",
    }
    for name, value in points.items():
        command = importlib.metadata.EntryPoint(name, value, ENTRY_POINT_GROUP).load()
        assert isinstance(command, click.Command)
        assert command.name == name


def test_an_installed_command_is_found(tmp_path):
    """As a package that pip has installed: found by its metadata alone."""
    (tmp_path / "hello_commands.py").write_text(
        "import click\n@click.command()\ndef greet():\n    'Say hello.'\n    click.echo('hello')\n"
    )
    metadata = tmp_path / "hello-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\nhello = hello_commands:greet\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    command = [sys.executable, "-m", "controller_app.cli"]
    for arguments, words in ((["hello"], "hello"), (["--help"], "hello Say hello.")):
        done = subprocess.run(
            [*command, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        # How far apart they stand depends on the other commands that are installed.
        assert words in " ".join(done.stdout.split())


def test_a_command_that_cannot_be_loaded_spoils_no_other(plugins):
    plugins(lost="no_such_module:command", odd="json:dumps")
    text = invoke("--help").stdout
    assert "no_such_module:command cannot be loaded" in " ".join(text.split())
    assert "explain" in text
    assert "cannot be loaded" in one_sentence(invoke("lost", code=2))
    assert "is no click command" in one_sentence(invoke("odd", code=2))


def test_no_package_replaces_a_command_of_ours(plugins):
    plugins(config="json:dumps")
    assert invoke("config", "--example").stdout == example()


def test_the_demo_is_a_command_like_any_other(plugins, monkeypatch):
    plugins(demo="mininet_topos.cli_demo:command")
    import mininet_topos.demo

    seen = []
    monkeypatch.setattr(mininet_topos.demo, "run_demo", lambda options: seen.append(options) or 1)
    invoke("demo", "--neighbors", "1000", code=1)
    assert [options.neighbors for options in seen] == [1000]
    assert "1000000" in one_sentence(invoke("demo", "--neighbors", "-1", code=2))
    assert "sudo ondemand demo" in invoke("demo", "--help").stdout
    assert "demo " in invoke("--help").stdout


# -- run and config ----------------------------------------------------------------------------------


@pytest.fixture
def config_path(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(
        '[host]\nid = "h1"\ntunnel_ip = "192.0.2.1"\n[source]\nfile = "slices.db"\n'
        f'[log]\nfile = "{tmp_path}/agent.log"\n'
    )
    return path


@pytest.fixture
def agent(monkeypatch):
    """Stands for the agent; the test says how it ends."""
    import controller_app.run

    started = []

    def end(with_what):
        def run_agent(path, *, replace, fresh):
            started.append((path, replace, fresh))
            if isinstance(with_what, Exception):
                raise with_what
            return with_what

        monkeypatch.setattr(controller_app.run, "run_agent", run_agent)
        return started

    monkeypatch.setattr(cli_run, "set_up_logs", lambda _: None)
    return end


def test_run_ends_as_the_agent_does(plugins, agent, config_path):
    started = agent(0)
    invoke("run", "--config", str(config_path))
    invoke("run", "--config", str(config_path), "--replace-agent")
    invoke("run", "--config", str(config_path), "--fresh")
    assert started == [
        (config_path, False, False),
        (config_path, True, False),
        (config_path, False, True),
    ]
    agent(2)
    invoke("run", "--config", str(config_path), code=2)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(98, "Address already in use"), "the agent cannot start: [Errno 98]"),
        (ForeignControllerError("br-int", ["tcp:10.0.0.1:6653"]), "bridge br-int already has the"),
    ],
)
def test_run_tells_why_it_cannot_start(plugins, agent, config_path, error, words):
    agent(error)
    line = one_sentence(invoke("run", "--config", str(config_path), code=2))
    assert line.startswith(f"ondemand: {words}")


def test_run_tells_every_mistake_of_its_configuration(plugins, agent, config_path):
    started = agent(0)
    config_path.write_text("[host]\nid = 3\n[limits]\nmax_rule = 1\n")
    text = invoke("run", "--config", str(config_path), code=2).stderr
    for words in (
        "id = 3 must be",
        "did you mean 'max_rules'",
        "tunnel_ip is missing",
        "file is missing",
    ):
        assert words in text
    assert started == []


def test_config_writes_and_checks(plugins, config_path):
    assert invoke("config", "--example").stdout == example()
    text = invoke("config", str(config_path)).stdout
    assert 'id = "h1"\n' in text
    assert "max_rules = 200000  # default" in text
    assert json.loads(invoke("config", str(config_path), "--json").stdout)["host"]["id"] == "h1"
    config_path.write_text("[host]\nid = 3\n")
    assert "has 3 mistakes:" in invoke("config", str(config_path), code=2).stderr


# -- as a process ------------------------------------------------------------------------------------


def run_ondemand(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "controller_app.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def test_publish_and_explain_as_processes(tmp_path):
    store = str(tmp_path / "slices.db")
    done = run_ondemand("slices", "publish", "examples/two-subnets.yaml", "--store", store)
    assert (done.returncode, done.stderr) == (0, "")
    for tp_dst, code in ((5432, 0), (5433, 1)):
        flow = f"tcp,nw_dst=10.0.2.10,tp_dst={tp_dst}"
        done = run_ondemand("explain", "--store", store, "--port", "web-1", "--json", flow)
        assert (done.returncode, done.stderr) == (code, "")
        assert json.loads(done.stdout)["allowed"] == (code == 0)
    done = run_ondemand("explain", "--store", store, "--port", "web-1", "tcp")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ondemand: ")


def test_doctor_says_nothing_on_standard_error(tmp_path):
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[host]\nid = "h1"\ntunnel_ip = "192.0.2.1"\n[source]\nfile = "{tmp_path}/none.db"\n'
        f'[bridge]\novsdb = "unix:{tmp_path}/none.sock"\n'
    )
    done = run_ondemand("doctor", "--config", str(config), "--json")
    assert (done.returncode, done.stderr) == (1, "")
    failed = {c["name"] for c in json.loads(done.stdout)["checks"] if c["status"] == "fail"}
    assert {"ovsdb", "store"} <= failed


def test_a_reader_that_goes_away_is_no_traceback():
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "controller_app.cli", "config", "--example"],
            cwd=ROOT,
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(write_end)
    _, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    assert process.returncode != 0

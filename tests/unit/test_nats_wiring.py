"""NATS in the configuration, in ``ondemand slices``, ``explain`` and ``doctor``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller_app.cli import cli
from controller_app.config import ConfigError, load_config
from controller_app.doctor import run_checks
from controller_app.doctor_check import Status
from controller_app.nats_options import NatsAddress
from controller_app.nats_store import NatsStore
from controller_app.source_factory import open_source, open_store
from controller_app.sqlite_store import SqliteStore
from ondemand.slices import SourceError
from tests.support.nats_server import NatsServer, free_port, needs_nats_server

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "two-subnets.yaml"
START = '[host]\nid = "host-1"\ntunnel_ip = "192.0.2.11"\n[source]\n'


@pytest.fixture
def write(tmp_path):
    def write_(text):
        path = tmp_path / "agent.toml"
        path.write_text(START + text, encoding="utf-8")
        return path

    return write_


@pytest.fixture
def server(tmp_path):
    made = NatsServer(tmp_path)
    made.start()
    yield made
    made.stop()


def run(*arguments, code=0):
    result = CliRunner().invoke(cli, list(map(str, arguments)), prog_name="ondemand")
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


class TestConfiguration:
    def test_every_key_reaches_the_address(self, write, tmp_path):
        config = load_config(
            write(
                'kind = "nats"\nservers = "a, tls://b:1"\nstream = "blue"\nuser = "u"\n'
                'password_file = "p"\ncredentials = "c"\ntls_ca = "/ca"\ntls_cert = "x"\n'
                'tls_key = "y"\n'
            )
        )
        assert config.source_file is None
        assert config.source_nats == NatsAddress(
            ("nats://a:4222", "tls://b:1"),
            "blue",
            user="u",
            password_file=tmp_path / "p",
            credentials=tmp_path / "c",
            tls_ca=Path("/ca"),
            tls_cert=tmp_path / "x",
            tls_key=tmp_path / "y",
        )

    def test_what_is_left_out_has_its_default(self, write):
        config = load_config(write('kind = "nats"\nservers = "a"\n'))
        assert config.source_nats == NatsAddress(("nats://a:4222",))
        source = open_source(config)
        assert isinstance(source, NatsStore)
        assert not source.is_local
        source.close()

    def test_keys_of_the_other_kind_mean_nothing(self, write):
        config = load_config(write('kind = "nats"\nservers = "a"\nfile = "slices.db"\n'))
        assert (config.source_kind, config.source_file) == ("nats", None)
        config = load_config(write('file = "slices.db"\nservers = "a"\n'))
        assert (config.source_kind, config.source_nats) == ("sqlite", None)

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ('kind = "nats"\n', "[source] servers is missing"),
            ("", "[source] file is missing"),
            ('kind = "nats"\nservers = ""\n', "[source] servers = no server is given"),
            ('kind = "nats"\nservers = "http://a"\n', "[source] servers = 'http://a:4222' is no server"),
            ('kind = "nats"\nservers = "a"\nstream = "x y"\n', "[source] stream = 'x y' is no name"),
            ('kind = "nats"\nservers = "a"\nuser = "u"\n', "[source] user needs password_file"),
            ('kind = "nats"\nservers = "a"\ntls_cert = "u"\n', "[source] tls_cert needs tls_key"),
            ('kind = "nats"\nservers = "a"\ntls_ca = ""\n', "[source] tls_ca = '' is no path"),
            ('kind = "nat"\nservers = "a"\nfile = "x"\n', "did you mean 'nats'?"),
        ],
    )  # fmt: skip
    def test_one_mistake_is_one_clear_sentence(self, write, text, sentence):
        with pytest.raises(ConfigError) as caught:
            load_config(write(text))
        assert len(caught.value.problems) == 1, caught.value.problems
        assert sentence in caught.value.problems[0]


class TestPlaces:
    def test_a_path_is_a_file_and_a_url_is_a_server(self, tmp_path):
        with open_store(str(tmp_path / "x.db")) as store:
            assert isinstance(store, SqliteStore)
        with open_store("nats://127.0.0.1:4") as store:
            assert isinstance(store, NatsStore)
            assert store.place == "nats://127.0.0.1:4"

    def test_what_is_no_url_is_told(self):
        with pytest.raises(SourceError, match="no server is given"):
            open_store("nats://")


@needs_nats_server
class TestCommands:
    def test_publish_diff_show_and_explain(self, server):
        place = ("--store", server.url)
        assert (
            "records would be written"
            in run("slices", "publish", EXAMPLE, *place, "--dry-run").stdout
        )
        assert "does not exist" in run("slices", "show", *place, code=2).stderr
        first = run("slices", "publish", EXAMPLE, *place).stdout
        assert f"36 records written in 15 slices of {server.url}" in first
        assert "nothing to do" in run("slices", "publish", EXAMPLE, *place, "--keep-others").stdout
        assert "no difference" in run("slices", "diff", EXAMPLE, *place).stdout
        listing = json.loads(run("slices", "show", *place, "--json").stdout)
        assert listing["store"] == server.url
        assert sum(one["records"] for one in listing["slices"]) == 36
        assert "web-1" in run("slices", "show", *place, "hostgroup/rack-1").stdout
        flow = "tcp,nw_dst=10.0.2.10,tp_dst=5432"
        assert "allow" in run("explain", *place, "--port", "web-1", flow).stdout

    def test_a_server_that_is_not_there_gives_2_and_one_line(self):
        place = f"nats://127.0.0.1:{free_port()}"
        for command in (("publish", EXAMPLE), ("show",), ("diff", EXAMPLE)):
            told = run("slices", *command, "--store", place, code=2).stderr
            assert place in told
            assert "Connection refused" in told

    def test_the_doctor_looks_into_it(self, server, write):
        path = write(f'kind = "nats"\nservers = "{server.url}"\n')

        def checks():
            return {one.name: one for one in run_checks(path)}

        before = checks()
        # There is no stream yet, and that is told once.
        assert "store" not in before
        assert before["nats stream"].status is Status.FAIL
        assert "publish" in before["nats stream"].found
        run("slices", "publish", EXAMPLE, "--store", server.url)
        after = checks()
        assert after["nats stream"].status is Status.OK
        assert after["store"].status is Status.OK
        assert "ports on host host-1" in after["store"].found

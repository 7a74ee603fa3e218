"""``ondemand doctor`` with slices over NATS: each thing that can be wrong is told with its mend."""

from __future__ import annotations

import socket
import threading

import pytest
from click.testing import CliRunner

from controller_app.cli_slices import slices
from controller_app.config import load_config
from controller_app.doctor import run_checks
from controller_app.doctor_check import Status
from controller_app.doctor_source import server_check, source_checks, stream_problem
from controller_app.nats_options import parse_store_url
from controller_app.nats_store import NatsStore
from controller_app.nats_stream import stream_config
from controller_app.nats_subjects import Subjects
from ondemand.goal_state import compile_goal_state, encode_slices
from tests.support.goal_states import goal_state, port, vpc
from tests.support.nats_server import NatsServer, free_port, needs_nats_server

USERS = """authorization { users: [
    {user: "publisher", password: "p"}
    {user: "host", password: "h", permissions: {
        publish: ["$JS.API.DIRECT.GET.ondemand.>", "$JS.API.STREAM.INFO.ondemand"]
        subscribe: ["ondemand.live.>", "_INBOX.>"] }} ] }\n"""


@pytest.fixture
def checks(tmp_path):
    """Statuses and texts by the name of the check, for [source] with these lines."""

    def check(servers, *lines):
        path = tmp_path / "agent.toml"
        source = "\n".join(['kind = "nats"', f'servers = "{servers}"', *lines])
        path.write_text(
            f'[host]\nid = "h1"\ntunnel_ip = "192.0.2.1"\n[source]\n{source}\n', encoding="utf-8"
        )
        return list(source_checks(load_config(path)))

    return check


@pytest.fixture
def server(tmp_path):
    made = NatsServer(tmp_path)
    made.start()
    yield made
    made.stop()


def names(found):
    return [(one.name, one.status) for one in found]


def test_a_file_has_no_server(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(
        '[host]\nid = "h1"\ntunnel_ip = "192.0.2.1"\n[source]\nfile = "s.db"\n', encoding="utf-8"
    )
    assert list(source_checks(load_config(path))) == []


def test_a_server_that_is_not_there(checks):
    port = free_port()
    (found,) = checks(f"nats://127.0.0.1:{port}")
    assert found.status is Status.FAIL
    assert found.found == f"127.0.0.1:{port} cannot be reached: Connection refused"
    assert "start nats-server there" in found.mend


@pytest.mark.parametrize("said", [b"220 mail ESMTP\r\n", b"INFO nonsense\r\n", b""])
def test_something_else_that_listens(said):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            link, _ = listener.accept()
            with link:
                link.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        found = server_check(f"nats://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert found.status is Status.FAIL
    assert "does not greet as a NATS server" in found.found


@needs_nats_server
class TestWithAServer:
    def test_all_is_well(self, checks, server):
        with NatsStore(parse_store_url(server.url), writer=True) as store:
            store.write("sg/a", {"x": b"1"})
        found = checks(server.url)
        assert names(found) == [
            ("nats server", Status.OK),
            ("nats login", Status.OK),
            ("nats stream", Status.OK),
        ]
        assert "no login required" in found[0].found
        assert "storage file, replicas 1" in found[2].found

    def test_no_stream_yet(self, checks, server):
        *_, stream = checks(server.url)
        assert stream.status is Status.FAIL
        assert "does not exist: publish into it" in stream.found

    def test_one_of_two_servers_is_away(self, checks, server):
        with NatsStore(parse_store_url(server.url), writer=True) as store:
            store.write("sg/a", {"x": b"1"})
        found = checks(f"nats://127.0.0.1:{free_port()}, {server.url}")
        statuses = [one.status for one in found]
        assert statuses == [Status.WARN, Status.OK, Status.OK, Status.OK]

    def test_a_login_that_is_refused_and_one_that_is_not(self, checks, tmp_path):
        (tmp_path / "users").mkdir()
        made = NatsServer(tmp_path / "users", configuration=USERS)
        made.start()
        try:
            url = made.url.replace("//", "//publisher:p@")
            with NatsStore(parse_store_url(url), writer=True) as store:
                store.write("sg/a", {"x": b"1"})
            found = checks(made.url)
            assert names(found) == [("nats server", Status.OK), ("nats login", Status.FAIL)]
            assert "login required" in found[0].found
            assert "refuses the login" in found[1].found
            (tmp_path / "password").write_text("h\n", encoding="utf-8")
            found = checks(made.url, 'user = "host"', 'password_file = "password"')
            assert names(found)[1:] == [("nats login", Status.OK), ("nats stream", Status.OK)]
            assert found[1].found == "let in as host"
        finally:
            made.stop()

    def test_a_server_without_jetstream(self, tmp_path):
        made = NatsServer(tmp_path)
        configuration = tmp_path / "nats.conf"
        configuration.write_text(f'listen: "127.0.0.1:{made.port}"\n', encoding="utf-8")
        made.start()
        try:
            found = server_check(made.url)
            assert found.status is Status.FAIL
            assert "start it with -js" in found.mend
        finally:
            made.stop()


SOUND = stream_config(Subjects("ondemand"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"num_replicas": 3, "max_bytes": 10_000_000}, None),
        ({"max_age": 3_600_000_000_000}, "max_age"),
        ({"max_msgs_per_subject": 1}, "one message of a slice"),
        ({"max_bytes": 10_000_000, "discard": "old"}, "slices are lost"),
        ({"storage": "memory"}, "restarts alone"),
    ],
)
def test_what_a_stream_will_cost_one_day(changes, told):
    problem = stream_problem({**SOUND, **changes})
    if told is None:
        assert problem is None
    else:
        assert problem is not None
        assert told in problem[0]
        assert "nats stream" in problem[1]


#: What docs/nats-source.md gives a host, and no right to ask how the stream is made.
LEAST = USERS.replace(', "$JS.API.STREAM.INFO.ondemand"', "")


@needs_nats_server
class TestOfAHostWithNoMoreThanItNeeds:
    @pytest.fixture
    def url(self, tmp_path):
        made = NatsServer(tmp_path, configuration=LEAST)
        made.start()
        publisher = made.url.replace("//", "//publisher:p@")
        with NatsStore(parse_store_url(publisher), writer=True) as store:
            store.publish(
                encode_slices(compile_goal_state(goal_state(vpc(ports=[port(10)])))),
                replace_all=True,
            )
        yield made.url
        made.stop()

    def test_doctor_says_what_it_could_not_see_and_warns_of_nothing(self, url, tmp_path):
        password = tmp_path / "password"
        password.write_text("h\n", encoding="utf-8")
        password.chmod(0o600)
        path = tmp_path / "agent.toml"
        path.write_text(
            f'[host]\nid = "h1"\ntunnel_ip = "192.0.2.1"\n[source]\nkind = "nats"\n'
            f'servers = "{url}"\nuser = "host"\npassword_file = "{password}"\n',
            encoding="utf-8",
        )
        found = {one.name: one for one in run_checks(path)}
        assert found["nats stream"].status is Status.OK
        assert "may not ask how the stream is made and need not" in found["nats stream"].found
        assert found["store"].status is Status.OK
        assert "may not list its slices and need not" in found["store"].found
        assert found["store"].found.endswith("ports on host h1: 1")
        path.write_text(path.read_text().replace('"h1"', '"h9"'), encoding="utf-8")
        found = {one.name: one for one in run_checks(path)}
        assert found["store"].status is Status.WARN
        assert "none for host 'h9'" in found["store"].found

    def test_it_is_shown_a_slice_that_it_names(self, url):
        place = url.replace("//", "//host:h@")
        shown = CliRunner().invoke(slices, ["show", "--store", place, "host/h1", "--json"])
        assert shown.exit_code == 0, shown.output
        assert "vm10" in shown.output
        missing = CliRunner().invoke(slices, ["show", "--store", place, "host/h9"])
        assert missing.exit_code == 2
        assert "has no slice 'host/h9'" in missing.output
        listed = CliRunner().invoke(slices, ["show", "--store", place])
        assert listed.exit_code == 2
        assert "$JS.API.STREAM.INFO.ondemand" in listed.output

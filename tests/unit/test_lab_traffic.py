"""The traffic script over loopback, as the lab runs it in a namespace."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from mininet_topos import traffic

SCRIPT = [sys.executable, "-I", "-S", str(Path(traffic.__file__))]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def run(*words: object, code: int) -> list[dict]:
    result = subprocess.run(
        [*SCRIPT, *map(str, words)], capture_output=True, text=True, timeout=20, check=False
    )
    assert result.returncode == code, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@contextmanager
def echo_server(port: int):
    words = ["serve", "--tcp", str(port), "--udp", str(port), "--for-s", "20"]
    with subprocess.Popen([*SCRIPT, *words], stdout=subprocess.PIPE, text=True) as server:
        assert json.loads(server.stdout.readline()) == {"ready": True, "tcp": [port], "udp": [port]}
        yield server
        server.terminate()


@pytest.fixture
def port():
    number = free_port()
    with echo_server(number):
        yield number


def test_tcp_connects_and_sees_its_echo(port):
    (answer,) = run("tcp", "127.0.0.1", port, "--count", 3, "--echo", code=0)
    assert [attempt["connected"] for attempt in answer["attempts"]] == [True] * 3
    assert all(0 < attempt["ms"] < 1000 for attempt in answer["attempts"])


def test_tcp_tells_a_refusal_from_success():
    (answer,) = run("tcp", "127.0.0.1", free_port(), code=1)
    assert answer["attempts"] == [{"connected": False, "ms": None, "error": "refused"}]


def test_tcp_uses_the_source_port_asked_for(port):
    wanted = free_port()
    run("tcp", "127.0.0.1", port, "--source-port", wanted, "--echo", code=0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (answer,) = run("tcp", "127.0.0.1", port, "--source-port", taken.getsockname()[1], code=1)
    assert "use" in answer["attempts"][0]["error"]


def test_udp_counts_what_is_answered(port):
    (answer,) = run("udp", "127.0.0.1", port, "--count", 3, "--size", 1000, code=0)
    assert (answer["sent"], answer["received"], len(answer["rtts_ms"])) == (3, 3, 3)
    (answer,) = run("udp", "127.0.0.1", free_port(), "--count", 2, "--timeout-s", 0.2, code=1)
    assert (answer["sent"], answer["received"], answer["rtts_ms"]) == (2, 0, [])


def test_udp_is_answered_from_the_address_that_was_asked(port):
    # The client's socket is connected, so an answer from 127.0.0.1 would not reach it.
    (answer,) = run("udp", "127.0.0.2", port, code=0)
    assert answer["received"] == 1


def test_a_stream_counts_what_comes_back_until_its_time_is_over(port):
    steps = run("stream", "127.0.0.1", port, "--for-s", 0.5, "--size", 10, code=0)
    assert {step["state"] for step in steps[:-1]} == {"open"}
    assert steps[-1] == {
        "state": "closed",
        "sent": steps[-1]["sent"],
        "echoed": steps[-1]["sent"],
    } | {"error": ""}
    assert steps[-1]["sent"] >= 30
    assert steps[-1]["sent"] % 10 == 0


def test_a_stream_says_that_it_never_opened():
    assert run("stream", "127.0.0.1", free_port(), code=1) == [
        {"state": "failed", "sent": 0, "echoed": 0, "error": "refused"}
    ]


def test_a_stream_says_that_the_other_side_ended_it():
    number = free_port()
    with echo_server(number) as server:
        stream = subprocess.Popen(
            [*SCRIPT, "stream", "127.0.0.1", str(number), "--for-s", "10"],
            stdout=subprocess.PIPE,
            text=True,
        )
        with stream:
            assert json.loads(stream.stdout.readline())["state"] == "open"
            server.terminate()
            last = json.loads(stream.stdout.read().splitlines()[-1])
        assert last["state"] == "broken"
        assert stream.returncode == 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["tcp", "127.0.0.1", "0"],
        ["tcp", "127.0.0.1", "65536"],
        ["tcp", "127.0.0.1", "80", "--count", "1000000"],
        ["udp", "127.0.0.1", "80", "--size", "7"],
        ["stream", "127.0.0.1", "80", "--interval-s", "0"],
        ["serve", "--for-s", "100000"],
        ["tcp", "localhost", "80"],
    ],
)
def test_an_argument_out_of_range_is_a_usage_error(words):
    assert run(*words, code=2) == []


def test_it_starts_without_the_packages_that_the_lab_needs():
    code = "import sys, mininet_topos.traffic; print(sorted(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "mininet_topos.traffic" in result.stdout
    assert "'mininet'" not in result.stdout
    assert "subprocess" not in result.stdout

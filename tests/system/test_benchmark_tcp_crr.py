"""The benchmark of TCP connections runs and finds out what is wrong. Nothing here says how fast anything is."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import tcp_crr, tcp_result
from benchmarks.crr import Load, Served
from benchmarks.iperf import Throughput
from benchmarks.native_build import build
from benchmarks.suite_views_tcp import tcp_crr as view
from benchmarks.tcp_result import CrrRun, Measured
from tests.support.tools import require

SERVICE, CONNECTION = "agents, service", "agents, connection"
WHO = (SERVICE, CONNECTION, "preloaded", "NORMAL bridge")
PATHS = ("local", "remote")
QUESTION, ANSWER = b"\x0d\x5ecrr?\x00\x01", b"\x0d\x5ecrr!\x00\x01"


def message(kind: bytes, number: int, step: int) -> bytes:
    filler = bytes((number + i * step) % 256 for i in range(16, 64))
    return kind + number.to_bytes(8, "big") + filler


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    require("cc", "iperf3")


# The whole --------------------------------------------------------------------------------------------


def test_all_contenders_answer_and_agents_ask_for_what_they_match(
    lab_machine: None, tmp_path: Path
) -> None:
    result_file = tmp_path / "result.json"

    code = tcp_crr.main(
        ["--quick", "--seconds", "0.2", "--rules", "20", "--json", str(result_file)]
    )

    assert code == 0
    result = json.loads(result_file.read_text())
    assert result["benchmark"] == "tcp_crr"
    assert result["faults"] == []
    assert {"cpu", "kernel", "python", "open_vswitch", "packages"} <= result["machine"].keys()
    assert result["parameters"]["match"] == ["service", "connection"]
    seen = {(one["who"], one["path"], one["parallel"]): one for one in result["results"]}
    assert seen.keys() == {(w, p, n) for w in WHO for p in PATHS for n in (1, 32)}
    for (who, path, parallel), one in seen.items():
        assert one["transactions"] > parallel
        assert sum(count for _, count in one["histogram_us"]) == one["transactions"]
        # A connection of ten segments or so is seen by one switch, or by two.
        assert one["each"]["packets"]["median"] >= (7 if path == "local" else 14)
        # conntrack sends every packet round again; a learning bridge knows no conntrack.
        rounds = one["each"]["lookups"]["median"] / one["each"]["packets"]["median"]
        if (who, path) == ("NORMAL bridge", "local"):
            assert rounds == 1
        elif path == "local":
            assert rounds > 2
        if who == CONNECTION:
            assert one["packet_ins"] >= one["transactions"]
        elif who == SERVICE:
            # The first connection asks, and others that were begun before the answer came.
            assert 1 <= one["packet_ins"] <= 3 * parallel
        else:
            assert one["packet_ins"] == 0
    assert [one["parallel"] for one in result["loopback"]] == [1, 32]
    flows = {(one["who"], one["path"]): one["mbit_per_s"]["median"] for one in result["throughput"]}
    assert flows.keys() == {(w, p) for w in WHO for p in PATHS}
    assert min(flows.values()) > 1
    assert len(result["ratios"]) == 2 * 3 * 5
    panels = view([result])
    assert [len(panel.rows) for panel in panels] == [4] * 6
    assert all(len(row.values) == len(panel.columns) for panel in panels for row in panel.rows)


@pytest.mark.parametrize(
    "arguments",
    [["--rounds", "0"], ["--seconds", "0.01"], ["--rules", "0"], ["--match", "port"]],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        tcp_crr.main(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


# Client and server ------------------------------------------------------------------------------------


@contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    """A server on the loopback that answers whatever this says; its port."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                question = b""
                while len(question) < 64:
                    question += connection.recv(64)
                connection.sendall(answer(question))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def run_client(port: int, *, most: int = 20, timeout_ms: int = 2000) -> Load:
    result = subprocess.run(
        [
            *(str(build("crr_client")), "--to", "127.0.0.1", "--port", str(port)),
            *("--parallel", "4", "--seconds", "5", "--max", str(most)),
            *("--timeout-ms", str(timeout_ms)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return msgspec.json.decode(result.stdout, type=Load)


def right(question: bytes) -> bytes:
    number = int.from_bytes(question[8:16], "big")
    assert question == message(QUESTION, number, 3)
    return message(ANSWER, number, 5)


def test_the_client_counts_right_answers() -> None:
    with answering(right) as port:
        load = run_client(port)

    assert (load.transactions, load.refused, load.bad_answers, load.timeouts) == (20, 0, 0, 0)
    assert 0 < load.p50_us <= load.p99_us <= load.max_us
    assert sum(count for _, count in load.histogram_us) == 20
    assert [end for end, _ in load.histogram_us] == sorted(end for end, _ in load.histogram_us)
    assert load.histogram_us[-1][0] >= load.max_us - 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda question: question,
        lambda question: right(question)[:63],
        lambda question: right(question) + b"!",
        lambda question: right(question)[:-1] + b"\xff\xfe",
        lambda _: b"",
        lambda _: message(ANSWER, 1_000, 5),
    ],
    ids=["question sent back", "cut short", "too long", "other bytes", "nothing", "other question"],
)
def test_the_client_finds_out_wrong_answers(wrong: Callable[[bytes], bytes]) -> None:
    with answering(wrong) as port:
        load = run_client(port)

    assert (load.transactions, load.bad_answers) == (0, 20)


def test_the_client_finds_out_refused_connections_and_silence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slow = run_client(silent.getsockname()[1], most=4, timeout_ms=200)
        port = silent.getsockname()[1]
    refused = run_client(port)

    assert (slow.transactions, slow.timeouts) == (0, 4)
    assert (refused.transactions, refused.refused) == (0, 20)


def test_the_server_answers_right_and_counts_wrong_questions() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [str(build("crr_server")), "--address", "127.0.0.1", "--ports", f"{port},{port}"]
    with subprocess.Popen([*argv, "--for-s", "60"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            load = run_client(port)
            for question in (b"x" * 64, b"short", b""):
                with socket.create_connection(("127.0.0.1", port), timeout=5) as asker:
                    asker.sendall(question)
                    asker.shutdown(socket.SHUT_WR)
                    assert asker.recv(64) == b""
        finally:
            server.terminate()
        served = msgspec.json.decode(server.stdout.read(), type=Served)

    assert (load.transactions, load.bad_answers) == (20, 0)
    assert (served.served, served.wrong) == (20, 3)


# What is made of it -----------------------------------------------------------------------------------


def a_load(**fields: Any) -> Load:
    good = {
        "transactions": 1_000,
        "late": 1,
        "refused": 0,
        "bad_answers": 0,
        "timeouts": 0,
        "retransmissions": 0,
        "seconds": 1.0,
        "cpu_s": 0.2,
        "p50_us": 500.0,
        "p99_us": 900.0,
        "p999_us": 990.0,
        "max_us": 999.0,
        "histogram_us": [(512.0, 998), (1024.0, 2)],
    }
    return msgspec.convert(good | fields, type=Load)


def a_run(load: Load, **fields: Any) -> CrrRun:
    return CrrRun(load, Served(load.ended, 0, 0.1), {"packets": 10.0}, **fields)


def measured_with(run: CrrRun, throughput: Throughput) -> Measured:
    """All good but one contender's remote runs in the second of two rounds."""
    keys = [(who, path) for who in WHO for path in PATHS]
    good, flow = a_run(a_load()), Throughput(mbit_per_s=800.0)
    crr = {(who, path, 1): [good, good] for who, path in keys}
    iperf = {(who, path, 0): [flow, flow] for who, path in keys}
    crr[SERVICE, "remote", 1][1:] = [run]
    iperf["preloaded", "local", 0][1:] = [throughput]
    return Measured(crr, iperf, {1: [good, good]})


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (a_run(a_load(refused=2)), "2 connections were refused or reset"),
        (a_run(a_load(bad_answers=1)), "1 answers were wrong"),
        (a_run(a_load(timeouts=3)), "3 connections timed out"),
        (a_run(a_load(transactions=0, late=0)), "no connection was answered"),
        (CrrRun(a_load(), Served(1_001, 4, 0.1), {"packets": 10.0}), "4 questions were wrong"),
        (CrrRun(a_load(), Served(7, 0, 0.1), {"packets": 10.0}), "the server gave 7"),
        (a_run(a_load(), packet_ins=10, least_packet_ins=1_001), "fewer than 1,001"),
    ],
)
def test_what_went_wrong_is_told_and_has_no_figure(run: CrrRun, why: str) -> None:
    measured = measured_with(run, Throughput(error="iperf3: no route"))

    found = tcp_result.faults(measured)
    hit = set(found)

    assert hit == {(SERVICE, "remote", 1), ("preloaded", "local", 0)}
    lines = tcp_result.fault_lines(found)
    assert why in lines[0]
    assert lines[0].startswith(f"{SERVICE}, remote, 1 at once: ")
    assert lines[1] == "preloaded, local, iperf3: iperf3: no route"
    rates = {(one["who"], one["path"]) for one in tcp_result.results(measured, hit)}
    assert (SERVICE, "remote") not in rates
    assert len(rates) == 7
    assert len(tcp_result.throughputs(measured, hit)) == 7
    pairs = tcp_result.ratios(measured, hit, ("service", "connection"), (1,))
    named = {(p["path"], p["load"], name) for p in pairs for name in (p["ours"], p["theirs"])}
    assert ("remote", "1 at once", SERVICE) not in named
    assert ("local", "iperf3", "preloaded") not in named
    assert ("local", "1 at once", SERVICE) in named


def test_a_run_without_faults_is_summed_up_over_rounds() -> None:
    slower = a_run(a_load(transactions=500, seconds=1.0, retransmissions=2))
    measured = measured_with(slower, Throughput(mbit_per_s=400.0))

    assert tcp_result.faults(measured) == {}
    [one] = [
        one
        for one in tcp_result.results(measured, set())
        if (one["who"], one["path"]) == (SERVICE, "remote")
    ]
    assert one["rate_per_s"] == {"median": 750, "low": 500, "high": 1000}
    assert one["retransmissions"] == 2
    assert one["p50_us"] == {"median": 500, "low": 500, "high": 500}
    # Of 1,500 connections one or two are beyond 99.9%: too few.
    assert one["p999_us"] is None
    pair = next(
        p
        for p in tcp_result.ratios(measured, set(), ("service",), (1,))
        if (p["path"], p["load"], p["theirs"]) == ("remote", "1 at once", "preloaded")
    )
    assert pair["rate"] == {"median": 0.75, "low": 0.5, "high": 1.0}


def test_a_percentile_of_all_rounds_is_a_step_of_the_histogram() -> None:
    # Of 6,000 connections 24 took longer than 512 us, so the slowest thousandth is among them.
    histogram = [(512.0, 2_988), (1024.0, 12)]
    run = a_run(a_load(transactions=3_000, histogram_us=histogram))

    [one] = tcp_result.loopback(Measured({}, {}, {1: [run, run]}))

    assert one["histogram_us"] == [(512.0, 5_976), (1024.0, 24)]
    assert one["p999_us"] == 1024.0

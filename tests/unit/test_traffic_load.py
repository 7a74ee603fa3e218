"""The load over loopback, as VMs run it."""

import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from mininet_topos import load, traffic_load
from mininet_topos.errors import LabError
from mininet_topos.load import FlowSpec, LoadError, Loads, loads, parse_ss
from mininet_topos.node import script
from mininet_topos.processes import Background, CommandResult
from tests.unit.test_lab_traffic import echo_server, free_port


class Node:
    """Stands for a VM: runs what it is told to on this machine."""

    def __init__(self, directory: Path) -> None:
        self.label = "vm"
        self.directory = directory

    def spawn(self, name, argv):
        return Background(name, argv, log=self.directory / f"{name}.log")

    def execute(self, argv):
        """No ss(8): the retransmissions of the other end are another test."""
        return CommandResult(0, "", "")


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


@pytest.fixture
def port():
    number = free_port()
    with echo_server(number):
        yield number


def spec(protocol, port):
    return FlowSpec(protocol, "vm", "vm", protocol, "127.0.0.1", port)


def test_flows_that_nothing_happens_to(node, port):
    with loads({"vm": node}, [spec("tcp", port), spec("udp", port)], interval_s=0.01) as streams:
        start_s = time.monotonic()
        tcp, udp = streams.wait(lambda flows: min(f.echoed for f in flows) >= 20, timeout_s=10)
        end_s = time.monotonic()
    for flow in (tcp, udp):
        assert flow.echoed >= 20
        # One may have been under way at the mark, and one is now.
        assert abs(flow.sent - flow.echoed) <= 1
        assert (flow.lost, flow.error, flow.is_alive) == (0, "", True)
        assert start_s - 1 < flow.first_s < flow.last_s <= end_s
        assert 0 < flow.longest_gap_s < end_s - start_s
    assert (tcp.retransmissions, tcp.timeouts, tcp.to_first) == (0, 0, 0)


def test_a_mark_begins_anew(node, port):
    with loads({"vm": node}, [spec("tcp", port)], interval_s=0.01) as streams:
        (before,) = streams.watch(0.3)
        mark_s = time.monotonic()
        streams.mark()
        (after,) = streams.wait(lambda flows: flows[0].echoed > 0, timeout_s=5)
    assert before.echoed > 5
    assert after.first_s >= mark_s


def test_a_connection_that_ends_is_broken(node):
    number = free_port()
    with echo_server(number) as server:
        with loads({"vm": node}, [spec("tcp", number)]) as streams:
            server.terminate()
            server.wait(5)
            (seen,) = streams.wait(lambda flows: not flows[0].is_alive, timeout_s=5)
    assert not seen.is_alive
    assert "closed" in seen.error or "reset" in seen.error


@contextmanager
def forgetful_server(every):
    """Echoes datagrams, but not each ``every``-th one; tells how many it kept."""
    kept = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.2)
        done = threading.Event()

        def run():
            number = 0
            while not done.is_set():
                try:
                    data, peer = sock.recvfrom(2048)
                except TimeoutError:
                    continue
                number += 1
                if number % every:
                    sock.sendto(data, peer)
                else:
                    kept.append(data)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield sock.getsockname()[1], kept
        finally:
            done.set()
            thread.join()


def test_lost_datagrams_are_counted(node):
    with forgetful_server(5) as (number, kept), loads({"vm": node}, [spec("udp", number)]) as flows:
        (seen,) = flows.wait(lambda found: found[0].lost >= 3, timeout_s=10)
        assert 3 <= seen.lost <= len(kept)
        assert seen.echoed > seen.lost


def test_a_flow_without_an_echo_is_an_error_that_names_it(node, monkeypatch):
    monkeypatch.setattr(load, "_READY_TIMEOUT_S", 1.0)
    with pytest.raises(LoadError, match=r"1 flows that must live: tcp .*refused"):
        with loads({"vm": node}, [spec("tcp", free_port())]):
            pass


def test_a_load_that_does_not_run_says_why(node):
    streams = Loads({"vm": node}, [spec("tcp", 80)])
    streams._processes["vm"] = node.spawn("load", [*script(traffic_load), "--what"])
    streams._processes["vm"].wait(5)
    with pytest.raises(LabError, match=r"(?s)does not answer .*required"):
        streams._ask("seen")


@pytest.mark.parametrize("text", ["tcp,10.0.0.2", "sctp,10.0.0.2,80", "tcp,10.0.0.2,http"])
def test_a_flow_that_is_none_is_refused(text, capsys):
    with pytest.raises(SystemExit) as ended:
        traffic_load.main(["--control", "/tmp/x", "--flow", text])
    assert ended.value.code == 2
    assert "not of the form" in capsys.readouterr().err


def test_retransmissions_are_read_from_ss():
    text = (
        "0 0 10.0.1.11:80 10.0.1.21:43726 cubic wscale:7,7 rto:204 retrans:0/3 rcv_space:14480\n"
        "0 64 [::ffff:10.0.1.11]:81   [fd00:1::22]:5000  cubic rto:201 rtt:0.5/0.2 cwnd:10\n"
        "garbage\n"
    )
    assert parse_ss(text) == {(80, 43726): 3, (81, 5000): 0}

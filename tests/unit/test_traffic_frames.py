"""Frames of announcements and scans, and probes over loopback."""

import ipaddress
import itertools
import json
import subprocess
from contextlib import contextmanager

import pytest

from mininet_topos import traffic_frames, traffic_probe
from mininet_topos.node import script
from mininet_topos.traffic_frames import announcement, checksum, scan_frames
from mininet_topos.traffic_probe import give_up, summary

MAC, GATEWAY = bytes.fromhex("020000000131"), bytes.fromhex("020000000001")
IP = bytes([10, 0, 1, 31])


def test_an_announcement_names_the_sender_to_everybody():
    gratuitous, reverse = announcement(MAC, IP)
    for frame in (gratuitous, reverse):
        assert (frame[:6], frame[6:12], len(frame)) == (b"\xff" * 6, MAC, 60)
    assert (gratuitous[12:14].hex(), gratuitous[20:22].hex()) == ("0806", "0001")
    assert (gratuitous[22:28], gratuitous[28:32], gratuitous[38:42]) == (MAC, IP, IP)
    assert (reverse[12:14].hex(), reverse[20:22].hex()) == ("8035", "0003")
    assert (reverse[22:28], reverse[32:38]) == (MAC, MAC)


def take(kind, prefix, count):
    frames = scan_frames(kind, (MAC, IP), ipaddress.IPv4Network(prefix), GATEWAY)
    return list(itertools.islice(frames, count))


def test_a_scan_asks_for_each_address_in_turn():
    asked = [frame[38:42] for frame in take("arp", "10.0.0.0/30", 5)]
    assert asked == [bytes([10, 0, 0, n]) for n in (0, 1, 2, 3, 0)]
    frames = take("ip", "10.0.0.0/30", 5)
    assert [frame[30:34] for frame in frames] == asked
    assert {frame[:12] for frame in frames} == {GATEWAY + MAC}


def test_a_port_scan_stays_with_one_address():
    frames = take("ports", "10.0.1.11/32", 3)
    assert [int.from_bytes(frame[36:38], "big") for frame in frames] == [1, 2, 3]
    assert {frame[30:34] for frame in frames} == {bytes([10, 0, 1, 11])}


def test_the_header_checksum_is_right():
    """A header with its right checksum sums up to zero (RFC 1071)."""
    (frame,) = take("ip", "10.0.0.0/8", 1)
    assert checksum(frame[14:34]) == 0
    assert checksum(frame[14:33] + b"\x99") != 0


@pytest.mark.parametrize("words", [["--for-s", "61"], ["--for-s", "0"], ["--rate", "200001"]])
def test_a_scan_is_bounded(words, capsys):
    with pytest.raises(SystemExit) as ended:
        traffic_frames.main(["scan", "arp", "lo", "10.0.0.1", "--to", "10.0.0.0/8", *words])
    assert ended.value.code == 2
    assert capsys.readouterr().err


# Probes ---------------------------------------------------------------------------------------------

FIRST, COUNT = 42_000, 30


@contextmanager
def reflector():
    argv = [*script(traffic_probe), "reflect", str(FIRST), str(COUNT)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline()) == {"ready": True}
        yield
        process.terminate()


def probe(count, *words):
    argv = [*script(traffic_probe), "probe", "127.0.0.1", str(FIRST), str(count), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("window", ["1", "16"])
def test_a_probe_gets_an_echo_from_each_port(window):
    with reflector():
        code, found = probe(COUNT, "--window", window)
        assert (code, found["sent"], found["received"]) == (0, COUNT, COUNT)
        rtts = found["rtts_ms"]
        assert 0 < rtts["p50"] <= rtts["p99"] <= rtts["max"] < 1000
        code, found = probe(COUNT + 5, "--window", window, "--timeout-s", "0.2")
        assert (code, found["received"]) == (1, COUNT)


def test_percentiles_are_of_values_that_were_measured():
    assert summary([]) == {}
    assert summary([3.0]) == {"p50": 3.0, "p90": 3.0, "p99": 3.0, "max": 3.0}
    values = [float(n) for n in range(100)]
    assert summary(values) == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 99.0}


def test_what_is_under_way_too_long_is_lost():
    sent_s = {1: 10.0, 2: 11.0, 3: 12.0}
    assert give_up(sent_s, 11.0) == 2
    assert sent_s == {3: 12.0}

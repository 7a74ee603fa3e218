"""Where the switch finds the agent: spellings, and who listens."""

from __future__ import annotations

import socket
import threading

import pytest

from controller_app.openflow_address import (
    answers,
    is_listening,
    plain,
    respelled,
    wait_until_listening,
)
from controller_app.openflow_listener import ListenError, listen_at


@pytest.mark.parametrize(
    ("target", "simple"),
    [
        ("tcp:127.0.0.1:6653", "tcp:127.0.0.1:6653"),
        ("tcp:127.0.0.1:06653", "tcp:127.0.0.1:6653"),
        ("tcp:[127.0.0.1]:6653", "tcp:127.0.0.1:6653"),
        ("tcp:127.0.0.1", "tcp:127.0.0.1:6653"),
        ("tcp:[::1]:16653", "tcp:[::1]:16653"),
        ("tcp:[0:0::1]:016653", "tcp:[::1]:16653"),
        ("unix:/run/ovs/a.sock", "unix:/run/ovs/a.sock"),
        ("unix:/run/ovs//a.sock", "unix:/run/ovs/a.sock"),
        ("unix://run/ovs/./a.sock", "unix:/run/ovs/a.sock"),
        ("unix:/a.sock", "unix:/a.sock"),
        ("ssl:127.0.0.1:6653", "ssl:127.0.0.1:6653"),
        ("tcp:some.host:6653", "tcp:some.host:6653"),
    ],
)
def test_the_plain_spelling(target, simple):
    assert plain(target) == simple
    assert plain(simple) == simple


@pytest.mark.parametrize(
    "target", ["tcp:127.0.0.1:6653", "tcp:[::1]:65535", "unix:/run/ovs/a.sock", "unix:/a.sock"]
)
def test_another_spelling_is_the_same_address_and_no_third_one(target):
    other = respelled(target)
    assert other != target
    assert plain(other) == target
    assert respelled(other) == target


@pytest.mark.parametrize("other", ["tcp:127.0.0.1:6654", "tcp:127.0.0.2:6653", "tcp:[::1]:6653"])
def test_other_addresses_are_others(other):
    assert plain(other) != plain("tcp:127.0.0.1:6653")


@pytest.fixture(params=["v4", "v4 any", "v6", "unix"])
def place(request, tmp_path):
    """(a bound socket that does not listen yet, its address as a target)"""
    if request.param == "unix":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / "a.sock"))
            yield sock, f"unix:{tmp_path}/a.sock"
    elif request.param == "v6":
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
            yield sock, f"tcp:[::1]:{sock.getsockname()[1]}"
    else:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1" if request.param == "v4" else "", 0))
            yield sock, f"tcp:127.0.0.1:{sock.getsockname()[1]}"


def test_only_who_listens_is_seen(place):
    sock, target = place
    assert not is_listening(target)
    sock.listen()
    assert is_listening(target)
    assert is_listening(respelled(target))
    sock.close()
    assert not is_listening(target)


def test_waiting_for_a_listener_to_come_and_to_go(place):
    sock, target = place
    stop = threading.Event()
    assert not wait_until_listening(target, wanted=True, timeout_s=0.05, stop=stop)
    threading.Timer(0.1, sock.listen).start()
    assert wait_until_listening(target, wanted=True, timeout_s=10, stop=stop)
    assert not wait_until_listening(target, wanted=False, timeout_s=0.05, stop=stop)
    threading.Timer(0.1, sock.close).start()
    assert wait_until_listening(target, wanted=False, timeout_s=10, stop=stop)
    stop.set()
    assert not wait_until_listening(target, wanted=True, timeout_s=10, stop=stop)


class Conf:
    """os-ken's configuration."""

    def __init__(self):
        self.given = {}

    def set_override(self, name, value):
        self.given[name] = value


@pytest.mark.parametrize("target", ["tcp:[::1]:16653", "tcp:127.0.0.1:016653"])
def test_os_ken_is_told_where_to_listen(target):
    conf = Conf()
    listen_at(conf, target)
    address = "::1" if "[" in target else "127.0.0.1"
    assert conf.given == {"ofp_listen_host": address, "ofp_tcp_listen_port": 16653}


def test_a_socket_file_that_was_left_behind_is_removed_and_one_in_use_is_not(tmp_path):
    path = tmp_path / "a.sock"
    conf = Conf()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        assert not answers(str(path))
        sock.listen()
        with pytest.raises(ListenError, match=r"a\.sock.*--replace-agent"):
            listen_at(conf, f"unix:{path}")
        assert path.exists()
        assert conf.given == {}
    listen_at(conf, f"unix:{path}")
    assert not path.exists()
    assert conf.given["ofp_listen_host"] == str(path)


def test_an_address_that_is_taken_or_not_of_this_host_is_an_error():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        target = f"tcp:127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(ListenError, match=f"{target}: somebody listens there already"):
            listen_at(Conf(), target)
    with pytest.raises(ListenError, match=r"tcp:192\.0\.2\.1:6653: Cannot assign"):
        listen_at(Conf(), "tcp:192.0.2.1:6653")

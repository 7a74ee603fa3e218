"""A tunnel address that is not the one at which others look for the host: doctor, agent and explain say so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller_app.config import load_config
from controller_app.doctor_check import Check, Machine, Output, Status
from controller_app.doctor_tunnel import tunnel_address
from controller_app.explain_hosts import Bindings
from controller_app.explain_store import HostView
from controller_app.sqlite_store import SqliteStore
from controller_app.tunnel_address import TunnelAddressWatch, other_address
from ondemand.addresses import parse_ip
from ondemand.goal_state import compile_goal_state, encode_slices
from ondemand.slices import host_slice
from tests.support.goal_states import goal_state, port, vpc

HERE, THERE, WRONG = parse_ip("192.0.2.1"), parse_ip("192.0.2.2"), parse_ip("198.51.100.9")
INTERFACES = """\
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
1: lo    inet6 ::1/128 scope host \\       valid_lft forever preferred_lft forever
2: eth0    inet {address}/24 brd 192.0.2.255 scope global eth0\\       valid_lft forever
2: eth0    inet6 fe80::1/64 scope link \\       valid_lft forever"""


class InterfacesOf(Machine):
    """A machine whose interfaces are what ``ip`` says, or that has no ``ip``."""

    def __init__(self, said: str | None) -> None:
        self._said = said

    def run(self, *command: str) -> Output | None:
        assert command[0] == "ip"
        return None if self._said is None else Output(0, self._said)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """Hosts h1 (with ports vm11, vm13) and h2 (with vm12), as ``goal_states`` has them."""
    store = SqliteStore(tmp_path / "slices.db", writer=True)
    publish(store, ["192.0.2.1", "192.0.2.2"])
    yield store
    store.close()


def publish(store: SqliteStore, tunnels: list[str], *, group: str | None = None) -> None:
    hosts = [{"id": f"h{n}", "tunnel_ip": ip} for n, ip in enumerate(tunnels, start=1)]
    for host in hosts if group else []:
        host["group"] = group
    ports = [port(11), port(12, host="h2"), port(13)]
    document = goal_state(vpc(ports=ports)) | {"hosts": hosts}
    store.publish(encode_slices(compile_goal_state(document)), replace_all=True)


def check(tmp_path: Path, told: frozenset[bytes], said: str | None) -> Check:
    path = tmp_path / "agent.toml"
    path.write_text('[host]\nid = "h1"\ntunnel_ip = "192.0.2.1"\n[source]\nfile = "slices.db"\n')
    return tunnel_address(InterfacesOf(said), load_config(path), told)


# -- what the store says -----------------------------------------------------------------------------


def test_the_records_of_its_ports_tell_a_hosts_address(store: SqliteStore) -> None:
    bindings = Bindings(store)
    assert bindings.tunnels_of("h1") == {HERE}
    assert bindings.tunnels_of("h2") == {THERE}
    assert bindings.tunnels_of("no-such-host") == frozenset()


def test_a_membership_tells_it_without_any_port(store: SqliteStore) -> None:
    publish(store, ["192.0.2.1", "192.0.2.2", "192.0.2.3"], group="rack")
    assert Bindings(store).tunnels_of("h3") == {parse_ip("192.0.2.3")}


def test_only_a_contradiction_is_one() -> None:
    assert other_address("h1", WRONG, ()) is None
    assert other_address("h1", HERE, {HERE, THERE}) is None
    sentence = other_address("h1", WRONG, {HERE})
    assert sentence is not None
    assert "198.51.100.9" in sentence
    assert "host 'h1' at 192.0.2.1" in sentence


# -- doctor ------------------------------------------------------------------------------------------


def test_doctor_agrees_with_goal_state_and_interfaces(tmp_path: Path) -> None:
    found = check(tmp_path, frozenset({HERE}), INTERFACES.format(address="192.0.2.1"))
    assert (found.status, found.mend) == (Status.OK, "")
    assert found.found == "192.0.2.1, on an interface here, as in the goal state"


def test_doctor_fails_when_the_goal_state_says_another(tmp_path: Path) -> None:
    found = check(tmp_path, frozenset({THERE}), INTERFACES.format(address="192.0.2.1"))
    assert found.status is Status.FAIL
    assert "192.0.2.1" in found.found
    assert "192.0.2.2" in found.found
    assert "set [host] tunnel_ip" in found.mend


def test_doctor_warns_of_an_address_that_is_not_here(tmp_path: Path) -> None:
    found = check(tmp_path, frozenset({HERE}), INTERFACES.format(address="192.0.2.7"))
    assert found.status is Status.WARN
    assert found.found.startswith("192.0.2.1 is on no interface here")
    assert found.found.endswith("here are 192.0.2.7")
    assert "ip address add 192.0.2.1/" in found.mend


@pytest.mark.parametrize("said", [None, ""])
def test_doctor_does_not_guess_about_interfaces_that_it_cannot_read(
    tmp_path: Path, said: str | None
) -> None:
    found = check(tmp_path, frozenset(), said)
    assert found.status is Status.OK
    assert "could not be read" in found.found
    assert "does not say" in found.found


def test_the_addresses_of_this_machine() -> None:
    found = Machine().addresses()
    assert not found or "127.0.0.1" in found or "::1" in found
    assert all(parse_ip(text) for text in found)


# -- the agent ---------------------------------------------------------------------------------------


def eventually(done: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + 10.0
    while not done():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.005)
    return True


class Watched:
    """A watch of host h1, of which the agent holds the slice at ``version``."""

    def __init__(self, store: SqliteStore, tunnel_ip: bytes) -> None:
        self.version: int | None = None
        self.warned: list[str] = []
        self.asked: list[str] = []
        self.watch = TunnelAddressWatch(
            store, "h1", tunnel_ip, version=self._version, warn=self.warned.append, look_s=0.005
        )

    def _version(self, name: str) -> int | None:
        self.asked.append(name)
        return self.version


def test_the_agent_warns_when_its_slice_comes_and_once_for_each_version(store: SqliteStore) -> None:
    watched = Watched(store, WRONG)
    watched.watch.start()
    assert eventually(lambda: len(watched.asked) > 3)
    assert watched.warned == []
    watched.version = 1
    assert eventually(lambda: bool(watched.warned))
    looks = len(watched.asked)
    assert eventually(lambda: len(watched.asked) > looks + 3)
    assert len(watched.warned) == 1
    assert "198.51.100.9" in watched.warned[0]
    assert "192.0.2.1" in watched.warned[0]
    publish(store, ["198.51.100.9", "192.0.2.2"])
    watched.version = 2
    # The goal state was corrected: there is nothing more to look for.
    assert eventually(lambda: not watched.watch._thread.is_alive())
    assert len(watched.warned) == 1
    assert set(watched.asked) == {host_slice("h1")}


def test_the_agent_says_nothing_of_a_right_address(store: SqliteStore) -> None:
    watched = Watched(store, HERE)
    watched.version = 1
    watched.watch.start()
    assert eventually(lambda: not watched.watch._thread.is_alive())
    assert watched.warned == []


def test_a_store_that_does_not_answer_is_asked_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "later.db")
    watched = Watched(store, WRONG)
    watched.version = 1
    watched.watch.start()
    assert eventually(lambda: len(watched.asked) > 3)
    assert watched.warned == []
    with SqliteStore(tmp_path / "later.db", writer=True) as writer:
        publish(writer, ["192.0.2.1", "192.0.2.2"])
    assert eventually(lambda: bool(watched.warned))
    watched.watch.close()
    assert eventually(lambda: not watched.watch._thread.is_alive())
    store.close()


# -- explain -----------------------------------------------------------------------------------------


def test_explain_takes_the_configured_address(store: SqliteStore) -> None:
    assert HostView(store, "h1", "vm11").world.tunnel_ip == HERE
    view = HostView(store, "h1", "vm11", tunnel_ip=WRONG)
    assert view.world.tunnel_ip == WRONG
    # Which ports are here is another question.
    assert set(view.world.ports) == {"vm11", "vm13"}


def test_a_group_has_the_same_ports_here_whatever_is_configured(store: SqliteStore) -> None:
    publish(store, ["192.0.2.1", "192.0.2.2"], group="rack")
    for tunnel_ip in (None, WRONG):
        view = HostView(store, "h1", "vm11", tunnel_ip=tunnel_ip)
        assert set(view.world.ports) == {"vm11", "vm13"}

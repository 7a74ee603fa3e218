"""The NATS server of labs and tests: it starts, says why it cannot, keeps what it stored, and ends."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from controller_app.nats_options import parse_store_url
from controller_app.nats_store import NatsStore
from mininet_topos import nats_server
from mininet_topos.errors import CommandError, LabError, LabUnavailableError
from mininet_topos.lab_source import require_source
from mininet_topos.nats_server import NatsServer
from tests.support.nats_server import needs_nats_server


def test_without_the_program_the_mend_is_told(monkeypatch):
    monkeypatch.setattr(nats_server, "find_nats_server", lambda: None)
    with pytest.raises(LabUnavailableError, match="make setup"):
        require_source("nats")
    require_source("sqlite")


def test_a_server_on_all_addresses_is_called_by_loopback(tmp_path):
    made = NatsServer(tmp_path, address="0.0.0.0", port=4222)
    assert made.url == "nats://127.0.0.1:4222"
    assert 'listen: "0.0.0.0:4222"' in (tmp_path / "nats.conf").read_text()


def test_one_that_was_not_started_has_no_process(tmp_path):
    made = NatsServer(tmp_path)
    made.stop()
    made.kill()
    assert not made.is_running
    with pytest.raises(LabError, match="was not started"):
        _ = made.process


@needs_nats_server
@pytest.mark.parametrize("end", [NatsServer.stop, NatsServer.kill])
def test_what_is_stored_outlives_the_process(tmp_path, end):
    made = NatsServer(tmp_path)
    made.start()
    try:
        first = made.process.pid
        with NatsStore(parse_store_url(made.url), writer=True) as store:
            store.write("sg/a", {"x": b"1"})
        end(made)
        assert not made.is_running
        assert not Path(f"/proc/{first}").exists()
        made.start()
        made.start()  # it runs already
        assert made.process.pid != first
        with NatsStore(parse_store_url(made.url)) as store:
            assert store.get("sg/a", "x").payload == b"1"
    finally:
        made.kill()


@needs_nats_server
def test_a_server_that_cannot_start_says_why(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        made = NatsServer(tmp_path, port=taken.getsockname()[1])
        with pytest.raises(CommandError, match="address already in use"):
            made.start()
    assert not made.is_running

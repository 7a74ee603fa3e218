"""The NATS store keeps the contract of a source of slices."""

from __future__ import annotations

import itertools

import pytest

from controller_app.nats_options import NatsAddress, NatsOptions
from controller_app.nats_store import NatsStore
from tests.contract.backend import Backend
from tests.contract.source_contract import SourceContract
from tests.support.nats_server import NatsServer, needs_nats_server

pytestmark = needs_nats_server

#: So that each test has a stream of its own.
NUMBERS = itertools.count()

#: Without an exception for small slices the tests go through steps and bases, and through parts.
OPTIONS = {
    "as-it-is": NatsOptions(tombstones_per_slice=20, timeout_s=1.0),
    "small-pieces": NatsOptions(
        tombstones_per_slice=20, timeout_s=1.0, whole_below=0, part_bytes=256
    ),
}


class NatsBackend(Backend):
    """A stream of its own on one server; every reader and writer has a connection of its own."""

    def __init__(self, server: NatsServer, stream: str, options: NatsOptions) -> None:
        self._server = server
        self._server.start()
        self._address = NatsAddress((server.url,), stream)
        self._options = options
        self._stores: list[NatsStore] = []
        self.publisher().publish({}, replace_all=False)

    def source(self) -> NatsStore:
        return self._open(writer=False)

    def publisher(self) -> NatsStore:
        return self._open(writer=True)

    def _open(self, *, writer: bool) -> NatsStore:
        store = NatsStore(self._address, writer=writer, options=self._options)
        self._stores.append(store)
        return store

    def forget_history(self, name: str) -> None:
        keys = [f"forgotten/{number}" for number in range(25)]
        publisher = self.publisher()
        publisher.write(name, dict.fromkeys(keys, b"x"))
        publisher.write(name, dict.fromkeys(keys))

    def lose(self) -> None:
        self._server.stop()

    def restore(self) -> None:
        self._server.start()

    def make_anew(self) -> None:
        self._server.stop()
        self._server.wipe()
        self._server.start()
        self.publisher().publish({}, replace_all=False)

    def close(self) -> None:
        for store in self._stores:
            store.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = NatsServer(tmp_path_factory.mktemp("nats"))
    yield made
    made.stop()


@pytest.fixture(params=OPTIONS)
def backend(server, request):
    made = NatsBackend(server, f"s{next(NUMBERS)}", OPTIONS[request.param])
    yield made
    made.close()


class TestNats(SourceContract):
    pass

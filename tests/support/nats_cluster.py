"""Three NATS servers with JetStream that form one cluster, on loopback, each ended by its pid."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller_app.nats_options import NatsAddress
from controller_app.nats_store import NatsStore
from controller_app.nats_stream import stream_config
from controller_app.nats_subjects import Subjects
from mininet_topos.nats_server import Spawn
from tests.support.nats_server import NatsServer, free_port

#: An election takes up to 9 s with the server's own settings.
PATIENCE_S = 30.0


class NatsCluster:
    """Servers by name; the stream of slices has a replica on each of them."""

    def __init__(self, folder: Path, size: int = 3, *, spawn: Spawn | None = None) -> None:
        """``spawn``: as for ``NatsServer``."""
        names = [f"n{number}" for number in range(1, size + 1)]
        routes = {name: free_port() for name in names}
        self.servers: dict[str, NatsServer] = {}
        for name in names:
            others = ", ".join(f'"nats://127.0.0.1:{routes[other]}"' for other in names)
            home = folder / name
            home.mkdir()
            self.servers[name] = NatsServer(
                home,
                spawn=spawn,
                configuration=f"server_name: {name}\n"
                f'cluster {{ name: slices, listen: "127.0.0.1:{routes[name]}", routes: [{others}] }}\n',
            )

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(server.url for server in self.servers.values())

    def address(self, *first: str) -> NatsAddress:
        """Of all servers."""
        return NatsAddress(
            (*(self.servers[name].url for name in first), *self.urls)[: len(self.urls)]
        )

    def start(self) -> None:
        """Return when the stream of slices is there, with as many replicas as there are servers."""
        self.start_servers()
        self.make_stream()

    def start_servers(self) -> None:
        for server in self.servers.values():
            server.start()

    def make_stream(self) -> None:
        make_stream(self.address(), len(self.servers))

    def stop(self) -> None:
        for server in self.servers.values():
            server.stop()

    def leader(self) -> str:
        """The server that leads the stream; "" when there is none."""
        return leader_of(self.address())

    def wait_current(self) -> None:
        """Return when every replica has all that the leader has."""
        wait_current(self.address(), len(self.servers))

    def name_of(self, port: int | None) -> str:
        """The server that listens there."""
        (name,) = [name for name, server in self.servers.items() if server.port == port]
        return name


def make_stream(address: NatsAddress, replicas: int) -> None:
    config = {**stream_config(Subjects(address.stream)), "num_replicas": replicas}
    with NatsStore(address) as store:
        wait_for(lambda: "config" in ask(store, f"STREAM.CREATE.{address.stream}", config))
    wait_current(address, replicas)


def leader_of(address: NatsAddress) -> str:
    with NatsStore(address) as store:
        return str(_cluster(store).get("leader", ""))


def wait_current(address: NatsAddress, replicas: int) -> None:
    def is_current() -> bool:
        cluster = _cluster(store)
        states = [
            one.get("current") and not one.get("offline") for one in cluster.get("replicas") or []
        ]
        return bool(cluster.get("leader")) and states == [True] * (replicas - 1)

    with NatsStore(address) as store:
        wait_for(is_current)


def _cluster(store: NatsStore) -> dict[str, Any]:
    return ask(store, f"STREAM.INFO.{store._link.address.stream}").get("cluster") or {}


def ask(store: NatsStore, call: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    """A call of the JetStream API; {} when nobody answers."""
    link = store._link

    async def run() -> dict[str, Any]:
        client = await link.ready()
        try:
            answer = await client.request(
                f"$JS.API.{call}", json.dumps(arguments or {}).encode(), timeout=1.0
            )
        except Exception as error:  # noqa: BLE001
            return {"missing": str(error)}
        found: dict[str, Any] = json.loads(answer.data)
        return found

    try:
        return link.call(run)
    except asyncio.CancelledError:
        return {}


def wait_for(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "the cluster did not come to rest"
        time.sleep(0.1)


if __name__ == "__main__":
    # In the network namespace of the servers: "make" the stream, or say who is its "leader".
    command, *servers = sys.argv[1:]
    place = NatsAddress(tuple(servers))
    if command == "make":
        make_stream(place, len(servers))
    elif command == "current":
        wait_current(place, len(servers))
    else:
        sys.stdout.write(leader_of(place))

"""Where the time goes until a NATS server has told an agent one record.

What the agent does is taken apart: the question by a bare socket, which is what no client can be faster
than; the client library's request; the way from one thread to another; the decoding. All take turns, with
a pause before each, as before the first packet of a flow. No root, no switch.

    python -m benchmarks.slice_get [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from benchmarks.machine import describe_machine, machine_line
from benchmarks.slice_source import neighbors, timed
from benchmarks.summary import table
from controller_app.nats_commit import decode_commit
from controller_app.nats_link import NatsLink
from controller_app.nats_options import NatsAddress, NatsOptions
from controller_app.nats_reader import NatsReader
from controller_app.nats_store import NatsStore
from controller_app.source_link import Answer, SourceLink
from mininet_topos.nats_server import NatsServer
from ondemand.messages import Fetch
from ondemand.publishing import Payloads
from ondemand.slices import Lookup

NEIGHBORS: Final = 50_000
#: As many shards get a change, so that their commits are on a base.
BASED: Final = 20
PAUSE_S: Final = 0.001
#: Times in each round.
TURNS: Final = 10
_REPLY: Final = b"_INBOX.bench.1"


class BareSocket:
    """A client that knows no more of the protocol than it must to ask one question after the other."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb", buffering=1 << 18)
        self._socket.sendall(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
        self._socket.sendall(b"SUB " + _REPLY + b" 1\r\n")
        self.ping()

    def ping(self) -> None:
        self._socket.sendall(b"PING\r\n")
        self._read_until(b"PONG")

    def ask(self, subject: str) -> int:
        """How many bytes the answer has, with its headers."""
        self._socket.sendall(b"PUB %s %s 0\r\n\r\n" % (subject.encode(), _REPLY))
        size = int(self._read_until(b"HMSG").rpartition(b" ")[2])
        self._file.read(size + 2)
        return size

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def _read_until(self, word: bytes) -> bytes:
        """The line that begins so; the server asks by itself whether we are there, which can wait."""
        while not (line := self._file.readline()).startswith(word):
            if not line:
                raise ConnectionError("the server ended the connection")
        return line


class AskedByLink:
    """Records by way of the agent's link to its source, and back into the thread that asked."""

    def __init__(self, source: NatsStore) -> None:
        self._arrived = threading.Semaphore(0)
        self._link = SourceLink(source, self._take)

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, Lookup):
            self._arrived.release()

    def fetch(self, places: list[tuple[str, str]]) -> None:
        for name, key in places:
            self._link.ask(Fetch(name, key))
        for _ in places:
            self._arrived.acquire()

    def close(self) -> None:
        self._link.close()


def questions(
    server: NatsServer, payloads: Mapping[str, Payloads], stack: ExitStack
) -> dict[str, Callable[[], object]]:
    """What is asked, by what it is called."""
    names = sorted(payloads)
    keys = {name: next(iter(payloads[name])) for name in names}
    based, whole = cycle(names[:BASED]), cycle(names[BASED:])
    address = NatsAddress((server.url,))
    source = NatsStore(address)
    stack.callback(source.close)
    link = NatsLink(address, NatsOptions())
    stack.callback(link.close)
    reader = NatsReader(link)
    messages = reader.messages
    bare = BareSocket(server.port)
    stack.callback(bare.close)
    by_link = AskedByLink(source)
    stack.callback(by_link.close)
    source.get(names[0], keys[names[0]])
    shard = link.call(partial(messages.last, messages.subjects.log(names[-1])))
    data = b"" if shard is None else shard.data

    def log() -> str:
        return messages.question(messages.subjects.log(next(whole)))

    def places(count: int) -> list[tuple[str, str]]:
        return [(name, keys[name]) for name in islice(whole, count)]

    def there_and_back() -> None:
        done = threading.Event()
        link.post(done.set)
        done.wait()

    def get(shards: cycle[str]) -> None:
        name = next(shards)
        source.get(name, keys[name])

    def get_by_tasks() -> None:
        name = next(whole)
        link.call(partial(reader.get_many, [(name, keys[name])]))

    size = f"{len(data) / 1000:.0f} KB"
    return {
        "bare socket: PING": bare.ping,
        "bare socket: version of a slice": lambda: bare.ask(
            messages.question(messages.subjects.version(next(whole)))
        ),
        f"bare socket: shard of {size}": lambda: bare.ask(log()),
        "to the thread of the connection and back": there_and_back,
        "library's request for the shard": lambda: link.call(partial(_by_library, link, log())),
        "decoding of the shard": lambda: decode_commit(names[-1], data),
        "get by tasks on the loop": get_by_tasks,
        "get": lambda: get(whole),
        "get, from a shard that changed": lambda: get(based),
        "get_many, 8 shards": lambda: source.get_many(places(8)),
        "get_many, 32 shards": lambda: source.get_many(places(32)),
        "through the agent's link, 1 record": lambda: by_link.fetch(places(1)),
        "through the agent's link, 32 at once": lambda: by_link.fetch(places(32)),
    }


async def _by_library(link: NatsLink, subject: str) -> float:
    """Seconds on the loop, without the way to it."""
    client = await link.ready()
    start_s = asyncio.get_running_loop().time()
    await client.request(subject, b"", timeout=2)
    return asyncio.get_running_loop().time() - start_s


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of each try, by what was asked."""
    payloads = neighbors(NEIGHBORS)
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="ondemand-bench-") as folder, ExitStack() as stack:
        server = NatsServer(Path(folder))
        server.start()
        stack.callback(server.stop)
        publisher = NatsStore(NatsAddress((server.url,)), writer=True)
        stack.callback(publisher.close)
        publisher.publish(payloads, replace_all=False)
        for name in sorted(payloads)[:BASED]:
            key = list(payloads[name])[-1]
            publisher.write(name, {key: payloads[name][key] + b"."})
        asked = questions(server, payloads, stack)
        # The first round finds nothing where it will be.
        for number in range(rounds + 1):
            for what, ask in asked.items():
                found = [_once(ask) for _ in range(TURNS)]
                if number:
                    taken.setdefault(what, []).extend(found)
    return taken


def _once(ask: Callable[[], object]) -> float:
    time.sleep(PAUSE_S)
    told: list[object] = []
    seconds = timed(lambda: told.append(ask()))
    # What says itself how long it took, as it leaves something out.
    return told[0] if isinstance(told[0], float) else seconds


def percentiles(values: list[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    return statistics.median(values), statistics.quantiles(values, n=100, method="inclusive")[98]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slice_get", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=30, help=f"of {TURNS} times each")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds is 1 or more")
    machine = describe_machine()
    print(machine_line(machine))
    taken = measure(options.rounds)
    rows = [
        [what, *(f"{value * 1e3:.3f}" for value in percentiles(values))]
        for what, values in taken.items()
    ]
    print(table(["ms", "p50", "p99"], rows))
    if options.json is not None:
        content = {
            "benchmark": "slice_get",
            "machine": machine,
            "parameters": {"neighbors": NEIGHBORS, "rounds": options.rounds},
            "seconds": {
                what: dict(zip(("p50", "p99"), percentiles(values), strict=True))
                for what, values in taken.items()
            },
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

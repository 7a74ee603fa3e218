"""The agent as in ``agent_process``, with a source that does not answer for neighbors: packets wait.

Its waiting room is as large as asked for, and no bound on packet-ins, nor the time that a packet may wait, comes
before it. How many wait is written to a file ten times a second, so that their memory can be read meanwhile.

    python -m benchmarks.parked_process --port PORT --store FILE --ports N --room N --status FILE
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.agent_process import IDLE_S, end, start, stop_event
from controller_app.sqlite_store import SqliteStore
from ondemand.settings import Settings
from ondemand.slices import Lookup, SliceKind, kind_of

#: Packet-ins that may come at once, and how long each may wait: more than is sent here.
NO_BOUND: Final = 10_000_000
WAIT_S: Final = 60.0
STATUS_S: Final = 0.1


class SilentStore(SqliteStore):
    """Is asked as over a network, and says nothing about neighbors."""

    is_local = False

    def get(self, name: str, key: str) -> Lookup:
        return self.get_many([(name, key)])[0]

    def get_many(self, places: Sequence[tuple[str, str]]) -> list[Lookup]:
        if any(kind_of(name) is SliceKind.NEIGHBORS for name, _ in places):
            # Of the thread that asks, a daemon: it ends with the process.
            threading.Event().wait()
        return super().get_many(places)


def settings(room: int) -> Settings:
    return Settings(
        max_parked=room,
        max_parked_per_port=room,
        park_s=WAIT_S,
        meter_rate=0,
        admission_rate=NO_BOUND,
        admission_burst=NO_BOUND,
        flood_rate=NO_BOUND,
        flood_burst=NO_BOUND,
        quarantine_max_s=0,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parked_process")
    parser.add_argument("--port", type=int, required=True, help="TCP port on 127.0.0.1")
    parser.add_argument("--store", type=Path, required=True, help="slice store (benchmarks.vpc)")
    parser.add_argument("--ports", type=int, required=True, help="local ports that are plugged in")
    parser.add_argument("--room", type=int, required=True, help="packets that may wait")
    parser.add_argument("--status", type=Path, required=True, help="the agent's counters")
    options = parser.parse_args(arguments)
    stop = stop_event()
    agent = start(
        SilentStore(options.store),
        settings(options.room),
        port=options.port,
        ports=options.ports,
        whole=True,
    )
    spare = options.status.with_suffix(".new")
    told_s = 0.0
    while not stop.wait(IDLE_S):
        agent.idle()
        if time.monotonic() - told_s >= STATUS_S:
            told_s = time.monotonic()
            spare.write_text(json.dumps(agent.status()))
            spare.replace(options.status)
    return 0


if __name__ == "__main__":
    end(main())

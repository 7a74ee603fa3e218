"""Where hosts get their goal state from: the message system, or the process that pushes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from controller_app.nats_options import DEFAULT_STREAM, NatsAddress, NatsOptions
from controller_app.nats_store import NatsStore
from mininet_topos.errors import CommandError, CommandTimeoutError, LabError, LabUnavailableError
from mininet_topos.lab_run import LabRun
from mininet_topos.processes import Background
from scale.child import Child
from scale.goal import Change
from scale.pipe import Message, region_as_json
from scale.region import Region

_START_S: Final = 20.0
_POLL_S: Final = 0.02
_PUSHER_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Counters:
    """What has gone out to hosts so far: messages, and bytes of their payloads and headers."""

    messages: int
    bytes: int


class Origin(Protocol):
    """One of the two. ``kind`` is ``pull`` or ``push``; ``target`` is where hosts connect to."""

    kind: str
    pid: int
    target: str

    def publish(self, change: Change) -> int:
        """Make a change; the version of its slice afterwards."""

    def counters(self) -> Counters:
        """See there."""

    def truth(self) -> Message:
        """What drivers are to compare with; {}: they read the store themselves."""

    def close(self) -> None:
        """End it."""


def nats_server_program() -> str:
    """The path of nats-server; ``LabUnavailableError`` when there is none."""
    # Debian has it in sbin, which an ordinary user's PATH leaves out.
    found = shutil.which("nats-server") or shutil.which(
        "nats-server", path="/usr/local/sbin:/usr/sbin"
    )
    if found is None:
        raise LabUnavailableError(
            "nats-server is not installed: run 'make setup', or apt-get install nats-server"
        )
    return found


class NatsOrigin:
    """A nats-server of our own on loopback, with a publisher."""

    kind = "pull"

    def __init__(self, run: LabRun, name: str) -> None:
        """Started, and without slices."""
        self._run = run
        folder = run.directory / name
        folder.mkdir()
        configuration = folder / "nats.conf"
        configuration.write_text(
            'listen: "127.0.0.1:-1"\nhttp: "127.0.0.1:-1"\n'
            f'ports_file_dir: "{folder}"\n'
            "max_connections: 1000000\n"
            f'jetstream {{ store_dir: "{folder / "jetstream"}" }}\n'
        )
        self._server = Background(
            "nats-server",
            [nats_server_program(), "-c", str(configuration)],
            log=folder / "nats.log",
            env=run.environment(),
            gate=run.gate,
        )
        run.own(self)
        self.pid = self._server.pid
        ports = self._ports(folder)
        self.target = ports["nats"][0]
        self._monitor = urlsplit(ports["monitoring"][0]).netloc
        self.store_folder = folder / "jetstream"
        self.store_stream = DEFAULT_STREAM
        self.store = NatsStore(
            NatsAddress((self.target,)), writer=True, options=NatsOptions(timeout_s=30.0)
        )

    def _ports(self, folder: Path) -> dict[str, list[str]]:
        deadline_s = time.monotonic() + _START_S
        while True:
            for path in folder.glob("*.ports"):
                try:
                    found: dict[str, list[str]] = json.loads(path.read_text())
                except ValueError:  # half written
                    continue
                return found
            code = self._server.returncode
            said = self._server.output_tail()
            if code is not None:
                raise CommandError("nats-server", self._server.argv, code, said)
            if time.monotonic() > deadline_s:
                raise CommandTimeoutError("nats-server", self._server.argv, _START_S, said)
            time.sleep(_POLL_S)

    def publish_all(
        self, slices: Mapping[str, Mapping[str, bytes]], progress: Callable[[int, int], None] | None
    ) -> None:
        self.store.publish(slices, replace_all=True, progress=progress)

    def publish(self, change: Change) -> int:
        return self.store.write(change.slice, {change.key: change.payload})

    def counters(self) -> Counters:
        found = self.monitored("/varz")
        return Counters(int(found["out_msgs"]), int(found["out_bytes"]))

    def monitored(self, path: str) -> dict[str, Any]:
        """What the server's monitoring tells."""
        link = HTTPConnection(self._monitor, timeout=30)
        try:
            link.request("GET", path)
            found: dict[str, Any] = json.loads(link.getresponse().read())
            return found
        except (OSError, HTTPException, ValueError) as error:
            raise LabError(f"nats-server does not tell its counters: {error}") from error
        finally:
            link.close()

    def truth(self) -> Message:
        return {}

    def begin_close(self) -> None:
        return

    def close(self) -> None:
        self.store.close()
        self._server.stop()
        self._run.disown(self)


class PushOrigin:
    """The process that pushes, see ``pusher``."""

    kind = "push"

    def __init__(self, run: LabRun, name: str, region: Region) -> None:
        self._run = run
        self._child = Child(run, "scale.pusher", name)
        self._child.ask({"region": region_as_json(region)})
        found = self._child.answer(_PUSHER_S)
        self.pid = self._child.pid
        self.target = f"127.0.0.1:{found['port']}"

    def publish(self, change: Change) -> int:
        found = self._child.call(
            {
                "do": "change",
                "slice": change.slice,
                "key": change.key,
                "payload": change.payload.hex(),
                "hosts": change.hosts,
            }
        )
        version: int = found["version"]
        return version

    def counters(self) -> Counters:
        found = self._child.call({"do": "counters"})
        return Counters(found["messages"], found["bytes"])

    def truth(self) -> Message:
        return self._child.call({"do": "truth"}, timeout_s=_PUSHER_S)

    def close(self) -> None:
        self._child.close()
        self._run.disown(self._child)


__all__ = ["Counters", "NatsOrigin", "Origin", "PushOrigin", "nats_server_program"]

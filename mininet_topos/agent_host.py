"""An agent on a compute host of a fabric: a process of its own in the host's namespace."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import controller_app
from controller_app.config_example import toml
from controller_app.config_keys import Value
from mininet_topos.errors import LabError
from mininet_topos.ovs_host import ComputeHost
from mininet_topos.processes import Background

#: What the agent writes its counters to so often, the least that its configuration allows.
STATUS_INTERVAL_S: Final = 0.2

_POLL_S: Final = 0.05
#: A cold start imports os-ken and ovsdbapp, three times at once on a slow machine.
START_TIMEOUT_S: Final = 30.0


class AgentError(LabError):
    """An agent ended, or did not serve in time; the message names the host and what it said."""


class AgentOnHost:
    """The agent of one host.

    Attributes:
        host: where it runs.
        config_file: its configuration.
    """

    def __init__(
        self,
        host: ComputeHost,
        store: Path | None,
        *,
        settings: Mapping[str, Mapping[str, Value]] | None = None,
    ) -> None:
        """Write the configuration; ``start`` starts the agent.

        Args:
            host: its label is the host's id in the goal state.
            store: the slice store, an SQLite file; None: ``settings`` say where slices come from.
            settings: further keys of the configuration, by table, such as ``{"rules": {...}}``.
        """
        self.host = host
        self._process: Background | None = None
        #: How often it was replaced by another one; each has files of its own.
        self._replaced = 0
        self._earlier_errors: list[str] = []
        self._store = store
        self._settings = settings or {}
        self._configure()

    def _configure(self) -> None:
        """Write the configuration, with files of its own for each agent that takes over."""
        host, store = self.host, self._store
        name = f"agent-{self._replaced}" if self._replaced else "agent"
        self.config_file: Path = host.directory / f"{name}.toml"
        self._status_file: Path = host.directory / f"{name}-status.json"
        self._log_file: Path = host.directory / f"{name}-events.log"
        tables: dict[str, dict[str, Value]] = {
            "host": {"id": host.label, "tunnel_ip": host.tunnel_ip},
            "bridge": {"ovsdb": host.ovsdb_remote, "datapath_type": "netdev"},
            "source": {} if store is None else {"file": str(store)},
            "state": {"holdings_file": str(host.directory / "agent.holdings")},
            "log": {"format": "json", "file": str(self._log_file)},
            "metrics": {"snapshot_file": str(self._status_file), "interval_s": STATUS_INTERVAL_S},
        }
        for table, values in self._settings.items():
            tables.setdefault(table, {}).update(values)
        self.config_file.write_text(_toml_text(tables))

    def start(self) -> None:
        """Start the process; it serves some time later."""
        self._start()

    def replace(self) -> Background:
        """Start another agent in place of the one that runs (``--replace-agent``).

        From now on this is the new one; what the replaced one says of its end is not among ``errors``.

        Returns:
            The process of the replaced one, which ends some time later.
        """
        replaced = self.process
        self._earlier_errors = self.errors()
        self._replaced += 1
        self._configure()
        self._start("--replace-agent")
        return replaced

    def _start(self, *words: str) -> None:
        self._status_file.unlink(missing_ok=True)
        # The agent is found where this program was, installed or not.
        place = str(Path(controller_app.__file__).resolve().parent.parent)
        command = [sys.executable, "-m", "controller_app.cli", "run"]
        self._process = self.host.spawn(
            self.config_file.stem,
            [*command, "--config", str(self.config_file), *words],
            env={"PYTHONPATH": place},
        )

    def stop(self) -> None:
        """End it in an orderly way; its rules stay in the switch."""
        if self._process is not None:
            self._process.stop()

    @property
    def process(self) -> Background:
        """The process, running or not.

        Raises:
            AgentError: it was never started.
        """
        if self._process is None:
            raise AgentError(f"the agent of {self.host.label} was not started")
        return self._process

    @property
    def status(self) -> dict[str, Any]:
        """What it last told of itself (``Agent.status``), at most ``STATUS_INTERVAL_S`` old; or {}."""
        try:
            found: dict[str, Any] = json.loads(self._status_file.read_text())
        except FileNotFoundError:
            return {}
        return found

    @property
    def ports(self) -> frozenset[str]:
        """Ids of the ports that it serves."""
        return frozenset(self.status.get("ports", ()))

    def wait_connected(self, *, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the switch is connected to it.

        Raises:
            AgentError: it ended, or the switch was not connected in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while not self.status.get("connected", False):
            self._check_alive()
            if time.monotonic() > deadline_s:
                raise AgentError(
                    f"the agent of {self.host.label} has no connection to its switch after "
                    f"{timeout_s:g} s: {self._last_words()}"
                )
            time.sleep(_POLL_S)

    def wait_for_ports(self, ports: Collection[str], *, timeout_s: float = 10.0) -> bool:
        """Wait until it serves exactly these ports; False when it does not in time.

        Raises:
            AgentError: it ended.
        """
        wanted = frozenset(ports)
        deadline_s = time.monotonic() + timeout_s
        while self.ports != wanted:
            self._check_alive()
            if time.monotonic() > deadline_s:
                return False
            time.sleep(_POLL_S)
        return True

    def memory_mib(self) -> float:
        """Resident memory of the process in MiB (VmRSS, proc(5))."""
        self._check_alive()
        pid = self._process.pid if self._process is not None else 0
        found = re.search(
            r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
        )
        return int(found[1]) / 1024 if found else 0.0

    def errors(self) -> list[str]:
        """What it logged as an error, or wrote outside its log; a sound agent does neither."""
        text = self._log_file.read_text() if self._log_file.exists() else ""
        events = [json.loads(line) for line in text.splitlines()]
        found = [event["event"] for event in events if event["level"] in {"error", "critical"}]
        stray = self._process.output().strip() if self._process is not None else ""
        return self._earlier_errors + found + ([stray] if stray else [])

    def wait_adopted(self, *, timeout_s: float) -> float | None:
        """Wait until it has judged all rules that it found in the switch; returns when that was.

        That is ``time.monotonic``, at most ``STATUS_INTERVAL_S`` late; None: not in time.

        Raises:
            AgentError: it ended.
        """
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            status = self.status
            if status.get("connected") and not status.get("adopting", True):
                return time.monotonic()
            self._check_alive()
            time.sleep(_POLL_S)
        return None

    def _check_alive(self) -> None:
        process = self._process
        if process is None or not process.running:
            code = None if process is None else process.returncode
            raise AgentError(
                f"the agent of {self.host.label} has ended ({code}): {self._last_words()}"
            )

    def _last_words(self) -> str:
        said = self._process.output_tail(max_bytes=600).strip() if self._process else ""
        return said or f"it said nothing; its log is {self._log_file}"


def _toml_text(tables: Mapping[str, Mapping[str, Value]]) -> str:
    lines = []
    for table, values in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{name} = {toml(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"

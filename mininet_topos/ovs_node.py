"""A node that runs an Open vSwitch of its own: database, daemon, sockets and logs.

Everything lies in the node's directory, so any number of them run beside each other and beside the
machine's own Open vSwitch. The datapath is the userspace one (``datapath_type=netdev``), which
needs no kernel module.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Final

from mininet_topos.errors import CommandError, LabUnavailableError
from mininet_topos.lab_run import LabRun
from mininet_topos.node import LabNode
from mininet_topos.processes import Background, run_command, wait_until_path_exists
from mininet_topos.requirements import schema_path

#: Versions that ovs-ofctl offers; it takes the highest that the bridge also speaks.
OPENFLOW_VERSIONS: Final = "OpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15"

_START_TIMEOUT_S: Final = 10.0
_COMMAND_TIMEOUT_S: Final = 10


class OvsNode(LabNode):
    """A ``LabNode`` with ovsdb-server and ovs-vswitchd, both started by the constructor.

    Attributes:
        db_socket: the database's socket.
        ovsdb_remote: the same as an OVSDB connection method, ``unix:/path`` (ovsdb(7)).
    """

    def __init__(self, run: LabRun, label: str) -> None:
        super().__init__(run, label)
        self.db_socket: Path = self.directory / "db.sock"
        self.ovsdb_remote: str = f"unix:{self.db_socket}"
        self._ovsdb: Background | None = None
        self._vswitchd: Background | None = None
        self._create_database()
        self.start_ovsdb()
        self.start_vswitchd()

    # Daemons --------------------------------------------------------------------------------------

    def start_ovsdb(self) -> None:
        """Start ovsdb-server and wait until it listens; nothing happens when it runs."""
        if self._ovsdb is not None and self._ovsdb.running:
            return
        self.db_socket.unlink(missing_ok=True)
        self._ovsdb = self.spawn(
            "ovsdb-server",
            [
                *("ovsdb-server", str(self._database), f"--remote=p{self.ovsdb_remote}"),
                *self._daemon_options("ovsdb-server"),
            ],
            env=self._ovs_environment,
        )
        wait_until_path_exists(self.db_socket, self._ovsdb, timeout_s=_START_TIMEOUT_S)

    def stop_ovsdb(self) -> None:
        """End ovsdb-server; ovs-vswitchd goes on forwarding and connects again later."""
        if self._ovsdb is not None:
            self._ovsdb.stop()

    def restart_ovsdb(self) -> None:
        self.stop_ovsdb()
        self.start_ovsdb()

    def start_vswitchd(self) -> None:
        """Start ovs-vswitchd and wait until it has applied the database; nothing when it runs."""
        if self._vswitchd is not None and self._vswitchd.running:
            return
        self._unixctl("ovs-vswitchd").unlink(missing_ok=True)
        self._vswitchd = self.spawn(
            "ovs-vswitchd",
            ["ovs-vswitchd", self.ovsdb_remote, *self._daemon_options("ovs-vswitchd")],
            env=self._ovs_environment,
        )
        wait_until_path_exists(
            self._unixctl("ovs-vswitchd"), self._vswitchd, timeout_s=_START_TIMEOUT_S
        )
        # A change that no earlier start has made, so that ovs-vsctl waits for the daemon.
        self.vsctl("set", "Open_vSwitch", ".", f"external_ids:lab-start={self._vswitchd.pid}")

    def stop_vswitchd(self) -> None:
        """End ovs-vswitchd in an orderly way; with it go its rules, connections and taps."""
        if self._vswitchd is not None and self._vswitchd.running:
            try:
                self.appctl("exit")
            except CommandError:
                self._vswitchd.send_signal(signal.SIGTERM)
            if not self._vswitchd.wait(_START_TIMEOUT_S):
                self._vswitchd.kill()

    def kill_vswitchd(self) -> None:
        """End ovs-vswitchd as a crash would (SIGKILL)."""
        if self._vswitchd is not None:
            self._vswitchd.kill()

    @property
    def vswitchd_pid(self) -> int | None:
        """The pid of ovs-vswitchd, None when it does not run."""
        running = self._vswitchd is not None and self._vswitchd.running
        return self._vswitchd.pid if self._vswitchd is not None and running else None

    # Control --------------------------------------------------------------------------------------

    def vsctl(self, *args: str, wait: bool = True, timeout_s: int = _COMMAND_TIMEOUT_S) -> str:
        """ovs-vsctl on this node's database; returns what it prints.

        ``wait``: until ovs-vswitchd has applied the change; False when that daemon is down.
        """
        options = [f"--db={self.ovsdb_remote}", f"--timeout={timeout_s}"]
        if not wait:
            options.append("--no-wait")
        return self._control(["ovs-vsctl", *options, *args], timeout_s=timeout_s)

    def ofctl(self, *args: str, stdin_text: str = "", timeout_s: int = _COMMAND_TIMEOUT_S) -> str:
        """ovs-ofctl, with bridges by their names; ``-`` as a flow file reads ``stdin_text``."""
        options = [f"--protocols={OPENFLOW_VERSIONS}", f"--timeout={timeout_s}"]
        return self._control(
            ["ovs-ofctl", *options, *args], timeout_s=timeout_s, stdin_text=stdin_text
        )

    def appctl(
        self, *args: str, daemon: str = "ovs-vswitchd", timeout_s: int = _COMMAND_TIMEOUT_S
    ) -> str:
        """ovs-appctl on ``ovs-vswitchd`` or ``ovsdb-server``, found by its socket."""
        target = [f"--target={self._unixctl(daemon)}", f"--timeout={timeout_s}"]
        return self._control(["ovs-appctl", *target, *args], timeout_s=timeout_s)

    def add_flows(self, bridge: str, *flows: str) -> None:
        """Add rules in ovs-ofctl's text, all or none (a bundle)."""
        self.ofctl("--bundle", "add-flows", bridge, "-", stdin_text="\n".join(flows) + "\n")

    def dump_flows(self, bridge: str = "br-int", match: str = "") -> list[str]:
        """The rules of a bridge, one line of ovs-ofctl text each, with their statistics.

        ``match`` limits them in ovs-ofctl's syntax, such as ``table=30,ip``.
        """
        text = self.ofctl("dump-flows", bridge, *([match] if match else []), timeout_s=60)
        return [line.strip() for line in text.splitlines() if "actions=" in line]

    def rule_count(self, bridge: str = "br-int", match: str = "") -> int:
        """How many rules a bridge holds, counted by the switch itself."""
        text = self.ofctl("dump-aggregate", bridge, *([match] if match else []), timeout_s=60)
        found = re.search(r"flow_count=(\d+)", text)
        if found is None:
            raise CommandError(self.label, ("ovs-ofctl", "dump-aggregate", bridge), 0, text)
        return int(found[1])

    def memory_kib(self) -> int:
        """Resident memory of ovs-vswitchd in KiB (VmRSS, proc(5)); 0 when it does not run."""
        pid = self.vswitchd_pid
        if pid is None:
            return 0
        status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) if found else 0

    def begin_close(self) -> None:
        """SIGTERM to what uses the switch; the switch itself ends after it."""
        for process in self.running_backgrounds():
            if process not in {self._ovsdb, self._vswitchd}:
                process.send_signal(signal.SIGTERM)

    # Inside ---------------------------------------------------------------------------------------

    @property
    def _database(self) -> Path:
        return self.directory / "conf.db"

    @property
    def _ovs_environment(self) -> dict[str, str]:
        place = str(self.directory)
        return {
            "OVS_RUNDIR": place,
            "OVS_LOGDIR": place,
            "OVS_DBDIR": place,
            "OVS_SYSCONFDIR": place,
        }

    def _unixctl(self, daemon: str) -> Path:
        return self.directory / f"{daemon}.ctl"

    def _daemon_options(self, daemon: str) -> list[str]:
        return [
            f"--unixctl={self._unixctl(daemon)}",
            f"--pidfile={self.directory / daemon}.pid",
            f"--log-file={self.directory / daemon}.ovs.log",
            "--verbose=console:off",
            "--verbose=syslog:off",
        ]

    def _create_database(self) -> None:
        schema = schema_path()
        if schema is None:
            raise LabUnavailableError(
                "vswitch.ovsschema was not found: apt-get install openvswitch-switch"
            )
        self._control(["ovsdb-tool", "create", str(self._database), str(schema)], timeout_s=10)

    def _control(self, argv: list[str], *, timeout_s: int, stdin_text: str = "") -> str:
        # Outside the namespace: these talk to sockets in the file system, and so start faster.
        return run_command(
            argv,
            where=self.label,
            env={**self.run.environment(), **self._ovs_environment},
            timeout_s=timeout_s + 2,
            stdin_text=stdin_text,
            gate=self.run.gate,
        ).stdout

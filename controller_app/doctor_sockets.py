"""The sockets of ovs-vswitchd, as doctor asks them: through Open vSwitch's own programs."""

from __future__ import annotations

from pathlib import Path

from controller_app.doctor_check import Machine, Output
from controller_app.ovsdb_config import BridgeConfig
from controller_app.vswitchd_control import control_socket, run_directory


class Sockets:
    """The sockets of ovs-vswitchd, beside that of the database."""

    def __init__(self, machine: Machine, config: BridgeConfig) -> None:
        self._folder: Path = run_directory(config.ovsdb)
        self._machine = machine
        self._bridge = config.bridge

    @property
    def management(self) -> Path:
        """The socket at which the bridge answers questions in OpenFlow."""
        return self._folder / f"{self._bridge}.mgmt"

    def ofctl(self, command: str, *args: str) -> str | None:
        """ovs-ofctl on the bridge; None when it cannot be asked."""
        socket = f"unix:{self.management}"
        said = self._machine.run("ovs-ofctl", "-OOpenFlow13", "--timeout=3", command, socket, *args)
        return said.text if said is not None and said.code == 0 else None

    def appctl(self, *args: str) -> str | None:
        """ovs-appctl on ovs-vswitchd; None when it cannot be asked."""
        said = self.ask(*args)
        return said.text if said is not None and said.code == 0 else None

    def ask(self, *args: str) -> Output | None:
        """As ``appctl``, with what it says when it refuses."""
        target = control_socket(self._folder, exists=self._machine.has_path)
        if target is None:
            return None
        return self._machine.run("ovs-appctl", "--timeout=3", "-t", str(target), *args)

    def features(self) -> str | None:
        return self.appctl("dpif/show-dp-features", self._bridge)

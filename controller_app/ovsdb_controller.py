"""The controller of the bridge: that it is the agent, that it is nobody else's, and when it connects."""

from __future__ import annotations

from typing import Any, Final

from ovsdbapp.backend.ovs_idl.command import BaseCommand

from controller_app.openflow_address import plain, respelled
from controller_app.ovsdb_config import BridgeConfig
from controller_app.ovsdb_errors import BridgeConflictError, ForeignControllerError
from controller_app.ovsdb_link import find_row
from controller_app.ovsdb_view import first

#: Milliseconds; how often the switch looks for a controller that is away, at most. OVS takes 8 s by
#: itself, and allows no less than 1000. See also ``Touch``.
CONTROLLER_BACKOFF_MS: Final = 1000

#: Targets of listeners, for ovs-ofctl and the like: they control nothing.
LISTENERS: Final = ("ptcp:", "pssl:", "punix:")
#: external_ids key of the rows that an agent made.
_OWNED: Final = "ondemand"


class SetController(BaseCommand):
    """Have the bridge obey the agent; the result is a list of what changed, in words.

    With ``reconnect`` the target is spelled anew, which makes the switch connect at once, however
    long it would have waited (``openflow_address.respelled``).

    Raises:
        BridgeConflictError: nothing has been written.
    """

    def __init__(self, api: Any, config: BridgeConfig, *, reconnect: bool) -> None:
        super().__init__(api)
        self.config = config
        self.reconnect = reconnect

    def run_idl(self, txn: Any) -> None:
        config = self.config
        bridge = find_row(self.api, "Bridge", config.bridge)
        if bridge is None:
            raise BridgeConflictError(f"bridge {config.bridge} is gone; somebody removed it")
        bridge.verify("controller")
        refuse_foreign(config, bridge)
        changes: list[str] = []
        found = list(getattr(bridge, "controller", []))
        listeners = [row for row in found if row.target.startswith(LISTENERS)]
        ours = [row for row in found if _is_ours(config, row)][:1]
        others = sorted(row.target for row in found if row not in listeners and row not in ours)
        if ours:
            row = ours[0]
            if self.reconnect:
                row.target = respelled(row.target)
            if first(row, "connection_mode") != "out-of-band":
                changes.append("controller: connection_mode out-of-band")
            if first(row, "max_backoff") != CONTROLLER_BACKOFF_MS:
                changes.append(f"controller: max_backoff {CONTROLLER_BACKOFF_MS}")
        else:
            row = txn.insert(self.api.tables["Controller"])
            row.target = config.controller
            ours = [row]
        if first(row, "connection_mode") != "out-of-band":
            row.connection_mode = "out-of-band"
        if first(row, "max_backoff") != CONTROLLER_BACKOFF_MS:
            row.max_backoff = CONTROLLER_BACKOFF_MS
        if not _is_an_agents(row):
            row.external_ids = {**getattr(row, "external_ids", {}), _OWNED: "true"}
        if others or len(found) != len(listeners) + 1:
            bridge.controller = listeners + ours
            was = f" (was {', '.join(others)})" if others else ""
            changes.append(f"controller {config.controller}{was}")
        self.result = changes


class Touch(BaseCommand):
    """Change nothing; the transaction itself makes ovs-vswitchd go over its configuration.

    It gives a connection's ``max_backoff`` to the connection only when it does so while the
    controller is connected (observed on OVS 3.1); without that it waits up to 8 s.
    """

    def run_idl(self, txn: Any) -> None:
        """Nothing to write."""


def _is_ours(config: BridgeConfig, row: Any) -> bool:
    return plain(row.target) == plain(config.controller)


def _is_an_agents(row: Any) -> bool:
    return bool(getattr(row, "external_ids", {}).get(_OWNED) == "true")


def refuse_foreign(config: BridgeConfig, bridge: Any) -> None:
    """Raise ForeignControllerError if the bridge obeys somebody who is no agent.

    What an earlier agent set is no stranger's: the lock says that it is gone.
    """
    foreign = [
        row.target
        for row in getattr(bridge, "controller", [])
        if not row.target.startswith(LISTENERS)
        and not _is_ours(config, row)
        and not _is_an_agents(row)
    ]
    if foreign and not config.take_over:
        raise ForeignControllerError(config.bridge, sorted(foreign))

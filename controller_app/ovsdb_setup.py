"""Bring the bridge into being and see that it works."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controller_app.foreign_rules import count_foreign, rules, will_be_cleared
from controller_app.ovsdb_bridge import BridgeOutcome, EnsureBridge, UseUserspaceDatapath
from controller_app.ovsdb_config import TUNNEL_OPTIONS, BridgeConfig
from controller_app.ovsdb_controller import SetController
from controller_app.ovsdb_errors import BridgeConflictError, BridgeFailedError, OvsdbError
from controller_app.ovsdb_idl import SCHEMA
from controller_app.ovsdb_link import Link, find_row
from controller_app.ovsdb_view import first, valid_ofport
from controller_app.switch_query import SwitchQueryError
from controller_app.vswitchd_control import run_directory

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BridgeState:
    """The bridge as ovs-vswitchd made it.

    ``datapath_id`` is the 64-bit number by which the switch calls itself in OpenFlow;
    ``changes`` says in words what had to be changed.
    """

    bridge: str
    datapath_type: str
    datapath_id: int
    tunnel_ofport: int
    changes: tuple[str, ...]


def ensure_bridge(
    link: Link,
    config: BridgeConfig,
    *,
    ready: Callable[[BridgeState], None] | None = None,
    reconnect: bool = False,
) -> BridgeState:
    """Create or adopt the bridge, and wait until it works; see ``Ovsdb.ensure_bridge``."""
    warning = _loss_of_others(link, config)
    outcome: BridgeOutcome = link.commit(EnsureBridge(link.api, config))
    if warning:
        LOG.warning("%s", warning)
    try:
        changes = [*outcome.changes, *_fall_back_to_userspace(link, config)]
        state = _read_state(link, config, changes)
        if ready is not None:
            ready(state)
        changes += link.commit(SetController(link.api, config, reconnect=reconnect))
    except (BridgeFailedError, BridgeConflictError):
        _undo(link, config, outcome)
        raise
    for change in changes:
        LOG.info("bridge %s: %s", config.bridge, change)
    _warn_of_socket_path(link, config)
    return replace(state, changes=tuple(changes))


def _loss_of_others(link: Link, config: BridgeConfig) -> str:
    """What others lose when the bridge is adopted, as a sentence; "" when it is nothing."""
    with link.held():
        bridge = find_row(link.api, "Bridge", config.bridge)
        if bridge is None or not will_be_cleared(row.target for row in bridge.controller):
            return ""
    path = _run_directory(link, config) / f"{config.bridge}.mgmt"
    if not os.access(path, os.F_OK):
        return ""  # not in the switch yet, and so without rules
    clears = (
        f"bridge {config.bridge} has no controller yet, and Open vSwitch clears all tables of a bridge"
        " when its first one is set"
    )
    try:
        count = count_foreign(path)
    except SwitchQueryError as error:
        return f"{clears}: whether rules of others are lost by that could not be asked ({error})"
    if not count:
        return ""
    return (
        f"{clears}: {rules(count)} of others are lost by that; have them made again, the agent leaves"
        " alone what is added from now on"
    )


def _run_directory(link: Link, config: BridgeConfig) -> Path:
    """Where ovs-vswitchd has its sockets."""
    with link.held():
        row = next(iter(link.idl.tables[SCHEMA].rows.values()))
        found = row.external_ids.get("rundir")
    return Path(found) if found else run_directory(config.ovsdb)


def _fall_back_to_userspace(link: Link, config: BridgeConfig) -> list[str]:
    """Take the netdev datapath if the system's cannot be opened and the choice is ours.

    Open_vSwitch.datapath_types lists "system" also where the kernel module is missing; that the
    bridge got no datapath_id is the sure sign.
    """
    with link.held():
        bridge = find_row(link.api, "Bridge", config.bridge)
        broken = (
            bridge is not None
            and first(bridge, "datapath_id") is None
            and bridge.datapath_type in ("", "system")
        )
    if config.datapath_type != "auto" or not broken:
        return []
    link.commit(UseUserspaceDatapath(link.api, config.bridge))
    return ["datapath_type netdev (the kernel datapath cannot be opened)"]


def _read_state(link: Link, config: BridgeConfig, changes: Iterable[str]) -> BridgeState:
    with link.held():
        bridge = find_row(link.api, "Bridge", config.bridge)
        datapath_type = bridge.datapath_type or "system" if bridge else config.datapath_type
        datapath_id = first(bridge, "datapath_id") if bridge else None
        if datapath_id is None:
            raise BridgeFailedError(
                f"ovs-vswitchd could not make bridge {config.bridge} with datapath_type "
                f"{datapath_type}; its log says why (without the kernel module openvswitch only "
                '"netdev" works)'
            )
        interface = find_row(link.api, "Interface", config.tunnel_port)
        tunnel_ofport = valid_ofport(interface) if interface else None
        if tunnel_ofport is None:
            reason = (interface and first(interface, "error")) or "it got no port number"
            raise BridgeFailedError(
                f"ovs-vswitchd could not make tunnel port {config.tunnel_port}: {reason}"
                + (_same_tunnel(link, interface) if interface else "")
            )
        return BridgeState(
            bridge=config.bridge,
            datapath_type=datapath_type,
            datapath_id=int(datapath_id, 16),
            tunnel_ofport=tunnel_ofport,
            changes=tuple(changes),
        )


def _same_tunnel(link: Link, interface: Any) -> str:
    """OVS refuses a second tunnel of one configuration; say which port is the first."""
    wanted = interface.options
    for row in link.idl.tables["Interface"].rows.values():
        if row.type != "vxlan" or valid_ofport(row) is None:
            continue
        options = row.options
        if all(options.get(key) == wanted.get(key) for key in TUNNEL_OPTIONS):
            return (
                f"; {row.name} has the same configuration: set tunnel_port to that name if it is on "
                "the agent's bridge, otherwise set another tunnel_dst_port"
            )
    return ""


def _warn_of_socket_path(link: Link, config: BridgeConfig) -> None:
    scheme, _, path = config.controller.partition(":")
    with link.held():
        row = next(iter(link.idl.tables[SCHEMA].rows.values()))
        run_directory = row.external_ids.get("rundir")
    if scheme == "unix" and run_directory and not path.startswith(f"{run_directory}/"):
        LOG.warning(
            "bridge %s: ovs-vswitchd connects only to unix sockets in %s, so it may refuse the "
            "controller %s",
            config.bridge,
            run_directory,
            config.controller,
        )


def _undo(link: Link, config: BridgeConfig, outcome: BridgeOutcome) -> None:
    """Remove what the failed call has created."""
    try:
        if outcome.created_bridge:
            link.commit(link.api.del_br(config.bridge))
        elif outcome.created_tunnel:
            link.commit(link.api.del_port(config.tunnel_port, bridge=config.bridge))
    except OvsdbError as error:
        LOG.warning("bridge %s could not be removed again: %s", config.bridge, error)

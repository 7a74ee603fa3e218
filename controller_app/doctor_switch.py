"""Checks of Open vSwitch as it runs: its database, its datapaths, the agent's bridge and tunnel.

Nothing is written, and no lock is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from controller_app.doctor_check import Check, Machine, Status
from controller_app.doctor_datapath import conntrack_checks, datapath_checks
from controller_app.doctor_limits import Limits, connection_limits, table_limits
from controller_app.doctor_rules import foreign_checks, owner_checks
from controller_app.foreign_rules import will_be_cleared
from controller_app.openflow_address import plain
from controller_app.ovsdb_config import TUNNEL_OPTIONS, BridgeConfig
from controller_app.ovsdb_controller import LISTENERS
from controller_app.ovsdb_errors import START_OVS, OvsdbError, OvsdbUnreachableError
from controller_app.ovsdb_facts import BridgeFacts, SwitchFacts, switch_facts
from controller_app.ovsdb_link import Link, find_row

OVSDB_TIMEOUT_S: Final = 3.0
#: Containers have no systemd.
_START: Final = f"{START_OVS}, or: service openvswitch-switch start"


def switch_checks(
    machine: Machine, config: BridgeConfig, limits: Limits | None = None, host: str | None = None
) -> Iterator[Check]:
    """``host``: whose agent is to run here; None: it is not known, nor asked for."""
    try:
        facts = switch_facts(config.ovsdb, timeout_s=OVSDB_TIMEOUT_S)
    except OvsdbUnreachableError as error:
        mend = "run doctor with sudo" if "ermission" in error.reason else _START
        yield Check("ovsdb", Status.FAIL, f"{config.ovsdb} does not answer: {error.reason}", mend)
        yield _not_checked(host)
        return
    except OvsdbError as error:
        yield Check("ovsdb", Status.FAIL, str(error))
        yield _not_checked(host)
        return
    yield _database(config, facts)
    kernel = machine.has_path("/sys/module/openvswitch")
    bridge = next((b for b in facts.bridges if b.name == config.bridge), None)
    datapath = _datapath_type(config, facts, bridge, kernel=kernel)
    yield _datapath(config, facts, datapath, kernel=kernel)
    yield from _bridge(config, bridge)
    yield _tunnel(config, facts)
    limits = limits or Limits()
    if bridge is not None and bridge.works:
        yield from datapath_checks(machine, config)
        yield from foreign_checks(machine, config, bridge)
        if host is not None:
            yield from owner_checks(machine, config, host, limits.table_base)
    yield from conntrack_checks(machine, config, datapath)
    yield table_limits(limits, bridge)
    if bridge is not None and bridge.works:
        yield connection_limits(machine, config, limits, datapath)


def _not_checked(host: str | None) -> Check:
    """What all hangs on the database."""
    owner = "" if host is None else " owner,"
    return Check(
        "not checked",
        Status.WARN,
        f"without the database: datapath, bridge, controller, tunnel, rules, meters,{owner} datapath"
        " features, rules of others, conntrack, fragments, table limits, connection limits",
        "once the database answers, run doctor again",
    )


def _database(config: BridgeConfig, facts: SwitchFacts) -> Check:
    found = f"{config.ovsdb}: Open vSwitch {facts.ovs_version or '(version not told)'}"
    if not facts.settled:
        return Check("ovsdb", Status.FAIL, f"{found}, and ovs-vswitchd does not follow it", _START)
    return Check("ovsdb", Status.OK, found)


def _datapath_type(
    config: BridgeConfig, facts: SwitchFacts, bridge: BridgeFacts | None, *, kernel: bool
) -> str:
    """The datapath that the agent will use."""
    if config.datapath_type != "auto":
        return config.datapath_type
    if bridge is not None:
        return bridge.datapath_type
    return "system" if kernel and "system" in facts.datapath_types else "netdev"


def _datapath(config: BridgeConfig, facts: SwitchFacts, datapath: str, *, kernel: bool) -> Check:
    known = ", ".join(facts.datapath_types)
    if facts.datapath_types and datapath not in facts.datapath_types:
        return Check(
            "datapath",
            Status.FAIL,
            f"ovs-vswitchd was built without {datapath}, only with {known}",
            'set [bridge] datapath_type = "auto"',
        )
    if datapath == "system":
        if any(b.works and b.datapath_type == "system" for b in facts.bridges) or kernel:
            return Check("datapath", Status.OK, "system: the kernel module openvswitch is there")
        return Check(
            "datapath",
            Status.FAIL,
            "system, and the kernel module openvswitch is not there",
            'modprobe openvswitch, or set [bridge] datapath_type = "netdev"',
        )
    why = "as configured" if config.datapath_type == "netdev" else "no kernel module is in use"
    return Check("datapath", Status.OK, f"netdev: forwards in userspace ({why})")


def _bridge(config: BridgeConfig, bridge: BridgeFacts | None) -> Iterator[Check]:
    name = f"bridge {config.bridge}"
    if bridge is None:
        yield Check(name, Status.OK, "does not exist; the agent creates it")
        return
    kind = f"datapath_type {bridge.datapath_type}, fail_mode {bridge.fail_mode or 'not set'}"
    if not bridge.works:
        yield Check(
            name,
            Status.FAIL,
            f"{kind}; ovs-vswitchd could not open its datapath",
            "its log says why; without the kernel module openvswitch only netdev works",
        )
    elif bridge.fail_mode != "secure":
        clears = will_be_cleared(target for target, _ in bridge.controllers)
        mend = "the agent sets fail_mode secure" + (", which clears all tables" if clears else "")
        yield Check(name, Status.WARN, kind, mend)
    elif config.datapath_type not in ("auto", bridge.datapath_type) and not config.take_over:
        yield Check(
            name,
            Status.FAIL,
            f"{kind}, not {config.datapath_type} as configured",
            'set [bridge] datapath_type = "auto", or take_over = true, which empties the bridge',
        )
    else:
        yield Check(name, Status.OK, kind)
    yield _controller(config, bridge)


def _controller(config: BridgeConfig, bridge: BridgeFacts) -> Check:
    targets = {
        target: connected
        for target, connected in bridge.controllers
        if not target.startswith(LISTENERS)
    }
    wanted = plain(config.controller)
    ours = {target for target in targets if plain(target) == wanted}
    foreign = [target for target in targets if target not in ours]
    if foreign:
        status = Status.WARN if config.take_over else Status.FAIL
        return Check(
            "controller",
            status,
            f"bridge {config.bridge} obeys {', '.join(foreign)}",
            f"ovs-vsctl del-controller {config.bridge}, or set [bridge] take_over = true",
        )
    if not ours:
        return Check("controller", Status.OK, "none is set; the agent sets its own")
    if not any(targets[target] for target in ours):
        return Check(
            "controller",
            Status.WARN,
            f"{config.controller}, not connected",
            "no agent listens there: ondemand run --config FILE",
        )
    return Check("controller", Status.OK, f"{config.controller}, connected")


@dataclass(frozen=True, slots=True)
class Interface:
    """A row of the table Interface (ovs-vswitchd.conf.db(5))."""

    type: str
    options: dict[str, str]
    error: str


def read_interface(remote: str, name: str) -> Interface | None:
    """The interface of this name, None when there is none; raises OvsdbError."""
    with Link(remote, timeout_s=OVSDB_TIMEOUT_S) as link, link.held():
        row = find_row(link.api, "Interface", name)
        if row is None:
            return None
        return Interface(str(row.type), dict(row.options), " ".join(row.error))


def _tunnel(config: BridgeConfig, facts: SwitchFacts) -> Check:
    if facts.iface_types and "vxlan" not in facts.iface_types:
        return Check(
            "tunnel", Status.FAIL, "ovs-vswitchd knows no vxlan interfaces", "install another OVS"
        )
    name = config.tunnel_port
    try:
        found = read_interface(config.ovsdb, name)
    except OvsdbError as failure:
        return Check("tunnel", Status.FAIL, str(failure))
    if found is None:
        return Check("tunnel", Status.OK, f"{name} does not exist; the agent creates it")
    if found.type != "vxlan":
        return Check(
            "tunnel",
            Status.FAIL,
            f"{name} is an interface of type {found.type or 'system'}",
            "set [bridge] tunnel_port to another name",
        )
    if found.error:
        return Check("tunnel", Status.FAIL, f"{name}: {found.error}", "see the log of ovs-vswitchd")
    wrong = {
        key: found.options.get(key)
        for key in TUNNEL_OPTIONS
        if found.options.get(key) != config.tunnel_options.get(key)
    }
    if wrong:
        text = ", ".join(f"{key} {value or 'not set'}" for key, value in wrong.items())
        return Check(
            "tunnel",
            Status.WARN,
            f"{name} (vxlan) has {text}, which the configuration has otherwise",
            "the agent changes it, with take_over = true also remote_ip and key",
        )
    return Check("tunnel", Status.OK, f"{name}: vxlan, remote_ip=flow, key=flow")

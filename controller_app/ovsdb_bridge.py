"""The bridge as the agent needs it: what it should be, and one transaction that makes it so.

Changing the controller or the fail mode of a bridge can empty its flow tables, and changing its
datapath type does. So a column is written only when it differs, and what belongs to somebody else is
refused rather than overwritten. Reading, judging and writing happen in one OVSDB transaction, which
starts over if the columns it judged changed meanwhile.

The columns are those of ovs-vswitchd.conf.db(5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from ovsdbapp.backend.ovs_idl.command import BaseCommand

from controller_app.ovsdb_config import TUNNEL_OPTIONS, BridgeConfig
from controller_app.ovsdb_controller import refuse_foreign
from controller_app.ovsdb_errors import BridgeConflictError
from controller_app.ovsdb_idl import SCHEMA
from controller_app.ovsdb_link import find_row
from controller_app.ovsdb_view import first

PROTOCOL: Final = "OpenFlow13"


@dataclass(slots=True)
class BridgeOutcome:
    """What EnsureBridge did: ``changes`` in words, empty when everything was as it should be."""

    created_bridge: bool = False
    created_tunnel: bool = False
    changes: list[str] = field(default_factory=list)


class EnsureBridge(BaseCommand):
    """Create or adopt the bridge of ``config``, all but its controller; the result is a BridgeOutcome.

    Raises:
        BridgeConflictError: nothing has been written.
    """

    def __init__(self, api: Any, config: BridgeConfig) -> None:
        super().__init__(api)
        self.config = config

    def run_idl(self, txn: Any) -> None:
        outcome = BridgeOutcome()
        bridge = find_row(self.api, "Bridge", self.config.bridge)
        if bridge is None:
            bridge = self._create(txn, outcome)
        else:
            self._adopt(bridge, outcome)
        refuse_foreign(self.config, bridge)
        self._set_tunnel(txn, bridge, outcome)
        self.result = outcome

    def _create(self, txn: Any, outcome: BridgeOutcome) -> Any:
        name = self.config.bridge
        if find_row(self.api, "Port", name) or find_row(self.api, "Interface", name):
            raise BridgeConflictError(
                f"the name {name} belongs to a port of another bridge; name another bridge, or "
                f"remove the port (ovs-vsctl del-port {name})"
            )
        datapath_type = self.config.datapath_type
        if datapath_type == "auto":
            supported = next(iter(self.api.tables[SCHEMA].rows.values())).datapath_types
            # An empty list says that ovs-vswitchd has not told yet.
            datapath_type = "netdev" if supported and "system" not in supported else "system"
        self.api.add_br(name, may_exist=False, datapath_type=datapath_type).run_idl(txn)
        bridge = find_row(self.api, "Bridge", name)
        if bridge is None:
            raise BridgeConflictError(f"bridge {name} vanished while it was made; try again")
        bridge.fail_mode = "secure"
        bridge.protocols = [PROTOCOL]
        bridge.other_config = {"disable-in-band": "true"}
        outcome.created_bridge = True
        outcome.changes.append(f"created bridge {name}, datapath_type {datapath_type}")
        return bridge

    def _adopt(self, bridge: Any, outcome: BridgeOutcome) -> None:
        config = self.config
        found = bridge.datapath_type or "system"
        if config.datapath_type not in ("auto", found):
            if not config.take_over:
                raise BridgeConflictError(
                    f"bridge {config.bridge} has datapath_type {found}, not {config.datapath_type}, "
                    'and a change would empty it; set datapath_type = "auto" or take_over = true'
                )
            bridge.datapath_type = config.datapath_type
            outcome.changes.append(f"datapath_type {config.datapath_type} (was {found})")
        fail_mode = first(bridge, "fail_mode")
        if fail_mode != "secure":
            bridge.fail_mode = "secure"
            outcome.changes.append(f"fail_mode secure (was {fail_mode or 'not set'})")
        # An empty set stands for all versions, OpenFlow 1.3 among them (since OVS 2.8).
        if bridge.protocols and PROTOCOL not in bridge.protocols:
            bridge.addvalue("protocols", PROTOCOL)
            outcome.changes.append(f"protocols: added {PROTOCOL}")
        if bridge.other_config.get("disable-in-band") != "true":
            bridge.setkey("other_config", "disable-in-band", "true")
            outcome.changes.append("other_config:disable-in-band true")

    def _set_tunnel(self, txn: Any, bridge: Any, outcome: BridgeOutcome) -> None:
        name = self.config.tunnel_port
        wanted = self.config.tunnel_options
        port = find_row(self.api, "Port", name)
        if port is None and find_row(self.api, "Interface", name) is None:
            self.api.add_port(
                self.config.bridge, name, may_exist=False, type="vxlan", options=wanted
            ).run_idl(txn)
            outcome.created_tunnel = True
            outcome.changes.append(f"created tunnel port {name}")
            return
        interfaces = port.interfaces if port is not None and port in bridge.ports else []
        if len(interfaces) != 1 or interfaces[0].type != "vxlan":
            raise BridgeConflictError(
                f"the name {name} belongs to a port that is not a VXLAN port of bridge "
                f"{self.config.bridge}; set tunnel_port to another name"
            )
        interface = interfaces[0]
        found = {key: interface.options.get(key) for key in TUNNEL_OPTIONS}
        if (found["remote_ip"], found["key"]) != ("flow", "flow") and not self.config.take_over:
            raise BridgeConflictError(
                f"tunnel port {name} has remote_ip={found['remote_ip']}, key={found['key']}, not "
                "flow, and a change would cut what uses it; set tunnel_port to another name, or "
                "take_over = true"
            )
        for key in TUNNEL_OPTIONS:
            if found[key] == wanted.get(key):
                continue
            if key in wanted:
                interface.setkey("options", key, wanted[key])
            else:
                interface.delkey("options", key)
            outcome.changes.append(
                f"{name}: {key} {wanted.get(key, 'not set')} (was {found[key] or 'not set'})"
            )


class UseUserspaceDatapath(BaseCommand):
    """Give the bridge the netdev datapath."""

    def __init__(self, api: Any, bridge: str) -> None:
        super().__init__(api)
        self.bridge = bridge

    def run_idl(self, txn: Any) -> None:  # noqa: ARG002 - the signature is ovsdbapp's
        bridge = find_row(self.api, "Bridge", self.bridge)
        if bridge is not None:
            bridge.datapath_type = "netdev"

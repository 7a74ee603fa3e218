"""The os-ken app: an ordinary OSKenApp around the agent.

Alone it is run by ``ondemand run``. Beside apps of your own, load it with os-ken's AppManager and tell
it where its configuration is::

    from os_ken import cfg
    from os_ken.base.app_manager import AppManager

    cfg.CONF([], project="my-controller")
    cfg.CONF.set_override("ondemand_config", "/etc/ondemand/agent.toml")
    AppManager.run_apps(["controller_app.app", "my_app"])

The app serves the one bridge that its configuration names. Other switches, and packet-ins that other
apps' rules send, take os-ken's usual way.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import math
import queue
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from os_ken import cfg
from os_ken.base import app_manager
from os_ken.ofproto import ofproto_v1_3

from controller_app.agent import Agent
from controller_app.config import AgentConfig, load_config
from controller_app.conntrack_limits import ConntrackLimits
from controller_app.holdings_file import HoldingsFile
from controller_app.hot_listener import Installation, install
from controller_app.metrics import write_metrics
from controller_app.openflow_address import plain, wait_until_listening
from controller_app.openflow_listener import ListenError, listen_at
from controller_app.ovsdb import (
    BridgeGone,
    BridgeState,
    LockLost,
    Ovsdb,
    OvsdbError,
    OvsdbEvent,
    OvsdbUnreachableError,
    VswitchdSilentError,
    lost_lock_error,
)
from controller_app.ovsdb_errors import ForeignRulesError
from controller_app.ovsdb_flow_tables import eviction_groups
from controller_app.served_log import ServedLog
from controller_app.source_factory import open_source
from controller_app.tunnel_address import TunnelAddressWatch
from controller_app.vswitchd_control import ProcessWatch, control_socket, run_directory
from ondemand.engine import Engine
from ondemand.slices import SourceError
from rule_cache.cookie import ROUNDS

LOG = logging.getLogger(__name__)

DEFAULT_CONFIG: Final = "/etc/ondemand/agent.toml"
#: Seconds between attempts to set the bridge up while a daemon of Open vSwitch is silent.
RETRY_S: Final = 1.0
#: Seconds between looks at the mailbox while no switch is connected.
IDLE_S: Final = 0.2
#: Seconds that an agent which is replaced may take to leave the address where the switch connects to.
LEAVE_S: Final = 10.0
#: Seconds that os-ken's listener may take to begin.
LISTEN_S: Final = 5.0

cfg.CONF.register_cli_opts(
    [
        cfg.StrOpt(
            "ondemand-config", default=DEFAULT_CONFIG, help="configuration of the agent (TOML)"
        ),
        cfg.BoolOpt(
            "ondemand-replace-agent",
            default=False,
            help="end an agent that serves the bridge already, and go on in its place",
        ),
        cfg.BoolOpt(
            "ondemand-fresh",
            default=False,
            help="forget what an earlier agent held, and read all slices anew",
        ),
    ]
)
app_manager.require_app("os_ken.controller.ofp_handler")


class _BridgeEvent(enum.Enum):
    """What the bridge's thread acts on."""

    CONNECTED = enum.auto()
    GONE = enum.auto()
    END = enum.auto()


class OnDemandApp(app_manager.OSKenApp):
    """Programs one bridge on demand.

    Attributes:
        agent: the agent; ``agent.status()`` has its counters.
        failed: set when the app had to give up; ``failure`` says why.
    """

    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]  # noqa: RUF012 - os-ken wants this very attribute
    LOGGER_NAME = __name__

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.config: AgentConfig = load_config(Path(self.CONF.ondemand_config))
        self.failed = threading.Event()
        self.failure: OvsdbError | ListenError | None = None
        self._when_failed: Callable[[], None] | None = None
        self._stopping = threading.Event()
        self._bridge_events: queue.SimpleQueue[_BridgeEvent] = queue.SimpleQueue()
        #: ovs-vswitchd is to be told something as soon as it is connected.
        self._touch_due = True
        self._ovsdb: Ovsdb | None = None
        if self.CONF.ondemand_replace_agent:
            self._ovsdb = self._replace_agent()
        self._source = open_source(self.config)
        engine = Engine(
            host=self.config.host_id,
            tunnel_ip=self.config.tunnel_ip,
            settings=self.config.settings,
            round_number=secrets.randbelow(ROUNDS),
            # A random start keeps the marks of an earlier agent's connections from matching.
            first_epoch=1 + secrets.randbelow(1 << 31),
            saving=self.config.holdings_file is not None,
        )
        self._warner = self.config.warner(LOG)
        self.agent = Agent(
            engine,
            self._source,
            warn=self._warner,
            saved=self._saved_holdings(),
            replace=self.CONF.ondemand_replace_agent,
            on_foreign=self._other_hosts_rules,
        )
        self._tunnel_address = TunnelAddressWatch(
            self._source,
            self.config.host_id,
            self.config.tunnel_ip,
            version=engine.cache.version,
            warn=self._warner,
        )
        self._tables = eviction_groups(engine.pipeline)
        self._conntrack: ConntrackLimits | None = None
        self._vswitchd: ProcessWatch | None = None
        listen_at(self.CONF, self.config.bridge.controller)
        self._installation: Installation = install(self.agent)

    def start(self) -> None:
        """Begin to serve the bridge; called by os-ken."""
        super().start()
        for name, target in (
            ("ondemand-ovsdb", self._serve_bridge),
            ("ondemand-idle", self._idle),
        ):
            threading.Thread(target=target, name=name, daemon=True).start()
        self._tunnel_address.start()

    def close(self) -> None:
        """End the agent's threads; rules stay in the switch. Called by os-ken, idempotent."""
        self._stopping.set()
        self._bridge_events.put(_BridgeEvent.END)
        self._installation.uninstall()
        self._tunnel_address.close()
        if self._conntrack is not None:
            self._conntrack.close()
        self.agent.close()
        self._source.close()
        self._warner.close()

    def when_failed(self, call: Callable[[], None]) -> None:
        """Have ``call`` called, by any thread, as soon as the app has had to give up."""
        self._when_failed = call
        if self.failed.is_set():
            call()

    def _saved_holdings(self) -> HoldingsFile | None:
        """Where the holdings are saved, None when they are not to be or cannot be."""
        path = self.config.holdings_file
        if path is None:
            return None
        # That there is no folder is told when the file is to be made.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        if self.CONF.ondemand_fresh:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                self._warner(
                    f"what an earlier agent held cannot be forgotten ({path}: {error.strerror}):"
                    " remove that file as root and restart the agent"
                )
        try:
            identity = self._source.identity()
        except SourceError:
            identity = None
        return HoldingsFile(path, host=self.config.host_id, source=identity, warn=self._warner)

    def _replace_agent(self) -> Ovsdb:
        """Take the bridge from the agent that serves it, and wait until that one is gone.

        Raises:
            OvsdbError: OVSDB does not answer; nothing has been taken.
            ListenError: the address is still in use after LEAVE_S.
        """
        ovsdb = Ovsdb.connect(self.config.bridge, stop=self._stopping, replace=True)
        target = self.config.bridge.controller
        if not wait_until_listening(target, wanted=False, timeout_s=LEAVE_S, stop=self._stopping):
            ovsdb.close()
            raise ListenError(
                f"somebody still listens on {plain(target)}, {LEAVE_S:g} s after this agent took"
                f" bridge {self.config.bridge} over: end that process (ss -lxtnp names it), then start"
                " again"
            )
        return ovsdb

    def _serve_bridge(self) -> None:
        """Hold the bridge: create or adopt it, follow its ports, make it again when it is removed."""
        try:
            with self._ovsdb or Ovsdb.connect(
                self.config.bridge, patience_s=math.inf, stop=self._stopping
            ) as ovsdb:
                while not self._stopping.is_set():
                    self._hold_bridge(ovsdb)
        except (OvsdbError, ListenError) as error:
            if not self._stopping.is_set():
                self._give_up(error)

    def _hold_bridge(self, ovsdb: Ovsdb) -> None:
        """Bring the bridge into being and follow its ports until it is gone."""
        # The switch is made to connect at once, which is of no use before there is a listener.
        target = self.config.bridge.controller
        if not wait_until_listening(target, wanted=True, timeout_s=LISTEN_S, stop=self._stopping):
            raise ListenError(f"os-ken does not listen on {plain(target)}; its log says why")
        try:
            state = ovsdb.ensure_bridge(
                ready=self._bridge_ready, reconnect=not self.agent.is_connected
            )
            ovsdb.set_flow_table_limits(self._tables, limit=self.config.switch_table_rules)
        except (OvsdbUnreachableError, VswitchdSilentError) as error:
            # Both pass: a daemon is being restarted.
            LOG.warning("%s; trying again every %g s", error, RETRY_S)
            self._stopping.wait(RETRY_S)
            return
        self._follow_vswitchd(ovsdb, state)
        ovsdb.watch(self._ovsdb_event)
        while True:
            match self._bridge_events.get():
                case _BridgeEvent.CONNECTED:
                    self._switch_connected(ovsdb)
                case _:
                    return

    def _bridge_ready(self, state: BridgeState) -> None:
        """The switch may connect from now on."""
        LOG.info(
            "bridge %s is ready: datapath %s, id %016x",
            state.bridge,
            state.datapath_type,
            state.datapath_id,
        )
        self.agent.serve_switch(state.datapath_id)

    def _switch_connected(self, ovsdb: Ovsdb) -> None:
        try:
            ovsdb.touch()
        except (OvsdbUnreachableError, VswitchdSilentError) as error:
            # It connects again when it is back, and is told then.
            LOG.warning("%s", error)

    def _follow_vswitchd(self, ovsdb: Ovsdb, state: BridgeState) -> None:
        if self._vswitchd is not None:
            return
        folder = ovsdb.run_directory() or run_directory(self.config.bridge.ovsdb)
        if self.config.max_connections_per_port:
            self._conntrack = ConntrackLimits(
                f"{state.datapath_type}@ovs-{state.datapath_type}",
                lambda: control_socket(folder),
                limit=self.config.max_connections_per_port,
                warn=self._warner,
            )
        self._vswitchd = ProcessWatch(folder)

    def _ovsdb_event(self, event: OvsdbEvent) -> None:
        if isinstance(event, LockLost):
            self._give_up(lost_lock_error(self.config.bridge, taken=event.taken))
        elif isinstance(event, BridgeGone):
            LOG.warning("bridge %s was removed; it is made again", event.bridge)
            self._bridge_events.put(_BridgeEvent.GONE)
        else:
            self.agent.post(event)

    def _other_hosts_rules(self) -> None:
        self._give_up(ForeignRulesError(self.config.bridge.bridge, self.config.host_id))

    def _give_up(self, error: OvsdbError | ListenError) -> None:
        LOG.error("%s", error)
        self.failure = error
        self.failed.set()
        if self._when_failed is not None:
            self._when_failed()

    def _idle(self) -> None:
        """Housekeeping that belongs to no connection."""
        since_metrics_s = 0.0
        served = ServedLog()
        while not self._stopping.wait(IDLE_S):
            self.agent.idle()
            self._warner.flush()
            self._look_at_switch()
            zones = self.agent.zones()
            served.tell(zones, time.monotonic())
            if self._conntrack is not None:
                self._conntrack.ensure(zones.values())
            since_metrics_s += IDLE_S
            if self.config.metrics_file is not None and since_metrics_s >= self.config.metrics_s:
                since_metrics_s = 0.0
                status = self.agent.status()
                if self._conntrack is not None:
                    status["connections"] = self._conntrack.by_port(zones)
                    self._conntrack.read_usage()
                write_metrics(self.config.metrics_file, status)

    def _look_at_switch(self) -> None:
        """Notice that it connected, or that ovs-vswitchd is another process.

        The database tells the first only seconds later, and the second not for sure.
        """
        if self._vswitchd is not None and self._vswitchd.changed():
            self._touch_due = True
            if self._conntrack is not None:
                self._conntrack.renew()
        if not self.agent.is_connected:
            self._touch_due = True
        elif self._touch_due:
            self._touch_due = False
            self._bridge_events.put(_BridgeEvent.CONNECTED)

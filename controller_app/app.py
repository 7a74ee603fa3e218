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

import logging
import math
import secrets
import socket
import threading
from pathlib import Path
from typing import Any, Final

from os_ken import cfg
from os_ken.base import app_manager
from os_ken.ofproto import ofproto_v1_3

from controller_app.agent import Agent
from controller_app.config import AgentConfig, load_config
from controller_app.hot_listener import Installation, install
from controller_app.metrics import write_metrics
from controller_app.ovsdb import (
    BridgeGone,
    LockLost,
    Ovsdb,
    OvsdbError,
    OvsdbEvent,
    OvsdbUnreachableError,
    SecondAgentError,
    VswitchdSilentError,
    lock_name,
)
from controller_app.source_factory import open_source
from ondemand.engine import Engine
from rule_cache.cookie import ROUNDS

LOG = logging.getLogger(__name__)

DEFAULT_CONFIG: Final = "/etc/ondemand/agent.toml"
#: Seconds between attempts to set the bridge up while a daemon of Open vSwitch is silent.
RETRY_S: Final = 1.0
#: Seconds between looks at the mailbox while no switch is connected.
IDLE_S: Final = 0.2

cfg.CONF.register_cli_opts(
    [
        cfg.StrOpt(
            "ondemand-config", default=DEFAULT_CONFIG, help="configuration of the agent (TOML)"
        )
    ]
)
app_manager.require_app("os_ken.controller.ofp_handler")


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
        self.failure: OvsdbError | None = None
        self._stopping = threading.Event()
        self._gone = threading.Event()
        self._source = open_source(self.config)
        engine = Engine(
            host=self.config.host_id,
            tunnel_ip=self.config.tunnel_ip,
            settings=self.config.settings,
            round_number=secrets.randbelow(ROUNDS),
            # A random start keeps the marks of an earlier agent's connections from matching.
            first_epoch=1 + secrets.randbelow(1 << 31),
        )
        self._warner = self.config.warner(LOG)
        self.agent = Agent(engine, self._source, warn=self._warner)
        self._listen()
        self._installation: Installation = install(self.agent)

    def start(self) -> None:
        """Begin to serve the bridge; called by os-ken."""
        super().start()
        for name, target in (
            ("ondemand-ovsdb", self._serve_bridge),
            ("ondemand-idle", self._idle),
        ):
            threading.Thread(target=target, name=name, daemon=True).start()

    def close(self) -> None:
        """End the agent's threads; rules stay in the switch. Called by os-ken, idempotent."""
        self._stopping.set()
        self._gone.set()
        self._installation.uninstall()
        self.agent.close()
        self._source.close()
        self._warner.close()

    def _listen(self) -> None:
        """Tell os-ken's listener where to listen: only where the bridge will connect to."""
        kind, _, rest = self.config.bridge.controller.partition(":")
        if kind == "unix":
            Path(rest).unlink(missing_ok=True)
            self.CONF.set_override("ofp_listen_host", rest)
            self.CONF.set_override("ofp_tcp_listen_port", 6653)
            return
        address, _, port = rest.rpartition(":")
        _check_free(address.strip("[]"), int(port))
        self.CONF.set_override("ofp_listen_host", address.strip("[]"))
        self.CONF.set_override("ofp_tcp_listen_port", int(port))

    def _serve_bridge(self) -> None:
        """Hold the bridge: create or adopt it, follow its ports, make it again when it is removed."""
        try:
            with Ovsdb.connect(
                self.config.bridge, patience_s=math.inf, stop=self._stopping
            ) as ovsdb:
                while not self._stopping.is_set():
                    self._gone.clear()
                    self._hold_bridge(ovsdb)
        except OvsdbError as error:
            if not self._stopping.is_set():
                self._give_up(error)

    def _hold_bridge(self, ovsdb: Ovsdb) -> None:
        """Bring the bridge into being and follow its ports until it is gone."""
        try:
            state = ovsdb.ensure_bridge()
        except (OvsdbUnreachableError, VswitchdSilentError) as error:
            # Both pass: a daemon is being restarted.
            LOG.warning("%s; trying again every %g s", error, RETRY_S)
            self._stopping.wait(RETRY_S)
            return
        LOG.info(
            "bridge %s is ready: datapath %s, id %016x",
            state.bridge,
            state.datapath_type,
            state.datapath_id,
        )
        self.agent.serve_switch(state.datapath_id)
        ovsdb.watch(self._ovsdb_event)
        self._gone.wait()

    def _ovsdb_event(self, event: OvsdbEvent) -> None:
        if isinstance(event, LockLost):
            self._give_up(SecondAgentError(event.bridge, lock_name(self.config.bridge)))
        elif isinstance(event, BridgeGone):
            LOG.warning("bridge %s was removed; it is made again", event.bridge)
            self._gone.set()
        else:
            self.agent.post(event)

    def _give_up(self, error: OvsdbError) -> None:
        LOG.error("%s", error)
        self.failure = error
        self.failed.set()

    def _idle(self) -> None:
        """Housekeeping that belongs to no connection."""
        since_metrics_s = 0.0
        while not self._stopping.wait(IDLE_S):
            self.agent.idle()
            self._warner.flush()
            since_metrics_s += IDLE_S
            if self.config.metrics_file is not None and since_metrics_s >= self.config.metrics_s:
                since_metrics_s = 0.0
                write_metrics(self.config.metrics_file, self.agent.status())


def _check_free(address: str, port: int) -> None:
    """Raise OSError if nobody can listen there: os-ken's listener, on its own thread, would only log it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise OSError(
                f"cannot listen for the switch on tcp:{address}:{port}: {error.strerror}; another"
                " agent or controller may have it: give this one another address ([bridge] controller)"
            ) from None

"""The agent as a process of its own, without OVSDB: what a port's arrival would tell comes as options.

All else is what ``ondemand run`` runs: the engine, the slice store, os-ken with the hot connection,
and the collector's settings. With ``--dispatch stock`` os-ken's own way to an app takes the place of the
hot connection (``stock_dispatch``).

    python -m benchmarks.agent_process --port PORT --store FILE --ports N
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

from benchmarks import vpc
from controller_app.agent import Agent
from controller_app.hot_listener import install
from controller_app.ovsdb_ports import InterfacesTold, PortSeen, TunnelSeen
from controller_app.run import GC_THRESHOLDS
from controller_app.sqlite_store import SqliteStore
from ondemand.addresses import parse_ip
from ondemand.engine import Engine
from ondemand.settings import Settings
from ondemand.slices import SliceSource

#: How the fake switch calls itself, and its port that leads to other hosts.
DATAPATH_ID = 0x0D5E
TUNNEL_PORT = 1000
IDLE_S = 0.05


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agent_process")
    parser.add_argument("--port", type=int, required=True, help="TCP port on 127.0.0.1")
    parser.add_argument("--store", type=Path, required=True, help="slice store (benchmarks.vpc)")
    parser.add_argument("--ports", type=int, required=True, help="local ports that are plugged in")
    parser.add_argument("--match", choices=("service", "connection"), default="service")
    parser.add_argument(
        "--whole",
        action="store_true",
        help="also load what the agent needs for OVSDB, for its memory",
    )
    parser.add_argument(
        "--dispatch",
        choices=("hot", "stock"),
        default="hot",
        help="who hands messages over: the hot connection, or os-ken's event queue (hot)",
    )
    parser.add_argument("--status", type=Path, help="write the agent's counters here at the end")
    options = parser.parse_args(arguments)
    stop = stop_event()
    settings = Settings(match_connection=options.match == "connection")
    agent = start(
        SqliteStore(options.store),
        settings,
        port=options.port,
        ports=options.ports,
        whole=options.whole,
        dispatch=options.dispatch,
    )
    while not stop.wait(IDLE_S):
        agent.idle()
    if options.status is not None:
        options.status.write_text(json.dumps(agent.status()))
    return 0


def stop_event() -> threading.Event:
    """Logs to standard error, and what a signal to end sets."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    stop = threading.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stop.set())
    return stop


def start(
    source: SliceSource,
    settings: Settings,
    *,
    port: int,
    ports: int,
    whole: bool,
    dispatch: str = "hot",
) -> Agent:
    """An agent that serves whoever connects to TCP ``port`` of the loopback.

    Args:
        source: its slices, of ``benchmarks.vpc``.
        settings: the engine's.
        port: where it listens.
        ports: local ports that are plugged in.
        whole: with all modules in memory that OVSDB takes.
        dispatch: ``hot`` or ``stock``.
    """
    # Imported as late as the agent's own command does it: os-ken reads its options at import.
    from os_ken import cfg  # noqa: PLC0415
    from os_ken.base.app_manager import AppManager  # noqa: PLC0415
    from os_ken.ofproto import ofproto_protocol, ofproto_v1_3  # noqa: PLC0415

    if whole:
        importlib.import_module("controller_app.app")
    cfg.CONF([], project="ondemand", default_config_files=[])
    manager = AppManager.get_instance()
    manager.load_apps(["os_ken.controller.ofp_handler"])
    cfg.CONF.set_override("ofp_listen_host", "127.0.0.1")
    cfg.CONF.set_override("ofp_tcp_listen_port", port)
    ofproto_protocol.set_app_supported_versions([ofproto_v1_3.OFP_VERSION])

    engine = Engine(
        host=vpc.HOST,
        tunnel_ip=parse_ip(vpc.TUNNEL_IP),
        settings=settings,
        round_number=1,
        first_epoch=1,
    )
    agent = Agent(engine, source)
    agent.serve_switch(DATAPATH_ID)
    agent.post(TunnelSeen("vxlan0", TUNNEL_PORT))
    for number in range(1, ports + 1):
        agent.post(PortSeen(vpc.port_id(number), f"tap{number}", number, None))
    agent.post(InterfacesTold("br-int"))
    if dispatch == "stock":
        manager.load_apps(["benchmarks.stock_dispatch"])
    else:
        install(agent)
    manager.instantiate_apps(agent=agent, **manager.create_contexts())
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return agent


def end(code: int) -> NoReturn:
    """End the process: os-ken's threads are no daemons, so nothing else ends them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    end(main())

"""``ondemand run``: os-ken with the one app, until a signal or a failure."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Final

LOG = logging.getLogger(__name__)

#: Objects that live as long as the process are taken out of the collector's sight after the start, and
#: the young generation is made large: collections of millisecond length would stand between packets.
GC_THRESHOLDS: Final = (50_000, 20, 100)


class _Ending:
    """What makes the process end: the first signal that asks for it, or a failure."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._by: signal.Signals | None = None

    def failed(self) -> None:
        """The app had to give up."""
        self.begun.set()

    def signaled(self, number: int, _frame: FrameType | None) -> None:
        """A signal handler: it must not log, as it may have interrupted a log call."""
        if self._by is None:
            self._by = signal.Signals(number)
        self.begun.set()

    def log(self) -> None:
        if self._by is not None:
            LOG.info("ended by %s; the rules stay in the switch", self._by.name)


def run_agent(config_path: Path, *, replace: bool = False, fresh: bool = False) -> int:
    """Run the agent; 0 after SIGTERM or SIGINT, 2 when it had to give up. Does not return otherwise.

    With ``replace`` it takes the place of an agent that serves the bridge; with ``fresh`` it forgets
    what an earlier agent held.

    Raises:
        ConfigError: the file cannot be used.
        OvsdbError, OSError: the agent cannot start.
    """
    # New flows wait for the start, and hardly anything that it makes is garbage.
    gc.disable()
    _leave_out_eventlet()
    from os_ken import cfg
    from os_ken.base.app_manager import AppManager

    from controller_app.app import OnDemandApp

    cfg.CONF([], project="ondemand", default_config_files=[])
    cfg.CONF.set_override("ondemand_config", str(config_path))
    cfg.CONF.set_override("ondemand_replace_agent", replace)
    cfg.CONF.set_override("ondemand_fresh", fresh)
    ending = _Ending()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ending.signaled)
    manager = AppManager.get_instance()
    manager.load_apps(["controller_app.app"])
    manager.instantiate_apps(**manager.create_contexts())
    app = next(a for a in manager.applications.values() if isinstance(a, OnDemandApp))
    app.when_failed(ending.failed)
    # Without a collection before it: the switch is connecting, and would have to wait for its end.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()
    while not ending.begun.is_set():
        # Bounded, so that a signal is handled soon wherever it arrives.
        ending.begun.wait(0.2)
    code = 0
    if app.failure is not None:
        print(f"ondemand: {app.failure}", file=sys.stderr)  # noqa: T201 - the command's one error line
        code = 2
    app.close()
    if code == 0:
        ending.log()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # os-ken's native threads are no daemons and cannot be ended from outside.
    os._exit(code)


def _leave_out_eventlet() -> None:
    """Keep python-ovs from loading eventlet, which it does where that is installed.

    It only asks it whether it is in use, which it is not beside native threads, and that takes as
    long as loading os-ken.
    """
    if os.environ.get("OSKEN_HUB_TYPE", "native") == "native":
        sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type]

"""From the configuration to the slice source that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from controller_app.config import AgentConfig
from controller_app.sqlite_file import StoreOptions
from controller_app.sqlite_store import SqliteStore
from ondemand.slices import SliceSource


def _open_sqlite(config: AgentConfig) -> SliceSource:
    options = StoreOptions(poll_interval_s=config.source_poll_s)
    return SqliteStore(config.source_file, options=options)


#: [source] kind -> what opens it. The kinds are the choices of that key in ``config_keys``.
OPENERS: Final[Mapping[str, Callable[[AgentConfig], SliceSource]]] = MappingProxyType(
    {"sqlite": _open_sqlite}
)


def open_source(config: AgentConfig) -> SliceSource:
    """The source, not connected yet: what it cannot do is told when it is asked."""
    return OPENERS[config.source_kind](config)

"""From the configuration to the slice source that it names."""

from __future__ import annotations

from controller_app.config import AgentConfig
from controller_app.sqlite_file import StoreOptions
from controller_app.sqlite_store import SqliteStore
from ondemand.slices import SliceSource


def open_source(config: AgentConfig) -> SliceSource:
    """The source, not connected yet: what it cannot do is told when it is asked."""
    options = StoreOptions(poll_interval_s=config.source_poll_s)
    return SqliteStore(config.source_file, options=options)

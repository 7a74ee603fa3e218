"""From the configuration, or from a path or URL, to the slice source that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from controller_app.config import AgentConfig
from controller_app.nats_options import is_store_url, parse_store_url
from controller_app.sqlite_file import StoreOptions
from controller_app.sqlite_store import SqliteStore
from ondemand.slices import SourceError

if TYPE_CHECKING:
    from controller_app.nats_store import NatsStore

#: A source that is a publisher and has a listing too.
SliceStore: TypeAlias = "SqliteStore | NatsStore"


def _open_sqlite(config: AgentConfig) -> SliceStore:
    if config.source_file is None:
        raise ValueError("a configuration of kind sqlite without a file")
    options = StoreOptions(poll_interval_s=config.source_poll_s)
    return SqliteStore(config.source_file, options=options)


def _open_nats(config: AgentConfig) -> SliceStore:
    # Takes a tenth of a second to import, for those who use it.
    from controller_app.nats_store import NatsStore

    if config.source_nats is None:
        raise ValueError("a configuration of kind nats without servers")
    return NatsStore(config.source_nats)


#: [source] kind -> what opens it. The kinds are the choices of that key in ``config_keys``.
OPENERS: Final[Mapping[str, Callable[[AgentConfig], SliceStore]]] = MappingProxyType(
    {"sqlite": _open_sqlite, "nats": _open_nats}
)


def open_source(config: AgentConfig) -> SliceStore:
    """The source, not connected yet: what it cannot do is told when it is asked."""
    return OPENERS[config.source_kind](config)


def open_store(place: str, *, writer: bool = False) -> SliceStore:
    """The store at a path, or at a URL as ``parse_store_url`` reads it; not connected yet.

    Raises:
        SourceError: the URL is none.
    """
    if not is_store_url(place):
        return SqliteStore(Path(place), writer=writer)
    from controller_app.nats_store import NatsStore

    try:
        address = parse_store_url(place)
    except ValueError as error:
        raise SourceError(str(error)) from None
    return NatsStore(address, writer=writer)

"""Options that several ``slices`` commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

STORE_HELP: Final = "The slice store: an SQLite file, or nats://HOST:PORT[/STREAM]."

store_option: Final[Decorator] = click.option(
    "--store", "place", required=True, metavar="FILE|URL", help=STORE_HELP
)
json_option: Final[Decorator] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for a program."
)

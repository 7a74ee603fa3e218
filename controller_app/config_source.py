"""``[source]`` of the configuration file: which source, and what each kind of source needs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from controller_app.config_file import Values
from controller_app.nats_options import (
    DEFAULT_STREAM,
    URL_KEYS,
    NatsAddress,
    address_problem,
    login_problems,
    parse_servers,
)

#: Keys of [source] that are paths.
SOURCE_PATHS: Final = ("file", "password_file", "credentials", "tls_ca", "tls_cert", "tls_key")


def nats_address(values: Values, folder: Path) -> NatsAddress | None:
    """Where the slices are when their kind is "nats"; relative paths start at ``folder``."""
    if values.get(("source", "kind")) != "nats":
        return None

    def text(name: str) -> str:
        return str(values.get(("source", name), ""))

    def place(name: str) -> Path | None:
        return folder / text(name) if text(name) else None

    return NatsAddress(
        servers=parse_servers(text("servers")),
        stream=text("stream") or DEFAULT_STREAM,
        user=text("user"),
        password_file=place("password_file"),
        credentials=place("credentials"),
        tls_ca=place("tls_ca"),
        tls_cert=place("tls_cert"),
        tls_key=place("tls_key"),
    )


def source_problems(values: Values) -> list[str]:
    """What is wrong with [source] beyond kinds and ranges."""
    problems = []
    servers = values.get(("source", "servers"))
    if servers is not None:
        problem = address_problem(parse_servers(str(servers)), DEFAULT_STREAM)
        if problem:
            problems.append(f"[source] servers = {problem}")
    stream = values.get(("source", "stream"))
    if stream is not None:
        problem = address_problem(("nats://host",), str(stream))
        if problem:
            problems.append(f"[source] stream = {problem}")
    given = {name: values.get(("source", name)) for name in URL_KEYS}
    problems += [f"[source] {problem}" for problem in login_problems(given)]
    return problems

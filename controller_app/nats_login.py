"""Who we are to the server, and how we know it: options of the client library."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from controller_app.nats_options import NatsAddress


def login_options(address: NatsAddress) -> dict[str, Any]:
    """Arguments of ``nats.aio.client.Client.connect``.

    Raises:
        OSError: a file cannot be read, or is no certificate or key.
    """
    found: dict[str, Any] = {}
    if address.user:
        found["user"] = address.user
    path = address.password_file
    if path is not None:
        # Read at each connection, so that a new password needs no restart.
        found["password"] = lambda: _first_line(path)
    if address.credentials is not None:
        found["user_credentials"] = str(address.credentials)
    if address.uses_tls:
        found["tls"] = _tls_context(address)
    return found


def _first_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines[0] if lines else ""


def _tls_context(address: NatsAddress) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=address.tls_ca)
    if address.tls_cert is not None:
        context.load_cert_chain(address.tls_cert, address.tls_key)
    return context

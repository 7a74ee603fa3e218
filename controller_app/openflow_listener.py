"""Where os-ken's listener listens: at the one address that the bridge connects to."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from controller_app.openflow_address import answers, is_listening, plain


class ListenError(OSError):
    """Nobody can listen there, or nobody does; the message names the address and the mend."""


def listen_at(conf: Any, target: str) -> None:
    """Tell os-ken's configuration ``conf`` to listen at ``target``, a controller target of OVSDB.

    Raises:
        ListenError: that will not do. os-ken's listener, on a thread of its own, would only log it.
    """
    target = plain(target)
    kind, _, rest = target.partition(":")
    if is_listening(target) or (kind == "unix" and answers(rest)):
        raise ListenError(
            f"cannot listen for the switch on {target}: somebody listens there already; if that is an"
            " agent of this bridge, take its place with ondemand run --replace-agent, otherwise give"
            " this one another address ([bridge] controller)"
        )
    if kind == "unix":
        Path(rest).unlink(missing_ok=True)
        host, port = rest, 6653
    else:
        address, _, number = rest.rpartition(":")
        host, port = address.strip("[]"), int(number)
        _try_to_bind(target, host, port)
    conf.set_override("ofp_listen_host", host)
    conf.set_override("ofp_tcp_listen_port", port)


def _try_to_bind(target: str, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ListenError(
                f"cannot listen for the switch on {target}: {error.strerror}; give the agent another"
                " address ([bridge] controller)"
            ) from None

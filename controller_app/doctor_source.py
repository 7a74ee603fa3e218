"""Checks of a NATS server that slices come from: is it there, may this host log in, is the stream sound.

Nothing is written. Each server is asked for the line that it greets every client with (INFO, the client
protocol of NATS), before any login.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from controller_app.config import AgentConfig
from controller_app.doctor_check import Check, Status, dotted, version_of
from controller_app.nats_options import NatsAddress, NatsOptions
from ondemand.slices import SourceError

if TYPE_CHECKING:
    from controller_app.nats_link import NatsLink

#: The oldest release that the tests run with.
OLDEST_NATS: Final = (2, 9)
#: Seconds.
CONNECT_TIMEOUT_S: Final = 2.0

#: A server's greeting is one line; longer than this it is something else.
_LONGEST_GREETING: Final = 64 * 1024
#: Milliseconds from which a first packet is late because of the server.
_SLOW_MS: Final = 50


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a server says of itself (INFO)."""

    version: str
    has_jetstream: bool
    requires_login: bool
    requires_tls: bool


def source_checks(config: AgentConfig) -> Iterator[Check]:
    """Of a source that is a server; none of another. Ends where looking further makes no sense."""
    address = config.source_nats
    if config.source_kind != "nats" or address is None:
        return
    found = [server_check(server) for server in address.servers]
    if all(check.status is Status.FAIL for check in found):
        yield from found
        return
    for check in found:
        # One server is enough for an agent.
        is_spare = check.status is Status.FAIL
        yield replace(check, status=Status.WARN) if is_spare else check
    yield from _server_side(address)


def server_check(server: str) -> Check:
    """One server, by its URL: does it answer, and is it one that can hold slices."""
    parsed = urllib.parse.urlsplit(server)
    host, port = parsed.hostname or "", parsed.port or 0
    name, place = "nats server", f"{host}:{port}"
    try:
        greeting = greet(host, port)
    except OSError as error:
        reason = error.strerror or str(error) or "no answer in time"
        return Check(
            name,
            Status.FAIL,
            f"{place} cannot be reached: {reason}",
            "start nats-server there, or mend [source] servers, a firewall or the route",
        )
    except ValueError:
        return Check(
            name,
            Status.FAIL,
            f"what listens at {place} does not greet as a NATS server does",
            "give the port for clients in [source] servers, 4222 by default",
        )
    facts = [f"{place}: nats-server {greeting.version}"]
    facts.append("TLS required" if greeting.requires_tls else "no TLS required")
    facts.append("login required" if greeting.requires_login else "no login required")
    text = ", ".join(facts)
    if not greeting.has_jetstream:
        return Check(
            name,
            Status.FAIL,
            f"{text}; it has no JetStream",
            "start it with -js, or with jetstream { store_dir: ... } in its configuration",
        )
    if version_of(greeting.version) < OLDEST_NATS:
        return Check(
            name, Status.WARN, text, f"older than {dotted(OLDEST_NATS)}, with which this was tested"
        )
    if greeting.requires_login and not greeting.requires_tls and not _is_loopback(host):
        return Check(
            name,
            Status.WARN,
            f"{text}: a password would cross the network in the clear",
            "give the server a certificate (tls) and [source] servers = tls://..., or use credentials",
        )
    return Check(name, Status.OK, text)


def greet(host: str, port: int) -> Greeting:
    """What a server says to who connects.

    Raises:
        OSError: it does not answer.
        ValueError: what it says is no greeting.
    """
    with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S) as link:
        line = _line(link)
    word, _, text = line.partition(b" ")
    if word != b"INFO":
        raise ValueError("no greeting")
    info = _table(json.loads(text))
    return Greeting(
        version=str(info.get("version", "")),
        has_jetstream=bool(info.get("jetstream")),
        requires_login=bool(info.get("auth_required")),
        requires_tls=bool(info.get("tls_required")),
    )


def _line(link: socket.socket) -> bytes:
    data = b""
    deadline_s = time.monotonic() + CONNECT_TIMEOUT_S
    while b"\n" not in data and len(data) < _LONGEST_GREETING:
        if time.monotonic() > deadline_s:
            raise TimeoutError("no greeting in time")
        part = link.recv(4096)
        if not part:
            break
        data += part
    return data.partition(b"\n")[0]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _server_side(address: NatsAddress) -> Iterator[Check]:
    """Whether this host gets in, and what the stream is like."""
    # With the client library, a tenth of a second to import for those who use it.
    from controller_app.nats_link import NatsLink

    link = NatsLink(address, NatsOptions())
    try:
        try:
            link.call(link.ready)
        except SourceError as error:
            yield Check("nats login", Status.FAIL, str(error))
            return
        yield Check("nats login", Status.OK, f"let in {_who(address)}")
        yield _stream(link, address)
    finally:
        link.close()


def _who(address: NatsAddress) -> str:
    if address.credentials is not None:
        return f"with {address.credentials}"
    if address.user:
        return f"as {address.user}"
    if address.tls_cert is not None:
        return f"with {address.tls_cert}"
    return "without a login"


def _stream(link: NatsLink, address: NatsAddress) -> Check:
    """The stream, as far as whoever made it was free to choose; that it can hold slices is checked too."""
    from controller_app.nats_faults import NotPermittedError
    from controller_app.nats_messages import NatsMessages

    name = "nats stream"
    messages = NatsMessages(link)
    try:
        link.call(messages.store)
        start_s = time.monotonic()
        link.call(lambda: messages.last(messages.subjects.store))
        took_ms = (time.monotonic() - start_s) * 1000
    except NotPermittedError as error:
        return Check(name, Status.WARN, str(error))
    except SourceError as error:
        return Check(name, Status.FAIL, str(error))
    try:
        answer = link.call(lambda: link.api(f"STREAM.INFO.{address.stream}", {}))
    except NotPermittedError:
        text = (
            f"{address.stream}: a record is read in {took_ms:.1f} ms; this user may not ask how the "
            "stream is made and need not"
        )
        return Check(name, Status.OK, text)
    except SourceError as error:
        return Check(name, Status.FAIL, str(error))
    made, state = (_table(answer.get(key)) for key in ("config", "state"))
    facts = [
        f"{address.stream}: {state.get('messages', '?')} messages, {state.get('bytes', '?')} bytes",
        f"storage {made.get('storage')}",
        f"replicas {made.get('num_replicas')}",
        f"a record is read in {took_ms:.1f} ms",
    ]
    text = ", ".join(facts)
    problem = stream_problem(made)
    if problem is not None:
        return Check(name, Status.WARN, f"{text}; {problem[0]}", problem[1])
    if took_ms > _SLOW_MS:
        mend = "a first packet to a neighbor not held waits for it: use a server that is nearer"
        return Check(name, Status.WARN, text, mend)
    return Check(name, Status.OK, text)


def stream_problem(made: Mapping[str, Any]) -> tuple[str, str] | None:
    """What the stream's configuration will cost one day, and the mend; None: nothing."""
    edit = f"nats stream edit {made.get('name')}"
    if made.get("max_age"):
        return "what is older than its max_age is lost", f"{edit} --max-age=-1, then publish again"
    if made.get("max_msgs_per_subject", -1) == 1:
        return (
            "it keeps one message of a slice, which may need two",
            f"{edit} --max-msgs-per-subject=-1, then publish again",
        )
    has_limit = any(made.get(key, -1) > 0 for key in ("max_bytes", "max_msgs"))
    if has_limit and made.get("discard") == "old":
        return "when it is full, slices are lost", f"{edit} --discard=new, or raise its limits"
    if made.get("storage") == "memory":
        return (
            "a server that restarts alone has nothing",
            "make it on file: nats stream rm, and publish again",
        )
    return None


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}

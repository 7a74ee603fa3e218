"""Where a NATS server is, who we are to it, and how the store behaves. Values only."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller_app.nats_subjects import STREAM_PATTERN, is_stream_name

DEFAULT_STREAM: Final = "ondemand"
DEFAULT_PORT: Final = 4222
SCHEMES: Final = ("nats", "tls")
#: What the URL of a store may say behind "?", and what it means: see ``NatsAddress``.
URL_KEYS: Final = ("user", "password_file", "credentials", "tls_ca", "tls_cert", "tls_key")


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """One stream on one server or cluster.

    Attributes:
        servers: URLs, ``nats://host:port`` or ``tls://host:port``; any of them will do.
        stream: the stream's name.
        user: for servers with users in their configuration; "": none, or as the URL has it.
        password_file: the password of ``user``, on its first line.
        credentials: file of a user's JWT and seed, or of the seed of an nkey alone; None: none.
        tls_ca: certificate authority of the server, PEM, the only one trusted; None: the system's.
        tls_cert, tls_key: our own certificate and key, PEM; None: none.
    """

    servers: tuple[str, ...]
    stream: str = DEFAULT_STREAM
    user: str = ""
    password_file: Path | None = None
    credentials: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        problem = address_problem(self.servers, self.stream)
        if problem:
            raise ValueError(problem)

    @property
    def uses_tls(self) -> bool:
        has_files = any((self.tls_ca, self.tls_cert, self.tls_key))
        return has_files or any(server.startswith("tls://") for server in self.servers)

    @property
    def url(self) -> str:
        """As ``parse_store_url`` reads it; with what the server is known by, and not who we are."""
        scheme = self.servers[0].partition("://")[0]
        hosts = ",".join(
            _without_login(server).partition("://")[2].rstrip("/") for server in self.servers
        )
        stream = f"/{self.stream}" if self.stream != DEFAULT_STREAM else ""
        query = f"?tls_ca={urllib.parse.quote(str(self.tls_ca))}" if self.tls_ca else ""
        return f"{scheme}://{hosts}{stream}{query}"

    @property
    def title(self) -> str:
        """How errors call it; no password is in it."""
        return f"NATS stream {self.stream!r} at {', '.join(map(_without_login, self.servers))}"


def address_problem(servers: tuple[str, ...], stream: str) -> str | None:
    """Why these are no address, None when they are."""
    if not servers:
        return "no server is given; give one as nats://host:4222"
    for server in servers:
        parsed = urllib.parse.urlsplit(server)
        try:
            is_sound = parsed.scheme in SCHEMES and parsed.hostname and parsed.port != 0
        except ValueError:
            is_sound = False
        if not is_sound or parsed.query or parsed.fragment or parsed.path not in ("", "/"):
            return f"{_without_login(server)!r} is no server; give it as nats://host:4222"
    if not is_stream_name(stream):
        return f"{stream!r} is no name of a stream; it must match {STREAM_PATTERN}"
    return None


def parse_servers(text: str) -> tuple[str, ...]:
    """Servers from a list with commas; a host without scheme or port gets the usual ones."""
    return tuple(_server(one.strip()) for one in text.split(",") if one.strip())


def parse_store_url(url: str) -> NatsAddress:
    """``nats://host:port,host:port/STREAM?KEY=VALUE&KEY=VALUE``; without a stream it is the usual one.

    Keys are those of ``URL_KEYS``, as in [source] of the configuration: ``tls_ca=/etc/ca.pem`` and so on.

    Raises:
        ValueError: the text is none.
    """
    place, _, query = url.partition("?")
    scheme, _, rest = place.partition("://")
    hosts, _, stream = rest.partition("/")
    servers = tuple(f"{scheme}://{host}" for host in hosts.split(",") if host)
    given = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    for key, value in given.items():
        if key not in URL_KEYS or not value:
            keys = ", ".join(URL_KEYS)
            raise ValueError(f"{key}={value} is nothing that a store may have; it may have {keys}")
    paths = {key: Path(value) for key, value in given.items() if key != "user"}
    address = NatsAddress(
        tuple(map(_server, servers)),
        stream or DEFAULT_STREAM,
        user=given.get("user", ""),
        password_file=paths.get("password_file"),
        credentials=paths.get("credentials"),
        tls_ca=paths.get("tls_ca"),
        tls_cert=paths.get("tls_cert"),
        tls_key=paths.get("tls_key"),
    )
    problems = login_problems(given)
    if problems:
        raise ValueError(f"in {address.url}, {problems[0]}")
    return address


def login_problems(given: Mapping[str, object]) -> list[str]:
    """What lacks its other half, of the keys in ``URL_KEYS`` that are given."""
    problems = []
    for one, others in (
        # A user whom the server knows by the certificate has no password.
        ("user", ("password_file", "tls_cert")),
        ("password_file", ("user",)),
        ("tls_cert", ("tls_key",)),
        ("tls_key", ("tls_cert",)),
    ):
        if given.get(one) and not any(map(given.get, others)):
            problems.append(f"{one} needs {' or '.join(others)} beside it")
    return problems


def is_store_url(text: str) -> bool:
    return text.partition("://")[0] in SCHEMES and "://" in text


def _server(text: str) -> str:
    url = text if "://" in text else f"nats://{text}"
    parsed = urllib.parse.urlsplit(url)
    try:
        has_port = parsed.port is not None
    except ValueError:
        return url
    return url if has_port or not parsed.hostname else f"{url.rstrip('/')}:{DEFAULT_PORT}"


def _without_login(server: str) -> str:
    scheme, mark, rest = server.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """How a store behaves. Times in seconds, sizes in bytes.

    ``timeout_s``: a server that does not answer within this is lost. ``retry_min_s`` and
    ``retry_max_s``: pauses between attempts to connect, shortened at random by up to half, so that the
    hosts of a cloud do not come all at once. ``audit_s``: how often a watch makes sure that the store
    is still the one it was, and looks at one of its slices. ``in_flight``: requests of one call at the
    same time. ``tombstones_per_slice``: removals that are remembered. ``whole_below``: a slice smaller
    than this is written whole each time. ``part_bytes``: a commit larger than this goes in parts.
    ``pending_messages`` and ``pending_bytes``: as much of one slice may wait to be received; what is more
    is dropped, and looked up.
    """

    timeout_s: float = 2.0
    retry_min_s: float = 0.05
    retry_max_s: float = 1.0
    audit_s: float = 10.0
    in_flight: int = 64
    tombstones_per_slice: int = 10_000
    whole_below: int = 4096
    part_bytes: int = 512 * 1024
    pending_messages: int = 4096
    pending_bytes: int = 16 << 20

"""Who we are to the server, and how we know it: options of the client library."""

from __future__ import annotations

import base64
import binascii
import json
import ssl
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controller_app.nats_faults import LoginError
from controller_app.nats_options import NatsAddress
from controller_app.nats_subjects import token_of

#: Where the server sends answers; who may read them is a permission.
INBOX: Final = "_INBOX"

_JWT_MARK: Final = "BEGIN NATS USER JWT"
_SEED_MARK: Final = "BEGIN USER NKEY SEED"


def login_options(address: NatsAddress) -> dict[str, Any]:
    """Arguments of ``nats.aio.client.Client.connect``; of TLS, see ``tls_context``.

    Answers come to an inbox with the user's name in it, so that the server can keep one host from
    reading those of another.

    Raises:
        OSError: a file cannot be read, or is not what it should be.
    """
    found: dict[str, Any] = {}
    user = address.user or next(filter(None, map(_user_in, address.servers)), "")
    path = address.password_file
    if path is not None:
        found["user"] = address.user
        # Read at each connection, so that a new password needs no restart.
        found["password"] = lambda: _text_of(path).partition("\n")[0].rstrip("\r")
    if address.credentials is not None:
        secret = read_credentials(address.credentials)
        user = secret.public_key
        if secret.jwt:
            found |= _by_jwt(address.credentials)
        else:
            found["nkeys_seed_str"] = secret.seed
    found["inbox_prefix"] = f"{INBOX}.{token_of(user)}" if user else INBOX
    return found


def _user_in(server: str) -> str:
    return urllib.parse.unquote(urllib.parse.urlsplit(server).username or "")


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise LoginError(f"{path} is no text: see what is in it") from None


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """A user's key, and the JWT that says what it may do; ``jwt`` "": the server knows the key."""

    jwt: str
    seed: str
    public_key: str


def read_credentials(path: Path) -> Credentials:
    """A credentials file as 'nsc' writes it, or the seed of an nkey alone.

    Raises:
        OSError: it cannot be read; LoginError when it holds something else, or a JWT that has expired.
    """
    lines = [line.strip() for line in _text_of(path).splitlines()]
    jwt = _after(lines, _JWT_MARK)
    seed = _after(lines, _SEED_MARK) if jwt else next(filter(_is_seed, lines), "")
    if not seed:
        raise LoginError(
            f"{path} holds no credentials: give a file with a user's JWT and seed, or with the seed of"
            " an nkey"
        )
    if jwt:
        expires = _expiry_of(path, jwt)
        if 0 < expires <= time.time():
            when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(expires))
            raise LoginError(f"the JWT in {path} expired at {when}: put new credentials there")
    return Credentials(jwt, seed, _public_key(path, seed))


def _after(lines: list[str], mark: str) -> str:
    for at, line in enumerate(lines[:-1]):
        if mark in line:
            return lines[at + 1]
    return ""


def _is_seed(line: str) -> bool:
    return line.startswith("SU") and line.isalnum()


def _expiry_of(path: Path, jwt: str) -> int:
    """Seconds since 1970, 0 for never."""
    parts = jwt.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return int(claims.get("exp", 0))
    except (IndexError, ValueError, TypeError, AttributeError):
        raise LoginError(
            f"{path} holds no JWT that can be read: put new credentials there"
        ) from None


def _public_key(path: Path, seed: str) -> str:
    import nkeys

    try:
        pair = nkeys.from_seed(bytearray(seed.encode()))
        return bytes(pair.public_key).decode()
    except (nkeys.NkeysError, binascii.Error, ValueError):
        raise LoginError(f"{path} holds no seed of a user: put new credentials there") from None


def _by_jwt(path: Path) -> dict[str, Any]:
    """Callbacks that read the file at each connection, so that new credentials need no restart."""

    def sign(nonce: str) -> bytes:
        import nkeys

        pair = nkeys.from_seed(bytearray(read_credentials(path).seed.encode()))
        return base64.b64encode(pair.sign(nonce.encode()))

    return {
        "user_jwt_cb": lambda: bytearray(read_credentials(path).jwt.encode()),
        "signature_cb": sign,
    }


def tls_context(address: NatsAddress) -> ssl.SSLContext:
    """TLS 1.2 or later; the server must have a certificate of its name that we trust.

    Raises:
        OSError: a file cannot be read, or is no certificate or key.
    """
    # Not create_default_context(cafile): an authority that is given replaces those of the system.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if address.tls_ca is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(_readable(address.tls_ca))
        except ssl.SSLError:
            raise LoginError(
                f"{address.tls_ca} holds no certificate in PEM: give another tls_ca"
            ) from None
    if address.tls_cert is not None and address.tls_key is not None:
        cert, key = _readable(address.tls_cert), _readable(address.tls_key)
        try:
            # An empty password instead of a prompt on the terminal.
            context.load_cert_chain(cert, key, password="")
        except ssl.SSLError:
            raise LoginError(
                f"{cert} and {key} are no certificate and its key in PEM without a password: give others as"
                " tls_cert and tls_key"
            ) from None
    return context


def _readable(path: Path) -> Path:
    """The path; an OSError of ``ssl`` would not name it."""
    with path.open("rb"):
        return path

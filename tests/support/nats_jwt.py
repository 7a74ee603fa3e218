"""Operators, accounts and users of NATS as signed JWTs, and the server configuration that holds them."""

from __future__ import annotations

import base64
import json
import os
import time
from dataclasses import dataclass, field
from typing import Any

import nkeys

ANY = -1


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """An nkey: ``seed`` is secret, ``public`` is what others call it by."""

    def __init__(self, prefix: int) -> None:
        self.seed = bytes(nkeys.encode_seed(os.urandom(32), prefix)).decode()
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public = bytes(self._pair.public_key).decode()

    def sign(self, name: str, subject: str, kind: str, claims: dict[str, Any], **more: Any) -> str:
        """A JWT of kind "operator", "account" or "user"."""
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        body = {
            "jti": _base64(os.urandom(16)),
            "iat": int(time.time()),
            "iss": self.public,
            "name": name,
            "sub": subject,
            "nats": {**claims, "type": kind, "version": 2},
            **more,
        }
        text = ".".join(_base64(json.dumps(part).encode()) for part in (head, body))
        return f"{text}.{_base64(self._pair.sign(text.encode()))}"


def user_key() -> Key:
    return Key(nkeys.PREFIX_BYTE_USER)


@dataclass(slots=True)
class Account:
    name: str
    jetstream: bool = False
    exports: list[dict[str, str]] = field(default_factory=list)
    imports: list[dict[str, str]] = field(default_factory=list)
    key: Key = field(default_factory=lambda: Key(nkeys.PREFIX_BYTE_ACCOUNT))

    def claims(self) -> dict[str, Any]:
        limits = dict.fromkeys(
            ("subs", "data", "payload", "imports", "exports", "conn", "leaf"), ANY
        )
        storage = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), ANY)
        return {
            "limits": {**limits, "wildcards": True, **(storage if self.jetstream else {})},
            "exports": self.exports,
            "imports": self.imports,
        }

    def credentials(
        self, name: str, *, expires: int | None = None, permissions: dict[str, Any] | None = None
    ) -> str:
        """The text of a credentials file of a new user. ``expires``: seconds since 1970.

        ``permissions``: a function of the user's public key gives what is allowed where it stands.
        """
        key = user_key()
        claims: dict[str, Any] = {"subs": ANY, "data": ANY, "payload": ANY}
        for verb, subjects in (permissions or {}).items():
            claims[verb] = {"allow": [one.replace("{user}", key.public) for one in subjects]}
        more = {} if expires is None else {"exp": expires}
        jwt = self.key.sign(name, key.public, "user", claims, **more)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{key.seed}\n------END USER NKEY SEED------\n"
        )


def operator_configuration(*accounts: Account) -> str:
    """Of a server that knows these accounts, and no others, from its configuration."""
    operator = Key(nkeys.PREFIX_BYTE_OPERATOR)
    system = Account("SYS")
    preload = "\n".join(
        f"  {one.key.public}: {operator.sign(one.name, one.key.public, 'account', one.claims())}"
        for one in (system, *accounts)
    )
    return (
        f"operator: {operator.sign('operator', operator.public, 'operator', {})}\n"
        f"system_account: {system.key.public}\n"
        f"resolver: MEMORY\nresolver_preload: {{\n{preload}\n}}\n"
    )

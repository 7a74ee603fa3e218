"""What a user of a NATS server may do, tried with a plain client, and configurations from the documents."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from controller_app.nats_client import NatsClient

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "nats-source.md"


def documented(start: str) -> str:
    """The block in docs/nats-source.md whose first line is this."""
    blocks = DOCUMENT.read_text(encoding="utf-8").split("```")[1::2]
    (found,) = [block for block in blocks if block.lstrip("\n").startswith(start)]
    return found


def refused(
    url: str,
    *,
    publish: Sequence[str] = (),
    subscribe: Sequence[str] = (),
    reply: str = "",
    **login: Any,
) -> set[str]:
    """Those of the subjects that the server says it lets fall."""

    async def run() -> set[str]:
        said: list[str] = []

        async def hear(error: Exception) -> None:
            said.append(str(error))

        async def ignore(_: object) -> None:
            return

        client = NatsClient()
        await client.connect(url, error_cb=hear, allow_reconnect=False, **login)
        found = set()
        try:
            for verb, subjects in (("publish", publish), ("subscription", subscribe)):
                for subject in subjects:
                    said.clear()
                    if verb == "publish":
                        await client.publish(subject, b"{}", reply=reply)
                    else:
                        await client.subscribe(subject, cb=ignore)
                    await client.flush()
                    if f'for {verb} to "{subject.lower()}"' in "".join(said):
                        found.add(subject)
            return found
        finally:
            await client.close()

    return asyncio.run(run())

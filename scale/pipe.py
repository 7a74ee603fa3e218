"""Orders to a child process and its answers: one JSON document on a line, over its standard streams."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from typing import Any, Final, Self

from scale.region import Region

#: A line may be so long; the state of a push of 10 MB to some hosts is the longest.
_LIMIT: Final = 1 << 30

Message = dict[str, Any]


def region_as_json(region: Region) -> Message:
    return asdict(region)


def region_of(found: Message) -> Region:
    return Region(**found)


def tell(message: Message) -> None:
    """Answer to the parent."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


class OrderReader:
    """Orders from standard input, on the loop."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    @classmethod
    async def of_stdin(cls) -> Self:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_LIMIT)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        return cls(reader)

    async def next(self) -> Message | None:
        """The next order; None when the parent is gone."""
        line = await self._reader.readline()
        found: Message | None = json.loads(line) if line else None
        return found

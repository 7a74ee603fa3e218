"""The tag index: which rules depended on what.

A tag names something that a verdict read: a record, also one that was absent, or a whole slice. When
it changes, the index says which rules to judge again. Cost: one set operation per rule and tag.
"""

from __future__ import annotations

from collections.abc import Iterable

Tag = str


class TagIndex:
    """Tags to cookies, and nothing else; the ledger holds the other direction."""

    __slots__ = ("_cookies",)

    def __init__(self) -> None:
        self._cookies: dict[Tag, set[int]] = {}

    def __len__(self) -> int:
        return len(self._cookies)

    def add(self, cookie: int, tags: Iterable[Tag]) -> None:
        index = self._cookies
        for tag in tags:
            cookies = index.get(tag)
            if cookies is None:
                index[tag] = {cookie}
            else:
                cookies.add(cookie)

    def remove(self, cookie: int, tags: Iterable[Tag]) -> None:
        index = self._cookies
        for tag in tags:
            cookies = index.get(tag)
            if cookies is not None:
                cookies.discard(cookie)
                if not cookies:
                    del index[tag]

    def cookies(self, tag: Tag) -> frozenset[int]:
        """The cookies of all rules that carry ``tag``, as of now."""
        return frozenset(self._cookies.get(tag, ()))

    def has(self, tag: Tag) -> bool:
        return tag in self._cookies

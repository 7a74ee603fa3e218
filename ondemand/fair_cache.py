"""A cache bounded in bytes that many owners share, and that one of them cannot take from the others.

Every entry is on the account of the owner who brought it. Nobody has a fixed share: a single owner
may fill the cache. When room is needed, whoever holds most gives up its own least recently used
entry, so an owner that floods the cache pushes out its own entries as soon as it holds more than
anybody else. Entries of owner 0 (nobody: the owner has gone) leave before anybody's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from heapq import nlargest
from operator import attrgetter
from typing import Final, Generic, TypeVar

from cachetools import Cache, LRUCache

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: The owner of what nobody answers for.
NOBODY: Final = 0

_BYTES = attrgetter("currsize")


class _Account(LRUCache[K, V]):
    """What one owner holds, least recently used first; the bound is the cache's, not its own."""

    def __init__(self, owner: int, size_of: Callable[[V], int]) -> None:
        super().__init__(math.inf, getsizeof=size_of)
        self.owner = owner

    def holds_more_than(self, key: K | None) -> bool:
        """Whether there is an entry beside ``key``."""
        return len(self) > (1 if key is not None and key in self else 0)


class FairCache(Generic[K, V]):
    """Entries by key. ``size_of`` gives an entry's bytes, which must not change while it is here."""

    def __init__(self, max_bytes: int, size_of: Callable[[V], int]) -> None:
        self.max_bytes = max_bytes
        self._size_of = size_of
        self._bytes = 0
        self._account_of: dict[K, _Account[K, V]] = {}
        #: Accounts that are not empty, by owner.
        self._accounts: dict[int, _Account[K, V]] = {}
        #: Accounts of nobody, the first to be emptied first. The last is the one that grows.
        self._nobodys: list[_Account[K, V]] = []
        #: The owner that held most when that was looked at, and what no other one has exceeded since.
        #: So a flood beside many owners does not look at all of them for each entry.
        self._largest: _Account[K, V] | None = None
        self._runner_up = 0.0
        #: What left for want of room, until the caller clears it.
        self.dropped: list[tuple[K, V]] = []

    def __len__(self) -> int:
        return len(self._account_of)

    def __contains__(self, key: object) -> bool:
        return key in self._account_of

    @property
    def used_bytes(self) -> int:
        """Bytes of all entries; never more than ``max_bytes``."""
        return self._bytes

    def bytes_by_owner(self) -> dict[int, int]:
        """What each owner holds; ``NOBODY`` stands for all that nobody answers for."""
        held = {owner: int(account.currsize) for owner, account in self._accounts.items()}
        if self._nobodys:
            held[NOBODY] = sum(int(account.currsize) for account in self._nobodys)
        return held

    def get(self, key: K) -> V | None:
        """The entry, which counts as a use; None when there is none."""
        account = self._account_of.get(key)
        return account[key] if account is not None else None

    def peek(self, key: K) -> V | None:
        """The entry, without counting as a use."""
        account = self._account_of.get(key)
        return Cache.__getitem__(account, key) if account is not None else None

    def items(self) -> Iterator[tuple[K, V]]:
        """All entries in no particular order, without counting as uses."""
        for account in (*self._nobodys, *self._accounts.values()):
            for key in account:
                yield key, Cache.__getitem__(account, key)

    def put(self, key: K, value: V, owner: int) -> None:
        """Enter or replace an entry, which counts as a use.

        A new entry is on the account of ``owner``. One that is here stays on its account, unless that
        is nobody's. The entry itself is never dropped to make room. ValueError when it is larger than
        the whole cache.
        """
        size = self._size_of(value)
        if size > self.max_bytes:
            raise ValueError(f"an entry of {size} bytes, and {self.max_bytes} is all there is")
        account = self._account_of.get(key)
        if account is not None and account.owner == NOBODY != owner:
            self.pop(key)
            account = None
        if account is None:
            self._make_room(size, None)
            account = self._account(owner)
            self._account_of[key] = account
            self._bytes += size
        else:
            growth = size - self._size_of(account[key])
            self._make_room(growth, key)
            self._bytes += growth
        account[key] = value
        if account is not self._largest and account.currsize > self._runner_up:
            self._runner_up = account.currsize

    def pop(self, key: K) -> V | None:
        """Take an entry out; it does not count as dropped."""
        account = self._account_of.pop(key, None)
        if account is None:
            return None
        value = account.pop(key)
        self._bytes -= self._size_of(value)
        self._tidy(account)
        return value

    def release_owner(self, owner: int) -> None:
        """The owner has gone: what it holds is nobody's now."""
        account = self._accounts.pop(owner, None)
        if account is not None:
            account.owner = NOBODY
            self._nobodys.append(account)
            if account is self._largest:
                self._largest = None

    def _account(self, owner: int) -> _Account[K, V]:
        if owner == NOBODY:
            if not self._nobodys:
                self._nobodys.append(_Account(NOBODY, self._size_of))
            return self._nobodys[-1]
        account = self._accounts.get(owner)
        if account is None:
            account = self._accounts[owner] = _Account(owner, self._size_of)
        return account

    def _make_room(self, growth: int, keep: K | None) -> None:
        """Drop entries until ``growth`` more bytes fit; ``keep`` is the last used of its account."""
        while self._bytes + growth > self.max_bytes:
            account = self._who_pays(keep)
            key, value = account.popitem()
            del self._account_of[key]
            self._bytes -= self._size_of(value)
            self.dropped.append((key, value))
            self._tidy(account)

    def _who_pays(self, keep: K | None) -> _Account[K, V]:
        for account in self._nobodys:
            if account.holds_more_than(keep):
                return account
        largest = self._largest
        if largest is None or largest.currsize < self._runner_up:
            largest, *others = nlargest(2, self._accounts.values(), key=_BYTES)
            self._largest, self._runner_up = largest, others[0].currsize if others else 0
        if not largest.holds_more_than(keep):
            others = [account for account in self._accounts.values() if account is not largest]
            largest = max(others, key=_BYTES)
        return largest

    def _tidy(self, account: _Account[K, V]) -> None:
        if account:
            return
        if account.owner == NOBODY:
            # By identity: comparing two caches reads their entries, which counts as using them.
            self._nobodys = [one for one in self._nobodys if one is not account]
        else:
            del self._accounts[account.owner]


__all__ = ["NOBODY", "FairCache"]

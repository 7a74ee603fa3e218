"""The ledger: every on-demand rule that the switch holds, why, and on whose account.

It is bounded, in all and for each *owner* (the zone of the local port whose packet made the rule).
A rule over the owner's share evicts the owner's oldest; over the whole bound it evicts the oldest of
the owner that holds most, so that one port's flood never costs another port a rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rule_cache.cookie import Cookies
from rule_cache.rule import Rule, RuleKey
from rule_cache.tags import Tag, TagIndex


class Entry:
    """One installed rule. ``subject`` is whatever its maker needs to decide again."""

    __slots__ = ("cookie", "key", "owner", "rule", "sent_s", "subject", "tags")

    def __init__(
        self,
        cookie: int,
        key: RuleKey,
        rule: Rule,
        tags: tuple[Tag, ...],
        owner: int,
        subject: object,
        sent_s: float,
    ) -> None:
        self.cookie = cookie
        self.key = key
        self.rule = rule
        self.tags = tags
        self.owner = owner
        self.subject = subject
        self.sent_s = sent_s


class Ledger:
    """What is installed. Nothing here is sent; callers get cookies to delete back."""

    def __init__(self, cookies: Cookies, *, max_rules: int, max_rules_per_owner: int) -> None:
        if not 0 < max_rules_per_owner <= max_rules:
            raise ValueError(
                f"max_rules_per_owner {max_rules_per_owner} is not in 1..max_rules {max_rules}"
            )
        self._next_cookie = cookies.next
        self._max_rules = max_rules
        self._max_per_owner = max_rules_per_owner
        self._by_cookie: dict[int, Entry] = {}
        self._by_key: dict[RuleKey, Entry] = {}
        #: Cookies of an owner, oldest first (a dict keeps order and removes from the middle).
        self._by_owner: dict[int, dict[int, None]] = {}
        self._tags = TagIndex()
        #: Rules that had to go because a bound was reached, by owner.
        self.evictions: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._by_cookie)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._by_cookie.values())

    def get(self, cookie: int) -> Entry | None:
        return self._by_cookie.get(cookie)

    def find(self, key: RuleKey) -> Entry | None:
        return self._by_key.get(key)

    def owned(self, owner: int) -> int:
        """How many rules are on this owner's account."""
        return len(self._by_owner.get(owner, ()))

    def cookies_of_owner(self, owner: int) -> list[int]:
        return list(self._by_owner.get(owner, ()))

    def cookies_with(self, tag: Tag) -> frozenset[int]:
        return self._tags.cookies(tag)

    def has_tag(self, tag: Tag) -> bool:
        """Whether any installed rule depends on ``tag``."""
        return self._tags.has(tag)

    def add(
        self, rule: Rule, tags: tuple[Tag, ...], owner: int, subject: object, now_s: float
    ) -> tuple[int, list[int]]:
        """Enter a rule that is about to be sent: (its cookie, cookies that must be deleted for it).

        A rule with the same key is replaced, here as in the switch, and is not among the deletes.
        """
        cookie = self._next_cookie(rule.shape.table)
        return cookie, self.adopt(cookie, rule, tags, owner, subject, now_s)

    def adopt(
        self,
        cookie: int,
        rule: Rule,
        tags: tuple[Tag, ...],
        owner: int,
        subject: object,
        now_s: float,
    ) -> list[int]:
        """As ``add``, for a rule that has its cookie already: cookies that must be deleted for it."""
        key = rule.key
        old = self._by_key.get(key)
        if old is not None:
            self._drop(old)
        evicted: list[int] = []
        owned = self._by_owner.get(owner)
        if owned is not None and len(owned) >= self._max_per_owner:
            evicted.append(self._evict(owner))
        elif len(self._by_cookie) >= self._max_rules:
            evicted.append(self._evict(max(self._by_owner, key=self.owned)))
        entry = Entry(cookie, key, rule, tags, owner, subject, now_s)
        self._by_cookie[cookie] = entry
        self._by_key[key] = entry
        owned = self._by_owner.get(owner)
        if owned is None:
            self._by_owner[owner] = {cookie: None}
        else:
            owned[cookie] = None
        self._tags.add(cookie, tags)
        return evicted

    def retag(self, entry: Entry, tags: tuple[Tag, ...]) -> None:
        """The rule stays as it is, but depends on other things now."""
        self._tags.remove(entry.cookie, entry.tags)
        entry.tags = tags
        self._tags.add(entry.cookie, tags)

    def remove(self, cookie: int) -> Entry | None:
        """Strike a rule that the switch no longer has or is about to lose; None when unknown."""
        entry = self._by_cookie.get(cookie)
        if entry is not None:
            self._drop(entry)
        return entry

    def clear(self) -> None:
        """Strike everything: the switch lost all its rules."""
        self._by_cookie.clear()
        self._by_key.clear()
        self._by_owner.clear()
        self._tags = TagIndex()

    def _drop(self, entry: Entry) -> None:
        cookie = entry.cookie
        del self._by_cookie[cookie]
        del self._by_key[entry.key]
        owned = self._by_owner[entry.owner]
        del owned[cookie]
        if not owned:
            del self._by_owner[entry.owner]
        self._tags.remove(cookie, entry.tags)

    def _evict(self, owner: int) -> int:
        cookie = next(iter(self._by_owner[owner]))
        self._drop(self._by_cookie[cookie])
        self.evictions[owner] += 1
        return cookie

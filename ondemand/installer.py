"""The installer: enters rules into the ledger and says what to send for it.

All rules pass through here, so that ledger and switch cannot drift apart by a forgotten line.
"""

from __future__ import annotations

from collections.abc import Iterable

from ondemand.messages import Effects
from ondemand.subjects import Subject
from rule_cache.cookie import Cookies
from rule_cache.ledger import Entry, Ledger
from rule_cache.rule import Rule, RuleKey
from rule_cache.tags import Tag

#: A rule that the switch should have had for this long, and that a packet misses all the same, is sent
#: again: the flow-removed message that would have told may be on its way. Seconds.
RESEND_AFTER_S = 1.0


class Installer:
    """Owns the ledger of on-demand rules and the list of static ones."""

    def __init__(self, cookies: Cookies, *, max_rules: int, max_rules_per_owner: int) -> None:
        self.ledger = Ledger(cookies, max_rules=max_rules, max_rules_per_owner=max_rules_per_owner)
        #: What is to be sent; the engine swaps it for a new one when the shell takes it.
        self.effects = Effects()
        self._cookies = cookies
        self._static: dict[str, dict[RuleKey, tuple[int, Rule]]] = {}

    # -- on demand -------------------------------------------------------------------------------

    def install(
        self,
        rule: Rule,
        tags: tuple[Tag, ...],
        owner: int,
        subject: Subject,
        now_s: float,
        missed_table: int = -1,
    ) -> None:
        """Install a rule unless it is there. ``missed_table``: a packet has just missed in it."""
        shape = rule.shape
        entry = self.ledger.find((shape.slot, rule.values[: shape.matched]))
        if entry is not None and entry.rule == rule:
            if entry.tags != tags:
                self.ledger.retag(entry, tags)
            if shape.table != missed_table or now_s - entry.sent_s < RESEND_AFTER_S:
                return
        cookie, evicted = self.ledger.add(rule, tags, owner, subject, now_s)
        self.effects.adds.append((cookie, rule))
        if evicted:
            self.effects.deletes += evicted

    def delete(self, entry: Entry) -> None:
        self.ledger.remove(entry.cookie)
        self.effects.deletes.append(entry.cookie)

    def delete_owned(self, owner: int) -> None:
        """Delete all on-demand rules on one port's account."""
        for cookie in self.ledger.cookies_of_owner(owner):
            self.ledger.remove(cookie)
            self.effects.deletes.append(cookie)

    # -- static ----------------------------------------------------------------------------------

    def set_static(
        self, name: str, rules: Iterable[Rule], *, late: frozenset[str] = frozenset()
    ) -> None:
        """Make ``rules`` the static rules called ``name``, sending only what differs.

        Rules whose shape is named in ``late`` are sent behind a barrier.
        """
        wanted = {rule.key: rule for rule in rules}
        have = self._static.setdefault(name, {})
        for key in [key for key in have if key not in wanted]:
            cookie, _ = have.pop(key)
            self.effects.deletes.append(cookie)
        for key, rule in wanted.items():
            if key in have and have[key][1] == rule:
                continue
            cookie = self._cookies.next(rule.shape.table)
            have[key] = (cookie, rule)
            target = self.effects.after_barrier if rule.shape.name in late else self.effects.adds
            target.append((cookie, rule))
        if not have:
            del self._static[name]

    def static_rules(self) -> list[tuple[int, Rule]]:
        return [item for rules in self._static.values() for item in rules.values()]

    def lost(self) -> None:
        """The switch has none of our rules any more."""
        self.ledger.clear()
        self._static.clear()
        self.effects = Effects(requests=self.effects.requests, warnings=self.effects.warnings)

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
#: Replacements of one rule in a row whose errors may be on their way at once.
MAX_UNANSWERED = 4
#: Deleted rules of which it is kept what they had replaced; errors come within milliseconds.
MAX_DELETED = 1024


class Installer:
    """Owns the ledger of on-demand rules and the list of static ones."""

    def __init__(self, cookies: Cookies, *, max_rules: int, max_rules_per_owner: int) -> None:
        self.ledger = Ledger(cookies, max_rules=max_rules, max_rules_per_owner=max_rules_per_owner)
        #: What is to be sent; ``take`` swaps it for a new one.
        self.effects = Effects()
        self._cookies = cookies
        self._static: dict[str, dict[RuleKey, tuple[int, Rule]]] = {}
        #: Cookies of rules in ``effects``. Deletes are sent before adds, so a rule that has to go
        #: before it was sent is withdrawn instead.
        self._unsent: set[int] = set()
        self._withdrawn: set[int] = set()
        #: Of a rule that takes another one's place: that one's cookie, should this one not get there.
        #: The newest first: the error of one may come after the next has been sent.
        self._replaced: dict[int, tuple[int, ...]] = {}
        #: The same of rules that were deleted a moment ago.
        self._deleted: dict[int, tuple[int, ...]] = {}
        #: Keys of on-demand rules that were sent since ``lost``, while what is in the switch is adopted.
        self._sent_keys: set[RuleKey] | None = None
        #: Static rules that were found in the switch and that nobody has asked for yet.
        self._found: dict[RuleKey, tuple[int, Rule]] = {}

    def take(self) -> Effects:
        """What is to be sent since the last call."""
        effects, self.effects = self.effects, Effects()
        gone = self._withdrawn
        if gone:
            effects.adds = [item for item in effects.adds if item[0] not in gone]
            effects.after_barrier = [item for item in effects.after_barrier if item[0] not in gone]
            gone.clear()
        self._unsent.clear()
        return effects

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
                # Another port asked the same; the rule follows the question that was asked last.
                self.ledger.retag(entry, tags)
                entry.subject = subject
            if shape.table != missed_table or now_s - entry.sent_s < RESEND_AFTER_S:
                return
        cookie, evicted = self.ledger.add(rule, tags, owner, subject, now_s)
        if self._sent_keys is not None:
            self._sent_keys.add(rule.key)
        self.effects.adds.append((cookie, rule))
        self._unsent.add(cookie)
        if entry is not None:
            self._replace(entry.cookie, cookie)
        for old in evicted:
            self._unsend(old)

    def delete(self, entry: Entry) -> None:
        self.ledger.remove(entry.cookie)
        self._unsend(entry.cookie)

    def adopt(
        self,
        cookie: int,
        rule: Rule,
        tags: tuple[Tag, ...],
        owner: int,
        subject: Subject,
        now_s: float,
    ) -> None:
        """Enter a rule that the switch holds under this cookie, and that is true."""
        for old in self.ledger.adopt(cookie, rule, tags, owner, subject, now_s):
            self._unsend(old)

    def holds(self, key: RuleKey) -> bool:
        """Whether a rule with this match is in the switch, or on its way, and known here."""
        if self.ledger.find(key) is not None:
            return True
        return any(key in rules for rules in self._static.values())

    def begin_adoption(self) -> None:
        self._sent_keys = set()

    def end_adoption(self) -> None:
        self._sent_keys = None

    def was_sent(self, key: RuleKey) -> bool:
        """Whether a rule with this match was sent since ``begin_adoption``."""
        return self._sent_keys is not None and key in self._sent_keys

    def stands_for(self, key: RuleKey, found: int) -> None:
        """A rule with this match was found; should the known one be refused, it has to go."""
        entry = self.ledger.find(key)
        known = [entry.cookie] if entry is not None else []
        known += [rules[key][0] for rules in self._static.values() if key in rules]
        for cookie in known:
            if cookie != found:
                self._replaced[cookie] = (*self._replaced.get(cookie, ()), found)

    def discard(self, cookie: int) -> None:
        """Delete a rule that the switch holds and that is in no list here."""
        self.effects.deletes.append(cookie)

    def delete_owned(self, owner: int) -> None:
        """Delete all on-demand rules on one port's account."""
        for cookie in self.ledger.cookies_of_owner(owner):
            self.ledger.remove(cookie)
            self._unsend(cookie)

    def removed(self, cookie: int) -> Entry | None:
        """The switch dropped a rule by itself: its entry, None when it is not in the ledger."""
        self._replaced.pop(cookie, None)
        return self.ledger.remove(cookie)

    def rejected(self, cookie: int) -> Entry | None:
        """The switch refused a rule; then what it was to replace must go too, for it is not true."""
        entry = self.ledger.remove(cookie)
        for rules in self._static.values():
            for key in [key for key, (of_rule, _) in rules.items() if of_rule == cookie]:
                del rules[key]
        self.effects.deletes += self._replaced.pop(cookie, ())
        self.effects.deletes += self._deleted.pop(cookie, ())
        return entry

    def _replace(self, old: int, new: int) -> None:
        """A rule takes the place of one with the same match."""
        before = self._replaced.pop(old, ())
        if old in self._unsent:
            self._withdraw(old)
        else:
            before = (old, *before[: MAX_UNANSWERED - 1])
        if before:
            self._replaced[new] = before

    def _unsend(self, cookie: int, *, late: bool = False) -> None:
        """A rule must go from the switch, or not get there."""
        before = self._replaced.pop(cookie, ())
        if cookie in self._unsent:
            self._withdraw(cookie)
            self.effects.deletes += before
            return
        (self.effects.late_deletes if late else self.effects.deletes).append(cookie)
        if before:
            # It may have been refused, and the error be on its way.
            self._deleted[cookie] = before
            if len(self._deleted) > MAX_DELETED:
                del self._deleted[next(iter(self._deleted))]

    def _withdraw(self, cookie: int) -> None:
        self._unsent.discard(cookie)
        self._withdrawn.add(cookie)

    # -- static ----------------------------------------------------------------------------------

    def set_static(
        self, name: str, rules: Iterable[Rule], *, late: frozenset[str] = frozenset()
    ) -> None:
        """Make ``rules`` the static rules called ``name``, sending only what differs.

        Rules whose shape is named in ``late`` are sent, or deleted, behind a barrier. What was found in
        the switch, and is the same, stays there under its old cookie.
        """
        wanted = {rule.key: rule for rule in rules}
        have = self._static.setdefault(name, {})
        for key in [key for key in have if key not in wanted]:
            cookie, gone = have.pop(key)
            self._unsend(cookie, late=gone.shape.name in late)
        for key, rule in wanted.items():
            old = have.get(key)
            if old is None:
                old = self._found.pop(key, None)
                if old is not None and old[1] == rule:
                    have[key] = old
            if old is not None and old[1] == rule:
                continue
            cookie = self._cookies.next(rule.shape.table)
            have[key] = (cookie, rule)
            target = self.effects.after_barrier if rule.shape.name in late else self.effects.adds
            target.append((cookie, rule))
            self._unsent.add(cookie)
            if old is not None:
                self._replace(old[0], cookie)
        if not have:
            del self._static[name]

    def found_static(self, rules: Iterable[tuple[int, Rule]]) -> None:
        """Static rules that are in the switch: each stays until it is asked for, or swept."""
        self._found = {rule.key: (cookie, rule) for cookie, rule in rules}

    def sweep_found(self) -> int:
        """Delete what was found and nobody asked for; how many rules that were."""
        swept = len(self._found)
        self.effects.deletes += [cookie for cookie, _ in self._found.values()]
        self._found = {}
        return swept

    def static_rules(self) -> list[tuple[int, Rule]]:
        return [item for rules in self._static.values() for item in rules.values()]

    def lost(self) -> None:
        """The switch has none of our rules any more."""
        self.ledger.clear()
        self._static.clear()
        self._unsent.clear()
        self._withdrawn.clear()
        self._replaced.clear()
        self._found.clear()
        self._sent_keys = None
        self._deleted.clear()
        self.effects = Effects(requests=self.effects.requests, warnings=self.effects.warnings)

"""Adoption: the on-demand rules that an earlier agent left in the switch, judged a few at a time.

Each rule is read back as the question that it answers, and asked again. The same answer: it goes into
the ledger under its old cookie, and the switch hears nothing. Another answer: it is replaced in place,
or deleted. A record is missing: the rule stays as it is until the record is here. Packets are served in
between, so a start with very many rules makes nobody wait.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from ondemand.installer import Installer
from ondemand.local_ports import LocalPort
from ondemand.messages import Fetch
from ondemand.pipeline import Pipeline
from ondemand.rejudge import Fresh, Rejudge
from ondemand.rule_subjects import RuleSubjects
from ondemand.subjects import Subject
from ondemand.verdict import SOURCE_TAG, Need
from ondemand.world import World
from rule_cache.rule import Rule

#: A rule in the switch; None stands for one that carries our cookie and that we do not understand.
FoundRule = tuple[int, Rule | None]


class Found(Protocol):
    """The rules that a switch holds in tables that traffic fills, as it tells them by and by."""

    def next(self) -> FoundRule | None:
        """One more; None when none is here now."""

    @property
    def has_next(self) -> bool:
        """Whether ``next`` has one."""

    @property
    def is_complete(self) -> bool:
        """Whether all have been given out, and there will be no more."""


class NothingFound:
    """Of a switch that holds nothing of ours."""

    has_next = False
    is_complete = True

    def next(self) -> None:
        return None


@dataclass(slots=True)
class Adopted:
    """What became of the rules that were found."""

    kept: int = 0
    replaced: int = 0
    deleted: int = 0


class Adoption:
    """One adoption, from the connection to the switch until all that was found is settled."""

    def __init__(
        self,
        found: Found,
        *,
        world: World,
        installer: Installer,
        rejudge: Rejudge,
        pipeline: Pipeline,
    ) -> None:
        self._found = found
        self._world = world
        self._installer = installer
        self._rejudge = rejudge
        self._subjects = RuleSubjects(pipeline)
        #: Found rules that waited for a record which is here now.
        self._again: deque[FoundRule] = deque()
        self._waiting: dict[Need, list[FoundRule]] = {}
        #: Found rules that cannot be judged while the source does not answer.
        self._unanswered: list[FoundRule] = []
        #: Rules that left the switch since they were found.
        self._gone: set[int] = set()
        self.result = Adopted()

    @property
    def done(self) -> bool:
        """Whether all that was found is settled."""
        is_rest = self._again or self._waiting or self._unanswered
        return self._found.is_complete and not is_rest

    @property
    def has_work(self) -> bool:
        """Whether ``work`` gets on; else records are awaited, or the switch is."""
        return bool(self._again) or self._found.has_next

    @property
    def waiting(self) -> int:
        """Rules that wait for records."""
        return len(self._unanswered) + sum(map(len, self._waiting.values()))

    def removed(self, cookie: int) -> None:
        """The switch dropped a rule by itself; it may be one that was found."""
        self._gone.add(cookie)

    def answered(self, need: Need) -> None:
        """A record that rules may wait for is here."""
        self._again.extend(self._waiting.pop(need, ()))

    def source_back(self) -> None:
        """The source answers again: judge what could not be judged, ask for what was not answered."""
        self._again.extend(self._unanswered)
        self._unanswered = []
        self._ask(list(self._waiting))

    def work(self, limit: int, now_s: float) -> None:
        """Settle up to ``limit`` rules."""
        for _ in range(limit):
            if self._again:
                cookie, rule = self._again.popleft()
            else:
                found = self._found.next()
                if found is None:
                    return
                cookie, rule = found
            if cookie in self._gone:
                self._gone.discard(cookie)
            else:
                self._settle(cookie, rule, now_s)

    def _settle(self, cookie: int, rule: Rule | None, now_s: float) -> None:
        if rule is None:
            self._delete(cookie)
            return
        if self._installer.holds(rule.key):
            # It is known, or what was sent meanwhile has taken its place, unless it is refused.
            self._installer.stands_for(rule.key, cookie)
            return
        if not self._subjects.is_question(rule) or self._installer.was_sent(rule.key):
            self._delete(cookie)
            return
        port = self._port_of(rule)
        subject = self._subjects.subject(rule, port) if port is not None else None
        if port is None or subject is None:
            self._delete(cookie)
            return
        fresh = self._rejudge.fresh(subject)
        if isinstance(fresh, Need):
            self._wait(fresh, (cookie, rule))
        elif fresh is None:
            self._delete(cookie)
        elif SOURCE_TAG in fresh.tags:
            self._unanswered.append((cookie, rule))
        else:
            self._compare(cookie, rule, port.zone, subject, fresh, now_s)

    def _compare(
        self, cookie: int, rule: Rule, owner: int, subject: Subject, fresh: Fresh, now_s: float
    ) -> None:
        for other in fresh.rules:
            if other.key == rule.key:
                self._installer.adopt(cookie, rule, fresh.tags, owner, subject, now_s)
                if other == rule:
                    self.result.kept += 1
                else:
                    self.result.replaced += 1
                    self._installer.install(other, fresh.tags, owner, subject, now_s)
                return
        self._delete(cookie)

    def _port_of(self, rule: Rule) -> LocalPort | None:
        zone = self._subjects.zone_of(rule)
        if zone is not None:
            return self._world.by_zone.get(zone)
        vni = self._subjects.vni_of(rule)
        ports = self._world.ports.values()
        return next((port for port in ports if port.subnet.vni == vni), None)

    def _wait(self, need: Need, found: FoundRule) -> None:
        waiting = self._waiting.setdefault(need, [])
        waiting.append(found)
        if len(waiting) == 1:
            self._ask([need])

    def _ask(self, needs: list[Need]) -> None:
        requests = self._installer.effects.requests
        requests += [Fetch(need.slice, need.key) for need in needs if need.key]

    def _delete(self, cookie: int) -> None:
        self.result.deleted += 1
        self._installer.discard(cookie)

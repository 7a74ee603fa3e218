"""Truth under change: what a changed record does to installed rules and live connections.

Each rule whose tags name the change is asked for again, and is left, replaced in place or deleted by
the new answer. Where policy became narrower, the epoch of the ports concerned moves as well, so that
their live connections are judged again by the next packet of either direction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from ondemand.decide import judge, locate, resolve
from ondemand.holder import claims_tag, topology_tag
from ondemand.installer import Installer
from ondemand.local_ports import LocalPort
from ondemand.policy import narrows
from ondemand.port_manager import PortManager
from ondemand.records import Claim, Group, Neighbor, Record, SecurityRule, Subnet
from ondemand.rules import RuleMaker
from ondemand.slice_cache import RecordChange, record_tag
from ondemand.slices import SliceKind, kind_of, vpc_slice
from ondemand.subjects import LocationSubject, ResolveSubject, Subject, VerdictSubject
from ondemand.verdict import Need
from ondemand.world import World
from rule_cache.ledger import Entry
from rule_cache.rule import Rule
from rule_cache.tags import Tag

#: Seconds between two moves of epochs for the sake of records that left the cache.
UNWATCHED_BUMP_S = 1.0


class Rejudge:
    """Applies changes of records to rules."""

    def __init__(
        self, world: World, installer: Installer, maker: RuleMaker, ports: PortManager
    ) -> None:
        self._world = world
        self._installer = installer
        self._maker = maker
        self._ports = ports
        #: Ports whose connections may rest on records that nobody watches any more.
        self._unwatched: dict[LocalPort, None] = {}
        self._next_bump_s = 0.0

    def changed(self, changes: Iterable[RecordChange], now_s: float) -> None:
        """Records of the cache have changed; the cache holds the new ones already."""
        tags: dict[Tag, None] = {}
        narrowed: dict[LocalPort, None] = {}
        settle = False
        for change in changes:
            kind = kind_of(change.slice)
            owner = change.slice.partition("/")[2]
            if kind is SliceKind.HOST or kind is SliceKind.HOST_GROUP:
                settle = True
            elif kind is SliceKind.VPC:
                settle |= not isinstance(change.old or change.new, Claim)
                self._vpc_changed(owner, change, tags, narrowed)
            elif kind is SliceKind.SECURITY_GROUP:
                tags[change.slice] = None
                # That a port's group comes or goes is worth a word.
                settle |= isinstance(change.old or change.new, Group)
                if _rule_narrows(change.old, change.new):
                    narrowed.update(
                        (p, None) for p in self._world.ports.values() if owner in p.record.groups
                    )
            elif kind is SliceKind.NEIGHBORS:
                tags[record_tag(change.slice, change.key)] = None
                self._neighbor_changed(owner.partition("/")[0], change, narrowed)
            else:
                assert_never(kind)
        for name in {change.slice for change in changes}:
            self._world.slice_changed(name)
        if settle:
            self._ports.settle_all()
        self.judge_tags(tags, now_s)
        for port in narrowed:
            if self._world.ports.get(port.record.id) is port:
                self._ports.bump_epoch(port)

    def members_forgotten(self, groups: dict[str, set[str]]) -> None:
        """Records that made somebody a member left the cache: no change of them will be told.

        So connections that rest on them have to be judged again, from records held anew.
        """
        for vpc, lost in groups.items():
            self._lose_groups(vpc, lost, self._unwatched)

    def tick(self, now_s: float) -> None:
        """Move the epochs that ``members_forgotten`` asks for, together and not more often than
        once in ``UNWATCHED_BUMP_S``: a cache that is too small drops records all the time.
        """
        if self._unwatched and now_s >= self._next_bump_s:
            self._next_bump_s = now_s + UNWATCHED_BUMP_S
            ports, self._unwatched = self._unwatched, {}
            for port in ports:
                if self._world.ports.get(port.record.id) is port:
                    self._ports.bump_epoch(port)

    def judge_tags(self, tags: Iterable[Tag], now_s: float) -> None:
        """Ask again for every rule that depends on one of these."""
        ledger = self._installer.ledger
        cookies: dict[int, None] = {}
        for tag in tags:
            cookies.update(dict.fromkeys(sorted(ledger.cookies_with(tag))))
        for cookie in cookies:
            entry = ledger.get(cookie)
            if entry is not None:
                self._judge_entry(entry, now_s)

    def _vpc_changed(
        self,
        vpc: str,
        change: RecordChange,
        tags: dict[Tag, None],
        narrowed: dict[LocalPort, None],
    ) -> None:
        old, new = change.old, change.new
        if isinstance(old or new, Claim):
            tags[claims_tag(vpc)] = None
            if isinstance(old, Claim):
                # A claim that comes only adds; one that goes or changes may take its groups along.
                stays = isinstance(new, Claim) and new.subnet == old.subnet
                kept = new.groups if stays and isinstance(new, Claim) else ()
                self._lose_groups(vpc, set(old.groups).difference(kept), narrowed)
        else:
            tags[topology_tag(vpc)] = None
            if isinstance(old or new, Subnet):
                # Claims count inside their subnet only.
                lost = {group for claim in self._claims(vpc) for group in claim.groups}
                self._lose_groups(vpc, lost, narrowed)

    def _claims(self, vpc: str) -> list[Claim]:
        records = self._world.cache.whole(vpc_slice(vpc)) or {}
        return [record for record in records.values() if isinstance(record, Claim)]

    def _neighbor_changed(
        self, vpc: str, change: RecordChange, narrowed: dict[LocalPort, None]
    ) -> None:
        old, new = change.old, change.new
        before = set(old.groups) if isinstance(old, Neighbor) else set()
        after = set(new.groups) if isinstance(new, Neighbor) else set()
        if old is None and isinstance(new, Neighbor):
            # The address may have been claimed until somebody came to hold it.
            topology = self._world.topology(vpc)
            if topology is not None:
                for subnet in topology.subnet_of(new.ip):
                    for claim in topology.claims(subnet.id, new.ip):
                        before.update(claim.groups)
        self._lose_groups(vpc, before - after, narrowed)

    def _lose_groups(self, vpc: str, lost: set[str], narrowed: dict[LocalPort, None]) -> None:
        """An address left these groups: ports that let members in must look at it again."""
        if not lost:
            return
        for port in self._world.ports.values():
            if port.vpc == vpc:
                policy = self._world.policy(port.record.groups)
                # Rules that are not here yet may be about any group.
                if isinstance(policy, str) or not lost.isdisjoint(policy.remote_groups):
                    narrowed[port] = None

    def _judge_entry(self, entry: Entry, now_s: float) -> None:
        subject = entry.subject
        if not isinstance(subject, VerdictSubject | LocationSubject | ResolveSubject):
            raise TypeError(f"rule {entry.rule} has no subject that can be judged again")
        fresh = self._fresh(subject)
        rules, tags = fresh if fresh is not None else ([], ())
        for rule in rules:
            if rule.key == entry.key:
                # The same rule is left as it is, another one takes its place in the switch.
                self._installer.install(rule, tags, entry.owner, subject, now_s)
                return
        self._installer.delete(entry)

    def _fresh(self, subject: Subject) -> tuple[list[Rule], tuple[Tag, ...]] | None:
        """The rules that the question gets today; None when it cannot be answered now."""
        world = self._world
        port = world.by_zone.get(subject.zone)
        if port is None:
            return None
        if isinstance(subject, VerdictSubject):
            if not port.record.port_security:
                return None
            verdict = judge(world, port, subject.flow)
            if isinstance(verdict, Need):
                return None
            return self._maker.for_verdict(port, subject.flow, verdict), verdict.tags
        if isinstance(subject, LocationSubject):
            location = locate(world, port, subject.eth_dst, subject.ip_dst, echo=subject.echo)
            if isinstance(location, Need):
                return None
            rule = self._maker.for_location(
                world.ports, port.subnet.vni, subject.eth_dst, subject.ip_dst, location
            )
            return [rule], location.tags
        answer = resolve(world, port, subject.target)
        if isinstance(answer, Need):
            return None
        return [self._maker.for_resolution(port, subject.target, answer)], answer.tags


def _rule_narrows(old: Record | None, new: Record | None) -> bool:
    before = old if isinstance(old, SecurityRule) else None
    after = new if isinstance(new, SecurityRule) else None
    return narrows(before, after) or (isinstance(old, Group) and new is None)

"""Truth under change: what a changed record does to installed rules and live connections.

Each rule whose tags name the change is asked for again, and is left, replaced in place or deleted by
the new answer. Where policy became narrower, the epoch of the ports concerned moves as well, so that
their live connections are judged again by the next packet of either direction.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import assert_never

import msgspec

from ondemand.addresses import parse_ip
from ondemand.decide import judge, locate, resolve
from ondemand.holder import claims_tag, topology_tag
from ondemand.installer import Installer
from ondemand.local_ports import LocalPort
from ondemand.policy import narrows
from ondemand.port_manager import PortManager
from ondemand.records import Claim, Group, Neighbor, Record, SecurityRule, Subnet
from ondemand.rules import RuleMaker
from ondemand.slice_cache import Held, RecordChange, record_tag
from ondemand.slices import SliceKind, kind_of, vpc_slice
from ondemand.subjects import LocationSubject, ResolveSubject, Subject, VerdictSubject
from ondemand.verdict import SOURCE_TAG, Need
from ondemand.world import World
from rule_cache.ledger import Entry
from rule_cache.rule import Rule
from rule_cache.tags import Tag

#: Seconds between two moves of epochs for the sake of records that left the cache.
UNWATCHED_BUMP_S = 1.0
#: Rules that are judged at once; of a change that concerns more, the others wait in the queue.
AT_ONCE = 256


class Fresh(msgspec.Struct, frozen=True, gc=False):
    """What a question gets today."""

    rules: list[Rule]
    tags: tuple[Tag, ...]


class Narrowed:
    """The connections that have to be judged again: all of a port, or those with some addresses."""

    def __init__(self) -> None:
        self._ports: dict[LocalPort, None] = {}
        self._remotes: dict[LocalPort, dict[bytes, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._ports or self._remotes)

    def all_of(self, port: LocalPort) -> None:
        self._ports[port] = None
        self._remotes.pop(port, None)

    def with_remote(self, port: LocalPort, remote: bytes) -> None:
        if port not in self._ports:
            self._remotes.setdefault(port, {})[remote] = None

    def take(self) -> tuple[list[LocalPort], list[tuple[LocalPort, list[bytes]]]]:
        """Ports, and ports with the remote addresses concerned; nothing is left."""
        ports, remotes = list(self._ports), [(p, list(r)) for p, r in self._remotes.items()]
        self._ports, self._remotes = {}, {}
        return ports, remotes


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
        #: Cookies of rules that are still to be judged.
        self._queue: dict[int, None] = {}
        self._narrowed = Narrowed()
        #: While set, epochs stay: rules that were found in the switch are still to be judged.
        self.holds_epochs = False

    @property
    def has_work(self) -> bool:
        """Whether ``work`` has rules to judge."""
        return bool(self._queue)

    def lost(self) -> None:
        """The switch is gone and so are the rules; what narrowed has still to be told to it."""
        self._queue.clear()

    def changed(self, changes: Iterable[RecordChange], now_s: float) -> None:
        """Records of the cache have changed; the cache holds the new ones already.

        Whoever calls this has ``move_epochs`` to call when the rules of changed ports are judged too.
        """
        tags: dict[Tag, None] = {}
        narrowed = self._narrowed
        settle = False
        for change in changes:
            kind = kind_of(change.slice)
            owner = change.slice.partition("/")[2]
            if kind is SliceKind.HOST or kind is SliceKind.HOST_GROUP:
                settle = True
            elif kind is SliceKind.VPC:
                settle |= not isinstance(change.old or change.new, Claim)
                self._vpc_changed(owner, change, tags)
            elif kind is SliceKind.SECURITY_GROUP:
                tags[change.slice] = None
                # That a port's group comes or goes is worth a word.
                settle |= isinstance(change.old or change.new, Group)
                if _rule_narrows(change.old, change.new):
                    for port in self._world.ports.values():
                        if owner in port.record.groups:
                            narrowed.all_of(port)
            elif kind is SliceKind.NEIGHBORS:
                tags[record_tag(change.slice, change.key)] = None
                self._neighbor_changed(owner.partition("/")[0], change)
            else:
                assert_never(kind)
        for name in {change.slice for change in changes}:
            self._world.slice_changed(name)
        if settle:
            self._ports.settle_all()
        self.judge_tags(tags, now_s)

    def move_epochs(self) -> None:
        """Let the connections that narrowed be judged again, if all rules are judged by now."""
        if self._queue or self.holds_epochs or not self._narrowed:
            return
        ports, remotes = self._narrowed.take()
        for port in ports:
            if self._world.ports.get(port.record.id) is port:
                self._ports.bump_epoch(port)
        for port, addresses in remotes:
            if self._world.ports.get(port.record.id) is port:
                self._ports.bump_remotes(port, addresses)

    def narrow(self, port: LocalPort) -> None:
        """The port's connections have to be judged again as soon as ``move_epochs`` may."""
        self._narrowed.all_of(port)

    def members_forgotten(self, groups: dict[str, set[str]]) -> None:
        """Records that made somebody a member left the cache: no change of them will be told.

        So connections that rest on them have to be judged again, from records held anew.
        """
        for vpc, lost in groups.items():
            self._unwatched.update(dict.fromkeys(self._letting_in(vpc, lost)))

    def unwatched(self, left: Iterable[Held]) -> None:
        """These records left the cache because nothing used them, and no rule rests on them.

        A connection that rests on one without a packet meanwhile has to be judged again.
        """
        addresses: dict[tuple[str, frozenset[str]], list[bytes]] = {}
        for held in left:
            name, _, key = held.tag.partition(" ")
            kind, _, address = key.partition("/")
            if kind != "ip":
                continue
            vpc, ip, record = name.split("/", 2)[1], parse_ip(address), held.record
            groups = record.groups if isinstance(record, Neighbor) else self._claimed(vpc, ip)
            if groups:
                addresses.setdefault((vpc, frozenset(groups)), []).append(ip)
        for (vpc, members), ips in addresses.items():
            for port in self._letting_in(vpc, set(members)):
                for ip in ips:
                    if ip not in port.record.fixed_ips:
                        self._narrowed.with_remote(port, ip)
        self.move_epochs()

    def tick(self, now_s: float) -> None:
        """Move the epochs that ``members_forgotten`` asks for, together and not more often than
        once in ``UNWATCHED_BUMP_S``: a cache that is too small drops records all the time.
        """
        if self._unwatched and now_s >= self._next_bump_s:
            self._next_bump_s = now_s + UNWATCHED_BUMP_S
            ports, self._unwatched = self._unwatched, {}
            for port in ports:
                self._narrowed.all_of(port)
            self.move_epochs()

    def judge_tags(self, tags: Iterable[Tag], now_s: float) -> None:
        """Ask again for every rule that depends on one of these: at once, or as ``work`` is called."""
        ledger = self._installer.ledger
        cookies: dict[int, None] = {}
        for tag in tags:
            # The newest first: drops live for seconds only, and somebody may wait for one to go.
            cookies.update(dict.fromkeys(sorted(ledger.cookies_with(tag), reverse=True)))
        if len(cookies) > AT_ONCE:
            self._queue |= cookies
        else:
            self._judge(cookies, now_s)

    def work(self, limit: int, now_s: float) -> None:
        """Judge up to ``limit`` of the rules that wait."""
        if self._queue:
            cookies = list(itertools.islice(self._queue, limit))
            for cookie in cookies:
                del self._queue[cookie]
            self._judge(cookies, now_s)
            self.move_epochs()

    def _judge(self, cookies: Iterable[int], now_s: float) -> None:
        for cookie in cookies:
            entry = self._installer.ledger.get(cookie)
            if entry is not None:
                self._judge_entry(entry, now_s)

    def _vpc_changed(
        self,
        vpc: str,
        change: RecordChange,
        tags: dict[Tag, None],
    ) -> None:
        old, new = change.old, change.new
        if isinstance(old or new, Claim):
            tags[claims_tag(vpc)] = None
            if isinstance(old, Claim):
                # A claim that comes only adds; one that goes or changes may take its groups along.
                stays = isinstance(new, Claim) and new.subnet == old.subnet
                kept = new.groups if stays and isinstance(new, Claim) else ()
                self._lose_groups(vpc, set(old.groups).difference(kept))
        else:
            tags[topology_tag(vpc)] = None
            if isinstance(old or new, Subnet):
                # Claims count inside their subnet only.
                lost = {group for claim in self._claims(vpc) for group in claim.groups}
                self._lose_groups(vpc, lost)

    def _claims(self, vpc: str) -> list[Claim]:
        records = self._world.cache.whole(vpc_slice(vpc)) or {}
        return [record for record in records.values() if isinstance(record, Claim)]

    def _neighbor_changed(self, vpc: str, change: RecordChange) -> None:
        old, new = change.old, change.new
        before = set(old.groups) if isinstance(old, Neighbor) else set()
        after = set(new.groups) if isinstance(new, Neighbor) else set()
        if old is None and isinstance(new, Neighbor):
            # The address may have been claimed until somebody came to hold it.
            before = self._claimed(vpc, new.ip)
        member = old if isinstance(old, Neighbor) else new
        if isinstance(member, Neighbor):
            for port in self._letting_in(vpc, before - after):
                if member.ip not in port.record.fixed_ips:
                    self._narrowed.with_remote(port, member.ip)

    def _claimed(self, vpc: str, ip: bytes) -> set[str]:
        """The groups of all ports that claim an address."""
        topology = self._world.topology(vpc)
        if topology is None:
            return set()
        claims = [claim for s in topology.subnet_of(ip) for claim in topology.claims(s.id, ip)]
        return {group for claim in claims for group in claim.groups}

    def _lose_groups(self, vpc: str, lost: set[str]) -> None:
        """Addresses left these groups: ports that let members in must look at all they have."""
        for port in self._letting_in(vpc, lost):
            self._narrowed.all_of(port)

    def _letting_in(self, vpc: str, groups: set[str]) -> list[LocalPort]:
        """Ports whose policy asks whether an address is a member of one of these groups."""
        found = []
        for port in self._world.ports.values() if groups else ():
            if port.vpc == vpc:
                policy = self._world.policy(port.record.groups)
                # Rules that are not here yet may be about any group.
                if policy.missing or not groups.isdisjoint(policy.remote_groups):
                    found.append(port)
        return found

    def _judge_entry(self, entry: Entry, now_s: float) -> None:
        subject = entry.subject
        if not isinstance(subject, VerdictSubject | LocationSubject | ResolveSubject):
            raise TypeError(f"rule {entry.rule} has no subject that can be judged again")
        fresh = self.fresh(subject)
        if isinstance(fresh, Fresh):
            if SOURCE_TAG in fresh.tags:
                # What is installed stays while the source does not answer; then it is asked again.
                self._installer.ledger.retag(entry, fresh.tags)
                return
            for rule in fresh.rules:
                if rule.key == entry.key:
                    # The same rule is left as it is, another one takes its place in the switch.
                    self._installer.install(rule, fresh.tags, entry.owner, subject, now_s)
                    return
        self._installer.delete(entry)

    def fresh(self, subject: Subject) -> Fresh | Need | None:
        """What the question gets today; Need: a record is missing, None: nobody can ask any more."""
        world = self._world
        port = world.by_zone.get(subject.zone)
        if port is None:
            return None
        if isinstance(subject, VerdictSubject):
            if not port.record.port_security:
                return None
            verdict = judge(world, port, subject.flow)
            if isinstance(verdict, Need):
                return verdict
            return Fresh(self._maker.for_verdict(port, subject.flow, verdict), verdict.tags)
        if isinstance(subject, LocationSubject):
            location = locate(world, port, subject.eth_dst, subject.ip_dst, echo=subject.echo)
            if isinstance(location, Need):
                return location
            rule = self._maker.for_location(
                world.ports, port.subnet.vni, subject.eth_dst, subject.ip_dst, location
            )
            return Fresh([rule], location.tags)
        answer = resolve(world, port, subject.target)
        if isinstance(answer, Need):
            return answer
        return Fresh([self._maker.for_resolution(port, subject.target, answer)], answer.tags)


def _rule_narrows(old: Record | None, new: Record | None) -> bool:
    before = old if isinstance(old, SecurityRule) else None
    after = new if isinstance(new, SecurityRule) else None
    return narrows(before, after) or (isinstance(old, Group) and new is None)

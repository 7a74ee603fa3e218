"""Any state to any state: random changes, traffic, loss and repetition, and the invariant after each.

When nothing is on its way, packets must do what the plain references say of the goal state; a live
connection passes exactly while both of its ends allow it.
"""

from __future__ import annotations

import itertools
import os
import zlib
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ondemand.addresses import parse_ip
from ondemand.pipeline import ETH_RARP
from ondemand.rejudge import UNWATCHED_BUMP_S
from ondemand.settings import Settings
from ondemand.slices import Delta
from tests.support.cloud_edit import change_port
from tests.support.fake_outcomes import Tunnelled
from tests.support.frame_builder import build_arp, build_tcp4, build_tcp6
from tests.support.host_sim import HostSim
from tests.support.lab import Lab, Sent
from tests.support.location_reference import Host
from tests.support.packet_parts import ACK, SYN
from tests.support.walk_cloud import (
    CLAIMS,
    GROUPS,
    LOCAL,
    MEMBERSHIPS,
    MENU,
    PORTS,
    REMOTE,
    TCP_PORTS,
    fixed_ip,
    may,
    place,
    published,
    set_claims,
    set_menu,
    spec_of,
    walk_cloud,
)
from tests.support.world_builder import HERE, THERE, TUNNELS

_local, _any_port, _group = st.sampled_from(LOCAL), st.sampled_from(PORTS), st.sampled_from(GROUPS)
_family, _tp_dst = st.sampled_from((4, 6)), st.sampled_from(TCP_PORTS)
NO_IP = "0.0.0.0"
_menu = st.lists(st.integers(0, len(MENU) - 1), max_size=3).map(tuple)


@dataclass(frozen=True, slots=True)
class Live:
    """An open TCP connection between two local ports, and what has to stay for it to be the same."""

    src: str
    dst: str
    family: int
    tp_src: int
    tp_dst: int
    zones: tuple[int, int]
    ends: tuple[bytes, bytes, bytes, bytes]


class Walk(RuleBasedStateMachine):
    """One host; the other one is a hole in the underlay."""

    cache_bytes = 1 << 20
    limits = Settings(max_rules=100, max_rules_per_port=25)

    def __init__(self) -> None:
        super().__init__()
        limits = replace(self.limits)
        # Smaller than the least that a configuration may ask for.
        object.__setattr__(limits, "neighbor_cache_bytes", self.cache_bytes)
        self.lab = self.make_lab(limits)
        self.vpc = published(self.lab.cloud)
        self.live: list[Live] = []
        #: Something was lost on its way, and the host cannot know.
        self.is_unaware = False
        self.next_port = 2000

    def make_lab(self, limits: Settings) -> Lab:
        return Lab(walk_cloud(), settings=limits)

    @property
    def host(self) -> HostSim:
        return self.lab.here

    @property
    def is_quiet(self) -> bool:
        host = self.host
        return not (
            host.batching
            or host.is_dead
            or host.is_reading
            or host.delayed
            or host.feed.error
            or host.feed.inbox
            or self.is_unaware
            or not host.tunnel_port
        )

    # -- goal state ------------------------------------------------------------------------------

    @rule(group=_group, menu=_menu, is_seen=st.booleans())
    def change_rules(self, group: str, menu: tuple[int, ...], *, is_seen: bool) -> None:
        set_menu(self.lab.cloud, group, menu)
        self.changed(is_seen=is_seen)

    @rule(port=_any_port, groups=st.sampled_from(MEMBERSHIPS), is_seen=st.booleans())
    def change_membership(self, port: str, groups: tuple[str, ...], *, is_seen: bool) -> None:
        change_port(self.lab.cloud, port, groups=groups, port_security=True)
        self.changed(is_seen=is_seen)

    @rule(is_seen=st.booleans())
    def switch_port_security_off(self, *, is_seen: bool) -> None:
        change_port(self.lab.cloud, "p3", groups=(), pairs=(), port_security=False)
        self.changed(is_seen=is_seen)

    @rule(
        port=_any_port,
        claims=st.lists(st.sampled_from(CLAIMS), max_size=2, unique=True),
        is_seen=st.booleans(),
    )
    def change_claims(self, port: str, claims: list[str], *, is_seen: bool) -> None:
        if self.lab.cloud.port_spec(port).port_security:
            set_claims(self.lab.cloud, port, claims)
        self.changed(is_seen=is_seen)

    @rule(port=_any_port, number=st.sampled_from((0, 10, 30, 200)), is_seen=st.booleans())
    def change_addresses(self, port: str, number: int, *, is_seen: bool) -> None:
        """Another address of its subnet, unless somebody has it; or none at all."""
        cloud = self.lab.cloud
        net = 1 if cloud.port_spec(port).subnet.id == "red" else 2
        ips = (parse_ip(f"10.0.{net}.{number}"), parse_ip(f"fd00:{net}::{number}"))
        taken = {ip for other in cloud.port_ids for ip in cloud.port_spec(other).fixed_ips}
        if not number:
            change_port(cloud, port, fixed_ips=())
        elif not taken & set(ips):
            change_port(cloud, port, fixed_ips=ips)
        self.changed(is_seen=is_seen)

    @rule(port=_any_port, host=st.sampled_from((HERE, THERE)), is_seen=st.booleans())
    def move_port(self, port: str, host: str, *, is_seen: bool) -> None:
        change_port(self.lab.cloud, port, host=host)
        self.changed(is_seen=is_seen)

    @rule(group=st.sampled_from((None, "rack", "row")), is_seen=st.booleans())
    def change_host_group(self, group: str | None, *, is_seen: bool) -> None:
        """The ports of the host are published with its group, or by themselves again."""
        self.lab.cloud.set_host_group(HERE, group)
        self.changed(is_seen=is_seen)

    @rule(order=st.permutations(range(6)))
    def publish(self, order: list[int]) -> None:
        """Write what has changed, slice by slice in some order."""
        wanted = self.lab.cloud.slices()
        names = sorted(
            {*wanted, *self.lab.store.names},
            key=lambda name: (order[zlib.crc32(name.encode()) % len(order)], name),
        )
        for name in names:
            self.lab.publish_slice(name, wanted.get(name, {}))
        self.vpc = published(self.lab.cloud)

    def changed(self, *, is_seen: bool) -> None:
        """With ``is_seen`` live connections meet this change alone; otherwise several together."""
        if is_seen:
            if len(self.live) < 3:
                self.settle()
                for src, dst in itertools.permutations(LOCAL, 2):
                    self.connect(src, dst, 4 + self.next_port % 2 * 2, 80)
            self.lab.publish()
            self.vpc = published(self.lab.cloud)
            self.everybody_goes_on(is_reply_first=self.next_port % 2 == 0)

    @rule(name=st.sampled_from(("sg/g1", "host/here", "vpc/vpc-1", "nbr/vpc-1/10.0.1.0")))
    def forget_changes(self, name: str) -> None:
        self.lab.store.forget_changes(name)

    # -- what the source says --------------------------------------------------------------------

    @precondition(lambda self: not self.host.delayed)
    @rule()
    def delay(self) -> None:
        self.host.delayed = True

    @precondition(lambda self: self.host.feed.inbox)
    @rule(at=st.integers(0, 9), keep=st.booleans())
    def deliver_one(self, at: int, *, keep: bool) -> None:
        self.host.deliver_one(min(at, len(self.host.feed.inbox) - 1), keep=keep)

    @precondition(lambda self: self.host.feed.inbox)
    @rule(at=st.integers(0, 9))
    def lose_one(self, at: int) -> None:
        """Deltas get lost; who asked a question asks it again."""
        inbox = self.host.feed.inbox
        at = min(at, len(inbox) - 1)
        if isinstance(inbox[at], Delta):
            del inbox[at]
            self.is_unaware = True

    @precondition(lambda self: self.host.feed.error is None)
    @rule()
    def lose_source(self) -> None:
        self.host.feed.lose("the source is away")

    @rule()
    def settle(self) -> None:
        """Everything that is on its way arrives, and what was lost is noticed."""
        host = self.host
        if host.batching:
            host.end_batch()
        if host.is_dead:
            host.start_agent(first_epoch=self.next_port * 1000)
        if host.feed.error is not None:
            host.feed.come_back()
        host.delayed = False
        host.read_on()
        host.deliver()
        host.feed.remind()
        host.deliver()
        self.is_unaware = False
        self.pause()

    def pause(self) -> None:
        """What the engine does by and by has been done."""

    # -- interfaces, switch, time ----------------------------------------------------------------

    @rule(port=_local)
    def plug(self, port: str) -> None:
        """It comes, or it comes back under another number."""
        self.host.plug(port)

    @rule(port=_local)
    def unplug(self, port: str) -> None:
        if port in self.host.plugged:
            self.host.unplug(port)

    @rule(ofport=st.sampled_from((1, 2, 0)))
    def change_tunnel(self, ofport: int) -> None:
        self.host.plug_tunnel(ofport)

    @precondition(lambda self: not self.host.batching and not self.host.is_dead)
    @rule()
    def kill_agent(self) -> None:
        self.host.kill_agent()
        self.host.delayed = False
        self.is_unaware = False

    @precondition(lambda self: self.host.is_dead and not self.host.batching)
    @rule(fresh=st.booleans(), is_slow=st.booleans())
    def start_agent(self, *, fresh: bool, is_slow: bool) -> None:
        """It may find the source away, and a switch that takes its time to tell what it holds."""
        self.host.tells_slowly = is_slow
        self.host.start_agent(first_epoch=self.next_port * 1000, fresh=fresh)

    @precondition(lambda self: self.host.is_reading and not self.host.batching)
    @rule(count=st.sampled_from((1, 5, 20, 100)))
    def read_on(self, count: int) -> None:
        self.host.read_on(count)

    @precondition(lambda self: not self.host.batching and not self.host.is_dead)
    @rule(is_restart=st.booleans(), is_slow=st.booleans())
    def reconnect(self, *, is_restart: bool, is_slow: bool) -> None:
        self.host.tells_slowly = is_slow
        if is_restart:
            self.host.restart_switch()
            self.live.clear()
        else:
            self.host.reconnect()

    @precondition(lambda self: not self.host.batching)
    @rule(seconds=st.sampled_from((0.5, 3.0, 11.0, 61.0, 130.0)))
    def advance(self, seconds: float) -> None:
        self.lab.advance(seconds)

    @precondition(lambda self: not self.host.batching)
    @rule()
    def begin_batch(self) -> None:
        self.host.begin_batch()

    @precondition(lambda self: self.host.batching)
    @rule()
    def end_batch(self) -> None:
        self.host.end_batch()

    # -- traffic ---------------------------------------------------------------------------------

    @rule(family=_family, tp_dst=_tp_dst)
    def everybody_connects(self, family: int, tp_dst: int) -> None:
        self.settle()
        for src, dst in itertools.permutations(PORTS, 2):
            if src in LOCAL:
                self.connect(src, dst, family, tp_dst)
            elif dst in LOCAL:
                self.come_in(src, dst, family, tp_dst)

    @rule(src=_local, dst=_any_port, family=_family, tp_dst=_tp_dst)
    def connect(self, src: str, dst: str, family: int, tp_dst: int) -> None:
        """A first packet, and if it arrives here the rest of a handshake."""
        sender, target = spec_of(self.vpc, src), spec_of(self.vpc, dst)
        if src == dst or sender is None or target is None or src not in self.host.plugged:
            return
        ips = fixed_ip(sender, family), fixed_ip(target, family)
        if ips[0] is None or ips[1] is None:
            return
        same = sender.subnet.id == target.subnet.id
        eth_dst = target.mac if same else sender.subnet.gateway_mac
        self.next_port += 1
        ends = (sender.mac, eth_dst, ips[0], ips[1])
        held = self.held
        sent = self.send(src, family, ends, self.next_port, tp_dst, SYN)
        arrived = [out for _, out in sent.moves.outcomes if isinstance(out, Tunnelled)]
        if self.is_quiet and src in held and self.is_shut(src):
            assert (sent.reached, arrived) == ([], [])
        if not self.is_quiet or src in self.held | held:
            return
        found = place(self.vpc, self.reference_host, sender, eth_dst, ips[1])
        expected: list[str] = []
        if src in self.active and may(self.vpc, sender, ips[1], tp_dst, egress=True):
            if found is not None and found.tunnel is not None:
                assert [out.tun_dst for out in arrived] == [found.tunnel]
                assert sent.reached == []
                return
            if found is not None and may(self.vpc, target, ips[0], tp_dst, egress=False):
                expected = [found.port]
        assert (sent.reached, arrived) == (expected, [])
        if dst in self.held:
            return
        if expected == [dst] and sender.port_security and target.port_security:
            back_mac = sender.mac if same else target.subnet.gateway_mac
            ends = (sender.mac, target.mac, ips[0], ips[1])
            zones = self.host.zone(src), self.host.zone(dst)
            live = Live(src, dst, family, self.next_port, tp_dst, zones, ends)
            assert self.answers(live, SYN | ACK, back_mac).reached == [src]
            assert self.goes_on(live, eth_dst).reached == [dst]
            self.live.append(live)

    @precondition(lambda self: self.live)
    @rule(is_reply_first=st.booleans())
    def everybody_goes_on(self, *, is_reply_first: bool) -> None:
        self.settle()
        if self.is_quiet:
            for live in list(self.live):
                # Where both ports are in none, it goes on; else it may wait to be judged anew.
                if not {live.src, live.dst} & self.held:
                    self.go_on(live, is_reply_first=is_reply_first)

    def go_on(self, live: Live, *, is_reply_first: bool) -> None:
        """A live connection passes while both ends allow it, and is cut when one does not."""
        sender, target = spec_of(self.vpc, live.src), spec_of(self.vpc, live.dst)
        if sender is None or target is None or not self.is_the_same(live):
            self.live.remove(live)
            return
        same = sender.subnet.id == target.subnet.id
        eth_dst = target.mac if same else sender.subnet.gateway_mac
        back_mac = sender.mac if same else target.subnet.gateway_mac
        _, _, src_ip, dst_ip = live.ends
        allowed = may(self.vpc, sender, dst_ip, live.tp_dst, egress=True) and may(
            self.vpc, target, src_ip, live.tp_dst, egress=False
        )
        for is_reply in (is_reply_first, not is_reply_first):
            if is_reply:
                reached = self.answers(live, ACK, back_mac).reached
                assert reached == ([live.src] if allowed else [])
            else:
                reached = self.goes_on(live, eth_dst).reached
                assert reached == ([live.dst] if allowed else [])

    @rule(src=st.sampled_from(REMOTE), dst=_local, family=_family, tp_dst=_tp_dst)
    def come_in(self, src: str, dst: str, family: int, tp_dst: int) -> None:
        """A first packet out of the tunnel."""
        sender, target = spec_of(self.vpc, src), spec_of(self.vpc, dst)
        if sender is None or target is None or not self.host.tunnel_port:
            return
        ips = fixed_ip(sender, family), fixed_ip(target, family)
        if ips[0] is None or ips[1] is None:
            return
        same = sender.subnet.id == target.subnet.id
        eth_src = sender.mac if same else target.subnet.gateway_mac
        self.next_port += 1
        frame = _tcp(family, (eth_src, target.mac, *ips), self.next_port, tp_dst, SYN)  # type: ignore[arg-type]
        sent = self.lab.from_tunnel(HERE, target.subnet.vni, frame, THERE)
        if self.is_quiet:
            allowed = dst in self.active and may(self.vpc, target, ips[0], tp_dst, egress=False)
            assert sent.reached == ([dst] if allowed else [])

    @rule(src=_local, dst=_any_port, family=_family)
    def ask(self, src: str, dst: str, family: int) -> None:
        """A question by ARP or ND; nobody but the asker ever hears of it."""
        vm = self.lab.frames(family)
        sender, target = spec_of(self.vpc, src), spec_of(self.vpc, dst)
        if sender is None or target is None or src not in self.host.plugged:
            return
        wanted = fixed_ip(target, family)
        own = fixed_ip(sender, family)
        if wanted is None or own is None:
            return
        change = {"spa": own} if family == 4 else {"src": own}
        if fixed_ip(self.lab.cloud.port_spec(src), family) is None:
            return
        held = self.held
        sent = self.lab.send(src, vm.who_has(src, wanted, **change))
        assert set(sent.reached) <= {src}
        if self.is_quiet and src in self.active and src not in self.held | held:
            known = src != dst and sender.subnet.id == target.subnet.id
            assert sent.reached == ([src] if known else [])

    @rule(src=_local, is_rarp=st.booleans())
    def announce(self, src: str, *, is_rarp: bool) -> None:
        """A VM that came from another host says where it is; nobody hears of it but the agent."""
        sender = spec_of(self.vpc, src)
        if sender is None or src not in self.host.plugged:
            return
        ip = fixed_ip(sender, 4)
        if is_rarp:
            request = build_arp(opcode=3, sha=sender.mac, spa=NO_IP, tha=sender.mac, tpa=NO_IP)
            frame = sender.mac.join((b"\xff" * 6, ETH_RARP.to_bytes(2, "big"))) + request[14:]
        elif ip is not None:
            frame = build_arp(sha=sender.mac, spa=ip, tpa=ip)
        else:
            return
        assert self.lab.send(src, frame).reached == []

    # -- truth -----------------------------------------------------------------------------------

    @invariant()
    def everything_installed_is_true(self) -> None:
        self.host.is_unaware = self.is_unaware or self.host.is_reading
        self.lab.check()

    def teardown(self) -> None:
        self.settle()
        self.everything_installed_is_true()

    # -- inside ----------------------------------------------------------------------------------

    @property
    def active(self) -> set[str]:
        """Ports that are bound here and plugged."""
        here = {port.id for port in self.vpc.ports if port.host.id == HERE}
        return here & set(self.host.plugged)

    @property
    def held(self) -> set[str]:
        """Ports in quarantine."""
        return set(self.host.engine.quarantined)

    def is_shut(self, port: str) -> bool:
        """Whether quarantine ends all new flows of the port (test_quarantine_gaps tells of the others)."""
        local = self.host.engine.world.ports[port]
        return local.record.port_security

    @property
    def reference_host(self) -> Host:
        return Host(parse_ip(TUNNELS[HERE]), self.active)

    def is_the_same(self, live: Live) -> bool:
        """Nothing was changed that makes another connection of it."""
        host = self.host
        if not {live.src, live.dst} <= self.active:
            return False
        sender, target = spec_of(self.vpc, live.src), spec_of(self.vpc, live.dst)
        if sender is None or target is None:
            return False
        family = live.family
        ends = (sender.mac, target.mac, fixed_ip(sender, family), fixed_ip(target, family))
        zones = host.zone(live.src), host.zone(live.dst)
        return (
            (zones, ends) == (live.zones, live.ends)
            and sender.port_security
            and target.port_security
        )

    def send(
        self,
        port: str,
        family: int,
        ends: tuple[bytes, bytes, bytes, bytes],
        tp_src: int,
        tp_dst: int,
        flags: int,
    ) -> Sent:
        return self.lab.send(port, _tcp(family, ends, tp_src, tp_dst, flags))

    def goes_on(self, live: Live, eth_dst: bytes) -> Sent:
        src_mac, _, src_ip, dst_ip = live.ends
        ends = (src_mac, eth_dst, src_ip, dst_ip)
        return self.send(live.src, live.family, ends, live.tp_src, live.tp_dst, ACK)

    def answers(self, live: Live, flags: int, eth_dst: bytes) -> Sent:
        _, dst_mac, src_ip, dst_ip = live.ends
        ends = (dst_mac, eth_dst, dst_ip, src_ip)
        return self.send(live.dst, live.family, ends, live.tp_dst, live.tp_src, flags)


class TightWalk(Walk):
    """So little room for neighbors that records leave the cache all the time."""

    cache_bytes = 9 * 800

    def pause(self) -> None:
        self.lab.advance(UNWATCHED_BUMP_S)


class IdleWalk(Walk):
    """Rules and the records that they rest on leave soon, in any order."""

    limits = Settings(
        max_rules=100,
        max_rules_per_port=25,
        verdict_idle_s=1,
        location_idle_s=4,
        neighbor_idle_s=2,
    )

    @precondition(lambda self: not self.host.batching)
    @rule(ticks=st.integers(1, 8))
    def tick(self, ticks: int) -> None:
        for _ in range(ticks):
            self.lab.advance(0.6)


class FloodWalk(Walk):
    """A few packets that lead nowhere put their port in quarantine."""

    limits = Settings(
        max_rules=100, max_rules_per_port=25, flood_rate=10, flood_burst=40, quarantine_max_s=4
    )

    @rule(src=_local, family=_family, count=st.integers(1, 15))
    def scan(self, src: str, family: int, count: int) -> None:
        """First packets to addresses that nobody has."""
        sender = spec_of(self.vpc, src)
        if sender is None or src not in self.host.plugged:
            return
        ip = fixed_ip(sender, family)
        for number in range(count if ip is not None else 0):
            target = parse_ip(
                f"10.0.2.{100 + number}" if family == 4 else f"fd00:2::{100 + number}"
            )
            ends = (sender.mac, sender.subnet.gateway_mac, ip, target)
            self.next_port += 1
            sent = self.send(src, family, ends, self.next_port, 80, SYN)
            assert sent.reached == []


def _tcp(
    family: int, ends: tuple[bytes, bytes, bytes, bytes], tp_src: int, tp_dst: int, flags: int
) -> bytes:
    eth_src, eth_dst, src, dst = ends
    build = build_tcp4 if family == 4 else build_tcp6
    return build(
        src=src,
        dst=dst,
        eth_src=eth_src,
        eth_dst=eth_dst,
        tp_src=tp_src,
        tp_dst=tp_dst,
        flags=flags,
    )


# HYPOTHESIS_PROFILE=explore takes other ways in each run, and looks for the shortest one that fails,
# which may take minutes.
_is_exploring = os.environ.get("HYPOTHESIS_PROFILE") == "explore"

_settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    derandomize=not _is_exploring,
    phases=(
        Phase.explicit,
        Phase.reuse,
        Phase.generate,
        *((Phase.shrink,) if _is_exploring else ()),
    ),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

TestWalk = Walk.TestCase
TestWalk.settings = _settings
TestFloodWalk = FloodWalk.TestCase
TestFloodWalk.settings = settings(_settings, max_examples=15)
TestIdleWalk = IdleWalk.TestCase
TestIdleWalk.settings = settings(_settings, max_examples=25)
TestTightWalk = TightWalk.TestCase
TestTightWalk.settings = settings(_settings, max_examples=15)

"""What changes while traffic goes on: a rule is removed and comes back, a port is unplugged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mininet_topos.demo_deny import denied_both
from mininet_topos.demo_lab import DemoLab
from mininet_topos.demo_model import Experiment, Promise, Seen, all_of
from mininet_topos.demo_reach import ping_seen
from mininet_topos.demo_state import ADMIN, ADMIN_RULES, HTTP, VM, VMS
from mininet_topos.traffic_node import Stream

THEME: Final = "Changes under live traffic"

#: Seconds within which a connection that is allowed no longer must stand still.
CUT_S: Final = 1.0
#: Seconds. The streams send every 20 ms; TCP would take 0.2 s to repair a single loss (RFC 6298
#: section 2.4 asks for 1 s, Linux takes 200 ms), and a lab on two cores is now and then late.
PAUSE_S: Final = 0.5

_WATCHED_S: Final = 2.0
_POLL_S: Final = 0.01


def change_experiments() -> Iterator[Experiment[DemoLab]]:
    yield Experiment(
        (
            Promise(
                THEME, "a rule is removed, its connection lives", f"it is cut within {CUT_S:g} s"
            ),
            Promise(THEME, "the allowed connection beside it", "goes on without a pause"),
            Promise(THEME, "a new connection to that port", "dropped, though a server listens"),
            Promise(THEME, "the rule comes back", "the very connection goes on"),
        ),
        _remove_rule,
    )
    yield Experiment(
        (
            Promise(THEME, "a port is unplugged", "not reached, no rule of it stays"),
            Promise(THEME, "the port is plugged in again", "works as before"),
        ),
        _replug,
    )


@dataclass(frozen=True, slots=True)
class Watched:
    """A stream as it was seen from a moment on.

    Attributes:
        last_s: seconds after that moment at which bytes came back for the last time; 0 for never.
        longest_gap_s: the longest time without bytes, up to the end of watching.
        echoed: bytes that came back after that moment.
    """

    last_s: float
    longest_gap_s: float
    echoed: int


def watch(streams: Sequence[Stream], seconds: float) -> list[Watched]:
    """Look at streams for so long; the moment is the call."""
    start_s = time.monotonic()
    before = [stream.now.echoed for stream in streams]
    held = list(before)
    last_s = [0.0] * len(streams)
    gap_s = [0.0] * len(streams)
    while (now_s := time.monotonic() - start_s) < seconds:
        for number, stream in enumerate(streams):
            echoed = stream.now.echoed
            gap_s[number] = max(gap_s[number], now_s - last_s[number])
            if echoed > held[number]:
                held[number], last_s[number] = echoed, now_s
        time.sleep(_POLL_S)
    return [
        Watched(last, gap, after - first)
        for last, gap, after, first in zip(last_s, gap_s, held, before, strict=True)
    ]


def cut_seen(watched: Watched) -> Seen:
    """Whether a connection stood still soon enough, and stayed so."""
    text = f"last byte after {watched.last_s * 1000:.0f} ms"
    return Seen(watched.last_s <= CUT_S, text)


def goes_on_seen(watched: Watched) -> Seen:
    """Whether bytes came all the time."""
    text = f"longest pause {watched.longest_gap_s * 1000:.0f} ms"
    return Seen(watched.echoed > 0 and watched.longest_gap_s <= PAUSE_S, text)


def resumed_seen(watched: Watched, *, resumed: bool) -> Seen:
    """Whether a connection that stood still goes on."""
    if not cut_seen(watched).ok:
        return Seen(ok=False, text="it had not been cut")
    return Seen(resumed, "bytes flow again" if resumed else "no bytes any more")


def _remove_rule(lab: DemoLab) -> Sequence[Seen]:
    source, target = "client-2", "web-1"
    address = VM[target].ips[0]
    doomed = lab.stream(source, address, ADMIN)
    allowed = lab.stream(source, address, HTTP)
    try:
        lab.publish(without_rules=ADMIN_RULES)
        cut, kept = watch((doomed, allowed), _WATCHED_S)
        fresh = denied_both(lab, source, target, ADMIN)
        lab.publish()
        # TCP tries again at growing intervals; the next try is at most as far away as the cut is.
        resumed = doomed.wait_for_progress(timeout_s=4 * _WATCHED_S)
    finally:
        lab.publish()
        doomed.stop()
        allowed.stop()
        lab.note(source, address)
    return cut_seen(cut), goes_on_seen(kept), fresh, resumed_seen(cut, resumed=resumed)


def _replug(lab: DemoLab) -> Sequence[Seen]:
    name, other = "batch-3", "db-3"
    vm, own = lab.vms[name], VM[name]
    agent = lab.agents[own.host]
    here = {known.name for known in VMS if known.host == own.host}
    before = lab.ping(other, own.ips[0])
    zone = lab.zone_of(own.host, vm.ofport)
    rules_before = lab.rules_of_zone(own.host, zone)
    vm.unplug()
    is_gone = agent.wait_for_ports(here - {name})
    during = lab.ping(other, own.ips[0])
    rules = lab.rules_of_zone(own.host, zone)
    vm.plug(name)
    is_back = agent.wait_for_ports(here)
    after = [
        ping_seen("IPv4 to it", lab.ping(other, own.ips[0])),
        ping_seen("IPv6 from it", lab.ping(name, VM[other].ips[1])),
    ]
    gone = Seen(
        before.all_answered and is_gone and during.received == 0 and rules == 0 < rules_before,
        f"{before.received} of {before.sent} pings, then {during.received} of {during.sent}; "
        f"{rules_before} rules, then {rules}",
    )
    if not is_back:
        after.append(Seen(ok=False, text="the agent does not serve it"))
    return gone, all_of(*after)

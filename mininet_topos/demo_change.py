"""What changes while traffic goes on: a rule is removed and comes back, a port is unplugged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from mininet_topos.attempts import ping_seen
from mininet_topos.demo_deny import denied_both
from mininet_topos.demo_lab import DemoLab
from mininet_topos.demo_state import ADMIN, ADMIN_RULES, HTTP, VM, VMS
from mininet_topos.flow_seen import cut_seen, goes_on_seen
from mininet_topos.load import FlowSeen, FlowSpec, loads
from mininet_topos.promises import Promise, Seen, Trial, all_of

THEME: Final = "Changes under live traffic"

#: Seconds within which a connection that is allowed no longer must stand still.
CUT_S: Final = 1.0
#: Seconds; a lab with three hosts on two cores is now and then late.
PAUSE_S: Final = 0.5

_WATCHED_S: Final = 2.0


def change_trials() -> Iterator[Trial[DemoLab]]:
    yield Trial(
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
    yield Trial(
        (
            Promise(THEME, "a port is unplugged", "not reached, no rule of it stays"),
            Promise(THEME, "the port is plugged in again", "works as before"),
        ),
        _replug,
    )


def resumed_seen(cut: Seen, later: FlowSeen) -> Seen:
    """Whether a connection that stood still goes on."""
    if not cut.ok:
        return Seen(ok=False, text="it had not been cut")
    ok = later.echoed > 0 and later.is_alive
    return Seen(ok, "bytes flow again" if ok else "no bytes any more")


def _remove_rule(lab: DemoLab) -> Sequence[Seen]:
    source, target = "client-2", "web-1"
    address = VM[target].ips[0]
    specs = [
        FlowSpec(f"TCP {port}", source, target, "tcp", address, port) for port in (ADMIN, HTTP)
    ]
    lab.note(source, address)
    with loads(lab.vms, specs) as streams:
        try:
            start_s = time.monotonic()
            lab.publish_without(ADMIN_RULES)
            doomed, allowed = streams.watch(_WATCHED_S)
            fresh = denied_both(lab, source, target, ADMIN)
            streams.mark()
            lab.publish_without(())
            # TCP tries again at growing intervals; the next try is at most as far away as the cut is.
            later, _ = streams.wait(lambda flows: flows[0].echoed > 0, timeout_s=4 * _WATCHED_S)
        finally:
            lab.publish_without(())
    lab.note(source, address)
    cut = cut_seen([doomed], start_s, bound_s=CUT_S)
    kept = goes_on_seen([allowed], longest_s=PAUSE_S)
    return cut, kept, fresh, resumed_seen(cut, later)


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

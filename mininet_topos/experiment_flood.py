"""``flood``: one VM scans addresses and ports as fast as it can; the others should not notice.

A VM on the same host goes on opening new connections, to a local server and to one over VXLAN. Quiet
intervals and intervals with the scan take turns, so that whatever else the machine does hits both
alike, and their medians are compared.

The lab's machine has fewer cores than a compute host. So the switch that is scanned has one that nothing
else runs on, and the sender of the scan runs only when the others leave time (``cores``), in quiet intervals
as well.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median
from types import TracebackType
from typing import Final, Self

from mininet_topos.conduct import Performance, log_phase
from mininet_topos.cores import Cores
from mininet_topos.experiment_flows import begin
from mininet_topos.experiment_lab import ExperimentLab
from mininet_topos.flood_seen import (
    FULL,
    PACE,
    QUICK,
    Form,
    Interval,
    latency_seen,
    rate_seen,
    told,
)
from mininet_topos.flood_state import FRESH_COUNT, FRESH_FIRST, GOAL, SCANS, Scan, flow_specs
from mininet_topos.flow_seen import (
    NO_LOSS,
    NO_PAUSE,
    goes_on_seen,
    lives_seen,
    no_loss_seen,
    of,
)
from mininet_topos.load import LoadError
from mininet_topos.probe import probe, pulse, pulses, reflect
from mininet_topos.processes import Background
from mininet_topos.promises import Measurement, Promise, Seen, Trial, all_of, check
from mininet_topos.switch_cost import cost, over_meter
from mininet_topos.trials import Phase
from mininet_topos.vm import VM_INTERFACE

_HEADLINE: Final = "Two compute hosts; one VM scans as fast as it can, another opens connections."

_QUICK_NOTE: Final = (
    "the promises of the short form are wider than those of the full form: p99 at most"
    f" {QUICK.latency:g} times as long instead of {FULL.latency:g}, {QUICK.rate:.0%} of the rate instead"
    f" of {FULL.rate:.0%}"
)

#: Rules of what was asked once leave before their port's turn comes again.
_IDLE_S: Final = 10
_SETTINGS: Final = {"rules": {"verdict_idle_s": _IDLE_S}}

#: Rules that the switch may hold in all: what one port may have alone by default.
RULES: Final = 50_000
#: MiB by which the agent may grow in the scans after the first. Of the scanner stay a few thousand rules
#: that drop, a kilobyte each at most, and as many of who asks; a leak of 20 bytes a frame would be 100 MiB.
GROWTH_MIB: Final = 8.0
#: Frames a second without which a scan is no flood: several times what a port may ask the agent.
FRAMES: Final = 20_000
_WINDOW: Final = 16
#: A scan's process needs so long to begin.
_START_S: Final = 0.3


class FloodLab(ExperimentLab):
    """Knows which port's turn it is, and how the agent has grown."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        super().__init__(GOAL, hosts=2, progress=progress, settings=_SETTINGS)
        self.cores = Cores()
        self._around = ExitStack()
        self._next = 0
        #: By scan, after each of its floods.
        self.memory_mib: dict[str, list[float]] = {}
        self.rules_seen: list[int] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.cores)
            super().__enter__()
            self._around = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._around:
            super().__exit__(kind, error, trace)

    def ports(self, count: int) -> int:
        """The first of ``count`` ports that were not used lately."""
        if self._next + count > FRESH_COUNT:
            self._next = 0
        first, self._next = FRESH_FIRST + self._next, self._next + count
        return first


def performance(*, quick: bool) -> Performance[FloodLab]:
    form = QUICK if quick else FULL
    return Performance(
        headline=_HEADLINE,
        lab=FloodLab,
        phases=(
            Phase("streams begin", (check("Streams", "all", "live", _begin),)),
            *(
                Phase(f"quiet and {scan.what} take turns", (_scanned(scan, form),))
                for scan in SCANS
            ),
            Phase("what is left of it", (_after(),)),
            log_phase(),
        ),
        explain=("asker", f"udp,nw_dst={GOAL.station('server').ips[0]},tp_dst={FRESH_FIRST}"),
        note=_QUICK_NOTE if quick else "",
    )


def _begin(lab: FloodLab) -> Seen:
    for name in ("server", "afar"):
        reflect(lab.vms[name], first=FRESH_FIRST, count=FRESH_COUNT)
    seen = begin(lab, flow_specs(), interval_s=0.01, for_s=600.0)
    forwarding = lab.host(1).vswitchd_pid
    if forwarding is None:
        raise LoadError("ovs-vswitchd of h1 does not run")
    lab.cores.give_one(forwarding)
    # What is done for the first time takes longer.
    _measure(lab, QUICK)
    return seen


def _scanned(scan: Scan, form: Form) -> Trial[FloodLab]:
    # Where others work on the machine too, a core that is away for 200 ms looks like a pause.
    streams = goes_on_seen if form.unnoticed else lives_seen
    streams_go_on = NO_PAUSE if form.unnoticed else "TCP goes on, no reset"
    theme = scan.what

    def look(lab: FloodLab) -> Sequence[Seen]:
        lab.loads.mark()
        quiet, flood, sent = [], [], []
        for _ in range(form.turns):
            quiet.append(_interval(lab, form))
            scanning = _start(lab, scan, form)
            flood.append(_interval(lab, form))
            sent.append(_rate(scanning))
            memory = lab.memory_mib.setdefault(scan.what, [])
            memory.append(lab.agents[1].memory_mib())
        seen = lab.loads.seen()
        lab.measurements += told(scan, quiet, flood, sent)
        victims = of(seen, "victim")
        return (
            latency_seen(quiet, flood, form),
            rate_seen(quiet, flood, form),
            all_of(streams(of(victims, protocol="tcp")), no_loss_seen(of(victims, protocol="udp"))),
            lives_seen(of(seen, "own")),
            Seen(median(sent) >= FRAMES, f"{median(sent):,.0f}/s"),
        )

    return Trial(
        (
            Promise(
                theme,
                f"{theme}: first packets of others",
                f"p99 at most {form.latency:g} times as long",
            ),
            Promise(
                theme,
                f"{theme}: new flows of others",
                f"{PACE:,}/s asked for, {form.rate:.0%} of the quiet rate, at least",
            ),
            Promise(theme, f"{theme}: streams of others", f"{streams_go_on}; {NO_LOSS}"),
            Promise(theme, f"{theme}: the scanner's own connection", "goes on"),
            Promise(theme, f"{theme}: frames of the scanner", f"{FRAMES:,}/s, at least"),
        ),
        look,
    )


def _after() -> Trial[FloodLab]:
    theme = "Afterwards"

    def look(lab: FloodLab) -> Sequence[Seen]:
        memory, rules = lab.memory_mib, lab.rules_seen
        if len(memory) < 2:
            raise LoadError("no scans have been run")
        counters = lab.agents[1].status["counters"]
        held: Counter[str] = Counter(counters.get("quarantined", {}))
        dropped = over_meter(lab.host(1), {lab.zone(n): n for n in lab.agents[1].ports})
        lab.measurements += [
            Measurement("rules in the switch", "rules", {"at most": float(max(rules))}),
            Measurement(
                "the agent's memory, at most",
                "MiB",
                {what: max(them) for what, them in memory.items()},
            ),
        ]
        first, *later = (max(them) for them in memory.values())
        return (
            Seen(max(rules) <= RULES, f"at most {max(rules):,}"),
            Seen(
                max(later) - first <= GROWTH_MIB,
                f"{first:.1f} MiB in the first scan, then up to {max(later):.1f}",
            ),
            all_of(
                Seen(set(held) == {"scanner"}, f"quarantined {_named(held)}"),
                Seen(set(dropped) <= {"scanner"}, f"over the meter {_named(dropped)}"),
            ),
        )

    return Trial(
        (
            Promise(theme, "rules in the switch", f"{RULES:,} at most"),
            Promise(
                theme,
                "the agent's memory",
                f"grows by {GROWTH_MIB:g} MiB at most after the first scan",
            ),
            Promise(theme, "the counters", "name the scanner and nobody else"),
        ),
        look,
    )


# One interval -------------------------------------------------------------------------------------


def _interval(lab: FloodLab, form: Form) -> Interval:
    start_s = time.monotonic()
    before = cost(lab.host(1), lab.agents[1])
    found = _measure(lab, form)
    found.used = cost(lab.host(1), lab.agents[1]).since(before)
    lab.rules_seen.append(lab.host(1).rule_count())
    time.sleep(max(0.0, form.interval_s - (time.monotonic() - start_s)))
    return found


def _measure(lab: FloodLab, form: Form) -> Interval:
    found = Interval()
    for place, name in (("local", "server"), ("VXLAN", "afar")):
        address, asker = GOAL.station(name).ips[0], lab.vms["asker"]
        one = probe(asker, address, first=lab.ports(form.asked), count=form.asked)
        paced = pulse(
            asker, address, first=lab.ports(form.opened), count=form.opened, interval_s=1 / PACE
        )
        opened = pulses(paced, timeout_s=_START_S + 20.0)
        burst = probe(asker, address, first=lab.ports(form.burst), count=form.burst, window=_WINDOW)
        found.p99_ms[place] = one.rtts_ms.get("p99", float("inf"))
        found.p50_ms[place] = one.rtts_ms.get("p50", float("inf"))
        found.rate[place] = opened.rate
        found.burst[place] = burst.rate
        found.missing += one.sent - one.received + opened.lost + burst.sent - burst.received
    return found


def _start(lab: FloodLab, scan: Scan, form: Form) -> Background:
    scanner = lab.vms["scanner"]
    started = scanner.scan(
        scan.kind,
        VM_INTERFACE,
        GOAL.station("scanner").ips[0],
        to=scan.to,
        mac=scan.mac,
        for_s=form.interval_s + _START_S,
    )
    lab.cores.run_when_idle(started.pid)
    time.sleep(_START_S)
    return started


def _rate(scanning: Background) -> float:
    scanning.wait(20.0)
    told = json.loads(scanning.output().splitlines()[-1])
    return float(told["sent"] / told["seconds"])


def _named(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common()) or "nobody"

"""What is measured in the intervals of ``flood``, and how quiet ones and floods are compared."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from mininet_topos.flood_state import Scan
from mininet_topos.promises import Measurement, Seen, all_of


@dataclass(frozen=True, slots=True)
class Form:
    """The long or the short form.

    Attributes:
        turns: quiet and flood intervals for each scan.
        interval_s: how long each lasts at least.
        asked: first packets measured one after the other, for each place.
        opened: flows begun at ``PACE``, for each place.
        burst: flows begun as fast as answers come, for each place.
        latency: times as long as without the flood that p99 may be.
        rate: part of the rate without the flood that must be left.
        unnoticed: TCP of others must not notice the flood at all, and not only go on.
    """

    turns: int
    interval_s: float
    asked: int
    opened: int
    burst: int
    latency: float
    rate: float
    unnoticed: bool


#: New flows a second that one VM opens: a quarter of what a port may for ever (``flood_rate``), and less
#: than two small cores can set up for two hosts. What a burst reaches says more of the cores that are left.
PACE: Final = 1_000

FULL: Final = Form(10, 2.0, 150, 500, 250, latency=2.0, rate=0.9, unnoticed=True)
#: A short look, maybe on a busy machine, most of it at the beginning of a scan.
QUICK: Final = Form(3, 1.0, 100, 200, 150, latency=20.0, rate=0.5, unnoticed=False)


@dataclass(slots=True)
class Interval:
    """What was measured, by place: ``local`` and ``VXLAN``.

    Attributes:
        p99_ms: of first packets, which go one after the other.
        p50_ms: the same.
        rate: flows that came to be, a second, of ``PACE``.
        burst: the same, of a burst.
        missing: flows that did not.
        used: shares of a core and rates (``Cost.since``).
    """

    p99_ms: dict[str, float] = field(default_factory=dict)
    p50_ms: dict[str, float] = field(default_factory=dict)
    rate: dict[str, float] = field(default_factory=dict)
    burst: dict[str, float] = field(default_factory=dict)
    missing: int = 0
    used: dict[str, float] = field(default_factory=dict)


def latency_seen(quiet: Sequence[Interval], flood: Sequence[Interval], form: Form) -> Seen:
    """Whether first packets of a flood take as long as without, but for a factor."""
    return all_of(
        *(
            _compared(
                place,
                [one.p99_ms[place] for one in quiet],
                [one.p99_ms[place] for one in flood],
                "{:.1f} ms",
                lambda ratio: ratio <= form.latency,
            )
            for place in flood[0].p99_ms
        )
    )


def rate_seen(quiet: Sequence[Interval], flood: Sequence[Interval], form: Form) -> Seen:
    """Whether as many flows come to be as without a flood, but for a part."""
    return all_of(
        *(
            _compared(
                place,
                [one.rate[place] for one in quiet],
                [one.rate[place] for one in flood],
                "{:,.0f}/s",
                lambda ratio: ratio >= form.rate,
            )
            for place in flood[0].rate
        )
    )


def _compared(
    place: str,
    quiet: Sequence[float],
    flood: Sequence[float],
    unit: str,
    holds: Callable[[float], bool],
) -> Seen:
    usual, now = median(quiet), median(flood)
    if not 0 < usual < math.inf:
        return Seen(ok=False, text=f"{place}: nothing came back without the flood")
    text = f"{place} {unit.format(now)}, else {unit.format(usual)} ({now / usual:.2f})"
    return Seen(holds(now / usual), text)


def told(
    scan: Scan,
    quiet: Sequence[Interval],
    flood: Sequence[Interval],
    sent: Sequence[float],
) -> Iterator[Measurement]:
    """Figures of the intervals: processor time, packets, the worst ones."""
    for them in (quiet, flood):
        keys = them[0].used
        values = {key: median(one.used[key] for one in them) for key in keys}
        values |= {f"p50 {p} (ms)": median(one.p50_ms[p] for one in them) for p in them[0].p50_ms}
        values |= {
            f"burst {p} (flows/s)": median(one.burst[p] for one in them) for p in them[0].burst
        }
        values |= {
            f"worst p99 {p} (ms)": max(one.p99_ms[p] for one in them) for p in them[0].p99_ms
        }
        values["flows lost"] = float(sum(one.missing for one in them))
        if them is flood:
            values["frames sent/s"] = median(sent)
            values["load of the machine (1 min)"] = os.getloadavg()[0]
        name = f"{scan.what}: {'quiet intervals' if them is quiet else 'flood intervals'}"
        yield Measurement(name, "", values)

"""The contenders at one size, one after the other, each with processes of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from controller_app.nats_subjects import Subjects
from mininet_topos.lab_run import LabRun
from ondemand.slices import group_slice
from scale.bare import BareCrowd
from scale.crowd import Crowd
from scale.goal import Changes, Payloads, goal_bytes, slices_of
from scale.machine import cpu_s, rss_bytes
from scale.measure import CHANGE_TIMEOUT_S, Measurement, Program, Result, Step
from scale.origin import NatsOrigin, Origin, PushOrigin
from scale.region import COMMON, Region
from scale.statistics import Times
from scale.tables import size

PULL: Final = "slice source"
PUSH: Final = "push"
PULL_ALL: Final = "slice source, all neighbors"
#: A request of a simulated host is lost after this. Hosts share processors here as they do not elsewhere.
_TIMEOUT_S: Final = 20.0
_BARE_S: Final = 20.0


@dataclass(slots=True)
class Contest:
    """Runs contenders. ``say`` is told of progress, ``published`` of records that are published."""

    run: LabRun
    drivers: int
    audit_s: float
    say: Callable[[str], object]
    published: Callable[[int, int], None]
    _count: int = 0

    def pull(
        self,
        region: Region,
        slices: Mapping[str, Payloads],
        program: Program,
        *,
        bare: bool = False,
    ) -> Result:
        """Hosts follow the slice source."""
        name = PULL_ALL if region.everything else PULL
        with ExitStack() as stack:
            origin = NatsOrigin(self.run, self._name("nats"))
            stack.callback(origin.close)
            origin.publish_all(slices, self.published)
            result = Result(name, region.hosts, *_goal_bytes(region, slices))
            self._measure(origin, region, result, program)
            if bare:
                self.say(f"{region.hosts:,} bare sockets in the place of hosts")
                result.bare = self._bare(origin, region, program.group)
        return result

    def push(self, region: Region, slices: Mapping[str, Payloads], program: Program) -> Result:
        """Hosts are sent what they hold."""
        with ExitStack() as stack:
            origin = PushOrigin(self.run, self._name("pusher"), region)
            stack.callback(origin.close)
            result = Result(PUSH, region.hosts, *_goal_bytes(region, slices))
            self._measure(origin, region, result, program)
        return result

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{what}-{self._count}"

    def _measure(self, origin: Origin, region: Region, result: Result, program: Program) -> None:
        with ExitStack() as stack:
            crowd = Crowd(
                self.run,
                region,
                kind=origin.kind,
                target=origin.target,
                drivers=min(self.drivers, region.hosts),
                timeout_s=_TIMEOUT_S,
                audit_s=self.audit_s,
            )
            stack.callback(crowd.close)
            self.say(f"{result.contender}: {region.hosts:,} hosts, {size(result.goal_bytes)} each")
            Measurement(origin, crowd, result, say=self.say).run(program)

    def _bare(self, origin: NatsOrigin, region: Region, repeats: int) -> Step:
        live = Subjects(origin.store_stream).live(group_slice(COMMON))
        samples: list[float] = []
        walls: list[float] = []
        changes = Changes(region)
        with ExitStack() as stack:
            crowd = BareCrowd(self.run, origin.target, region.hosts, [live])
            stack.callback(crowd.close)
            before, cpu_before = origin.counters(), cpu_s(origin.pid)
            for _ in range(repeats):
                crowd.expect(_BARE_S)
                change = changes.make("group")
                began_s = time.monotonic()
                origin.publish(change)
                taken = [at_s - began_s for at_s in crowd.arrivals(_BARE_S)]
                samples += taken
                walls.append(max(taken, default=CHANGE_TIMEOUT_S))
            after, cpu_after = origin.counters(), cpu_s(origin.pid)
            return Step(
                title="the same at bare sockets",
                repeats=repeats,
                times=Times.of(samples or [CHANGE_TIMEOUT_S]),
                served=None,
                wall_s=sum(walls) / len(walls),
                messages=(after.messages - before.messages) / repeats,
                bytes=(after.bytes - before.bytes) / repeats,
                origin_cpu_s=(cpu_after - cpu_before) / repeats,
                driver_cpu_s=0.0,
                origin_rss=rss_bytes(origin.pid),
            )


def _goal_bytes(region: Region, slices: Mapping[str, Payloads]) -> tuple[int, int]:
    """What the first host holds, as all do about, and what it would hold with all neighbors."""
    sizes = {
        name: sum(len(key) + len(payload) for key, payload in records.items())
        for name, records in slices.items()
    }
    whole = replace(region, everything=True)
    return goal_bytes(region, 0, sizes), goal_bytes(whole, 0, sizes)


def goal_slices(region: Region, *, neighbors: bool = True) -> dict[str, Payloads]:
    """All slices of a region."""
    return dict(slices_of(region, neighbors=neighbors))


__all__ = ["PULL", "PULL_ALL", "PUSH", "Contest", "goal_slices"]
